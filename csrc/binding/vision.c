/* The Python types VisionModel and VisionPlan: the vision functions of ps3c.h. */
#include "fields.h"

typedef struct ps3c_vision_plan_object {
    PyObject base;
    ps3c_model_object *model; /* strong */
    ps3c_vision_plan *plan;
    ps3c_vision_request request; /* first_n_scales is NULL: the plan has a copy */
    ps3c_vision_plan_info info;
} ps3c_vision_plan_object;

/* ---- arguments ------------------------------------------------------------------------------------------------- */

static const char *const ps3c_modes[] = {"features", "pretrain", "low_res", NULL};
static const char *const ps3c_dtypes[] = {"float32", "float16", "bfloat16", NULL};
_Static_assert(sizeof(ps3c_vision_mode) == sizeof(int) && sizeof(ps3c_dtype) == sizeof(int), "choices are ints");

/* Arguments of VisionModel.plan. */
#define PS3C_R(field) offsetof(ps3c_vision_request, field)
static const ps3c_field ps3c_vision_request_fields[] = {
    {"batch", PS3C_FIELD_INT, PS3C_R(batch), .required = true},
    {"height", PS3C_FIELD_INT, PS3C_R(height), .required = true},
    {"width", PS3C_FIELD_INT, PS3C_R(width), .required = true},
    {"dtype", PS3C_FIELD_CHOICE, PS3C_R(dtype), .choices = ps3c_dtypes},
    {"device", PS3C_FIELD_DEVICE, PS3C_R(device), .required = false},
    {"mode", PS3C_FIELD_CHOICE, PS3C_R(mode), .choices = ps3c_modes},
    {"num_look_close", PS3C_FIELD_LOOKS, PS3C_R(num_look_close), .required = false},
    {"num_token_look_close", PS3C_FIELD_LOOKS, PS3C_R(num_token_look_close), .required = false},
    {"first_n_scales", PS3C_FIELD_EACH, PS3C_R(first_n_scales), .other = PS3C_R(batch)},
    {"prompt", PS3C_FIELD_BOOL, PS3C_R(prompt), .required = false},
    {"gt_maps", PS3C_FIELD_BOOL, PS3C_R(gt_maps), .required = false},
    {"smooth", PS3C_FIELD_BOOL, PS3C_R(smooth), .required = false},
    {"pool_gt_only", PS3C_FIELD_BOOL, PS3C_R(pool_gt_only), .required = false},
    {"global_text", PS3C_FIELD_BOOL, PS3C_R(global_text), .required = false},
    {"hidden_states", PS3C_FIELD_INT, PS3C_R(hidden_states), .required = false},
    {"workspace_limit", PS3C_FIELD_SIZE, PS3C_R(workspace_limit), .required = false},
    {"pooled", PS3C_FIELD_BOOL, PS3C_R(pooled), .required = false},
    {"looks_per_step", PS3C_FIELD_INT, PS3C_R(looks_per_step), .required = false},
    {.name = NULL},
};

typedef struct ps3c_vision_run_args {
    ps3c_vision_io io;
    int threads;
    const char *level;
    int64_t step; /* PS3C_ALL_STEPS: all steps */
} ps3c_vision_run_args;

#define PS3C_ALL_STEPS INT64_MIN

