/* NumPy arrays as tensors; the only file that imports NumPy's C API. */
#define PS3C_IMPORTS_NUMPY
#include "arrays.h"

int ps3c_numpy_import(void)
{
    import_array1(-1);
    return 0;
}

int ps3c_numpy_type(ps3c_dtype dtype)
{
    static const int types[] = {
        [PS3C_FLOAT32] = NPY_FLOAT32, [PS3C_FLOAT16] = NPY_FLOAT16, [PS3C_BFLOAT16] = NPY_UINT16,
        [PS3C_FLOAT64] = NPY_FLOAT64, [PS3C_BOOL] = NPY_BOOL,       [PS3C_UINT8] = NPY_UINT8,
        [PS3C_INT8] = NPY_INT8,       [PS3C_INT16] = NPY_INT16,     [PS3C_INT32] = NPY_INT32,
        [PS3C_INT64] = NPY_INT64,
    };
    return types[dtype];
}

/* The ps3c_dtype of an array, or -1. It is found by kind and size and not by NumPy's type number, because on Linux both
 * long and long long are int64. */
static int ps3c_array_dtype(PyArrayObject *array)
{
    static const struct {
        char kind;
        int bytes;
        ps3c_dtype dtype;
    } known[] = {
        {'f', 4, PS3C_FLOAT32}, {'f', 2, PS3C_FLOAT16},  {'f', 8, PS3C_FLOAT64}, {'b', 1, PS3C_BOOL},
        {'u', 1, PS3C_UINT8},   {'i', 1, PS3C_INT8},     {'i', 2, PS3C_INT16},   {'i', 4, PS3C_INT32},
        {'i', 8, PS3C_INT64},   {'u', 2, PS3C_BFLOAT16},
    };
    char kind = PyArray_DESCR(array)->kind;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].kind == kind && known[i].bytes == PyArray_ITEMSIZE(array))
            return (int)known[i].dtype;
    return -1;
}

int ps3c_array_view(const char *name, PyObject *object, int dtype, bool write, ps3c_tensor *tensor)
{
    if (!PyArray_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s: got %.200s, expected a numpy.ndarray", name, ps3c_type_name(object));
        return -1;
    }
    PyArrayObject *array = (PyArrayObject *)object;
    int held = ps3c_array_dtype(array);
    if (held < 0 || (dtype != PS3C_ANY && held != dtype)) {
        const char *wanted = dtype == PS3C_ANY        ? "a bool, integer or floating"
                             : dtype == PS3C_BFLOAT16 ? "uint16 (bfloat16 bits)"
                                                      : ps3c_dtype_name((ps3c_dtype)dtype);
        PyErr_Format(PyExc_TypeError, "%s: got dtype %S, expected %s array", name, PyArray_DESCR(array), wanted);
        return -1;
    }
    if (!PyArray_ISBEHAVED_RO(array) || (write && !PyArray_ISWRITEABLE(array))) {
        const char *fault = !PyArray_ISNOTSWAPPED(array) ? "of foreign byte order"
                            : !PyArray_ISALIGNED(array)  ? "that is not aligned"
                                                         : "that is read-only";
        PyErr_Format(PyExc_TypeError, "%s: got an array %s, expected an ordinary one", name, fault);
        return -1;
    }
    if (PyArray_NDIM(array) > PS3C_MAX_DIMS) {
        PyErr_Format(PyExc_ValueError, "%s: got %d dimensions, expected at most %d", name, PyArray_NDIM(array),
                     PS3C_MAX_DIMS);
        return -1;
    }
    *tensor = (ps3c_tensor){.data = PyArray_DATA(array), .dtype = (ps3c_dtype)held, .ndim = PyArray_NDIM(array)};
    npy_intp item = PyArray_ITEMSIZE(array);
    for (int d = 0; d < tensor->ndim; d++) {
        npy_intp stride = PyArray_STRIDE(array, d);
        tensor->shape[d] = PyArray_DIM(array, d);
        tensor->strides[d] = stride / item;
        if (stride % item != 0 && tensor->shape[d] > 1) {
            PyErr_Format(PyExc_TypeError, "%s: got a stride of %zd bytes, expected a multiple of the item's %zd", name,
                         (Py_ssize_t)stride, (Py_ssize_t)item);
            return -1;
        }
    }
    return 0;
}

bool ps3c_is_array(PyObject *object) { return PyArray_Check(object); }

int ps3c_loan_array(const ps3c_label *label, PyObject *array, ps3c_loan *loan, ps3c_tensor *tensor)
{
    char name[PS3C_LABEL_BYTES];
    if (ps3c_array_view(ps3c_label_text(label, name, sizeof name), array, PS3C_ANY, label->output, tensor) < 0)
        return -1;
    loan->object = Py_NewRef(array);
    return 0;
}

int ps3c_array_contiguous(const char *name, PyObject *object, int dtype, bool write, int ndim, const int64_t *shape,
                          ps3c_tensor *tensor)
{
    const ps3c_tensor_rule rule = {.dtype = PS3C_ANY, .ndim = ndim, .shape = shape, .contiguous = true};
    if (ps3c_array_view(name, object, dtype, write, tensor) < 0)
        return -1;
    return ps3c_expect(name, tensor, &rule);
}

PyObject *ps3c_array_new(ps3c_dtype dtype, int ndim, const int64_t *shape, ps3c_tensor *tensor)
{
    npy_intp dims[PS3C_MAX_DIMS];
    for (int d = 0; d < ndim; d++)
        dims[d] = (npy_intp)shape[d];
    PyObject *array = PyArray_SimpleNew(ndim, dims, ps3c_numpy_type(dtype));
    if (array != NULL && tensor != NULL && ps3c_array_view("new array", array, (int)dtype, true, tensor) < 0)
        Py_CLEAR(array);
    return array;
}
