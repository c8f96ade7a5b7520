/* The CPU backend: layout of activations, and how its sources are compiled once per instruction set.
 *
 * Layout. Tokens are in the vector lanes: an activation is [segment][panel of 48 tokens][channel words][48 words]. A
 * word is 32 bits: one float32, or two neighbouring channels of a 16-bit type (the even one in the low half; if the
 * number of channels is odd, the last high half is zero). Each segment starts a new panel. The last panel's spare
 * tokens are undefined and may be NaN: vectors with spare tokens only are never written. Operations on single tokens
 * may read and write spare tokens; operations that combine tokens must ignore them. Attention values (gemm's
 * values_from) of 16-bit types are laid out "by tokens" instead: channel c of 48 tokens is 48 neighbouring 16-bit
 * values, 24 words, so that two channels still fill the 48 words of their channel pair. A bfloat16 dot-product
 * instruction needs pairs of keys, and this layout has them. float32 values have the same layout as others.
 *
 * Levels. levels.def lists the instruction sets. A source that uses PS3C_CPU(f) (gemm.c, attention.c, ...) is compiled
 * once per level with PS3C_LEVEL set to the level's name; PS3C_CPU(f) is f's name at that level. All other sources are
 * compiled once: X_naive.c, the plain C version of an operation X that also has a fast X.c; and X.c of an operation
 * with one version for all levels (PS3C_CPU_EVERY_LEVEL). dispatch.c selects a level at run time.
 */
#ifndef PS3C_CPU_H
#define PS3C_CPU_H

#include <string.h>

#include "../../csrc/contract/backend.h"
#include "../../csrc/contract/error.h"
#include "levels.def"

enum { PS3C_PANEL = 48 }; /* tokens of a panel; a multiple of every vector length */

typedef uint32_t __attribute__((may_alias)) ps3c_word;

static inline bool ps3c_is16(ps3c_dtype dtype) { return dtype != PS3C_FLOAT32; }
/* Words of one token's channels. */
static inline int64_t ps3c_channel_words(ps3c_dtype dtype, int64_t channels)
{
    return ps3c_is16(dtype) ? (channels + 1) / 2 : channels;
}
static inline int64_t ps3c_panels(int64_t tokens) { return (tokens + PS3C_PANEL - 1) / PS3C_PANEL; }
/* Words from one panel to the next. */
static inline int64_t ps3c_panel_words(ps3c_dtype dtype, int64_t channels)
{
    return ps3c_channel_words(dtype, channels) * PS3C_PANEL;
}
/* First word of a panel, panels counted within the segment. */
static inline ps3c_word *ps3c_panel(const ps3c_activation *a, ps3c_dtype dtype, int64_t segment, int64_t panel)
{
    return (ps3c_word *)a->data + (segment * ps3c_panels(a->tokens) + panel) * ps3c_panel_words(dtype, a->channels);
}

/* ---- single values, for plain operations and borders ----------------------------------------------------- */

