/* One backend operation called on NumPy arrays: memory, arguments, results. See operations.h. */
#include "operations.h"

#include <limits.h>
#include <stdarg.h>
#include <time.h>

#include "../../kernels/cpu/cpu.h"
#include "../run/context.h"
#include "../run/cuda_library.h"

#if defined(__SANITIZE_ADDRESS__)
#define PS3C_GUARD 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PS3C_GUARD 0
#endif
#endif
#ifndef PS3C_GUARD
#define PS3C_GUARD 256 /* bytes on either side of a buffer; a multiple of PS3C_ALIGN */
#endif
#define PS3C_GUARD_BYTE 0xa5
#define PS3C_ALIGN 256 /* what CUDA activations want; CPU ones 64 */

/* ---- time ------------------------------------------------------------------------------------------------- */

static _Thread_local double begun_at, last_seconds; /* of this thread's last backend call, for op_seconds */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static PyObject *op_seconds(PyObject *module, PyObject *none)
{
    (void)module, (void)none;
    return PyFloat_FromDouble(last_seconds);
}

/* ---- begin, end ------------------------------------------------------------------------------------------ */

static int find_dtype(const char *name, ps3c_dtype *dtype)
{
    for (int d = PS3C_FLOAT32; d <= PS3C_BFLOAT16; d++)
        if (strcmp(name, ps3c_dtype_name((ps3c_dtype)d)) == 0) {
            *dtype = (ps3c_dtype)d;
            return 0;
        }
    return ps3c_operation_refuse("dtype", "got '%s', expected 'float32', 'float16' or 'bfloat16'", name);
}

int ps3c_operation_begin(ps3c_operation *operation, const ps3c_operation_options *options)
{
    ps3c_run *run = &operation->run;
    ps3c_status status;

    if (find_dtype(options->dtype, &run->dtype) < 0)
        return -1;
    run->context = ps3c_context_create();
    if (!run->context) {
        PyErr_NoMemory();
        return -1;
    }
    const bool cuda = options->level && strcmp(options->level, "cuda") == 0;
    status = ps3c_context_set_threads(run->context, options->threads);
    if (status == PS3C_OK && options->level && !cuda)
        status = ps3c_context_set_cpu_level(run->context, options->level);
    if (status == PS3C_OK && cuda)
        status = ps3c_cuda_library_find(run->context, &operation->cuda);
    if (status == PS3C_OK)
        status = ps3c_context_backend(run->context, (ps3c_device){cuda ? PS3C_CUDA : PS3C_CPU, 0}, &operation->backend);
    if (status == PS3C_OK && operation->backend->begin) {
        status = operation->backend->begin(run);
        operation->begun = status == PS3C_OK;
    }
    if (status != PS3C_OK) {
        ps3c_python_error(run->context, status);
        return -1;
    }
    run->threads = ps3c_context_threads(run->context, ps3c_threads_limit());
    return 0;
}

void ps3c_operation_end(ps3c_operation *operation)
{
    while (operation->blocks) {
        ps3c_operation_block *block = operation->blocks;
        operation->blocks = block->next;
        if (operation->cuda)
            operation->cuda->free_shared(block->base);
        else
            free(block->base);
        PyMem_Free(block);
    }
    if (operation->begun)
        operation->backend->end(&operation->run);
    operation->begun = false;
    ps3c_context_free(operation->run.context);
    operation->run.context = NULL;
}

/* ---- memory ---------------------------------------------------------------------------------------------- */

/* Aligned to PS3C_ALIGN; NULL when there is none. */
static void *allocate_bytes(const ps3c_operation *operation, size_t bytes)
{
    void *base = NULL;
    if (operation->cuda)
        return operation->cuda->allocate_shared(bytes);
    return posix_memalign(&base, PS3C_ALIGN, bytes) == 0 ? base : NULL;
}

/* A block whose data lies `offset` bytes (below 64) behind a multiple of PS3C_ALIGN. */
static unsigned char *allocate_block(ps3c_operation *operation, size_t bytes, size_t offset)
{
    ps3c_operation_block *block = PyMem_Malloc(sizeof *block);
    void *base = NULL;
    size_t before = PS3C_GUARD + offset;

    if (block && bytes <= (size_t)PTRDIFF_MAX - before - PS3C_GUARD)
        base = allocate_bytes(operation, before + bytes + PS3C_GUARD + (bytes == 0));
    if (!base) {
        PyMem_Free(block);
        PyErr_NoMemory();
        return NULL;
    }
    block->base = base;
    block->data = block->base + before;
    block->bytes = bytes;
    memset(block->base, PS3C_GUARD_BYTE, before);
    memset(block->data, 0xff, bytes);
#if PS3C_GUARD
    memset(block->data + bytes, PS3C_GUARD_BYTE, PS3C_GUARD);
#endif
    block->next = operation->blocks;
    operation->blocks = block;
    return block->data;
}

