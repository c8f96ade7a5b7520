/* What the fuzz targets share. A target is LLVMFuzzerTestOneInput: it decodes bytes to values, most of them valid, and
 * passes them to the library. README.md explains how to run one.
 *
 * The header of an input names up to three fields that get a hostile value; all other fields get a small valid one. So
 * most inputs pass most checks. In one input of eight, a quarter of the fields gets a value near an end of its legal
 * range instead: sizes that no machine has, for the arithmetic of plans. Bytes behind the end of the input are 0. */
#ifndef PS3C_FUZZ_H
#define PS3C_FUZZ_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/ps3c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process with a message, as a sanitizer does. */
#define FUZZ_CHECK(condition, ...)                                                        \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: not true: %s\n    ", __FILE__, __LINE__, #condition); \
            fprintf(stderr, "" __VA_ARGS__);                                              \
            fprintf(stderr, "\n");                                                        \
            abort();                                                                      \
        }                                                                                 \
    } while (0)

enum { FUZZ_HOSTILE = 3, FUZZ_FIELDS = 64 };
#define FUZZ_MOST_BYTES ((size_t)24 << 20) /* memory of one input; a target gives up above it */

typedef struct fuzz_block {
    struct fuzz_block *next;
} fuzz_block;

typedef struct fuzz {
    const uint8_t *data;
    size_t size, at;
    int number;                /* fields read so far */
    int hostile[FUZZ_HOSTILE]; /* numbers of the hostile fields; -1: none */
    int extreme;               /* of 256 fields, how many get a value near an end of the legal range */
    size_t bytes;              /* of memory in use */
    void **blocks;
    size_t block_count, block_room;
} fuzz;

static inline uint8_t fuzz_byte(fuzz *f) { return f->at < f->size ? f->data[f->at++] : 0; }

static inline uint64_t fuzz_bytes(fuzz *f, int count)
{
    uint64_t value = 0;
    for (int i = 0; i < count; i++)
        value = value << 8 | fuzz_byte(f);
    return value;
}

/* True for one input of `count`. */
static inline bool fuzz_rarely(fuzz *f, int count) { return fuzz_byte(f) % count == count - 1; }
static inline bool fuzz_flag(fuzz *f) { return fuzz_byte(f) & 1; }

static inline fuzz fuzz_begin(const uint8_t *data, size_t size)
{
    fuzz f = {.data = data, .size = size};
    const uint8_t head = fuzz_byte(&f);
    for (int i = 0; i < FUZZ_HOSTILE; i++)
        f.hostile[i] = i < head % 4 ? fuzz_byte(&f) % FUZZ_FIELDS : -1;
    f.extreme = head / 4 % 8 == 7 ? 64 : 0;
    return f;
}

/* Memory of exactly `bytes` bytes until fuzz_end. NULL: the input needs too much. */
static inline void *fuzz_memory(fuzz *f, size_t bytes)
{
    if (bytes > FUZZ_MOST_BYTES || f->bytes + bytes > FUZZ_MOST_BYTES)
        return NULL;
    if (f->block_count == f->block_room) {
        f->block_room = 2 * f->block_room + 64;
        f->blocks = realloc(f->blocks, f->block_room * sizeof *f->blocks);
    }
    f->bytes += bytes;
    return f->blocks[f->block_count++] = malloc(bytes ? bytes : 1);
}

static inline void fuzz_end(fuzz *f)
{
    for (size_t i = 0; i < f->block_count; i++)
        free(f->blocks[i]);
    free(f->blocks);
}

/* Arithmetic of the decoders, which must not overflow themselves. */
static inline int64_t fuzz_times(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)b); }
static inline int64_t fuzz_plus(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }

