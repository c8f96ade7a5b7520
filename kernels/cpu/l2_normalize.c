/* x / max(|x|, 1e-12) of each token. */
#include <math.h>

#include "tokens.h"

ps3c_status ps3c_l2_normalize(const ps3c_run *run, const ps3c_l2_normalize_args *args)
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

PS3C_CPU_EVERY_LEVEL(l2_normalize)
