/* Reads arguments by tables; see fields.h. */
#include "fields.h"

enum { PS3C_NAME_ROOM = 64 };

typedef struct ps3c_named {
    char text[PS3C_NAME_ROOM]; /* the argument's name as messages write it */
} ps3c_named;

static ps3c_named ps3c_name_of(const ps3c_reader *reader, const ps3c_field *field)
{
    ps3c_named name;
    PyOS_snprintf(name.text, sizeof name.text, reader->format, field->name);
    return name;
}

static int64_t *ps3c_int64_at(void *target, size_t offset) { return (int64_t *)((char *)target + offset); }

/* Copies the integers of a sequence to list, which has room for `most`. Returns their number, or -1 with an exception.
 */
static Py_ssize_t ps3c_read_integers(const char *name, PyObject *value, Py_ssize_t most, int64_t *list)
{
    PyObject *tuple = ps3c_sequence(name, value, "a list of integers");
    if (tuple == NULL)
        return -1;
    Py_ssize_t length = PyTuple_Size(tuple);
    int failed = length > most;
    if (failed)
        PyErr_Format(PyExc_ValueError, "%s: got %zd entries, expected at most %zd", name, length, most);
    for (Py_ssize_t i = 0; i < length && !failed; i++)
        failed = ps3c_parse_int64(name, PyTuple_GetItem(tuple, i), &list[i]) < 0;
    Py_DECREF(tuple);
    return failed ? -1 : length;
}

static int ps3c_read_list(ps3c_reader *reader, const ps3c_field *field, const char *name, PyObject *value)
{
    Py_ssize_t length = ps3c_read_integers(name, value, field->room, ps3c_int64_at(reader->target, field->offset));
    if (length >= 0 && field->other != SIZE_MAX)
        *ps3c_int64_at(reader->target, field->other) = length;
    return length < 0 ? -1 : 0;
}

static int ps3c_read_each(ps3c_reader *reader, const ps3c_field *field, const char *name, PyObject *value)
{
    const int64_t batch = *ps3c_int64_at(reader->target, field->other);
    if (value == Py_None)
        return 0;
    Py_ssize_t length = PySequence_Check(value) ? PySequence_Size(value) : -1;
    if (length < 0) {
        if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_MemoryError))
            return -1;
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "%s: got %.200s, expected None or a sequence of integers", name,
                     ps3c_type_name(value));
        return -1;
    }
    if (length != batch) {
        PyErr_Format(PyExc_ValueError, "%s: got %zd entries, expected %lld, one for each of the batch", name, length,
                     (long long)batch);
        return -1;
    }
    reader->owned = PyMem_New(int64_t, length);
    if (reader->owned == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (ps3c_read_integers(name, value, length, reader->owned) != length) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "%s: got a sequence that changed during reading, expected a constant one",
                         name);
        return -1;
    }
    *(const int64_t **)((char *)reader->target + field->offset) = reader->owned;
    return 0;
}

static int ps3c_read_length(ps3c_reader *reader, const ps3c_field *field, const char *name, PyObject *value)
{
    const int64_t length = *ps3c_int64_at(reader->target, field->other);
    int64_t given;
    if (ps3c_parse_int64(name, value, &given) < 0)
        return -1;
    if (given == length)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: got %lld, expected %lld, the length of the list", name, (long long)given,
                 (long long)length);
    return -1;
}

static int ps3c_read_tensors(ps3c_reader *reader, const ps3c_field *field, PyObject *value)
{
    const int64_t count = *(const int64_t *)((const char *)reader->counts + field->other);
    return ps3c_borrowed_take_many(reader->borrowed, field->name, value, count,
                                   (ps3c_tensor **)((char *)reader->target + field->offset));
}

static int ps3c_read_workspace(ps3c_reader *reader, const ps3c_field *field, PyObject *value)
{
    const ps3c_tensor *tensor = ps3c_borrowed_take_workspace(reader->borrowed, field->name, value);
    if (tensor == NULL)
        return -1;
    *(void **)((char *)reader->target + field->offset) = tensor->data;
    *(size_t *)((char *)reader->target + field->other) = (size_t)tensor->shape[0];
    return 0;
}

