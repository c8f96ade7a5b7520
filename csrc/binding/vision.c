/* VisionModel and VisionPlan: the vision encoder of ps3c.h for Python. */
#include "binding.h"

typedef struct ps3c_vision_model {
    PyObject base;
    ps3c_vision_config config;
    int64_t weight_count;
    ps3c_weight_info *weight_infos; /* [weight_count] */
} ps3c_vision_model;

typedef struct ps3c_vision_plan_object {
    PyObject base;
    ps3c_vision_model *model; /* strong */
    ps3c_vision_plan *plan;
    ps3c_vision_request request; /* first_n_scales: NULL, the plan has its copy */
    ps3c_vision_plan_info info;
} ps3c_vision_plan_object;

/* ---- VisionModel --------------------------------------------------------------------------------------------- */

static int ps3c_vision_model_describe(ps3c_vision_model *self, ps3c_context *context)
{
    ps3c_status status = ps3c_vision_config_check(context, &self->config);
    if (status == PS3C_OK) {
        self->weight_count = ps3c_vision_weight_count(&self->config);
        self->weight_infos = PyMem_New(ps3c_weight_info, self->weight_count);
        if (self->weight_infos == NULL)
            status = PS3C_ERROR_MEMORY;
    }
    for (int64_t i = 0; i < self->weight_count && status == PS3C_OK; i++)
        status = ps3c_vision_weight_info(context, &self->config, i, &self->weight_infos[i]);
    if (status != PS3C_OK)
        ps3c_python_error(context, status);
    return status == PS3C_OK ? 0 : -1;
}

static PyObject *ps3c_vision_model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"config", NULL};
    PyObject *config;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:VisionModel", keywords, &config))
        return NULL;
    ps3c_vision_model *self = (ps3c_vision_model *)PyType_GenericAlloc(type, 0);
    ps3c_call call = {0};
    if (self == NULL || ps3c_parse_vision_config(config, &self->config) < 0 || ps3c_call_begin(&call, 0, NULL) < 0 ||
        ps3c_vision_model_describe(self, call.context) < 0)
        Py_CLEAR(self);
    ps3c_call_end(&call);
    return (PyObject *)self;
}

static void ps3c_vision_model_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyMem_Free(((ps3c_vision_model *)object)->weight_infos);
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyObject *ps3c_vision_model_weights(PyObject *object, void *unused)
{
    (void)unused;
    ps3c_vision_model *self = (ps3c_vision_model *)object;
    return ps3c_weights_list(self->weight_infos, self->weight_count);
}

/* first_n_scales: one integer an image. *list is the caller's to PyMem_Free. */
static int ps3c_parse_first_n(PyObject *object, int64_t batch, int64_t **list)
{
    static const char *name = "argument first_n_scales";
    *list = NULL;
    if (object == Py_None)
        return 0;
    PyObject *tuple = ps3c_sequence(object, "argument first_n_scales: expected None or a sequence of integers");
    if (tuple == NULL)
        return -1;
    bool failed = PyTuple_Size(tuple) != batch;
    if (failed)
        PyErr_Format(PyExc_ValueError, "%s: expected an entry for each of the %lld images, got %zd", name,
                     (long long)batch, PyTuple_Size(tuple));
    else if ((*list = PyMem_New(int64_t, batch)) == NULL) {
        failed = true;
        PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < batch && !failed; i++)
        failed = ps3c_parse_int64(name, PyTuple_GetItem(tuple, i), &(*list)[i]) < 0;
    Py_DECREF(tuple);
    return failed ? -1 : 0;
}

