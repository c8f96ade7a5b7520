/* _core.op_token_embedding, _core.op_pool_tokens, _core.op_class_mask */
#include "operations.h"

/* (batch, length) int64; texts first .. first + segments - 1 of it. segments 0: the rest. */
static int take_ids(ps3c_operation *operation, PyObject *object, int64_t first, int64_t *segments, ps3c_tensor *ids)
{
    if (ps3c_operation_tensor(operation, "ids", object, PS3C_ELEMENT_INT64, 2, ids) < 0)
        return -1;
    if (!ids->data || ids->shape[0] < 1 || ids->shape[1] < 1)
        return ps3c_operation_refuse("ids", "got None or an empty array, expected (batch, length)");
    if (*segments == 0)
        *segments = ids->shape[0] - first;
    if (first < 0 || *segments < 1 || *segments > ids->shape[0] || first > ids->shape[0] - *segments)
        return ps3c_operation_refuse("first", "got %lld and %lld segments of %lld texts", (long long)first,
                                     (long long)*segments, (long long)ids->shape[0]);
    return 0;
}

static PyObject *op_token_embedding(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"ids", "table", "positions", "class_token", "first", "segments", PS3C_OPTIONS_KEYWORDS};
    PyObject *ids_object, *table, *positions, *class_token = Py_None, *result = NULL;
    long long first = 0, wanted = 0;
    int64_t segments, channels, tokens;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation out;
    ps3c_tensor ids, view;
    ps3c_token_embedding_args args = {.ids = &ids, .out = &out};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOO|$OLL" PS3C_OPTIONS_FORMAT ":op_token_embedding", keywords,
                                     &ids_object, &table, &positions, &class_token, &first, &wanted,
                                     PS3C_OPTIONS(options)))
        return NULL;
    segments = wanted;
    if (ps3c_operation_begin(&operation, &options) < 0 || take_ids(&operation, ids_object, first, &segments, &ids) < 0)
        goto cleanup;
    args.table = ps3c_operation_array(&operation, "table", table, PS3C_ELEMENT_RUN, 2, NULL, &view);
    if (!args.table)
        goto cleanup;
    args.vocab_size = view.shape[0];
    channels = view.shape[1];
    tokens = ids.shape[1] + (class_token != Py_None);
    args.positions =
        ps3c_operation_array(&operation, "positions", positions, PS3C_ELEMENT_RUN, 2, (int64_t[]){-1, channels}, &view);
    if (!args.positions)
        goto cleanup;
    if (view.shape[0] < tokens || channels < 1 || args.vocab_size < 1) {
        ps3c_operation_refuse("positions", "got %lld rows, expected at least %lld", (long long)view.shape[0],
                              (long long)tokens);
        goto cleanup;
    }
    args.first = first;
    if (ps3c_operation_vector(&operation, "class_token", class_token, channels, &args.class_token) < 0 ||
        ps3c_operation_output(&operation, segments, tokens, channels, &out) < 0)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, token_embedding, &args);
    result = ps3c_operation_rows(&operation, &out, out.channels);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

static int find_pool(const char *name, ps3c_text_pool *pool)
{
    static const char *const names[] = {
        [PS3C_POOL_FIRST] = "first", [PS3C_POOL_LAST] = "last", [PS3C_POOL_ARGMAX] = "argmax"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0) {
            *pool = (ps3c_text_pool)i;
            return 0;
        }
    return ps3c_operation_refuse("pool", "got '%s', expected 'first', 'last' or 'argmax'", name);
}

static PyObject *op_pool_tokens(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"x", "pool", "ids", "first", PS3C_OPTIONS_KEYWORDS};
    PyObject *rows, *ids_object = Py_None, *result = NULL;
    const char *pool;
    long long first = 0;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation x, out;
    ps3c_tensor ids;
    ps3c_pool_tokens_args args = {.x = &x, .out = &out};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "Os|$OL" PS3C_OPTIONS_FORMAT ":op_pool_tokens", keywords, &rows,
                                     &pool, &ids_object, &first, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 || find_pool(pool, &args.pool) < 0 ||
        ps3c_operation_activation(&operation, "x", rows, &x) < 0)
        goto cleanup;
    if (args.pool == PS3C_POOL_ARGMAX) {
        if (take_ids(&operation, ids_object, first, &x.segments, &ids) < 0)
            goto cleanup;
        if (ids.shape[1] > x.tokens) {
            ps3c_operation_refuse("ids", "got length %lld, expected at most %lld", (long long)ids.shape[1],
                                  (long long)x.tokens);
            goto cleanup;
        }
        args.ids = &ids;
        args.first = first;
    }
    if (ps3c_operation_output(&operation, 1, x.segments, x.channels, &out) < 0)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, pool_tokens, &args);
    result = ps3c_operation_rows(&operation, &out, out.channels);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

static PyObject *op_class_mask(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"ids", "pad_id", "first", "segments", PS3C_OPTIONS_KEYWORDS};
    PyObject *ids_object, *result = NULL;
    long long pad_id, first = 0, wanted = 0;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_tensor ids;
    ps3c_class_mask_args args = {.ids = &ids};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OL|$LL" PS3C_OPTIONS_FORMAT ":op_class_mask", keywords,
                                     &ids_object, &pad_id, &first, &wanted, PS3C_OPTIONS(options)))
        return NULL;
    args.pad_id = pad_id;
    args.first = first;
    args.segments = wanted;
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        take_ids(&operation, ids_object, first, &args.segments, &ids) < 0)
        goto cleanup;
    args.mask = ps3c_operation_allocate(&operation, (size_t)(args.segments * (ids.shape[1] + 1)));
    if (!args.mask)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, class_mask, &args);
    result = ps3c_operation_result(args.mask, PS3C_UINT8, 2, (int64_t[]){args.segments, ids.shape[1] + 1});
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PyMethodDef ps3c_operations_text[] = {
    PS3C_OPERATION_METHOD(
        op_token_embedding,
        "op_token_embedding(ids, table, positions, *, class_token=None, first=0, segments=0, dtype='float32',\n"
        "                   level=None, threads=0)\n--\n\n"
        "Rows of table (vocabulary, channels) named by ids (batch, length; int64, any strides), plus positions; the\n"
        "class token comes last. Texts first .. first + segments - 1; segments 0: the rest."),
    PS3C_OPERATION_METHOD(op_pool_tokens,
                          "op_pool_tokens(x, pool, *, ids=None, first=0, dtype='float32', level=None, threads=0)\n"
                          "--\n\n"
                          "One token of each segment of x, pool 'first', 'last' or 'argmax' (of ids): (1, S, C)."),
    PS3C_OPERATION_METHOD(op_class_mask,
                          "op_class_mask(ids, pad_id, *, first=0, segments=0, dtype='float32', level=None,\n"
                          "              threads=0)\n--\n\n"
                          "(segments, length + 1) uint8: keys that the class token may see."),
    {NULL, NULL, 0, NULL},
};
