/* Converts Python values to C: sequences, integers, numbers of looks, names, devices. */
#include "binding.h"

int ps3c_wrong_value(PyObject *exception, const char *name, PyObject *value, const char *expected)
{
    PyObject *text = PyObject_Repr(value); /* fails for an integer of thousands of digits, for example */
    if (text == NULL && (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError)))
        return -1; /* such as KeyboardInterrupt */
    PyErr_Clear();
    if (text == NULL)
        PyErr_Format(exception, "%s: got a %.100s that cannot be printed, expected %s", name, ps3c_type_name(value),
                     expected);
    else
        PyErr_Format(exception, "%s: got %.100U, expected %s", name, text, expected);
    Py_XDECREF(text);
    return -1;
}

PyObject *ps3c_dict_item(PyObject *dict, const char *name)
{
    PyObject *key = PyUnicode_FromString(name);
    PyObject *value = key == NULL ? NULL : PyDict_GetItemWithError(dict, key);
    Py_XDECREF(key);
    return value;
}

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
        /* torch's tensors raise ValueError or RuntimeError too. */
        if (PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError))
            PyErr_Format(PyExc_TypeError, "%s: got %.200s, expected an integer", name, ps3c_type_name(object));
        return -1;
    }
    long long parsed = PyLong_AsLongLong(number);
    Py_DECREF(number);
    if (parsed == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return ps3c_wrong_value(PyExc_ValueError, name, object, "an integer of 64 bits");
    }
    *value = parsed;
    return 0;
}

int ps3c_parse_range(const char *name, PyObject *object, int64_t least, int64_t most, int64_t *value)
{
    if (ps3c_parse_int64(name, object, value) < 0)
        return -1;
    if (*value >= least && *value <= most)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: got %lld, expected %lld to %lld", name, (long long)*value, (long long)least,
                 (long long)most);
    return -1;
}

int ps3c_parse_float(const char *name, PyObject *object, float *value)
{
    const double parsed = PyFloat_AsDouble(object);
    if (parsed == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
            PyErr_Clear();
            return ps3c_wrong_value(PyExc_ValueError, name, object, "a number in the range of float64");
        }
        if (PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError))
            PyErr_Format(PyExc_TypeError, "%s: got %.200s, expected a number", name, ps3c_type_name(object));
        return -1;
    }
    *value = (float)parsed;
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
        return ps3c_wrong_value(PyExc_ValueError, name, object, "None, 'all' or an integer");
    }
    if (!PyIndex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s: got %.200s, expected None, 'all' or an integer", name,
                     ps3c_type_name(object));
        return -1;
    }
    if (ps3c_parse_int64(name, object, value) < 0)
        return -1;
    if (*value < 0) {
        PyErr_Format(PyExc_ValueError, "%s: got %lld, expected None, 'all' or an integer from 0 on", name,
                     (long long)*value);
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
    PyObject *list = PyUnicode_FromString("one of ");
    for (int i = 0; names[i] != NULL && list != NULL; i++) {
        if (PyUnicode_CompareWithASCIIString(object, names[i]) == 0) {
            Py_DECREF(list);
            *value = i;
            return 0;
        }
        PyObject *longer = PyUnicode_FromFormat("%U%s'%s'", list, i > 0 ? ", " : "", names[i]);
        ps3c_replace(&list, longer);
    }
    const char *expected = list == NULL ? NULL : PyUnicode_AsUTF8AndSize(list, NULL);
    if (expected != NULL)
        ps3c_wrong_value(PyExc_ValueError, name, object, expected);
    Py_XDECREF(list);
    return -1;
}

int ps3c_parse_device(const char *name, PyObject *object, ps3c_device *device)
{
    static const char *const names[] = {"cpu", "cuda", NULL}; /* in the order of ps3c_device_type */
    int type;
    int64_t index;
    if (!PyTuple_Check(object) || PyTuple_Size(object) != 2)
        return ps3c_wrong_value(PyExc_TypeError, name, object, "a tuple (type, index)");
    if (ps3c_parse_choice(name, PyTuple_GetItem(object, 0), names, &type) < 0 ||
        ps3c_parse_int64(name, PyTuple_GetItem(object, 1), &index) < 0)
        return -1;
    if (index < 0 || index > INT32_MAX || (type == PS3C_CPU && index != 0))
        return ps3c_wrong_value(PyExc_ValueError, name, object, "('cpu', 0) or ('cuda', index)");
    *device = (ps3c_device){(ps3c_device_type)type, (int32_t)index};
    return 0;
}
