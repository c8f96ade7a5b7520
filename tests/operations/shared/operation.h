/* One call of one backend operation on NumPy arrays: declarations that the C files of tests/operations share.
 *
 * Each file makes the operations of one file of kernels/cuda callable from Python as operations.X, with rows as inputs
 * and outputs. They run at a chosen CPU level, or with level "cuda" on the first CUDA device, in memory that host and
 * device share.
 *
 * Rows are arrays (segments, tokens, channels) of the run's dtype: float32, float16, or uint16 for bfloat16.
 *
 * Every buffer that an operation sees is a private copy of exactly the size it may touch, so that AddressSanitizer
 * detects an overrun by one element. Without the sanitizer, guard bytes around each buffer are compared after the
 * call. Outputs and scratch start as NaN: a value that was never written shows.
 *
 * Functions that return int return 0, or -1 with a Python exception set. */
#ifndef PS3C_TESTS_OPERATION_H
#define PS3C_TESTS_OPERATION_H

#include "../../../csrc/binding/arrays.h"
#include "../../../csrc/contract/backend.h"
#include "layouts.h"
#include "shared_memory.h"

/* A buffer of the call. The list owns all buffers. */
typedef struct ps3c_operation_block {
    struct ps3c_operation_block *next;
    unsigned char *base; /* the allocation */
    unsigned char *data; /* the first byte for the operation */
    size_t bytes;
} ps3c_operation_block;

/* Keyword arguments of every operation, with their defaults. */
typedef struct ps3c_operation_options {
    const char *dtype; /* "float32", "float16", "bfloat16" */
    const char *level; /* one of cpu_levels(), "cuda", or NULL: the CPU's best */
    long long threads; /* 0: the default */
} ps3c_operation_options;

#define PS3C_OPTIONS_INIT  \
    {                      \
        "float32", NULL, 0 \
    }
#define PS3C_OPTIONS_KEYWORDS "dtype", "level", "threads", NULL
#define PS3C_OPTIONS_FORMAT "szL"
#define PS3C_OPTIONS(options) &(options).dtype, &(options).level, &(options).threads

typedef struct ps3c_operation {
    const ps3c_backend *backend;
    ps3c_device_type device;
    const ps3c_layout *layout;
    const ps3c_shared_memory *memory;
    bool begun; /* backend->begin was called */
    ps3c_run run;
    double started, seconds; /* start and duration of the last backend call, s */
    ps3c_operation_block *blocks;
    int64_t tokens, channels, positions; /* greatest values so far, for scratch_bytes() */
} ps3c_operation;

#define PS3C_OPERATION_INIT \
    {                       \
        0                   \
    }

/* Finds level and dtype and creates the context. Call ps3c_operation_end afterwards, even if this fails. */
int ps3c_operation_begin(ps3c_operation *operation, const ps3c_operation_options *options);
/* Frees everything. */
void ps3c_operation_end(ps3c_operation *operation);
/* Allocates scratch for all activations so far and fills it with NaN. Called by PS3C_OPERATION_RUN. */
int ps3c_operation_ready(ps3c_operation *operation);
/* Waits for the device, converts the status of the backend call to an exception, and checks the guards. */
int ps3c_operation_finish(ps3c_operation *operation, ps3c_status status);
/* Sets the time that seconds() reports. */
void ps3c_operation_took(ps3c_operation *operation, double seconds);

/* Runs a backend operation without the GIL. On an error it jumps to cleanup with an exception set. */
#define PS3C_OPERATION_RUN(operation, name, args)                                                \
    do {                                                                                         \
        ps3c_status run_status;                                                                  \
        if (ps3c_operation_ready(operation) < 0)                                                 \
            goto cleanup;                                                                        \
        Py_BEGIN_ALLOW_THREADS run_status = (operation)->backend->name(&(operation)->run, args); \
        Py_END_ALLOW_THREADS if (ps3c_operation_finish(operation, run_status) < 0) goto cleanup; \
    } while (0)

/* ---- memory; all freed by ps3c_operation_end ------------------------------------------------------------ */

/* Allocates a buffer, 64-byte aligned and filled with 0xff. NULL with MemoryError on an error. */
void *ps3c_operation_allocate(ps3c_operation *operation, size_t bytes);
/* The same at `offset` bytes (less than 64) after a multiple of PS3C_SHARED_ALIGNMENT. */
unsigned char *ps3c_operation_allocate_at(ps3c_operation *operation, size_t bytes, size_t offset);
/* ps3c_operation_allocate for a * b * c elements of `size` bytes. MemoryError on overflow. */
void *ps3c_operation_elements(ps3c_operation *operation, int64_t a, int64_t b, int64_t c, size_t size);

/* ---- arrays ---------------------------------------------------------------------------------------------- */

/* The required element type of an argument. */
typedef enum ps3c_element_kind {
    PS3C_ELEMENT_RUN, /* the run's dtype */
    PS3C_ELEMENT_FLOAT32,
    PS3C_ELEMENT_INT32,
    PS3C_ELEMENT_INT64,
    PS3C_ELEMENT_UINT8,
    PS3C_ELEMENT_ANY, /* the array's own type; uint16 means bfloat16 */
} ps3c_element_kind;

