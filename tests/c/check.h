/* Helpers of the C tests of CPU operations: random data, guarded buffers, a second implementation of the activation
 * layout (described in kernels/cpu/cpu.h), the levels to test, and the count of failures. */
#ifndef PS3C_CHECK_H
#define PS3C_CHECK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../kernels/cpu/detect.h"
#include "../../kernels/cpu/threads.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static long check_failures, check_count;

/* Counts a check and prints the first failures; the format and its arguments describe the failure. */
#define CHECK(condition, ...)            \
    do {                                 \
        check_count++;                   \
        if (!(condition)) {              \
            if (check_failures++ < 20) { \
                printf("FAIL ");         \
                printf(__VA_ARGS__);     \
                printf("\n");            \
            }                            \
        }                                \
    } while (0)

static int check_report(const char *name)
{
    printf("%s: %ld checks, %ld failures\n", name, check_count, check_failures);
    return check_failures ? 1 : 0;
}

/* ---- random numbers: xorshift64 ---------------------------------------------------------------------------- */

static uint64_t random_state = 88172645463325252ull;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}
/* [-1, 1) */
static inline double random_value(void) { return (double)(random_bits() >> 11) / 4503599627370496.0 - 1; }
/* [low, high] */
static inline int64_t random_int(int64_t low, int64_t high)
{
    return low + (int64_t)(random_bits() % (uint64_t)(high - low + 1));
}
static inline bool random_bool(void) { return random_bits() >> 40 & 1; }

/* ---- guarded memory ------------------------------------------------------------------------------------------ */

enum { GUARD = 64 };
typedef struct guarded {
    unsigned char *block;
    void *data; /* 64-byte aligned + offset */
    size_t bytes;
} guarded;

/* A zeroed buffer of exact size between guard bytes, `offset` bytes off 64-byte alignment. */
static guarded guarded_make(size_t bytes, size_t offset)
{
    guarded g = {.bytes = bytes};
    if (posix_memalign((void **)&g.block, 64, GUARD + offset + bytes + GUARD))
        exit(2);
    memset(g.block, 0xa5, GUARD + offset + bytes + GUARD);
    g.data = g.block + GUARD + offset;
    memset(g.data, 0, bytes);
    return g;
}
static inline bool guarded_intact(const guarded *g)
{
    const unsigned char *p = (const unsigned char *)g->data;
    for (const unsigned char *q = g->block; q < p; q++)
        if (*q != 0xa5)
            return false;
    for (int i = 0; i < GUARD; i++)
        if (p[g->bytes + (size_t)i] != 0xa5)
            return false;
    return true;
}
static inline void guarded_free(guarded *g) { free(g->block); }

/* ---- tensors --------------------------------------------------------------------------------------------------- */

static size_t element_bytes(ps3c_dtype dtype) { return dtype == PS3C_FLOAT32 ? 4 : 2; }

/* count random values times scale, offset bytes off 64-byte alignment. */
static inline guarded random_array(ps3c_dtype dtype, int64_t count, double scale, size_t offset)
{
    guarded g = guarded_make((size_t)count * element_bytes(dtype), offset);
    for (int64_t i = 0; i < count; i++)
        ps3c_store(dtype, g.data, i, (float)(random_value() * scale));
    return g;
}

/* Index of a token's channel, in elements: [segment][panel of 48][channel words][48], where a word is a float32 or two
 * channels; attention values of 16-bit types (values): 48 neighbouring tokens of a channel. */
static int64_t place(const ps3c_activation *a, ps3c_dtype dtype, int64_t segment, int64_t token, int64_t channel,
                     bool values)
{
    int64_t panel = segment * ((a->tokens + 47) / 48) + token / 48, lane = token % 48;
    if (dtype == PS3C_FLOAT32)
        return (panel * a->channels + channel) * 48 + lane;
    int64_t start = panel * ((a->channels + 1) / 2) * 96;
    return values ? start + channel * 48 + lane : start + channel / 2 * 96 + lane * 2 + channel % 2;
}
static inline double get(const ps3c_activation *a, ps3c_dtype dtype, int64_t segment, int64_t token, int64_t channel,
                         bool values)
{
    return ps3c_load(dtype, a->data, place(a, dtype, segment, token, channel, values));
}