static int ps3c_vision_parse_request(PyObject *args, PyObject *kwargs, ps3c_vision_request *request, int64_t **first_n)
{
    static char *keywords[] = {"batch",
                               "height",
                               "width",
                               "dtype",
                               "device",
                               "mode",
                               "num_look_close",
                               "num_token_look_close",
                               "first_n_scales",
                               "prompt",
                               "gt_maps",
                               "smooth",
                               "pool_gt_only",
                               "global_text",
                               "hidden_states",
                               "workspace_limit",
                               "pooled",
                               "looks_per_step",
                               NULL};
    static const char *const modes[] = {"features", "pretrain", "low_res", NULL};
    PyObject *dtype = NULL, *device = NULL, *mode = NULL, *looks = Py_None, *tokens = Py_None, *first = Py_None;
    int prompt = 0, gt_maps = 0, smooth = 0, pool_gt_only = 0, global_text = 0, pooled = 0;
    int chosen = PS3C_VISION_FEATURES;
    long long batch, height, width, hidden_states = 1, looks_per_step = 0;
    Py_ssize_t limit = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "LLL|$OOOOOOpppppLnpL:plan", keywords, &batch, &height, &width,
                                     &dtype, &device, &mode, &looks, &tokens, &first, &prompt, &gt_maps, &smooth,
                                     &pool_gt_only, &global_text, &hidden_states, &limit, &pooled, &looks_per_step))
        return -1;
    if (limit < 0) {
        PyErr_Format(PyExc_ValueError, "argument workspace_limit: expected 0 or more, got %zd", limit);
        return -1;
    }
    *request = (ps3c_vision_request){.batch = batch,
                                     .height = height,
                                     .width = width,
                                     .prompt = prompt,
                                     .gt_maps = gt_maps,
                                     .smooth = smooth,
                                     .pool_gt_only = pool_gt_only,
                                     .global_text = global_text,
                                     .pooled = pooled,
                                     .hidden_states = hidden_states,
                                     .looks_per_step = looks_per_step,
                                     .workspace_limit = (size_t)limit};
    if ((dtype != NULL && ps3c_parse_dtype(dtype, &request->dtype) < 0) ||
        (device != NULL && ps3c_parse_device(device, &request->device) < 0) ||
        (mode != NULL && ps3c_parse_choice("argument mode", mode, modes, &chosen) < 0) ||
        ps3c_parse_looks("num_look_close", looks, &request->num_look_close) < 0 ||
        ps3c_parse_looks("num_token_look_close", tokens, &request->num_token_look_close) < 0 ||
        ps3c_parse_first_n(first, batch, first_n) < 0)
        return -1;
    request->mode = (ps3c_vision_mode)chosen;
    request->first_n_scales = *first_n;
    return 0;
}

static PyObject *ps3c_vision_model_plan(PyObject *object, PyObject *args, PyObject *kwargs)
{
    ps3c_vision_model *self = (ps3c_vision_model *)object;
    PyTypeObject *type = ps3c_state_of_instance(object)->vision_plan;
    ps3c_vision_plan_object *result = NULL;
    ps3c_vision_request request;
    ps3c_call call = {0};
    int64_t *first_n = NULL;
    if (ps3c_vision_parse_request(args, kwargs, &request, &first_n) < 0 || ps3c_call_begin(&call, 0, NULL) < 0)
        goto cleanup;
    result = (ps3c_vision_plan_object *)PyType_GenericAlloc(type, 0);
    if (result == NULL)
        goto cleanup;
    ps3c_status status = ps3c_vision_plan_create(call.context, &self->config, &request, &result->plan);
    if (status != PS3C_OK) {
        result->plan = NULL;
        ps3c_python_error(call.context, status);
        Py_CLEAR(result);
        goto cleanup;
    }
    result->model = (ps3c_vision_model *)Py_NewRef(object);
    result->request = request;
    result->request.first_n_scales = NULL;
    ps3c_vision_plan_describe(result->plan, &result->info);
cleanup:
    ps3c_call_end(&call);
    PyMem_Free(first_n);
    return (PyObject *)result;
}

