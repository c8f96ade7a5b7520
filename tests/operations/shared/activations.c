/* Converts between rows and activations. See operation.h. */
#include "layouts.h"
#include "operation.h"

int ps3c_operation_output(ps3c_operation *operation, int64_t segments, int64_t tokens, int64_t channels,
                          ps3c_activation *out)
{
    size_t bytes = operation->backend->activation_bytes(operation->run.dtype, segments, tokens, channels);
    int64_t all;

    if (bytes == SIZE_MAX || __builtin_mul_overflow(segments, tokens, &all)) {
        PyErr_NoMemory();
        return -1;
    }
    if (all > operation->tokens)
        operation->tokens = all;
    if (channels > operation->channels)
        operation->channels = channels;
    out->segments = segments;
    out->tokens = tokens;
    out->channels = channels;
    out->data = ps3c_operation_allocate(operation, bytes);
    return out->data ? 0 : -1;
}

int64_t ps3c_operation_element(const ps3c_operation *operation, const ps3c_activation *x, int64_t segment,
                               int64_t token, int64_t channel, bool values)
{
    return operation->layout->element(x, operation->run.dtype, segment, token, channel, values);
}

/* Fills spare tokens with NaN: no result may depend on them. Channels from values_from on are attention values. */
static void poison_spares(const ps3c_operation *operation, const ps3c_activation *x, int64_t values_from)
{
    const size_t size = ps3c_dtype_bytes(operation->run.dtype);

    for (int64_t s = 0; s < x->segments; s++)
        for (int64_t t = x->tokens; t < operation->layout->room(x); t++)
            for (int64_t c = 0; c < x->channels; c++) {
                int64_t at = ps3c_operation_element(operation, x, s, t, c, c >= values_from);
                memset((char *)x->data + (size_t)at * size, 0xff, size);
            }
}

int ps3c_operation_activation(ps3c_operation *operation, const char *name, PyObject *rows, ps3c_activation *out)
{
    ps3c_tensor view;
    ps3c_from_rows_args args = {.out = out};

    args.rows = ps3c_operation_array(operation, name, rows, PS3C_ELEMENT_RUN, 3, NULL, &view);
    if (!args.rows || ps3c_operation_output(operation, view.shape[0], view.shape[1], view.shape[2], out) < 0)
        return -1;
    PS3C_OPERATION_RUN(operation, from_rows, &args);
    poison_spares(operation, out, out->channels);
    return 0;
cleanup:
    return -1;
}

int ps3c_operation_values(ps3c_operation *operation, const char *name, PyObject *rows, const ps3c_activation *out,
                          int64_t channel)
{
    ps3c_tensor view;
    ps3c_dtype dtype = operation->run.dtype;
    const void *data = ps3c_operation_array(operation, name, rows, PS3C_ELEMENT_RUN, 3, NULL, &view);

    if (!data)
        return -1;
    if (view.shape[0] != out->segments || view.shape[1] != out->tokens || channel + view.shape[2] > out->channels)
        return ps3c_operation_refuse(name, "got (%lld, %lld, %lld), which does not fit the keys",
                                     (long long)view.shape[0], (long long)view.shape[1], (long long)view.shape[2]);
    for (int64_t s = 0; s < out->segments; s++)
        for (int64_t t = 0; t < out->tokens; t++)
            for (int64_t c = 0; c < view.shape[2]; c++)
                ps3c_layout_write(dtype, out->data, ps3c_operation_element(operation, out, s, t, channel + c, true),
                                  ps3c_layout_read(dtype, data, (s * out->tokens + t) * view.shape[2] + c));
    poison_spares(operation, out, channel);
    return 0;
}

/* Checks that channel padding is zero. */
static int check_padding(const ps3c_operation *operation, const ps3c_activation *x)
{
    const ps3c_dtype dtype = operation->run.dtype;
    const int64_t end = operation->layout->padded_channels(x, dtype);

    for (int64_t s = 0; s < x->segments; s++)
        for (int64_t t = 0; t < x->tokens; t++)
            for (int64_t c = x->channels; c < end; c++)
                if (ps3c_layout_read(dtype, x->data, ps3c_operation_element(operation, x, s, t, c, false)) != 0) {
                    PyErr_Format(PyExc_RuntimeError, "channel padding is not 0 at token %lld of segment %lld",
                                 (long long)t, (long long)s);
                    return -1;
                }
    return 0;
}

PyObject *ps3c_operation_rows(ps3c_operation *operation, const ps3c_activation *x, int64_t values_from)
{
    ps3c_dtype dtype = operation->run.dtype;
    int64_t shape[3] = {x->segments, x->tokens, x->channels}, count = x->segments * x->tokens * x->channels;
    ps3c_to_rows_args args = {
        .x = x, .batch = x->segments, .row_stride = x->channels, .batch_stride = x->tokens * x->channels};
    const double seconds = operation->seconds;

    args.out = ps3c_operation_allocate(operation, (size_t)count * ps3c_dtype_bytes(dtype));
    if (!args.out)
        return NULL;
    PS3C_OPERATION_RUN(operation, to_rows, &args);
    ps3c_operation_took(operation, seconds); /* exclude the time of to_rows */
    for (int64_t i = 0; i < x->segments * x->tokens; i++)
        for (int64_t c = values_from; c < x->channels; c++)
            ps3c_layout_write(
                dtype, args.out, i * x->channels + c,
                ps3c_layout_read(dtype, x->data,
                                 ps3c_operation_element(operation, x, i / x->tokens, i % x->tokens, c, true)));
    if (values_from >= x->channels && check_padding(operation, x) < 0)
        return NULL;
    return ps3c_operation_result(args.out, dtype, 3, shape);
cleanup:
    return NULL;
}
