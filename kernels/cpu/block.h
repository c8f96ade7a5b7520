/* Blocks of tokens in float32, for operations that compute token by token. A block is [channels][16 tokens], a third
 * of a panel, and is in scratch while its tokens are computed. Each thread gets a contiguous range of blocks and its
 * own scratch. */
#ifndef PS3C_CPU_BLOCK_H
#define PS3C_CPU_BLOCK_H

#include "block_scratch.h"
#include "simd.h"
#include "tokens.h"

/* A block of an activation: its position and its tokens. */
typedef struct ps3c_block {
    int64_t segment, token, count; /* count: real tokens; 0 if all are spare */
    ps3c_word *words;              /* [words][48], 16 of the 48 */
} ps3c_block;

INLINE int64_t ps3c_blocks(const ps3c_activation *a)
{
    return a->segments * ps3c_panels(a->tokens) * (PS3C_PANEL / PS3C_BLOCK);
}
/* Block number `index`, counted through segments and panels. */
INLINE ps3c_block ps3c_block_at(const ps3c_activation *a, ps3c_dtype dtype, int64_t index)
{
    const int64_t per_segment = ps3c_panels(a->tokens) * (PS3C_PANEL / PS3C_BLOCK);
    int64_t segment = index / per_segment, token = index % per_segment * PS3C_BLOCK, left = a->tokens - token;
    return (ps3c_block){segment, token,
                        left < 0            ? 0
                        : left < PS3C_BLOCK ? left
                                            : PS3C_BLOCK,
                        ps3c_panel(a, dtype, segment, token / PS3C_PANEL) + token % PS3C_PANEL};
}

INLINE void v_block_read(ps3c_dtype dtype, const ps3c_block *b, int64_t channels, float *values)
{
    const int64_t step = dtype == PS3C_FLOAT32 ? 1 : 2;
    const ps3c_word *words = b->words;
    for (int64_t c = 0; c < channels; c += step, words += PS3C_PANEL)
        for (int j = 0; j < PS3C_BLOCK; j += VECTOR) {
            vfloat even, odd;
            v_unpack(dtype, v_load_word(words + j), &even, &odd);
            v_store(values + c * PS3C_BLOCK + j, even);
            if (c + 1 < channels && step == 2)
                v_store(values + (c + 1) * PS3C_BLOCK + j, odd);
        }
}
INLINE void v_block_write(ps3c_dtype dtype, const ps3c_block *b, int64_t channels, const float *values)
{
    const int64_t step = dtype == PS3C_FLOAT32 ? 1 : 2;
    ps3c_word *words = b->words;
    for (int64_t c = 0; c < channels; c += step, words += PS3C_PANEL)
        for (int j = 0; j < PS3C_BLOCK; j += VECTOR) {
            vfloat even = v_load(values + c * PS3C_BLOCK + j), odd = v_splat(0);
            if (c + 1 < channels)
                odd = v_load(values + (c + 1) * PS3C_BLOCK + j);
            v_store_word(words + j, v_pack(dtype, even, odd));
        }
}
/* The same for a dtype known only at run time. */
static inline void ps3c_block_read(ps3c_dtype dtype, const ps3c_block *b, int64_t channels, float *values)
{
    if (dtype == PS3C_FLOAT32)
        v_block_read(PS3C_FLOAT32, b, channels, values);
    else if (dtype == PS3C_BFLOAT16)
        v_block_read(PS3C_BFLOAT16, b, channels, values);
    else
        v_block_read(PS3C_FLOAT16, b, channels, values);
}
static inline void ps3c_block_write(ps3c_dtype dtype, const ps3c_block *b, int64_t channels, const float *values)
{
    if (dtype == PS3C_FLOAT32)
        v_block_write(PS3C_FLOAT32, b, channels, values);
    else if (dtype == PS3C_BFLOAT16)
        v_block_write(PS3C_BFLOAT16, b, channels, values);
    else
        v_block_write(PS3C_FLOAT16, b, channels, values);
}

#endif
