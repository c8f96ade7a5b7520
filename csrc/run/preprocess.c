/* Converts a decoded image to the model's input: resizes it, scales bytes to [0, 1], normalises, and writes one plane
 * per channel.
 *
 * A channel has 256 possible values. A table of their results is computed first, with the roundings of torchvision's
 * ToTensor and Normalize: v / 255, then - mean, then / std, each in float32. */
#include "context.h"

#include <math.h>
#include <stdlib.h>

static ps3c_status check_std(ps3c_context *context, const float std[3])
{
    for (int c = 0; c < 3; c++)
        if (std[c] == 0.0f)
            return ps3c_fail(context, PS3C_ERROR_VALUE,
                             "std: got 0 for channel %d, expected another number, because std divides", c);
    return PS3C_OK;
}

ps3c_status ps3c_image_normalize(ps3c_context *context, const uint8_t *pixels, int64_t height, int64_t width,
                                 int64_t row_bytes, int64_t channels, const float mean[3], const float std[3],
                                 float *out)
{
    float table[3][256];
    if (channels != 3 && channels != 4)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "pixels: got %lld channels, expected 3 or 4", (long long)channels);
    if (height < 1 || width < 1)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "pixels: got %lld x %lld, expected 1 x 1 or more",
                         (long long)height, (long long)width);
    PS3C_TRY(check_std(context, std));
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++) {
            float unit = (float)v / 255.0f, centred = unit - mean[c];
            table[c][v] = centred / std[c];
        }
    for (int64_t y = 0; y < height; y++) {
        const uint8_t *row = pixels + y * row_bytes;
        float *red = out + y * width, *green = red + height * width, *blue = green + height * width;
        for (int64_t x = 0; x < width; x++, row += channels) {
            red[x] = table[0][row[0]];
            green[x] = table[1][row[1]];
            blue[x] = table[2][row[2]];
        }
    }
    return PS3C_OK;
}

/* ---- resizing ---------------------------------------------------------------------------------------------------- */

/* Cubic convolution (Keys 1981) with a = -0.5; its support is 2. */
static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

static double bilinear(double x) { return fabs(x) < 1.0 ? 1.0 - fabs(x) : 0.0; }

typedef struct taps_memory {
    ps3c_taps taps;
    int64_t *firsts, *counts;
    int32_t *weights;
} taps_memory;

static void free_taps(taps_memory *m)
{
    free(m->firsts);
    free(m->counts);
    free(m->weights);
}

/* Computes the weights that resize `in` to `out` pixels, in double and then in fixed point. The order of operations is
 * Pillow's, so that the resized bytes are equal to Pillow's. If the image shrinks, the filter is wider (antialiasing).
 */
static ps3c_status make_taps(ps3c_context *context, ps3c_image_filter filter, int64_t in, int64_t out, taps_memory *m)
{
    const double step = (double)in / (double)out, wide = step < 1.0 ? 1.0 : step;
    const double support = (filter == PS3C_BICUBIC ? 2.0 : 1.0) * wide, per_pixel = 1.0 / wide;
    const int64_t most = (int64_t)ceil(support) * 2 + 1;
    double *exact = malloc((size_t)most * sizeof *exact);
    m->firsts = malloc((size_t)out * sizeof *m->firsts);
    m->counts = malloc((size_t)out * sizeof *m->counts);
    m->weights = (size_t)out > SIZE_MAX / 4 / (size_t)most ? NULL : calloc((size_t)(out * most), sizeof *m->weights);
    if (!exact || !m->firsts || !m->counts || !m->weights) {
        free(exact);
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the weights of %lld pixels", (long long)out);
    }
    for (int64_t i = 0; i < out; i++) {
        const double centre = ((double)i + 0.5) * step;
        int64_t first = (int64_t)(centre - support + 0.5), end = (int64_t)(centre + support + 0.5);
        double sum = 0.0;
        first = first < 0 ? 0 : first;
        end = end > in ? in : end;
        for (int64_t t = 0; t < end - first; t++) {
            const double x = ((double)(t + first) - centre + 0.5) * per_pixel;
            exact[t] = filter == PS3C_BICUBIC ? bicubic(x) : bilinear(x);
            sum += exact[t];
        }
        for (int64_t t = 0; t < end - first; t++) {
            const double weight = (sum != 0.0 ? exact[t] / sum : exact[t]) * (1 << PS3C_WEIGHT_BITS);
            m->weights[i * most + t] = (int32_t)(weight < 0.0 ? weight - 0.5 : weight + 0.5);
        }
        m->firsts[i] = first;
        m->counts[i] = end - first;
    }
    free(exact);
    m->taps = (ps3c_taps){out, most, m->firsts, m->counts, m->weights};
    return PS3C_OK;
}

