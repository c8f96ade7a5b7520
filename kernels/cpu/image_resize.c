/* Resizing of decoded images: see image_resize_naive.c. The results are the same, bit for bit.
 *
 * Arithmetic is in 32-bit integers of the compilers' vector types, which every level can compile. Columns: the four
 * bytes of a pixel are one vector, and a tap is one multiplication. Rows: 16 pixels at a time; then the bytes of one
 * channel become floats. The intermediate image has 4 bytes per pixel, so that both passes use plain loads. */
#include "threads.h"

#ifdef __SSE4_1__
#include <immintrin.h>
#endif

typedef uint8_t bytes4 __attribute__((vector_size(4)));
typedef int32_t ints4 __attribute__((vector_size(16)));
typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef int32_t ints16 __attribute__((vector_size(64)));
typedef uint32_t words16 __attribute__((vector_size(64)));
typedef float floats16 __attribute__((vector_size(64)));

enum { HALF = 1 << (PS3C_WEIGHT_BITS - 1), PIXELS = 16 };

#define CLIPPED(v, type)                                     \
    ({                                                       \
        const type shifted = (v) >> PS3C_WEIGHT_BITS;        \
        const type positive = shifted & (type)(shifted > 0); \
        const type over = (type)(positive > 255);            \
        (positive & ~over) | (over & 255);                   \
    })

#ifdef __SSE4_1__
/* GCC compiles the generic conversion of four bytes to scalar instructions. */
static inline ints4 load_pixel(const uint8_t *p)
{
    int32_t bytes;
    memcpy(&bytes, p, 4);
    return (ints4)_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes));
}
#else
static inline ints4 load_pixel(const uint8_t *p) { return (ints4){p[0], p[1], p[2], p[3]}; }
#endif

/* The last pixel of 3 bytes may be at the end of the memory. */
static inline ints4 load_last_pixel(const uint8_t *p) { return (ints4){p[0], p[1], p[2], 0}; }

static void resize_row(const uint8_t *in, int64_t channels, const ps3c_taps *taps, uint8_t *out)
{
    for (int64_t x = 0; x < taps->outputs; x++) {
        const int32_t *weights = taps->weights + x * taps->most;
        const uint8_t *p = in + taps->firsts[x] * channels;
        const int64_t last = taps->counts[x] - 1;
        ints4 sum = {HALF, HALF, HALF, HALF};
        for (int64_t t = 0; t < last; t++, p += channels)
            sum += load_pixel(p) * weights[t];
        sum += load_last_pixel(p) * weights[last];
        const bytes4 bytes = __builtin_convertvector(CLIPPED(sum, ints4), bytes4);
        memcpy(out + 4 * x, &bytes, 4);
    }
}

static void columns_of_row(void *data, int64_t y, int thread)
{
    const ps3c_resize_columns_args *args = *(const ps3c_resize_columns_args **)data;
    (void)thread;
    resize_row(args->pixels + y * args->row_bytes, args->channels, args->taps, args->out + y * args->taps->outputs * 4);
}

ps3c_status PS3C_CPU(ps3c_resize_columns)(const ps3c_run *run, const ps3c_resize_columns_args *args)
{
    return ps3c_parallel_ranges(run, args->rows, columns_of_row, &args);
}

/* 16 pixels of one output row. rows: the first input row's, stride bytes apart. */
static inline void weigh_rows(const uint8_t *rows, int64_t stride, const int32_t *weights, int64_t count,
                              words16 *pixels)
{
    ints16 sums[4];
    bytes16 packed[4];
    for (int i = 0; i < 4; i++)
        sums[i] = (ints16){} + HALF;
    for (int64_t t = 0; t < count; t++, rows += stride)
        for (int i = 0; i < 4; i++) {
            bytes16 v;
            memcpy(&v, rows + 16 * i, 16);
            sums[i] += __builtin_convertvector(v, ints16) * weights[t];
        }
    for (int i = 0; i < 4; i++)
        packed[i] = __builtin_convertvector(CLIPPED(sums[i], ints16), bytes16);
    memcpy(pixels, packed, sizeof packed);
}

static inline void store_planes(const words16 *pixels, const float *mean, const float *std, float *out, int64_t plane)
{
    for (int c = 0; c < 3; c++) {
        const ints16 values = (ints16)(*pixels >> 8 * c & 255);
        const floats16 normalised = (__builtin_convertvector(values, floats16) / 255.0f - mean[c]) / std[c];
        memcpy(out + c * plane, &normalised, sizeof normalised);
    }
}

static void resize_to_row(void *data, int64_t y, int thread)
{
    const ps3c_resize_rows_args *args = *(const ps3c_resize_rows_args **)data;
    (void)thread;
    const ps3c_taps *taps = args->taps;
    const int64_t width = args->width, stride = width * 4;
    const uint8_t *rows = args->pixels + taps->firsts[y] * stride;
    for (int64_t x = 0; x < width; x += PIXELS) {
        const int64_t from = x + PIXELS <= width ? x : width - PIXELS; /* the last ones overlap */
        words16 pixels;
        weigh_rows(rows + from * 4, stride, taps->weights + y * taps->most, taps->counts[y], &pixels);
        store_planes(&pixels, args->mean, args->std, args->out + y * width + from, taps->outputs * width);
    }
}

ps3c_status PS3C_CPU(ps3c_resize_rows)(const ps3c_run *run, const ps3c_resize_rows_args *args)
{
    if (args->width < PIXELS)
        return ps3c_resize_rows_naive(run, args);
    return ps3c_parallel_ranges(run, args->taps->outputs, resize_to_row, &args);
}
