/* TextModel and TextPlan: the text tower of ps3c.h for Python. */
#include "binding.h"

typedef struct ps3c_text_model {
    PyObject base;
    ps3c_text_config config;
    int64_t weight_count;
    ps3c_weight_info *weight_infos; /* [weight_count] */
} ps3c_text_model;

typedef struct ps3c_text_plan_object {
    PyObject base;
    ps3c_text_model *model; /* strong */
    ps3c_text_plan *plan;
    int64_t batch, length;
    ps3c_dtype dtype;
    ps3c_device device;
} ps3c_text_plan_object;

/* ---- TextModel ------------------------------------------------------------------------------------------------- */

static int ps3c_text_model_describe(ps3c_text_model *self, ps3c_context *context)
{
    ps3c_status status = ps3c_text_config_check(context, &self->config);
    if (status == PS3C_OK) {
        self->weight_count = ps3c_text_weight_count(&self->config);
        self->weight_infos = PyMem_New(ps3c_weight_info, self->weight_count);
        if (self->weight_infos == NULL)
            status = PS3C_ERROR_MEMORY;
    }
    for (int64_t i = 0; i < self->weight_count && status == PS3C_OK; i++)
        status = ps3c_text_weight_info(context, &self->config, i, &self->weight_infos[i]);
    if (status != PS3C_OK)
        ps3c_python_error(context, status);
    return status == PS3C_OK ? 0 : -1;
}

static PyObject *ps3c_text_model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"config", NULL};
    PyObject *config;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:TextModel", keywords, &config))
        return NULL;
    ps3c_text_model *self = (ps3c_text_model *)PyType_GenericAlloc(type, 0);
    ps3c_call call = {0};
    if (self == NULL || ps3c_parse_text_config(config, &self->config) < 0 || ps3c_call_begin(&call, 0, NULL) < 0 ||
        ps3c_text_model_describe(self, call.context) < 0)
        Py_CLEAR(self);
    ps3c_call_end(&call);
    return (PyObject *)self;
}

static void ps3c_text_model_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyMem_Free(((ps3c_text_model *)object)->weight_infos);
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyObject *ps3c_text_model_weights(PyObject *object, void *unused)
{
    (void)unused;
    ps3c_text_model *self = (ps3c_text_model *)object;
    return ps3c_weights_list(self->weight_infos, self->weight_count);
}

static PyObject *ps3c_text_model_plan(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"batch", "length", "dtype", "device", "workspace_limit", NULL};
    ps3c_text_model *self = (ps3c_text_model *)object;
    PyTypeObject *type = ps3c_state_of_instance(object)->text_plan;
    ps3c_text_plan_object *result = NULL;
    PyObject *dtype_name = NULL, *device_name = NULL;
    ps3c_dtype dtype = PS3C_FLOAT32;
    ps3c_device device = {PS3C_CPU, 0};
    long long batch, length;
    Py_ssize_t limit = 0;
    ps3c_call call = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "LL|$OOn:plan", keywords, &batch, &length, &dtype_name, &device_name,
                                     &limit))
        return NULL;
    if (limit < 0) {
        PyErr_Format(PyExc_ValueError, "argument workspace_limit: expected 0 or more, got %zd", limit);
        return NULL;
    }
    if ((dtype_name != NULL && ps3c_parse_dtype(dtype_name, &dtype) < 0) ||
        (device_name != NULL && ps3c_parse_device(device_name, &device) < 0) || ps3c_call_begin(&call, 0, NULL) < 0)
        return NULL;
    result = (ps3c_text_plan_object *)PyType_GenericAlloc(type, 0);
    if (result == NULL)
        goto cleanup;
    ps3c_status status =
        ps3c_text_plan_create(call.context, &self->config, batch, length, dtype, device, (size_t)limit, &result->plan);
    if (status != PS3C_OK) {
        result->plan = NULL;
        ps3c_python_error(call.context, status);
        Py_CLEAR(result);
        goto cleanup;
    }
    result->model = (ps3c_text_model *)Py_NewRef(object);
    result->batch = batch;
    result->length = length;
    result->dtype = dtype;
    result->device = device;
