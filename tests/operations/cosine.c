/* cosine: cosine similarity of each token's features with its image's prompt. */
#include "shared/operation.h"

static PyObject *cosine(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"features", "prompt", PS3C_OPTIONS_KEYWORDS};
    PyObject *rows, *prompt_object, *result = NULL;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation features;
    ps3c_tensor prompt;
    ps3c_cosine_args args = {.features = &features};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OO|$" PS3C_OPTIONS_FORMAT ":cosine", keywords, &rows,
                                     &prompt_object, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        ps3c_operation_activation(&operation, "features", rows, &features) < 0 ||
        ps3c_operation_tensor(&operation, "prompt", prompt_object, PS3C_ELEMENT_RUN, 2, &prompt) < 0)
        goto cleanup;
    if (!prompt.data || prompt.shape[0] != features.segments || prompt.shape[1] != features.channels ||
        (prompt.shape[1] > 1 && prompt.strides[1] != 1) || prompt.strides[0] < 0) {
        ps3c_operation_refuse("prompt", "got (%lld, %lld), expected (%lld, %lld) with adjacent channels",
                              (long long)prompt.shape[0], (long long)prompt.shape[1], (long long)features.segments,
                              (long long)features.channels);
        goto cleanup;
    }
    args.prompt = prompt.data;
    args.prompt_stride = prompt.strides[0];
    args.logits = ps3c_operation_elements(&operation, features.segments, features.tokens, 1, sizeof *args.logits);
    if (!args.logits)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, cosine, &args);
    result = ps3c_operation_result(args.logits, PS3C_FLOAT32, 2, (int64_t[]){features.segments, features.tokens});
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(cosine, "cosine(features, prompt, *, dtype='float32', level=None, threads=0)\n--\n\n"
                       "Cosine similarity of each row of features (S, T, C) with prompt (S, C), which\n"
                       "may be a broadcast row: float32 (S, T).");
