/* y = act((x - mean) / sqrt(variance + eps) * weight + bias) over the channels of each token, plain C; the variance
 * from the deviations (two passes), as torch.nn.functional.layer_norm defines it. Sums are float64: this is the
 * reference of layernorm.c. */
#include <math.h>

#include "activate.h"
#include "threads.h"

static void normalize(ps3c_dtype dtype, const ps3c_layernorm_args *a, int64_t segment, int64_t token)
{
    int64_t channels = a->x->channels;
    double mean = 0, variance = 0, factor;
    for (int64_t c = 0; c < channels; c++)
        mean += ps3c_get(a->x, dtype, segment, token, c);
    mean /= (double)channels;
    for (int64_t c = 0; c < channels; c++) {
        double d = ps3c_get(a->x, dtype, segment, token, c) - mean;
        variance += d * d;
    }
    factor = 1 / sqrt(variance / (double)channels + a->eps);
    for (int64_t c = 0; c < channels; c++) {
        double v = (ps3c_get(a->x, dtype, segment, token, c) - mean) * factor;
        v = v * ps3c_load(dtype, a->weight, c) + ps3c_load(dtype, a->bias, c);
        ps3c_set(a->y, dtype, segment, token, c, (float)ps3c_activate(a->act, v));
    }
    if (ps3c_is16(dtype) && channels % 2)
        ps3c_set(a->y, dtype, segment, token, channels, 0); /* the word's spare half */
}

typedef struct operation {
    const ps3c_run *run;
    const ps3c_layernorm_args *args;
} operation;

static void normalize_token(void *data, int64_t index, int thread)
{
    const operation *o = data;
    const int64_t tokens = o->args->x->tokens;
    (void)thread;
    normalize(o->run->dtype, o->args, index / tokens, index % tokens);
}

ps3c_status ps3c_layernorm_naive(const ps3c_run *run, const ps3c_layernorm_args *args)
{
    operation o = {run, args};
    return ps3c_parallel_ranges(run, args->x->segments * args->x->tokens, normalize_token, &o);
}
