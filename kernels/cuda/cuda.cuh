/* The CUDA backend: layout of activations, what every operation's file shares.
 *
 * Layout. An activation is rows: [segment][token][pitch] elements of the run's dtype, where pitch is the number of
 * channels rounded up to PS3C_CHUNK, so that every row is 16-byte aligned. The padding channels, from `channels` to
 * pitch, are zero: every operation that writes an activation also writes those zeros. A product over K channels may
 * therefore run over the pitch (588 channels of a 14 x 14 patch become 592; with 588 Hopper uses a slow kernel).
 * Attention values have the same layout as everything else: gemm's values_from is ignored.
 *
 * An operation X of csrc/contract/backend.h is `ps3c_status ps3c_X_cuda(const ps3c_run *, const ps3c_X_args *)` in X.cu
 * (to_rows, from_rows and copy_channels: rows.cu). It does not repeat the engine's checks. It enqueues kernels on
 * run->stream and returns; it never waits, allocates, or copies between host and device. Host arrays are passed as
 * kernel parameters (upload.cuh).
 *
 * The same kernels run on hardware and in tests/cuda_on_cpu, which executes them on the CPU and detects races. So:
 *   - shared memory only by PS3C_SHARED and PS3C_DYNAMIC_SHARED, launches only by PS3C_CUDA_LAUNCH, PTX in ptx.cuh;
 *   - every thread of a block reaches every __syncthreads and every warp function at the same line: use predicates, no
 *     early return before them; blocks are a multiple of 32 threads; masks are 0xffffffff;
 *   - 16-bit values are converted to float for arithmetic; where fusing changes the result, __fmaf_rn is written out;
 *   - no __CUDA_ARCH__ outside ptx.cuh.
 */
#ifndef PS3C_CUDA_CUH
#define PS3C_CUDA_CUH

#include "ptx.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

extern "C" {
#include "../../csrc/contract/backend.h"
#include "../../csrc/contract/error.h"
}

/* ---- layout ------------------------------------------------------------------------------------------------ */

constexpr int64_t PS3C_CHUNK = 8; /* elements: 16 bytes of a 16-bit type */

__host__ __device__ constexpr int64_t ps3c_pitch(int64_t channels)
{
    return (channels + PS3C_CHUNK - 1) / PS3C_CHUNK * PS3C_CHUNK;
}

/* ---- dtypes ------------------------------------------------------------------------------------------------ */

using ps3c_half = __half;
using ps3c_bf16 = __nv_bfloat16;

__host__ __device__ __forceinline__ float ps3c_to_float(float x) { return x; }
__host__ __device__ __forceinline__ float ps3c_to_float(ps3c_half x) { return __half2float(x); }
__host__ __device__ __forceinline__ float ps3c_to_float(ps3c_bf16 x) { return __bfloat162float(x); }

/* Rounded to nearest even. */
template <class T> __host__ __device__ __forceinline__ T ps3c_from_float(float x);
template <> __host__ __device__ __forceinline__ float ps3c_from_float<float>(float x) { return x; }
template <> __host__ __device__ __forceinline__ ps3c_half ps3c_from_float<ps3c_half>(float x)
{
    return __float2half_rn(x);
}
template <> __host__ __device__ __forceinline__ ps3c_bf16 ps3c_from_float<ps3c_bf16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* N neighbouring elements, loaded and stored together; aligned to their size, at most 16 bytes. */
template <class T, int N> struct alignas(N * sizeof(T) > 16 ? 16 : N * sizeof(T)) ps3c_pack {
    T at[N];
};

/* Runs a statement with T as the run's element type:
 * PS3C_CUDA_DISPATCH(run->dtype, T, return launch<T>(run, args)); */
#define PS3C_CUDA_DISPATCH(dtype, T, ...) \
    switch (dtype) {                      \
    case PS3C_FLOAT32: {                  \
        using T = float;                  \
        __VA_ARGS__;                      \
    } break;                              \
    case PS3C_FLOAT16: {                  \
        using T = ps3c_half;              \
        __VA_ARGS__;                      \
    } break;                              \
    default: {                            \
        using T = ps3c_bf16;              \
        __VA_ARGS__;                      \
    } break;                              \
    }

/* ---- activation functions ------------------------------------------------------------------------------------ */

__device__ __forceinline__ float ps3c_activate(ps3c_activation_function act, float x)
{
    switch (act) {
    case PS3C_ACT_GELU_ERF:
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case PS3C_ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case PS3C_ACT_RELU:
        return x < 0.0f ? 0.0f : x; /* keeps NaN */
    default:
        return x;
    }
}

/* ---- launches -------------------------------------------------------------------------------------------------- */

/* OK, or a RUNTIME error with the operation and CUDA's message about the last launch. */
ps3c_status ps3c_cuda_launched(const ps3c_run *run, const char *operation);

/* Launches and returns from the calling function on failure.
 * PS3C_CUDA_LAUNCH(run, "layernorm", (kernel<T>), grid, block, shared_bytes, arguments...); put a kernel name with a
 * comma in parentheses. grid, block: dim3 or int. */
#define PS3C_CUDA_LAUNCH(run, operation, kernel, grid, block, shared, ...)                  \
    do {                                                                                    \
        PS3C_LAUNCH(kernel, grid, block, shared, (cudaStream_t)(run)->stream, __VA_ARGS__); \
        PS3C_TRY(ps3c_cuda_launched(run, operation));                                       \
    } while (0)

/* Number of blocks of `block` threads for `count` elements, at most `most` (kernels use a grid-stride loop). */
static inline unsigned ps3c_cuda_blocks(int64_t count, int block, int64_t most = 65536)
{
    const int64_t blocks = (count + block - 1) / block;
    return (unsigned)(blocks < 1 ? 1 : blocks > most ? most : blocks);
}

/* ---- warps and blocks -------------------------------------------------------------------------------------------- */

__device__ __forceinline__ float ps3c_warp_sum(float x)
{
    for (int lane = 16; lane; lane /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

/* ps3c_X_cuda of every operation X of csrc/contract/backend.h. The link fails where one is missing (-z defs). */
extern "C" {
#define PS3C_CUDA_DECLARE(op) ps3c_status ps3c_##op##_cuda(const ps3c_run *run, const ps3c_##op##_args *args);
PS3C_OPERATIONS(PS3C_CUDA_DECLARE)
#undef PS3C_CUDA_DECLARE
}

/* Scratch of each operation, in bytes; backend.cu takes the maximum. An operation that uses scratch declares its
 * function here and adds it to backend.cu. segments * tokens, channels, positions: as in backend.h's scratch_bytes. */
size_t ps3c_gemm_cuda_scratch(ps3c_dtype dtype, int64_t tokens, int64_t channels);
size_t ps3c_rank_cuda_scratch(int64_t positions);
size_t ps3c_assign_looks_cuda_scratch(int64_t positions);

#endif
