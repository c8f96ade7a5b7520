/* TensorView: a torch tensor borrowed by csrc/binding/dlpack.c. Tests use it to see the tensor as the engine does, and
 * to see when it is returned. */
#include "../../../csrc/binding/binding.h"

typedef struct ps3c_tensor_view {
    PyObject base;
    ps3c_loan loan;
    ps3c_tensor tensor;
    const char *route; /* "exchange", "managed" or "capsule"; NULL after release */
} ps3c_tensor_view;

static PyObject *ps3c_tensor_view_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"tensor", "name", NULL};
    PyObject *object;
    const char *name = "tensor";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|s:TensorView", keywords, &object, &name))
        return NULL;
    ps3c_label label = ps3c_argument(name);
    ps3c_tensor_view *self = (ps3c_tensor_view *)PyType_GenericAlloc(type, 0);
    if (self != NULL && ps3c_loan_take(PyType_GetModuleState(type), &label, object, &self->loan, &self->tensor) < 0)
        Py_CLEAR(self);
    if (self != NULL)
        self->route = self->loan.managed != NULL ? "capsule" : self->loan.versioned != NULL ? "managed" : "exchange";
    return (PyObject *)self;
}

static void ps3c_tensor_view_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    ps3c_loan_return(&((ps3c_tensor_view *)object)->loan);
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyObject *ps3c_tensor_view_release(PyObject *object, PyObject *unused)
{
    (void)unused;
    ps3c_tensor_view *self = (ps3c_tensor_view *)object;
    self->route = NULL;
    self->tensor.data = NULL;
    ps3c_loan_return(&self->loan);
    Py_RETURN_NONE;
}

/* The elements in row-major order, for any strides. */
static PyObject *ps3c_tensor_view_bytes(PyObject *object, PyObject *unused)
{
    (void)unused;
    const ps3c_tensor *tensor = &((ps3c_tensor_view *)object)->tensor;
    if (((ps3c_tensor_view *)object)->route == NULL || tensor->device.type != PS3C_CPU) {
        PyErr_SetString(PyExc_ValueError, "the view was released, or its memory is not the CPU's");
        return NULL;
    }
    const Py_ssize_t item = (Py_ssize_t)ps3c_dtype_bytes(tensor->dtype);
    Py_ssize_t count = 1;
    for (int d = 0; d < tensor->ndim; d++)
        count *= tensor->shape[d];
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, count * item);
    for (Py_ssize_t i = 0; bytes != NULL && i < count; i++) {
        int64_t rest = i, offset = 0;
        for (int d = tensor->ndim - 1; d >= 0; d--) {
            offset += rest % tensor->shape[d] * tensor->strides[d];
            rest /= tensor->shape[d];
        }
        memcpy(PyBytes_AsString(bytes) + i * item, (const char *)tensor->data + offset * item, (size_t)item);
    }
    return bytes;
}

static PyObject *ps3c_int64_tuple(const int64_t *values, int count)
{
    PyObject *tuple = PyTuple_New(count);
    for (int i = 0; tuple != NULL && i < count; i++) {
        PyObject *value = PyLong_FromLongLong(values[i]);
        if (value == NULL)
            Py_CLEAR(tuple);
        else
            PyTuple_SetItem(tuple, i, value);
    }
    return tuple;
}

static PyObject *ps3c_tensor_view_shape(PyObject *object, void *unused)
{
    (void)unused;
    const ps3c_tensor *tensor = &((ps3c_tensor_view *)object)->tensor;
    return ps3c_int64_tuple(tensor->shape, tensor->ndim);
}

static PyObject *ps3c_tensor_view_strides(PyObject *object, void *unused)
{
    (void)unused;
    const ps3c_tensor *tensor = &((ps3c_tensor_view *)object)->tensor;
    return ps3c_int64_tuple(tensor->strides, tensor->ndim);
}

static PyObject *ps3c_tensor_view_dtype(PyObject *object, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(ps3c_dtype_name(((ps3c_tensor_view *)object)->tensor.dtype));
}

static PyObject *ps3c_tensor_view_device(PyObject *object, void *unused)
{
    (void)unused;
    ps3c_device device = ((ps3c_tensor_view *)object)->tensor.device;
    return Py_BuildValue("(si)", device.type == PS3C_CPU ? "cpu" : "cuda", (int)device.index);
}

static PyObject *ps3c_tensor_view_data(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromVoidPtr(((ps3c_tensor_view *)object)->tensor.data);
}

static PyObject *ps3c_tensor_view_route(PyObject *object, void *unused)
{
    (void)unused;
    const char *route = ((ps3c_tensor_view *)object)->route;
    return route == NULL ? Py_NewRef(Py_None) : PyUnicode_FromString(route);
}

static PyMethodDef ps3c_tensor_view_methods[] = {
    {"release", ps3c_tensor_view_release, METH_NOARGS,
     "release($self, /)\n--\n\nReturns the memory. A second call does nothing."},
    {"tobytes", ps3c_tensor_view_bytes, METH_NOARGS,
     "tobytes($self, /)\n--\n\nA copy of the elements in row-major order."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ps3c_tensor_view_getset[] = {
    {"shape", ps3c_tensor_view_shape, NULL, "Sizes.", NULL},
    {"strides", ps3c_tensor_view_strides, NULL, "Strides in elements.", NULL},
    {"dtype", ps3c_tensor_view_dtype, NULL, "The dtype's name, without 'torch.'.", NULL},
    {"device", ps3c_tensor_view_device, NULL, "('cpu' or 'cuda', index).", NULL},
    {"data_ptr", ps3c_tensor_view_data, NULL, "Address of the first element; 0 when released.", NULL},
    {"route", ps3c_tensor_view_route, NULL, "'exchange', 'managed', 'capsule', or None when released.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ps3c_tensor_view_slots[] = {
    {Py_tp_doc, "TensorView(tensor, name='tensor')\n--\n\nA torch tensor's memory, held without a copy."},
    {Py_tp_new, ps3c_tensor_view_new},
    {Py_tp_dealloc, ps3c_tensor_view_dealloc},
    {Py_tp_methods, ps3c_tensor_view_methods},
    {Py_tp_getset, ps3c_tensor_view_getset},
    {0, NULL},
};

PyType_Spec ps3c_tensor_view_spec = {
    .name = "operations.TensorView",
    .basicsize = sizeof(ps3c_tensor_view),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ps3c_tensor_view_slots,
};
