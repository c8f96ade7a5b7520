/* Python values to C: sequences, integers, names, dtypes, devices, numbers of looks. */
#include "binding.h"

PyObject *ps3c_sequence(PyObject *object, const char *message)
{
    PyObject *tuple = PySequence_Tuple(object);
    if (tuple == NULL && PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_SetString(PyExc_TypeError, message);
    return tuple;
}

int ps3c_parse_int64(const char *name, PyObject *object, int64_t *value)
{
    PyObject *number = PyNumber_Index(object);
    if (number == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "%s: expected an integer, got %.200s", name, ps3c_type_name(object));
        return -1;
    }
    long long parsed = PyLong_AsLongLong(number);
    Py_DECREF(number);
    if (parsed == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s: expected an integer of 64 bits, got %R", name, object);
        return -1;
    }
    *value = parsed;
    return 0;
}

int ps3c_parse_looks(const char *name, PyObject *object, int64_t *value)
{
    if (object == Py_None) {
        *value = PS3C_NONE;
        return 0;
    }
    if (PyUnicode_Check(object)) {
        if (PyUnicode_CompareWithASCIIString(object, "all") == 0) {
            *value = PS3C_ALL;
            return 0;
        }
        PyErr_Format(PyExc_ValueError, "argument %s: expected None, 'all' or an integer, got %R", name, object);
        return -1;
    }
    if (!PyIndex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "argument %s: expected None, 'all' or an integer, got %.200s", name,
                     ps3c_type_name(object));
        return -1;
    }
    if (ps3c_parse_int64(name, object, value) < 0)
        return -1;
    if (*value < 0) {
        PyErr_Format(PyExc_ValueError, "argument %s: expected None, 'all' or an integer of 0 or more, got %S", name,
                     object);
        return -1;
    }
    return 0;
}

int ps3c_parse_choice(const char *name, PyObject *object, const char *const *names, int *value)
{
    if (!PyUnicode_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s: expected a str, got %.200s", name, ps3c_type_name(object));
        return -1;
    }
    PyObject *list = PyUnicode_FromString("");
    for (int i = 0; names[i] != NULL && list != NULL; i++) {
        if (PyUnicode_CompareWithASCIIString(object, names[i]) == 0) {
            Py_DECREF(list);
            *value = i;
            return 0;
        }
        PyObject *longer = PyUnicode_FromFormat("%U%s'%s'", list, i > 0 ? ", " : "", names[i]);
        ps3c_replace(&list, longer);
    }
    if (list != NULL)
        PyErr_Format(PyExc_ValueError, "%s: expected one of %U, got %R", name, list, object);
    Py_XDECREF(list);
    return -1;
}

int ps3c_parse_dtype(PyObject *object, ps3c_dtype *dtype)
{
    /* the dtypes of activations come first in ps3c_dtype, in this order */
    static const char *const names[] = {"float32", "float16", "bfloat16", NULL};
    int choice;
    if (ps3c_parse_choice("argument dtype", object, names, &choice) < 0)
        return -1;
    *dtype = (ps3c_dtype)choice;
    return 0;
}

int ps3c_parse_device(PyObject *object, ps3c_device *device)
{
    static const char *const names[] = {"cpu", "cuda", NULL};
    int type;
    int64_t index;
    if (!PyTuple_Check(object) || PyTuple_Size(object) != 2) {
        PyErr_Format(PyExc_TypeError, "argument device: expected a tuple (type, index), got %R", object);
        return -1;
    }
    if (ps3c_parse_choice("argument device", PyTuple_GetItem(object, 0), names, &type) < 0 ||
        ps3c_parse_int64("argument device", PyTuple_GetItem(object, 1), &index) < 0)
        return -1;
    if (index < 0 || index > INT32_MAX || (type == PS3C_CPU && index != 0)) {
        PyErr_Format(PyExc_ValueError, "argument device: no device %R", object);
        return -1;
    }
    *device = (ps3c_device){(ps3c_device_type)type, (int32_t)index};
    return 0;
}
