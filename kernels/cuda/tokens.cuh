/* What operations on tokens share: locating a patch, copying a row of channels, reading an id.
 *
 * Most of them use one warp per row (a token): rows are 16-byte aligned, so lanes copy packs of 16 bytes, and integer
 * divisions are needed per row only, not per element. Rows of weights and of the caller's tensors have no padding and
 * any alignment; `wide` is true if they, too, can be read in packs. */
#ifndef PS3C_CUDA_TOKENS_CUH
#define PS3C_CUDA_TOKENS_CUH

#include "cuda.cuh"

constexpr int PS3C_ROW_WARPS = 4; /* warps of a block, one row each */

template <class T> constexpr int PS3C_WIDE = 16 / sizeof(T);
template <class T> using ps3c_wide = ps3c_pack<T, PS3C_WIDE<T>>;

/* ---- patches ------------------------------------------------------------------------------------------------- */

/* The scales of an operation, as a kernel parameter. */
struct ps3c_cuda_scales {
    int count;
    ps3c_scale at[PS3C_MAX_SCALES];
};

static inline ps3c_cuda_scales ps3c_cuda_scales_of(const ps3c_scale *scales, int64_t num_scales)
{
    ps3c_cuda_scales s = {};
    s.count = (int)num_scales;
    for (int i = 0; i < s.count; i++)
        s.at[i] = scales[i];
    return s;
}

struct ps3c_cuda_patch {
    int scale;
    int64_t row, col;
};

/* The patch at the position of a row (segment * tokens + token). */
__device__ __forceinline__ ps3c_cuda_patch ps3c_cuda_locate(const ps3c_cuda_scales &scales, const int32_t *positions,
                                                            int64_t tokens, int64_t row)
{
    int64_t position = positions ? positions[row] : row % tokens;
    int scale = scales.count - 1;
    while (scale > 0 && position < scales.at[scale].first)
        scale--;
    position -= scales.at[scale].first;
    const int64_t cols = scales.at[scale].cols;
    return {scale, position / cols, position % cols};
}

/* ---- rows of channels ------------------------------------------------------------------------------------------ */

/* True if rows from p on, `stride` elements apart, are 16-byte aligned. True for NULL. */
static inline bool ps3c_cuda_wide(const void *p, int64_t stride, size_t element)
{
    return (uintptr_t)p % 16 == 0 && stride % (int64_t)(16 / element) == 0;
}

/* The pack at `from`. Only its first `valid` elements exist (valid may be negative or large); the others become 0. */
template <class T> __device__ __forceinline__ ps3c_wide<T> ps3c_cuda_load(const T *from, int64_t valid, bool wide)
{
    ps3c_wide<T> x;
    if (wide && valid >= PS3C_WIDE<T>)
        return *(const ps3c_wide<T> *)from;
#pragma unroll
    for (int j = 0; j < PS3C_WIDE<T>; j++)
        x.at[j] = j < valid ? from[j] : ps3c_from_float<T>(0.0f);
    return x;
}

/* A warp copies from[0 .. count) to `to` and zeroes to[count .. end). wide: both are 16-byte aligned. */
template <class T>
__device__ __forceinline__ void ps3c_cuda_copy_row(T *to, const T *from, int64_t count, int64_t end, bool wide)
{
    const int lane = threadIdx.x % 32;
    const int64_t packs = wide ? count / PS3C_WIDE<T> : 0;
#pragma unroll 4
    for (int64_t i = lane; i < packs; i += 32)
        ((ps3c_wide<T> *)to)[i] = ((const ps3c_wide<T> *)from)[i];
#pragma unroll 1
    for (int64_t c = packs * PS3C_WIDE<T> + lane; c < end; c += 32)
        to[c] = c < count ? from[c] : ps3c_from_float<T>(0.0f);
}

/* This warp's first row, and the step to its next one, in blocks of PS3C_ROW_WARPS warps. */
__device__ __forceinline__ int64_t ps3c_cuda_first_row()
{
    return (int64_t)blockIdx.x * PS3C_ROW_WARPS + threadIdx.x / 32;
}
__device__ __forceinline__ int64_t ps3c_cuda_row_step() { return (int64_t)gridDim.x * PS3C_ROW_WARPS; }

/* Launches a kernel with one warp per row, for `rows` rows; returns from the calling function on failure. */
#define PS3C_CUDA_LAUNCH_ROWS(run, operation, kernel, rows, ...)                                             \
    PS3C_CUDA_LAUNCH(run, operation, kernel, ps3c_cuda_blocks(rows, PS3C_ROW_WARPS), PS3C_ROW_WARPS * 32, 0, \
                     __VA_ARGS__)

/* ---- token ids --------------------------------------------------------------------------------------------------- */

/* A view of (texts, length) ids that starts at the call's first text. */
struct ps3c_cuda_ids {
    const int64_t *data;
    int64_t length, text_stride, token_stride;
};

static inline ps3c_cuda_ids ps3c_cuda_ids_of(const ps3c_tensor *ids, int64_t first)
{
    return {(const int64_t *)ids->data + first * ids->strides[0], ids->shape[1], ids->strides[0], ids->strides[1]};
}

__device__ __forceinline__ int64_t ps3c_cuda_id(const ps3c_cuda_ids &ids, int64_t text, int64_t token)
{
    return ids.data[text * ids.text_stride + token * ids.token_stride];
}

#endif
