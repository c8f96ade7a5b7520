/* softmax(q k^T / sqrt(head_dim)) v over each segment: the cached tokens' keys and values first, then the segment's
 * own. FlashAttention's blocks (Dao et al., arXiv:2205.14135) with the online softmax (arXiv:1805.02867), on panels.
 *
 * A task is 48 queries of one head. Queries are in the lanes, so S^T[key][48] = K Q^T and O^T[channel][48] += V^T P^T
 * both use the tile of GEMM (tile.h). Q, K and V are used where the QKV product wrote them, for any head_dim without
 * padding, and the softmax has no horizontal step. The maximum is taken from the accumulators when scores are stored; O
 * is rescaled when V's tile is added. V is laid out by tokens (cpu.h): bfloat16 products need pairs of keys.
 *
 * If words cannot be operands (float16; bfloat16 without instructions for it), each task converts a block of keys and
 * values to float32 and uses the float32 tile.
 */
#include <float.h>
#include <math.h>

#include "scratch.h"
#include "threads.h"
#include "tile.h"

typedef struct attention_plan {
    const ps3c_attention_args *args;
    ps3c_dtype dtype;
    ps3c_attention_scratch *scratch; /* one per thread */
    bool wide;                       /* keys, values and queries are converted to float32 */
    bool native;                     /* bfloat16 pairs */
    int64_t panels;                  /* of a segment's queries */
    int64_t block;                   /* panels of keys per softmax step */
    float scale;                     /* log2(e) / sqrt(head_dim) */
} attention_plan;

/* One block of keys, for one strip of lanes. */
typedef struct attention_block {
    const attention_plan *plan;
    ps3c_attention_scratch *scratch;
    const ps3c_word *query; /* [head_dim words][48] */
    const ps3c_word *keys;  /* this head's rows in the block's first panel */
    const ps3c_word *values;
    int64_t stride; /* words from panel to panel of both */
    int64_t count;  /* keys */
    /* masks: own keys only */
    bool causal; /* lane l sees keys 0 .. first_token + l - first_key */
    int64_t first_key, first_token;
    const uint8_t *last_mask; /* of the block's keys, for lane `last_lane`; or NULL */
    int64_t last_lane;
} attention_block;

/* ---- scores ------------------------------------------------------------------------------------------------ */

/* Sets the scores of masked keys to -infinity, in lanes [lane, lane + lanes). */
static void mask_scores(const attention_block *b, int64_t lane, int64_t lanes)
{
    for (int64_t i = 0; i < b->count; i++) {
        float *s = b->scratch->scores + i * PS3C_PANEL + lane;
        int64_t hidden = b->causal ? b->first_key + i - b->first_token - lane : 0;
        for (int64_t l = 0; l < (hidden < lanes ? hidden : lanes); l++)
            s[l] = -INFINITY;
        if (b->last_mask && !b->last_mask[i] && b->last_lane >= lane && b->last_lane < lane + lanes)
            s[b->last_lane - lane] = -INFINITY;
    }
}

/* scores[key][lane] = k . q, and the maximum so far of each lane. */
INLINE void score_keys(const attention_block *b, int vectors, bool native, int64_t lane)
{
    ps3c_attention_scratch *t = b->scratch;
    int64_t depth = native ? b->plan->args->head_dim / 2 : b->plan->args->head_dim;
    bool masked = b->causal || b->last_mask;
    tile_operands o = {.row = 1, .step = PS3C_PANEL, .depth = depth, .stretches = 1, .last = depth};
    o.b = b->query + lane;
    o.max = masked ? NULL : t->max + lane;
    for (int64_t i = 0; i < b->count; i += TILE_ROWS) {
        o.a = b->keys + i / PS3C_PANEL * b->stride + i % PS3C_PANEL;
        o.c = t->scores + i * PS3C_PANEL + lane;
        if (b->count - i >= TILE_ROWS)
            tile(TILE_ROWS, vectors, native, false, &o);
        else
            tile_rows((int)(b->count - i), vectors, native, &o);
    }
    if (!masked)
        return;
    mask_scores(b, lane, vectors * VECTOR);
    for (int64_t i = 0; i < b->count; i++)
        for (int j = 0; j < vectors; j++) {
            float *max = t->max + lane + VECTOR * j;
            v_store(max, v_max(v_load(max), v_load(t->scores + i * PS3C_PANEL + lane + VECTOR * j)));
        }
}

