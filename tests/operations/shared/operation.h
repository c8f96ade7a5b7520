/* One call of one backend operation on NumPy arrays: what the C files of this folder share.
 *
 * Each file makes the operations of one file of kernels/cuda callable from Python as operations.X: rows in and rows
 * out, at a chosen instruction set, or on the first CUDA device with level "cuda" (in memory that host and device
 * share).
 *
 * Rows are arrays (segments, tokens, channels) of the run's dtype: float32, float16, or uint16 for bfloat16.
 *
 * Every buffer that an operation sees is a private copy of exactly the size it may touch, so that AddressSanitizer
 * detects an overrun by one element. Without the sanitizer, guard bytes around each buffer are compared after the call.
 * Outputs and scratch start as NaN: a value that was never written shows.
 *
 * Functions that return int return 0, or -1 with a Python exception set.
 */
#ifndef PS3C_TESTS_OPERATION_H
#define PS3C_TESTS_OPERATION_H

#include "../../../csrc/binding/arrays.h"
#include "../../../csrc/contract/backend.h"
#include "layouts.h"
#include "shared_memory.h"

/* A buffer of the call; the list owns them all. */
typedef struct ps3c_operation_block {
    struct ps3c_operation_block *next;
    unsigned char *base; /* what to free */
    unsigned char *data; /* 64-byte aligned when asked for */
    size_t bytes;
} ps3c_operation_block;

/* Keyword arguments of every operation, with their defaults. */
typedef struct ps3c_operation_options {
    const char *dtype; /* "float32", "float16", "bfloat16" */
    const char *level; /* one of cpu_levels(), "cuda", or NULL: the CPU's best */
    int threads;       /* 0: as many as the processor runs at once */
} ps3c_operation_options;

#define PS3C_OPTIONS_INIT  \
    {                      \
        "float32", NULL, 0 \
    }
#define PS3C_OPTIONS_KEYWORDS "dtype", "level", "threads", NULL
#define PS3C_OPTIONS_FORMAT "szi"
#define PS3C_OPTIONS(options) &(options).dtype, &(options).level, &(options).threads

typedef struct ps3c_operation {
    const ps3c_backend *backend;
    ps3c_device_type device;
    const ps3c_layout *layout;
    const ps3c_shared_memory *memory;
    bool begun; /* backend->begin was called */
    ps3c_run run;
    double started, seconds; /* when the last backend call began, what it took */
    ps3c_operation_block *blocks;
    int64_t tokens, channels, positions; /* greatest so far: what scratch_bytes asks */
} ps3c_operation;

#define PS3C_OPERATION_INIT \
    {                       \
        0                   \
    }

/* Finds level and dtype, makes the context. After it, and after its failure, ps3c_operation_end. */
int ps3c_operation_begin(ps3c_operation *operation, const ps3c_operation_options *options);
/* Frees everything. */
void ps3c_operation_end(ps3c_operation *operation);
/* Scratch for all activations seen so far, filled with NaN. Called by PS3C_OPERATION_RUN. */
int ps3c_operation_ready(ps3c_operation *operation);
/* Waits for the device, turns the status of the backend call into an exception, and checks the guards. */
int ps3c_operation_finish(ps3c_operation *operation, ps3c_status status);
/* Sets the time that seconds() reports. */
void ps3c_operation_took(ps3c_operation *operation, double seconds);

/* Runs a backend operation without the GIL; jumps to cleanup with an exception set when it fails. */
#define PS3C_OPERATION_RUN(operation, name, args)                                                \
    do {                                                                                         \
        ps3c_status run_status;                                                                  \
        if (ps3c_operation_ready(operation) < 0)                                                 \
            goto cleanup;                                                                        \
        Py_BEGIN_ALLOW_THREADS run_status = (operation)->backend->name(&(operation)->run, args); \
        Py_END_ALLOW_THREADS if (ps3c_operation_finish(operation, run_status) < 0) goto cleanup; \
    } while (0)

/* ---- memory; all freed by ps3c_operation_end ------------------------------------------------------------ */

/* 64-byte aligned and filled with 0xff, or NULL with MemoryError. */
void *ps3c_operation_allocate(ps3c_operation *operation, size_t bytes);
/* The same, `offset` bytes (below 64) behind a multiple of PS3C_SHARED_ALIGNMENT. */
unsigned char *ps3c_operation_allocate_at(ps3c_operation *operation, size_t bytes, size_t offset);
/* The first, for a * b * c elements of size bytes; an overflow is a MemoryError. */
void *ps3c_operation_elements(ps3c_operation *operation, int64_t a, int64_t b, int64_t c, size_t size);