/* Arguments of VisionPlan.run. */
#define PS3C_A(field) offsetof(ps3c_vision_run_args, field)
#define PS3C_COUNT(field) offsetof(ps3c_vision_plan_info, field)
static const ps3c_field ps3c_vision_run_fields[] = {
    {"weights", PS3C_FIELD_WEIGHTS, PS3C_A(io.weights), .required = true},
    {"pixel_values", PS3C_FIELD_TENSOR, PS3C_A(io.pixel_values), .required = true},
    {"prompt", PS3C_FIELD_TENSOR, PS3C_A(io.prompt), .required = false},
    {"gt_maps", PS3C_FIELD_TENSOR, PS3C_A(io.gt_maps), .required = false},
    {"global_text", PS3C_FIELD_TENSOR, PS3C_A(io.global_text), .required = false},
    {"hidden_states", PS3C_FIELD_TENSORS, PS3C_A(io.hidden_states), .other = PS3C_COUNT(hidden_states)},
    {"selection_maps", PS3C_FIELD_TENSORS, PS3C_A(io.selection_maps), .other = PS3C_COUNT(selection_maps)},
    {"selection_probs", PS3C_FIELD_TENSORS, PS3C_A(io.selection_probs), .other = PS3C_COUNT(selection_probs)},
    {"bottomup_probs", PS3C_FIELD_TENSORS, PS3C_A(io.bottomup_probs), .other = PS3C_COUNT(bottomup_probs)},
    {"topdown_probs", PS3C_FIELD_TENSORS, PS3C_A(io.topdown_probs), .other = PS3C_COUNT(topdown_probs)},
    {"pooled", PS3C_FIELD_OUTPUT, PS3C_A(io.pooled), .required = false},
    {"workspace", PS3C_FIELD_WORKSPACE, PS3C_A(io.workspace), .required = true, .other = PS3C_A(io.workspace_bytes)},
    {"threads", PS3C_FIELD_THREADS, PS3C_A(threads), .required = false},
    {"level", PS3C_FIELD_NAME, PS3C_A(level), .required = false},
    {"stream", PS3C_FIELD_POINTER, PS3C_A(io.stream), .required = false},
    {"tf32", PS3C_FIELD_BOOL, PS3C_A(io.tf32), .required = false},
    {"step", PS3C_FIELD_INT_OR_NONE, PS3C_A(step), .required = false},
    {.name = NULL},
};

/* ---- VisionModel --------------------------------------------------------------------------------------------- */

static int ps3c_vision_parse(PyObject *dict, ps3c_model_object *model)
{
    return ps3c_parse_vision_config(dict, &model->config.vision);
}
static ps3c_status ps3c_vision_check(ps3c_context *context, const ps3c_model_object *model)
{
    return ps3c_vision_config_check(context, &model->config.vision);
}
static int64_t ps3c_vision_count(const ps3c_model_object *model)
{
    return ps3c_vision_weight_count(&model->config.vision);
}
static ps3c_status ps3c_vision_info(ps3c_context *context, const ps3c_model_object *model, int64_t index,
                                    ps3c_weight_info *info)
{
    return ps3c_vision_weight_info(context, &model->config.vision, index, info);
}

static PyObject *ps3c_vision_model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const ps3c_tower_kind tower = {.format = "O:VisionModel",
                                          .parse = ps3c_vision_parse,
                                          .check = ps3c_vision_check,
                                          .weight_count = ps3c_vision_count,
                                          .weight_info = ps3c_vision_info};
    return ps3c_model_new(&tower, type, args, kwargs);
}

static PyObject *ps3c_vision_model_plan(PyObject *object, PyObject *args, PyObject *kwargs)
{
    ps3c_model_object *self = (ps3c_model_object *)object;
    ps3c_vision_plan_object *result = NULL;
    ps3c_vision_request request = {.num_look_close = PS3C_NONE, .num_token_look_close = PS3C_NONE, .hidden_states = 1};
    ps3c_reader reader = ps3c_call_reader("plan()", ps3c_vision_request_fields, 3, &request);
    ps3c_call call = {0};
    if (ps3c_read_arguments(&reader, args, kwargs) < 0 || ps3c_call_begin(&call, 0, NULL) < 0)
        goto cleanup;
    result = (ps3c_vision_plan_object *)PyType_GenericAlloc(ps3c_state_of_instance(object)->vision_plan, 0);
    if (result == NULL)
        goto cleanup;
    ps3c_status status = ps3c_vision_plan_create(call.context, &self->config.vision, &request, &result->plan);
    if (status != PS3C_OK) {
        ps3c_python_error(call.context, status);
        Py_CLEAR(result);
        goto cleanup;
    }
    result->model = (ps3c_model_object *)Py_NewRef(object);
    result->request = request;
    result->request.first_n_scales = NULL;
    ps3c_vision_plan_describe(result->plan, &result->info);
cleanup:
    ps3c_call_end(&call);
    ps3c_reader_close(&reader);
    return (PyObject *)result;
}

