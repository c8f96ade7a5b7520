/* One call of a backend operation on NumPy arrays: backend, memory and time. See operation.h. */
#include "operation.h"

#include <limits.h>
#include <time.h>

#include "../../../csrc/run/context.h"

#if defined(__SANITIZE_ADDRESS__)
#define PS3C_GUARD 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PS3C_GUARD 0
#endif
#endif
#ifndef PS3C_GUARD
#define PS3C_GUARD 256 /* bytes on either side of a buffer; a multiple of PS3C_SHARED_ALIGNMENT */
#endif
#define PS3C_GUARD_BYTE 0xa5

/* ---- time ------------------------------------------------------------------------------------------------- */

static _Thread_local double last_seconds; /* of this thread's last operation */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void ps3c_operation_took(ps3c_operation *operation, double seconds) { operation->seconds = last_seconds = seconds; }

static PyObject *seconds(PyObject *module, PyObject *none)
{
    (void)module, (void)none;
    return PyFloat_FromDouble(last_seconds);
}

PyMethodDef ps3c_operation_seconds[] = {
    {"seconds", seconds, METH_NOARGS,
     "seconds()\n--\n\nSeconds that the last operation of this thread took, without the copies around it."},
    {NULL, NULL, 0, NULL},
};

/* ---- begin, end ------------------------------------------------------------------------------------------------- */

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
    if (options->threads < 0 || options->threads > INT_MAX)
        return ps3c_operation_refuse("threads", "got %lld, expected 0 to %d", options->threads, INT_MAX);
    run->context = ps3c_context_create();
    if (!run->context) {
        PyErr_NoMemory();
        return -1;
    }
    const bool cuda = options->level && strcmp(options->level, "cuda") == 0;
    const ps3c_device device = {cuda ? PS3C_CUDA : PS3C_CPU, 0};
    status = ps3c_context_set_threads(run->context, (int)options->threads);
    if (status == PS3C_OK && options->level && !cuda)
        status = ps3c_context_set_cpu_level(run->context, options->level);
    if (status == PS3C_OK)
        status = ps3c_context_backend(run->context, device, &operation->backend);
    if (status == PS3C_OK)
        status = ps3c_shared_memory_find(run->context, device.type, &operation->memory);
    run->threads = ps3c_context_threads(run->context, ps3c_threads_limit());
    if (status == PS3C_OK && operation->backend->begin) {
        status = operation->backend->begin(run);
        operation->begun = status == PS3C_OK;
    }
    if (status != PS3C_OK) {
        ps3c_python_error(run->context, status);
        return -1;
    }
    operation->layout = ps3c_layout_of(device.type);
    operation->device = device.type;
    return 0;
}

/* Reports an error of releasing memory as unraisable. The operation's result or exception is kept. */
static void report(const ps3c_operation *operation, ps3c_status status)
{
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    ps3c_python_error(operation->run.context, status);
    PyErr_WriteUnraisable(NULL);
    PyErr_Restore(type, value, traceback);
}

void ps3c_operation_end(ps3c_operation *operation)
{
    while (operation->blocks) {
        ps3c_operation_block *block = operation->blocks;
        operation->blocks = block->next;
        ps3c_status status = operation->memory->release(operation->run.context, block->base);
        if (status != PS3C_OK)
            report(operation, status);
        PyMem_Free(block);
    }
    if (operation->begun)
        operation->backend->end(&operation->run);
    operation->begun = false;
    ps3c_context_free(operation->run.context);
    operation->run.context = NULL;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

unsigned char *ps3c_operation_allocate_at(ps3c_operation *operation, size_t bytes, size_t offset)
{
    ps3c_operation_block *block = PyMem_Malloc(sizeof *block);
    const size_t before = PS3C_GUARD + offset;
    ps3c_status status;
    void *base;

    if (!block || bytes > (size_t)PTRDIFF_MAX - before - PS3C_GUARD) {
        PyMem_Free(block);
        PyErr_NoMemory();
        return NULL;
    }
    status = operation->memory->allocate(operation->run.context, before + bytes + PS3C_GUARD + (bytes == 0), &base);
    if (status != PS3C_OK) {
        PyMem_Free(block);
        ps3c_python_error(operation->run.context, status);
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

void *ps3c_operation_allocate(ps3c_operation *operation, size_t bytes)
{
    return ps3c_operation_allocate_at(operation, bytes, 0);
}

void *ps3c_operation_elements(ps3c_operation *operation, int64_t a, int64_t b, int64_t c, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow((size_t)a, (size_t)b, &bytes) || __builtin_mul_overflow(bytes, (size_t)c, &bytes) ||
        __builtin_mul_overflow(bytes, size, &bytes)) {
        PyErr_NoMemory();
        return NULL;
    }
    return ps3c_operation_allocate(operation, bytes);
}

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
    operation->started = now();
    return 0;
}

int ps3c_operation_finish(ps3c_operation *operation, ps3c_status status)
{
    if (status == PS3C_OK)
        status = operation->memory->wait(operation->run.context);
    ps3c_operation_took(operation, now() - operation->started);
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