/* An activation of random values. Spare tokens are NaN: no result may depend on them. */
static inline ps3c_activation random_activation(ps3c_dtype dtype, int64_t segments, int64_t tokens, int64_t channels,
                                                double scale, guarded *memory)
{
    ps3c_activation a = {.segments = segments, .tokens = tokens, .channels = channels};
    *memory = guarded_make(ps3c_cpu_activation_bytes(dtype, segments, tokens, channels), 0);
    a.data = memory->data;
    for (int64_t s = 0; s < segments; s++)
        for (int64_t t = 0; t < (tokens + 47) / 48 * 48; t++)
            for (int64_t c = 0; c < channels; c++)
                ps3c_store(dtype, a.data, place(&a, dtype, s, t, c, false),
                           t < tokens ? (float)(random_value() * scale) : NAN);
    return a;
}

/* Half a unit in the last place of the dtype at y. */
static inline double rounding(ps3c_dtype dtype, double y)
{
    double a = fabs(y);
    return dtype == PS3C_FLOAT32 ? a * 0x1p-24 : dtype == PS3C_BFLOAT16 ? a * 0x1p-8 : a * 0x1p-11 + 0x1p-25;
}

static inline double activate(ps3c_activation_function act, double x)
{
    switch (act) {
    case PS3C_ACT_GELU_ERF:
        return 0.5 * x * erfc(-x * 0.70710678118654752440);
    case PS3C_ACT_GELU_TANH:
        return x / (1 + exp(-2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case PS3C_ACT_RELU:
        return x > 0 ? x : 0;
    default:
        return x;
    }
}

static const ps3c_dtype dtypes[] = {PS3C_FLOAT32, PS3C_FLOAT16, PS3C_BFLOAT16};
static const char *const dtype_names[] = {"float32", "float16", "bfloat16"};

/* ---- levels ---------------------------------------------------------------------------------------------------- */

/* The levels of levels.def, in its order. */
#define LEVEL_NAME(op, level, ...) #level,
static const char *const level_names[] = {PS3C_CPU_LEVELS(LEVEL_NAME, )};
enum { LEVELS = COUNT(level_names) };

/* The functions of operation X at all levels. */
#define LEVEL_FUNCTION(op, level, ...) ps3c_##op##_##level,
#define LEVEL_TABLE(op)                     \
    {                                       \
        PS3C_CPU_LEVELS(LEVEL_FUNCTION, op) \
    }

/* PS3C_EMULATE: the AVX-512 levels are compiled with emulate_avx512.h. */
static inline bool level_available(int level)
{
    ps3c_detect();
#ifdef PS3C_EMULATE
    if (!strncmp(level_names[level], "avx512", 6))
        return true;
#endif
#define LEVEL_HAS(op, level, has, flags) has,
    return (const bool[]){PS3C_CPU_LEVELS(LEVEL_HAS, )}[level];
}

/* A run with its threads and scratch of exactly the planned size. */
static inline ps3c_run make_run(ps3c_dtype dtype, int threads, int64_t tokens, int64_t channels, guarded *scratch)
{
    size_t bytes = ps3c_cpu_scratch_bytes(dtype, threads, tokens, channels, 0);
    *scratch = guarded_make(bytes, 0);
    memset(scratch->data, 0xff, bytes); /* NaN: scratch must be written before it is read */
    ps3c_run run = {.dtype = dtype, .threads = threads, .scratch = scratch->data, .scratch_bytes = bytes};
    ps3c_cpu_begin(&run);
    return run;
}
static inline void end_run(ps3c_run *run, guarded *scratch)
{
    ps3c_cpu_end(run);
    guarded_free(scratch);
}

#endif
