/* A libcuda.so.1 with the functions that shared_memory.c and the CUDA library call. FAKE_DRIVER_FAIL=name makes that
 * function fail. */
#include <stdlib.h>
#include <string.h>

enum { OUT_OF_MEMORY = 2, ILLEGAL_ADDRESS = 700 };

int fake_allocated, fake_released, fake_waited; /* successful calls */

static int fails(const char *name)
{
    const char *asked = getenv("FAKE_DRIVER_FAIL");
    return asked && strcmp(asked, name) == 0;
}

int cuMemAllocHost_v2(void **memory, size_t bytes)
{
    if (fails("cuMemAllocHost") || posix_memalign(memory, 4096, bytes) != 0)
        return OUT_OF_MEMORY;
    fake_allocated++;
    return 0;
}

int cuMemFreeHost(void *memory)
{
    if (fails("cuMemFreeHost"))
        return ILLEGAL_ADDRESS;
    free(memory);
    fake_released++;
    return 0;
}

int cuCtxSynchronize(void)
{
    if (fails("cuCtxSynchronize"))
        return ILLEGAL_ADDRESS;
    fake_waited++;
    return 0;
}

int cuGetErrorName(int error, const char **name)
{
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_ILLEGAL_ADDRESS";
    return 0;
}

/* The calling thread's context. The emulated runtime calls fake_make_current. */
static __thread void *current;

int cuCtxGetCurrent(void **context)
{
    *context = current;
    return 0;
}

int cuCtxSetCurrent(void *context)
{
    current = context;
    return 0;
}

void fake_make_current(int device) { current = (char *)0 + 0x1000 + device; }
