/* from_rows, to_rows, copy_channels: convert between rows and activations; activation_bytes. */
#include "shared/operation.h"

/* Reads single elements by the layout's indices, so that to_rows cannot hide an error of from_rows. */
static PyObject *from_rows(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"rows", PS3C_OPTIONS_KEYWORDS};
    PyObject *rows, *checked = NULL, *result = NULL;
    unsigned char *plain;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation x;

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "O|$" PS3C_OPTIONS_FORMAT ":from_rows", keywords, &rows,
                                     PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 || ps3c_operation_activation(&operation, "rows", rows, &x) < 0)
        goto cleanup;
    checked = ps3c_operation_rows(&operation, &x, x.channels);
    if (!checked)
        goto cleanup;
    plain = PyArray_DATA((PyArrayObject *)checked);
    for (int64_t s = 0; s < x.segments; s++)
        for (int64_t t = 0; t < x.tokens; t++)
            for (int64_t c = 0; c < x.channels; c++) {
                size_t size = ps3c_dtype_bytes(operation.run.dtype);
                int64_t from = ps3c_operation_element(&operation, &x, s, t, c, false);
                memcpy(plain + (size_t)((s * x.tokens + t) * x.channels + c) * size,
                       (char *)x.data + (size_t)from * size, size);
            }
    result = Py_NewRef(checked);
cleanup:
    Py_XDECREF(checked);
    ps3c_operation_end(&operation);
    return result;
}

/* Checks that row_of is within out and that the destination is large enough. */
static int check_destination(const ps3c_to_rows_args *args, const ps3c_tensor *out)
{
    int64_t segments = args->x->segments, tokens = args->x->tokens;

    if (out->shape[0] == 0 || segments % out->shape[0] || out->shape[2] != args->x->channels ||
        (out->shape[2] > 1 && out->strides[2] != 1))
        return ps3c_operation_refuse("into",
                                     "got (%lld, %lld, %lld), expected a divisor of %lld, rows, %lld adjacent "
                                     "channels",
                                     (long long)out->shape[0], (long long)out->shape[1], (long long)out->shape[2],
                                     (long long)segments, (long long)args->x->channels);
    for (int64_t i = 0; i < segments * tokens; i++) {
        const int64_t row = args->row_of ? args->row_of[i] : i % tokens;
        int64_t at;
        if (__builtin_add_overflow(args->first_row, row, &at) || at < 0 || at >= out->shape[1])
            return ps3c_operation_refuse("first_row, row_of", "got %lld and %lld, expected a row of %lld",
                                         (long long)args->first_row, (long long)row, (long long)out->shape[1]);
    }
    return 0;
}

static PyObject *to_rows(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"x", "into", "row_of", "first_row", PS3C_OPTIONS_KEYWORDS};
    PyObject *rows, *into, *row_of = Py_None, *result = NULL;
    long long first_row = 0;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation x;
    ps3c_tensor out, view;
    ps3c_to_rows_args args = {.x = &x};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OO|$OL" PS3C_OPTIONS_FORMAT ":to_rows", keywords, &rows, &into,
                                     &row_of, &first_row, PS3C_OPTIONS(options)))
        return NULL;
    args.first_row = first_row;
    if (ps3c_operation_begin(&operation, &options) < 0 || ps3c_operation_activation(&operation, "x", rows, &x) < 0 ||
        ps3c_operation_tensor(&operation, "into", into, PS3C_ELEMENT_RUN, 3, &out) < 0)
        goto cleanup;
    if (row_of != Py_None) {
        int64_t shape[2] = {x.segments, x.tokens};
        args.row_of = ps3c_operation_array(&operation, "row_of", row_of, PS3C_ELEMENT_INT32, 2, shape, &view);
        if (!args.row_of)
            goto cleanup;
    }
    if (check_destination(&args, &out) < 0)
        goto cleanup;
    args.batch = out.shape[0];
    args.out = out.data;
    args.row_stride = out.strides[1];
    args.batch_stride = out.strides[0];
    PS3C_OPERATION_RUN(&operation, to_rows, &args);
    if (ps3c_operation_write_back("into", into, &out) == 0)
        result = Py_NewRef(into);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

static PyObject *copy_channels(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"x", "y", "at", PS3C_OPTIONS_KEYWORDS};
    PyObject *x_rows, *y_rows, *result = NULL;
    long long at;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation x, y;
    ps3c_copy_channels_args args = {.x = &x, .y = &y};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOL|$" PS3C_OPTIONS_FORMAT ":copy_channels", keywords, &x_rows,
                                     &y_rows, &at, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 || ps3c_operation_activation(&operation, "x", x_rows, &x) < 0 ||
        ps3c_operation_activation(&operation, "y", y_rows, &y) < 0)
        goto cleanup;
    if (x.segments != y.segments || x.tokens != y.tokens || at < 0 || at % 2 || at > y.channels - x.channels) {
        ps3c_operation_refuse("at", "got %lld, expected an even place where x's %lld channels fit into y's %lld", at,
                              (long long)x.channels, (long long)y.channels);
        goto cleanup;
    }
    args.at = at;
    PS3C_OPERATION_RUN(&operation, copy_channels, &args);
    result = ps3c_operation_rows(&operation, &y, y.channels);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

static PyObject *activation_bytes(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"segments", "tokens", "channels", PS3C_OPTIONS_KEYWORDS};
    long long segments, tokens, channels;
    PyObject *result = NULL;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    size_t bytes;

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "LLL|$" PS3C_OPTIONS_FORMAT ":activation_bytes", keywords,
                                     &segments, &tokens, &channels, PS3C_OPTIONS(options)))
        return NULL;
    if (segments < 0 || tokens < 0 || channels < 0)
        ps3c_operation_refuse("segments, tokens, channels", "got %lld, %lld and %lld, expected 0 or more", segments,
                              tokens, channels);
    else if (ps3c_operation_begin(&operation, &options) == 0) {
        bytes = operation.backend->activation_bytes(operation.run.dtype, segments, tokens, channels);
        result = bytes == SIZE_MAX ? Py_NewRef(Py_None) : PyLong_FromSize_t(bytes);
    }
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(from_rows, "from_rows(rows, *, dtype='float32', level=None, threads=0)\n--\n\n"
                          "Converts rows to an activation and reads it back one element at a time.");

PS3C_OPERATION(to_rows, "to_rows(x, into, *, row_of=None, first_row=0, dtype='float32', level=None, threads=0)\n"
                        "--\n\n"
                        "Writes rows x (segments, tokens, channels) into the array `into` (batch, rows, channels) at\n"
                        "into[segment % batch, first_row + row_of[segment, token]], and returns it. into may have\n"
                        "any strides along batch and rows. row_of: (segments, tokens) int32, None: the token.");

PS3C_OPERATION(copy_channels, "copy_channels(x, y, at, *, dtype='float32', level=None, threads=0)\n--\n\n"
                              "y with its channels from at on replaced by x.");

PS3C_OPERATION(activation_bytes, "activation_bytes(segments, tokens, channels, *, dtype='float32', level=None,\n"
                                 "                 threads=0)\n--\n\n"
                                 "Size of an activation in bytes, or None on overflow.");
