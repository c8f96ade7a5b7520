/* Cosine of each token's features with its image's prompt: see cosine_naive.c. A panel's tokens are in the lanes.
 * Channels are added to four partial sums in turn, which reduces the rounding error. */
#include <math.h>

#include "block_scratch.h"
#include "simd.h"
#include "threads.h"
#include "tokens.h"

/* prompt / max(|prompt|, 1e-12) as float32; keeps NaN. */
static void normalized_prompt(ps3c_dtype dtype, const void *prompt, int64_t channels, float *out)
{
    float part[16] = {0}, norm = 0.0f;
    ps3c_widen_array(dtype, prompt, 0, channels, out);
    for (int64_t c = 0; c < channels; c++)
        part[c % 16] += out[c] * out[c];
    for (int i = 0; i < 16; i++)
        norm += part[i];
    norm = sqrtf(norm);
    norm = norm < 1e-12f ? 1e-12f : norm;
    for (int64_t c = 0; c < channels; c++)
        out[c] /= norm;
}

/* VECTOR tokens of a panel. */
INLINE vfloat cosines(ps3c_dtype dtype, const ps3c_word *words, int64_t channels, const float *prompt)
{
    const int step = dtype == PS3C_FLOAT32 ? 1 : 2;
    vfloat dot[4] = {v_splat(0), v_splat(0), v_splat(0), v_splat(0)}, square[4] = {dot[0], dot[0], dot[0], dot[0]};
    vfloat norm;
    int64_t c = 0;
    for (int part = 0; c < channels; c += step, words += PS3C_PANEL, part = (part + step) % 4) {
        vfloat even, odd;
        v_unpack(dtype, v_load_word(words), &even, &odd);
        dot[part] = v_fma(even, v_splat(prompt[c]), dot[part]);
        square[part] = v_fma(even, even, square[part]);
        if (c + 1 < channels && step == 2) {
            dot[part + 1] = v_fma(odd, v_splat(prompt[c + 1]), dot[part + 1]);
            square[part + 1] = v_fma(odd, odd, square[part + 1]);
        }
    }
    norm = v_sqrt((square[0] + square[1]) + (square[2] + square[3]));
    norm = v_select((vword)(norm < v_splat(1e-12f)), v_splat(1e-12f), norm);
    return ((dot[0] + dot[1]) + (dot[2] + dot[3])) / norm;
}

typedef struct operation {
    const ps3c_run *run;
    const ps3c_cosine_args *args;
    int64_t parts;
} operation;

static void compute_part(void *data, int64_t part, int thread)
{
    const operation *o = data;
    const ps3c_run *run = o->run;
    const ps3c_cosine_args *args = o->args;
    const ps3c_activation *f = args->features;
    const int64_t panels = ps3c_panels(f->tokens), count = f->segments * panels;
    const int64_t floats = ps3c_cosine_floats(f->channels), bytes = ps3c_is16(run->dtype) ? 2 : 4;
    float *prompt = (float *)run->scratch + thread * floats;
    int64_t segment = -1;
    for (int64_t i = count * part / o->parts; i < count * (part + 1) / o->parts; i++) {
        int64_t first = i % panels * PS3C_PANEL;
        int64_t tokens = f->tokens - first < PS3C_PANEL ? f->tokens - first : PS3C_PANEL;
        const ps3c_word *words = ps3c_panel(f, run->dtype, i / panels, i % panels);
        if (segment != i / panels) {
            segment = i / panels;
            normalized_prompt(run->dtype, (const char *)args->prompt + segment * args->prompt_stride * bytes,
                              f->channels, prompt);
        }
        for (int64_t t = 0; t < tokens; t += VECTOR) {
            vfloat v = run->dtype == PS3C_FLOAT32    ? cosines(PS3C_FLOAT32, words + t, f->channels, prompt)
                       : run->dtype == PS3C_BFLOAT16 ? cosines(PS3C_BFLOAT16, words + t, f->channels, prompt)
                                                     : cosines(PS3C_FLOAT16, words + t, f->channels, prompt);
            int64_t n = tokens - t < VECTOR ? tokens - t : VECTOR;
            memcpy(args->logits + segment * f->tokens + first + t, &v, (size_t)n * sizeof(float));
        }
    }
}

ps3c_status PS3C_CPU(ps3c_cosine)(const ps3c_run *run, const ps3c_cosine_args *args)
{
    operation o = {run, args, ps3c_parts(run, args->features->segments * ps3c_panels(args->features->tokens))};
    return ps3c_parallel(run, o.parts, compute_part, &o);
}
