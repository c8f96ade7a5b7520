/* Small host arrays to device memory, as kernel parameters: no synchronisation, host memory may be freed after the
 * call, and a CUDA graph that captures the call replays the same values. */
#ifndef PS3C_CUDA_UPLOAD_CUH
#define PS3C_CUDA_UPLOAD_CUH

#include "cuda.cuh"

/* Enqueues a copy of `bytes` from host to device. Device is 4-byte aligned; bytes is a multiple of 4. */
ps3c_status ps3c_cuda_upload(const ps3c_run *run, const char *operation, void *device, const void *host, size_t bytes);

#endif
