/* position_add: adds the position of each token's patch. */
#include "shared/operation.h"

/* A contiguous (side * side, channels) table. */
static const void *take_table(ps3c_operation *operation, const char *name, PyObject *object, int64_t channels,
                              int64_t *side)
{
    int64_t shape[2] = {-1, channels}, root = 0;
    ps3c_tensor view;
    const void *data = ps3c_operation_array(operation, name, object, PS3C_ELEMENT_RUN, 2, shape, &view);

    if (!data)
        return NULL;
    while (root * root < view.shape[0])
        root++;
    if (root * root != view.shape[0] || root == 0) {
        ps3c_operation_refuse(name, "got %lld rows, expected a square number", (long long)view.shape[0]);
        return NULL;
    }
    *side = root;
    return data;
}

/* Reads one table, or None, for each scale. */
static int take_residuals(ps3c_operation *operation, PyObject *object, const ps3c_position_add_args *args,
                          const void **tables, int64_t *sides)
{
    PyObject *list = ps3c_sequence("residual", object, "a sequence of arrays or None");
    int result = -1;

    if (!list)
        return -1;
    if (PyTuple_Size(list) != args->num_scales) {
        ps3c_operation_refuse("residual", "got %zd entries, expected %lld", PyTuple_Size(list),
                              (long long)args->num_scales);
        goto cleanup;
    }
    for (int64_t i = 0; i < args->num_scales; i++) {
        PyObject *item = PyTuple_GetItem(list, i);
        tables[i] = NULL;
        sides[i] = 0;
        if (item == Py_None)
            continue;
        tables[i] = take_table(operation, "residual", item, args->x->channels, &sides[i]);
        if (!tables[i])
            goto cleanup;
        if (args->scales[i].rows > sides[i] || args->scales[i].cols > sides[i]) {
            ps3c_operation_refuse("residual", "got a side of %lld, expected at least the scale's grid",
                                  (long long)sides[i]);
            goto cleanup;
        }
    }
    result = 0;
cleanup:
    Py_DECREF(list);
    return result;
}

static PyObject *position_add(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"x", "table", "scales", "crop", "residual", "positions", PS3C_OPTIONS_KEYWORDS};
    PyObject *rows, *table, *scales_object, *residual = Py_None, *positions = Py_None, *result = NULL;
    int crop = 0;
    int64_t limit, sides[PS3C_MAX_SCALES];
    const void *tables[PS3C_MAX_SCALES];
    ps3c_scale scales[PS3C_MAX_SCALES];
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation x;
    ps3c_position_add_args args = {.x = &x, .scales = scales};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOO|$pOO" PS3C_OPTIONS_FORMAT ":position_add", keywords, &rows,
                                     &table, &scales_object, &crop, &residual, &positions, PS3C_OPTIONS(options)))
        return NULL;
    args.crop = crop;
    if (ps3c_operation_begin(&operation, &options) < 0 || ps3c_operation_activation(&operation, "x", rows, &x) < 0 ||
        ps3c_operation_scales(scales_object, 1, scales, &args.num_scales, &limit) < 0 ||
        ps3c_operation_positions(&operation, positions, x.segments, x.tokens, limit, &args.positions) < 0)
        goto cleanup;
    args.table = take_table(&operation, "table", table, x.channels, &args.grid);
    if (!args.table)
        goto cleanup;
    for (int64_t i = 0; crop && i < args.num_scales; i++)
        if (scales[i].rows > args.grid || scales[i].cols > args.grid) {
            ps3c_operation_refuse("table", "got a side of %lld, expected at least the scale's grid to crop from",
                                  (long long)args.grid);
            goto cleanup;
        }
    if (residual != Py_None) {
        if (take_residuals(&operation, residual, &args, tables, sides) < 0)
            goto cleanup;
        args.residual = tables;
        args.residual_grid = sides;
    }
    PS3C_OPERATION_RUN(&operation, position_add, &args);
    result = ps3c_operation_rows(&operation, &x, x.channels);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(position_add, "position_add(x, table, scales, *, crop=False, residual=None, positions=None,\n"
                             "             dtype='float32', level=None, threads=0)\n--\n\n"
                             "x plus the row of each token's patch in table (side * side, channels), resampled to the\n"
                             "scale's grid or cropped, plus residual[scale]'s row, cropped.");