cleanup:
    ps3c_call_end(&call);
    return (PyObject *)result;
}

static PyMethodDef ps3c_text_model_methods[] = {
    {"plan", (PyCFunction)(void (*)(void))ps3c_text_model_plan, METH_VARARGS | METH_KEYWORDS,
     "plan(batch, length, *, dtype='float32', device=('cpu', 0), workspace_limit=0)\n\n"
     "What a run over (batch, length) token ids needs: a TextPlan."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ps3c_text_model_getset[] = {
    {"weights", ps3c_text_model_weights, NULL, "List of (name, shape), in the order that run wants.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ps3c_text_model_slots[] = {
    {Py_tp_doc, "TextModel(config)\n--\n\nA text tower's sizes, checked; holds no weights. Immutable."},
    {Py_tp_new, ps3c_text_model_new},
    {Py_tp_dealloc, ps3c_text_model_dealloc},
    {Py_tp_methods, ps3c_text_model_methods},
    {Py_tp_getset, ps3c_text_model_getset},
    {0, NULL},
};

PyType_Spec ps3c_text_model_spec = {
    .name = "ps3c._core.TextModel",
    .basicsize = sizeof(ps3c_text_model),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ps3c_text_model_slots,
};

/* ---- TextPlan ---------------------------------------------------------------------------------------------------- */

typedef struct ps3c_text_run_args {
    PyObject *weights, *ids, *pooled, *prompt, *workspace;
    int threads;
    const char *level;
    unsigned long long stream; /* cudaStream_t */
    int tf32;
} ps3c_text_run_args;

static int ps3c_text_parse_run(PyObject *args, PyObject *kwargs, ps3c_text_run_args *a)
{
    static char *keywords[] = {"weights", "ids",   "pooled", "prompt", "workspace",
                               "threads", "level", "stream", "tf32",   NULL};
    *a = (ps3c_text_run_args){0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$OOOizKp:run", keywords, &a->weights, &a->ids, &a->pooled,
                                     &a->prompt, &a->workspace, &a->threads, &a->level, &a->stream, &a->tf32))
        return -1;
    const char *missing = a->pooled == NULL ? "pooled" : a->prompt == NULL ? "prompt" : "workspace";
    if (a->pooled == NULL || a->prompt == NULL || a->workspace == NULL) {
        PyErr_Format(PyExc_TypeError, "run() missing required argument '%s'", missing);
        return -1;
    }
    return 0;
}

/* Sizes of an output: (B, width), or (B, length, width) when every token has one. */
static ps3c_expectation ps3c_text_output(const ps3c_text_plan_object *self, int64_t width, int64_t shape[3])
{
    bool pooled = self->model->config.pool != PS3C_POOL_NONE || self->model->config.class_token;
    shape[0] = self->batch;
    shape[1] = pooled ? width : ps3c_text_plan_pooled_tokens(self->plan);
    shape[2] = width;
    return (ps3c_expectation){(int)self->dtype, self->device, pooled ? 2 : 3, shape, true};
}

static int ps3c_text_take(ps3c_text_plan_object *self, const ps3c_text_run_args *a, ps3c_bag *bag, ps3c_text_io *io)
{
    const ps3c_text_model *model = self->model;
    const int64_t ids_shape[] = {self->batch, self->length};
    int64_t pooled_shape[3], prompt_shape[3];
    const ps3c_expectation ids = {PS3C_INT64, self->device, 2, ids_shape, false};
    const ps3c_expectation pooled = ps3c_text_output(self, model->config.output_dim, pooled_shape);
    const ps3c_expectation prompt = ps3c_text_output(self, model->config.prompt_dim, prompt_shape);
    const ps3c_label ids_label = ps3c_argument("ids"), pooled_label = ps3c_argument("pooled"),
                     prompt_label = ps3c_argument("prompt");
    ps3c_tensor *weights, *workspace;
    io->ids = ps3c_bag_take(bag, &ids_label, a->ids, &ids);
    if (io->ids == NULL || ps3c_bag_take_weights(bag, a->weights, model->weight_infos, model->weight_count, self->dtype,
                                                 self->device, &weights) < 0)
        return -1;
    io->weights = weights;
    if ((io->pooled = ps3c_bag_take(bag, &pooled_label, a->pooled, &pooled)) == NULL ||
        (io->prompt = ps3c_bag_take(bag, &prompt_label, a->prompt, &prompt)) == NULL)
        return -1;
    workspace = ps3c_bag_take_workspace(bag, a->workspace, self->device, ps3c_text_plan_workspace_bytes(self->plan));
    if (workspace == NULL)
        return -1;
    io->workspace = workspace->data;
    io->workspace_bytes = (size_t)workspace->shape[0];
    return 0;
}

static PyObject *ps3c_text_plan_run(PyObject *object, PyObject *args, PyObject *kwargs)
{
    ps3c_text_plan_object *self = (ps3c_text_plan_object *)object;
    ps3c_text_run_args a;
    ps3c_text_io io = {0};
    ps3c_bag bag = {0};
    ps3c_call call = {0};
    PyObject *result = NULL;
    ps3c_status status;
    if (ps3c_text_parse_run(args, kwargs, &a) < 0 ||
        ps3c_bag_open(&bag, ps3c_state_of_instance(object), self->model->weight_count + 4) < 0 ||
        ps3c_text_take(self, &a, &bag, &io) < 0 || ps3c_call_begin(&call, a.threads, a.level) < 0)
        goto cleanup;
    io.stream = (void *)(uintptr_t)a.stream;
    io.tf32 = a.tf32;
    PS3C_ENGINE_BEGIN(call)
    status = ps3c_text_run(call.context, self->plan, &io);
    PS3C_ENGINE_END(call)
    result = status == PS3C_OK ? Py_NewRef(Py_None) : ps3c_python_error(call.context, status);
cleanup:
    ps3c_call_end(&call);
    ps3c_bag_close(&bag);
    return result;
}

static void ps3c_text_plan_dealloc(PyObject *object)
{
    ps3c_text_plan_object *self = (ps3c_text_plan_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    ps3c_text_plan_free(self->plan);
    Py_CLEAR(self->model);
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyObject *ps3c_text_plan_workspace(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(ps3c_text_plan_workspace_bytes(((ps3c_text_plan_object *)object)->plan));
}

static PyObject *ps3c_text_plan_tokens(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(ps3c_text_plan_pooled_tokens(((ps3c_text_plan_object *)object)->plan));
}

static PyMethodDef ps3c_text_plan_methods[] = {
    {"run", (PyCFunction)(void (*)(void))ps3c_text_plan_run, METH_VARARGS | METH_KEYWORDS,
     "run(weights, ids, *, pooled, prompt, workspace, threads=0, level=None, stream=0, tf32=False)\n\n"
     "Writes pooled and prompt, which the caller allocated; releases the GIL meanwhile."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ps3c_text_plan_getset[] = {
    {"workspace_bytes", ps3c_text_plan_workspace, NULL, "Bytes of workspace a run needs.", NULL},
    {"pooled_tokens", ps3c_text_plan_tokens, NULL, "Tokens a text has in the outputs: 1, or all.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ps3c_text_plan_slots[] = {
    {Py_tp_doc, "What TextModel.plan returns. Immutable; any number of threads may run it at once."},
    {Py_tp_dealloc, ps3c_text_plan_dealloc},
    {Py_tp_methods, ps3c_text_plan_methods},
    {Py_tp_getset, ps3c_text_plan_getset},
    {0, NULL},
};

PyType_Spec ps3c_text_plan_spec = {
    .name = "ps3c._core.TextPlan",
    .basicsize = sizeof(ps3c_text_plan_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ps3c_text_plan_slots,
};
