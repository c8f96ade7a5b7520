/* l2_normalize: x / |x| for every token. */
#include "shared/operation.h"

static PyObject *l2_normalize(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"x", "in_place", PS3C_OPTIONS_KEYWORDS};
    PyObject *rows, *result = NULL;
    int in_place = 0;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation x, y;
    ps3c_l2_normalize_args args = {.x = &x, .y = &y};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "O|$p" PS3C_OPTIONS_FORMAT ":l2_normalize", keywords, &rows,
                                     &in_place, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 || ps3c_operation_activation(&operation, "x", rows, &x) < 0)
        goto cleanup;
    if (in_place)
        args.y = &x;
    else if (ps3c_operation_output(&operation, x.segments, x.tokens, x.channels, &y) < 0)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, l2_normalize, &args);
    result = ps3c_operation_rows(&operation, args.y, x.channels);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(l2_normalize, "l2_normalize(x, *, in_place=False, dtype='float32', level=None, threads=0)\n--\n\n"
                             "x / max(|x|, 1e-12) for every row of (segments, tokens, channels).");
