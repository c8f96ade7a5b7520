/* assign_looks: assigns patches to looks by their ranks. */
#include "shared/operation.h"

/* The memory of one call; args points to it. */
typedef struct looks_call {
    ps3c_scale scales[PS3C_MAX_SCALES];
    const int32_t *rank[PS3C_MAX_SCALES];
    ps3c_tensor maps[PS3C_MAX_SCALES];
    int64_t *first, *tokens; /* [looks] */
    int64_t entries;         /* length of positions and of row_of */
    ps3c_assign_looks_args args;
} looks_call;

/* Reads the ranks of each scale, a permutation of its patches for every image. */
static int take_rank(ps3c_operation *operation, PyObject *item, int64_t batch, int64_t patches, const int32_t **rank)
{
    ps3c_tensor view;
    unsigned char *seen;

    *rank = ps3c_operation_array(operation, "rank", item, PS3C_ELEMENT_INT32, 2, (int64_t[]){batch, patches}, &view);
    seen = *rank ? ps3c_operation_allocate(operation, (size_t)patches) : NULL;
    if (!seen)
        return -1;
    for (int64_t b = 0; b < batch; b++) {
        memset(seen, 0, (size_t)patches);
        for (int64_t i = 0; i < patches; i++) {
            int32_t place = (*rank)[b * patches + i];
            if (place < 0 || place >= patches || seen[place]++)
                return ps3c_operation_refuse("rank", "got %d in image %lld, expected each of 0 to %lld once",
                                             (int)place, (long long)b, (long long)patches - 1);
        }
    }
    return 0;
}

static int take_ranks(ps3c_operation *operation, PyObject *object, looks_call *call)
{
    PyObject *list = ps3c_sequence("rank", object, "a sequence of arrays");
    int result = -1;

    if (!list)
        return -1;
    if (PyTuple_Size(list) != call->args.num_scales) {
        ps3c_operation_refuse("rank", "got %zd arrays, expected %lld", PyTuple_Size(list),
                              (long long)call->args.num_scales);
        goto cleanup;
    }
    for (int64_t i = 0; i < call->args.num_scales; i++)
        if (take_rank(operation, PyTuple_GetItem(list, i), call->args.batch,
                      call->scales[i].rows * call->scales[i].cols, &call->rank[i]) < 0)
            goto cleanup;
    result = 0;
cleanup:
    Py_DECREF(list);
    return result;
}

/* Number of tokens of look l of image b. -1 with ValueError if the ends decrease or exceed the patches. */
static int64_t tokens_of(const looks_call *call, int64_t b, int64_t l)
{
    int64_t tokens = 0;

    for (int64_t i = 0; i < call->args.num_scales; i++) {
        const int32_t *ends = call->args.ends + (b * call->args.num_scales + i) * call->args.looks;
        int64_t from = l ? ends[l - 1] : 0;
        if (ends[l] < from || ends[l] > call->scales[i].rows * call->scales[i].cols)
            return ps3c_operation_refuse("ends", "got %d after %lld, expected rising counts up to %lld", (int)ends[l],
                                         (long long)from, (long long)(call->scales[i].rows * call->scales[i].cols));
        tokens += ends[l] - from;
    }
    return tokens;
}

static int plan_looks(ps3c_operation *operation, PyObject *object, looks_call *call)
{
    ps3c_assign_looks_args *args = &call->args;
    ps3c_tensor view;

    args->ends = ps3c_operation_array(operation, "ends", object, PS3C_ELEMENT_INT32, 3,
                                      (int64_t[]){-1, args->num_scales, -1}, &view);
    if (!args->ends)
        return -1;
    args->batch = view.shape[0];
    args->looks = view.shape[2];
    if (args->batch < 1 || args->looks < 1)
        return ps3c_operation_refuse("ends", "got an empty array");
    call->first = ps3c_operation_allocate(operation, (size_t)args->looks * sizeof *call->first);
    call->tokens = ps3c_operation_allocate(operation, (size_t)args->looks * sizeof *call->tokens);
    if (!call->first || !call->tokens)
        return -1;
    for (int64_t l = 0; l < args->looks; l++) {
        call->first[l] = call->entries;
        call->tokens[l] = tokens_of(call, 0, l);
        for (int64_t b = 0; b < args->batch; b++) {
            int64_t tokens = tokens_of(call, b, l);
            if (tokens < 0)
                return -1;
            if (tokens != call->tokens[l])
                return ps3c_operation_refuse("ends", "give image %lld %lld tokens in look %lld, image 0 %lld",
                                             (long long)b, (long long)tokens, (long long)l, (long long)call->tokens[l]);
        }
        call->entries += args->batch * call->tokens[l];
    }
    args->look_first = call->first;
    args->look_tokens = call->tokens;
    return 0;
}

