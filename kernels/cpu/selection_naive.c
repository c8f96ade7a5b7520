/* From probabilities to patches: probabilities at a scale's grid, their order, and the looks cut from that order. */
#include "ground_truth.h"

/* ---- expand ------------------------------------------------------------------------------------------------------ */

/* 1 where gt > 0, the probability where gt <= 0, and 0 where gt is NaN: written as the reference's products, so that a
 * NaN probability stays NaN. */
static float with_ground_truth(float gt, float prob) { return (float)(gt > 0.0f) + (float)(gt <= 0.0f) * prob; }

/* Area to 6 x 6, rounded, nearest back; in place. */
static void smooth(ps3c_dtype dtype, void *map, int64_t rows, int64_t cols)
{
    float area[6][6];
    for (int64_t i = 0; i < 6; i++)
        for (int64_t j = 0; j < 6; j++) {
            int64_t y0 = ps3c_adaptive_start(rows, 6, i), y1 = ps3c_adaptive_end(rows, 6, i);
            int64_t x0 = ps3c_adaptive_start(cols, 6, j), x1 = ps3c_adaptive_end(cols, 6, j);
            float sum = 0.0f;
            for (int64_t y = y0; y < y1; y++)
                for (int64_t x = x0; x < x1; x++)
                    sum += ps3c_load(dtype, map, y * cols + x);
            area[i][j] = sum / (float)(y1 - y0) / (float)(x1 - x0);
        }
    for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < cols; x++)
            ps3c_store(dtype, map, y * cols + x, area[ps3c_nearest(6, rows, y)][ps3c_nearest(6, cols, x)]);
}

/* Output rows (or columns) [*from, *to) are those whose nearest of `in` is i. */
static void nearest_range(int64_t in, int64_t out, int64_t i, int64_t *from, int64_t *to)
{
    *from = *to = 0;
    while (*from < out && ps3c_nearest(in, out, *from) < i)
        ++*from;
    for (*to = *from; *to < out && ps3c_nearest(in, out, *to) == i;)
        ++*to;
}

/* The part of image b's map whose ground truth is row gt_row of the first high-res grid: each cell of it is area-resized
 * once, however many patches it covers. */
static void apply_ground_truth(const ps3c_run *run, const ps3c_expand_args *args, int64_t b, int64_t gt_row, void *map)
{
    const int64_t rows = args->out->shape[1], cols = args->out->shape[2];
    int64_t y0, y1, x0, x1;
    nearest_range(args->gt_rows, rows, gt_row, &y0, &y1);
    for (int64_t gt_col = 0; y0 < y1 && gt_col < args->gt_cols; gt_col++) {
        nearest_range(args->gt_cols, cols, gt_col, &x0, &x1);
        float gt = x0 < x1 ? ps3c_ground_truth(args->gt, b, args->gt_rows, args->gt_cols, gt_row, gt_col) : 0.0f;
        for (int64_t y = y0; y < y1; y++)
            for (int64_t x = x0; x < x1; x++)
                ps3c_store(run->dtype, map, y * cols + x,
                           with_ground_truth(gt, ps3c_load(run->dtype, map, y * cols + x)));
    }
}

ps3c_status ps3c_expand_naive(const ps3c_run *run, const ps3c_expand_args *args)
{
    const int64_t rows = args->out->shape[1], cols = args->out->shape[2];
    const int64_t map_bytes = rows * cols * (int64_t)ps3c_dtype_bytes(run->dtype);
    for (int64_t b = 0; b < args->batch; b++) {
        char *map = (char *)args->out->data + b * map_bytes;
        for (int64_t y = 0; y < rows; y++) {
            const float *probs =
                args->probs + (b * args->in_rows + ps3c_nearest(args->in_rows, rows, y)) * args->in_cols;
            for (int64_t x = 0; x < cols; x++)
                ps3c_store(run->dtype, map, y * cols + x, probs[ps3c_nearest(args->in_cols, cols, x)]);
        }
        if (args->gt) {
#pragma omp parallel for schedule(static) num_threads(run->threads)
            for (int64_t i = 0; i < args->gt_rows; i++)
                apply_ground_truth(run, args, b, i, map);
        }
        if (args->smooth)
            smooth(run->dtype, map, rows, cols);
    }
    return PS3C_OK;
}

/* ---- rank -------------------------------------------------------------------------------------------------------- */

/* Strictly before, in descending order with NaN last; equal values (0 and -0 too) are neither. */
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

/* ---- assign_looks ------------------------------------------------------------------------------------------------ */

/* First look whose end lies beyond the rank; looks: none. */
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

/* One walk over the patches in (scale, row, col) order, each look filling from its front. A look's fill count waits in
 * its own last row_of entry, which is also the last to get its value. */
ps3c_status ps3c_assign_looks_naive(const ps3c_run *run, const ps3c_assign_looks_args *args)
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
