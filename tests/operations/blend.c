/* blend: flag * low + (flag == 0) * y. */
#include "shared/operation.h"

static PyObject *blend(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"flag", "low", "y", "first", PS3C_OPTIONS_KEYWORDS};
    PyObject *flag_object, *low_rows, *y_rows, *result = NULL;
    long long first = 0;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation low, y;
    ps3c_tensor flag;
    ps3c_blend_args args = {.flag = &flag, .low = &low, .y = &y};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOO|$L" PS3C_OPTIONS_FORMAT ":blend", keywords, &flag_object,
                                     &low_rows, &y_rows, &first, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        ps3c_operation_tensor(&operation, "flag", flag_object, PS3C_ELEMENT_FLOAT32, 2, &flag) < 0 ||
        ps3c_operation_activation(&operation, "low", low_rows, &low) < 0 ||
        ps3c_operation_activation(&operation, "y", y_rows, &y) < 0)
        goto cleanup;
    if (low.segments != 1 || y.segments != 1 || low.tokens != y.tokens || low.channels != y.channels) {
        ps3c_operation_refuse("low", "got (%lld, %lld, %lld), expected one segment of y's shape",
                              (long long)low.segments, (long long)low.tokens, (long long)low.channels);
        goto cleanup;
    }
    if (!flag.data || flag.shape[1] != 1) {
        ps3c_operation_refuse("flag", "got (%lld, %lld), expected (images, 1)", (long long)flag.shape[0],
                              (long long)flag.shape[1]);
        goto cleanup;
    }
    if (ps3c_operation_range("flag, first", first, y.tokens, flag.shape[0]) < 0)
        goto cleanup;
    args.first = first;
    PS3C_OPERATION_RUN(&operation, blend, &args);
    result = ps3c_operation_rows(&operation, &y, y.channels);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(blend, "blend(flag, low, y, *, first=0, dtype='float32', level=None, threads=0)\n--\n\n"
                      "flag * low + (flag == 0) * y token by token; low, y: (1, tokens, channels);\n"
                      "flag: (images, 1) float32, token t is image first + t.");
