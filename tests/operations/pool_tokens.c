/* pool_tokens: one token of each segment. */
#include "shared/operation.h"

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

static PyObject *pool_tokens(PyObject *module, PyObject *positional, PyObject *named)
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
    if (!PyArg_ParseTupleAndKeywords(positional, named, "Os|$OL" PS3C_OPTIONS_FORMAT ":pool_tokens", keywords, &rows,
                                     &pool, &ids_object, &first, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 || find_pool(pool, &args.pool) < 0 ||
        ps3c_operation_activation(&operation, "x", rows, &x) < 0)
        goto cleanup;
    if (args.pool == PS3C_POOL_ARGMAX) {
        if (ps3c_operation_ids(&operation, ids_object, first, &x.segments, &ids) < 0)
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

PS3C_OPERATION(pool_tokens, "pool_tokens(x, pool, *, ids=None, first=0, dtype='float32', level=None, threads=0)\n"
                            "--\n\n"
                            "One token of each segment of x, pool 'first', 'last' or 'argmax' (of ids): (1, S, C).");