static inline float ps3c_bf16_to_float(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
/* Rounds to nearest even; keeps NaN. */
static inline uint16_t ps3c_float_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
float ps3c_f16_to_float(uint16_t h); /* half.c */
uint16_t ps3c_float_to_f16(float f); /* rounds to nearest even; overflows to infinity */

static inline float ps3c_half_to_float(ps3c_dtype dtype, uint16_t h)
{
    return dtype == PS3C_BFLOAT16 ? ps3c_bf16_to_float(h) : ps3c_f16_to_float(h);
}
static inline uint16_t ps3c_float_to_half(ps3c_dtype dtype, float f)
{
    return dtype == PS3C_BFLOAT16 ? ps3c_float_to_bf16(f) : ps3c_float_to_f16(f);
}
/* Element i of a float32, float16 or bfloat16 array. */
static inline float ps3c_load(ps3c_dtype dtype, const void *p, int64_t i)
{
    float f;
    uint16_t h;
    if (dtype == PS3C_FLOAT32) {
        memcpy(&f, (const char *)p + i * 4, 4);
        return f;
    }
    memcpy(&h, (const char *)p + i * 2, 2);
    return ps3c_half_to_float(dtype, h);
}
static inline void ps3c_store(ps3c_dtype dtype, void *p, int64_t i, float f)
{
    uint16_t h;
    if (dtype == PS3C_FLOAT32) {
        memcpy((char *)p + i * 4, &f, 4);
        return;
    }
    h = ps3c_float_to_half(dtype, f);
    memcpy((char *)p + i * 2, &h, 2);
}
static inline float ps3c_round(ps3c_dtype dtype, float f)
{
    return dtype == PS3C_FLOAT32 ? f : ps3c_half_to_float(dtype, ps3c_float_to_half(dtype, f));
}
/* Index, in elements of the dtype, of a token's channel. values: laid out by tokens. */
static inline int64_t ps3c_element(const ps3c_activation *a, ps3c_dtype dtype, int64_t segment, int64_t token,
                                   int64_t channel, bool values)
{
    int64_t panel = segment * ps3c_panels(a->tokens) + token / PS3C_PANEL, lane = token % PS3C_PANEL;
    int64_t word = panel * ps3c_panel_words(dtype, a->channels);
    if (!ps3c_is16(dtype))
        return word + channel * PS3C_PANEL + lane;
    if (values)
        return 2 * word + channel * PS3C_PANEL + lane;
    return 2 * (word + channel / 2 * PS3C_PANEL + lane) + channel % 2;
}
static inline float ps3c_get(const ps3c_activation *a, ps3c_dtype dtype, int64_t segment, int64_t token,
                             int64_t channel)
{
    return ps3c_load(dtype, a->data, ps3c_element(a, dtype, segment, token, channel, false));
}
static inline void ps3c_set(const ps3c_activation *a, ps3c_dtype dtype, int64_t segment, int64_t token, int64_t channel,
                            float f)
{
    ps3c_store(dtype, a->data, ps3c_element(a, dtype, segment, token, channel, false), f);
}

/* ---- levels --------------------------------------------------------------------------------------------- */

#define PS3C_PASTE_(a, b) a##_##b
#define PS3C_PASTE(a, b) PS3C_PASTE_(a, b)
#ifdef PS3C_LEVEL
#define PS3C_CPU(f) PS3C_PASTE(f, PS3C_LEVEL)
#endif

/* ps3c_X_<level> of every operation X and level. Hidden, so that the link of the module fails where one is missing. */
#define PS3C_CPU_DECLARE(op, level, ...) \
    ps3c_status ps3c_##op##_##level(const ps3c_run *run, const ps3c_##op##_args *args);
#define PS3C_CPU_DECLARE_LEVELS(op) PS3C_CPU_LEVELS(PS3C_CPU_DECLARE, op)
#pragma GCC visibility push(hidden)
PS3C_OPERATIONS(PS3C_CPU_DECLARE_LEVELS)
PS3C_HOST_OPERATIONS(PS3C_CPU_DECLARE_LEVELS)
#pragma GCC visibility pop

/* For an operation X with one version: at the end of X.c, after ps3c_X, gives ps3c_X the names ps3c_X_<level> of all
 * levels. */
#define PS3C_CPU_ALIAS(op, level, ...)                                                 \
    ps3c_status ps3c_##op##_##level(const ps3c_run *run, const ps3c_##op##_args *args) \
        __attribute__((alias("ps3c_" #op)));
#define PS3C_CPU_EVERY_LEVEL(op) PS3C_CPU_LEVELS(PS3C_CPU_ALIAS, op)

/* ---- memory (activation.c) ------------------------------------------------------------------------------- */

size_t ps3c_cpu_activation_bytes(ps3c_dtype dtype, int64_t segments, int64_t tokens, int64_t channels);
/* The maximum of what the operations need. An operation that uses scratch adds its line to activation.c. */
size_t ps3c_cpu_scratch_bytes(ps3c_dtype dtype, int threads, int64_t tokens, int64_t channels, int64_t positions);

#endif
