/* rank: places in a stable descending sort. */
#include "shared/operation.h"

#include <limits.h>

static PyObject *rank(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"probs", PS3C_OPTIONS_KEYWORDS};
    PyObject *object, *result = NULL;
    int64_t patches;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_tensor probs;
    ps3c_rank_args args = {.probs = &probs};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "O|$" PS3C_OPTIONS_FORMAT ":rank", keywords, &object,
                                     PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        !ps3c_operation_array(&operation, "probs", object, PS3C_ELEMENT_RUN, 3, NULL, &probs))
        goto cleanup;
    patches = probs.shape[1] * probs.shape[2];
    if (patches > INT_MAX) {
        ps3c_operation_refuse("probs", "got %lld patches, expected at most %d", (long long)patches, INT_MAX);
        goto cleanup;
    }
    operation.positions = probs.shape[0] * patches;
    args.rank = ps3c_operation_elements(&operation, probs.shape[0], patches, 1, sizeof *args.rank);
    if (!args.rank)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, rank, &args);
    result = ps3c_operation_result(args.rank, PS3C_INT32, 2, (int64_t[]){probs.shape[0], patches});
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(rank, "rank(probs, *, dtype='float32', level=None, threads=0)\n--\n\n"
                     "Places of probs (B, rows, cols) in a stable descending sort, NaN last: int32\n"
                     "(B, rows * cols).");
