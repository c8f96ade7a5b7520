/* softmax(q k^T / sqrt(head_dim)) v, one query at a time, with the online softmax (Milakov and Gimelshein,
 * arXiv:1805.02867); plain C. Sums are float64: this is the reference of attention.c. */
#include <float.h>
#include <math.h>

#include "threads.h"

/* State of one query: the maximum score, the sum of exponentials, the weighted sum of values [head_dim]. */
typedef struct {
    double max, sum, *out;
} query_state;

static void see_key(ps3c_dtype dtype, const ps3c_attention_args *a, int64_t segment, int64_t token, int64_t head,
                    const ps3c_activation *keys, int64_t channel, int64_t key_segment, int64_t key, query_state *s)
{
    int64_t head_channel = head * a->head_dim, all = a->heads * a->head_dim;
    double score = 0, max, weight, decay;
    for (int64_t c = 0; c < a->head_dim; c++)
        score += (double)ps3c_get(a->query, dtype, segment, token, a->query_channel + head_channel + c) *
                 ps3c_get(keys, dtype, key_segment, key, channel + head_channel + c);
    score /= sqrt((double)a->head_dim);
    max = score > s->max ? score : s->max;
    weight = exp(score - max), decay = exp(s->max - max);
    s->max = max;
    s->sum = s->sum * decay + weight;
    for (int64_t c = 0; c < a->head_dim; c++) {
        int64_t e = ps3c_element(keys, dtype, key_segment, key, channel + all + head_channel + c, true);
        s->out[c] = s->out[c] * decay + weight * ps3c_load(dtype, keys->data, e);
    }
}

static void attend(ps3c_dtype dtype, const ps3c_attention_args *a, int64_t segment, int64_t token, int64_t head,
                   double *out)
{
    int64_t tokens = a->query->tokens, own = a->causal ? token + 1 : tokens;
    const uint8_t *mask = a->last_query_mask && token == tokens - 1 ? a->last_query_mask + segment * tokens : NULL;
    query_state s = {-DBL_MAX, 0, out};
    for (int64_t c = 0; c < a->head_dim; c++)
        out[c] = 0;
    for (int64_t key = 0; a->cached && key < a->cached->tokens; key++)
        see_key(dtype, a, segment, token, head, a->cached, a->cached_channel, segment % a->cached->segments, key, &s);
    for (int64_t key = 0; key < own; key++)
        if (!mask || mask[key])
            see_key(dtype, a, segment, token, head, a->own, a->own_channel, segment, key, &s);
    for (int64_t c = 0; c < a->head_dim; c++)
        ps3c_set(a->out, dtype, segment, token, head * a->head_dim + c, (float)(out[c] / s.sum));
}

typedef struct operation {
    const ps3c_run *run;
    const ps3c_attention_args *args;
} operation;

/* One query of one head. */
static void task(void *data, int64_t index, int thread)
{
    const operation *o = data;
    const ps3c_attention_args *args = o->args;
    const int64_t tokens = args->query->tokens, count = args->query->segments * tokens, i = index % count;
    attend(o->run->dtype, args, i / tokens, i % tokens, index / count,
           (double *)o->run->scratch + thread * args->head_dim);
}

ps3c_status ps3c_attention_naive(const ps3c_run *run, const ps3c_attention_args *args)
{
    operation o = {run, args};
    return ps3c_parallel(run, args->heads * args->query->segments * args->query->tokens, task, &o);
}
