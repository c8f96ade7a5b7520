/* Scratch of the operations other than GEMM, attention and LayerNorm, in floats; activation.c takes the maximum.
 * Multiples of 16 floats, so that every part is aligned. */
#ifndef PS3C_CPU_BLOCK_SCRATCH_H
#define PS3C_CPU_BLOCK_SCRATCH_H

#include "cpu.h"

enum {
    PS3C_BLOCK = 16,           /* tokens of a block: a third of a panel, whole vectors at every level */
    PS3C_DEPTHWISE_COLS = 512, /* widest map of the fast convolution; wider ones use the plain version */
};

static inline int64_t ps3c_round16(int64_t n) { return (n + 15) / 16 * 16; }

/* Per thread, patch_gather and token_embedding: a block. */
static inline int64_t ps3c_block_floats(int64_t channels) { return PS3C_BLOCK * channels; }
/* Per thread, position_add: a block; a token's resampled row, a partial sum of it, a row of a table in float32. */
static inline int64_t ps3c_position_add_floats(int64_t channels)
{
    return ps3c_block_floats(channels) + 3 * ps3c_round16(channels);
}
/* Per thread, cosine: the prompt. */
static inline int64_t ps3c_cosine_floats(int64_t channels) { return ps3c_round16(channels); }
/* Per thread, depthwise: 7 rows of two channels with borders, their sums, the words of a row. */
static inline int64_t ps3c_depthwise_floats(int64_t cols) { return 17 * (ps3c_round16(cols) + 32); }
/* Per thread, attention_pool: a score for each token. */
static inline int64_t ps3c_attention_pool_floats(int64_t tokens) { return ps3c_panels(tokens) * PS3C_PANEL; }
/* Once, rank: keys with indices, twice. */
static inline int64_t ps3c_rank_floats(int64_t positions) { return 4 * ps3c_round16(positions); }

#endif
