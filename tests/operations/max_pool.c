/* max_pool: adaptive max pooling of a map. */
#include "shared/operation.h"

static PyObject *max_pool(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"x", "rows", "cols", PS3C_OPTIONS_KEYWORDS};
    PyObject *object, *result = NULL;
    long long rows, cols;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_tensor in, out;
    ps3c_max_pool_args args;

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OLL|$" PS3C_OPTIONS_FORMAT ":max_pool", keywords, &object,
                                     &rows, &cols, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        !ps3c_operation_array(&operation, "x", object, PS3C_ELEMENT_FLOAT32, 3, NULL, &in) ||
        ps3c_operation_map(&operation, PS3C_FLOAT32, in.shape[0], rows, cols, &out) < 0)
        goto cleanup;
    args = (ps3c_max_pool_args){.in = in.data,
                                .out = out.data,
                                .batch = in.shape[0],
                                .in_rows = in.shape[1],
                                .in_cols = in.shape[2],
                                .rows = rows,
                                .cols = cols};
    PS3C_OPERATION_RUN(&operation, max_pool, &args);
    result = ps3c_operation_result(out.data, PS3C_FLOAT32, 3, out.shape);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(max_pool, "max_pool(x, rows, cols, *, dtype='float32', level=None, threads=0)\n--\n\n"
                         "Adaptive max pool of float32 (B, h, w) to (B, rows, cols).");
