/* A CUDA library that reports device memory which is not host memory. Its kernels are those of the CPU emulator that
 * the environment variable FAKE_DRIVER_KERNELS names. */
#include "../../../csrc/contract/backend.h"

#include <dlfcn.h>
#include <stdlib.h>

const ps3c_cuda_library *ps3c_cuda_open(const ps3c_cuda_host *host)
{
    static ps3c_cuda_library library;
    void *emulated = dlopen(getenv("FAKE_DRIVER_KERNELS"), RTLD_NOW | RTLD_LOCAL);
    ps3c_cuda_open_function *open = NULL;

    if (emulated)
        *(void **)&open = dlsym(emulated, "ps3c_cuda_open");
    const ps3c_cuda_library *kernels = open ? open(host) : NULL;
    if (!kernels)
        return NULL;
    library = *kernels;
    library.host_memory = false;
    return &library;
}