static PyMethodDef ps3c_vision_model_methods[] = {
    {"plan", (PyCFunction)(void (*)(void))ps3c_vision_model_plan, METH_VARARGS | METH_KEYWORDS,
     "plan(batch, height, width, *, dtype='float32', device=('cpu', 0), mode='features', num_look_close=None,\n"
     "     num_token_look_close=None, first_n_scales=None, prompt=False, gt_maps=False, smooth=False,\n"
     "     pool_gt_only=False, global_text=False, hidden_states=1, workspace_limit=0, pooled=False,\n"
     "     looks_per_step=0)\n\n"
     "Everything of a forward pass that follows from sizes and arguments alone: a VisionPlan."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ps3c_vision_model_getset[] = {
    {"weights", ps3c_vision_model_weights, NULL, "List of (name, shape), in the order that run wants.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ps3c_vision_model_slots[] = {
    {Py_tp_doc, "VisionModel(config)\n--\n\nA vision encoder's sizes, checked; holds no weights. Immutable."},
    {Py_tp_new, ps3c_vision_model_new},
    {Py_tp_dealloc, ps3c_vision_model_dealloc},
    {Py_tp_methods, ps3c_vision_model_methods},
    {Py_tp_getset, ps3c_vision_model_getset},
    {0, NULL},
};

PyType_Spec ps3c_vision_model_spec = {
    .name = "ps3c._core.VisionModel",
    .basicsize = sizeof(ps3c_vision_model),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ps3c_vision_model_slots,
};

/* ---- VisionPlan: run ------------------------------------------------------------------------------------------- */

typedef struct ps3c_vision_run_args {
    PyObject *weights, *pixel_values, *prompt, *gt_maps, *global_text;
    PyObject *hidden_states, *selection_maps, *selection_probs, *bottomup_probs, *topdown_probs, *pooled, *workspace;
    int threads;
    const char *level;
    unsigned long long stream; /* cudaStream_t */
    int tf32;
    PyObject *step;
} ps3c_vision_run_args;

static int ps3c_vision_parse_run(PyObject *args, PyObject *kwargs, ps3c_vision_run_args *a)
{
    static char *keywords[] = {
        "weights",        "pixel_values",    "prompt",         "gt_maps",       "global_text", "hidden_states",
        "selection_maps", "selection_probs", "bottomup_probs", "topdown_probs", "pooled",      "workspace",
        "threads",        "level",           "stream",         "tf32",          "step",        NULL};
    *a = (ps3c_vision_run_args){.prompt = Py_None, .gt_maps = Py_None, .global_text = Py_None};
    a->hidden_states = a->selection_maps = a->selection_probs = Py_None;
    a->bottomup_probs = a->topdown_probs = a->pooled = a->step = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$OOOOOOOOOOizKpO:run", keywords, &a->weights, &a->pixel_values,
                                     &a->prompt, &a->gt_maps, &a->global_text, &a->hidden_states, &a->selection_maps,
                                     &a->selection_probs, &a->bottomup_probs, &a->topdown_probs, &a->pooled,
                                     &a->workspace, &a->threads, &a->level, &a->stream, &a->tf32, &a->step))
        return -1;
    if (a->workspace == NULL) {
        PyErr_SetString(PyExc_TypeError, "run() missing required argument 'workspace'");
        return -1;
    }
    return 0;
}

static int ps3c_vision_take_inputs(ps3c_vision_plan_object *self, const ps3c_vision_run_args *a, ps3c_bag *bag,
                                   ps3c_vision_io *io)
{
    const ps3c_vision_request *request = &self->request;
    const ps3c_vision_model *model = self->model;
    const int64_t batch = request->batch;
    const int64_t pixels[] = {batch, 3, request->height, request->width}, prompt[] = {batch, model->config.width};
    const int64_t maps[] = {batch, PS3C_ANY, PS3C_ANY}, flags[] = {batch, 1};
    const ps3c_label label = ps3c_argument("pixel_values");
    ps3c_tensor *weights, *prompts, *gt, *global;
    io->pixel_values = ps3c_bag_take(bag, &label, a->pixel_values,
                                     &(ps3c_expectation){(int)request->dtype, request->device, 4, pixels, false});
    if (io->pixel_values == NULL ||
        ps3c_bag_take_optional(bag, "prompt", a->prompt, request->prompt,
                               &(ps3c_expectation){(int)request->dtype, request->device, 2, prompt, false},
                               &prompts) < 0 ||
        ps3c_bag_take_optional(bag, "gt_maps", a->gt_maps, request->gt_maps,
                               &(ps3c_expectation){PS3C_ANY, request->device, 3, maps, false}, &gt) < 0 ||
        ps3c_bag_take_optional(bag, "global_text", a->global_text, request->global_text,
                               &(ps3c_expectation){PS3C_FLOAT32, request->device, 2, flags, false}, &global) < 0 ||
        ps3c_bag_take_weights(bag, a->weights, model->weight_infos, model->weight_count, request->dtype,
                              request->device, &weights) < 0)
        return -1;
    io->prompt = prompts;
    io->gt_maps = gt;
    io->global_text = global;
    io->weights = weights;
    return 0;
}

static int ps3c_vision_take_outputs(ps3c_vision_plan_object *self, const ps3c_vision_run_args *a, ps3c_bag *bag,
                                    ps3c_vision_io *io)
{
    const ps3c_vision_request *request = &self->request;
    const ps3c_vision_plan_info *info = &self->info;
    const int64_t batch = request->batch, scales = info->num_high_scales;
    const int64_t hidden[] = {batch, info->low_res_tokens + info->selected_tokens, self->model->config.width};
    const int64_t pooled[] = {batch, info->pooled_width};
    const bool pretrain = request->mode == PS3C_VISION_PRETRAIN, low_res = request->mode == PS3C_VISION_LOW_RES;
    int64_t grids[PS3C_MAX_SCALES][3];
    for (int64_t s = 0; s < scales; s++)
        memcpy(grids[s], (int64_t[]){batch, info->grid[s + 1][0], info->grid[s + 1][1]}, sizeof grids[s]);
    const ps3c_expectation states = {(int)request->dtype, request->device, 3, hidden, true};
    const ps3c_expectation maps = {(int)request->dtype, request->device, 3, grids[0], true};
    const ps3c_expectation pool = {(int)request->dtype, request->device, 2, pooled, true};
    ps3c_tensor *workspace;
    if (ps3c_bag_take_many(bag, "hidden_states", a->hidden_states, info->hidden_states, &states, 0,
                           &io->hidden_states) < 0 ||
        ps3c_bag_take_many(bag, "selection_maps", a->selection_maps, info->selection_maps ? scales : 0, &maps, 3,
                           &io->selection_maps) < 0 ||
        ps3c_bag_take_many(bag, "selection_probs", a->selection_probs, low_res ? 0 : scales, &maps, 3,
                           &io->selection_probs) < 0 ||
        ps3c_bag_take_many(bag, "bottomup_probs", a->bottomup_probs, pretrain ? scales : 0, &maps, 3,
                           &io->bottomup_probs) < 0 ||
        ps3c_bag_take_many(bag, "topdown_probs", a->topdown_probs, pretrain && request->prompt ? scales : 0, &maps, 3,
                           &io->topdown_probs) < 0 ||
        ps3c_bag_take_optional(bag, "pooled", a->pooled, info->pooled_width > 0, &pool, &io->pooled) < 0)
        return -1;
    workspace = ps3c_bag_take_workspace(bag, a->workspace, request->device, info->workspace_bytes);
    if (workspace == NULL)
        return -1;
    io->workspace = workspace->data;
    io->workspace_bytes = (size_t)workspace->shape[0];
    return 0;
}

static PyObject *ps3c_vision_plan_run(PyObject *object, PyObject *args, PyObject *kwargs)
{
    ps3c_vision_plan_object *self = (ps3c_vision_plan_object *)object;
    const ps3c_vision_plan_info *info = &self->info;
    Py_ssize_t room = self->model->weight_count + info->hidden_states + 4 * info->num_high_scales + 6;
    ps3c_vision_run_args a;
    ps3c_vision_io io = {0};
    ps3c_bag bag = {0};
    ps3c_call call = {0};
    PyObject *result = NULL;
    ps3c_status status;
    int64_t step = 0;
    if (ps3c_vision_parse_run(args, kwargs, &a) < 0 ||
        (a.step != Py_None && ps3c_parse_int64("argument step", a.step, &step) < 0) ||
        ps3c_bag_open(&bag, ps3c_state_of_instance(object), room) < 0 ||
        ps3c_vision_take_inputs(self, &a, &bag, &io) < 0 || ps3c_vision_take_outputs(self, &a, &bag, &io) < 0 ||
        ps3c_call_begin(&call, a.threads, a.level) < 0)
        goto cleanup;
    io.stream = (void *)(uintptr_t)a.stream;
    io.tf32 = a.tf32;
    PS3C_ENGINE_BEGIN(call)
    status = a.step == Py_None ? ps3c_vision_run(call.context, self->plan, &io)
                               : ps3c_vision_run_step(call.context, self->plan, &io, step);
    PS3C_ENGINE_END(call)
    result = status == PS3C_OK ? Py_NewRef(Py_None) : ps3c_python_error(call.context, status);
cleanup:
    ps3c_call_end(&call);
    ps3c_bag_close(&bag);
    return result;
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

/* [(first, second), ...] of the low resolution and every scale above. */
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

/* The patches that one look takes of one image, scale by scale. */
static PyObject *ps3c_look_takes(const ps3c_vision_plan_object *self, int64_t image, int64_t look)
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
            PyObject *takes = ps3c_look_takes(self, image, look);
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
    long long index;
    unsigned long long address;
    if (!PyArg_ParseTuple(args, "LK:rows", &index, &address))
        return NULL;
    const ps3c_vision_step step = ps3c_vision_plan_step(self->plan, index);
    const int32_t *rows = ps3c_vision_plan_rows(self->plan, index, (const void *)(uintptr_t)address);
    if (rows == NULL)
        return PyErr_Format(PyExc_ValueError, "step: got %lld, expected one that has looks", index);
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
    return PyBool_FromLong(((ps3c_vision_plan_object *)object)->info.selection_maps);
}

static PyMethodDef ps3c_vision_plan_methods[] = {
    {"run", (PyCFunction)(void (*)(void))ps3c_vision_plan_run, METH_VARARGS | METH_KEYWORDS,
     "run(weights, pixel_values, *, prompt=None, gt_maps=None, global_text=None, hidden_states=(),\n"
     "    selection_maps=(), selection_probs=(), bottomup_probs=(), topdown_probs=(), pooled=None, workspace,\n"
     "    threads=0, level=None, stream=0, tf32=False, step=None)\n\n"
     "Writes the outputs, which the caller allocated; releases the GIL meanwhile. step: one of steps\n"
     "alone; the workspace stays untouched between those of a chunk of images."},
    {"rows", ps3c_vision_plan_rows_of, METH_VARARGS,
     "rows($self, step, address, /)\n--\n\n"
     "Where the rows of a step's looks lie in a workspace at that address: (offset in bytes, (looks, images, tokens))\n"
     "of an int32 array. Row r is token low_res_tokens + r of hidden_states."},
    {NULL, NULL, 0, NULL},
};

#define PS3C_INFO(field) (void *)offsetof(ps3c_vision_plan_info, field)

static PyGetSetDef ps3c_vision_plan_getset[] = {
    {"workspace_bytes", ps3c_vision_plan_workspace, NULL, "Bytes of workspace a run needs.", NULL},
    {"hidden_states", ps3c_vision_plan_integer, NULL, "Layers that a run writes.", PS3C_INFO(hidden_states)},
    {"low_res_tokens", ps3c_vision_plan_integer, NULL, "Tokens of the low-res image.", PS3C_INFO(low_res_tokens)},
    {"selected_tokens", ps3c_vision_plan_integer, NULL, "Tokens of all looks, an image.", PS3C_INFO(selected_tokens)},
    {"looks", ps3c_vision_plan_integer, NULL, "Looks at high resolution.", PS3C_INFO(looks)},
    {"pooled_width", ps3c_vision_plan_integer, NULL, "Width of pooled; 0: none.", PS3C_INFO(pooled_width)},
    {"image_sizes", ps3c_vision_plan_image_sizes, NULL, "(height, width) of each scale, low-res first.", NULL},
    {"grids", ps3c_vision_plan_grids, NULL, "(rows, cols) of patches of each scale, low-res first.", NULL},
    {"steps", ps3c_vision_plan_steps, NULL,
     "[(first image, images, first look, looks)]; no looks: low resolution and selection.", NULL},
    {"selection_maps", ps3c_vision_plan_maps, NULL, "Does a run write selection maps?", NULL},
    {"takes", ps3c_vision_plan_takes, NULL, "[image][look][scale]: patches that a look takes of a scale.", NULL},
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
