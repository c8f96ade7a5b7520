/* Stable descending order of probabilities: see rank_naive.c. LSD radix sort (each pass is stable), 11 bits per pass. A
 * digit that is the same in all keys is skipped; for 16-bit types that is most of them. */
#include "block_scratch.h"

enum { DIGITS = 3, BITS = 11, BUCKETS = 1 << BITS };

typedef struct entry {
    uint32_t key;
    int32_t index;
} entry;

/* Unsigned keys that ascend as floats descend. 0 and -0 have the same key; NaN is last. */
static uint32_t sort_key(float f)
{
    uint32_t u;
    if (f != f)
        return 0xffffffffu;
    f += 0.0f; /* -0 + 0 is 0 */
    memcpy(&u, &f, 4);
    return u & 0x80000000u ? u : ~u & 0x7fffffffu;
}

static void rank_image(const ps3c_run *run, const void *probs, int64_t first, int64_t n, int32_t *rank)
{
    entry *from = (entry *)run->scratch, *to = from + n;
    uint32_t counts[DIGITS][BUCKETS];
    memset(counts, 0, sizeof counts);
    for (int64_t i = 0; i < n; i++) {
        uint32_t key = sort_key(ps3c_load(run->dtype, probs, first + i));
        from[i] = (entry){key, (int32_t)i};
        for (int d = 0; d < DIGITS; d++)
            counts[d][key >> d * BITS & (BUCKETS - 1)]++;
    }
    for (int d = 0; d < DIGITS; d++) {
        uint32_t sum = 0;
        entry *swap = to;
        if (counts[d][from[0].key >> d * BITS & (BUCKETS - 1)] == n)
            continue;
        for (int i = 0; i < BUCKETS; i++) {
            uint32_t count = counts[d][i];
            counts[d][i] = sum;
            sum += count;
        }
        for (int64_t i = 0; i < n; i++)
            to[counts[d][from[i].key >> d * BITS & (BUCKETS - 1)]++] = from[i];
        to = from;
        from = swap;
    }
    for (int64_t i = 0; i < n; i++)
        rank[from[i].index] = (int32_t)i;
}

ps3c_status PS3C_CPU(ps3c_rank)(const ps3c_run *run, const ps3c_rank_args *args)
{
    const int64_t n = args->probs->shape[1] * args->probs->shape[2];
    for (int64_t b = 0; b < args->probs->shape[0]; b++)
        rank_image(run, args->probs->data, b * n, n, args->rank + b * n);
    return PS3C_OK;
}