void *ps3c_operation_allocate(ps3c_operation *operation, size_t bytes) { return allocate_block(operation, bytes, 0); }

static bool guards_intact(const ps3c_operation_block *block)
{
    for (const unsigned char *p = block->base; p < block->data; p++)
        if (*p != PS3C_GUARD_BYTE)
            return false;
#if PS3C_GUARD
    for (size_t i = 0; i < PS3C_GUARD; i++)
        if (block->data[block->bytes + i] != PS3C_GUARD_BYTE)
            return false;
#endif
    return true;
}

int ps3c_operation_ready(ps3c_operation *operation)
{
    ps3c_run *run = &operation->run;
    size_t bytes = operation->backend->scratch_bytes(run->dtype, run->threads, operation->tokens, operation->channels,
                                                     operation->positions);

    if (!run->scratch || bytes > run->scratch_bytes) {
        run->scratch = ps3c_operation_allocate(operation, bytes);
        if (!run->scratch)
            return -1;
        run->scratch_bytes = bytes;
    }
    memset(run->scratch, 0xff, run->scratch_bytes);
    begun_at = now();
    return 0;
}

int ps3c_operation_finish(ps3c_operation *operation, ps3c_status status)
{
    if (status == PS3C_OK && operation->cuda)
        status = operation->cuda->synchronize(operation->run.context);
    last_seconds = now() - begun_at;
    if (status != PS3C_OK) {
        ps3c_python_error(operation->run.context, status);
        return -1;
    }
    for (const ps3c_operation_block *block = operation->blocks; block; block = block->next)
        if (!guards_intact(block)) {
            PyErr_Format(PyExc_RuntimeError, "the operation wrote outside a buffer of %zu bytes", block->bytes);
            return -1;
        }
    return 0;
}

/* ---- arrays ---------------------------------------------------------------------------------------------- */

int ps3c_operation_refuse(const char *name, const char *format, ...)
{
    char text[256];
    va_list list;

    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    PyErr_Format(PyExc_ValueError, "%s: %s", name, text);
    return -1;
}

/* What ps3c_array_view is to find. */
static int wanted_dtype(const ps3c_operation *operation, ps3c_element_kind kind)
{
    switch (kind) {
    case PS3C_ELEMENT_RUN:
        return operation->run.dtype;
    case PS3C_ELEMENT_FLOAT32:
        return PS3C_FLOAT32;
    case PS3C_ELEMENT_INT32:
        return PS3C_INT32;
    case PS3C_ELEMENT_INT64:
        return PS3C_INT64;
    case PS3C_ELEMENT_UINT8:
        return PS3C_UINT8;
    case PS3C_ELEMENT_ANY:
        break;
    }
    return PS3C_ANY;
}

/* Elements from the lowest to the highest that the view, which is not empty, reaches; *low: the lowest, seen from
 * data (not above 0). */
static size_t span_of(const ps3c_tensor *view, ptrdiff_t *low)
{
    ptrdiff_t high = 0;

    *low = 0;
    for (int i = 0; i < view->ndim; i++) {
        ptrdiff_t reach = (ptrdiff_t)((view->shape[i] - 1) * view->strides[i]);
        *(reach < 0 ? low : &high) += reach;
    }
    return (size_t)(high - *low + 1);
}

/* A view of the caller's array: its elements, its dimensions, and none of them 0. */
static int view_array(const ps3c_operation *operation, const char *name, PyObject *object, ps3c_element_kind kind,
                      int ndim, ps3c_tensor *view)
{
    if (ps3c_array_view(name, object, wanted_dtype(operation, kind), false, view) < 0)
        return -1;
    if (view->ndim != ndim)
        return ps3c_operation_refuse(name, "got %d dimensions, expected %d", (int)view->ndim, ndim);
    for (int i = 0; i < ndim; i++)
        if (view->shape[i] == 0)
            return ps3c_operation_refuse(name, "got an empty array");
    return 0;
}

