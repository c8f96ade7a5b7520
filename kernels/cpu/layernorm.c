/* y = act((x - mean) / sqrt(variance + eps) * weight + bias) over the channels of each token; the variance from the
 * deviations (two passes). torch.nn.functional.layer_norm, with an activation for the places where one follows.
 *
 * Tokens are in the lanes, so the sums of a token are in one lane and there is no horizontal step. There are three
 * passes over a panel, the last two from cache, on several vectors at once, so that the panel is read as one stream.
 */
#include "threads.h"
#include "tile.h"

enum { SUMS = 4, ABREAST = PS3C_PANEL / VECTOR < 3 ? PS3C_PANEL / VECTOR : 3 };

typedef struct norm_panel {
    const ps3c_layernorm_args *args;
    const float *weight, *bias; /* [channels] */
    const ps3c_word *x;         /* [channel words][48], from the first lane on */
    ps3c_word *y;
} norm_panel;

/* Four neighbouring channels of a vector of tokens. */
INLINE void load_channels(ps3c_dtype dtype, const ps3c_word *x, vfloat v[SUMS])
{
    vfloat even;
    if (dtype == PS3C_FLOAT32) {
        UNROLL
        for (int u = 0; u < SUMS; u++)
            v[u] = v_load(x + u * PS3C_PANEL);
        return;
    }
    v_unpack(dtype, v_load_word(x), &even, &v[1]);
    v[0] = even;
    v_unpack(dtype, v_load_word(x + PS3C_PANEL), &even, &v[3]);
    v[2] = even;
}

/* The mean over channels of x - mean and of its square, for each vector. */
INLINE void average(ps3c_dtype dtype, int vectors, const norm_panel *p, const vfloat *mean, vfloat *first,
                    vfloat *second)
{
    vfloat sum[ABREAST], square[ABREAST][SUMS];
    const int64_t channels = p->args->x->channels, step = dtype == PS3C_FLOAT32 ? 4 : 2;
    const ps3c_word *x = p->x;
    int64_t c = 0;
    UNROLL
    for (int j = 0; j < vectors; j++) {
        sum[j] = v_splat(0);
        UNROLL
        for (int u = 0; u < SUMS; u++)
            square[j][u] = v_splat(0);
    }
    for (; c + SUMS <= channels; c += SUMS, x += step * PS3C_PANEL) {
        UNROLL
        for (int j = 0; j < vectors; j++) {
            vfloat d[SUMS];
            load_channels(dtype, x + VECTOR * j, d);
            UNROLL
            for (int u = 0; u < SUMS; u++) {
                d[u] -= mean[j];
                square[j][u] = v_fma(d[u], d[u], square[j][u]);
            }
            sum[j] += (d[0] + d[1]) + (d[2] + d[3]);
        }
    }
    for (; c < channels; c += dtype == PS3C_FLOAT32 ? 1 : 2, x += PS3C_PANEL)
        for (int j = 0; j < vectors; j++) {
            vfloat v[2];
            v_unpack(dtype, v_load_word(x + VECTOR * j), &v[0], &v[1]);
            for (int u = 0; u < (dtype == PS3C_FLOAT32 || c + 1 == channels ? 1 : 2); u++) {
                vfloat d = v[u] - mean[j];
                square[j][u] = v_fma(d, d, square[j][u]);
                sum[j] += d;
            }
        }
    UNROLL
    for (int j = 0; j < vectors; j++) {
        first[j] = sum[j] / (float)channels;
        second[j] = ((square[j][0] + square[j][1]) + (square[j][2] + square[j][3])) / (float)channels;
    }
}

