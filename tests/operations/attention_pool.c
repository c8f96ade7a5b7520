/* attention_pool: one query over the tokens of each segment. */
#include "shared/operation.h"

static PyObject *attention_pool(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"query", "keys_values", "heads", "mask", PS3C_OPTIONS_KEYWORDS};
    PyObject *query_rows, *keys_values_rows, *mask = Py_None, *result = NULL;
    long long heads = 0;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation query, keys_values, out;
    ps3c_tensor view;
    ps3c_attention_pool_args args = {.query = &query, .keys_values = &keys_values, .out = &out};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OO|$LO" PS3C_OPTIONS_FORMAT ":attention_pool", keywords,
                                     &query_rows, &keys_values_rows, &heads, &mask, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        ps3c_operation_activation(&operation, "query", query_rows, &query) < 0 ||
        ps3c_operation_activation(&operation, "keys_values", keys_values_rows, &keys_values) < 0)
        goto cleanup;
    if (query.segments != 1 || query.tokens != 1 || keys_values.channels != 2 * query.channels) {
        ps3c_operation_refuse("query", "got (%lld, %lld, %lld), expected (1, 1, %lld)", (long long)query.segments,
                              (long long)query.tokens, (long long)query.channels, (long long)keys_values.channels / 2);
        goto cleanup;
    }
    if (heads < 1 || query.channels % heads || query.channels / heads % 8) {
        ps3c_operation_refuse("heads", "got %lld, expected %lld channels to be heads of a multiple of 8", heads,
                              (long long)query.channels);
        goto cleanup;
    }
    if (mask != Py_None) {
        int64_t shape[2] = {keys_values.segments, keys_values.tokens};
        args.mask = ps3c_operation_array(&operation, "mask", mask, PS3C_ELEMENT_UINT8, 2, shape, &view);
        if (!args.mask)
            goto cleanup;
    }
    args.heads = heads;
    args.head_dim = query.channels / heads;
    if (ps3c_operation_output(&operation, 1, keys_values.segments, query.channels, &out) < 0)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, attention_pool, &args);
    result = ps3c_operation_rows(&operation, &out, out.channels);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(attention_pool, "attention_pool(query, keys_values, *, heads, mask=None, dtype='float32', level=None,\n"
                               "               threads=0)\n--\n\n"
                               "One query (1, 1, C) over each segment of keys_values (S, T, 2 C): (1, S, C).\n\n"
                               "mask: (S, T) uint8, 1 if the token is used.");
