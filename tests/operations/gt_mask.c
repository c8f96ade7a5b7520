/* gt_mask: the tokens inside the ground truth. */
#include "shared/operation.h"

static PyObject *gt_mask(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"gt", "scales", "positions", PS3C_OPTIONS_KEYWORDS};
    PyObject *gt_object, *scales_object, *positions, *result = NULL;
    int64_t limit;
    ps3c_scale scales[PS3C_MAX_SCALES];
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_tensor gt, view;
    ps3c_gt_mask_args args = {.gt = &gt, .scales = scales};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOO|$" PS3C_OPTIONS_FORMAT ":gt_mask", keywords, &gt_object,
                                     &scales_object, &positions, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        ps3c_operation_tensor(&operation, "gt", gt_object, PS3C_ELEMENT_ANY, 3, &gt) < 0 ||
        ps3c_operation_scales(scales_object, 1, scales, &args.num_scales, &limit) < 0)
        goto cleanup;
    if (!gt.data) {
        ps3c_operation_refuse("gt", "got None, expected an array");
        goto cleanup;
    }
    if (!ps3c_operation_array(&operation, "positions", positions, PS3C_ELEMENT_INT32, 2, (int64_t[]){gt.shape[0], -1},
                              &view))
        goto cleanup;
    args.batch = gt.shape[0];
    args.tokens = view.shape[1];
    if (ps3c_operation_positions(&operation, positions, args.batch, args.tokens, limit, &args.positions) < 0)
        goto cleanup;
    args.mask = ps3c_operation_allocate(&operation, (size_t)(args.batch * args.tokens));
    if (!args.mask)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, gt_mask, &args);
    result = ps3c_operation_result(args.mask, PS3C_UINT8, 2, (int64_t[]){args.batch, args.tokens});
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(gt_mask, "gt_mask(gt, scales, positions, *, dtype='float32', level=None, threads=0)\n"
                        "--\n\n"
                        "uint8 (B, tokens): 1 if the area-resized gt is not 0 at the token's patch.");