static int allocate_outputs(ps3c_operation *operation, looks_call *call)
{
    ps3c_assign_looks_args *args = &call->args;

    args->positions = ps3c_operation_allocate(operation, (size_t)call->entries * sizeof *args->positions);
    args->row_of = ps3c_operation_allocate(operation, (size_t)call->entries * sizeof *args->row_of);
    if (!args->positions || !args->row_of)
        return -1;
    for (int64_t i = 0; i < args->num_scales; i++) {
        int64_t rows = call->scales[i].rows, cols = call->scales[i].cols;
        call->maps[i] = (ps3c_tensor){.dtype = operation->run.dtype,
                                      .ndim = 3,
                                      .shape = {args->batch, rows, cols},
                                      .strides = {rows * cols, cols, 1}};
        call->maps[i].data = ps3c_operation_allocate(operation, (size_t)(args->batch * rows * cols) *
                                                                    ps3c_dtype_bytes(operation->run.dtype));
        if (!call->maps[i].data)
            return -1;
        if (args->batch * rows * cols > operation->positions)
            operation->positions = args->batch * rows * cols;
    }
    return 0;
}

/* ([positions], [row_of], [maps]) */
static PyObject *wrap_outputs(const looks_call *call)
{
    const ps3c_assign_looks_args *args = &call->args;
    PyObject *lists[3] = {PyList_New(args->looks), PyList_New(args->looks), PyList_New(args->num_scales)};
    PyObject *result = NULL;

    if (!lists[0] || !lists[1] || !lists[2])
        goto cleanup;
    for (int64_t l = 0; l < args->looks; l++) {
        int64_t shape[2] = {args->batch, call->tokens[l]};
        const int32_t *sources[2] = {args->positions + call->first[l], args->row_of + call->first[l]};
        for (int i = 0; i < 2; i++) {
            PyObject *array = ps3c_operation_result(sources[i], PS3C_INT32, 2, shape);
            if (!array)
                goto cleanup;
            PyList_SetItem(lists[i], l, array);
        }
    }
    for (int64_t i = 0; i < args->num_scales; i++) {
        PyObject *array = ps3c_operation_result(call->maps[i].data, call->maps[i].dtype, 3, call->maps[i].shape);
        if (!array)
            goto cleanup;
        PyList_SetItem(lists[2], i, array);
    }
    result = PyTuple_Pack(3, lists[0], lists[1], lists[2]);
cleanup:
    for (int i = 0; i < 3; i++)
        Py_XDECREF(lists[i]);
    return result;
}

static PyObject *assign_looks(PyObject *module, PyObject *positional, PyObject *named)
{
    static char *keywords[] = {"rank", "scales", "ends", PS3C_OPTIONS_KEYWORDS};
    PyObject *rank, *scales, *ends, *result = NULL;
    int64_t limit;
    ps3c_operation_options options = PS3C_OPTIONS_INIT;
    ps3c_operation operation = PS3C_OPERATION_INIT;
    looks_call call = {.entries = 0};

    (void)module;
    if (!PyArg_ParseTupleAndKeywords(positional, named, "OOO|$" PS3C_OPTIONS_FORMAT ":assign_looks", keywords, &rank,
                                     &scales, &ends, PS3C_OPTIONS(options)))
        return NULL;
    call.args.scales = call.scales;
    call.args.rank = call.rank;
    call.args.maps = call.maps;
    if (ps3c_operation_begin(&operation, &options) < 0 ||
        ps3c_operation_scales(scales, 1, call.scales, &call.args.num_scales, &limit) < 0 ||
        plan_looks(&operation, ends, &call) < 0 || take_ranks(&operation, rank, &call) < 0 ||
        allocate_outputs(&operation, &call) < 0)
        goto cleanup;
    PS3C_OPERATION_RUN(&operation, assign_looks, &call.args);
    result = wrap_outputs(&call);
cleanup:
    ps3c_operation_end(&operation);
    return result;
}

PS3C_OPERATION(
    assign_looks,
    "assign_looks(rank, scales, ends, *, dtype='float32', level=None, threads=0)\n--\n\n"
    "(positions, row_of, maps): positions and row_of are lists of int32 (B, tokens), one per look; maps is a list\n"
    "of (B, rows, cols), one per scale.\n\n"
    "rank: int32 (B, rows * cols) per scale, the result of rank. scales: (height, width, rows, cols) tuples.\n"
    "ends: int32 (B, scales, looks), cumulative count of patches after each look.");
