/* The keys that the class token of a text may see. */
#include "tokens.h"

ps3c_status ps3c_class_mask(const ps3c_run *run, const ps3c_class_mask_args *args)
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

PS3C_CPU_EVERY_LEVEL(class_mask)
