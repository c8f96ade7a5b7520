/* Choice between two pooled vectors, per image. */
#include "cpu.h"

ps3c_status ps3c_blend(const ps3c_run *run, const ps3c_blend_args *args)
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

PS3C_CPU_EVERY_LEVEL(blend)
