/* The Python types TextModel and TextPlan: the text functions of ps3c.h. */
#include "fields.h"

typedef struct ps3c_text_plan_object {
    PyObject base;
    ps3c_model_object *model; /* strong */
    ps3c_text_plan *plan;
    ps3c_text_request request;
    ps3c_text_plan_info info;
} ps3c_text_plan_object;

/* ---- arguments ------------------------------------------------------------------------------------------------- */

static const char *const ps3c_dtypes[] = {"float32", "float16", "bfloat16", NULL};

/* Arguments of TextModel.plan. */
#define PS3C_R(field) offsetof(ps3c_text_request, field)
static const ps3c_field ps3c_text_request_fields[] = {
    {"batch", PS3C_FIELD_INT, PS3C_R(batch), .required = true},
    {"length", PS3C_FIELD_INT, PS3C_R(length), .required = true},
    {"dtype", PS3C_FIELD_CHOICE, PS3C_R(dtype), .choices = ps3c_dtypes},
    {"device", PS3C_FIELD_DEVICE, PS3C_R(device), .required = false},
    {"workspace_limit", PS3C_FIELD_SIZE, PS3C_R(workspace_limit), .required = false},
    {.name = NULL},
};

typedef struct ps3c_text_run_args {
    ps3c_text_io io;
    int threads;
    const char *level;
} ps3c_text_run_args;

/* Arguments of TextPlan.run. */
#define PS3C_A(field) offsetof(ps3c_text_run_args, field)
static const ps3c_field ps3c_text_run_fields[] = {
    {"weights", PS3C_FIELD_WEIGHTS, PS3C_A(io.weights), .required = true},
    {"ids", PS3C_FIELD_TENSOR, PS3C_A(io.ids), .required = true},
    {"pooled", PS3C_FIELD_OUTPUT, PS3C_A(io.pooled), .required = true},
    {"prompt", PS3C_FIELD_OUTPUT, PS3C_A(io.prompt), .required = true},
    {"workspace", PS3C_FIELD_WORKSPACE, PS3C_A(io.workspace), .required = true, .other = PS3C_A(io.workspace_bytes)},
    {"threads", PS3C_FIELD_THREADS, PS3C_A(threads), .required = false},
    {"level", PS3C_FIELD_NAME, PS3C_A(level), .required = false},
    {"stream", PS3C_FIELD_POINTER, PS3C_A(io.stream), .required = false},
    {"tf32", PS3C_FIELD_BOOL, PS3C_A(io.tf32), .required = false},
    {.name = NULL},
};

/* ---- TextModel ------------------------------------------------------------------------------------------------- */

static int ps3c_text_parse(PyObject *dict, ps3c_model_object *model)
{
    return ps3c_parse_text_config(dict, &model->config.text);
}
static ps3c_status ps3c_text_check(ps3c_context *context, const ps3c_model_object *model)
{
    return ps3c_text_config_check(context, &model->config.text);
}
static int64_t ps3c_text_count(const ps3c_model_object *model) { return ps3c_text_weight_count(&model->config.text); }
static ps3c_status ps3c_text_info(ps3c_context *context, const ps3c_model_object *model, int64_t index,
                                  ps3c_weight_info *info)
{
    return ps3c_text_weight_info(context, &model->config.text, index, info);
}

static PyObject *ps3c_text_model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const ps3c_tower_kind tower = {.format = "O:TextModel",
                                          .parse = ps3c_text_parse,
                                          .check = ps3c_text_check,
                                          .weight_count = ps3c_text_count,
                                          .weight_info = ps3c_text_info};
    return ps3c_model_new(&tower, type, args, kwargs);
}

static PyObject *ps3c_text_model_plan(PyObject *object, PyObject *args, PyObject *kwargs)
{
    ps3c_model_object *self = (ps3c_model_object *)object;
    ps3c_text_plan_object *result = NULL;
    ps3c_text_request request = {0};
    ps3c_reader reader = ps3c_call_reader("plan()", ps3c_text_request_fields, 2, &request);
    ps3c_call call = {0};
    if (ps3c_read_arguments(&reader, args, kwargs) < 0 || ps3c_call_begin(&call, 0, NULL) < 0)
        goto cleanup;
    result = (ps3c_text_plan_object *)PyType_GenericAlloc(ps3c_state_of_instance(object)->text_plan, 0);
    if (result == NULL)
        goto cleanup;
    ps3c_status status = ps3c_text_plan_create(call.context, &self->config.text, &request, &result->plan);
    if (status != PS3C_OK) {
        ps3c_python_error(call.context, status);
        Py_CLEAR(result);
        goto cleanup;
    }
    result->model = (ps3c_model_object *)Py_NewRef(object);
    result->request = request;
    ps3c_text_plan_describe(result->plan, &result->info);
cleanup:
    ps3c_call_end(&call);
    return (PyObject *)result;
}

