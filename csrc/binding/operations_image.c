/* _core.op_patch_gather, _core.op_position_add, _core.op_depthwise */
#include "operations.h"

static PyObject *op_patch_gather(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"pixels", "patch", "scales", "positions", "segments", PS3C_OPTIONS_KEYWORDS};
    PyObject *pixels_object, *scales_object, *positions = Py_None, *result = NULL;
    long long patch, segments = 0;
    int64_t limit, tokens;
    ps3c_scale scales[PS3C_MAX_SCALES];
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation out;
    ps3c_tensor pixels;
    ps3c_patch_gather_args args = {.pixels = &pixels, .scales = scales, .out = &out};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OLO|$OL" PS3C_OPTIONS_FORMAT ":op_patch_gather", keywords,
                                     &pixels_object, &patch, &scales_object, &positions, &segments,
                                     PS3C_OPTIONS(options)))
        return NULL;
    if (patch < 1 || patch > 4096) {
        ps3c_operation_refuse("patch", "got %lld, expected 1 to 4096", patch);
        goto cleanup;
    }
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        ps3c_operation_tensor(&operation, "pixels", pixels_object, PS3C_ELEMENT_RUN, 4, &pixels) < 0 ||
        ps3c_operation_scales(scales_object, patch, scales, &args.num_scales, &limit) < 0)
        goto cleanup;
    if (!pixels.data || pixels.shape[0] < 1 || pixels.shape[1] != 3 || pixels.shape[2] < 1 || pixels.shape[3] < 1) {
        ps3c_operation_refuse("pixels", "got (%lld, %lld, %lld, %lld), expected (B, 3, H, W)",
                              (long long)pixels.shape[0], (long long)pixels.shape[1], (long long)pixels.shape[2],
                              (long long)pixels.shape[3]);
        goto cleanup;
    }
    tokens = limit;
    if (positions != Py_None && PyArray_Check(positions) && PyArray_NDIM((PyArrayObject *)positions) == 2) {
        segments = PyArray_DIM((PyArrayObject *)positions, 0);
        tokens = PyArray_DIM((PyArrayObject *)positions, 1);
    }
    if (segments == 0)
        segments = pixels.shape[0];
    if (segments < 1 || segments % pixels.shape[0] || tokens < 1) {
        ps3c_operation_refuse("segments", "got %lld of %lld tokens, expected a multiple of %lld images", segments,
                              (long long)tokens, (long long)pixels.shape[0]);
        goto cleanup;
    }
    args.patch = patch;
    if (ps3c_operation_positions(&operation, positions, segments, tokens, limit, &args.positions) < 0 ||
        ps3c_operation_output(&operation, segments, tokens, 3 * patch * patch, &out) < 0)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, patch_gather, &args);
    result = ps3c_operation_rows(&operation, &out, out.channels);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

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

/* One table or None a scale. */
static int take_residuals(ps3c_operation *operation, PyObject *object, const ps3c_position_add_args *args,
                          const void **tables, int64_t *sides)
{
    PyObject *list = ps3c_sequence(object, "residual: expected a sequence of arrays or None");
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

static PyObject *op_position_add(PyObject *module, PyObject *positional, PyObject *named)
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
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOO|$pOO" PS3C_OPTIONS_FORMAT ":op_position_add", keywords,
                                     &rows, &table, &scales_object, &crop, &residual, &positions,
                                     PS3C_OPTIONS(options)))
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

static PyObject *op_depthwise(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"x", "weight", "bias", "rows", "cols", PS3C_OPTIONS_KEYWORDS};
    PyObject *x_rows, *weight, *bias, *result = NULL;
    long long rows, cols;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation x, y;
    ps3c_tensor view;
    ps3c_depthwise_args args = {.x = &x, .y = &y};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOOLL|$" PS3C_OPTIONS_FORMAT ":op_depthwise", keywords,
                                     &x_rows, &weight, &bias, &rows, &cols, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 || ps3c_operation_activation(&operation, "x", x_rows, &x) < 0)
        goto cleanup;
    if (rows < 1 || cols < 1 || rows > x.tokens || rows * cols != x.tokens) {
        ps3c_operation_refuse("rows", "got %lld x %lld, expected the %lld tokens", rows, cols, (long long)x.tokens);
        goto cleanup;
    }
    args.rows = rows;
    args.cols = cols;
    args.weight = ps3c_operation_array(&operation, "weight", weight, PS3C_ELEMENT_RUN, 4,
                                       (int64_t[]){x.channels, 1, 7, 7}, &view);
    if (!args.weight)
        goto cleanup;
    args.bias = ps3c_operation_array(&operation, "bias", bias, PS3C_ELEMENT_RUN, 1, &x.channels, &view);
    if (!args.bias || ps3c_operation_output(&operation, x.segments, x.tokens, x.channels, &y) < 0)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, depthwise, &args);
    result = ps3c_operation_rows(&operation, &y, y.channels);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PyMethodDef ps3c_operations_image[] = {
    PS3C_OPERATION_METHOD(
        op_patch_gather,
        "op_patch_gather(pixels, patch, scales, *, positions=None, segments=0, dtype='float32', level=None,\n"
        "                threads=0)\n--\n\n"
        "Patches of pixels (B, 3, H, W; any strides) as rows (segments, tokens, 3 * patch * patch).\n\n"
        "scales: (height, width, rows, cols) tuples. positions: (segments, tokens) int32 among the patches of all\n"
        "scales, None: all of them. segments: a multiple of B, 0: B."),
    PS3C_OPERATION_METHOD(op_position_add,
                          "op_position_add(x, table, scales, *, crop=False, residual=None, positions=None,\n"
                          "                dtype='float32', level=None, threads=0)\n--\n\n"
                          "x plus the row of each token's patch in table (side * side, channels), resampled to the\n"
                          "scale's grid or cropped, plus residual[scale]'s row, cropped."),
    PS3C_OPERATION_METHOD(
        op_depthwise, "op_depthwise(x, weight, bias, rows, cols, *, dtype='float32', level=None, threads=0)\n--\n\n"
                      "7x7 depthwise convolution with weight (channels, 1, 7, 7) and padding 3 over each segment's\n"
                      "rows * cols tokens."),
    {NULL, NULL, 0, NULL},
};