INLINE void normalize(ps3c_dtype dtype, int vectors, const norm_panel *p)
{
    const ps3c_activation_function act = p->args->act;
    const int64_t channels = p->args->x->channels;
    const int each = dtype == PS3C_FLOAT32 ? 1 : 2;
    vfloat mean[ABREAST], rest[ABREAST], factor[ABREAST];
    const ps3c_word *x = p->x;
    ps3c_word *y = p->y;
    for (int j = 0; j < vectors; j++)
        mean[j] = v_splat(0);
    average(dtype, vectors, p, mean, rest, factor); /* the squares of this pass are not used */
    for (int j = 0; j < vectors; j++)
        mean[j] = rest[j];
    /* If the mean is large, the first pass's sum has a rounding error. The mean of the deviations is that error; it
     * corrects mean and variance. */
    average(dtype, vectors, p, mean, rest, factor);
    for (int j = 0; j < vectors; j++) {
        mean[j] += rest[j];
        factor[j] = v_max(v_splat(0), factor[j] - rest[j] * rest[j]);
        factor[j] = 1.0f / v_sqrt(factor[j] + p->args->eps);
    }
    for (int64_t c = 0; c < channels; c += each, x += PS3C_PANEL, y += PS3C_PANEL) {
        UNROLL
        for (int j = 0; j < vectors; j++) {
            vfloat v[2] = {v_splat(0), v_splat(0)};
            v_unpack(dtype, v_load_word(x + VECTOR * j), &v[0], &v[1]);
            v[0] = v_activate(act, v_fma((v[0] - mean[j]) * factor[j], v_splat(p->weight[c]), v_splat(p->bias[c])));
            if (each == 2) {
                vfloat odd = v_splat(0);
                if (c + 1 < channels)
                    odd = v_activate(
                        act, v_fma((v[1] - mean[j]) * factor[j], v_splat(p->weight[c + 1]), v_splat(p->bias[c + 1])));
                v[1] = odd;
            }
            v_store_word(y + VECTOR * j, v_pack(dtype, v[0], v[1]));
        }
    }
}

NOINLINE static void normalize_panel(ps3c_dtype dtype, int vectors, const norm_panel *p)
{
    switch (dtype * 3 + (vectors < 3 ? vectors : 3)) {
#define CASE(dtype, n)          \
    case dtype * 3 + n:         \
        normalize(dtype, n, p); \
        break;
        CASE(PS3C_FLOAT32, 1)
        CASE(PS3C_FLOAT32, 2)
        CASE(PS3C_FLOAT32, 3)
        CASE(PS3C_FLOAT16, 1)
        CASE(PS3C_FLOAT16, 2)
        CASE(PS3C_FLOAT16, 3)
        CASE(PS3C_BFLOAT16, 1)
        CASE(PS3C_BFLOAT16, 2)
        CASE(PS3C_BFLOAT16, 3)
#undef CASE
    }
}

typedef struct operation {
    const ps3c_run *run;
    const ps3c_layernorm_args *args;
    const float *weight, *bias;
} operation;

/* One panel. */
static void task(void *data, int64_t index, int thread)
{
    const operation *o = data;
    const ps3c_layernorm_args *args = o->args;
    const ps3c_dtype dtype = o->run->dtype;
    norm_panel p = {.args = args, .weight = o->weight, .bias = o->bias};
    const int vectors = v_count(args->x->tokens - index % ps3c_panels(args->x->tokens) * PS3C_PANEL);
    (void)thread;
    p.x = ps3c_panel(args->x, dtype, 0, index);
    p.y = ps3c_panel(args->y, dtype, 0, index);
    for (int j = 0; j < vectors; j += ABREAST) {
        normalize_panel(dtype, vectors - j, &p);
        p.x += ABREAST * VECTOR;
        p.y += ABREAST * VECTOR;
    }
}

ps3c_status PS3C_CPU(ps3c_layernorm)(const ps3c_run *run, const ps3c_layernorm_args *args)
{
    const int64_t channels = args->x->channels;
    float *weight = run->scratch, *bias = weight + channels; /* read by all threads */
    ps3c_widen_array(run->dtype, args->weight, 0, channels, weight);
    ps3c_widen_array(run->dtype, args->bias, 0, channels, bias);
    operation o = {run, args, weight, bias};
    return ps3c_parallel(run, args->x->segments * ps3c_panels(args->x->tokens), task, &o);
}