static ps3c_status check_resize(ps3c_context *context, int64_t height, int64_t width, int64_t channels, int64_t out,
                                ps3c_image_filter filter)
{
    const int64_t limit = (int64_t)1 << 30;
    if (channels != 3 && channels != 4)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "pixels: got %lld channels, expected 3 or 4", (long long)channels);
    if (height < 1 || width < 1 || out < 1 || height > limit || width > limit || out > limit)
        return ps3c_fail(context, PS3C_ERROR_VALUE,
                         "pixels: got %lld x %lld to resize to %lld, expected sides of 1 to 2^30", (long long)height,
                         (long long)width, (long long)out);
    if (filter != PS3C_BICUBIC && filter != PS3C_BILINEAR)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "filter: got %d, expected PS3C_BILINEAR or PS3C_BICUBIC",
                         (int)filter);
    return PS3C_OK;
}

static ps3c_status begin_run(ps3c_context *context, const ps3c_backend **backend, ps3c_run *run)
{
    *run = (ps3c_run){.context = context, .threads = ps3c_context_threads(context, ps3c_threads_limit())};
    PS3C_TRY(ps3c_context_backend(context, (ps3c_device){PS3C_CPU, 0}, backend));
    return (*backend)->begin ? (*backend)->begin(run) : PS3C_OK;
}

static void end_run(const ps3c_backend *backend, ps3c_run *run)
{
    if (backend->end)
        backend->end(run);
}

ps3c_status ps3c_image_resize_columns(ps3c_context *context, const uint8_t *pixels, int64_t height, int64_t width,
                                      int64_t row_bytes, int64_t channels, ps3c_image_filter filter, int64_t out_width,
                                      uint8_t *out)
{
    taps_memory memory = {0};
    const ps3c_backend *backend;
    ps3c_run run;
    PS3C_TRY(check_resize(context, height, width, channels, out_width, filter));
    PS3C_TRY(begin_run(context, &backend, &run));
    ps3c_status status = make_taps(context, filter, width, out_width, &memory);
    if (status == PS3C_OK) {
        const ps3c_resize_columns_args args = {pixels, height, row_bytes, channels, &memory.taps, out};
        status = backend->resize_columns(&run, &args);
    }
    free_taps(&memory);
    end_run(backend, &run);
    return status;
}

ps3c_status ps3c_image_resize_rows(ps3c_context *context, const uint8_t *pixels, int64_t height, int64_t width,
                                   ps3c_image_filter filter, int64_t out_height, const float mean[3],
                                   const float std[3], float *out)
{
    taps_memory memory = {0};
    const ps3c_backend *backend;
    ps3c_run run;
    PS3C_TRY(check_resize(context, height, width, 4, out_height, filter));
    PS3C_TRY(check_std(context, std));
    PS3C_TRY(begin_run(context, &backend, &run));
    ps3c_status status = make_taps(context, filter, height, out_height, &memory);
    if (status == PS3C_OK) {
        const ps3c_resize_rows_args args = {pixels, width, &memory.taps, mean, std, out};
        status = backend->resize_rows(&run, &args);
    }
    free_taps(&memory);
    end_run(backend, &run);
    return status;
}
