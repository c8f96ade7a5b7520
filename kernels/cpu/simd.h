/* Vectors for the fast CPU sources: one set of small inline functions, compiled for 4, 8 or 16 floats by what the
 * compiler's flags allow (dispatch.c lists the flags of each level). Plain arithmetic uses the compilers' vector types.
 *
 * A word is 32 bits: a float32, or two neighbouring 16-bit values, the even one in the low half (cpu.h). `dtype`
 * arguments are constants at every call, so that each instance holds one conversion.
 */
#ifndef PS3C_CPU_SIMD_H
#define PS3C_CPU_SIMD_H

#include "cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define PS3C_AVX512 1
#define PS3C_VECTOR 16
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define PS3C_AVX2 1
#define PS3C_VECTOR 8
#else
#define PS3C_VECTOR 4
#endif
#ifdef __AVX512BF16__
#define PS3C_BF16_NATIVE 1 /* vdpbf16ps: products of bfloat16 pairs summed in float32 */
#else
#define PS3C_BF16_NATIVE 0
#endif

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { VECTOR = PS3C_VECTOR }; /* floats, words */

typedef float vfloat __attribute__((vector_size(4 * PS3C_VECTOR), may_alias));
typedef uint32_t vword __attribute__((vector_size(4 * PS3C_VECTOR), may_alias));
typedef uint16_t vhalf __attribute__((vector_size(2 * PS3C_VECTOR), may_alias));

/* ---- memory: aligned unless the name says otherwise ------------------------------------------------------- */

INLINE vfloat v_load(const void *p) { return *(const vfloat *)p; }
INLINE void v_store(void *p, vfloat v) { *(vfloat *)p = v; }
INLINE vword v_load_word(const void *p) { return *(const vword *)p; }
INLINE void v_store_word(void *p, vword v) { *(vword *)p = v; }
INLINE void v_store_unaligned(void *p, vfloat v) { memcpy(p, &v, sizeof v); }

INLINE vfloat v_splat(float f) { return f - (vfloat){0}; }
INLINE vword v_splat_word(uint32_t u) { return u + (vword){0}; }

/* ---- arithmetic -------------------------------------------------------------------------------------------- */

INLINE vfloat v_fma(vfloat a, vfloat b, vfloat c)
{
#if defined(PS3C_AVX512)
    return (vfloat)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(PS3C_AVX2)
    return (vfloat)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}
INLINE vfloat v_select(vword mask, vfloat a, vfloat b) { return (vfloat)((mask & (vword)a) | (~mask & (vword)b)); }
/* The second argument where either is NaN. */
INLINE vfloat v_max(vfloat a, vfloat b)
{
#if defined(PS3C_AVX512)
    return (vfloat)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(PS3C_AVX2)
    return (vfloat)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (vfloat)_mm_max_ps((__m128)a, (__m128)b);
#else
    return v_select((vword)(a > b), a, b);
#endif
}
INLINE vfloat v_min(vfloat a, vfloat b)
{
#if defined(PS3C_AVX512)
    return (vfloat)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(PS3C_AVX2)
    return (vfloat)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (vfloat)_mm_min_ps((__m128)a, (__m128)b);
#else
    return v_select((vword)(a < b), a, b);
#endif
}
INLINE vfloat v_abs(vfloat a) { return (vfloat)((vword)a & 0x7fffffffu); }
INLINE vfloat v_sqrt(vfloat a)
{
#if defined(PS3C_AVX512)
    return (vfloat)_mm512_sqrt_ps((__m512)a);
#elif defined(PS3C_AVX2)
    return (vfloat)_mm256_sqrt_ps((__m256)a);
#elif defined(__SSE2__)
    return (vfloat)_mm_sqrt_ps((__m128)a);
#else
    for (int i = 0; i < VECTOR; i++)
        a[i] = __builtin_sqrtf(a[i]);
    return a;
#endif
}

/* 2^x for x <= 126: 2^floor(x) times a minimax polynomial of the fraction. Relative error 1.5e-7 (degree 5), 7.5e-5
 * (degree 3: enough for a bfloat16 result). 0 below -126 (AVX-512: gradual underflow) and for -infinity; NaN stays. */
