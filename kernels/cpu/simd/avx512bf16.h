/* AVX-512 with instructions for bfloat16: rounding, and products of pairs. */
#ifndef PS3C_CPU_SIMD_AVX512BF16_H
#define PS3C_CPU_SIMD_AVX512BF16_H

#include "avx512.h"

#define PS3C_BF16_NATIVE 1

INLINE vhalf v_to_bf16(vfloat v) { return (vhalf)_mm512_cvtneps_pbh((__m512)v); }
INLINE vword v_pack_bf16(vfloat even, vfloat odd)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return (vword)_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even));
}
/* sum + the products of the two bfloat16 values of each word, in float32 (vdpbf16ps). */
INLINE vfloat v_dot_bf16(vfloat sum, vfloat a, vfloat b)
{
    return (vfloat)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

#endif
