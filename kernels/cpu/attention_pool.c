/* Attention of one query per head over each segment's tokens: see attention_pool_naive.c. For the scores, tokens are in
 * the lanes. A value channel is summed per lane; the lanes are added at the end. */
#include <math.h>

#include "block_scratch.h"
#include "simd.h"
#include "threads.h"
#include "tokens.h"

typedef struct pool {
    const ps3c_attention_pool_args *args;
    int64_t segment, first; /* of the head: channel */
    float scale;
    float *score; /* [panels][48] */
} pool;

INLINE void panel_scores(ps3c_dtype dtype, const pool *p, int64_t panel)
{
    const ps3c_activation *kv = p->args->keys_values, *query = p->args->query;
    const int64_t step = dtype == PS3C_FLOAT32 ? 1 : 2, end = p->first + p->args->head_dim;
    const ps3c_word *words = ps3c_panel(kv, dtype, p->segment, panel) + p->first / step * PS3C_PANEL;
    vfloat sum[PS3C_PANEL / VECTOR] = {{0}};
    for (int64_t c = p->first; c < end; c += step, words += PS3C_PANEL) {
        float q[2] = {ps3c_get(query, dtype, 0, 0, c), step == 2 ? ps3c_get(query, dtype, 0, 0, c + 1) : 0.0f};
        UNROLL
        for (int j = 0; j < PS3C_PANEL / VECTOR; j++) {
            vfloat even, odd;
            v_unpack(dtype, v_load_word(words + j * VECTOR), &even, &odd);
            sum[j] = v_fma(even, v_splat(q[0]), sum[j]);
            if (step == 2)
                sum[j] = v_fma(odd, v_splat(q[1]), sum[j]);
        }
    }
    for (int j = 0; j < PS3C_PANEL / VECTOR; j++)
        v_store(p->score + panel * PS3C_PANEL + j * VECTOR, sum[j] * p->scale);
}

/* Scores to unnormalised softmax weights, 0 for masked and spare tokens; returns their sum. */
static float softmax(const pool *p)
{
    const int64_t tokens = p->args->keys_values->tokens, lanes = ps3c_panels(tokens) * PS3C_PANEL;
    const uint8_t *mask = p->args->mask ? p->args->mask + p->segment * tokens : NULL;
    float most = -INFINITY, total = 0.0f;
    vfloat sum = v_splat(0);
    for (int64_t t = 0; t < lanes; t++) {
        if (t >= tokens || (mask && !mask[t]))
            p->score[t] = -INFINITY;
        most = p->score[t] > most ? p->score[t] : most;
    }
    for (int64_t t = 0; t < lanes; t += VECTOR) {
        vfloat weight = v_exp2((v_load(p->score + t) - most) * 1.44269504f, 5);
        v_store(p->score + t, weight);
        sum += weight;
    }
    for (int i = 0; i < VECTOR; i++)
        total += sum[i];
    return total;
}

INLINE void weighted_values(ps3c_dtype dtype, const pool *p, float total)
{
    const ps3c_activation *kv = p->args->keys_values;
    const int64_t step = dtype == PS3C_FLOAT32 ? 1 : 2, end = p->first + p->args->head_dim,
                  panels = ps3c_panels(kv->tokens);
    const int64_t width = p->args->heads * p->args->head_dim;
    for (int64_t c = p->first; c < end; c += step) {
        vfloat sums[2] = {v_splat(0), v_splat(0)};
        for (int64_t panel = 0; panel < panels; panel++) {
            const ps3c_word *words = ps3c_panel(kv, dtype, p->segment, panel) + (width + c) / step * PS3C_PANEL;
            const int64_t tokens = kv->tokens - panel * PS3C_PANEL;
            for (int j = 0; j < PS3C_PANEL && j < tokens; j += VECTOR) {
                vfloat even, odd, weight = v_load(p->score + panel * PS3C_PANEL + j);
                v_unpack(dtype, v_load_word(words + j), &even, &odd);
                if (j + VECTOR > tokens) /* spare tokens may hold NaN, and 0 * NaN is NaN */
                    for (int i = (int)(tokens - j); i < VECTOR; i++)
                        even[i] = odd[i] = 0.0f;
                sums[0] = v_fma(weight, even, sums[0]);
                if (step == 2)
                    sums[1] = v_fma(weight, odd, sums[1]);
            }
        }
        for (int64_t k = 0; k < step; k++) {
            float sum = 0.0f;
            for (int i = 0; i < VECTOR; i++)
                sum += sums[k][i];
            ps3c_set(p->args->out, dtype, 0, p->segment, c + k, sum / total);
        }
    }
}

INLINE void pool_head(ps3c_dtype dtype, const pool *p)
{
    for (int64_t panel = 0; panel < ps3c_panels(p->args->keys_values->tokens); panel++)
        panel_scores(dtype, p, panel);
    weighted_values(dtype, p, softmax(p));
}

typedef struct operation {
    const ps3c_run *run;
    const ps3c_attention_pool_args *args;
    int64_t parts;
} operation;

static void pool_part(void *data, int64_t part, int thread)
{
    const operation *o = data;
    const ps3c_run *run = o->run;
    const ps3c_attention_pool_args *args = o->args;
    const int64_t count = args->keys_values->segments * args->heads;
    const int64_t floats = ps3c_attention_pool_floats(args->keys_values->tokens);
    for (int64_t i = count * part / o->parts; i < count * (part + 1) / o->parts; i++) {
        const pool p = {args, i / args->heads, i % args->heads * args->head_dim, 1.0f / sqrtf((float)args->head_dim),
                        (float *)run->scratch + thread * floats};
        if (run->dtype == PS3C_FLOAT32)
            pool_head(PS3C_FLOAT32, &p);
        else if (run->dtype == PS3C_BFLOAT16)
            pool_head(PS3C_BFLOAT16, &p);
        else
            pool_head(PS3C_FLOAT16, &p);
    }
}

ps3c_status PS3C_CPU(ps3c_attention_pool)(const ps3c_run *run, const ps3c_attention_pool_args *args)
{
    ps3c_activation_clear(args->out, run->dtype);
    operation o = {run, args, ps3c_parts(run, args->keys_values->segments * args->heads)};
    return ps3c_parallel(run, o.parts, pool_part, &o);
}
