/* Probability of selection of each low-resolution patch, from its cosine. */
#include <math.h>

#include "cpu.h"

ps3c_status ps3c_probability(const ps3c_run *run, const ps3c_probability_args *args)
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

PS3C_CPU_EVERY_LEVEL(probability)