/* Leads the view to a copy of what it spans, placed as the original is within 64 bytes, or aligned. */
static int copy_span(ps3c_operation *operation, ps3c_tensor *view, bool aligned)
{
    const size_t size = ps3c_dtype_bytes(view->dtype);
    ptrdiff_t low;
    const size_t bytes = span_of(view, &low) * size;
    const unsigned char *source = (const unsigned char *)view->data + low * (ptrdiff_t)size;
    unsigned char *copy = allocate_block(operation, bytes, aligned ? 0 : (uintptr_t)source % 64);
    if (!copy)
        return -1;
    memcpy(copy, source, bytes);
    view->data = copy - low * (ptrdiff_t)size;
    return 0;
}

int ps3c_operation_tensor(ps3c_operation *operation, const char *name, PyObject *object, ps3c_element_kind kind,
                          int ndim, ps3c_tensor *view)
{
    memset(view, 0, sizeof *view);
    if (!object || object == Py_None)
        return 0;
    return view_array(operation, name, object, kind, ndim, view) < 0 ? -1 : copy_span(operation, view, false);
}

int ps3c_operation_write_back(const char *name, PyObject *object, const ps3c_tensor *view)
{
    ps3c_tensor array;
    size_t size = ps3c_dtype_bytes(view->dtype), bytes;
    ptrdiff_t low;

    if (ps3c_array_view(name, object, view->dtype, true, &array) < 0)
        return -1;
    bytes = span_of(view, &low) * size;
    memcpy((char *)array.data + low * (ptrdiff_t)size, (const char *)view->data + low * (ptrdiff_t)size, bytes);
    return 0;
}

void *ps3c_operation_array(ps3c_operation *operation, const char *name, PyObject *object, ps3c_element_kind kind,
                           int ndim, const int64_t *shape, ps3c_tensor *view)
{
    ps3c_tensor array;

    if (view_array(operation, name, object, kind, ndim, &array) < 0)
        return NULL;
    if (ps3c_array_contiguous(name, object, wanted_dtype(operation, kind), false, ndim, shape, &array) < 0)
        return NULL;
    *view = array;
    /* CUDA runs want weights on 16 bytes. */
    return copy_span(operation, view, operation->cuda != NULL) < 0 ? NULL : view->data;
}

int ps3c_operation_vector(ps3c_operation *operation, const char *name, PyObject *object, int64_t length,
                          const void **data)
{
    ps3c_tensor view;

    *data = NULL;
    if (!object || object == Py_None)
        return 0;
    *data = ps3c_operation_array(operation, name, object, PS3C_ELEMENT_RUN, 1, &length, &view);
    return *data ? 0 : -1;
}

PyObject *ps3c_operation_result(const void *data, ps3c_dtype dtype, int ndim, const int64_t *shape)
{
    ps3c_tensor view;
    PyObject *result = ps3c_array_new(dtype, ndim, shape, &view);

    if (result && PyArray_SIZE((PyArrayObject *)result) > 0)
        memcpy(view.data, data, (size_t)PyArray_NBYTES((PyArrayObject *)result));
    return result;
}

/* ---- activations ----------------------------------------------------------------------------------------- */

int ps3c_operation_output(ps3c_operation *operation, int64_t segments, int64_t tokens, int64_t channels,
                          ps3c_activation *out)
{
    size_t bytes = operation->backend->activation_bytes(operation->run.dtype, segments, tokens, channels);
    int64_t all;

    if (bytes == SIZE_MAX || __builtin_mul_overflow(segments, tokens, &all)) {
        PyErr_NoMemory();
        return -1;
    }
    if (all > operation->tokens)
        operation->tokens = all;
    if (channels > operation->channels)
        operation->channels = channels;
    out->segments = segments;
    out->tokens = tokens;
    out->channels = channels;
    out->data = ps3c_operation_allocate(operation, bytes);
    return out->data ? 0 : -1;
}

/* Channels of a CUDA activation's row, zeros behind the last included: kernels/cuda/cuda.cuh. */
static int64_t cuda_pitch(const ps3c_activation *x) { return (x->channels + 7) / 8 * 8; }

int64_t ps3c_operation_element(const ps3c_operation *operation, const ps3c_activation *x, int64_t segment,
                               int64_t token, int64_t channel, bool values)
{
    if (operation->cuda)
        return (segment * x->tokens + token) * cuda_pitch(x) + channel;
    return ps3c_element(x, operation->run.dtype, segment, token, channel, values);
}

