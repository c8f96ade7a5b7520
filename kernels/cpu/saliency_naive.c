/* How much each low-resolution patch matters: cosine with the prompt, pooling of the convolution's cosines to the
 * low-resolution grid, and the probability of selection. */
#include "resample.h"
#include "tokens.h"

/* NaN stays NaN. */
static float at_least(float v, float low) { return v < low ? low : v; }

ps3c_status ps3c_cosine_naive(const ps3c_run *run, const ps3c_cosine_args *args)
{
    const ps3c_activation *f = args->features;
    for (int64_t s = 0; s < f->segments; s++) {
        const char *prompt =
            (const char *)args->prompt + s * args->prompt_stride * (int64_t)ps3c_dtype_bytes(run->dtype);
        float prompt_norm = 0.0f;
        for (int64_t c = 0; c < f->channels; c++) {
            float p = ps3c_load(run->dtype, prompt, c);
            prompt_norm += p * p;
        }
        prompt_norm = at_least(sqrtf(prompt_norm), 1e-12f);
        for (int64_t t = 0; t < f->tokens; t++) {
            float dot = 0.0f, norm = 0.0f;
            for (int64_t c = 0; c < f->channels; c++) {
                float v = ps3c_get(f, run->dtype, s, t, c);
                dot += v * (ps3c_load(run->dtype, prompt, c) / prompt_norm);
                norm += v * v;
            }
            args->logits[s * f->tokens + t] = dot / at_least(sqrtf(norm), 1e-12f);
        }
    }
    return PS3C_OK;
}

ps3c_status ps3c_max_pool_naive(const ps3c_run *run, const ps3c_max_pool_args *args)
{
    (void)run;
    for (int64_t b = 0; b < args->batch; b++)
        for (int64_t row = 0; row < args->rows; row++)
            for (int64_t col = 0; col < args->cols; col++) {
                int64_t y1 = ps3c_adaptive_end(args->in_rows, args->rows, row);
                int64_t x1 = ps3c_adaptive_end(args->in_cols, args->cols, col);
                float most = -INFINITY;
                for (int64_t y = ps3c_adaptive_start(args->in_rows, args->rows, row); y < y1; y++)
                    for (int64_t x = ps3c_adaptive_start(args->in_cols, args->cols, col); x < x1; x++) {
                        float v = args->in[(b * args->in_rows + y) * args->in_cols + x];
                        if (v > most || isnan(v))
                            most = v;
                    }
                args->out[(b * args->rows + row) * args->cols + col] = most;
            }
    return PS3C_OK;
}

ps3c_status ps3c_probability_naive(const ps3c_run *run, const ps3c_probability_args *args)
{
    for (int64_t i = 0; i < args->count; i++) {
        float x = args->highres ? (args->logits[i] + args->highres[i]) / 2.0f : args->logits[i];
        float z = x * 5.0f;
        z = z < -10.0f ? -10.0f : z > 10.0f ? 10.0f : z;
        float most = z > 0.0f ? z : 0.0f, yes = expf(z - most), no = expf(0.0f - most);
        args->probs[i] = ps3c_round(run->dtype, yes / (yes + no));
    }
    return PS3C_OK;
}
