/* Windows of adaptive pooling, sources of nearest upsampling, and ground-truth selection maps: the same arithmetic as
 * kernels/cpu/resample.h and ground_truth.h, bit for bit, because rounding, comparisons with 0 and ties depend on it.
 */
#ifndef PS3C_CUDA_GROUND_TRUTH_CUH
#define PS3C_CUDA_GROUND_TRUTH_CUH

#include "cuda.cuh"

/* ---- windows ----------------------------------------------------------------------------------------------------- */

using ps3c_floats4 = ps3c_pack<float, 4>;

struct ps3c_window {
    int64_t first, count;
};

/* Adaptive pooling and mode="area": the inputs that output i covers. */
__device__ __forceinline__ ps3c_window ps3c_adaptive_window(int64_t in, int64_t out, int64_t i)
{
    const int64_t first = i / out * in + i % out * in / out;
    return {first, 1 + ((i + 1) * in - 1) / out - first};
}

/* interpolate(mode="nearest"): a float32 index. It does not decrease with i. */
__device__ __forceinline__ int64_t ps3c_nearest_source(int64_t in, int64_t out, int64_t i)
{
    const int64_t source = (int64_t)floorf((float)i * ((float)in / (float)out));
    return source < 0 ? 0 : source > in - 1 ? in - 1 : source;
}

/* The first output whose nearest source is at least `source`; `out` if there is none. */
__device__ __forceinline__ int64_t ps3c_nearest_first(int64_t in, int64_t out, int64_t source)
{
    int64_t low = 0, high = out;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (ps3c_nearest_source(in, out, middle) < source)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}
__device__ __forceinline__ ps3c_window ps3c_nearest_window(int64_t in, int64_t out, int64_t source)
{
    const int64_t first = ps3c_nearest_first(in, out, source);
    return {first, ps3c_nearest_first(in, out, source + 1) - first};
}

/* ---- means of windows -------------------------------------------------------------------------------------------- */

/* Mean of load(y, x) over a window, computed by all lanes of a warp. They load 32 values at once; then every lane adds
 * them one by one, row by row, which is torch's order. Zeros past the end do not change the sum: it starts at +0 and is
 * never -0. buffer: the warp's own 32 floats of shared memory, 16-byte aligned. */
template <class Load>
__device__ __forceinline__ float ps3c_area_mean(ps3c_window rows, ps3c_window cols, float *buffer, Load load)
{
    const int lane = threadIdx.x % 32;
    const int64_t count = rows.count * cols.count, rows_on = 32 / cols.count, cols_on = 32 % cols.count;
    int64_t y = lane / cols.count, x = lane % cols.count;
    float sum = 0.0f, next = lane < count ? load(rows.first + y, cols.first + x) : 0.0f;
    for (int64_t i = 0; i < count; i += 32) {
        __syncwarp(); /* all lanes have read the previous values */
        buffer[lane] = next;
        __syncwarp();
        y += rows_on;
        x += cols_on;
        if (x >= cols.count) {
            x -= cols.count;
            y++;
        }
        next = i + 32 + lane < count ? load(rows.first + y, cols.first + x) : 0.0f;
        for (int j = 0; j < 32; j += 4) {
            const ps3c_pack<float, 4> four = *(const ps3c_pack<float, 4> *)(buffer + j);
            for (int k = 0; k < 4; k++)
                sum += four.at[k];
        }
    }
    return sum / (float)rows.count / (float)cols.count;
}

/* ---- ground truth ------------------------------------------------------------------------------------------------ */

/* Element i of an array of any dtype, converted like torch's .float(). */
__device__ __forceinline__ float ps3c_any_float(const void *data, ps3c_dtype dtype, int64_t i)
{
    switch (dtype) {
    case PS3C_FLOAT16:
        return ps3c_to_float(((const ps3c_half *)data)[i]);
    case PS3C_BFLOAT16:
        return ps3c_to_float(((const ps3c_bf16 *)data)[i]);
    case PS3C_FLOAT64:
        return (float)((const double *)data)[i];
    case PS3C_BOOL:
        return ((const uint8_t *)data)[i] != 0 ? 1.0f : 0.0f;
    case PS3C_UINT8:
        return (float)((const uint8_t *)data)[i];
    case PS3C_INT8:
        return (float)((const int8_t *)data)[i];
    case PS3C_INT16:
        return (float)((const int16_t *)data)[i];
    case PS3C_INT32:
        return (float)((const int32_t *)data)[i];
    case PS3C_INT64:
        return (float)((const int64_t *)data)[i];
    default:
        return ((const float *)data)[i];
    }
}

/* One cell of map b of gt (B, any, any), area-resized to rows x cols; computed by all lanes of a warp. Rounded to a
 * half-precision gt; the mean of integers and bool is not truncated. */
__device__ __forceinline__ float ps3c_ground_truth(const ps3c_tensor &gt, int64_t b, int64_t rows, int64_t cols,
                                                   int64_t row, int64_t col, float *buffer)
{
    const int64_t image = b * gt.strides[0], row_step = gt.strides[1], col_step = gt.strides[2];
    const float mean = ps3c_area_mean(
        ps3c_adaptive_window(gt.shape[1], rows, row), ps3c_adaptive_window(gt.shape[2], cols, col), buffer,
        [&](int64_t y, int64_t x) { return ps3c_any_float(gt.data, gt.dtype, image + y * row_step + x * col_step); });
    return gt.dtype == PS3C_FLOAT16    ? ps3c_to_float(ps3c_from_float<ps3c_half>(mean))
           : gt.dtype == PS3C_BFLOAT16 ? ps3c_to_float(ps3c_from_float<ps3c_bf16>(mean))
                                       : mean;
}

#endif