/* NaN into every spare token, channels from values_from on laid out as values: operations must not care. */
static void poison_spares(const ps3c_operation *operation, const ps3c_activation *x, int64_t values_from)
{
    ps3c_dtype dtype = operation->run.dtype;
    size_t size = ps3c_dtype_bytes(dtype);

    if (operation->cuda)
        return; /* has none */

    for (int64_t s = 0; s < x->segments; s++)
        for (int64_t t = x->tokens; t < ps3c_panels(x->tokens) * PS3C_PANEL; t++)
            for (int64_t c = 0; c < x->channels; c++)
                memset((char *)x->data + (size_t)ps3c_element(x, dtype, s, t, c, c >= values_from) * size, 0xff, size);
}

int ps3c_operation_activation(ps3c_operation *operation, const char *name, PyObject *rows, ps3c_activation *out)
{
    ps3c_tensor view;
    ps3c_from_rows_args args = {.out = out};

    args.rows = ps3c_operation_array(operation, name, rows, PS3C_ELEMENT_RUN, 3, NULL, &view);
    if (!args.rows || ps3c_operation_output(operation, view.shape[0], view.shape[1], view.shape[2], out) < 0)
        return -1;
    PS3C_OPERATION_RUN(operation, from_rows, &args);
    poison_spares(operation, out, out->channels);
    return 0;
cleanup:
    return -1;
}

int ps3c_operation_values(ps3c_operation *operation, const char *name, PyObject *rows, const ps3c_activation *out,
                          int64_t channel)
{
    ps3c_tensor view;
    ps3c_dtype dtype = operation->run.dtype;
    const void *data = ps3c_operation_array(operation, name, rows, PS3C_ELEMENT_RUN, 3, NULL, &view);

    if (!data)
        return -1;
    if (view.shape[0] != out->segments || view.shape[1] != out->tokens || channel + view.shape[2] > out->channels)
        return ps3c_operation_refuse(name, "got (%lld, %lld, %lld), which does not fit the keys",
                                     (long long)view.shape[0], (long long)view.shape[1], (long long)view.shape[2]);
    for (int64_t s = 0; s < out->segments; s++)
        for (int64_t t = 0; t < out->tokens; t++)
            for (int64_t c = 0; c < view.shape[2]; c++)
                ps3c_store(dtype, out->data, ps3c_operation_element(operation, out, s, t, channel + c, true),
                           ps3c_load(dtype, data, (s * out->tokens + t) * view.shape[2] + c));
    poison_spares(operation, out, channel);
    return 0;
}

/* Is what lies beside the last channel 0: the half of an odd one, as cpu.h says, the rest of a CUDA row? */
static int check_padding(const ps3c_operation *operation, const ps3c_activation *x)
{
    const ps3c_dtype dtype = operation->run.dtype;
    const int64_t end = operation->cuda ? cuda_pitch(x) : ps3c_is16(dtype) ? (x->channels + 1) / 2 * 2 : x->channels;
    for (int64_t s = 0; s < x->segments; s++)
        for (int64_t t = 0; t < x->tokens; t++)
            for (int64_t c = x->channels; c < end; c++)
                if (ps3c_load(dtype, x->data, ps3c_operation_element(operation, x, s, t, c, false)) != 0) {
                    PyErr_Format(PyExc_RuntimeError,
                                 "what lies beside the last channel is not 0 at token %lld of segment %lld",
                                 (long long)t, (long long)s);
                    return -1;
                }
    return 0;
}

PyObject *ps3c_operation_rows(ps3c_operation *operation, const ps3c_activation *x, int64_t values_from)
{
    ps3c_dtype dtype = operation->run.dtype;
    int64_t shape[3] = {x->segments, x->tokens, x->channels}, count = x->segments * x->tokens * x->channels;
    ps3c_to_rows_args args = {
        .x = x, .batch = x->segments, .row_stride = x->channels, .batch_stride = x->tokens * x->channels};
    const double seconds = last_seconds;

    args.out = ps3c_operation_allocate(operation, (size_t)count * ps3c_dtype_bytes(dtype));
    if (!args.out)
        return NULL;
    PS3C_OPERATION_RUN(operation, to_rows, &args);
    last_seconds = seconds; /* the operation's own, not these rows' */
    for (int64_t i = 0; i < x->segments * x->tokens; i++)
        for (int64_t c = values_from; c < x->channels; c++)
            ps3c_store(
                dtype, args.out, i * x->channels + c,
                ps3c_load(dtype, x->data, ps3c_operation_element(operation, x, i / x->tokens, i % x->tokens, c, true)));
    if (values_from >= x->channels && check_padding(operation, x) < 0)
        return NULL;
    return ps3c_operation_result(args.out, dtype, 3, shape);
cleanup:
    return NULL;
}

