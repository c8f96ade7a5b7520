/* From ranks to looks: positions of each look's tokens, rows of the selected patches, selection maps. */
#include "cpu.h"

/* The first look whose end is greater than the rank; `looks` if there is none. */
static int64_t look_of(const int32_t *ends, int64_t looks, int32_t rank)
{
    int64_t low = 0, high = looks;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (rank < ends[middle])
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* One loop over the patches in (scale, row, col) order; each look is filled from its front. A look's counter is kept
 * in its last row_of entry, which is the last one to get its own value. */
ps3c_status ps3c_assign_looks(const ps3c_run *run, const ps3c_assign_looks_args *args)
{
    for (int64_t b = 0; b < args->batch; b++) {
        int32_t selected = 0;
        for (int64_t l = 0; l < args->looks; l++)
            if (args->look_tokens[l] > 0)
                args->row_of[args->look_first[l] + (b + 1) * args->look_tokens[l] - 1] = 0;
        for (int64_t i = 0; i < args->num_scales; i++) {
            const int64_t patches = args->scales[i].rows * args->scales[i].cols;
            const int32_t *rank = args->rank[i] + b * patches;
            const int32_t *ends = args->ends + (b * args->num_scales + i) * args->looks;
            for (int64_t p = 0; p < patches; p++) {
                int64_t look = look_of(ends, args->looks, rank[p]);
                ps3c_store(run->dtype, args->maps[i].data, b * patches + p, look < args->looks ? 1.0f : 0.0f);
                if (look == args->looks)
                    continue;
                int64_t tokens = args->look_tokens[look], first = args->look_first[look] + b * tokens;
                int32_t *filled = &args->row_of[first + tokens - 1], at = *filled;
                *filled = at + 1;
                args->positions[first + at] = (int32_t)(args->scales[i].first + p);
                args->row_of[first + at] = selected++;
            }
        }
    }
    return PS3C_OK;
}

PS3C_CPU_EVERY_LEVEL(assign_looks)
