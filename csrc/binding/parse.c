/* Converts Python values to C: sequences, integers, numbers of looks, names, devices. */
#include "binding.h"

PyObject *ps3c_sequence(const char *name, PyObject *object, const char *expected)
{
    PyObject *tuple = PySequence_Tuple(object);
    if (tuple == NULL && PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "%s: got %.200s, expected %s", name, ps3c_type_name(object), expected);
    return tuple;
}

int ps3c_parse_int64(const char *name, PyObject *object, int64_t *value)
{
    PyObject *number = PyNumber_Index(object);
    if (number == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "%s: got %.200s, expected an integer", name, ps3c_type_name(object));
        return -1;
    }
    long long parsed = PyLong_AsLongLong(number);
    Py_DECREF(number);
    if (parsed == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s: got %R, expected an integer of 64 bits", name, object);
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
        PyErr_Format(PyExc_ValueError, "%s: got %R, expected None, 'all' or an integer", name, object);
        return -1;
    }
    if (!PyIndex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s: got %.200s, expected None, 'all' or an integer", name,
                     ps3c_type_name(object));
        return -1;
    }
    if (ps3c_parse_int64(name, object, value) < 0)
        return -1;
    if (*value < 0) {
        PyErr_Format(PyExc_ValueError, "%s: got %S, expected None, 'all' or an integer from 0 on", name, object);
        return -1;
    }
    return 0;
}

int ps3c_parse_choice(const char *name, PyObject *object, const char *const *names, int *value)
{
    if (!PyUnicode_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s: got %.200s, expected a str", name, ps3c_type_name(object));
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
        PyErr_Format(PyExc_ValueError, "%s: got %R, expected one of %U", name, object, list);
    Py_XDECREF(list);
    return -1;
}

int ps3c_parse_device(const char *name, PyObject *object, ps3c_device *device)
{
    static const char *const names[] = {"cpu", "cuda", NULL}; /* in the order of ps3c_device_type */
    int type;
    int64_t index;
    if (!PyTuple_Check(object) || PyTuple_Size(object) != 2) {
        PyErr_Format(PyExc_TypeError, "%s: got %R, expected a tuple (type, index)", name, object);
        return -1;
    }
    if (ps3c_parse_choice(name, PyTuple_GetItem(object, 0), names, &type) < 0 ||
        ps3c_parse_int64(name, PyTuple_GetItem(object, 1), &index) < 0)
        return -1;
    if (index < 0 || index > INT32_MAX || (type == PS3C_CPU && index != 0)) {
        PyErr_Format(PyExc_ValueError, "%s: got %R, expected ('cpu', 0) or ('cuda', index)", name, object);
        return -1;
    }
    *device = (ps3c_device){(ps3c_device_type)type, (int32_t)index};
    return 0;
}
