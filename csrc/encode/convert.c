/* Conversion of arrays between floating dtypes, in integer arithmetic: values of weights and pixels, once each. */
#include "convert.h"

#include <string.h>

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static float half_to_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 0)
        return float_of(bits_of((float)fraction * 0x1p-24f) | sign);
    return float_of(sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13);
}

static uint16_t float_to_half(float value)
{
    const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (size >= 0x47800000) /* 65536 */
        return (uint16_t)(sign | 0x7c00);
    if (size < 0x38800000) /* below 2^-14: near 0.5, float32 has steps of 2^-24, so that the addition rounds */
        return (uint16_t)(sign | (bits_of(float_of(size) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13);
}

static uint16_t float_to_bfloat16(float value)
{
    const uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return 0x7fc0; /* torch's NaN */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float read_one(ps3c_dtype dtype, const char *values, int64_t i)
{
    uint16_t half;
    float single = 0.0f;
    double wide;
    switch (dtype) {
    case PS3C_FLOAT32:
        memcpy(&single, values + 4 * i, 4);
        return single;
    case PS3C_FLOAT64:
        memcpy(&wide, values + 8 * i, 8);
        return (float)wide;
    case PS3C_FLOAT16:
        memcpy(&half, values + 2 * i, 2);
        return half_to_float(half);
    default:
        memcpy(&half, values + 2 * i, 2);
        return float_of((uint32_t)half << 16);
    }
}

void ps3c_convert(ps3c_dtype from, const void *values, ps3c_dtype to, void *out, int64_t count)
{
    if (from == to) {
        memcpy(out, values, (size_t)count * ps3c_dtype_bytes(to));
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        const float value = read_one(from, values, i);
        if (to == PS3C_FLOAT32)
            ((float *)out)[i] = value;
        else
            ((uint16_t *)out)[i] = to == PS3C_FLOAT16 ? float_to_half(value) : float_to_bfloat16(value);
    }
}
