/* gemm: act(x W^T + bias) * scale + residual. */
#include "shared/operation.h"

#include <limits.h>

/* The destination: a copy of `into`, or a new activation of the n outputs. */
static int take_destination(ps3c_operation *operation, PyObject *into, const ps3c_activation *x, int64_t channels,
                            ps3c_activation *y)
{
    if (into == Py_None)
        return ps3c_operation_output(operation, x->segments, x->tokens, channels, y);
    if (ps3c_operation_activation(operation, "into", into, y) < 0)
        return -1;
    if (y->segments != x->segments || y->tokens != x->tokens || y->channels < channels)
        return ps3c_operation_refuse("into", "got (%lld, %lld, %lld), expected (%lld, %lld, at least %lld)",
                                     (long long)y->segments, (long long)y->tokens, (long long)y->channels,
                                     (long long)x->segments, (long long)x->tokens, (long long)channels);
    return 0;
}

/* (n, k), or (k, n) if transposed. The elements of a row are adjacent; rows have any distance. */
static int take_weight(ps3c_operation *operation, PyObject *object, int64_t k, ps3c_gemm_args *args)
{
    ps3c_tensor view;

    if (ps3c_operation_tensor(operation, "weight", object, PS3C_ELEMENT_RUN, 2, &view) < 0)
        return -1;
    if (!view.data || view.shape[0] == 0 || view.shape[1] == 0)
        return ps3c_operation_refuse("weight", "got None or an empty array");
    if (view.shape[1] > 1 && view.strides[1] != 1)
        return ps3c_operation_refuse("weight", "got rows with elements %lld apart, expected neighbours",
                                     (long long)view.strides[1]);
    args->weight = view.data;
    args->n = view.shape[args->transposed ? 1 : 0];
    args->k = view.shape[args->transposed ? 0 : 1];
    args->ldw = view.shape[0] > 1 ? view.strides[0] : view.shape[1];
    if (args->k != k || args->ldw < view.shape[1])
        return ps3c_operation_refuse("weight", "got (%lld, %lld), rows %lld apart, expected k = %lld",
                                     (long long)view.shape[0], (long long)view.shape[1], (long long)args->ldw,
                                     (long long)k);
    return 0;
}

static int check_channels(const ps3c_gemm_args *args, const ps3c_activation *residual)
{
    const ps3c_activation *x = args->x;

    if (args->out_channel < 0 || args->out_channel % 2 || args->out_channel > INT_MAX)
        return ps3c_operation_refuse("out_channel", "got %lld, expected an even number from 0 to %d",
                                     (long long)args->out_channel, INT_MAX);
    if (args->values_from < 0 || args->values_from > args->n || (args->values_from < args->n && args->values_from % 8))
        return ps3c_operation_refuse("values_from", "got %lld, expected a multiple of 8 up to %lld",
                                     (long long)args->values_from, (long long)args->n);
    if (!residual)
        return 0;
    if (args->values_from < args->n)
        return ps3c_operation_refuse("residual", "got one together with values_from");
    if (residual->segments != x->segments || residual->tokens != x->tokens || residual->channels != args->n)
        return ps3c_operation_refuse("residual", "got (%lld, %lld, %lld), expected (%lld, %lld, %lld)",
                                     (long long)residual->segments, (long long)residual->tokens,
                                     (long long)residual->channels, (long long)x->segments, (long long)x->tokens,
                                     (long long)args->n);
    return 0;
}

static PyObject *gemm(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"x",          "weight",      "bias",        "act",  "scale",    "residual",
                               "transposed", "values_from", "out_channel", "into", "in_place", PS3C_OPTIONS_KEYWORDS};
    PyObject *x_rows, *weight, *bias = Py_None, *scale = Py_None, *residual_rows = Py_None, *into = Py_None;
    PyObject *result = NULL;
    const char *act = "none";
    int transposed = 0, in_place = 0;
    long long values_from = -1, out_channel = 0;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation x, y, residual;
    ps3c_gemm_args args = {.x = &x, .y = &y};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OO|O$sOOpLLOp" PS3C_OPTIONS_FORMAT ":gemm", keywords, &x_rows,
                                     &weight, &bias, &act, &scale, &residual_rows, &transposed, &values_from,
                                     &out_channel, &into, &in_place, PS3C_OPTIONS(options)))
        return NULL;
    args.transposed = transposed;
    if (ps3c_operation_begin(&operation, &options) < 0 || ps3c_operation_act(act, &args.act) < 0 ||
        ps3c_operation_activation(&operation, "x", x_rows, &x) < 0 ||
        take_weight(&operation, weight, x.channels, &args) < 0 ||
        ps3c_operation_vector(&operation, "bias", bias, args.n, &args.bias) < 0 ||
        ps3c_operation_vector(&operation, "scale", scale, args.n, &args.scale) < 0)
        goto cleanup;
    if (residual_rows != Py_None) {
        if (ps3c_operation_activation(&operation, "residual", residual_rows, &residual) < 0)
            goto cleanup;
        args.residual = &residual;
    }
    args.out_channel = out_channel;
    args.values_from = values_from < 0 ? args.n : values_from;
    if (check_channels(&args, args.residual) < 0)
        goto cleanup;
    if (in_place) {
        if (!args.residual || out_channel != 0) {
            ps3c_operation_refuse("in_place", "got True, which goes with a residual and out_channel 0");
            goto cleanup;
        }
        args.y = &residual;
    } else if (take_destination(&operation, into, &x, out_channel + args.n, &y) < 0) {
        goto cleanup;
    }
    PS3C_OPERATION_RUN(&operation, gemm, &args);
    result = ps3c_operation_rows(&operation, args.y,
                                 args.values_from < args.n ? out_channel + args.values_from : args.y->channels);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(
    gemm,
    "gemm(x, weight, bias=None, *, act='none', scale=None, residual=None, transposed=False, values_from=-1,\n"
    "     out_channel=0, into=None, in_place=False, dtype='float32', level=None, threads=0)\n--\n\n"
    "act(x W^T + bias) * scale + residual as rows (segments, tokens, n).\n\n"
    "weight: (n, k), or (k, n) with transposed; rows may have any distance. values_from: outputs from this one on\n"
    "are converted to the layout of attention values and back (-1: none). into: rows to return, with their channels\n"
    "from out_channel on replaced. in_place: the residual is the destination.");
