/* Mask of the tokens whose patch has ground truth. */
#include "ground_truth.h"

/* An image has no ground truth if its values, before they become 0/1, sum to 0: the reference's rule. */
ps3c_status ps3c_gt_mask(const ps3c_run *run, const ps3c_gt_mask_args *args)
{
    for (int64_t b = 0; b < args->batch; b++) {
        uint8_t *mask = args->mask + b * args->tokens;
        double sum = 0.0;
        for (int64_t t = 0; t < args->tokens; t++) {
            ps3c_patch at = ps3c_locate(args->scales, args->num_scales, args->positions, args->tokens, b, t);
            const ps3c_scale *scale = &args->scales[at.scale];
            ps3c_status status = PS3C_OK;
            float v = ps3c_ground_truth(run->context, args->gt, b, scale->rows, scale->cols, at.row, at.col, &status);
            if (status == PS3C_OK)
                status = ps3c_context_poll(run->context);
            PS3C_TRY(status);
            mask[t] = v != 0.0f;
            sum += v;
        }
        if (sum == 0.0)
            memset(mask, 1, (size_t)args->tokens);
    }
    return PS3C_OK;
}

PS3C_CPU_EVERY_LEVEL(gt_mask)