/* ---- arguments of several operations ---------------------------------------------------------------------- */

int ps3c_operation_act(const char *name, ps3c_activation_function *act)
{
    static const char *const names[] = {[PS3C_ACT_NONE] = "none",
                                        [PS3C_ACT_GELU_ERF] = "gelu",
                                        [PS3C_ACT_GELU_TANH] = "gelu_tanh",
                                        [PS3C_ACT_RELU] = "relu"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0) {
            *act = (ps3c_activation_function)i;
            return 0;
        }
    return ps3c_operation_refuse("act", "got '%s', expected 'none', 'gelu', 'gelu_tanh' or 'relu'", name);
}

/* One (height, width, rows, cols). */
static int take_scale(PyObject *item, int64_t patch, ps3c_scale *scale)
{
    long long height, width, rows, cols;

    if (!PyTuple_Check(item)) {
        PyErr_Format(PyExc_TypeError, "scales: got %.100s, expected tuples (height, width, rows, cols)",
                     ps3c_type_name(item));
        return -1;
    }
    if (!PyArg_ParseTuple(item, "LLLL", &height, &width, &rows, &cols))
        return -1;
    if (rows < 1 || cols < 1 || height > INT_MAX || width > INT_MAX || rows > height / patch || cols > width / patch)
        return ps3c_operation_refuse("scales", "got (%lld, %lld, %lld, %lld), expected patches within the pixels",
                                     height, width, rows, cols);
    *scale = (ps3c_scale){.height = height, .width = width, .rows = rows, .cols = cols};
    return 0;
}

int ps3c_operation_scales(PyObject *object, int64_t patch, ps3c_scale *scales, int64_t *num_scales, int64_t *positions)
{
    PyObject *list = ps3c_sequence(object, "scales: expected a sequence of (height, width, rows, cols)");
    int64_t first = 0;
    int result = -1;

    if (!list)
        return -1;
    *num_scales = PyTuple_Size(list);
    if (*num_scales < 1 || *num_scales > PS3C_MAX_SCALES) {
        ps3c_operation_refuse("scales", "got %lld of them, expected 1 to %d", (long long)*num_scales, PS3C_MAX_SCALES);
        goto cleanup;
    }
    for (int64_t i = 0; i < *num_scales; i++) {
        if (take_scale(PyTuple_GetItem(list, i), patch, &scales[i]) < 0)
            goto cleanup;
        scales[i].first = first;
        first += scales[i].rows * scales[i].cols;
        if (first > INT_MAX) {
            ps3c_operation_refuse("scales", "got more than %d patches", INT_MAX);
            goto cleanup;
        }
    }
    *positions = first;
    result = 0;
cleanup:
    Py_DECREF(list);
    return result;
}

int ps3c_operation_positions(ps3c_operation *operation, PyObject *object, int64_t segments, int64_t tokens,
                             int64_t limit, const int32_t **positions)
{
    int64_t shape[2] = {segments, tokens};
    const int32_t *data;
    ps3c_tensor view;

    *positions = NULL;
    if (!object || object == Py_None) {
        if (tokens > limit)
            return ps3c_operation_refuse("positions", "got None for %lld tokens, but the scales have %lld patches",
                                         (long long)tokens, (long long)limit);
        return 0;
    }
    data = ps3c_operation_array(operation, "positions", object, PS3C_ELEMENT_INT32, 2, shape, &view);
    if (!data)
        return -1;
    for (int64_t i = 0; i < segments * tokens; i++)
        if (data[i] < 0 || data[i] >= limit)
            return ps3c_operation_refuse("positions", "got %d, expected 0 to %lld", (int)data[i], (long long)limit - 1);
    *positions = data;
    return 0;
}

/* ---- registration ---------------------------------------------------------------------------------------- */

static PyMethodDef operations_seconds[] = {
    {"op_seconds", op_seconds, METH_NOARGS,
     "op_seconds()\n--\n\nSeconds that the last operation of this thread took, without the copies around it."},
    {NULL, NULL, 0, NULL},
};

int ps3c_operations_add(PyObject *module)
{
    PyMethodDef *const tables[] = {ps3c_operations_gemm,   ps3c_operations_attention, ps3c_operations_norm,
                                   ps3c_operations_layout, ps3c_operations_image,     ps3c_operations_selection,
                                   ps3c_operations_looks,  ps3c_operations_text,      operations_seconds};

    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        if (PyModule_AddFunctions(module, tables[i]) < 0)
            return -1;
    return 0;
}