static int ps3c_read_name(const char *name, PyObject *value, const char **text)
{
    *text = NULL;
    if (value == Py_None)
        return 0;
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s: got %.200s, expected a str or None", name, ps3c_type_name(value));
        return -1;
    }
    Py_ssize_t length;
    *text = PyUnicode_AsUTF8AndSize(value, &length);
    if (*text != NULL && strlen(*text) == (size_t)length)
        return 0;
    if (*text == NULL && !PyErr_ExceptionMatches(PyExc_UnicodeError))
        return -1;
    PyErr_Clear(); /* a lone surrogate */
    return ps3c_wrong_value(PyExc_ValueError, name, value, "a name");
}

static int ps3c_read_bool(const char *name, PyObject *value, bool *flag)
{
    const int truth = PyObject_IsTrue(value);
    *flag = truth > 0;
    if (truth >= 0)
        return 0;
    /* A tensor of two elements, for example, has no truth value. */
    if (PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError))
        PyErr_Format(PyExc_TypeError, "%s: got %.200s, expected True or False", name, ps3c_type_name(value));
    return -1;
}

/* An address as an integer of 64 bits, without or with a sign. */
static int ps3c_read_pointer(const char *name, PyObject *value, void **address)
{
    *address = PyLong_AsVoidPtr(value);
    if (!PyErr_Occurred())
        return 0;
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        return ps3c_wrong_value(PyExc_ValueError, name, value, "an address");
    }
    PyErr_Format(PyExc_TypeError, "%s: got %.200s, expected an integer", name, ps3c_type_name(value));
    return -1;
}

/* Reads a field of a kind that is a single number or name. */
static int ps3c_read_scalar(const ps3c_field *field, const char *name, PyObject *value, void *at)
{
    int64_t number = 0;
    switch (field->kind) {
    case PS3C_FIELD_INT:
        return ps3c_parse_int64(name, value, at);
    case PS3C_FIELD_INT_OR_NONE:
        return value == Py_None ? 0 : ps3c_parse_int64(name, value, at);
    case PS3C_FIELD_SIZE:
        if (ps3c_parse_range(name, value, 0, PTRDIFF_MAX, &number) < 0)
            return -1;
        *(size_t *)at = (size_t)number;
        return 0;
    case PS3C_FIELD_THREADS:
        if (ps3c_parse_range(name, value, 0, INT32_MAX, &number) < 0)
            return -1;
        *(int *)at = (int)number;
        return 0;
    case PS3C_FIELD_FLOAT:
        return ps3c_parse_float(name, value, at);
    case PS3C_FIELD_BOOL:
        return ps3c_read_bool(name, value, at);
    case PS3C_FIELD_CHOICE:
        return ps3c_parse_choice(name, value, field->choices, at);
    case PS3C_FIELD_LOOKS:
        return ps3c_parse_looks(name, value, at);
    case PS3C_FIELD_DEVICE:
        return ps3c_parse_device(name, value, at);
    case PS3C_FIELD_NAME:
        return ps3c_read_name(name, value, at);
    default: /* POINTER */
        return ps3c_read_pointer(name, value, at);
    }
}

static int ps3c_read_field(ps3c_reader *reader, const ps3c_field *field, PyObject *value)
{
    const ps3c_named name = ps3c_name_of(reader, field);
    void *at = (char *)reader->target + field->offset;
    switch (field->kind) {
    case PS3C_FIELD_LIST:
        return ps3c_read_list(reader, field, name.text, value);
    case PS3C_FIELD_LENGTH:
        return ps3c_read_length(reader, field, name.text, value);
    case PS3C_FIELD_EACH:
        return ps3c_read_each(reader, field, name.text, value);
    case PS3C_FIELD_TENSOR:
    case PS3C_FIELD_OUTPUT:
        return value == Py_None
                   ? 0
                   : ps3c_borrowed_take(reader->borrowed, field->name, field->kind == PS3C_FIELD_OUTPUT, value, at);
    case PS3C_FIELD_WEIGHTS:
        return ps3c_borrowed_take_weights(reader->borrowed, value, reader->model->weight_infos,
                                          reader->model->weight_count, at);
    case PS3C_FIELD_TENSORS:
        return ps3c_read_tensors(reader, field, value);
    case PS3C_FIELD_WORKSPACE:
        return ps3c_read_workspace(reader, field, value);
    default:
        return ps3c_read_scalar(field, name.text, value, at);
    }
}

/* ---- the arguments as a whole ------------------------------------------------------------------------------------ */

