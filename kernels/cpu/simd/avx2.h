/* Vectors of 8 floats: AVX2, FMA, F16C. portable.h says what each function does. */
#ifndef PS3C_CPU_SIMD_AVX2_H
#define PS3C_CPU_SIMD_AVX2_H

#define PS3C_VECTOR 8
#define PS3C_TILE_ROWS 6
#define PS3C_TILE_VECTORS 2

#include <immintrin.h>

#include "vector.h"

INLINE vfloat v_fma(vfloat a, vfloat b, vfloat c) { return (vfloat)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
INLINE vfloat v_max(vfloat a, vfloat b) { return (vfloat)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vfloat v_min(vfloat a, vfloat b) { return (vfloat)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vfloat v_sqrt(vfloat a) { return (vfloat)_mm256_sqrt_ps((__m256)a); }

INLINE vfloat v_exp2_fraction(vfloat x, vfloat *n)
{
    *n = (vfloat)_mm256_floor_ps((__m256)x);
    return x - *n;
}
INLINE vfloat v_exp2_scale(vfloat p, vfloat x, vfloat n)
{
    p *= (vfloat)_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32((__m256)n), _mm256_set1_epi32(127)), 23);
    return (vfloat)_mm256_andnot_ps(_mm256_cmp_ps((__m256)x, _mm256_set1_ps(-126), _CMP_LT_OQ), (__m256)p);
}

INLINE vfloat v_from_f16(vhalf h) { return (vfloat)_mm256_cvtph_ps((__m128i)h); }
INLINE vhalf v_to_f16(vfloat v) { return (vhalf)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT); }
INLINE void v_unpack_f16(vword w, vfloat *even, vfloat *odd)
{
    __m256i low = (__m256i)(w & 0xffff), high = (__m256i)(w >> 16);
    *even = (vfloat)_mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
    *odd = (vfloat)_mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
}
INLINE vword v_pack_f16(vfloat even, vfloat odd)
{
    return __builtin_convertvector(v_to_f16(even), vword) | __builtin_convertvector(v_to_f16(odd), vword) << 16;
}

#endif
