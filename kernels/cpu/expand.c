/* Low-resolution probabilities at the grid of one scale. */
#include "ground_truth.h"
#include "threads.h"

/* 1 where gt > 0, the probability where gt <= 0, and 0 where gt is NaN. Computed by the reference's products, so that a
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

/* Output rows (or columns) [*from, *to) have input i as their nearest. */
static void nearest_range(int64_t in, int64_t out, int64_t i, int64_t *from, int64_t *to)
{
    *from = *to = 0;
    while (*from < out && ps3c_nearest(in, out, *from) < i)
        ++*from;
    for (*to = *from; *to < out && ps3c_nearest(in, out, *to) == i;)
        ++*to;
}

typedef struct image {
    const ps3c_run *run;
    const ps3c_expand_args *args;
    int64_t b;
    void *map;            /* of image b */
    ps3c_context *polled; /* on the calling thread alone; NULL: do not poll */
} image;

/* Applies row gt_row of the ground truth, on the first high-res grid, to the image's map. Each cell of the row is
 * resized once, however many patches it covers. An error can only come from polling. */
static ps3c_status apply_row(const image *o, int64_t gt_row)
{
    const ps3c_run *run = o->run;
    const ps3c_expand_args *args = o->args;
    void *map = o->map;
    ps3c_status status = PS3C_OK;
    const int64_t rows = args->out->shape[1], cols = args->out->shape[2];
    int64_t y0, y1, x0, x1;
    nearest_range(args->gt_rows, rows, gt_row, &y0, &y1);
    for (int64_t gt_col = 0; y0 < y1 && gt_col < args->gt_cols; gt_col++) {
        nearest_range(args->gt_cols, cols, gt_col, &x0, &x1);
        float gt = 0.0f;
        if (x0 < x1)
            gt = ps3c_ground_truth(o->polled, args->gt, o->b, args->gt_rows, args->gt_cols, gt_row, gt_col, &status);
        if (status == PS3C_OK && o->polled)
            status = ps3c_context_poll(o->polled);
        PS3C_TRY(status);
        for (int64_t y = y0; y < y1; y++)
            for (int64_t x = x0; x < x1; x++)
                ps3c_store(run->dtype, map, y * cols + x,
                           with_ground_truth(gt, ps3c_load(run->dtype, map, y * cols + x)));
    }
    return PS3C_OK;
}

static void apply_ground_truth(void *data, int64_t gt_row, int thread)
{
    (void)thread;
    (void)apply_row(data, gt_row);
}

ps3c_status ps3c_expand(const ps3c_run *run, const ps3c_expand_args *args)
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
        image o = {run, args, b, map, NULL};
        if (args->gt && ps3c_ground_truth_is_large(args->gt)) {
            o.polled = run->context;
            for (int64_t i = 0; i < args->gt_rows; i++)
                PS3C_TRY(apply_row(&o, i));
        } else if (args->gt) {
            PS3C_TRY(ps3c_parallel_ranges(run, args->gt_rows, apply_ground_truth, &o));
        }
        if (args->smooth)
            smooth(run->dtype, map, rows, cols);
    }
    return PS3C_OK;
}

PS3C_CPU_EVERY_LEVEL(expand)
