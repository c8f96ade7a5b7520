/* The caller's NumPy arrays as an operation's private copies, and results as new arrays. See operation.h. */
#include "operation.h"

#include <stdarg.h>

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

/* The dtype that ps3c_array_view must find: a ps3c_dtype, or PS3C_ANY. */
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

/* Number of elements from the lowest to the highest element of a view that is not empty. *low: offset of the lowest
 * from data, 0 or negative. */
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

/* Views the caller's array and checks its element type and ndim, and that it is not empty. */
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

/* Copies the memory that the view spans and points the view to the copy. The copy is aligned, or has the original's
 * offset from 64 bytes. */
static int copy_span(ps3c_operation *operation, ps3c_tensor *view, bool aligned)
{
    const size_t size = ps3c_dtype_bytes(view->dtype);
    ptrdiff_t low;
    const size_t bytes = span_of(view, &low) * size;
    const unsigned char *source = (const unsigned char *)view->data + low * (ptrdiff_t)size;
    unsigned char *copy = ps3c_operation_allocate_at(operation, bytes, aligned ? 0 : (uintptr_t)source % 64);
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
    /* CUDA kernels need weights aligned to 16 bytes. */
    return copy_span(operation, view, operation->device == PS3C_CUDA) < 0 ? NULL : view->data;
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
