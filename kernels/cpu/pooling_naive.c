/* Pooled vectors: the mask of ground-truth tokens, attention of one query per head, and the choice between pooled
 * vectors. */
#include "ground_truth.h"

/* The image "would have none" when its values sum to 0: the reference's rule, on the values before they become 0/1. */
ps3c_status ps3c_gt_mask_naive(const ps3c_run *run, const ps3c_gt_mask_args *args)
{
    (void)run;
    for (int64_t b = 0; b < args->batch; b++) {
        uint8_t *mask = args->mask + b * args->tokens;
        double sum = 0.0;
        for (int64_t t = 0; t < args->tokens; t++) {
            ps3c_patch at = ps3c_locate(args->scales, args->num_scales, args->positions, args->tokens, b, t);
            const ps3c_scale *scale = &args->scales[at.scale];
            float v = ps3c_ground_truth(args->gt, b, scale->rows, scale->cols, at.row, at.col);
            mask[t] = v != 0.0f;
            sum += v;
        }
        if (sum == 0.0)
            memset(mask, 1, (size_t)args->tokens);
    }
    return PS3C_OK;
}

/* Scratch: a score for each token. Scores are softmaxed in two passes; a segment whose tokens are all masked gives
 * NaN (0 / 0). */
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

ps3c_status ps3c_blend_naive(const ps3c_run *run, const ps3c_blend_args *args)
{
    for (int64_t t = 0; t < args->y->tokens; t++) {
        float flag = ps3c_load(PS3C_FLOAT32, args->flag->data, (args->first + t) * args->flag->strides[0]);
        for (int64_t c = 0; c < args->y->channels; c++)
            ps3c_set(args->y, run->dtype, 0, t, c,
                     flag * ps3c_get(args->low, run->dtype, 0, t, c) +
                         (flag == 0.0f ? 1.0f : 0.0f) * ps3c_get(args->y, run->dtype, 0, t, c));
    }
    return PS3C_OK;
}
