/* patch_gather: selected patches of the resampled image. */
#include "shared/operation.h"

static PyObject *patch_gather(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"pixels", "patch", "scales", "positions", "segments", PS3C_OPTIONS_KEYWORDS};
    PyObject *pixels_object, *scales_object, *positions = Py_None, *result = NULL;
    long long patch, segments = 0;
    int64_t limit, tokens;
    ps3c_scale scales[PS3C_MAX_SCALES];
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation out;
    ps3c_tensor pixels;
    ps3c_patch_gather_args args = {.pixels = &pixels, .scales = scales, .out = &out};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OLO|$OL" PS3C_OPTIONS_FORMAT ":patch_gather", keywords,
                                     &pixels_object, &patch, &scales_object, &positions, &segments,
                                     PS3C_OPTIONS(options)))
        return NULL;
    if (patch < 1 || patch > 4096) {
        ps3c_operation_refuse("patch", "got %lld, expected 1 to 4096", patch);
        goto cleanup;
    }
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        ps3c_operation_tensor(&operation, "pixels", pixels_object, PS3C_ELEMENT_RUN, 4, &pixels) < 0 ||
        ps3c_operation_scales(scales_object, patch, scales, &args.num_scales, &limit) < 0)
        goto cleanup;
    if (!pixels.data || pixels.shape[0] < 1 || pixels.shape[1] != 3 || pixels.shape[2] < 1 || pixels.shape[3] < 1) {
        ps3c_operation_refuse("pixels", "got (%lld, %lld, %lld, %lld), expected (B, 3, H, W)",
                              (long long)pixels.shape[0], (long long)pixels.shape[1], (long long)pixels.shape[2],
                              (long long)pixels.shape[3]);
        goto cleanup;
    }
    tokens = limit;
    if (positions != Py_None && PyArray_Check(positions) && PyArray_NDIM((PyArrayObject *)positions) == 2) {
        const long long rows = PyArray_DIM((PyArrayObject *)positions, 0);
        if (segments != 0 && segments != rows) {
            ps3c_operation_refuse("segments", "got %lld, expected 0 or %lld, the rows of positions", segments, rows);
            goto cleanup;
        }
        segments = rows;
        tokens = PyArray_DIM((PyArrayObject *)positions, 1);
    }
    if (segments == 0)
        segments = pixels.shape[0];
    if (segments < 1 || segments % pixels.shape[0] || tokens < 1) {
        ps3c_operation_refuse("segments", "got %lld of %lld tokens, expected a multiple of %lld images", segments,
                              (long long)tokens, (long long)pixels.shape[0]);
        goto cleanup;
    }
    args.patch = patch;
    if (ps3c_operation_positions(&operation, positions, segments, tokens, limit, &args.positions) < 0 ||
        ps3c_operation_output(&operation, segments, tokens, 3 * patch * patch, &out) < 0)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, patch_gather, &args);
    result = ps3c_operation_rows(&operation, &out, out.channels);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(
    patch_gather,
    "patch_gather(pixels, patch, scales, *, positions=None, segments=0, dtype='float32', level=None,\n"
    "             threads=0)\n--\n\n"
    "Patches of pixels (B, 3, H, W; any strides) as rows (segments, tokens, 3 * patch * patch).\n\n"
    "scales: (height, width, rows, cols) tuples. positions: (segments, tokens) int32, indices of patches of all\n"
    "scales; None: all patches. segments: a multiple of B; 0: B.");
