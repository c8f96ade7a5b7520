/* Patches of the image by bicubic resampling, straight from the source, for the selected positions only.
 *
 * See patch_gather_naive.c for what is computed. Here a patch is resampled separably. A source row that several
 * output rows need is resampled along x once. Output row y needs source rows first(y) - 1 .. first(y) + 2, and
 * first() does not decrease, so four stored rows are enough at any ratio; source row r is in slot r mod 4. */
#include "block.h"
#include "resample.h"
#include "threads.h"

enum { MOST_PATCH = 64 }; /* larger patches use the plain version */

typedef struct gather {
    /* Of the current patch: source offsets (in elements) and weights of its columns and rows. */
    int64_t x_offset[4][MOST_PATCH], y_offset[MOST_PATCH][4], y_row[MOST_PATCH][4];
    float x_weight[4][MOST_PATCH], y_weight[MOST_PATCH][4];
    /* Of its current colour channel: values to resample; resampled rows, and the source row of each. */
    uint32_t tap[4][MOST_PATCH];
    float line[4][MOST_PATCH], sum[MOST_PATCH];
    int64_t row[4];
    const ps3c_patch_gather_args *args;
    ps3c_dtype dtype;
    int64_t patch;
} __attribute__((aligned(64))) gather;

static void locate_taps(gather *g, const ps3c_scale *scale, int64_t row, int64_t col)
{
    const ps3c_tensor *pixels = g->args->pixels;
    for (int64_t i = 0; i < g->patch; i++) {
        float weight[4];
        int64_t first = ps3c_bicubic_taps(pixels->shape[3], scale->width, col * g->patch + i, weight) - 1;
        for (int k = 0; k < 4; k++) {
            g->x_offset[k][i] = ps3c_clamp(first + k, 0, pixels->shape[3] - 1) * pixels->strides[3];
            g->x_weight[k][i] = weight[k];
        }
        first = ps3c_bicubic_taps(pixels->shape[2], scale->height, row * g->patch + i, g->y_weight[i]) - 1;
        for (int k = 0; k < 4; k++) {
            g->y_row[i][k] = ps3c_clamp(first + k, 0, pixels->shape[2] - 1);
            g->y_offset[i][k] = g->y_row[i][k] * pixels->strides[2];
        }
    }
}

/* One row of the source, resampled along x: out[x] = sum over 4 taps of weight * pixel. */
INLINE void resample_row(ps3c_dtype dtype, gather *g, int64_t start, float *out)
{
    for (int k = 0; k < 4; k++)
        for (int64_t x = 0; x < g->patch; x++) {
            size_t bytes = dtype == PS3C_FLOAT32 ? 4 : 2;
            const char *from = (const char *)g->args->pixels->data + (start + g->x_offset[k][x]) * (int64_t)bytes;
            memcpy((char *)g->tap[k] + (size_t)x * bytes, from, bytes);
        }
    for (int64_t x = 0; x < g->patch; x += VECTOR) {
        vfloat sum;
        for (int k = 0; k < 4; k++) {
            const vhalf *halves = (const vhalf *)g->tap[k] + x / VECTOR;
            vfloat pixel = dtype == PS3C_FLOAT32 ? v_load(&g->tap[k][x]) : v_from_half(dtype, *halves);
            if (k == 0)
                sum = v_load(&g->x_weight[k][x]) * pixel;
            else
                sum = v_fma(v_load(&g->x_weight[k][x]), pixel, sum);
        }
        v_store(out + x, sum);
    }
}

/* One colour channel of the patch into lane 0 of a block's values [patch * patch][16]. */
INLINE void resample_channel(ps3c_dtype dtype, gather *g, int64_t plane, float *values)
{
    for (int k = 0; k < 4; k++)
        g->row[k] = -1;
    for (int64_t y = 0; y < g->patch; y++) {
        const float *line[4];
        for (int k = 0; k < 4; k++) {
            int64_t slot = g->y_row[y][k] % 4;
            if (g->row[slot] != g->y_row[y][k])
                resample_row(dtype, g, plane + g->y_offset[y][k], g->line[slot]);
            g->row[slot] = g->y_row[y][k];
            line[k] = g->line[slot];
        }
        for (int64_t x = 0; x < g->patch; x += VECTOR) {
            vfloat sum = v_load(line[0] + x) * g->y_weight[y][0];
            for (int k = 1; k < 4; k++)
                sum = v_fma(v_load(line[k] + x), v_splat(g->y_weight[y][k]), sum);
            v_store(g->sum + x, sum);
        }
        for (int64_t x = 0; x < g->patch; x++)
            values[(y * g->patch + x) * PS3C_BLOCK] = g->sum[x];
    }
}

static void gather_token(gather *g, int64_t segment, int64_t token, float *values)
{
    const ps3c_patch_gather_args *args = g->args;
    const ps3c_tensor *pixels = args->pixels;
    ps3c_patch at = ps3c_locate(args->scales, args->num_scales, args->positions, args->out->tokens, segment, token);
    locate_taps(g, &args->scales[at.scale], at.row, at.col);
    for (int64_t c = 0; c < 3; c++, values += g->patch * g->patch * PS3C_BLOCK) {
        int64_t plane = segment % pixels->shape[0] * pixels->strides[0] + c * pixels->strides[1];
        if (g->dtype == PS3C_FLOAT32)
            resample_channel(PS3C_FLOAT32, g, plane, values);
        else if (g->dtype == PS3C_BFLOAT16)
            resample_channel(PS3C_BFLOAT16, g, plane, values);
        else
            resample_channel(PS3C_FLOAT16, g, plane, values);
    }
}

typedef struct operation {
    const ps3c_run *run;
    const ps3c_patch_gather_args *args;
    int64_t parts;
} operation;

static void gather_part(void *data, int64_t part, int thread)
{
    const operation *o = data;
    const ps3c_run *run = o->run;
    const ps3c_activation *out = o->args->out;
    const int64_t blocks = ps3c_blocks(out), floats = ps3c_block_floats(out->channels);
    gather g = {.args = o->args, .dtype = run->dtype, .patch = o->args->patch};
    float *values = (float *)run->scratch + thread * floats;
    for (int64_t i = blocks * part / o->parts; i < blocks * (part + 1) / o->parts; i++) {
        ps3c_block block = ps3c_block_at(out, run->dtype, i);
        if (block.count < PS3C_BLOCK)
            memset(values, 0, (size_t)floats * sizeof(float));
        for (int64_t t = 0; t < block.count; t++)
            gather_token(&g, block.segment, block.token + t, values + t);
        ps3c_block_write(run->dtype, &block, out->channels, values);
    }
}

ps3c_status PS3C_CPU(ps3c_patch_gather)(const ps3c_run *run, const ps3c_patch_gather_args *args)
{
    operation o = {run, args, ps3c_parts(run, ps3c_blocks(args->out))};
    if (args->patch > MOST_PATCH)
        return ps3c_patch_gather_naive(run, args);
    return ps3c_parallel(run, o.parts, gather_part, &o);
}