static inline int64_t fuzz_hostile_value(fuzz *f, int64_t least, int64_t most)
{
    static const int64_t values[] = {0,         -1,       INT64_MIN, INT64_MAX, INT32_MAX, (int64_t)INT32_MAX + 1,
                                     INT32_MIN, -2,       1,         255,       65536,     1 << 20,
                                     1 << 30,   1L << 32, 1L << 40,  1L << 62};
    const uint8_t how = fuzz_byte(f);
    if (how < 64)
        return values[how % (sizeof values / sizeof *values)];
    if (how < 96)
        return fuzz_plus(least, -1);
    if (how < 128)
        return fuzz_plus(most, 1);
    if (how < 192)
        return (int64_t)(fuzz_bytes(f, 8) >> how % 64);
    return (int64_t)fuzz_bytes(f, 8);
}

/* The next field. Usually low to high; at the ends of least to most in an extreme input; anything if hostile. */
static inline int64_t fuzz_integer(fuzz *f, int64_t low, int64_t high, int64_t least, int64_t most)
{
    const int number = f->number++;
    for (int i = 0; i < FUZZ_HOSTILE; i++)
        if (f->hostile[i] == number)
            return fuzz_hostile_value(f, least, most);
    if (f->extreme && most > least) {
        const uint8_t how = fuzz_byte(f);
        const uint64_t span = (uint64_t)most - (uint64_t)least;
        if (how < f->extreme / 4)
            return how % 2 ? most : least;
        if (how < f->extreme)
            return fuzz_plus(least, (int64_t)(span >> fuzz_byte(f) % 64));
    }
    if (high <= low)
        return low;
    const uint64_t width = (uint64_t)high - (uint64_t)low + 1;
    return fuzz_plus(low, (int64_t)(fuzz_bytes(f, width > 256 ? 2 : 1) % (width ? width : 1)));
}

