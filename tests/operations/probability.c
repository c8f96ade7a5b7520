/* probability: selection probabilities of logits. */
#include "shared/operation.h"

static PyObject *probability(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"logits", "highres", PS3C_OPTIONS_KEYWORDS};
    PyObject *logits_object, *highres_object = Py_None, *result = NULL;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_tensor logits, highres;
    ps3c_probability_args args = {0};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "O|O$" PS3C_OPTIONS_FORMAT ":probability", keywords,
                                     &logits_object, &highres_object, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        !ps3c_operation_array(&operation, "logits", logits_object, PS3C_ELEMENT_FLOAT32, 1, NULL, &logits))
        goto cleanup;
    args.logits = logits.data;
    args.count = logits.shape[0];
    if (highres_object != Py_None) {
        args.highres =
            ps3c_operation_array(&operation, "highres", highres_object, PS3C_ELEMENT_FLOAT32, 1, &args.count, &highres);
        if (!args.highres)
            goto cleanup;
    }
    args.probs = ps3c_operation_allocate(&operation, (size_t)args.count * sizeof *args.probs);
    if (!args.probs)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, probability, &args);
    result = ps3c_operation_result(args.probs, PS3C_FLOAT32, 1, &args.count);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(probability, "probability(logits, highres=None, *, dtype='float32', level=None, threads=0)\n--\n\n"
                            "Selection probabilities of float32 logits (count,), rounded to dtype, as float32.");
