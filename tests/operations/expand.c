/* expand: resizes low-res probabilities to the grid of one scale. */
#include "shared/operation.h"

#include <limits.h>

static PyObject *expand(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"probs", "rows", "cols", "gt", "gt_rows", "gt_cols", "smooth", PS3C_OPTIONS_KEYWORDS};
    PyObject *probs_object, *gt_object = Py_None, *result = NULL;
    long long rows, cols, gt_rows = 1, gt_cols = 1;
    int smooth = 0;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_tensor probs, gt, out;
    ps3c_expand_args args = {.out = &out};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OLL|$OLLp" PS3C_OPTIONS_FORMAT ":expand", keywords,
                                     &probs_object, &rows, &cols, &gt_object, &gt_rows, &gt_cols, &smooth,
                                     PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        !ps3c_operation_array(&operation, "probs", probs_object, PS3C_ELEMENT_FLOAT32, 3, NULL, &probs) ||
        ps3c_operation_tensor(&operation, "gt", gt_object, PS3C_ELEMENT_ANY, 3, &gt) < 0)
        goto cleanup;
    if (gt.data) {
        if (gt.shape[0] != probs.shape[0] || gt_rows < 1 || gt_cols < 1 || gt_rows > INT_MAX || gt_cols > INT_MAX) {
            ps3c_operation_refuse("gt", "got %lld images for %lld, resized to %lld x %lld", (long long)gt.shape[0],
                                  (long long)probs.shape[0], gt_rows, gt_cols);
            goto cleanup;
        }
        args.gt = &gt;
    }
    if (ps3c_operation_map(&operation, operation.run.dtype, probs.shape[0], rows, cols, &out) < 0)
        goto cleanup;
    args.probs = probs.data;
    args.batch = probs.shape[0];
    args.in_rows = probs.shape[1];
    args.in_cols = probs.shape[2];
    args.gt_rows = gt_rows;
    args.gt_cols = gt_cols;
    args.smooth = smooth;
    PS3C_OPERATION_RUN(&operation, expand, &args);
    result = ps3c_operation_result(out.data, out.dtype, 3, out.shape);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(
    expand,
    "expand(probs, rows, cols, *, gt=None, gt_rows=1, gt_cols=1, smooth=False, dtype='float32', level=None,\n"
    "       threads=0)\n--\n\n"
    "Resizes probabilities, float32 (B, h, w), to (B, rows, cols) of dtype. gt: (B, any, any) of any dtype and\n"
    "strides, uint16 is bfloat16. gt_rows, gt_cols: the first high-res grid.");