/* Scores to exponentials, in place (native: two rows become one row of pairs); their sums; the decay of earlier
 * sums. */
INLINE void exponentials(const attention_block *b, int vectors, bool native, int64_t lane)
{
    ps3c_attention_scratch *t = b->scratch;
    const vfloat scale = v_splat(b->plan->scale);
    vfloat max[TILE_VECTORS], sum[TILE_VECTORS];
    UNROLL
    for (int j = 0; j < vectors; j++) {
        int64_t at = lane + VECTOR * j;
        max[j] = v_load(t->max + at) * scale;
        /* At most 1. The minimum also handles a row with no visible key yet: there the difference may not round to
         * 0. */
        v_store(t->decay + at, v_exp2(v_min(v_load(t->scaled_max + at) - max[j], v_splat(0)), 5));
        v_store(t->scaled_max + at, max[j]);
        sum[j] = v_splat(0);
    }
    for (int64_t i = 0; i + native < b->count; i += 1 + native) {
        float *s = t->scores + i * PS3C_PANEL + lane;
        UNROLL
        for (int j = 0; j < vectors; j++) {
            vfloat p = v_exp2(v_fma(v_load(s + VECTOR * j), scale, -max[j]), native ? 3 : 5), q;
            sum[j] += p;
            if (!native) {
                v_store(s + VECTOR * j, p);
                continue;
            }
            q = v_exp2(v_fma(v_load(s + PS3C_PANEL + VECTOR * j), scale, -max[j]), 3);
            sum[j] += q;
            v_store_word(t->scores + i / 2 * PS3C_PANEL + lane + VECTOR * j, v_pack(PS3C_BFLOAT16, p, q));
        }
    }
    if (native && b->count % 2) {
        int64_t i = b->count - 1;
        UNROLL
        for (int j = 0; j < vectors; j++) {
            vfloat p = v_load(t->scores + i * PS3C_PANEL + lane + VECTOR * j);
            p = v_exp2(v_fma(p, scale, -max[j]), 3);
            sum[j] += p;
            v_store_word(t->scores + i / 2 * PS3C_PANEL + lane + VECTOR * j, v_pack(PS3C_BFLOAT16, p, v_splat(0)));
        }
    }
    UNROLL
    for (int j = 0; j < vectors; j++) {
        float *total = t->sum + lane + VECTOR * j;
        v_store(total, v_fma(v_load(total), v_load(t->decay + lane + VECTOR * j), sum[j]));
    }
}

/* ---- values ------------------------------------------------------------------------------------------------ */

/* out[channel][lane] = out * decay + sum over keys of value * exponential. */
INLINE void add_values(const attention_block *b, int vectors, bool native, int64_t lane)
{
    ps3c_attention_scratch *t = b->scratch;
    const int64_t head_dim = b->plan->args->head_dim, row = native ? PS3C_PANEL / 2 : PS3C_PANEL;
    /* An odd last key is added at the end: the spare value of its pair is undefined. */
    const int64_t words = native ? b->count / 2 : b->count, stretches = (words + row - 1) / row;
    tile_operands o = {.row = row, .step = 1, .depth = row, .stretches = stretches, .stride = b->stride};
    o.last = words - (stretches - 1) * row;
    o.b = (const ps3c_word *)t->scores + lane;
    o.add = true;
    o.scale = t->decay + lane;
    for (int64_t c = 0; c < head_dim; c += TILE_ROWS) {
        o.a = b->values + c * row;
        o.c = t->out + c * PS3C_PANEL + lane;
        if (head_dim - c >= TILE_ROWS)
            tile(TILE_ROWS, vectors, native, false, &o);
        else
            tile_rows((int)(head_dim - c), vectors, native, &o);
    }
    if (!native || b->count % 2 == 0)
        return;
    for (int64_t c = 0; c < head_dim; c++)
        t->tail[c] = b->values[words / row * b->stride + c * row + words % row] & 0xffff;
    o = (tile_operands){.row = 1, .depth = 1, .stretches = 1, .last = 1, .add = true};
    o.b = (const ps3c_word *)t->scores + words * PS3C_PANEL + lane;
    for (int64_t c = 0; c < head_dim; c += TILE_ROWS) {
        o.a = t->tail + c;
        o.c = t->out + c * PS3C_PANEL + lane;
        tile_rows(head_dim - c >= TILE_ROWS ? TILE_ROWS : (int)(head_dim - c), vectors, native, &o);
    }
}

