/* The CUDA backend's table, its memory sizes, and the library's one exported function. */
#include "cublaslt.cuh"
#include "cuda.cuh"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <dlfcn.h>
#include <limits.h>

/* ---- errors ------------------------------------------------------------------------------------------------ */

namespace
{

/* The engine's ps3c_fail. Engines of the same build may open the library more than once in a process. */
ps3c_status (*engine_fail)(ps3c_context *, ps3c_status, const char *);

} // namespace

ps3c_status ps3c_fail(ps3c_context *context, ps3c_status status, const char *format, ...)
{
    char sentence[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    return engine_fail ? engine_fail(context, status, sentence) : status;
}

namespace
{

/* A MEMORY error if the device has no memory, else a RUNTIME error. */
ps3c_status status_of(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? PS3C_ERROR_MEMORY : PS3C_ERROR_RUNTIME;
}

/* Reports that a function of the runtime failed for a device: "device: got cuda:0, WHAT: REASON (FUNCTION: ERROR)".
 * Clears the error, so that the next launch's check does not report it. */
ps3c_status device_failed(ps3c_context *context, int32_t device_index, const char *what, const char *function,
                          cudaError_t error)
{
    cudaGetLastError();
    return ps3c_fail(context, status_of(error), "device: got cuda:%d, %s: %s (%s: %s)", (int)device_index, what,
                     cudaGetErrorString(error), function, cudaGetErrorName(error));
}

} // namespace

ps3c_status ps3c_cuda_launched(const ps3c_run *run, const char *operation)
{
    const cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess)
        return PS3C_OK;
    return ps3c_fail(run->context, status_of(error), "%s on cuda:%d: %s (%s)", operation, (int)run->device_index,
                     cudaGetErrorString(error), cudaGetErrorName(error));
}

namespace
{

/* ---- devices ----------------------------------------------------------------------------------------------- */

constexpr int LEAST_MAJOR = 8; /* cp.async, bfloat16 */

ps3c_status check_device(ps3c_context *context, int32_t device_index)
{
    int count = 0, major = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess)
        return device_failed(context, device_index, "but CUDA cannot be used here", "cudaGetDeviceCount", error);
    if (device_index < 0 || device_index >= count)
        return ps3c_fail(context, PS3C_ERROR_RUNTIME, "device: got cuda:%d, expected one of the %d devices here",
                         (int)device_index, count);
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device_index);
    if (error != cudaSuccess)
        return device_failed(context, device_index, "whose compute capability cannot be read", "cudaDeviceGetAttribute",
                             error);
    if (major < LEAST_MAJOR)
        return ps3c_fail(context, PS3C_ERROR_RUNTIME,
                         "device: got cuda:%d of compute capability %d, expected %d.0 (Ampere) or later",
                         (int)device_index, major, LEAST_MAJOR);
    return PS3C_OK;
}

/* Get and set the calling thread's context, by the driver's functions (nullptr: no driver). The runtime linked into
 * this library and the caller's runtime keep separate records of the thread's current device, but share the driver's
 * context. Restoring the caller's device by number could create a context, hundreds of MB, on a device that is not
 * in use. */
struct driver_functions {
    int (*get)(void **context);
    int (*set)(void *context);
};

driver_functions find_driver()
{
    driver_functions found = {};
    if (void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD)) { /* the runtime keeps it loaded */
        *(void **)&found.get = dlsym(driver, "cuCtxGetCurrent");
        *(void **)&found.set = dlsym(driver, "cuCtxSetCurrent");
    }
    return found;
}

/* Looked up once. check_device runs earlier and has loaded the driver. */
const driver_functions &the_driver()
{
    static const driver_functions driver = find_driver();
    return driver;
}

void *current_context()
{
    void *context = nullptr;
    const driver_functions &driver = the_driver();
    return driver.get && driver.get(&context) == 0 ? context : nullptr;
}

void restore_context(void *context)
{
    const driver_functions &driver = the_driver();
    if (context && driver.set)
        driver.set(context);
}

ps3c_status begin(ps3c_run *run)
{
    run->caller_context = current_context();
    const cudaError_t error = cudaSetDevice(run->device_index);
    if (error != cudaSuccess) {
        restore_context(run->caller_context); /* the engine does not call end() */
        return device_failed(run->context, run->device_index, "which cannot be made current", "cudaSetDevice", error);
    }
    cudaGetLastError(); /* clears an error that another library's launch left */
    return PS3C_OK;
}

