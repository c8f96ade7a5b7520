/* Arguments that several operations take. See operation.h. */
#include "operation.h"

#include <limits.h>

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
    PyObject *list = ps3c_sequence("scales", object, "a sequence of (height, width, rows, cols)");
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

int ps3c_operation_grid(int64_t rows, int64_t cols, int64_t tokens)
{
    /* Neither is more than the tokens, so their product cannot overflow. */
    if (rows < 1 || cols < 1 || rows > tokens || cols > tokens || rows * cols != tokens)
        return ps3c_operation_refuse("rows", "got %lld x %lld, expected the %lld tokens", (long long)rows,
                                     (long long)cols, (long long)tokens);
    return 0;
}

int ps3c_operation_range(const char *name, int64_t first, int64_t count, int64_t all)
{
    if (first < 0 || count < 1 || count > all || first > all - count)
        return ps3c_operation_refuse(name, "got %lld and %lld of them, expected a range within %lld", (long long)first,
                                     (long long)count, (long long)all);
    return 0;
}

int ps3c_operation_map(ps3c_operation *operation, ps3c_dtype dtype, int64_t batch, int64_t rows, int64_t cols,
                       ps3c_tensor *map)
{
    if (rows < 1 || cols < 1 || rows > INT_MAX || cols > INT_MAX)
        return ps3c_operation_refuse("rows", "got %lld x %lld, expected positive sizes", (long long)rows,
                                     (long long)cols);
    *map = (ps3c_tensor){.dtype = dtype, .ndim = 3, .shape = {batch, rows, cols}, .strides = {rows * cols, cols, 1}};
    map->data = ps3c_operation_elements(operation, batch, rows, cols, ps3c_dtype_bytes(dtype));
    return map->data ? 0 : -1;
}

int ps3c_operation_ids(ps3c_operation *operation, PyObject *object, int64_t first, int64_t *segments, ps3c_tensor *ids)
{
    if (ps3c_operation_tensor(operation, "ids", object, PS3C_ELEMENT_INT64, 2, ids) < 0)
        return -1;
    if (!ids->data || ids->shape[0] < 1 || ids->shape[1] < 1)
        return ps3c_operation_refuse("ids", "got None or an empty array, expected (batch, length)");
    if (*segments == 0 && first >= 0)
        *segments = ids->shape[0] - first;
    return ps3c_operation_range("first", first, *segments, ids->shape[0]);
}
