/* resize_columns, resize_rows: resize a decoded image to another width, then to another height. Only on the CPU. */
#include "shared/operation.h"

#include <limits.h>

static int needs_cpu(const ps3c_operation *operation)
{
    return operation->device == PS3C_CPU ? 0
                                         : ps3c_operation_refuse("level", "got 'cuda', expected a level of the CPU");
}

/* The contract's limit: the sums of an output's products fit into 32 bits. */
static int check_weights(const ps3c_taps *taps, int64_t output)
{
    const int32_t *weights = taps->weights + output * taps->most;
    int64_t sum = 0;

    for (int64_t t = 0; t < taps->counts[output]; t++)
        sum += weights[t] < 0 ? -(int64_t)weights[t] : weights[t];
    if (sum >= (int64_t)2 << PS3C_WEIGHT_BITS)
        return ps3c_operation_refuse("weights", "got a sum of absolute values of %lld, expected less than 2^%d",
                                     (long long)sum, PS3C_WEIGHT_BITS + 1);
    return 0;
}

/* firsts, counts: int64 (outputs,); weights: int32 (outputs, most). ValueError if an output reads outside `inputs`, or
 * weighs its inputs with 2 or more. */
static int take_taps(ps3c_operation *operation, PyObject *firsts, PyObject *counts, PyObject *weights, int64_t inputs,
                     ps3c_taps *taps)
{
    ps3c_tensor view;

    taps->weights = ps3c_operation_array(operation, "weights", weights, PS3C_ELEMENT_INT32, 2, NULL, &view);
    if (!taps->weights)
        return -1;
    taps->outputs = view.shape[0];
    taps->most = view.shape[1];
    taps->firsts = ps3c_operation_array(operation, "firsts", firsts, PS3C_ELEMENT_INT64, 1, &taps->outputs, &view);
    taps->counts =
        !taps->firsts ? NULL
                      : ps3c_operation_array(operation, "counts", counts, PS3C_ELEMENT_INT64, 1, &taps->outputs, &view);
    if (!taps->counts)
        return -1;
    for (int64_t i = 0; i < taps->outputs; i++) {
        if (taps->firsts[i] < 0 || taps->counts[i] < 1 || taps->counts[i] > taps->most ||
            taps->firsts[i] > inputs - taps->counts[i])
            return ps3c_operation_refuse("counts", "got %lld from %lld on, expected at most %lld within %lld inputs",
                                         (long long)taps->counts[i], (long long)taps->firsts[i], (long long)taps->most,
                                         (long long)inputs);
        if (check_weights(taps, i) < 0)
            return -1;
    }
    return 0;
}

static PyObject *resize_columns(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"pixels", "firsts", "counts", "weights", PS3C_OPTIONS_KEYWORDS};
    PyObject *pixels_object, *firsts, *counts, *weights, *result = NULL;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_tensor pixels;
    ps3c_taps taps;
    ps3c_resize_columns_args args = {.taps = &taps};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOOO|$" PS3C_OPTIONS_FORMAT ":resize_columns", keywords,
                                     &pixels_object, &firsts, &counts, &weights, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 || needs_cpu(&operation) < 0 ||
        ps3c_operation_tensor(&operation, "pixels", pixels_object, PS3C_ELEMENT_UINT8, 3, &pixels) < 0)
        goto cleanup;
    if (!pixels.data || pixels.shape[2] < 3 || pixels.shape[2] > 4 || pixels.strides[2] != 1 ||
        (pixels.shape[1] > 1 && pixels.strides[1] != pixels.shape[2])) {
        ps3c_operation_refuse("pixels", "got another shape, expected (rows, width, 3 or 4), each row contiguous");
        goto cleanup;
    }
    if (take_taps(&operation, firsts, counts, weights, pixels.shape[1], &taps) < 0)
        goto cleanup;
    args.pixels = pixels.data;
    args.rows = pixels.shape[0];
    args.row_bytes = pixels.strides[0];
    args.channels = pixels.shape[2];
    args.out = ps3c_operation_elements(&operation, args.rows, taps.outputs, 4, 1);
    if (!args.out)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, resize_columns, &args);
    result = ps3c_operation_result(args.out, PS3C_UINT8, 3, (int64_t[]){args.rows, taps.outputs, 4});
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

static PyObject *resize_rows(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"pixels", "firsts", "counts", "weights", "mean", "std", PS3C_OPTIONS_KEYWORDS};
    PyObject *pixels_object, *firsts, *counts, *weights, *mean, *std, *result = NULL;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_tensor pixels, view;
    ps3c_taps taps;
    ps3c_resize_rows_args args = {.taps = &taps};
    const int64_t planes = 3, shape[3] = {-1, -1, 4};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOOOOO|$" PS3C_OPTIONS_FORMAT ":resize_rows", keywords,
                                     &pixels_object, &firsts, &counts, &weights, &mean, &std, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 || needs_cpu(&operation) < 0)
        goto cleanup;
    args.pixels = ps3c_operation_array(&operation, "pixels", pixels_object, PS3C_ELEMENT_UINT8, 3, shape, &pixels);
    if (!args.pixels || take_taps(&operation, firsts, counts, weights, pixels.shape[0], &taps) < 0)
        goto cleanup;
    args.mean = ps3c_operation_array(&operation, "mean", mean, PS3C_ELEMENT_FLOAT32, 1, &planes, &view);
    args.std =
        !args.mean ? NULL : ps3c_operation_array(&operation, "std", std, PS3C_ELEMENT_FLOAT32, 1, &planes, &view);
    if (!args.mean || !args.std)
        goto cleanup;
    args.width = pixels.shape[1];
    args.out = ps3c_operation_elements(&operation, planes, taps.outputs, args.width, sizeof *args.out);
    if (!args.out)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, resize_rows, &args);
    result = ps3c_operation_result(args.out, PS3C_FLOAT32, 3, (int64_t[]){planes, taps.outputs, args.width});
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(resize_columns,
               "resize_columns(pixels, firsts, counts, weights, *, dtype='float32', level=None, threads=0)\n--\n\n"
               "Resizes rows of uint8 (rows, width, 3 or 4) to another width: uint8 (rows, outputs, 4).\n\n"
               "Output i is the sum of counts[i] inputs from firsts[i] on, times weights[i], in units of 2^-22.");

PS3C_OPERATION(resize_rows,
               "resize_rows(pixels, firsts, counts, weights, mean, std, *, dtype='float32', level=None,\n"
               "            threads=0)\n--\n\n"
               "Resizes uint8 (rows, width, 4) to another height; then (v / 255 - mean) / std of each byte v:\n"
               "float32 (3, outputs, width).");
