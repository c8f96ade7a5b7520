/* Small host arrays to device memory, as kernel parameters: nothing waits, nothing on the host has to outlive the call,
 * and a CUDA graph that captures it replays the same values. */
#ifndef PS3C_CUDA_UPLOAD_CUH
#define PS3C_CUDA_UPLOAD_CUH

#include "cuda.cuh"

/* Enqueues bytes of host into device (4-byte aligned; bytes a multiple of 4). */
ps3c_status ps3c_cuda_upload(const ps3c_run *run, const char *operation, void *device, const void *host, size_t bytes);

#endif