/* Checks an array's kind and ndim, rejects an empty one, and copies the memory that it spans. The strides are kept, so
 * the operation sees a step or a broadcast unchanged. view->data points into the copy; it is NULL for None. */
int ps3c_operation_tensor(ps3c_operation *operation, const char *name, PyObject *object, ps3c_element_kind kind,
                          int ndim, ps3c_tensor *view);
/* The same for a C-contiguous array. shape: [ndim], -1: any length; NULL: any shape. Returns the copy, or NULL with an
 * exception. */
void *ps3c_operation_array(ps3c_operation *operation, const char *name, PyObject *object, ps3c_element_kind kind,
                           int ndim, const int64_t *shape, ps3c_tensor *view);
/* Copies a vector [length] of the run's dtype. *data is NULL for None. */
int ps3c_operation_vector(ps3c_operation *operation, const char *name, PyObject *object, int64_t length,
                          const void **data);
/* Copies the memory of a view from ps3c_operation_tensor back to its array, which must be writable. */
int ps3c_operation_write_back(const char *name, PyObject *object, const ps3c_tensor *view);
/* A new NumPy array with a copy of contiguous memory. */
PyObject *ps3c_operation_result(const void *data, ps3c_dtype dtype, int ndim, const int64_t *shape);

/* ---- activations ----------------------------------------------------------------------------------------- */

/* Index of an activation's element, in elements of the run's dtype. values: the channel has the layout of attention
 * values. */
int64_t ps3c_operation_element(const ps3c_operation *operation, const ps3c_activation *x, int64_t segment,
                               int64_t token, int64_t channel, bool values);
/* Converts rows (segments, tokens, channels) with the backend's from_rows. Spare tokens become NaN. */
int ps3c_operation_activation(ps3c_operation *operation, const char *name, PyObject *rows, ps3c_activation *out);
/* Allocates an activation and fills it with NaN. */
int ps3c_operation_output(ps3c_operation *operation, int64_t segments, int64_t tokens, int64_t channels,
                          ps3c_activation *out);
/* Converts an activation to a new array with the backend's to_rows. Channels from values_from on are attention values.
 * RuntimeError if channel padding is not 0. */
PyObject *ps3c_operation_rows(ps3c_operation *operation, const ps3c_activation *x, int64_t values_from);
/* Writes rows as attention values to the channels from `channel` on. */
int ps3c_operation_values(ps3c_operation *operation, const char *name, PyObject *rows, const ps3c_activation *out,
                          int64_t channel);

/* ---- arguments of several operations ---------------------------------------------------------------------- */

/* "none", "gelu", "gelu_tanh" or "relu". */
int ps3c_operation_act(const char *name, ps3c_activation_function *act);
/* A sequence of 1 to PS3C_MAX_SCALES tuples (height, width, rows, cols). `first` of each scale and *positions are sums
 * of the patches. */
int ps3c_operation_scales(PyObject *object, int64_t patch, ps3c_scale *scales, int64_t *num_scales, int64_t *positions);
/* None, or (segments, tokens) int32 within [0, limit). */
int ps3c_operation_positions(ps3c_operation *operation, PyObject *object, int64_t segments, int64_t tokens,
                             int64_t limit, const int32_t **positions);
/* rows x cols must be the number of tokens: ValueError. */
int ps3c_operation_grid(int64_t rows, int64_t cols, int64_t tokens);
/* Texts, images or rows from `first` on must be `count` of `all`. ValueError names `name`. */
int ps3c_operation_range(const char *name, int64_t first, int64_t count, int64_t all);
/* A new map (batch, rows, cols) of dtype, filled with 0xff. ValueError for sizes below 1. */
int ps3c_operation_map(ps3c_operation *operation, ps3c_dtype dtype, int64_t batch, int64_t rows, int64_t cols,
                       ps3c_tensor *map);
/* (batch, length) int64. *segments texts from `first` on are used; 0 is replaced by the number of all texts from
 * there. */
int ps3c_operation_ids(ps3c_operation *operation, PyObject *object, int64_t first, int64_t *segments, ps3c_tensor *ids);
/* Sets ValueError "NAME: FORMATTED" and returns -1. The format is "got ..., expected ...". */
int ps3c_operation_refuse(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- methods --------------------------------------------------------------------------------------------------- */

/* The method table of operation `name`, whose function has the same name. module.c finds the table by the list of
 * operations in csrc/contract/backend.h. doc: signature, "\n--\n\n", text. */
#define PS3C_OPERATION(name, doc)                                                      \
    PyMethodDef ps3c_operation_##name[] = {                                            \
        {#name, (PyCFunction)(void (*)(void))name, METH_VARARGS | METH_KEYWORDS, doc}, \
        {NULL, NULL, 0, NULL},                                                         \
    }

#endif
