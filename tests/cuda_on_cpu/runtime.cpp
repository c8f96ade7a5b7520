/* The CUDA runtime calls that the backend's host code and the tests make. Device memory is host memory, filled with
 * NaN; streams run everything at once; the last error is each OS thread's own. */
#include "scheduler.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

namespace
{

thread_local int device;
thread_local cudaError_t last_error = cudaSuccess;
thread_local bool waiting_forbidden;
std::mutex failing;
std::string failing_part;

int devices() { return (int)emu::environment("EMU_DEVICES", 1); }

cudaError_t result(cudaError_t error)
{
    if (error != cudaSuccess)
        last_error = error;
    return error;
}

/* What no operation may do, since operations only enqueue. */
void waits(const char *name)
{
    if (waiting_forbidden)
        emu::fail({name, 0}, "an operation may neither allocate nor wait");
    if (emu::self)
        emu::fail({name, 0}, "called from a kernel");
}

cudaError_t allocate(void **p, size_t bytes)
{
    if (!p)
        return result(cudaErrorInvalidValue);
    *p = nullptr;
    if (!bytes)
        return cudaSuccess;
    if (bytes > (size_t)1 << 40 || posix_memalign(p, 256, bytes))
        return result(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes);
    return cudaSuccess;
}

cudaError_t attribute(int *value, cudaDeviceAttr which)
{
    switch (which) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = 1024;
        break;
    case cudaDevAttrWarpSize:
        *value = 32;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = 4;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = 48 << 10;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)emu::shared_limit();
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)emu::shared_limit() + 1024;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = emu::architecture() / 10;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = emu::architecture() % 10;
        break;
    case cudaDevAttrL2CacheSize:
        *value = 50 << 20;
        break;
    case cudaDevAttrManagedMemory:
    case cudaDevAttrConcurrentManagedAccess:
    case cudaDevAttrUnifiedAddressing:
        *value = 1;
        break;
    default:
        emu::fail({"cudaDeviceGetAttribute", 0}, "attribute %d is not emulated", (int)which);
    }
    return cudaSuccess;
}

} // namespace

namespace emu
{

bool launch_fails(const char *kernel)
{
    const char *always = getenv("EMU_FAIL");
    bool fails = always && *always && strstr(kernel, always);
    std::lock_guard<std::mutex> guard(failing);
    if (!failing_part.empty() && strstr(kernel, failing_part.c_str())) {
        failing_part.clear();
        fails = true;
    }
    if (fails)
        last_error = cudaErrorLaunchOutOfResources;
    return fails;
}

} // namespace emu

/* ---- hooks ------------------------------------------------------------------------------------------------------- */

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void emu_fail_next_launch(const char *part)
{
    std::lock_guard<std::mutex> guard(failing);
    failing_part = part ? part : "";
}

EXPORT void emu_forbid_waiting(bool forbid) { waiting_forbidden = forbid; }
EXPORT void emu_wait() { cudaDeviceSynchronize(); }

/* ---- the runtime ------------------------------------------------------------------------------------------------- */

extern "C" {

cudaError_t cudaGetLastError()
{
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError() { return last_error; }

#define NAMED(error, sentence) \
    case error:                \
        return sentence
const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
        NAMED(cudaSuccess, "cudaSuccess");
        NAMED(cudaErrorInvalidValue, "cudaErrorInvalidValue");
        NAMED(cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation");
        NAMED(cudaErrorInvalidDevice, "cudaErrorInvalidDevice");
        NAMED(cudaErrorNoDevice, "cudaErrorNoDevice");
        NAMED(cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources");
    default:
        return "unrecognized error code";
    }
}
const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
        NAMED(cudaSuccess, "no error");
        NAMED(cudaErrorInvalidValue, "invalid argument");
        NAMED(cudaErrorMemoryAllocation, "out of memory");
        NAMED(cudaErrorInvalidDevice, "invalid device ordinal");
        NAMED(cudaErrorNoDevice, "no CUDA-capable device is detected");
        NAMED(cudaErrorLaunchOutOfResources, "too many resources requested for launch");
    default:
        return "unrecognized error code";
    }
}

/* ---- devices */

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = devices();
    return *count ? cudaSuccess : result(cudaErrorNoDevice);
}
cudaError_t cudaGetDevice(int *which)
{
    *which = device;
    return devices() ? cudaSuccess : result(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int which)
{
    if (which < 0 || which >= devices())
        return result(devices() ? cudaErrorInvalidDevice : cudaErrorNoDevice);
    device = which;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int of)
{
    return of < 0 || of >= devices() ? result(cudaErrorInvalidDevice) : attribute(value, which);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int of)
{
    if (of < 0 || of >= devices())
        return result(cudaErrorInvalidDevice);
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "CPU emulating sm_%d", emu::architecture());
    properties->totalGlobalMem = (size_t)8 << 30;
    properties->major = emu::architecture() / 10;
    properties->minor = emu::architecture() % 10;
    properties->multiProcessorCount = 4;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->sharedMemPerBlock = 48 << 10;
    properties->sharedMemPerBlockOptin = emu::shared_limit();
    properties->managedMemory = 1;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    *available = (size_t)4 << 30;
    *total = (size_t)8 << 30;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version)
{
    *version = devices() ? CUDART_VERSION : 0;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}
/* Shared memory is checked at each launch. */
cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int) { return cudaSuccess; }

/* ---- memory */

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    waits("cudaMalloc");
    return allocate(p, bytes);
}
cudaError_t cudaMallocManaged(void **p, size_t bytes, unsigned)
{
    waits("cudaMallocManaged");
    return allocate(p, bytes);
}
cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    waits("cudaMallocHost");
    return allocate(p, bytes);
}
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
    waits("cudaHostAlloc");
    return allocate(p, bytes);
}
cudaError_t cudaFree(void *p)
{
    waits("cudaFree");
    free(p);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p)
{
    waits("cudaFreeHost");
    free(p);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t)
{
    memmove(to, from, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind)
{
    waits("cudaMemcpy");
    memmove(to, from, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t)
{
    for (size_t i = 0; i < height; i++)
        memmove(static_cast<char *>(to) + i * to_pitch, static_cast<const char *>(from) + i * from_pitch, width);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t)
{
    memset(p, value, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemset(void *p, int value, size_t bytes) { return cudaMemsetAsync(p, value, bytes, nullptr); }

/* ---- streams */

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    waits("cudaStreamCreate");
    *stream = static_cast<cudaStream_t>(malloc(1));
    return *stream ? cudaSuccess : result(cudaErrorMemoryAllocation);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    waits("cudaStreamDestroy");
    free(stream);
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    waits("cudaStreamSynchronize");
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize()
{
    waits("cudaDeviceSynchronize");
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus *status)
{
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
}
