/* Source indices and weights of torch's interpolate, for position tables, patches, ground truth and probabilities.
 *
 * torch computes source indices in float32, and their rounding matters: at index 3000, half a unit in the last place is
 * 1e-4 of a pixel. torch's builds fuse the multiplication and the addition of the index (measured, 2.13 on x86-64). So
 * the index here is an explicit fused multiply-add at every level, independent of the compiler's contraction.
 */
#ifndef PS3C_CPU_RESAMPLE_H
#define PS3C_CPU_RESAMPLE_H

#include <math.h>

#include "cpu.h"

static inline int64_t ps3c_clamp(int64_t i, int64_t low, int64_t high) { return i < low ? low : i > high ? high : i; }

/* ---- bicubic, a = -0.75, half-pixel centres, clamped borders (Keys 1981; interpolate(mode="bicubic")) ---------- */

/* Output i of `out` reads input first - 1 .. first + 2, each clamped to [0, in), with these weights. */
static inline int64_t ps3c_bicubic_taps(int64_t in, int64_t out, int64_t i, float weight[4])
{
    const float a = -0.75f;
    float source = __builtin_fmaf((float)in / (float)out, (float)i + 0.5f, -0.5f);
    int64_t first = (int64_t)floorf(source);
    if (first > in - 1)
        first = in - 1;
    float t = source - (float)first;
    t = t < 0.0f ? 0.0f : t > 1.0f ? 1.0f : t;
    float s = 1.0f - t, far_t = t + 1.0f, far_s = s + 1.0f;
    /* |x| <= 1: (a + 2) x^3 - (a + 3) x^2 + 1; 1 < |x| < 2: a x^3 - 5 a x^2 + 8 a x - 4 a. */
    weight[0] = __builtin_fmaf(__builtin_fmaf(__builtin_fmaf(a, far_t, -5.0f * a), far_t, 8.0f * a), far_t, -4.0f * a);
    weight[1] = __builtin_fmaf(__builtin_fmaf(a + 2.0f, t, -(a + 3.0f)) * t, t, 1.0f);
    weight[2] = __builtin_fmaf(__builtin_fmaf(a + 2.0f, s, -(a + 3.0f)) * s, s, 1.0f);
    weight[3] = __builtin_fmaf(__builtin_fmaf(__builtin_fmaf(a, far_s, -5.0f * a), far_s, 8.0f * a), far_s, -4.0f * a);
    return first;
}

/* ---- bicubic with antialias, a = -0.5, support widened when shrinking (interpolate(..., antialias=True)) --------- */

typedef struct ps3c_antialias {
    int64_t first, count; /* inputs [first, first + count), all inside the table */
    float center, inverse_scale, total;
} ps3c_antialias;

/* Weight of input first + j before division by total; fused where torch's builds fuse (bit-equal weights, measured). */
static inline float ps3c_antialias_raw(const ps3c_antialias *taps, int64_t j)
{
    const float a = -0.5f;
    float x = fabsf(((float)(j + taps->first) - taps->center + 0.5f) * taps->inverse_scale);
    if (x < 1.0f)
        return __builtin_fmaf(__builtin_fmaf(a + 2.0f, x, -(a + 3.0f)) * x, x, 1.0f);
    if (x < 2.0f)
        return __builtin_fmaf(__builtin_fmaf(__builtin_fmaf(a, x, -5.0f * a), x, 8.0f * a), x, -4.0f * a);
    return 0.0f;
}
static inline float ps3c_antialias_weight(const ps3c_antialias *taps, int64_t j)
{
    return ps3c_antialias_raw(taps, j) / taps->total;
}
static inline ps3c_antialias ps3c_antialias_taps(int64_t in, int64_t out, int64_t i)
{
    ps3c_antialias taps;
    float scale = (float)in / (float)out, support = scale >= 1.0f ? 2.0f * scale : 2.0f;
    taps.center = __builtin_fmaf(scale, (float)i + 0.5f, 0.0f); /* a rounded product, never contracted */
    taps.inverse_scale = scale >= 1.0f ? 1.0f / scale : 1.0f;
    taps.first = ps3c_clamp((int64_t)(taps.center - support + 0.5f), 0, in - 1);
    int64_t end = ps3c_clamp((int64_t)(taps.center + support + 0.5f), taps.first, in);
    int64_t most = (int64_t)ceilf(support) * 2 + 1;
    taps.count = end - taps.first < most ? end - taps.first : most;
    taps.total = 0.0f;
    for (int64_t j = 0; j < taps.count; j++)
        taps.total += ps3c_antialias_raw(&taps, j);
    return taps;
}

/* ---- nearest and adaptive windows -------------------------------------------------------------------------------- */

/* interpolate(mode="nearest"): a float32 index. */
static inline int64_t ps3c_nearest(int64_t in, int64_t out, int64_t i)
{
    return ps3c_clamp((int64_t)floorf((float)i * ((float)in / (float)out)), 0, in - 1);
}
/* Adaptive pooling and mode="area": output i covers inputs [start, end). */
static inline int64_t ps3c_adaptive_start(int64_t in, int64_t out, int64_t i)
{
    return i / out * in + i % out * in / out;
}
static inline int64_t ps3c_adaptive_end(int64_t in, int64_t out, int64_t i) { return 1 + ((i + 1) * in - 1) / out; }

#endif
