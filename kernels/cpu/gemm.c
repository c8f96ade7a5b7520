/* y = act(x W^T + bias) * scale + residual: torch.nn.functional.linear and what follows it in a transformer block.
 *
 * W's rows are the broadcast operand of the tile (tile.h) and x's panels the vector operand. So the result is in
 * panels, and nothing is packed. A task is a block of W's rows and one panel (or two); the panel's slice of the
 * reduction stays in the L2 cache while the rows are read once. Slices are summed separately and then added: a single
 * sum over K = 4304 has three times the error. Slices depend on K alone, so results do not depend on threads, segments
 * or rows per task.
 *
 * Weights are used in place if words can be operands: float32, and on levels with bfloat16 instructions pairs of
 * bfloat16 in even, 4-byte aligned rows. Other weights (float16, bfloat16 on other levels, odd rows, transposed
 * weights) are converted to float32, the rows of one tile at a time, once for all panels of the task; x is converted
 * slice by slice. Then the float32 tile is used.
 */
#include "scratch.h"
#include "threads.h"
#include "tile.h"

typedef struct gemm_plan {
    const ps3c_gemm_args *args;
    ps3c_dtype dtype;
    bool wide_weight, wide_x; /* converted to float32 */
    int64_t depth, slice;     /* of the reduction: floats, or words of pairs when nothing is converted */
    int64_t rows;             /* outputs of a task */
    int64_t group;            /* panels of a task */
    int64_t panels;           /* of a segment */
} gemm_plan;

/* ---- epilogue ---------------------------------------------------------------------------------------------- */

/* Where a tile's sums are stored. */
typedef struct gemm_store {
    const ps3c_gemm_args *args;
    const float *c;            /* sums [rows][48] */
    int64_t output;            /* of the first row; even */
    const float *bias, *scale; /* of the first row, or NULL */
    const ps3c_word *residual; /* panel's first word, or NULL */
    ps3c_word *out;            /* panel's first word */
    int lane;                  /* first lane of the tile */
} gemm_store;

INLINE vfloat finish_value(const gemm_store *s, int r, int j)
{
    vfloat v = v_load(s->c + r * PS3C_PANEL + VECTOR * j);
    if (s->bias)
        v += s->bias[r];
    v = v_activate(s->args->act, v);
    if (s->scale)
        v *= s->scale[r];
    return v;
}

INLINE void finish_float32(int rows, int vectors, const gemm_store *s)
{
    ps3c_word *out = s->out + (s->args->out_channel + s->output) * PS3C_PANEL + s->lane;
    for (int r = 0; r < rows; r++, out += PS3C_PANEL)
        for (int j = 0; j < vectors; j++) {
            vfloat v = finish_value(s, r, j);
            if (s->residual)
                v += v_load(s->residual + (s->output + r) * PS3C_PANEL + s->lane + VECTOR * j);
            v_store(out + VECTOR * j, v);
        }
}

/* Two outputs at a time, because they share a word. */
INLINE void finish_pairs(ps3c_dtype dtype, int rows, int vectors, const gemm_store *s)
{
    const ps3c_gemm_args *g = s->args;
    for (int r = 0; r < rows; r += 2) {
        int64_t n = s->output + r, channel = g->out_channel + n;
        ps3c_word *out = s->out + channel / 2 * PS3C_PANEL;
        bool values = n >= g->values_from, single = r + 1 == rows;
        for (int j = 0; j < vectors; j++) {
            int lane = s->lane + VECTOR * j;
            vfloat even = finish_value(s, r, j), odd = single ? v_splat(0) : finish_value(s, r + 1, j);
            vword w;
            if (values) { /* by tokens: two rows of 48 16-bit values */
                vhalf h = v_to_half(dtype, even);
                memcpy((uint16_t *)out + lane, &h, sizeof h);
                h = v_to_half(dtype, odd);
                memcpy((uint16_t *)out + PS3C_PANEL + lane, &h, sizeof h);
                continue;
            }
            if (s->residual) {
                vfloat low, high;
                v_unpack(dtype, v_load_word(s->residual + n / 2 * PS3C_PANEL + lane), &low, &high);
                even += low;
                if (!single)
                    odd += high;
            }
            w = v_pack(dtype, even, odd);
            if (single && channel + 1 < g->y->channels) /* the other half belongs to another channel */
                w = (w & 0xffff) | (v_load_word(out + lane) & 0xffff0000u);
            v_store_word(out + lane, w);
        }
    }
}

#define FINISH(n)                                                                    \
    NOINLINE static void finish_##n(ps3c_dtype dtype, int rows, const gemm_store *s) \
    {                                                                                \
        if (dtype == PS3C_FLOAT32)                                                   \
            finish_float32(rows, n, s);                                              \
        else if (dtype == PS3C_BFLOAT16)                                             \
            finish_pairs(PS3C_BFLOAT16, rows, n, s);                                 \
        else                                                                         \
            finish_pairs(PS3C_FLOAT16, rows, n, s);                                  \
    }
