/* Position embeddings of each token's patch, added in place: see position_add_naive.c.
 *
 * A token's row of the resampled table is computed with channels in the vector lanes, in the table's order: first
 * weighted sums of the table rows of one grid row each (lines), then the weighted sum of the lines. */
#include "block.h"
#include "resample.h"
#include "threads.h"

/* sum (+)= weight * table row. */
INLINE void v_weigh(ps3c_dtype dtype, const void *table, int64_t row, int64_t channels, float weight, bool first,
                    float *sum)
{
    const char *p = (const char *)table + row * channels * (dtype == PS3C_FLOAT32 ? 4 : 2);
    int64_t c = 0;
    for (; c + VECTOR <= channels; c += VECTOR) {
        vfloat v;
        if (dtype == PS3C_FLOAT32) {
            memcpy(&v, p + c * 4, sizeof v);
        } else {
            vhalf h;
            memcpy(&h, p + c * 2, sizeof h);
            v = v_from_half(dtype, h);
        }
        if (first)
            v_store(sum + c, v * weight);
        else
            v_store(sum + c, v_fma(v, v_splat(weight), v_load(sum + c)));
    }
    for (; c < channels; c++) {
        float v = weight * ps3c_load(dtype, p, c);
        sum[c] = first ? v : sum[c] + v;
    }
}
static void weigh(ps3c_dtype dtype, const void *table, int64_t row, int64_t channels, float weight, bool first,
                  float *sum)
{
    if (dtype == PS3C_FLOAT32)
        v_weigh(PS3C_FLOAT32, table, row, channels, weight, first, sum);
    else if (dtype == PS3C_BFLOAT16)
        v_weigh(PS3C_BFLOAT16, table, row, channels, weight, first, sum);
    else
        v_weigh(PS3C_FLOAT16, table, row, channels, weight, first, sum);
}

/* Row of the table resampled to size x size. line: [channels] of scratch. */
static void resampled_row(const ps3c_position_add_args *args, ps3c_dtype dtype, int64_t size, int64_t row, int64_t col,
                          float *line, float *sum)
{
    const int64_t grid = args->grid, channels = args->x->channels;
    ps3c_antialias ty = ps3c_antialias_taps(grid, size, row), tx = ps3c_antialias_taps(grid, size, col);
    for (int64_t j = 0; j < ty.count; j++) {
        for (int64_t i = 0; i < tx.count; i++)
            weigh(dtype, args->table, (ty.first + j) * grid + tx.first + i, channels, ps3c_antialias_weight(&tx, i),
                  i == 0, line);
        weigh(PS3C_FLOAT32, line, 0, channels, ps3c_antialias_weight(&ty, j), j == 0, sum);
    }
}

/* Adds a row to lane 0 of a block's values. */
static void add_row(float *values, const float *row, int64_t channels)
{
    for (int64_t c = 0; c < channels; c++)
        values[c * PS3C_BLOCK] += row[c];
}

/* line, sum, wide: [channels] each. */
static void add_token(const ps3c_position_add_args *args, ps3c_dtype dtype, const ps3c_patch *at, float *values,
                      float *line, float *sum, float *wide)
{
    const ps3c_scale *scale = &args->scales[at->scale];
    const int64_t size = scale->rows > scale->cols ? scale->rows : scale->cols, channels = args->x->channels;
    const void *residual = args->residual ? args->residual[at->scale] : NULL;
    if (args->crop || size == args->grid)
        ps3c_widen_array(dtype, args->table, (at->row * args->grid + at->col) * channels, channels, sum);
    else
        resampled_row(args, dtype, size, at->row, at->col, line, sum);
    add_row(values, sum, channels);
    if (residual) {
        ps3c_widen_array(dtype, residual, (at->row * args->residual_grid[at->scale] + at->col) * channels, channels,
                         wide);
        add_row(values, wide, channels);
    }
}

typedef struct operation {
    const ps3c_run *run;
    const ps3c_position_add_args *args;
    int64_t parts;
} operation;

static void add_part(void *data, int64_t part, int thread)
{
    const operation *o = data;
    const ps3c_run *run = o->run;
    const ps3c_position_add_args *args = o->args;
    const ps3c_activation *x = args->x;
    const int64_t blocks = ps3c_blocks(x), floats = ps3c_position_add_floats(x->channels);
    const int64_t row_floats = ps3c_round16(x->channels);
    float *values = (float *)run->scratch + thread * floats, *row = values + ps3c_block_floats(x->channels);
    for (int64_t i = blocks * part / o->parts; i < blocks * (part + 1) / o->parts; i++) {
        ps3c_block block = ps3c_block_at(x, run->dtype, i);
        if (block.count == 0)
            continue;
        ps3c_block_read(run->dtype, &block, x->channels, values);
        for (int64_t t = 0; t < block.count; t++) {
            ps3c_patch at =
                ps3c_locate(args->scales, args->num_scales, args->positions, x->tokens, block.segment, block.token + t);
            add_token(args, run->dtype, &at, values + t, row, row + row_floats, row + 2 * row_floats);
        }
        ps3c_block_write(run->dtype, &block, x->channels, values);
    }
}

ps3c_status PS3C_CPU(ps3c_position_add)(const ps3c_run *run, const ps3c_position_add_args *args)
{
    operation o = {run, args, ps3c_parts(run, ps3c_blocks(args->x))};
    return ps3c_parallel(run, o.parts, add_part, &o);
}