void end(ps3c_run *run) { restore_context(run->caller_context); }

/* ---- sizes ------------------------------------------------------------------------------------------------- */

/* Tokens that run together, where the plan can choose: six looks of the published models. A product of 16,000 rows
 * fills the largest GPU many times over; more rows would only need more memory. */
constexpr int64_t TOGETHER = 16384;
constexpr size_t LEAST_WORKSPACE = (size_t)256 << 20, MOST_WORKSPACE = (size_t)1 << 30;

/* An eighth of the free memory, clamped: other models and the caller's tensors need the rest. */
size_t default_workspace(int32_t device_index)
{
    void *caller = current_context();
    size_t free_bytes = 0, total = 0;
    if (cudaSetDevice(device_index) != cudaSuccess || cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) {
        free_bytes = 0;
        cudaGetLastError(); /* clears it, so that the next launch's check does not report it */
    }
    restore_context(caller);
    const size_t share = free_bytes / 8;
    return share < LEAST_WORKSPACE ? LEAST_WORKSPACE : share > MOST_WORKSPACE ? MOST_WORKSPACE : share;
}

size_t round_up(size_t bytes) { return bytes > SIZE_MAX - 255 ? SIZE_MAX : (bytes + 255) / 256 * 256; }

size_t activation_bytes(ps3c_dtype dtype, int64_t segments, int64_t tokens, int64_t channels)
{
    size_t bytes;
    if (segments < 0 || tokens < 0 || channels < 0 || channels > INT64_MAX - PS3C_CHUNK ||
        __builtin_mul_overflow((size_t)segments, (size_t)tokens, &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)ps3c_pitch(channels), &bytes) ||
        __builtin_mul_overflow(bytes, dtype == PS3C_FLOAT32 ? 4 : 2, &bytes))
        return SIZE_MAX;
    return round_up(bytes);
}

size_t scratch_bytes(ps3c_dtype dtype, int, int64_t tokens, int64_t channels, int64_t positions)
{
    const size_t each[] = {ps3c_gemm_cuda_scratch(dtype, tokens, channels), ps3c_rank_cuda_scratch(positions),
                           ps3c_assign_looks_cuda_scratch(positions)};
    size_t bytes = 256;
    for (size_t one : each)
        bytes = one > bytes ? one : bytes;
    return round_up(bytes);
}

/* ---- tables -------------------------------------------------------------------------------------------------- */

constexpr ps3c_backend make_backend()
{
    ps3c_backend backend = {};
    backend.name = "cuda";
    backend.begin = begin;
    backend.end = end;
    backend.tokens_together = TOGETHER;
    backend.default_workspace = default_workspace;
    backend.activation_bytes = activation_bytes;
    backend.scratch_bytes = scratch_bytes;
#define FIELD(op) backend.op = ps3c_##op##_cuda;
    PS3C_OPERATIONS(FIELD)
#undef FIELD
    return backend;
}

const ps3c_backend backend = make_backend();

#ifdef PS3C_EMU
constexpr bool ON_HOST = true;
#else
constexpr bool ON_HOST = false;
#endif
const ps3c_cuda_library library = {&backend, ON_HOST, check_device, ps3c_lt_refusals};

/* Adds the folders where pip installs cuBLAS, relative to this library in site-packages/ps3c. */
void find_cublas()
{
    Dl_info info;
    char folders[2 * PATH_MAX];
    const char *slash;
    if (!dladdr((const void *)&library, &info) || !info.dli_fname || !(slash = strrchr(info.dli_fname, '/')))
        return;
    const int length = (int)(slash - info.dli_fname);
    if (length < PATH_MAX - 32 && snprintf(folders, sizeof folders, "%.*s/../nvidia/cu13/lib:%.*s/../nvidia/cublas/lib",
                                           length, info.dli_fname, length, info.dli_fname) > 0)
        ps3c_lt_set_folders(folders);
}

} // namespace

extern "C" __attribute__((visibility("default"))) const ps3c_cuda_library *ps3c_cuda_open(const ps3c_cuda_host *host)
{
    if (host->abi != PS3C_CUDA_ABI || host->backend_size != sizeof(ps3c_backend))
        return nullptr;
    engine_fail = host->fail;
    find_cublas();
    return &library;
}
