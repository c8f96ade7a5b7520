/* Source indices and weights of torch's interpolate: kernels/cpu/resample.h on the device, operation by operation,
 * so that both backends use the same pixels and weights. Every rounding that matters is explicit: __fmaf_rn, or a
 * product that the compiler cannot contract with anything. Divisions are IEEE divisions. */
#ifndef PS3C_CUDA_RESAMPLE_CUH
#define PS3C_CUDA_RESAMPLE_CUH

#include "cuda.cuh"

__device__ __forceinline__ int64_t ps3c_cuda_clamp(int64_t i, int64_t low, int64_t high)
{
    return i < low ? low : i > high ? high : i;
}

/* ---- bicubic, a = -0.75, half-pixel centres, clamped borders ----------------------------------------------------- */

/* Inputs first - 1 .. first + 2, each to be clamped to [0, in). */
struct ps3c_cuda_bicubic {
    int64_t first;
    float weight[4];
};

__device__ __forceinline__ ps3c_cuda_bicubic ps3c_cuda_bicubic_taps(int64_t in, int64_t out, int64_t i)
{
    const float a = -0.75f;
    ps3c_cuda_bicubic taps;
    const float source = __fmaf_rn((float)in / (float)out, (float)i + 0.5f, -0.5f);
    taps.first = (int64_t)floorf(source);
    if (taps.first > in - 1)
        taps.first = in - 1;
    float t = source - (float)taps.first;
    t = t < 0.0f ? 0.0f : t > 1.0f ? 1.0f : t;
    const float s = 1.0f - t, far_t = t + 1.0f, far_s = s + 1.0f;
    taps.weight[0] = __fmaf_rn(__fmaf_rn(__fmaf_rn(a, far_t, -5.0f * a), far_t, 8.0f * a), far_t, -4.0f * a);
    taps.weight[1] = __fmaf_rn(__fmaf_rn(a + 2.0f, t, -(a + 3.0f)) * t, t, 1.0f);
    taps.weight[2] = __fmaf_rn(__fmaf_rn(a + 2.0f, s, -(a + 3.0f)) * s, s, 1.0f);
    taps.weight[3] = __fmaf_rn(__fmaf_rn(__fmaf_rn(a, far_s, -5.0f * a), far_s, 8.0f * a), far_s, -4.0f * a);
    return taps;
}

/* ---- bicubic with antialias, a = -0.5, support widened when shrinking -------------------------------------------- */

struct ps3c_cuda_antialias {
    int64_t first; /* inputs [first, first + count), all inside the table */
    int count;
    float center, inverse_scale, total;
};

/* Weight of input first + j before division by total. */
__device__ __forceinline__ float ps3c_cuda_antialias_raw(const ps3c_cuda_antialias &taps, int j)
{
    const float a = -0.5f;
    const float x = fabsf(((float)(j + taps.first) - taps.center + 0.5f) * taps.inverse_scale);
    if (x < 1.0f)
        return __fmaf_rn(__fmaf_rn(a + 2.0f, x, -(a + 3.0f)) * x, x, 1.0f);
    if (x < 2.0f)
        return __fmaf_rn(__fmaf_rn(__fmaf_rn(a, x, -5.0f * a), x, 8.0f * a), x, -4.0f * a);
    return 0.0f;
}

__device__ __forceinline__ float ps3c_cuda_antialias_weight(const ps3c_cuda_antialias &taps, int j)
{
    return ps3c_cuda_antialias_raw(taps, j) / taps.total;
}

__device__ __forceinline__ ps3c_cuda_antialias ps3c_cuda_antialias_taps(int64_t in, int64_t out, int64_t i)
{
    ps3c_cuda_antialias taps;
    const float scale = (float)in / (float)out, support = scale >= 1.0f ? 2.0f * scale : 2.0f;
    taps.center = __fmaf_rn(scale, (float)i + 0.5f, 0.0f); /* a rounded product that is never contracted */
    taps.inverse_scale = scale >= 1.0f ? 1.0f / scale : 1.0f;
    taps.first = ps3c_cuda_clamp((int64_t)(taps.center - support + 0.5f), 0, in - 1);
    const int64_t end = ps3c_cuda_clamp((int64_t)(taps.center + support + 0.5f), taps.first, in);
    const int64_t most = (int64_t)ceilf(support) * 2 + 1;
    taps.count = (int)(end - taps.first < most ? end - taps.first : most);
    taps.total = 0.0f;
    for (int j = 0; j < taps.count; j++)
        taps.total += ps3c_cuda_antialias_raw(taps, j);
    return taps;
}

#endif
