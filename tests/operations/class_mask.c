/* class_mask: the keys that a text's class token sees. */
#include "shared/operation.h"

static PyObject *class_mask(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"ids", "pad_id", "first", "segments", PS3C_OPTIONS_KEYWORDS};
    PyObject *ids_object, *result = NULL;
    long long pad_id, first = 0, wanted = 0;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_tensor ids;
    ps3c_class_mask_args args = {.ids = &ids};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OL|$LL" PS3C_OPTIONS_FORMAT ":class_mask", keywords,
                                     &ids_object, &pad_id, &first, &wanted, PS3C_OPTIONS(options)))
        return NULL;
    args.pad_id = pad_id;
    args.first = first;
    args.segments = wanted;
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        ps3c_operation_ids(&operation, ids_object, first, &args.segments, &ids) < 0)
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

PS3C_OPERATION(class_mask, "class_mask(ids, pad_id, *, first=0, segments=0, dtype='float32', level=None,\n"
                           "           threads=0)\n--\n\n"
                           "(segments, length + 1) uint8: 1 for a key that the class token sees.");
