/* The fields of a vision plan, for vision_plan.c, vision_steps.c and vision.c. */
#ifndef PS3C_VISION_PLAN_H
#define PS3C_VISION_PLAN_H

#include "../contract/backend.h"
#include "weights.h"

/* Offsets in bytes of the buffers in the workspace. Buffers of different phases share memory. Shapes: c images of a
 * chunk, N low-res tokens, C width. */
typedef struct ps3c_vision_buffers {
    /* live throughout a chunk */
    size_t scratch;
    size_t cache, cache_step;     /* keys and values of the low-res tokens, (c, N, 2 C) for each block; its size */
    size_t select;                /* (c, N, select layers * C) */
    size_t probs;                 /* float [c][N], of the current prompt */
    size_t rank[PS3C_MAX_SCALES]; /* int32 [c][patches] for each high-res scale */
    size_t positions, row_of;     /* int32 [c * selected] */
    size_t low_pooled;            /* (1, c, pool width) */
    /* the low-res pass; then each group of looks */
    size_t x, normed, wide;
    /* selection */
    size_t select_hidden, select_out;
    size_t conv_x, conv_y, conv_wide, conv_out; /* one image */
    size_t prompt, prompt_high;                 /* (1, c, C), (1, c, conv out) */
    size_t prompt_rows[2];                      /* prompt_high as plain rows: [0] prior prompt, [1] prompt */
    size_t logits, high_logits, high_pooled[2]; /* float [c][N]; [conv tokens]; [c][N] for each prompt */
    /* pooling, at the same time as x */
    size_t adapted[3], kv, mask;
    size_t latent, pool_query, pool_a, pool_b, pool_hidden;
    size_t bytes;
} ps3c_vision_buffers;

struct ps3c_vision_plan {
    ps3c_vision_config config;
    ps3c_vision_request request; /* first_n_scales points into this plan */
    int64_t *first_n;            /* [batch], or NULL */
    ps3c_vision_index index;
    int64_t num_high; /* high-res scales */
    ps3c_scale low;
    ps3c_scale high[PS3C_MAX_SCALES];
    ps3c_scale conv; /* the 1512 x 1512 image, in patches of side conv_kernel */
    int64_t looks;
    int32_t *takes;       /* [batch][looks][num_high] */
    int32_t *ends;        /* [batch][num_high][looks], cumulative over looks */
    int64_t *look_tokens; /* [looks] */
    int64_t *look_first;  /* [looks], number of tokens of all earlier looks */
    /* Two variants: [0] full chunks, [1] the last, possibly shorter, chunk. */
    int64_t *look_entry;  /* [2][looks]: index of the look's first entry in positions */
    int64_t *group_first; /* [2][looks]: first look of each group of looks that run together */
    int64_t groups[2];
    int64_t selected; /* tokens of all looks */
    int64_t hidden_states;
    bool pooled, low_pooled; /* the run returns a pooled vector; it computes the low-res one */
    int64_t chunk;           /* images that run together */
    int64_t group_tokens;    /* most tokens of a group of looks; a single look may have more */
    int threads;             /* number that scratch is planned for */
    ps3c_vision_buffers at;
};

/* Number of looks, from `look` on, that run together in a chunk of `images` images. They have the same number of
 * tokens. */
int64_t ps3c_vision_group(const ps3c_vision_plan *plan, int64_t look, int64_t images);
/* Number of images of the last chunk. */
int64_t ps3c_vision_last_images(const ps3c_vision_plan *plan);
/* Sets look_entry, group_first and groups from chunk and group_tokens. */
void ps3c_vision_set_groups(ps3c_vision_plan *plan);

/* Number of steps of a run. */
int64_t ps3c_vision_steps(const ps3c_vision_plan *plan);
/* look_entry, [looks], for a chunk of `images` images. */
const int64_t *ps3c_vision_look_entry(const ps3c_vision_plan *plan, int64_t images);

#endif
