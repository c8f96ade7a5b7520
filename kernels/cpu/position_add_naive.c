/* Position embeddings of each token's patch, added in place.
 *
 * The resampled table is not stored. A token's row of it needs only a few table rows (4 x 4; more if the table
 * shrinks), so it is computed where it is used; there is no cache, so a table edited in place is used as it is now.
 * As in torch's separable kernel, columns are resampled first, then rows, in float32. The sum with token and
 * residual is rounded once; the reference rounds after each step. */
#include "resample.h"
#include "tokens.h"

/* Channel c of the table resampled to size x size, at (row, col). */
static float resampled(const ps3c_position_add_args *args, ps3c_dtype dtype, int64_t size, int64_t row, int64_t col,
                       int64_t c)
{
    const int64_t grid = args->grid, channels = args->x->channels;
    ps3c_antialias ty = ps3c_antialias_taps(grid, size, row), tx = ps3c_antialias_taps(grid, size, col);
    float sum = 0.0f;
    for (int64_t j = 0; j < ty.count; j++) {
        float line = 0.0f;
        for (int64_t i = 0; i < tx.count; i++)
            line += ps3c_antialias_weight(&tx, i) *
                    ps3c_load(dtype, args->table, ((ty.first + j) * grid + tx.first + i) * channels + c);
        sum += ps3c_antialias_weight(&ty, j) * line;
    }
    return sum;
}

ps3c_status ps3c_position_add_naive(const ps3c_run *run, const ps3c_position_add_args *args)
{
    const ps3c_activation *x = args->x;
    for (int64_t s = 0; s < x->segments; s++)
        for (int64_t t = 0; t < x->tokens; t++) {
            ps3c_patch at = ps3c_locate(args->scales, args->num_scales, args->positions, x->tokens, s, t);
            const ps3c_scale *scale = &args->scales[at.scale];
            int64_t size = scale->rows > scale->cols ? scale->rows : scale->cols;
            const void *residual = args->residual ? args->residual[at.scale] : NULL;
            for (int64_t c = 0; c < x->channels; c++) {
                float v = ps3c_get(x, run->dtype, s, t, c);
                v += args->crop || size == args->grid
                         ? ps3c_load(run->dtype, args->table, (at.row * args->grid + at.col) * x->channels + c)
                         : resampled(args, run->dtype, size, at.row, at.col, c);
                if (residual)
                    v += ps3c_load(run->dtype, residual,
                                   (at.row * args->residual_grid[at.scale] + at.col) * x->channels + c);
                ps3c_set(x, run->dtype, s, t, c, v);
            }
        }
    return PS3C_OK;
}