static inline float fuzz_float(fuzz *f, float usual)
{
    static const float values[] = {0.0f, -1.0f, 1e-30f, 1e30f};
    const int64_t kind = fuzz_integer(f, 0, 0, 0, 6);
    return kind == 0   ? usual
           : kind == 5 ? __builtin_nanf("")
           : kind == 6 ? __builtin_inff()
                       : values[(uint64_t)kind % (sizeof values / sizeof *values)];
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

enum { FUZZ_UNWRITTEN = 0x5a }; /* every byte of an output before a run */

/* Small numbers, zeros, NaN or anything. */
static inline void fuzz_fill(void *data, size_t bytes, uint8_t kind)
{
    static const uint8_t fills[] = {0x3c, 0x00, 0xff, 0xbd};
    uint32_t random = kind;
    memset(data, fills[kind % 4], bytes);
    if (kind % 8 == 7)
        for (size_t i = 0; i < bytes; i++) {
            random = random * 1664525 + 1013904223;
            ((uint8_t *)data)[i] = (uint8_t)(random >> 24);
        }
}

static inline size_t fuzz_values(int ndim, const int64_t *shape)
{
    size_t count = 1;
    for (int d = 0; d < ndim; d++)
        if (shape[d] < 0 || __builtin_mul_overflow(count, (size_t)shape[d], &count))
            return SIZE_MAX / 16;
    return count > SIZE_MAX / 16 ? SIZE_MAX / 16 : count;
}

/* A contiguous tensor in memory of exact size. False: too large. */
static inline bool fuzz_dense(fuzz *f, ps3c_tensor *t, ps3c_dtype dtype, int ndim, const int64_t *shape, uint8_t kind)
{
    const size_t bytes = fuzz_values(ndim, shape) * ps3c_dtype_bytes(dtype);
    int64_t stride = 1;
    *t = (ps3c_tensor){.dtype = dtype, .ndim = ndim};
    t->data = fuzz_memory(f, bytes);
    if (!t->data)
        return false;
    for (int d = ndim - 1; d >= 0; d--) {
        t->shape[d] = shape[d];
        t->strides[d] = stride;
        stride *= shape[d];
    }
    fuzz_fill(t->data, bytes, kind);
    return true;
}

/* A tensor of any strides, whose memory ends where its first and last element do. */
static inline bool fuzz_strided(fuzz *f, ps3c_tensor *t, ps3c_dtype dtype, int ndim, const int64_t *shape, uint8_t kind)
{
    const uint8_t layout = fuzz_byte(f);
    int64_t stride = 1, before = 0, after = 0;
    if (layout < 96)
        return fuzz_dense(f, t, dtype, ndim, shape, kind);
    *t = (ps3c_tensor){.dtype = dtype, .ndim = ndim};
    for (int i = ndim - 1; i >= 0; i--) {
        const int d = layout & 1 ? (i + 1) % ndim : i;
        const uint8_t how = fuzz_byte(f);
        if (shape[d] < 0 || shape[d] > 1 << 24)
            return false;
        t->shape[d] = shape[d];
        t->strides[d] = how < 32 ? 0 : how < 64 ? -stride : how < 96 ? 2 * stride : stride;
        const int64_t reach = t->strides[d] * (shape[d] - 1);
        if (shape[d] > 0)
            *(reach < 0 ? &before : &after) += reach;
        stride = 1 + after - before;
        if (stride > 1 << 24)
            return false;
    }
    const size_t item = ps3c_dtype_bytes(dtype),
                 bytes = fuzz_values(ndim, shape) ? (size_t)(1 + after - before) * item : 0;
    char *memory = fuzz_memory(f, bytes);
    if (!memory)
        return false;
    fuzz_fill(memory, bytes, kind);
    t->data = memory + (size_t)-before * item;
    return true;
}

/* Makes a valid tensor invalid. contiguous: its strides are checked. any: dimensions from this one on, and the dtype,
 * may have any value. */
static inline void fuzz_spoil(fuzz *f, ps3c_tensor *t, bool contiguous, int any)
{
    static const int32_t ranks[] = {-1, 0, 9, 1000, INT32_MAX, INT32_MIN};
    const uint8_t how = fuzz_byte(f), which = fuzz_byte(f);
    const int d = which % (any < t->ndim ? any : t->ndim);
    const bool empty = !fuzz_values(t->ndim, t->shape);
    switch (how % 6) {
    case 0:
        if (empty)
            break;
        t->data = NULL;
        return;
    case 1:
        if (any < t->ndim)
            break;
        t->dtype = (ps3c_dtype)(((int)t->dtype + 1 + which % 9) % 10);
        return;
    case 2:
        t->device = which & 1 ? (ps3c_device){PS3C_CUDA, 0} : (ps3c_device){PS3C_CPU, which % 8 ? 1 : -1};
        return;
    case 3:
        t->ndim = which & 1                         ? t->ndim + (which & 2 ? 1 : -1)
                  : ranks[which / 2 % 6] == t->ndim ? 7
                                                    : ranks[which / 2 % 6];
        return;
    case 5:
        if (!contiguous || t->shape[d] < 2 || empty)
            break;
        t->strides[d] += which & 1 ? 1 : -1;
        return;
    default:
        break;
    }
    t->shape[d] = which & 64 ? t->shape[d] + 1 : t->shape[d] - 1;
}

/* Every context of a target: its backend, threads and level, by the input. */
static inline ps3c_context *fuzz_context(fuzz *f)
{
    static bool registered;
    int count = 0;
    if (!registered)
        ps3c_register_backend(PS3C_CPU, &ps3c_cpu_source);
    registered = true;
    ps3c_context *context = ps3c_context_create();
    const char *const *levels = ps3c_cpu_levels();
    while (levels[count])
        count++;
    ps3c_context_set_threads(context, fuzz_rarely(f, 8) ? 2 : 1);
    ps3c_context_set_cpu_level(context, levels[fuzz_byte(f) % count]);
    return context;
}

/* A failed call has a status of the list and a message "NAME: ...". */
static inline void fuzz_check_failure(const ps3c_context *context, ps3c_status status)
{
    FUZZ_CHECK(status > PS3C_OK && status <= PS3C_ERROR_CHECKPOINT, "status %d", (int)status);
    FUZZ_CHECK(ps3c_context_message(context)[0], "status %d without a message", (int)status);
}

/* The interrupt function: stops at the poll that *data counts down to. */
static inline int fuzz_interrupt(void *data) { return --*(int *)data == 0; }

#endif
