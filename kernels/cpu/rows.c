/* Plain rows into and out of the panel layout, and channels from one activation to another: see rows_naive.c.
 *
 * Both sides are 32-bit words, so this is a transposition of words for every dtype. It transposes 16 words of each
 * token of a panel at a time: 3 KB, which stay in the L1 cache; rows are read and written in whole cache lines. */
#include "simd.h"
#include "threads.h"
#include "tokens.h"

enum { STRIP = 16 }; /* words: a cache line */

/* Writes a row of `bytes` bytes (any alignment) from one lane of `words` words; the last word may be half used. */
static void strip_to_row(const ps3c_word *lane, int64_t words, char *row, int64_t bytes)
{
    ps3c_word line[STRIP];
    for (int64_t i = 0; i < words; i++)
        line[i] = lane[i * PS3C_PANEL];
    memcpy(row, line, (size_t)bytes);
}
static void strip_from_row(ps3c_word *lane, int64_t words, const char *row, int64_t bytes)
{
    ps3c_word line[STRIP];
    line[words - 1] = 0;
    memcpy(line, row, (size_t)bytes);
    for (int64_t i = 0; i < words; i++)
        lane[i * PS3C_PANEL] = line[i];
}

/* Task: 16 words of one panel. */
typedef struct strip {
    int64_t segment, first, tokens; /* of the panel */
    int64_t word, words, bytes;     /* of a row */
    ps3c_word *lane;
} strip;

static strip strip_at(const ps3c_activation *a, ps3c_dtype dtype, int64_t index)
{
    const int64_t words = ps3c_channel_words(dtype, a->channels), per_panel = (words + STRIP - 1) / STRIP;
    const int64_t row_bytes = a->channels * (ps3c_is16(dtype) ? 2 : 4);
    int64_t panel = index / per_panel, panels = ps3c_panels(a->tokens);
    strip s = {.segment = panel / panels, .first = panel % panels * PS3C_PANEL, .word = index % per_panel * STRIP};
    s.tokens = a->tokens - s.first < PS3C_PANEL ? a->tokens - s.first : PS3C_PANEL;
    s.words = words - s.word < STRIP ? words - s.word : STRIP;
    s.bytes = row_bytes - s.word * 4 < STRIP * 4 ? row_bytes - s.word * 4 : STRIP * 4;
    s.lane = ps3c_panel(a, dtype, s.segment, s.first / PS3C_PANEL) + s.word * PS3C_PANEL;
    return s;
}
static int64_t strips(const ps3c_activation *a, ps3c_dtype dtype)
{
    return a->segments * ps3c_panels(a->tokens) * ((ps3c_channel_words(dtype, a->channels) + STRIP - 1) / STRIP);
}

typedef struct operation {
    const ps3c_run *run;
    const void *args;
} operation;

static void write_rows(void *data, int64_t index, int thread)
{
    const operation *o = data;
    const ps3c_to_rows_args *args = o->args;
    const ps3c_activation *x = args->x;
    const int64_t bytes = ps3c_is16(o->run->dtype) ? 2 : 4;
    const strip s = strip_at(x, o->run->dtype, index);
    char *out = (char *)args->out + s.segment % args->batch * args->batch_stride * bytes + s.word * 4;
    (void)thread;
    for (int64_t t = 0; t < s.tokens; t++) {
        int64_t row = args->row_of ? args->row_of[s.segment * x->tokens + s.first + t] : s.first + t;
        char *to = out + (args->first_row + row) * args->row_stride * bytes;
        if (s.bytes == STRIP * 4)
            strip_to_row(s.lane + t, STRIP, to, STRIP * 4);
        else
            strip_to_row(s.lane + t, s.words, to, s.bytes);
    }
}

ps3c_status PS3C_CPU(ps3c_to_rows)(const ps3c_run *run, const ps3c_to_rows_args *args)
{
    operation o = {run, args};
    return ps3c_parallel_ranges(run, strips(args->x, run->dtype), write_rows, &o);
}

static void read_rows(void *data, int64_t index, int thread)
{
    const operation *o = data;
    const ps3c_from_rows_args *args = o->args;
    const ps3c_activation *out = args->out;
    const int64_t row_bytes = out->channels * (ps3c_is16(o->run->dtype) ? 2 : 4);
    const strip s = strip_at(out, o->run->dtype, index);
    const char *row = (const char *)args->rows + (s.segment * out->tokens + s.first) * row_bytes + s.word * 4;
    (void)thread;
    for (int64_t t = 0; t < s.tokens; t++, row += row_bytes)
        strip_from_row(s.lane + t, s.words, row, s.bytes);
}

ps3c_status PS3C_CPU(ps3c_from_rows)(const ps3c_run *run, const ps3c_from_rows_args *args)
{
    operation o = {run, args};
    return ps3c_parallel_ranges(run, strips(args->out, run->dtype), read_rows, &o);
}

/* x's words of a panel are also contiguous in y. */
static void copy_panel(void *data, int64_t index, int thread)
{
    const operation *o = data;
    const ps3c_dtype dtype = o->run->dtype;
    const ps3c_copy_channels_args *args = o->args;
    const ps3c_activation *x = args->x;
    const int64_t panels = ps3c_panels(x->tokens);
    const size_t bytes = (size_t)ps3c_panel_words(dtype, x->channels) * sizeof(ps3c_word);
    ps3c_word *to =
        ps3c_panel(args->y, dtype, index / panels, index % panels) + ps3c_channel_words(dtype, args->at) * PS3C_PANEL;
    (void)thread;
    memcpy(to, ps3c_panel(x, dtype, index / panels, index % panels), bytes);
}

ps3c_status PS3C_CPU(ps3c_copy_channels)(const ps3c_run *run, const ps3c_copy_channels_args *args)
{
    const ps3c_activation *x = args->x, *y = args->y;
    operation o = {run, args};
    if (ps3c_is16(run->dtype) && x->channels % 2 &&
        args->at + x->channels < y->channels) /* the last word is shared with another channel of y */
        return ps3c_copy_channels_naive(run, args);
    return ps3c_parallel_ranges(run, x->segments * ps3c_panels(x->tokens), copy_panel, &o);
}
