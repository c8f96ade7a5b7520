/* One token of each text: the first, the last, or the one at the greatest id. */
#include "tokens.h"

static int64_t first_greatest(const ps3c_tensor *ids, int64_t text)
{
    int64_t best = 0;
    for (int64_t t = 1; t < ids->shape[1]; t++)
        if (ps3c_tensor_id(ids, text, t) > ps3c_tensor_id(ids, text, best))
            best = t;
    return best;
}

ps3c_status ps3c_pool_tokens(const ps3c_run *run, const ps3c_pool_tokens_args *args)
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

PS3C_CPU_EVERY_LEVEL(pool_tokens)
