/* _core.op_cosine, op_max_pool, op_probability, op_expand, op_rank, op_assign_looks, op_gt_mask */
#include "operations.h"

#include <limits.h>

/* Bytes of count elements, or -1 with MemoryError. */
static int bytes_of(int64_t a, int64_t b, int64_t c, size_t size, size_t *bytes)
{
    size_t all;

    if (__builtin_mul_overflow((size_t)a, (size_t)b, &all) || __builtin_mul_overflow(all, (size_t)c, &all) ||
        __builtin_mul_overflow(all, size, bytes)) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* An output (batch, rows, cols) of dtype, filled with 0xff. */
static int new_map(ps3c_operation *operation, ps3c_dtype dtype, int64_t batch, int64_t rows, int64_t cols,
                   ps3c_tensor *map)
{
    size_t bytes;

    if (rows < 1 || cols < 1 || rows > INT_MAX || cols > INT_MAX)
        return ps3c_operation_refuse("rows", "got %lld x %lld, expected positive sizes", (long long)rows,
                                     (long long)cols);
    if (bytes_of(batch, rows, cols, ps3c_dtype_bytes(dtype), &bytes) < 0)
        return -1;
    *map = (ps3c_tensor){.dtype = dtype, .ndim = 3, .shape = {batch, rows, cols}, .strides = {rows * cols, cols, 1}};
    map->data = ps3c_operation_allocate(operation, bytes);
    return map->data ? 0 : -1;
}

static PyObject *op_cosine(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"features", "prompt", PS3C_OPTIONS_KEYWORDS};
    PyObject *rows, *prompt_object, *result = NULL;
    size_t bytes;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_activation features;
    ps3c_tensor prompt;
    ps3c_cosine_args args = {.features = &features};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OO|$" PS3C_OPTIONS_FORMAT ":op_cosine", keywords, &rows,
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
    if (bytes_of(features.segments, features.tokens, 1, sizeof *args.logits, &bytes) < 0)
        goto cleanup;
    args.logits = ps3c_operation_allocate(&operation, bytes);
    if (!args.logits)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, cosine, &args);
    result = ps3c_operation_result(args.logits, PS3C_FLOAT32, 2, (int64_t[]){features.segments, features.tokens});
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

static PyObject *op_max_pool(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"x", "rows", "cols", PS3C_OPTIONS_KEYWORDS};
    PyObject *object, *result = NULL;
    long long rows, cols;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_tensor in, out;
    ps3c_max_pool_args args;

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OLL|$" PS3C_OPTIONS_FORMAT ":op_max_pool", keywords, &object,
                                     &rows, &cols, PS3C_OPTIONS(options)))
        return NULL;
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        !ps3c_operation_array(&operation, "x", object, PS3C_ELEMENT_FLOAT32, 3, NULL, &in) ||
        new_map(&operation, PS3C_FLOAT32, in.shape[0], rows, cols, &out) < 0)
        goto cleanup;
    args = (ps3c_max_pool_args){.in = in.data,
                                .out = out.data,
                                .batch = in.shape[0],
                                .in_rows = in.shape[1],
                                .in_cols = in.shape[2],
                                .rows = rows,
                                .cols = cols};
    PS3C_OPERATION_RUN(&operation, max_pool, &args);
    result = ps3c_operation_result(out.data, PS3C_FLOAT32, 3, out.shape);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

static PyObject *op_probability(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"logits", "highres", PS3C_OPTIONS_KEYWORDS};
    PyObject *logits_object, *highres_object = Py_None, *result = NULL;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_tensor logits, highres;
    ps3c_probability_args args = {0};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "O|O$" PS3C_OPTIONS_FORMAT ":op_probability", keywords,
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

static PyObject *op_expand(PyObject *module, PyObject *positional, PyObject *named)
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
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OLL|$OLLp" PS3C_OPTIONS_FORMAT ":op_expand", keywords,
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
    if (new_map(&operation, operation.run.dtype, probs.shape[0], rows, cols, &out) < 0)
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

static PyObject *op_rank(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"probs", PS3C_OPTIONS_KEYWORDS};
    PyObject *object, *result = NULL;
    int64_t patches;
    size_t bytes;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    ps3c_tensor probs;
    ps3c_rank_args args = {.probs = &probs};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "O|$" PS3C_OPTIONS_FORMAT ":op_rank", keywords, &object,
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
    if (bytes_of(probs.shape[0], patches, 1, sizeof *args.rank, &bytes) < 0)
        goto cleanup;
    args.rank = ps3c_operation_allocate(&operation, bytes);
    if (!args.rank)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, rank, &args);
    result = ps3c_operation_result(args.rank, PS3C_INT32, 2, (int64_t[]){probs.shape[0], patches});
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

static PyObject *op_gt_mask(PyObject *module, PyObject *positional, PyObject *named)
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
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOO|$" PS3C_OPTIONS_FORMAT ":op_gt_mask", keywords, &gt_object,
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

PyMethodDef ps3c_operations_selection[] = {
    PS3C_OPERATION_METHOD(op_cosine, "op_cosine(features, prompt, *, dtype='float32', level=None, threads=0)\n--\n\n"
                                     "Cosine of each row of features (S, T, C) with prompt (S, C; a broadcast row\n"
                                     "serves all): float32 (S, T)."),
    PS3C_OPERATION_METHOD(op_max_pool, "op_max_pool(x, rows, cols, *, dtype='float32', level=None, threads=0)\n--\n\n"
                                       "Adaptive max pool of float32 (B, h, w) to (B, rows, cols)."),
    PS3C_OPERATION_METHOD(op_probability,
                          "op_probability(logits, highres=None, *, dtype='float32', level=None, threads=0)\n--\n\n"
                          "Selection probabilities of float32 logits (count,), rounded to dtype, as float32."),
    PS3C_OPERATION_METHOD(
        op_expand,
        "op_expand(probs, rows, cols, *, gt=None, gt_rows=1, gt_cols=1, smooth=False, dtype='float32', level=None,\n"
        "          threads=0)\n--\n\n"
        "Probabilities (B, h, w) float32 to (B, rows, cols) of dtype. gt: (B, any, any) of any dtype and strides,\n"
        "uint16 meaning bfloat16; gt_rows, gt_cols: the first high-res grid."),
    PS3C_OPERATION_METHOD(op_rank, "op_rank(probs, *, dtype='float32', level=None, threads=0)\n--\n\n"
                                   "Places in a stable descending order, NaN last: (B, rows, cols) to int32\n"
                                   "(B, rows * cols)."),
    PS3C_OPERATION_METHOD(op_gt_mask, "op_gt_mask(gt, scales, positions, *, dtype='float32', level=None, threads=0)\n"
                                      "--\n\n"
                                      "uint8 (B, tokens): is the area-resized gt not 0 at each token's patch?"),
    {NULL, NULL, 0, NULL},
};
