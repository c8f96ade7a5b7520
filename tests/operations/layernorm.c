/* layernorm: over the channels of each token. */
#include "shared/operation.h"

static PyObject *layernorm(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"x", "weight", "bias", "eps", "act", "in_place", PS3C_OPTIONS_KEYWORDS};
    PyObject *rows, *weight, *bias, *result = NULL;
    float eps = 1e-6f;
    const char *act = "none";
    int in_place = 0;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation x, y;
    ps3c_layernorm_args args = {.x = &x, .y = &y};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOO|$fsp" PS3C_OPTIONS_FORMAT ":layernorm", keywords, &rows,
                                     &weight, &bias, &eps, &act, &in_place, PS3C_OPTIONS(options)))
        return NULL;
    args.eps = eps;
    if (ps3c_operation_begin(&operation, &options) < 0 || ps3c_operation_act(act, &args.act) < 0 ||
        ps3c_operation_activation(&operation, "x", rows, &x) < 0 ||
        ps3c_operation_vector(&operation, "weight", weight, x.channels, &args.weight) < 0 ||
        ps3c_operation_vector(&operation, "bias", bias, x.channels, &args.bias) < 0)
        goto cleanup;
    if (!args.weight || !args.bias) {
        ps3c_operation_refuse(args.weight ? "bias" : "weight", "got None, expected an array");
        goto cleanup;
    }
    if (in_place)
        args.y = &x;
    else if (ps3c_operation_output(&operation, x.segments, x.tokens, x.channels, &y) < 0)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, layernorm, &args);
    result = ps3c_operation_rows(&operation, args.y, x.channels);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(layernorm, "layernorm(x, weight, bias, *, eps=1e-6, act='none', in_place=False, dtype='float32',\n"
                          "          level=None, threads=0)\n--\n\n"
                          "act(LayerNorm(x)) over the channels of rows (segments, tokens, channels).");
