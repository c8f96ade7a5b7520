/* Operations that no source has yet, so that the others link: each fails with a sentence. */
#include "../../kernels/cuda/cuda.cuh"

#include <cstdarg>
#include <cstdio>

#define WEAK __attribute__((weak))
extern "C" {
#define MISSING(op)                                                               \
    WEAK ps3c_status ps3c_##op##_cuda(const ps3c_run *, const ps3c_##op##_args *) \
    {                                                                             \
        fputs("ps3c_" #op "_cuda is not written\n", stderr);                      \
        return PS3C_ERROR_RUNTIME;                                                \
    }
PS3C_CUDA_OPERATIONS(MISSING)

WEAK ps3c_status ps3c_cuda_fail(ps3c_context *, ps3c_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return status;
}
}
WEAK size_t ps3c_gemm_cuda_scratch(ps3c_dtype, int64_t, int64_t) { return 0; }
WEAK size_t ps3c_rank_cuda_scratch(int64_t) { return 0; }
WEAK size_t ps3c_assign_looks_cuda_scratch(int64_t) { return 0; }
WEAK ps3c_status ps3c_cuda_launched(const ps3c_run *, const char *operation)
{
    const cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess)
        return PS3C_OK;
    return ps3c_cuda_fail(nullptr, PS3C_ERROR_RUNTIME, "%s: %s", operation, cudaGetErrorString(error));
}