FINISH(1)
FINISH(2)
#if PS3C_TILE_VECTORS == 3
FINISH(3)
#endif

/* ---- tiles ------------------------------------------------------------------------------------------------- */

#define TILE(name, n, native)                                                        \
    NOINLINE static void name##_##n(int rows, bool prefetch, const tile_operands *o) \
    {                                                                                \
        if (rows < TILE_ROWS)                                                        \
            tile_rows(rows, n, native, o);                                           \
        else if (prefetch)                                                           \
            tile(TILE_ROWS, n, native, true, o);                                     \
        else                                                                         \
            tile(TILE_ROWS, n, native, false, o);                                    \
    }
TILE(tile_float, 1, false)
TILE(tile_float, 2, false)
#if PS3C_TILE_VECTORS == 3
TILE(tile_float, 3, false)
#endif
#if PS3C_BF16_NATIVE
TILE(tile_pairs, 1, true)
TILE(tile_pairs, 2, true)
TILE(tile_pairs, 3, true)
#endif

typedef void (*tile_function)(int rows, bool prefetch, const tile_operands *o);
typedef void (*finish_function)(ps3c_dtype dtype, int rows, const gemm_store *s);

static const finish_function finish_functions[TILE_VECTORS] = {
    finish_1,
    finish_2,
#if PS3C_TILE_VECTORS == 3
    finish_3,
#endif
};
static const tile_function tile_functions[1 + PS3C_BF16_NATIVE][TILE_VECTORS] = {
    {
        tile_float_1,
        tile_float_2,
#if PS3C_TILE_VECTORS == 3
        tile_float_3,
#endif
    },
#if PS3C_BF16_NATIVE
    {tile_pairs_1, tile_pairs_2, tile_pairs_3},
#endif
};

/* ---- a task ------------------------------------------------------------------------------------------------ */

/* Rows [n, n + rows) of the weights, inputs [k, k + depth), to [rows][PS3C_GEMM_SLICE]. */
static void widen_weight(const gemm_plan *p, int64_t n, int rows, int64_t k, int64_t depth, float *out)
{
    const ps3c_gemm_args *g = p->args;
    if (!g->transposed) {
        for (int r = 0; r < rows; r++)
            ps3c_widen_array(p->dtype, g->weight, (n + r) * g->ldw + k, depth, out + r * PS3C_GEMM_SLICE);
        return;
    }
    for (int64_t i = 0; i < depth; i++) {
        float column[PS3C_MAX_TILE_ROWS];
        ps3c_widen_array(p->dtype, g->weight, (k + i) * g->ldw + n, rows, column);
        for (int r = 0; r < rows; r++)
            out[r * PS3C_GEMM_SLICE + i] = column[r];
    }
}

/* The product of a tile's rows with all lanes of one panel; the epilogue after the last slice. */
static void panel_rows(const gemm_plan *p, int64_t index, int rows, tile_operands *o, bool last, gemm_store *s)
{
    const ps3c_gemm_args *g = p->args;
    int64_t segment = index / p->panels, panel = index % p->panels;
    int vectors = v_count(g->x->tokens - panel * PS3C_PANEL);
    bool native = PS3C_BF16_NATIVE && ps3c_is16(p->dtype) && !p->wide_x;
    const ps3c_word *b = o->b;
    float *c = o->c;
    s->residual = g->residual ? ps3c_panel(g->residual, p->dtype, segment, panel) : NULL;
    s->out = ps3c_panel(g->y, p->dtype, segment, panel);
    for (int first = 0; first < vectors; first += TILE_VECTORS) {
        int count = vectors - first < TILE_VECTORS ? vectors - first : TILE_VECTORS, lane = first * VECTOR;
        o->b = b + lane;
        o->c = c + lane;
        tile_functions[native][count - 1](rows, first == 0 && !p->wide_weight, o);
        if (!last)
            continue;
        s->c = o->c;
        s->lane = lane;
        finish_functions[count - 1](p->dtype, rows, s);
    }
}

