/* Small functions that several operations share: locating a patch, clearing an activation, reading a tensor. */
#ifndef PS3C_CPU_TOKENS_H
#define PS3C_CPU_TOKENS_H

#include "cpu.h"

typedef struct ps3c_patch {
    int64_t scale, row, col;
} ps3c_patch;

/* The patch at a token's position. positions: [segments][tokens] or NULL (0, 1, 2, ... in every segment). */
static inline ps3c_patch ps3c_locate(const ps3c_scale *scales, int64_t num_scales, const int32_t *positions,
                                     int64_t tokens, int64_t segment, int64_t token)
{
    int64_t position = positions ? positions[segment * tokens + token] : token, scale = num_scales - 1;
    while (scale > 0 && position < scales[scale].first)
        scale--;
    position -= scales[scale].first;
    return (ps3c_patch){scale, position / scales[scale].cols, position % scales[scale].cols};
}

/* Words of a whole activation. */
static inline int64_t ps3c_activation_words(const ps3c_activation *a, ps3c_dtype dtype)
{
    return a->segments * ps3c_panels(a->tokens) * ps3c_panel_words(dtype, a->channels);
}
/* Zeroes the whole activation: with an odd number of channels, the spare half word must be zero. */
static inline void ps3c_activation_clear(const ps3c_activation *a, ps3c_dtype dtype)
{
    memset(a->data, 0, (size_t)ps3c_activation_words(a, dtype) * sizeof(ps3c_word));
}

/* Element at an offset (in elements) of a tensor of any dtype, converted like torch's .float(). */
static inline float ps3c_tensor_float(const ps3c_tensor *t, int64_t offset)
{
    const char *p = (const char *)t->data;
    double d;
    int16_t i16;
    int32_t i32;
    int64_t i64;
    switch (t->dtype) {
    case PS3C_FLOAT64:
        memcpy(&d, p + offset * 8, 8);
        return (float)d;
    case PS3C_BOOL:
        return p[offset] != 0;
    case PS3C_UINT8:
        return (float)(uint8_t)p[offset];
    case PS3C_INT8:
        return (float)(int8_t)p[offset];
    case PS3C_INT16:
        memcpy(&i16, p + offset * 2, 2);
        return (float)i16;
    case PS3C_INT32:
        memcpy(&i32, p + offset * 4, 4);
        return (float)i32;
    case PS3C_INT64:
        memcpy(&i64, p + offset * 8, 8);
        return (float)i64;
    default:
        return ps3c_load(t->dtype, p, offset);
    }
}
static inline int64_t ps3c_tensor_id(const ps3c_tensor *ids, int64_t text, int64_t token)
{
    int64_t id;
    memcpy(&id, (const char *)ids->data + (text * ids->strides[0] + token * ids->strides[1]) * 8, 8);
    return id;
}

#endif
