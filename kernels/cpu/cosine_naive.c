/* Cosine of each token's features with its image's prompt, plain C. */
#include <math.h>

#include "tokens.h"

/* Keeps NaN. */
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