#define BLOCK(name, n, native)                                              \
    NOINLINE static void name##_##n(const attention_block *b, int64_t lane) \
    {                                                                       \
        score_keys(b, n, native, lane);                                     \
        exponentials(b, n, native, lane);                                   \
        add_values(b, n, native, lane);                                     \
    }
BLOCK(block_float, 1, false)
BLOCK(block_float, 2, false)
#if PS3C_TILE_VECTORS == 3
BLOCK(block_float, 3, false)
#endif
#if PS3C_BF16_NATIVE
BLOCK(block_pairs, 1, true)
BLOCK(block_pairs, 2, true)
BLOCK(block_pairs, 3, true)
#endif

static void (*const block_functions[1 + PS3C_BF16_NATIVE][TILE_VECTORS])(const attention_block *b, int64_t lane) = {
    {
        block_float_1,
        block_float_2,
#if PS3C_TILE_VECTORS == 3
        block_float_3,
#endif
    },
#if PS3C_BF16_NATIVE
    {block_pairs_1, block_pairs_2, block_pairs_3},
#endif
};

/* ---- a task ------------------------------------------------------------------------------------------------ */

/* Values of a block, laid out by tokens, to float32 panel rows. */
INLINE void widen_values(ps3c_dtype dtype, const ps3c_word *in, int64_t channels, float *out)
{
    for (int64_t i = 0; i < channels * PS3C_PANEL; i += VECTOR)
        v_store(out + i, v_from_half(dtype, *(const vhalf *)((const uint16_t *)in + i)));
}

static void widen_block(attention_block *b)
{
    ps3c_attention_scratch *t = b->scratch;
    ps3c_dtype dtype = b->plan->dtype;
    int64_t head_dim = b->plan->args->head_dim, size = head_dim * PS3C_PANEL;
    for (int64_t i = 0; i * PS3C_PANEL < b->count; i++) {
        ps3c_widen_pairs(dtype, b->keys + i * b->stride, head_dim / 2, t->keys + i * size);
        if (dtype == PS3C_BFLOAT16)
            widen_values(PS3C_BFLOAT16, b->values + i * b->stride, head_dim, t->values + i * size);
        else
            widen_values(PS3C_FLOAT16, b->values + i * b->stride, head_dim, t->values + i * size);
    }
    b->keys = (const ps3c_word *)t->keys;
    b->values = (const ps3c_word *)t->values;
    b->stride = size;
}

/* All keys of one source: `count` tokens of `source`, keys from `channel` on. `base` has the other fields. */
static void attend_source(const attention_block *base, int vectors, const ps3c_activation *source, int64_t segment,
                          int64_t channel, int64_t count)
{
    const attention_plan *p = base->plan;
    const int64_t all = p->args->heads * p->args->head_dim, per_word = ps3c_is16(p->dtype) ? 2 : 1;
    const int64_t stride = ps3c_panel_words(p->dtype, source->channels);
    for (int64_t first = 0; first < count; first += p->block * PS3C_PANEL) {
        attention_block b = *base;
        b.stride = stride;
        b.keys = ps3c_panel(source, p->dtype, segment, first / PS3C_PANEL) + channel / per_word * PS3C_PANEL;
        b.values = b.keys + all / per_word * PS3C_PANEL;
        b.count = count - first < p->block * PS3C_PANEL ? count - first : p->block * PS3C_PANEL;
        b.first_key = first;
        b.causal = b.causal && first + b.count - 1 > b.first_token;
        if (b.last_mask)
            b.last_mask += first;
        if (p->wide)
            widen_block(&b);
        for (int j = 0; j < vectors; j += TILE_VECTORS) {
            int n = vectors - j < TILE_VECTORS ? vectors - j : TILE_VECTORS;
            block_functions[p->native][n - 1](&b, j * VECTOR);
        }
    }
}

