/* Attention of one query per head over each segment's tokens, plain C. */
#include <math.h>

#include "tokens.h"

/* Scratch: a score for each token. The softmax takes two passes. If all tokens of a segment are masked, the result
 * is NaN (0 / 0). */
ps3c_status ps3c_attention_pool_naive(const ps3c_run *run, const ps3c_attention_pool_args *args)
{
    const ps3c_activation *kv = args->keys_values;
    const int64_t width = args->heads * args->head_dim;
    const float scale = 1.0f / sqrtf((float)args->head_dim);
    float *score = (float *)run->scratch;
    ps3c_activation_clear(args->out, run->dtype);
    for (int64_t s = 0; s < kv->segments; s++)
        for (int64_t first = 0; first < width; first += args->head_dim) {
            const uint8_t *mask = args->mask ? args->mask + s * kv->tokens : NULL;
            float most = -INFINITY, sum = 0.0f;
            for (int64_t t = 0; t < kv->tokens; t++) {
                float dot = 0.0f;
                for (int64_t c = first; c < first + args->head_dim; c++)
                    dot += ps3c_get(args->query, run->dtype, 0, 0, c) * ps3c_get(kv, run->dtype, s, t, c);
                score[t] = dot * scale;
                if ((!mask || mask[t]) && score[t] > most)
                    most = score[t];
            }
            for (int64_t t = 0; t < kv->tokens; t++) {
                score[t] = !mask || mask[t] ? expf(score[t] - most) : 0.0f;
                sum += score[t];
            }
            for (int64_t c = first; c < first + args->head_dim; c++) {
                float v = 0.0f;
                for (int64_t t = 0; t < kv->tokens; t++)
                    v += score[t] * ps3c_get(kv, run->dtype, s, t, width + c);
                ps3c_set(args->out, run->dtype, 0, s, c, v / sum);
            }
        }
    return PS3C_OK;
}
