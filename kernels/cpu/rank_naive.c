/* Stable descending order of probabilities, plain C. */
#include <math.h>

#include "cpu.h"

/* True if a comes strictly before b: descending, NaN last. Equal values, and 0 and -0, have no order. */
static bool before(float a, float b) { return a > b || (isnan(b) && !isnan(a)); }

/* Bottom-up merge sort of indices: stable. Scratch: two arrays of n indices. */
ps3c_status ps3c_rank_naive(const ps3c_run *run, const ps3c_rank_args *args)
{
    const int64_t n = args->probs->shape[1] * args->probs->shape[2];
    for (int64_t b = 0; b < args->probs->shape[0]; b++) {
        int32_t *from = (int32_t *)run->scratch, *to = from + n;
        for (int64_t i = 0; i < n; i++)
            from[i] = (int32_t)i;
        for (int64_t width = 1; width < n; width *= 2) {
            for (int64_t start = 0; start < n; start += 2 * width) {
                int64_t middle = start + width < n ? start + width : n, end = middle + width < n ? middle + width : n;
                for (int64_t i = start, j = middle, k = start; k < end; k++) {
                    bool second =
                        j < end && (i == middle || before(ps3c_load(run->dtype, args->probs->data, b * n + from[j]),
                                                          ps3c_load(run->dtype, args->probs->data, b * n + from[i])));
                    to[k] = second ? from[j++] : from[i++];
                }
            }
            int32_t *swap = from;
            from = to;
            to = swap;
        }
        for (int64_t i = 0; i < n; i++)
            args->rank[b * n + from[i]] = (int32_t)i;
    }
    return PS3C_OK;
}
