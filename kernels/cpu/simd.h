/* Vectors for the fast CPU sources. The level's header (simd/<level>.h, chosen by PS3C_LEVEL) defines the vector types
 * and the functions that depend on the instruction set. This header has what all levels share.
 *
 * A word is 32 bits: a float32, or two neighbouring 16-bit values, the even one in the low half (cpu.h). `dtype`
 * arguments are constants at every call, so that each inlined copy has one conversion only.
 */
#ifndef PS3C_CPU_SIMD_H
#define PS3C_CPU_SIMD_H

#define PS3C_QUOTE_(text) #text
#define PS3C_QUOTE(text) PS3C_QUOTE_(text)
/* The path must not contain a space. */
/* clang-format off */
#define PS3C_SIMD_HEADER PS3C_QUOTE(simd/PS3C_LEVEL.h)
/* clang-format on */
#include PS3C_SIMD_HEADER

/* ---- arithmetic -------------------------------------------------------------------------------------------- */

/* 2^x for x <= 126: 2^floor(x) times a minimax polynomial of the fraction. Relative error 1.5e-7 (degree 5), 7.5e-5
 * (degree 3: enough for a bfloat16 result). 0 below -126 (AVX-512: gradual underflow) and for -infinity; keeps NaN. */
INLINE vfloat v_exp2(vfloat x, int degree)
{
    static const float c5[] = {0.999999925f, 0.693153073f, 0.240153617f, 0.0558263179f, 0.00898934025f, 0.00187757661f};
    static const float c3[] = {0.999925219f, 0.695833538f, 0.226067164f, 0.0780245168f};
    const float *c = degree == 5 ? c5 : c3;
    vfloat n, f = v_exp2_fraction(x, &n), p = v_splat(c[degree]);
    UNROLL
    for (int i = degree - 1; i >= 0; i--)
        p = v_fma(p, f, v_splat(c[i]));
    return v_exp2_scale(p, x, n);
}

/* 0.5 x (1 + erf(x / sqrt 2)) = max(x, 0) - |x| 2^q(|x|), 2^q(u) = erfc(u / sqrt 2) / 2: no cancellation in the tail.
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

/* 0.5 x (1 + tanh(z)), z = sqrt(2 / pi) (x + 0.044715 x^3): max(x, 0) - |x| e / (1 + e), e = exp(-2 |z|). */
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

#ifndef PS3C_BF16_NATIVE /* a level without instructions for bfloat16 */
#define PS3C_BF16_NATIVE 0

/* float32 rounded to bfloat16, in the high half of each word; the low half is not cleared. */
INLINE vword v_round_bf16(vfloat v)
{
    vword u = (vword)v, nan = (vword)(v != v);
    return (nan & (u | 0x400000)) | (~nan & (u + 0x7fff + (u >> 16 & 1)));
}
INLINE vhalf v_to_bf16(vfloat v) { return __builtin_convertvector(v_round_bf16(v) >> 16, vhalf); }
INLINE vword v_pack_bf16(vfloat even, vfloat odd)
{
    return v_round_bf16(even) >> 16 | (v_round_bf16(odd) & 0xffff0000u);
}
#endif

/* VECTOR neighbouring 16-bit values. */
INLINE vfloat v_from_half(ps3c_dtype dtype, vhalf h)
{
    if (dtype == PS3C_BFLOAT16)
        return (vfloat)(__builtin_convertvector(h, vword) << 16);
    return v_from_f16(h);
}
INLINE vhalf v_to_half(ps3c_dtype dtype, vfloat v) { return dtype == PS3C_BFLOAT16 ? v_to_bf16(v) : v_to_f16(v); }

/* The even (low) and odd (high) values of words; float32: the word itself, twice. */
INLINE void v_unpack(ps3c_dtype dtype, vword w, vfloat *even, vfloat *odd)
{
    if (dtype == PS3C_FLOAT32) {
        *even = *odd = (vfloat)w;
    } else if (dtype == PS3C_BFLOAT16) {
        *even = (vfloat)(w << 16);
        *odd = (vfloat)(w & 0xffff0000u);
    } else {
        v_unpack_f16(w, even, odd);
    }
}
/* Words of rounded pairs; float32: the even value. */
INLINE vword v_pack(ps3c_dtype dtype, vfloat even, vfloat odd)
{
    if (dtype == PS3C_FLOAT32)
        return (vword)even;
    return dtype == PS3C_BFLOAT16 ? v_pack_bf16(even, odd) : v_pack_f16(even, odd);
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

/* Number of vectors with `tokens` tokens, at most a panel; vectors with spare tokens only are not counted. */
INLINE int v_count(int64_t tokens) { return (int)((tokens < PS3C_PANEL ? tokens : PS3C_PANEL) + VECTOR - 1) / VECTOR; }

#endif