static PyMethodDef ps3c_text_model_methods[] = {
    {"plan", (PyCFunction)(void (*)(void))ps3c_text_model_plan, METH_VARARGS | METH_KEYWORDS,
     "plan(batch, length, *, dtype='float32', device=('cpu', 0), workspace_limit=0)\n\n"
     "Returns the TextPlan of a run over (batch, length) token ids. workspace_limit: bytes, 0 for the default."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ps3c_text_model_getset[] = {
    {"weights", ps3c_model_weights, NULL, "List of (name, shape), in the order of run's weights.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ps3c_text_model_slots[] = {
    {Py_tp_doc,
     "TextModel(config)\n--\n\nThe checked configuration of a text tower. It has no weights and is immutable."},
    {Py_tp_new, ps3c_text_model_new},
    {Py_tp_dealloc, ps3c_model_dealloc},
    {Py_tp_methods, ps3c_text_model_methods},
    {Py_tp_getset, ps3c_text_model_getset},
    {0, NULL},
};

PyType_Spec ps3c_text_model_spec = {
    .name = "ps3c._core.TextModel",
    .basicsize = sizeof(ps3c_model_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ps3c_text_model_slots,
};

/* ---- TextPlan ---------------------------------------------------------------------------------------------------- */

static PyObject *ps3c_text_plan_run(PyObject *object, PyObject *args, PyObject *kwargs)
{
    ps3c_text_plan_object *self = (ps3c_text_plan_object *)object;
    ps3c_text_run_args a = {0};
    ps3c_borrowed borrowed = {0};
    ps3c_reader reader = ps3c_call_reader("run()", ps3c_text_run_fields, 2, &a);
    ps3c_call call = {0};
    PyObject *result = NULL;
    ps3c_status status;
    reader.borrowed = &borrowed;
    reader.model = self->model;
    if (ps3c_borrowed_open(&borrowed, ps3c_state_of_instance(object), self->request.device,
                           self->model->weight_count + 4) < 0 ||
        ps3c_read_arguments(&reader, args, kwargs) < 0 || ps3c_call_begin(&call, a.threads, a.level) < 0)
        goto cleanup;
    PS3C_ENGINE_BEGIN(call)
    status = ps3c_text_run(call.context, self->plan, &a.io);
    PS3C_ENGINE_END(call)
    result = status == PS3C_OK ? Py_NewRef(Py_None) : ps3c_python_error(call.context, status);
cleanup:
    ps3c_call_end(&call);
    ps3c_borrowed_close(&borrowed);
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
    return PyLong_FromSize_t(((ps3c_text_plan_object *)object)->info.workspace_bytes);
}

static PyObject *ps3c_text_plan_tokens(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(((ps3c_text_plan_object *)object)->info.pooled_tokens);
}

static PyObject *ps3c_text_plan_every_token(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((ps3c_text_plan_object *)object)->info.every_token);
}

static PyMethodDef ps3c_text_plan_methods[] = {
    {"run", (PyCFunction)(void (*)(void))ps3c_text_plan_run, METH_VARARGS | METH_KEYWORDS,
     "run(weights, ids, *, pooled, prompt, workspace, threads=0, level=None, stream=0, tf32=False)\n\n"
     "Runs the text tower and writes to the caller's tensors pooled and prompt. Releases the GIL during the run."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ps3c_text_plan_getset[] = {
    {"workspace_bytes", ps3c_text_plan_workspace, NULL, "Size of a run's workspace in bytes.", NULL},
    {"every_token", ps3c_text_plan_every_token, NULL, "True if outputs have a vector for each token.", NULL},
    {"pooled_tokens", ps3c_text_plan_tokens, NULL, "Output vectors of one text: 1, or one per token.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ps3c_text_plan_slots[] = {
    {Py_tp_doc, "The result of TextModel.plan. Immutable; any number of threads may run it at the same time."},
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
