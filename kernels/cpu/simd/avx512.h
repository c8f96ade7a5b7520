/* Vectors of 16 floats: AVX-512 F, BW, VL and DQ. portable.h says what each function does. */
#ifndef PS3C_CPU_SIMD_AVX512_H
#define PS3C_CPU_SIMD_AVX512_H

#define PS3C_VECTOR 16
#define PS3C_TILE_ROWS 8
#define PS3C_TILE_VECTORS 3

#include <immintrin.h>

#include "vector.h"

INLINE vfloat v_fma(vfloat a, vfloat b, vfloat c) { return (vfloat)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
INLINE vfloat v_max(vfloat a, vfloat b) { return (vfloat)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vfloat v_min(vfloat a, vfloat b) { return (vfloat)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vfloat v_sqrt(vfloat a) { return (vfloat)_mm512_sqrt_ps((__m512)a); }

/* The scaling takes floor(x) itself. */
INLINE vfloat v_exp2_fraction(vfloat x, vfloat *n)
{
    *n = x;
    return (vfloat)_mm512_reduce_ps((__m512)x, 1);
}
/* Below -126: gradual underflow. */
INLINE vfloat v_exp2_scale(vfloat p, vfloat x, vfloat n)
{
    (void)n;
    return (vfloat)_mm512_scalef_ps((__m512)p, (__m512)x);
}

INLINE vfloat v_from_f16(vhalf h) { return (vfloat)_mm512_cvtph_ps((__m256i)h); }
INLINE vhalf v_to_f16(vfloat v)
{
    return (vhalf)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE void v_unpack_f16(vword w, vfloat *even, vfloat *odd)
{
    *even = (vfloat)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)w));
    *odd = (vfloat)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)(w >> 16)));
}
INLINE vword v_pack_f16(vfloat even, vfloat odd)
{
    return __builtin_convertvector(v_to_f16(even), vword) | __builtin_convertvector(v_to_f16(odd), vword) << 16;
}

#endif