/* ---- arrays ---------------------------------------------------------------------------------------------- */

/* Elements that an argument must have. */
typedef enum ps3c_element_kind {
    PS3C_ELEMENT_RUN, /* the run's dtype */
    PS3C_ELEMENT_FLOAT32,
    PS3C_ELEMENT_INT32,
    PS3C_ELEMENT_INT64,
    PS3C_ELEMENT_UINT8,
    PS3C_ELEMENT_ANY, /* whatever the array has; uint16 stands for bfloat16 */
} ps3c_element_kind;

/* Checks name's array for kind and ndim, refuses an empty one, and copies the memory it spans, strides kept (so a step
 * or a broadcast reaches the operation as it is). view->data points into the copy. None gives view->data NULL. */
int ps3c_operation_tensor(ps3c_operation *operation, const char *name, PyObject *object, ps3c_element_kind kind,
                          int ndim, ps3c_tensor *view);
/* The same, C-contiguous. shape: [ndim], -1 takes any length; NULL takes any shape. NULL with an exception. */
void *ps3c_operation_array(ps3c_operation *operation, const char *name, PyObject *object, ps3c_element_kind kind,
                           int ndim, const int64_t *shape, ps3c_tensor *view);
/* [length] of the run's dtype; None gives *data NULL. */
int ps3c_operation_vector(ps3c_operation *operation, const char *name, PyObject *object, int64_t length,
                          const void **data);
/* Copies the span of a view made by ps3c_operation_tensor back into its (writable) array. */
int ps3c_operation_write_back(const char *name, PyObject *object, const ps3c_tensor *view);
/* New NumPy array from contiguous memory. */
PyObject *ps3c_operation_result(const void *data, ps3c_dtype dtype, int ndim, const int64_t *shape);

/* ---- activations ----------------------------------------------------------------------------------------- */

/* Index of an activation's element, in elements of the run's dtype. values: laid out as attention values. */
int64_t ps3c_operation_element(const ps3c_operation *operation, const ps3c_activation *x, int64_t segment,
                               int64_t token, int64_t channel, bool values);
/* From rows (segments, tokens, channels), through the backend's from_rows; spare tokens become NaN. */
int ps3c_operation_activation(ps3c_operation *operation, const char *name, PyObject *rows, ps3c_activation *out);
/* A new one, filled with NaN. */
int ps3c_operation_output(ps3c_operation *operation, int64_t segments, int64_t tokens, int64_t channels,
                          ps3c_activation *out);
/* Rows of an activation as a new array, through the backend's to_rows. Channels from values_from on are attention
 * values. RuntimeError when channel padding is not 0. */
PyObject *ps3c_operation_rows(ps3c_operation *operation, const ps3c_activation *x, int64_t values_from);
/* Writes rows (the same array kinds as above) as attention values into channels from `channel` on. */
int ps3c_operation_values(ps3c_operation *operation, const char *name, PyObject *rows, const ps3c_activation *out,
                          int64_t channel);

/* ---- arguments of several operations ---------------------------------------------------------------------- */

int ps3c_operation_act(const char *name, ps3c_activation_function *act);
/* A sequence of (height, width, rows, cols); first is counted up. Writes at most PS3C_MAX_SCALES. */
int ps3c_operation_scales(PyObject *object, int64_t patch, ps3c_scale *scales, int64_t *num_scales, int64_t *positions);
/* None, or (segments, tokens) int32 within [0, limit). */
int ps3c_operation_positions(ps3c_operation *operation, PyObject *object, int64_t segments, int64_t tokens,
                             int64_t limit, const int32_t **positions);
/* A new map (batch, rows, cols) of dtype, filled with 0xff. ValueError for sizes below 1. */
int ps3c_operation_map(ps3c_operation *operation, ps3c_dtype dtype, int64_t batch, int64_t rows, int64_t cols,
                       ps3c_tensor *map);
/* (batch, length) int64, of which segments texts from `first` on are used; *segments 0: all that follow. */
int ps3c_operation_ids(ps3c_operation *operation, PyObject *object, int64_t first, int64_t *segments, ps3c_tensor *ids);
/* ValueError "name: got ..., expected ..." with -1, to be returned. */
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
