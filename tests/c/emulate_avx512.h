/* The AVX-512 intrinsics that the kernels use, in plain C, so that the sources of those levels can be tested on a
 * processor without AVX-512. The Makefile includes this header before the source and compiles for AVX2. The functions
 * follow the instructions' pseudocode (Intel SDM), also for denormals of the bfloat16 instructions; speed does not
 * matter.
 */
#ifndef PS3C_EMULATE_AVX512_H
#define PS3C_EMULATE_AVX512_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float emu_float __attribute__((vector_size(64)));
typedef uint32_t emu_word __attribute__((vector_size(64)));
typedef uint16_t emu_short __attribute__((vector_size(64)));
typedef uint16_t emu_half __attribute__((vector_size(32)));
/* Not inlined: otherwise the unrolled tiles take minutes to compile. */
#define EMU static __attribute__((noinline, unused))

EMU emu_float emu_fmadd(emu_float a, emu_float b, emu_float c)
{
    for (int i = 0; i < 16; i++)
        c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
}
EMU emu_float emu_max(emu_float a, emu_float b)
{
    for (int i = 0; i < 16; i++)
        b[i] = a[i] > b[i] ? a[i] : b[i];
    return b;
}
EMU emu_float emu_min(emu_float a, emu_float b)
{
    for (int i = 0; i < 16; i++)
        b[i] = a[i] < b[i] ? a[i] : b[i];
    return b;
}
EMU emu_float emu_sqrt(emu_float a)
{
    for (int i = 0; i < 16; i++)
        a[i] = __builtin_sqrtf(a[i]);
    return a;
}
/* vreduceps, only for imm 1: x - floor(x); zero for infinities */
EMU emu_float emu_reduce(emu_float a)
{
    for (int i = 0; i < 16; i++)
        a[i] = __builtin_isinf(a[i]) ? 0 : a[i] - __builtin_floorf(a[i]);
    return a;
}
/* a * 2^floor(b) */
EMU emu_float emu_scalef(emu_float a, emu_float b)
{
    for (int i = 0; i < 16; i++) {
        float n = __builtin_floorf(b[i]);
        if (!(n >= -1000))
            a[i] = n < -1000 ? a[i] * 0 : n;
        else
            a[i] = ldexpf(a[i], n > 1000 ? 1000 : (int)n);
    }
    return a;
}
EMU emu_float emu_cvtph(emu_half h)
{
    __m256i v = (__m256i)h;
    __m256 low = _mm256_cvtph_ps(_mm256_castsi256_si128(v)), high = _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1));
    emu_float f;
    memcpy(&f, &low, 32);
    memcpy((char *)&f + 32, &high, 32);
    return f;
}
EMU __m256i emu_cvtps(emu_float f)
{
    __m256 low, high;
    memcpy(&low, &f, 32);
    memcpy(&high, (char *)&f + 32, 32);
    return _mm256_set_m128i(_mm256_cvtps_ph(high, 0), _mm256_cvtps_ph(low, 0));
}
EMU __m256i emu_truncate(emu_word w) { return (__m256i) __builtin_convertvector(w, emu_half); }

/* Rounds to bfloat16: to nearest even, denormals become zero. */
EMU uint16_t emu_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7f800000u) == 0)
        return (uint16_t)(u >> 16 & 0x8000);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
EMU float emu_flush(uint32_t u)
{
    float f;
    if ((u & 0x7f800000u) == 0)
        u &= 0x80000000u;
    memcpy(&f, &u, 4);
    return f;
}
EMU __m256i emu_cvtneps(emu_float f)
{
    emu_half h;
    for (int i = 0; i < 16; i++)
        h[i] = emu_bf16(f[i]);
    return (__m256i)h;
}
/* the low half of the result is from the second argument */
EMU emu_short emu_cvtne2ps(emu_float a, emu_float b)
{
    emu_short h;
    for (int i = 0; i < 16; i++)
        h[i] = emu_bf16(b[i]), h[i + 16] = emu_bf16(a[i]);
    return h;
}
EMU emu_short emu_permute(emu_short index, emu_short a)
{
    emu_short out;
    for (int i = 0; i < 32; i++)
        out[i] = a[index[i] & 31];
    return out;
}
EMU emu_float emu_dpbf16(emu_float acc, emu_word a, emu_word b)
{
    for (int i = 0; i < 16; i++) {
        float sum = acc[i];
        uint32_t u;
        sum = __builtin_fmaf(emu_flush(a[i] & 0xffff0000u), emu_flush(b[i] & 0xffff0000u), sum);
        sum = __builtin_fmaf(emu_flush(a[i] << 16), emu_flush(b[i] << 16), sum);
        memcpy(&u, &sum, 4);
        acc[i] = emu_flush(u);
    }
    return acc;
}
EMU __m512i emu_set16(const short *e) /* highest element first */
{
    emu_short v;
    for (int i = 0; i < 32; i++)
        v[31 - i] = (uint16_t)e[i];
    return (__m512i)v;
}

#undef _mm512_reduce_ps
#undef _mm512_cvtps_ph
#define _mm512_fmadd_ps(a, b, c) ((__m512)emu_fmadd((emu_float)(a), (emu_float)(b), (emu_float)(c)))
#define _mm512_max_ps(a, b) ((__m512)emu_max((emu_float)(a), (emu_float)(b)))
#define _mm512_min_ps(a, b) ((__m512)emu_min((emu_float)(a), (emu_float)(b)))
#define _mm512_sqrt_ps(a) ((__m512)emu_sqrt((emu_float)(a)))
#define _mm512_reduce_ps(a, imm) ((__m512)emu_reduce((emu_float)(a)))
#define _mm512_scalef_ps(a, b) ((__m512)emu_scalef((emu_float)(a), (emu_float)(b)))
#define _mm512_cvtph_ps(h) ((__m512)emu_cvtph((emu_half)(h)))
#define _mm512_cvtps_ph(f, imm) emu_cvtps((emu_float)(f))
#define _mm512_cvtepi32_epi16(w) emu_truncate((emu_word)(w))
#define _mm512_cvtneps_pbh(f) emu_cvtneps((emu_float)(f))
#define _mm512_cvtne2ps_pbh(a, b) ((__m512i)emu_cvtne2ps((emu_float)(a), (emu_float)(b)))
#define _mm512_permutexvar_epi16(i, a) ((__m512i)emu_permute((emu_short)(i), (emu_short)(a)))
#define _mm512_dpbf16_ps(acc, a, b) ((__m512)emu_dpbf16((emu_float)(acc), (emu_word)(a), (emu_word)(b)))
#define _mm512_set_epi16(...) emu_set16((const short[32]){__VA_ARGS__})

#endif
