/* depthwise: 7x7 depthwise convolution. */
#include "shared/operation.h"

static PyObject *depthwise(PyObject *module, PyObject *positional, PyObject *named)
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
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOOLL|$" PS3C_OPTIONS_FORMAT ":depthwise", keywords, &x_rows,
                                     &weight, &bias, &rows, &cols, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 || ps3c_operation_activation(&operation, "x", x_rows, &x) < 0)
        goto cleanup;
    if (ps3c_operation_grid(rows, cols, x.tokens) < 0)
        goto cleanup;
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

PS3C_OPERATION(depthwise,
               "depthwise(x, weight, bias, rows, cols, *, dtype='float32', level=None, threads=0)\n--\n\n"
               "7x7 depthwise convolution with weight (channels, 1, 7, 7) and padding 3 over each segment's\n"
               "rows * cols tokens.");
