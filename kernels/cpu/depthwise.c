/* 7x7 depthwise convolution of a map of tokens: see depthwise_naive.c.
 *
 * A task is one word of channels (one of float32, two of 16 bits) of a segment. Its map is computed row by row. A ring
 * buffer has the seven current input rows in float32, with three zeros at each border; tokens are in the lanes. */
#include "block_scratch.h"
#include "simd.h"
#include "threads.h"
#include "tokens.h"

/* Copies the words of tokens [first, first + count); lane: the channel word's row in the segment's first panel. */
INLINE void read_tokens(const ps3c_word *lane, int64_t panel_words, int64_t first, int64_t count, ps3c_word *to)
{
    while (count > 0) {
        int64_t at = first % PS3C_PANEL, n = PS3C_PANEL - at < count ? PS3C_PANEL - at : count;
        memcpy(to, lane + first / PS3C_PANEL * panel_words + at, (size_t)n * sizeof(ps3c_word));
        first += n, to += n, count -= n;
    }
}
INLINE void write_tokens(ps3c_word *lane, int64_t panel_words, int64_t first, int64_t count, const ps3c_word *from)
{
    while (count > 0) {
        int64_t at = first % PS3C_PANEL, n = PS3C_PANEL - at < count ? PS3C_PANEL - at : count;
        memcpy(lane + first / PS3C_PANEL * panel_words + at, from, (size_t)n * sizeof(ps3c_word));
        first += n, from += n, count -= n;
    }
}

/* A row of the ring buffer: 16 floats, of which the last three are the left border; cols; zeros up to the stride. */
enum { LEFT = 16 };

typedef struct convolution {
    ps3c_dtype dtype;
    int64_t rows, cols, stride; /* stride: floats of a row of the ring buffer */
    int channels;               /* of the word: 1 or 2 */
    float weight[2][7][7], bias[2];
    float *ring[2];   /* [7][stride] for each channel */
    float *sum[2];    /* [stride] */
    ps3c_word *words; /* [stride] */
} convolution;

/* Loads row `row` of the map into the ring buffer; zeros outside the map. */
INLINE void enter_row(ps3c_dtype dtype, convolution *k, const ps3c_word *lane, int64_t panel_words, int64_t row)
{
    float *even = k->ring[0] + (row + 7) % 7 * k->stride + LEFT, *odd = k->ring[1] + (row + 7) % 7 * k->stride + LEFT;
    if (row < 0 || row >= k->rows) {
        memset(even, 0, (size_t)k->cols * sizeof(float));
        memset(odd, 0, (size_t)k->cols * sizeof(float));
        return;
    }
    read_tokens(lane, panel_words, row * k->cols, k->cols, k->words);
    for (int64_t x = 0; x < k->cols; x += VECTOR) {
        vfloat low, high;
        v_unpack(dtype, v_load_word(k->words + x), &low, &high);
        v_store(even + x, low);
        v_store(odd + x, high);
    }
    memset(even + k->cols, 0, 3 * sizeof(float)); /* the last vector may have written other tokens there */
    memset(odd + k->cols, 0, 3 * sizeof(float));
}

INLINE void convolve_row(convolution *k, int channel, int64_t row)
{
    for (int64_t x = 0; x < k->cols; x += VECTOR) {
        vfloat sum = v_splat(k->bias[channel]);
        for (int j = 0; j < 7; j++) {
            const float *from = k->ring[channel] + (row + j + 4) % 7 * k->stride + LEFT - 3 + x;
            for (int i = 0; i < 7; i++) {
                vfloat v;
                memcpy(&v, from + i, sizeof v);
                sum = v_fma(v, v_splat(k->weight[channel][j][i]), sum);
            }
        }
        v_store(k->sum[channel] + x, sum);
    }
}

INLINE void convolve_map(ps3c_dtype dtype, convolution *k, const ps3c_word *in, ps3c_word *out, int64_t panel_words)
{
    for (int64_t row = -3; row < 3; row++)
        enter_row(dtype, k, in, panel_words, row);
    for (int64_t row = 0; row < k->rows; row++) {
        enter_row(dtype, k, in, panel_words, row + 3);
        for (int channel = 0; channel < k->channels; channel++)
            convolve_row(k, channel, row);
        for (int64_t x = 0; x < k->cols; x += VECTOR)
            v_store_word(k->words + x, v_pack(dtype, v_load(k->sum[0] + x), v_load(k->sum[1] + x)));
        write_tokens(out, panel_words, row * k->cols, k->cols, k->words);
    }
}

static void convolve_word(convolution *k, const ps3c_depthwise_args *args, int64_t segment, int64_t word)
{
    const int64_t panel_words = ps3c_panel_words(k->dtype, args->x->channels);
    const int64_t first = ps3c_is16(k->dtype) ? 2 * word : word;
    const ps3c_word *in = ps3c_panel(args->x, k->dtype, segment, 0) + word * PS3C_PANEL;
    ps3c_word *out = ps3c_panel(args->y, k->dtype, segment, 0) + word * PS3C_PANEL;
    k->channels = ps3c_is16(k->dtype) && first + 1 < args->x->channels ? 2 : 1;
    for (int channel = 0; channel < k->channels; channel++) {
        ps3c_widen_array(k->dtype, args->weight, (first + channel) * 49, 49, &k->weight[channel][0][0]);
        k->bias[channel] = ps3c_load(k->dtype, args->bias, first + channel);
    }
    if (k->channels == 1)
        memset(k->sum[1], 0, (size_t)k->stride * sizeof(float));
    if (k->dtype == PS3C_FLOAT32)
        convolve_map(PS3C_FLOAT32, k, in, out, panel_words);
    else if (k->dtype == PS3C_BFLOAT16)
        convolve_map(PS3C_BFLOAT16, k, in, out, panel_words);
    else
        convolve_map(PS3C_FLOAT16, k, in, out, panel_words);
}

typedef struct operation {
    const ps3c_run *run;
    const ps3c_depthwise_args *args;
    int64_t parts;
} operation;

static void convolve_part(void *data, int64_t part, int thread)
{
    const operation *o = data;
    const ps3c_run *run = o->run;
    const ps3c_depthwise_args *args = o->args;
    const int64_t words = ps3c_channel_words(run->dtype, args->x->channels), count = args->x->segments * words;
    const int64_t floats = ps3c_depthwise_floats(args->cols), stride = ps3c_round16(args->cols) + 2 * LEFT;
    float *scratch = (float *)run->scratch + thread * floats;
    convolution k = {.dtype = run->dtype, .rows = args->rows, .cols = args->cols, .stride = stride};
    memset(scratch, 0, (size_t)floats * sizeof(float)); /* borders */
    k.ring[0] = scratch;
    k.ring[1] = scratch + 7 * stride;
    k.sum[0] = scratch + 14 * stride;
    k.sum[1] = scratch + 15 * stride;
    k.words = (ps3c_word *)(scratch + 16 * stride);
    for (int64_t i = count * part / o->parts; i < count * (part + 1) / o->parts; i++)
        convolve_word(&k, args, i / words, i % words);
}

ps3c_status PS3C_CPU(ps3c_depthwise)(const ps3c_run *run, const ps3c_depthwise_args *args)
{
    operation o = {run, args, ps3c_parts(run, args->x->segments * ps3c_channel_words(run->dtype, args->x->channels))};
    if (args->cols > PS3C_DEPTHWISE_COLS)
        return ps3c_depthwise_naive(run, args);
    return ps3c_parallel(run, o.parts, convolve_part, &o);
}
