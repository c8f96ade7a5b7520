/* What a tensor must be, and the sentences that say what it is instead. */
#include "binding.h"
#include "../run/tensor.h"

enum { PS3C_SHAPE_BYTES = 200 };

const char *ps3c_label_text(const ps3c_label *label, char *buffer, size_t size)
{
    if (label->weight != NULL)
        snprintf(buffer, size, "weight %s", label->weight);
    else if (label->index >= 0)
        snprintf(buffer, size, "argument %s[%zd]", label->argument, label->index);
    else
        snprintf(buffer, size, "argument %s", label->argument);
    return buffer;
}

const char *ps3c_write_type_name(PyTypeObject *type, char *buffer, size_t size)
{
    PyErr_Clear();
    PyObject *name = PyObject_GetAttrString((PyObject *)type, "__name__");
    const char *text = name == NULL ? NULL : PyUnicode_AsUTF8AndSize(name, NULL);
    snprintf(buffer, size, "%s", text != NULL ? text : "object");
    Py_XDECREF(name);
    PyErr_Clear();
    return buffer;
}

static bool ps3c_same_shape(const ps3c_tensor *tensor, int ndim, const int64_t *shape)
{
    if (tensor->ndim != ndim)
        return false;
    for (int d = 0; d < ndim; d++)
        if (shape[d] != PS3C_ANY && shape[d] != tensor->shape[d])
            return false;
    return true;
}

static const char *ps3c_device_text(ps3c_device device, char buffer[32])
{
    if (device.type == PS3C_CPU)
        snprintf(buffer, 32, "cpu");
    else
        snprintf(buffer, 32, "cuda:%d", (int)device.index);
    return buffer;
}

int ps3c_expect(const ps3c_label *label, const ps3c_tensor *tensor, const ps3c_expectation *expectation)
{
    char name[PS3C_LABEL_BYTES], wanted[PS3C_SHAPE_BYTES], got[PS3C_SHAPE_BYTES];
    if (tensor->device.type != expectation->device.type || tensor->device.index != expectation->device.index) {
        char here[32], there[32];
        PyErr_Format(PyExc_TypeError, "%s: expected device %s, got %s", ps3c_label_text(label, name, sizeof name),
                     ps3c_device_text(expectation->device, there), ps3c_device_text(tensor->device, here));
        return -1;
    }
    if (expectation->dtype != PS3C_ANY && (int)tensor->dtype != expectation->dtype) {
        PyErr_Format(PyExc_TypeError, "%s: expected dtype %s, got %s", ps3c_label_text(label, name, sizeof name),
                     ps3c_dtype_name((ps3c_dtype)expectation->dtype), ps3c_dtype_name(tensor->dtype));
        return -1;
    }
    if (expectation->shape != NULL && !ps3c_same_shape(tensor, expectation->ndim, expectation->shape)) {
        ps3c_shape_text(expectation->ndim, expectation->shape, wanted, sizeof wanted);
        ps3c_shape_text(tensor->ndim, tensor->shape, got, sizeof got);
        PyErr_Format(PyExc_ValueError, "%s: expected shape %s, got %s", ps3c_label_text(label, name, sizeof name),
                     wanted, got);
        return -1;
    }
    if (expectation->contiguous && !ps3c_tensor_is_contiguous(tensor)) {
        ps3c_shape_text(tensor->ndim, tensor->strides, wanted, sizeof wanted);
        ps3c_shape_text(tensor->ndim, tensor->shape, got, sizeof got);
        PyErr_Format(PyExc_TypeError, "%s: expected a contiguous tensor, got strides %s for shape %s",
                     ps3c_label_text(label, name, sizeof name), wanted, got);
        return -1;
    }
    return 0;
}
