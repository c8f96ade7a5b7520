/* token_embedding: rows of the vocabulary's table, plus positions. */
#include "shared/operation.h"

static PyObject *token_embedding(PyObject *module, PyObject *positional, PyObject *named)
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
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOO|$OLL" PS3C_OPTIONS_FORMAT ":token_embedding", keywords,
                                     &ids_object, &table, &positions, &class_token, &first, &wanted,
                                     PS3C_OPTIONS(options)))
        return NULL;
    segments = wanted;
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        ps3c_operation_ids(&operation, ids_object, first, &segments, &ids) < 0)
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

PS3C_OPERATION(
    token_embedding,
    "token_embedding(ids, table, positions, *, class_token=None, first=0, segments=0, dtype='float32',\n"
    "                level=None, threads=0)\n--\n\n"
    "Rows of table (vocabulary, channels) selected by ids (batch, length; int64, any strides), plus positions. The\n"
    "class token is last. Texts first .. first + segments - 1; segments 0: all texts from first on.");