INLINE vfloat v_exp2(vfloat x, int degree)
{
    static const float c5[] = {0.999999925f, 0.693153073f, 0.240153617f, 0.0558263179f, 0.00898934025f, 0.00187757661f};
    static const float c3[] = {0.999925219f, 0.695833538f, 0.226067164f, 0.0780245168f};
    const float *c = degree == 5 ? c5 : c3;
    vfloat f, p = v_splat(c[degree]);
#if defined(PS3C_AVX512)
    f = (vfloat)_mm512_reduce_ps((__m512)x, 1);
#elif defined(PS3C_AVX2)
    __m256 n = _mm256_floor_ps((__m256)x);
    f = x - (vfloat)n;
#else
    /* Near 1.5 * 2^23 floats are the integers, so that the addition rounds and leaves them in the low bits. */
    vfloat n = x - 0.5f + 12582912.0f;
    f = x - (n - 12582912.0f);
#endif
    UNROLL
    for (int i = degree - 1; i >= 0; i--)
        p = v_fma(p, f, v_splat(c[i]));
#if defined(PS3C_AVX512)
    return (vfloat)_mm512_scalef_ps((__m512)p, (__m512)x);
#elif defined(PS3C_AVX2)
    p *= (vfloat)_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return (vfloat)_mm256_andnot_ps(_mm256_cmp_ps((__m256)x, _mm256_set1_ps(-126), _CMP_LT_OQ), (__m256)p);
#else
    p *= (vfloat)(((vword)n - (0x4b400000u - 127)) << 23);
    return (vfloat)(~(vword)(x < -126.0f) & (vword)p);
#endif
}

/* x / 2 (1 + erf(x / sqrt 2)) = max(x, 0) - |x| 2^q(|x|), 2^q(u) = erfc(u / sqrt 2) / 2: no cancellation in the tail.
 * Error at most 1.2 ulp of max(1, |x|). */
INLINE vfloat v_gelu_erf(vfloat x)
{
    static const float c[] = {-0.999993265f,  -1.15120018f,     -0.458774954f,  -0.0534073412f,
                              0.00807790086f, -0.000768421334f, 3.30067196e-05f};
    vfloat u = v_min(v_abs(x), v_splat(8)), q = v_splat(c[6]);
    UNROLL
    for (int i = 5; i >= 0; i--)
        q = v_fma(q, u, v_splat(c[i]));
    return v_fma(-u, v_exp2(q, 5), v_max(v_splat(0), x));
}

/* x / 2 (1 + tanh(z)), z = sqrt(2 / pi) (x + 0.044715 x^3): max(x, 0) - |x| e / (1 + e), e = exp(-2 |z|). */
INLINE vfloat v_gelu_tanh(vfloat x)
{
    vfloat u = v_min(v_abs(x), v_splat(12)), z = v_fma(u * u, v_splat(0.044715f), v_splat(1)) * u;
    vfloat e = v_exp2(z * -2.30220818f, 5); /* -2 sqrt(2 / pi) log2(e) */
    return v_fma(-u, e / (e + 1.0f), v_max(v_splat(0), x));
}

INLINE vfloat v_activate(ps3c_activation_function act, vfloat x)
{
    switch (act) {
    case PS3C_ACT_GELU_ERF:
        return v_gelu_erf(x);
    case PS3C_ACT_GELU_TANH:
        return v_gelu_tanh(x);
    case PS3C_ACT_RELU:
        return v_max(v_splat(0), x);
    default:
        return x;
    }
}

/* ---- 16-bit types ------------------------------------------------------------------------------------------ */

#if !defined(PS3C_AVX512) && !defined(PS3C_AVX2)
/* float16 in the low half of each word to float32: the exponent moves by a multiplication, subnormals included. */
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
#endif

/* float32 rounded to bfloat16, in the high half of each word; the low half is not cleared. */
INLINE vword v_round_bf16(vfloat v)
{
    vword u = (vword)v, nan = (vword)(v != v);
    return (nan & (u | 0x400000)) | (~nan & (u + 0x7fff + (u >> 16 & 1)));
}

/* VECTOR neighbouring 16-bit values. */
INLINE vfloat v_from_half(ps3c_dtype dtype, vhalf h)
{
    if (dtype == PS3C_BFLOAT16)
        return (vfloat)(__builtin_convertvector(h, vword) << 16);
#if defined(PS3C_AVX512)
    return (vfloat)_mm512_cvtph_ps((__m256i)h);
#elif defined(PS3C_AVX2)
    return (vfloat)_mm256_cvtph_ps((__m128i)h);
#else
    return v_from_f16_words(__builtin_convertvector(h, vword));
#endif
}
INLINE vhalf v_to_half(ps3c_dtype dtype, vfloat v)
{
    if (dtype == PS3C_BFLOAT16) {
#if PS3C_BF16_NATIVE
        return (vhalf)_mm512_cvtneps_pbh((__m512)v);
#else
        return __builtin_convertvector(v_round_bf16(v) >> 16, vhalf);
#endif
    }
#if defined(PS3C_AVX512)
    return (vhalf)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(PS3C_AVX2)
    return (vhalf)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
#else
    return __builtin_convertvector(v_to_f16_words(v), vhalf);
#endif
}