static PyMethodDef ps3c_vision_model_methods[] = {
    {"plan", (PyCFunction)(void (*)(void))ps3c_vision_model_plan, METH_VARARGS | METH_KEYWORDS,
     "plan(batch, height, width, *, dtype='float32', device=('cpu', 0), mode='features', num_look_close=None,\n"
     "     num_token_look_close=None, first_n_scales=None, prompt=False, gt_maps=False, smooth=False,\n"
     "     pool_gt_only=False, global_text=False, hidden_states=1, workspace_limit=0, pooled=False,\n"
     "     looks_per_step=0)\n\n"
     "Returns a VisionPlan: everything of a forward pass that follows from sizes and arguments alone.\n"
     "workspace_limit: bytes, 0 for the default. looks_per_step: 0 for no limit."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ps3c_vision_model_getset[] = {
    {"weights", ps3c_model_weights, NULL, "List of (name, shape), in the order of run's weights.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ps3c_vision_model_slots[] = {
    {Py_tp_doc,
     "VisionModel(config)\n--\n\nThe checked configuration of a vision encoder. It has no weights and is immutable."},
    {Py_tp_new, ps3c_vision_model_new},
    {Py_tp_dealloc, ps3c_model_dealloc},
    {Py_tp_methods, ps3c_vision_model_methods},
    {Py_tp_getset, ps3c_vision_model_getset},
    {0, NULL},
};

PyType_Spec ps3c_vision_model_spec = {
    .name = "ps3c._core.VisionModel",
    .basicsize = sizeof(ps3c_model_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ps3c_vision_model_slots,
};

/* ---- VisionPlan: run ------------------------------------------------------------------------------------------- */

/* run, or only the check of its tensors. */
static PyObject *ps3c_vision_plan_call(PyObject *object, PyObject *args, PyObject *kwargs, bool check)
{
    ps3c_vision_plan_object *self = (ps3c_vision_plan_object *)object;
    const ps3c_vision_plan_info *info = &self->info;
    Py_ssize_t room = self->model->weight_count + info->hidden_states + 4 * info->num_high_scales + 6;
    ps3c_vision_run_args a = {.step = PS3C_ALL_STEPS};
    ps3c_borrowed borrowed = {0};
    ps3c_reader reader = ps3c_call_reader(check ? "check()" : "run()", ps3c_vision_run_fields, 2, &a);
    ps3c_call call = {0};
    PyObject *result = NULL;
    ps3c_status status;
    reader.borrowed = &borrowed;
    reader.model = self->model;
    reader.counts = info;
    if (ps3c_borrowed_open(&borrowed, ps3c_state_of_instance(object), self->request.device, room) < 0 ||
        ps3c_read_arguments(&reader, args, kwargs) < 0 || ps3c_call_begin(&call, a.threads, a.level) < 0)
        goto cleanup;
    PS3C_ENGINE_BEGIN(call)
    status = check                      ? ps3c_vision_check_io(call.context, self->plan, &a.io)
             : a.step == PS3C_ALL_STEPS ? ps3c_vision_run(call.context, self->plan, &a.io)
                                        : ps3c_vision_run_step(call.context, self->plan, &a.io, a.step);
    PS3C_ENGINE_END(call)
    result = status == PS3C_OK ? Py_NewRef(Py_None) : ps3c_python_error(call.context, status);
cleanup:
    ps3c_call_end(&call);
    ps3c_borrowed_close(&borrowed);
    return result;
}

static PyObject *ps3c_vision_plan_run(PyObject *object, PyObject *args, PyObject *kwargs)
{
    return ps3c_vision_plan_call(object, args, kwargs, false);
}

static PyObject *ps3c_vision_plan_check(PyObject *object, PyObject *args, PyObject *kwargs)
{
    return ps3c_vision_plan_call(object, args, kwargs, true);
}

/* ---- VisionPlan: attributes -------------------------------------------------------------------------------------- */

static void ps3c_vision_plan_dealloc(PyObject *object)
{
    ps3c_vision_plan_object *self = (ps3c_vision_plan_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    ps3c_vision_plan_free(self->plan);
    Py_CLEAR(self->model);
    PyObject_Free(object);
    Py_DECREF(type);
}

/* A list of (first, second), one for each scale; the low resolution is first. */
static PyObject *ps3c_pairs(ps3c_vision_plan_object *self, int64_t (*pairs)[2])
{
    PyObject *list = PyList_New(self->info.num_high_scales + 1);
    for (Py_ssize_t s = 0; list != NULL && s < PyList_Size(list); s++) {
        PyObject *pair = Py_BuildValue("(LL)", (long long)pairs[s][0], (long long)pairs[s][1]);
        if (pair == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, s, pair);
    }
    return list;
}

static PyObject *ps3c_vision_plan_image_sizes(PyObject *object, void *unused)
{
    (void)unused;
    ps3c_vision_plan_object *self = (ps3c_vision_plan_object *)object;
    return ps3c_pairs(self, self->info.image_size);
}

static PyObject *ps3c_vision_plan_grids(PyObject *object, void *unused)
{
    (void)unused;
    ps3c_vision_plan_object *self = (ps3c_vision_plan_object *)object;
    return ps3c_pairs(self, self->info.grid);
}

/* A list of the numbers of patches that one look takes from each high-res scale of one image. */
static PyObject *ps3c_takes_of_look(const ps3c_vision_plan_object *self, int64_t image, int64_t look)
{
    PyObject *takes = PyList_New(self->info.num_high_scales);
    for (Py_ssize_t s = 0; takes != NULL && s < PyList_Size(takes); s++) {
        PyObject *take = PyLong_FromLongLong(ps3c_vision_plan_take(self->plan, image, look, s));
        if (take == NULL)
            Py_CLEAR(takes);
        else
            PyList_SetItem(takes, s, take);
    }
    return takes;
}

static PyObject *ps3c_vision_plan_takes(PyObject *object, void *unused)
{
    (void)unused;
    ps3c_vision_plan_object *self = (ps3c_vision_plan_object *)object;
    PyObject *images = PyList_New(0);
    for (int64_t image = 0; images != NULL && image < self->request.batch; image++) {
        PyObject *looks = PyList_New(0);
        bool failed = looks == NULL || PyList_Append(images, looks) < 0;
        for (int64_t look = 0; !failed && look < self->info.looks; look++) {
            PyObject *takes = ps3c_takes_of_look(self, image, look);
            failed = takes == NULL || PyList_Append(looks, takes) < 0;
            Py_XDECREF(takes);
        }
        Py_XDECREF(looks);
        if (failed)
            Py_CLEAR(images);
    }
    return images;
}

static PyObject *ps3c_vision_plan_steps(PyObject *object, void *unused)
{
    (void)unused;
    ps3c_vision_plan_object *self = (ps3c_vision_plan_object *)object;
    PyObject *list = PyList_New(0);
    for (int64_t index = 0; list != NULL && index < self->info.steps; index++) {
        const ps3c_vision_step step = ps3c_vision_plan_step(self->plan, index);
        PyObject *item = Py_BuildValue("(LLLL)", (long long)step.first_image, (long long)step.images,
                                       (long long)step.first_look, (long long)step.looks);
        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *ps3c_vision_plan_rows_of(PyObject *object, PyObject *args)
{
    ps3c_vision_plan_object *self = (ps3c_vision_plan_object *)object;
    PyObject *number;
    int64_t index;
    unsigned long long address;
    if (!PyArg_ParseTuple(args, "OK:rows", &number, &address) || ps3c_parse_int64("step", number, &index) < 0)
        return NULL;
    const ps3c_vision_step step = ps3c_vision_plan_step(self->plan, index);
    const int32_t *rows = ps3c_vision_plan_rows(self->plan, index, (const void *)(uintptr_t)address);
    if (rows == NULL)
        return PyErr_Format(PyExc_ValueError, "step: got %lld, expected a step of looks", (long long)index);
    return Py_BuildValue("(L(LLL))", (long long)((uintptr_t)rows - (uintptr_t)address), (long long)step.looks,
                         (long long)step.images, (long long)step.tokens);
}

static PyObject *ps3c_vision_plan_integer(PyObject *object, void *offset)
{
    const char *info = (const char *)&((ps3c_vision_plan_object *)object)->info;
    return PyLong_FromLongLong(*(const int64_t *)(info + (size_t)offset));
}

static PyObject *ps3c_vision_plan_workspace(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(((ps3c_vision_plan_object *)object)->info.workspace_bytes);
}

static PyObject *ps3c_vision_plan_maps(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((ps3c_vision_plan_object *)object)->info.selection_maps > 0);
}

static PyMethodDef ps3c_vision_plan_methods[] = {
    {"run", (PyCFunction)(void (*)(void))ps3c_vision_plan_run, METH_VARARGS | METH_KEYWORDS,
     "run(weights, pixel_values, *, prompt=None, gt_maps=None, global_text=None, hidden_states=(),\n"
     "    selection_maps=(), selection_probs=(), bottomup_probs=(), topdown_probs=(), pooled=None, workspace,\n"
     "    threads=0, level=None, stream=0, tf32=False, step=None)\n\n"
     "Runs the encoder and writes to the caller's output tensors. Releases the GIL during the run. step: index in\n"
     "steps, to run only this step; do not change the workspace between the steps of a chunk. None: all steps."},
    {"check", (PyCFunction)(void (*)(void))ps3c_vision_plan_check, METH_VARARGS | METH_KEYWORDS,
     "check(weights, pixel_values, **arguments)\n\n"
     "Checks the tensors of a run, whose arguments it takes, and runs nothing. workspace may be empty."},
    {"rows", ps3c_vision_plan_rows_of, METH_VARARGS,
     "rows($self, step, address, /)\n--\n\n"
     "The rows of hidden_states that the looks of a step write. They are an int32 array in the workspace at that\n"
     "address. Returns (offset in bytes, (looks, images, tokens)). Value r means row low_res_tokens + r."},
    {NULL, NULL, 0, NULL},
};

#define PS3C_INFO(field) (void *)offsetof(ps3c_vision_plan_info, field)

static PyGetSetDef ps3c_vision_plan_getset[] = {
    {"workspace_bytes", ps3c_vision_plan_workspace, NULL, "Size of a run's workspace in bytes.", NULL},
    {"hidden_states", ps3c_vision_plan_integer, NULL, "Number of hidden states that a run writes.",
     PS3C_INFO(hidden_states)},
    {"low_res_tokens", ps3c_vision_plan_integer, NULL, "Low-res tokens per image.", PS3C_INFO(low_res_tokens)},
    {"selected_tokens", ps3c_vision_plan_integer, NULL, "Tokens of all looks per image.", PS3C_INFO(selected_tokens)},
    {"looks", ps3c_vision_plan_integer, NULL, "Number of looks.", PS3C_INFO(looks)},
    {"pooled_width", ps3c_vision_plan_integer, NULL, "Width of pooled; 0 if there is none.", PS3C_INFO(pooled_width)},
    {"image_sizes", ps3c_vision_plan_image_sizes, NULL, "(height, width) of each scale, low-res first.", NULL},
    {"grids", ps3c_vision_plan_grids, NULL, "(rows, cols) of patches of each scale, low-res first.", NULL},
    {"steps", ps3c_vision_plan_steps, NULL,
     "List of (first image, images, first look, looks). looks is 0 in a step of low resolution and selection.", NULL},
    {"selection_maps", ps3c_vision_plan_maps, NULL, "True if a run writes selection maps.", NULL},
    {"takes", ps3c_vision_plan_takes, NULL,
     "[image][look][scale]: number of patches that a look takes from a high-res scale.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ps3c_vision_plan_slots[] = {
    {Py_tp_doc, "What VisionModel.plan returns. Immutable; any number of threads may run it at once."},
    {Py_tp_dealloc, ps3c_vision_plan_dealloc},
    {Py_tp_methods, ps3c_vision_plan_methods},
    {Py_tp_getset, ps3c_vision_plan_getset},
    {0, NULL},
};

PyType_Spec ps3c_vision_plan_spec = {
    .name = "ps3c._core.VisionPlan",
    .basicsize = sizeof(ps3c_vision_plan_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ps3c_vision_plan_slots,
};
