/* float16 (IEEE binary16) to and from float32, in integer arithmetic: the conversions of single values in plain
 * operations and at borders. Fast operations convert vectors (simd.h). */
#include "cpu.h"

float ps3c_f16_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, u = (uint32_t)(h & 0x7fff) << 13;
    float f;
    if (u >= 0x0f800000u) { /* infinity, NaN */
        u += 0x70000000u;
        memcpy(&f, &u, 4);
    } else if (u >= 0x00800000u) { /* normal: the exponent's bias grows by 112 */
        u += 0x38000000u;
        memcpy(&f, &u, 4);
    } else { /* subnormal: a multiple of 2^-24 */
        f = (float)(u >> 13) * 0x1p-24f;
    }
    memcpy(&u, &f, 4);
    u |= sign;
    memcpy(&f, &u, 4);
    return f;
}

uint16_t ps3c_float_to_f16(float f)
{
    uint32_t u, sign;
    memcpy(&u, &f, 4);
    sign = u >> 16 & 0x8000;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) /* NaN: becomes quiet and keeps the top of its payload */
        return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x1ff));
    if (u >= 0x47800000u) /* 65536 and above */
        return (uint16_t)(sign | 0x7c00);
    if (u < 0x38800000u) { /* subnormal: float32 near 0.5 has steps of 2^-24, so the addition rounds */
        float magic;
        memcpy(&magic, &u, 4);
        magic += 0.5f;
        memcpy(&u, &magic, 4);
        return (uint16_t)(sign | (u - 0x3f000000u));
    }
    u += 0x0fff + (u >> 13 & 1); /* a carry gives infinity, as it should */
    return (uint16_t)(sign | (u - 0x38000000u) >> 13);
}
