/* The CUDA runtime calls that the backend's host code and the tests make. Device memory is host memory, filled with
 * NaN; streams run everything at once; the last error is each OS thread's own. */
#include "faults.h"
#include "scheduler.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

#include <dlfcn.h>

namespace
{

thread_local int device;
thread_local cudaError_t last_error = cudaSuccess;
thread_local bool waiting_forbidden;
std::mutex failing;
std::string failing_part;
std::atomic<long> live; /* allocations and streams */

emu::faults &the_faults()
{
    static emu::faults *only = new emu::faults();
    return *only;
}

int devices() { return (int)emu::environment("EMU_DEVICES", 1); }

cudaError_t result(cudaError_t error)
{
    if (error != cudaSuccess)
        last_error = error;
    return error;
}

/* Counts the call of a function. An error: what the function returns, without doing anything. */
cudaError_t fault(const char *function) { return result((cudaError_t)the_faults().call(function)); }
#define MAY_FAIL(function)                             \
    do {                                               \
        const cudaError_t injected = fault(#function); \
        if (injected != cudaSuccess)                   \
            return injected;                           \
    } while (0)

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
    live++;
    return cudaSuccess;
}

cudaError_t release(void *p)
{
    live -= p != nullptr;
    free(p);
    return cudaSuccess;
}

/* As the runtime: the device's context becomes the driver's current one. Only the tests' fake driver has the function.
 */
void make_current(int which)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    void (*make)(int) = nullptr;
    if (driver)
        *(void **)&make = dlsym(driver, "fake_make_current");
    if (make)
        make(which);
    if (driver)
        dlclose(driver);
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
    return fault("cudaLaunchKernel") != cudaSuccess || fails;
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

/* The n-th call from now on fails: faults.h. */
EXPORT void emu_fault(long n, int error, int mode)
{
    if (the_faults().sticky()) /* it ends as in a new process */
        last_error = cudaSuccess;
    the_faults().arm(n, error, mode);
}
EXPORT long emu_calls() { return the_faults().calls(); }
EXPORT const char *emu_called(long n) { return the_faults().called(n); }
EXPORT int emu_last_error() { return last_error; } /* of the calling thread; it stays */
EXPORT long emu_live() { return live; }

/* ---- the runtime ------------------------------------------------------------------------------------------------- */

extern "C" {

/* A fault here is an error of an earlier launch, which this call is the first to see. */
cudaError_t cudaGetLastError()
{
    const cudaError_t injected = fault("cudaGetLastError"), error = injected ? injected : last_error;
    last_error = (cudaError_t)the_faults().sticky();
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
        NAMED(cudaErrorLaunchFailure, "cudaErrorLaunchFailure");
        NAMED(cudaErrorIllegalAddress, "cudaErrorIllegalAddress");
        NAMED(cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported");
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
        NAMED(cudaErrorLaunchFailure, "unspecified launch failure");
        NAMED(cudaErrorIllegalAddress, "an illegal memory access was encountered");
        NAMED(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing");
    default:
        return "unrecognized error code";
    }
}

/* ---- devices */

cudaError_t cudaGetDeviceCount(int *count)
{
    MAY_FAIL(cudaGetDeviceCount);
    *count = devices();
    return *count ? cudaSuccess : result(cudaErrorNoDevice);
}
cudaError_t cudaGetDevice(int *which)
{
    MAY_FAIL(cudaGetDevice);
    *which = device;
    return devices() ? cudaSuccess : result(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int which)
{
    MAY_FAIL(cudaSetDevice);
    if (which < 0 || which >= devices())
        return result(devices() ? cudaErrorInvalidDevice : cudaErrorNoDevice);
    device = which;
    make_current(which);
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int of)
{
    MAY_FAIL(cudaDeviceGetAttribute);
    return of < 0 || of >= devices() ? result(cudaErrorInvalidDevice) : attribute(value, which);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int of)
{
    MAY_FAIL(cudaGetDeviceProperties);
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
    MAY_FAIL(cudaMemGetInfo);
    *available = (size_t)4 << 30;
    *total = (size_t)8 << 30;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version)
{
    MAY_FAIL(cudaDriverGetVersion);
    *version = devices() ? CUDART_VERSION : 0;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version)
{
    MAY_FAIL(cudaRuntimeGetVersion);
    *version = CUDART_VERSION;
    return cudaSuccess;
}
/* Shared memory is checked at each launch. */
cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int)
{
    MAY_FAIL(cudaFuncSetAttribute);
    return cudaSuccess;
}

/* ---- memory */

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    waits("cudaMalloc");
    MAY_FAIL(cudaMalloc);
    return allocate(p, bytes);
}
cudaError_t cudaMallocManaged(void **p, size_t bytes, unsigned)
{
    waits("cudaMallocManaged");
    MAY_FAIL(cudaMallocManaged);
    return allocate(p, bytes);
}
cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    waits("cudaMallocHost");
    MAY_FAIL(cudaMallocHost);
    return allocate(p, bytes);
}
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
    waits("cudaHostAlloc");
    MAY_FAIL(cudaHostAlloc);
    return allocate(p, bytes);
}
cudaError_t cudaFree(void *p)
{
    waits("cudaFree");
    MAY_FAIL(cudaFree);
    return release(p);
}
cudaError_t cudaFreeHost(void *p)
{
    waits("cudaFreeHost");
    MAY_FAIL(cudaFreeHost);
    return release(p);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t)
{
    MAY_FAIL(cudaMemcpyAsync);
    memmove(to, from, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind)
{
    waits("cudaMemcpy");
    MAY_FAIL(cudaMemcpy);
    memmove(to, from, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t)
{
    MAY_FAIL(cudaMemcpy2DAsync);
    for (size_t i = 0; i < height; i++)
        memmove(static_cast<char *>(to) + i * to_pitch, static_cast<const char *>(from) + i * from_pitch, width);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t)
{
    MAY_FAIL(cudaMemsetAsync);
    memset(p, value, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemset(void *p, int value, size_t bytes) { return cudaMemsetAsync(p, value, bytes, nullptr); }

/* ---- streams */

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    waits("cudaStreamCreate");
    MAY_FAIL(cudaStreamCreate);
    void *made = nullptr;
    const cudaError_t error = allocate(&made, 1);
    *stream = static_cast<cudaStream_t>(made);
    return error;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    waits("cudaStreamDestroy");
    MAY_FAIL(cudaStreamDestroy);
    return release(stream);
}
cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    waits("cudaStreamSynchronize");
    MAY_FAIL(cudaStreamSynchronize);
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize()
{
    waits("cudaDeviceSynchronize");
    MAY_FAIL(cudaDeviceSynchronize);
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus *status)
{
    MAY_FAIL(cudaStreamIsCapturing);
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
}
