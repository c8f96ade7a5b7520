/* Adaptive maximum pooling: the convolution's cosines to the low-resolution grid, as torch's adaptive_max_pool2d. */
#include "resample.h"

ps3c_status ps3c_max_pool(const ps3c_run *run, const ps3c_max_pool_args *args)
{
    (void)run;
    for (int64_t b = 0; b < args->batch; b++)
        for (int64_t row = 0; row < args->rows; row++)
            for (int64_t col = 0; col < args->cols; col++) {
                int64_t y1 = ps3c_adaptive_end(args->in_rows, args->rows, row);
                int64_t x1 = ps3c_adaptive_end(args->in_cols, args->cols, col);
                float most = -INFINITY;
                for (int64_t y = ps3c_adaptive_start(args->in_rows, args->rows, row); y < y1; y++)
                    for (int64_t x = ps3c_adaptive_start(args->in_cols, args->cols, col); x < x1; x++) {
                        float v = args->in[(b * args->in_rows + y) * args->in_cols + x];
                        if (v > most || isnan(v))
                            most = v;
                    }
                args->out[(b * args->rows + row) * args->cols + col] = most;
            }
    return PS3C_OK;
}

PS3C_CPU_EVERY_LEVEL(max_pool)
