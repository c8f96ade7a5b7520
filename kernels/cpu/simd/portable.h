/* Vectors of 4 floats for the baseline of any architecture: the compilers' vector extensions, and SSE2 where that is
 * the baseline.
 *
 * Every level's header defines what this one defines:
 *   PS3C_VECTOR                          floats of a vector, 4, 8 or 16; then it includes vector.h
 *   PS3C_TILE_ROWS, PS3C_TILE_VECTORS    accumulators of the tile (tile.h): at most 8 rows; 2 or 3 vectors
 *   v_fma, v_max, v_min, v_sqrt          as named here
 *   v_exp2_fraction, v_exp2_scale        the two ends of v_exp2 (simd.h)
 *   v_from_f16, v_to_f16                 PS3C_VECTOR neighbouring float16 values
 *   v_unpack_f16, v_pack_f16             words of two float16 values, the even one in the low half
 * and, if the level has instructions for bfloat16, PS3C_BF16_NATIVE and three functions more: see avx512bf16.h. A
 * header may include another level's and replace a function by a macro of its name. */
#ifndef PS3C_CPU_SIMD_PORTABLE_H
#define PS3C_CPU_SIMD_PORTABLE_H

#define PS3C_VECTOR 4
#define PS3C_TILE_ROWS 4
#define PS3C_TILE_VECTORS 3

#include "vector.h"

INLINE vfloat v_fma(vfloat a, vfloat b, vfloat c) { return a * b + c; }

/* v_max, v_min: b if either is NaN. */
#ifdef __SSE2__
#include <emmintrin.h>

INLINE vfloat v_max(vfloat a, vfloat b) { return (vfloat)_mm_max_ps((__m128)a, (__m128)b); }
INLINE vfloat v_min(vfloat a, vfloat b) { return (vfloat)_mm_min_ps((__m128)a, (__m128)b); }
INLINE vfloat v_sqrt(vfloat a) { return (vfloat)_mm_sqrt_ps((__m128)a); }
#else
INLINE vfloat v_max(vfloat a, vfloat b) { return v_select((vword)(a > b), a, b); }
INLINE vfloat v_min(vfloat a, vfloat b) { return v_select((vword)(a < b), a, b); }
INLINE vfloat v_sqrt(vfloat a)
{
    for (int i = 0; i < VECTOR; i++)
        a[i] = __builtin_sqrtf(a[i]);
    return a;
}
#endif

/* x - floor(x), and *n for v_exp2_scale. Here *n is floor(x) + 1.5 * 2^23: near that number floats are integers, so
 * that the addition rounds and the low bits of *n are floor(x). */
INLINE vfloat v_exp2_fraction(vfloat x, vfloat *n)
{
    *n = x - 0.5f + 12582912.0f;
    return x - (*n - 12582912.0f);
}
/* p * 2^floor(x); 0 for x below -126. */
INLINE vfloat v_exp2_scale(vfloat p, vfloat x, vfloat n)
{
    p *= (vfloat)(((vword)n - (0x4b400000u - 127)) << 23);
    return (vfloat)(~(vword)(x < -126.0f) & (vword)p);
}

/* float16 in the low half of each word to float32. A multiplication moves the exponent, also of subnormals. */
INLINE vfloat v_from_f16_words(vword h)
{
    vword m = (h & 0x7fff) << 13;
    vword f = (vword)((vfloat)m * 0x1p112f);
    return (vfloat)(f | ((vword)(m >= 0x0f800000u) & 0x7f800000u) | (h & 0x8000) << 16);
}
/* float32 to float16 in the low half of each word; half.c explains the steps. */
INLINE vword v_to_f16_words(vfloat v)
{
    vword sign = (vword)v >> 16 & 0x8000, u = (vword)v & 0x7fffffffu;
    vword small = (vword)((vfloat)u + 0.5f) - 0x3f000000u, h = (u + 0xfff + (u >> 13 & 1) - 0x38000000u) >> 13;
    vword tiny = (vword)(u < 0x38800000u), big = (vword)(u >= 0x47800000u), nan = (vword)(u > 0x7f800000u);
    h = (small & tiny) | (h & ~tiny);
    h = (0x7c00 & big) | (h & ~big);
    return sign | h | (nan & 0x200);
}

INLINE vfloat v_from_f16(vhalf h) { return v_from_f16_words(__builtin_convertvector(h, vword)); }
INLINE vhalf v_to_f16(vfloat v) { return __builtin_convertvector(v_to_f16_words(v), vhalf); }
INLINE void v_unpack_f16(vword w, vfloat *even, vfloat *odd)
{
    *even = v_from_f16_words(w & 0xffff);
    *odd = v_from_f16_words(w >> 16);
}
INLINE vword v_pack_f16(vfloat even, vfloat odd) { return v_to_f16_words(even) | v_to_f16_words(odd) << 16; }

#endif