/* Outputs [n0, n1) of panels [first, first + count), counted through all segments. */
static void multiply(const gemm_plan *p, ps3c_gemm_scratch *scratch, int64_t n0, int64_t n1, int64_t first,
                     int64_t count)
{
    const ps3c_gemm_args *g = p->args;
    bool split = p->slice < p->depth;
    if (g->bias)
        ps3c_widen_array(p->dtype, g->bias, n0, n1 - n0, scratch->bias);
    if (g->scale)
        ps3c_widen_array(p->dtype, g->scale, n0, n1 - n0, scratch->scale);
    for (int64_t k = 0; k < p->depth; k += p->slice) {
        int64_t depth = p->depth - k < p->slice ? p->depth - k : p->slice;
        for (int64_t i = 0; p->wide_x && i < count; i++)
            ps3c_widen_pairs(p->dtype, ps3c_panel(g->x, p->dtype, 0, first + i) + k / 2 * PS3C_PANEL, (depth + 1) / 2,
                             scratch->x[i]);
        for (int64_t n = n0; n < n1; n += TILE_ROWS) {
            int rows = n1 - n < TILE_ROWS ? (int)(n1 - n) : TILE_ROWS;
            tile_operands o = {.step = 1, .depth = depth, .stretches = 1, .last = depth, .add = k > 0};
            gemm_store s = {.args = g, .output = n};
            s.bias = g->bias ? scratch->bias + (n - n0) : NULL;
            s.scale = g->scale ? scratch->scale + (n - n0) : NULL;
            if (p->wide_weight) {
                widen_weight(p, n, rows, k, depth, scratch->weight);
                o.a = (const ps3c_word *)scratch->weight;
                o.row = PS3C_GEMM_SLICE;
            } else {
                o.row = ps3c_is16(p->dtype) ? g->ldw / 2 : g->ldw;
                o.a = (const ps3c_word *)g->weight + n * o.row + k;
            }
            for (int64_t i = 0; i < count; i++) {
                o.b = p->wide_x ? (const ps3c_word *)scratch->x[i]
                                : ps3c_panel(g->x, p->dtype, 0, first + i) + k * PS3C_PANEL;
                o.c = scratch->sums + (split ? ((n - n0) * count + i * TILE_ROWS) * PS3C_PANEL : 0);
                panel_rows(p, first + i, rows, &o, k + depth == p->depth, &s);
            }
        }
    }
}

/* ---- operation --------------------------------------------------------------------------------------------- */

static gemm_plan plan_gemm(const ps3c_run *run, const ps3c_gemm_args *g)
{
    gemm_plan p = {.args = g, .dtype = run->dtype, .panels = ps3c_panels(g->x->tokens)};
    bool aligned = (uintptr_t)g->weight % 4 == 0, words = aligned && !g->transposed;
    int64_t tasks, slices, blocks, panels = g->x->segments * p.panels, limit = PS3C_GEMM_ROWS;
    if (ps3c_is16(run->dtype)) {
        words = words && PS3C_BF16_NATIVE && run->dtype == PS3C_BFLOAT16 && g->k % 2 == 0 && g->ldw % 2 == 0;
        p.wide_x = !words;
    }
    p.wide_weight = !words;
    p.depth = ps3c_is16(run->dtype) && words ? g->k / 2 : g->k;
    /* bfloat16 pairs: a slice of 1152 words and of 576 are equally fast, and a word holds two products. */
    slices = (p.depth + PS3C_GEMM_SLICE - 1) / PS3C_GEMM_SLICE;
    p.slice = slices ? ((p.depth + slices - 1) / slices + 1) / 2 * 2 : 2;
    p.group = p.wide_weight ? PS3C_GEMM_WIDE_PANELS : 1;
    if (p.group > 1)
        limit = PS3C_GEMM_ROWS / PS3C_GEMM_WIDE_PANELS; /* the panels share the buffer of partial sums */
    tasks = (panels + p.group - 1) / p.group;
    /* At least four tasks per thread, but at least 64 rows per task: each task reads the panel again. */
    blocks = (g->n + limit - 1) / limit;
    while (blocks * tasks < 4 * (int64_t)run->threads && (g->n + blocks - 1) / blocks > 64)
        blocks++;
    p.rows = blocks ? ((g->n + blocks - 1) / blocks + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS : TILE_ROWS;
    return p;
}

typedef struct operation {
    gemm_plan plan;
    ps3c_gemm_scratch *scratch; /* one per thread */
    int64_t panels, groups;     /* of all segments */
} operation;

/* One block of outputs of one group of panels. */
static void task(void *data, int64_t index, int thread)
{
    const operation *o = data;
    const gemm_plan *p = &o->plan;
    const int64_t n0 = index / o->groups * p->rows, n1 = n0 + p->rows < p->args->n ? n0 + p->rows : p->args->n;
    const int64_t first = index % o->groups * p->group;
    multiply(p, o->scratch + thread, n0, n1, first, o->panels - first < p->group ? o->panels - first : p->group);
}

ps3c_status PS3C_CPU(ps3c_gemm)(const ps3c_run *run, const ps3c_gemm_args *args)
{
    operation o = {.plan = plan_gemm(run, args), .scratch = run->scratch};
    const int64_t blocks = (args->n + o.plan.rows - 1) / o.plan.rows;
    o.panels = args->x->segments * o.plan.panels;
    o.groups = (o.panels + o.plan.group - 1) / o.plan.group;
    return ps3c_parallel(run, blocks * o.groups, task, &o);
}