/* The even (low) and odd (high) values of words; float32: the word itself, twice. */
INLINE void v_unpack(ps3c_dtype dtype, vword w, vfloat *even, vfloat *odd)
{
    if (dtype == PS3C_FLOAT32) {
        *even = *odd = (vfloat)w;
    } else if (dtype == PS3C_BFLOAT16) {
        *even = (vfloat)(w << 16);
        *odd = (vfloat)(w & 0xffff0000u);
    } else {
#if defined(PS3C_AVX512)
        *even = (vfloat)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)w));
        *odd = (vfloat)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)(w >> 16)));
#elif defined(PS3C_AVX2)
        __m256i low = (__m256i)(w & 0xffff), high = (__m256i)(w >> 16);
        *even =
            (vfloat)_mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
        *odd =
            (vfloat)_mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)));
#else
        *even = v_from_f16_words(w & 0xffff);
        *odd = v_from_f16_words(w >> 16);
#endif
    }
}
/* Words of rounded pairs; float32: the even value. */
INLINE vword v_pack(ps3c_dtype dtype, vfloat even, vfloat odd)
{
    if (dtype == PS3C_FLOAT32)
        return (vword)even;
    if (dtype == PS3C_BFLOAT16) {
#if PS3C_BF16_NATIVE
        const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                               6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        return (vword)_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even));
#else
        return v_round_bf16(even) >> 16 | (v_round_bf16(odd) & 0xffff0000u);
#endif
    }
#if defined(PS3C_AVX512) || defined(PS3C_AVX2)
    return __builtin_convertvector(v_to_half(dtype, even), vword) |
           __builtin_convertvector(v_to_half(dtype, odd), vword) << 16;
#else
    return v_to_f16_words(even) | v_to_f16_words(odd) << 16;
#endif
}

/* count values from index i of a plain array (any alignment) as float32. */
INLINE void v_widen_array(ps3c_dtype dtype, const void *array, int64_t i, int64_t count, float *out)
{
    const char *p = (const char *)array + i * (dtype == PS3C_FLOAT32 ? 4 : 2);
    vhalf h = {0};
    if (dtype == PS3C_FLOAT32) {
        memcpy(out, p, (size_t)count * 4);
        return;
    }
    for (; count >= VECTOR; count -= VECTOR, p += sizeof h, out += VECTOR) {
        memcpy(&h, p, sizeof h);
        v_store_unaligned(out, v_from_half(dtype, h));
    }
    if (count > 0) {
        vfloat f;
        h = (vhalf){0};
        memcpy(&h, p, (size_t)count * 2);
        f = v_from_half(dtype, h);
        memcpy(out, &f, (size_t)count * 4);
    }
}
/* The same for a dtype known only at run time. */
static inline void ps3c_widen_array(ps3c_dtype dtype, const void *array, int64_t i, int64_t count, float *out)
{
    switch (dtype) {
    case PS3C_BFLOAT16:
        v_widen_array(PS3C_BFLOAT16, array, i, count, out);
        break;
    case PS3C_FLOAT16:
        v_widen_array(PS3C_FLOAT16, array, i, count, out);
        break;
    default:
        v_widen_array(PS3C_FLOAT32, array, i, count, out);
    }
}
/* Panel rows of 16-bit pairs: [words][48] to float32 [2 * words][48]. */
INLINE void v_widen_pairs(ps3c_dtype dtype, const ps3c_word *in, int64_t words, float *out)
{
    for (int64_t k = 0; k < words; k++, in += PS3C_PANEL, out += 2 * PS3C_PANEL)
        for (int j = 0; j < PS3C_PANEL; j += VECTOR) {
            vfloat even, odd;
            v_unpack(dtype, v_load_word(in + j), &even, &odd);
            v_store(out + j, even);
            v_store(out + PS3C_PANEL + j, odd);
        }
}
static inline void ps3c_widen_pairs(ps3c_dtype dtype, const ps3c_word *in, int64_t words, float *out)
{
    if (dtype == PS3C_BFLOAT16)
        v_widen_pairs(PS3C_BFLOAT16, in, words, out);
    else
        v_widen_pairs(PS3C_FLOAT16, in, words, out);
}

/* Vectors that hold `tokens` tokens, at most a panel's; a whole spare vector is not worked on. */
INLINE int v_count(int64_t tokens) { return (int)((tokens < PS3C_PANEL ? tokens : PS3C_PANEL) + VECTOR - 1) / VECTOR; }

#endif