/* Rounds out / sum and stores it to the head's channels of the query's panel. */
INLINE void store_output(ps3c_dtype dtype, int vectors, int64_t head_dim, const ps3c_attention_scratch *t,
                         ps3c_word *out)
{
    const int each = dtype == PS3C_FLOAT32 ? 1 : 2;
    for (int j = 0; j < vectors; j++) {
        vfloat factor = 1.0f / v_load(t->sum + VECTOR * j);
        for (int64_t c = 0; c < head_dim; c += each) {
            vfloat even = v_load(t->out + c * PS3C_PANEL + VECTOR * j) * factor, odd = even;
            if (each == 2)
                odd = v_load(t->out + (c + 1) * PS3C_PANEL + VECTOR * j) * factor;
            v_store_word(out + c / each * PS3C_PANEL + VECTOR * j, v_pack(dtype, even, odd));
        }
    }
}

static void attend(const attention_plan *p, ps3c_attention_scratch *t, int64_t segment, int64_t head, int64_t panel)
{
    const ps3c_attention_args *a = p->args;
    const int64_t tokens = a->query->tokens, head_dim = a->head_dim, first = panel * PS3C_PANEL;
    const int64_t per_word = ps3c_is16(p->dtype) ? 2 : 1, own = first + PS3C_PANEL;
    const int vectors = v_count(tokens - first);
    attention_block b = {.plan = p, .scratch = t, .first_token = first};
    ps3c_word *out = ps3c_panel(a->out, p->dtype, segment, panel) + head * head_dim / per_word * PS3C_PANEL;
    b.query =
        ps3c_panel(a->query, p->dtype, segment, panel) + (a->query_channel + head * head_dim) / per_word * PS3C_PANEL;
    if (p->wide) {
        ps3c_widen_pairs(p->dtype, b.query, head_dim / 2, t->query);
        b.query = (const ps3c_word *)t->query;
    }
    memset(t->out, 0, (size_t)head_dim * PS3C_PANEL * sizeof *t->out);
    for (int i = 0; i < PS3C_PANEL; i++) {
        t->max[i] = -FLT_MAX;
        t->scaled_max[i] = -FLT_MAX * p->scale;
        t->sum[i] = 0;
    }
    if (a->cached)
        attend_source(&b, vectors, a->cached, segment % a->cached->segments, a->cached_channel + head * head_dim,
                      a->cached->tokens);
    b.causal = a->causal;
    if (a->last_query_mask && tokens <= own) {
        b.last_mask = a->last_query_mask + segment * tokens;
        b.last_lane = tokens - 1 - first;
    }
    /* Causal: the panel's last query sees no later key. */
    attend_source(&b, vectors, a->own, segment, a->own_channel + head * head_dim,
                  a->causal && own < tokens ? own : tokens);
    if (p->dtype == PS3C_FLOAT32)
        store_output(PS3C_FLOAT32, vectors, head_dim, t, out);
    else if (p->dtype == PS3C_BFLOAT16)
        store_output(PS3C_BFLOAT16, vectors, head_dim, t, out);
    else
        store_output(PS3C_FLOAT16, vectors, head_dim, t, out);
}

/* ---- operation --------------------------------------------------------------------------------------------- */

/* Neighbouring tasks share a head's keys and values. */
static void task(void *data, int64_t index, int thread)
{
    const attention_plan *p = data;
    const int64_t head = index / p->panels;
    attend(p, p->scratch + thread, head / p->args->heads, head % p->args->heads, index % p->panels);
}

ps3c_status PS3C_CPU(ps3c_attention)(const ps3c_run *run, const ps3c_attention_args *args)
{
    attention_plan p = {
        .args = args, .dtype = run->dtype, .scratch = run->scratch, .panels = ps3c_panels(args->query->tokens)};
    if (args->head_dim > PS3C_ATTENTION_HEAD_DIM)
        return ps3c_attention_naive(run, args);
    p.native = PS3C_BF16_NATIVE && run->dtype == PS3C_BFLOAT16;
    p.wide = ps3c_is16(run->dtype) && !p.native;
    p.block = PS3C_ATTENTION_WIDE_ROWS / args->head_dim;
    p.block = p.block < PS3C_ATTENTION_PANELS ? p.block : PS3C_ATTENTION_PANELS;
    p.scale = 1.4426950408889634f / sqrtf((float)args->head_dim);
    return ps3c_parallel(run, args->query->segments * args->heads * p.panels, task, &p);
}
