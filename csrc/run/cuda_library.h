/* Where the CUDA backend comes from: libps3c_cuda.so, opened when the first CUDA tensor comes. */
#ifndef PS3C_CUDA_LIBRARY_H
#define PS3C_CUDA_LIBRARY_H

#include "../contract/backend.h"
#include "../contract/error.h"

/* The library: what the environment variable PS3C_CUDA_LIBRARY names, else libps3c_cuda.so beside the module or program
 * that holds the engine, else on the loader's path. RUNTIME error that says what is missing. It stays open. */
ps3c_status ps3c_cuda_library_find(ps3c_context *context, const ps3c_cuda_library **library);

/* True if the CPU emulator is loaded: then a tensor on the CPU is one on its device. */
bool ps3c_cuda_on_host(void);

#endif
