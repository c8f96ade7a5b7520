/* The text tower's own operations: embedding of tokens, pooling, normalisation, the class token's mask. */
#include <inttypes.h>
#include <math.h>

#include "tokens.h"

ps3c_status ps3c_token_embedding_naive(const ps3c_run *run, const ps3c_token_embedding_args *args)
{
    const ps3c_activation *out = args->out;
    const int64_t length = args->ids->shape[1];
    for (int64_t s = 0; s < out->segments; s++)
        for (int64_t t = 0; t < length; t++) {
            int64_t id = ps3c_tensor_id(args->ids, args->first + s, t);
            if (id < 0 || id >= args->vocab_size)
                return ps3c_fail(run->context, PS3C_ERROR_VALUE,
                                 "ids[%" PRId64 "][%" PRId64 "] is %" PRId64 ", expected a token id from 0 to %" PRId64,
                                 args->first + s, t, id, args->vocab_size - 1);
        }
    ps3c_activation_clear(out, run->dtype);
    for (int64_t s = 0; s < out->segments; s++)
        for (int64_t t = 0; t < out->tokens; t++) {
            int64_t row = t < length ? ps3c_tensor_id(args->ids, args->first + s, t) * out->channels : 0;
            for (int64_t c = 0; c < out->channels; c++)
                ps3c_set(out, run->dtype, s, t, c,
                         ps3c_load(run->dtype, t < length ? args->table : args->class_token, row + c) +
                             ps3c_load(run->dtype, args->positions, t * out->channels + c));
        }
    return PS3C_OK;
}

static int64_t first_greatest(const ps3c_tensor *ids, int64_t text)
{
    int64_t best = 0;
    for (int64_t t = 1; t < ids->shape[1]; t++)
        if (ps3c_tensor_id(ids, text, t) > ps3c_tensor_id(ids, text, best))
            best = t;
    return best;
}

ps3c_status ps3c_pool_tokens_naive(const ps3c_run *run, const ps3c_pool_tokens_args *args)
{
    const ps3c_activation *x = args->x;
    ps3c_activation_clear(args->out, run->dtype);
    for (int64_t s = 0; s < x->segments; s++) {
        int64_t token = args->pool == PS3C_POOL_FIRST  ? 0
                        : args->pool == PS3C_POOL_LAST ? x->tokens - 1
                                                       : first_greatest(args->ids, args->first + s);
        for (int64_t c = 0; c < x->channels; c++)
            ps3c_set(args->out, run->dtype, 0, s, c, ps3c_get(x, run->dtype, s, token, c));
    }
    return PS3C_OK;
}

ps3c_status ps3c_l2_normalize_naive(const ps3c_run *run, const ps3c_l2_normalize_args *args)
{
    const ps3c_activation *x = args->x;
    if (args->y->data != x->data)
        ps3c_activation_clear(args->y, run->dtype);
    for (int64_t s = 0; s < x->segments; s++)
        for (int64_t t = 0; t < x->tokens; t++) {
            float norm = 0.0f;
            for (int64_t c = 0; c < x->channels; c++)
                norm += ps3c_get(x, run->dtype, s, t, c) * ps3c_get(x, run->dtype, s, t, c);
            norm = sqrtf(norm);
            norm = norm < 1e-12f ? 1e-12f : norm; /* NaN stays NaN */
            for (int64_t c = 0; c < x->channels; c++)
                ps3c_set(args->y, run->dtype, s, t, c, ps3c_get(x, run->dtype, s, t, c) / norm);
        }
    return PS3C_OK;
}

ps3c_status ps3c_class_mask_naive(const ps3c_run *run, const ps3c_class_mask_args *args)
{
    const int64_t length = args->ids->shape[1];
    (void)run;
    for (int64_t s = 0; s < args->segments; s++) {
        uint8_t *mask = args->mask + s * (length + 1);
        mask[0] = 1;
        for (int64_t t = 0; t < length; t++)
            mask[t + 1] = ps3c_tensor_id(args->ids, args->first + s, t) != args->pad_id;
    }
    return PS3C_OK;
}