/* The row of the table with the keyword, or -1. */
static int ps3c_find_field(const ps3c_field *fields, PyObject *key)
{
    for (int i = 0; fields[i].name != NULL; i++)
        if (PyUnicode_Check(key) && PyUnicode_CompareWithASCIIString(key, fields[i].name) == 0)
            return i;
    return -1;
}

/* Exception type for unknown and missing names: TypeError for a call, ValueError for a configuration. */
static PyObject *ps3c_names_error(const ps3c_reader *reader)
{
    return reader->call ? PyExc_TypeError : PyExc_ValueError;
}

static int ps3c_check_names(const ps3c_reader *reader, Py_ssize_t positional, PyObject *kwargs)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;
    if (positional > reader->positional) {
        PyErr_Format(PyExc_TypeError, "%s: got %zd positional arguments, expected at most %d", reader->whole,
                     positional, reader->positional);
        return -1;
    }
    while (kwargs != NULL && PyDict_Next(kwargs, &at, &key, &value)) {
        int row = ps3c_find_field(reader->fields, key);
        if (row < 0)
            PyErr_Format(ps3c_names_error(reader), "%s: got unknown name %.100R", reader->whole, key);
        else if (row < positional)
            PyErr_Format(PyExc_TypeError, "%s: got %.100R by position and by name, expected it once", reader->whole,
                         key);
        if (PyErr_Occurred())
            return -1;
    }
    return 0;
}

int ps3c_read_arguments(ps3c_reader *reader, PyObject *args, PyObject *kwargs)
{
    const Py_ssize_t positional = args == NULL ? 0 : PyTuple_Size(args);
    if (ps3c_check_names(reader, positional, kwargs) < 0)
        return -1;
    for (int i = 0; reader->fields[i].name != NULL; i++) {
        const ps3c_field *field = &reader->fields[i];
        PyObject *value = i < positional   ? PyTuple_GetItem(args, i)
                          : kwargs == NULL ? NULL
                                           : ps3c_dict_item(kwargs, field->name);
        if (value == NULL && PyErr_Occurred())
            return -1;
        if (value == NULL && field->required) {
            PyErr_Format(ps3c_names_error(reader), "%s: got no '%s', expected a value", reader->whole, field->name);
            return -1;
        }
        if (value == NULL && field->kind != PS3C_FIELD_TENSORS)
            continue;
        value = Py_NewRef(value == NULL ? Py_None : value); /* strong: a method such as __index__ may change the dict */
        int failed = ps3c_read_field(reader, field, value);
        Py_DECREF(value);
        if (failed < 0)
            return -1;
    }
    return 0;
}

void ps3c_reader_close(ps3c_reader *reader)
{
    PyMem_Free(reader->owned);
    reader->owned = NULL;
}

/* ---- from structs to Python ---------------------------------------------------------------------------------------- */

PyObject *ps3c_int_list(const int64_t *values, int64_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; i < count && list != NULL; i++) {
        PyObject *value = PyLong_FromLongLong(values[i]);
        if (value == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, i, value);
    }
    return list;
}

/* A field's value (strong reference); None for a field that is left out. */
static PyObject *ps3c_write_field(const ps3c_field *field, const char *source)
{
    const void *at = source + field->offset;
    switch (field->kind) {
    case PS3C_FIELD_INT:
        return PyLong_FromLongLong(*(const int64_t *)at);
    case PS3C_FIELD_FLOAT:
        return PyFloat_FromDouble((double)*(const float *)at);
    case PS3C_FIELD_BOOL:
        return PyBool_FromLong(*(const bool *)at);
    case PS3C_FIELD_CHOICE:
        return PyUnicode_FromString(field->choices[*(const int *)at]);
    case PS3C_FIELD_LIST:
        if (field->other != SIZE_MAX)
            return ps3c_int_list(at, *(const int64_t *)(const void *)(source + field->other));
        return Py_NewRef(Py_None);
    default:
        return Py_NewRef(Py_None);
    }
}

PyObject *ps3c_write_fields(const ps3c_field *fields, const void *source)
{
    PyObject *dict = PyDict_New();
    for (const ps3c_field *field = fields; field->name != NULL && dict != NULL; field++) {
        PyObject *value = ps3c_write_field(field, source);
        if (value == NULL || (value != Py_None && PyDict_SetItemString(dict, field->name, value) < 0))
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}
