/* attention: softmax(q k^T / sqrt(head_dim)) v over the cached tokens and the segment's own. */
#include "shared/operation.h"

/* Writes [before][keys][values] channels; keys and values are rows of the same shape. Returns the channels of keys. */
static int64_t take_keys_values(ps3c_operation *operation, const char *keys_name, PyObject *keys,
                                const char *values_name, PyObject *values, PyObject *before, ps3c_activation *out)
{
    ps3c_activation parts[3];
    ps3c_copy_channels_args copy = {.y = out};
    int64_t channels = 0;
    int count = 0;

    if (before && ps3c_operation_activation(operation, "q", before, &parts[count++]) < 0)
        return -1;
    if (ps3c_operation_activation(operation, keys_name, keys, &parts[count++]) < 0 ||
        ps3c_operation_activation(operation, values_name, values, &parts[count++]) < 0)
        return -1;
    for (int i = 0; i < count; i++) {
        if (parts[i].segments != parts[0].segments || parts[i].tokens != parts[0].tokens ||
            parts[i].channels != parts[0].channels || parts[i].channels % 8)
            return ps3c_operation_refuse(values_name,
                                         "got (%lld, %lld, %lld), expected the shape of %s, channels a "
                                         "multiple of 8",
                                         (long long)parts[i].segments, (long long)parts[i].tokens,
                                         (long long)parts[i].channels, before ? "q" : keys_name);
        channels += parts[i].channels;
    }
    if (ps3c_operation_output(operation, parts[0].segments, parts[0].tokens, channels, out) < 0)
        return -1;
    for (int i = 0; i < count; i++) {
        copy.x = &parts[i];
        copy.at = i * parts[0].channels;
        PS3C_OPERATION_RUN(operation, copy_channels, &copy);
    }
    /* Write the values again, in the layout of attention values. */
    if (ps3c_operation_values(operation, values_name, values, out, channels - parts[0].channels) < 0)
        return -1;
    return parts[0].channels;
cleanup:
    return -1;
}

static int check_attention(const ps3c_attention_args *args, int64_t channels, int64_t cached_channels)
{
    const ps3c_activation *query = args->query, *cached = args->cached;

    if (args->heads < 1 || channels % args->heads || channels / args->heads % 8)
        return ps3c_operation_refuse("heads", "got %lld, expected %lld channels to be heads of a multiple of 8",
                                     (long long)args->heads, (long long)channels);
    if (args->own->segments != query->segments || args->own->tokens != query->tokens)
        return ps3c_operation_refuse("k", "got (%lld, %lld, ...), expected (%lld, %lld, ...) as q",
                                     (long long)args->own->segments, (long long)args->own->tokens,
                                     (long long)query->segments, (long long)query->tokens);
    if (cached && (cached_channels != channels || query->segments % cached->segments))
        return ps3c_operation_refuse(
            "cached_k", "got %lld segments of %lld channels, expected a divisor of %lld and %lld",
            (long long)cached->segments, (long long)cached_channels, (long long)query->segments, (long long)channels);
    return 0;
}

static PyObject *attention(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {
        "q", "k", "v", "heads", "cached_k", "cached_v", "causal", "last_query_mask", "fused", PS3C_OPTIONS_KEYWORDS};
    PyObject *q, *k, *v, *cached_k = Py_None, *cached_v = Py_None, *mask = Py_None, *result = NULL;
    long long heads = 0;
    int causal = 0, fused = 0;
    int64_t channels, cached_channels = 0;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation query, own, cached, out;
    ps3c_tensor mask_view;
    ps3c_attention_args args = {.query = &query, .own = &own, .out = &out};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOO|$LOOpOp" PS3C_OPTIONS_FORMAT ":attention", keywords, &q,
                                     &k, &v, &heads, &cached_k, &cached_v, &causal, &mask, &fused,
                                     PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0)
        goto cleanup;
    channels = take_keys_values(&operation, "k", k, "v", v, fused ? q : NULL, &own);
    if (channels < 0 || (!fused && ps3c_operation_activation(&operation, "q", q, &query) < 0))
        goto cleanup;
    if (fused) {
        args.query = &own;
        args.own_channel = channels;
    } else if (query.channels != channels) {
        ps3c_operation_refuse("q", "got %lld channels, expected %lld as k", (long long)query.channels,
                              (long long)channels);
        goto cleanup;
    }
    if (cached_k != Py_None) {
        cached_channels = take_keys_values(&operation, "cached_k", cached_k, "cached_v", cached_v, NULL, &cached);
        if (cached_channels < 0)
            goto cleanup;
        args.cached = &cached;
    }
    args.heads = heads;
    args.causal = causal;
    if (check_attention(&args, channels, cached_channels) < 0)
        goto cleanup;
    args.head_dim = channels / heads;
    if (mask != Py_None) {
        int64_t shape[2] = {own.segments, own.tokens};
        args.last_query_mask =
            ps3c_operation_array(&operation, "last_query_mask", mask, PS3C_ELEMENT_UINT8, 2, shape, &mask_view);
        if (!args.last_query_mask)
            goto cleanup;
    }
    if (ps3c_operation_output(&operation, own.segments, own.tokens, channels, &out) < 0)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, attention, &args);
    result = ps3c_operation_rows(&operation, &out, channels);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(attention,
               "attention(q, k, v, *, heads, cached_k=None, cached_v=None, causal=False, last_query_mask=None,\n"
               "          fused=False, dtype='float32', level=None, threads=0)\n--\n\n"
               "softmax(q k^T / sqrt(head_dim)) v, rows (segments, tokens, heads * head_dim).\n\n"
               "Segment s of q sees segment s % len(cached_k) of the cached tokens, then its own. last_query_mask: "
               "(segments,\n"
               "tokens) uint8. fused: q, k and v are in one activation, as in the engine.");
