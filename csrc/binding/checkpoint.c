/* The Python type Checkpoint: the functions of ps3c_model.h that open a folder. Weights are NumPy arrays over the mapped
 * files, without a copy; bfloat16 is uint16 (arrays.h). */
#include "arrays.h"

#include "../ps3c_model.h"
#include "../checkpoint/trunks.h"

typedef struct ps3c_checkpoint_object {
    PyObject base;
    ps3c_model *model;
} ps3c_checkpoint_object;

static const ps3c_checkpoint_info *ps3c_info_of(PyObject *self)
{
    return ps3c_checkpoint_describe(ps3c_model_checkpoint(((ps3c_checkpoint_object *)self)->model));
}

/* ---- constructor ------------------------------------------------------------------------------------------------- */

static int ps3c_checkpoint_fill(ps3c_checkpoint_object *self, const char *folder, const ps3c_model_options *options)
{
    ps3c_call call = {0};
    ps3c_status status;
    if (ps3c_call_begin(&call, 0, NULL) < 0)
        return -1;
    PS3C_ENGINE_BEGIN(call)
    status = ps3c_model_open(call.context, folder, options, &self->model);
    PS3C_ENGINE_END(call)
    if (status != PS3C_OK)
        ps3c_python_error(call.context, status);
    ps3c_call_end(&call);
    return status == PS3C_OK ? 0 : -1;
}

static PyObject *ps3c_checkpoint_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"folder", "dtype", NULL};
    static const char *const dtypes[] = {"float32", "float16", "bfloat16", NULL};
    PyObject *folder = NULL, *dtype = Py_None;
    ps3c_model_options options = {0};
    int number = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&|O:Checkpoint", keywords, PyUnicode_FSConverter, &folder, &dtype))
        return NULL;
    ps3c_checkpoint_object *self = NULL;
    if (dtype != Py_None) {
        if (ps3c_parse_choice("dtype", dtype, dtypes, &number) < 0)
            goto cleanup;
        options = (ps3c_model_options){.has_dtype = true, .dtype = (ps3c_dtype)number};
    }
    self = (ps3c_checkpoint_object *)PyType_GenericAlloc(type, 0);
    if (self != NULL && ps3c_checkpoint_fill(self, PyBytes_AsString(folder), &options) < 0)
        Py_CLEAR(self);
cleanup:
    Py_XDECREF(folder);
    return (PyObject *)self;
}

static void ps3c_checkpoint_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    ps3c_model_free(((ps3c_checkpoint_object *)self)->model);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

static PyObject *ps3c_checkpoint_vision(PyObject *self, void *unused)
{
    (void)unused;
    return ps3c_vision_config_dict(&ps3c_info_of(self)->vision);
}

static PyObject *ps3c_checkpoint_text(PyObject *self, void *unused)
{
    (void)unused;
    return ps3c_info_of(self)->has_text ? ps3c_text_config_dict(&ps3c_info_of(self)->text) : Py_NewRef(Py_None);
}

static PyObject *ps3c_checkpoint_preprocessing(PyObject *self, void *unused)
{
    (void)unused;
    const ps3c_preprocessing *p = &ps3c_info_of(self)->preprocessing;
    return Py_BuildValue("{s(LL)s(ddd)s(ddd)ss}", "size", (long long)p->height, (long long)p->width, "mean",
                         (double)p->mean[0], (double)p->mean[1], (double)p->mean[2], "std", (double)p->std[0],
                         (double)p->std[1], (double)p->std[2], "filter",
                         p->filter == PS3C_BILINEAR ? "bilinear" : "bicubic");
}

static PyObject *ps3c_checkpoint_dtype(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(ps3c_dtype_name(ps3c_model_dtype(((ps3c_checkpoint_object *)self)->model)));
}

/* A NumPy array over the tensor's memory, which keeps self alive (strong reference). */
static PyObject *ps3c_checkpoint_array(PyObject *self, const ps3c_tensor *tensor)
{
    npy_intp dims[PS3C_MAX_DIMS];
    for (int d = 0; d < tensor->ndim; d++)
        dims[d] = (npy_intp)tensor->shape[d];
    PyObject *array = PyArray_New(&PyArray_Type, tensor->ndim, dims, ps3c_numpy_type(tensor->dtype), NULL, tensor->data,
                                  0, NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_WRITEABLE, NULL);
    if (array != NULL && PyArray_SetBaseObject((PyArrayObject *)array, Py_NewRef(self)) < 0)
        Py_CLEAR(array);
    return array;
}

static PyObject *ps3c_checkpoint_weights(PyObject *self, const ps3c_tensor *weights, int64_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; i < count && list != NULL; i++) {
        PyObject *array = ps3c_checkpoint_array(self, &weights[i]);
        if (array == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, i, array);
    }
    return list;
}

static PyObject *ps3c_checkpoint_vision_weights(PyObject *self, void *unused)
{
    (void)unused;
    const ps3c_model *model = ((ps3c_checkpoint_object *)self)->model;
    return ps3c_checkpoint_weights(self, ps3c_model_vision_weights(model),
                                   ps3c_vision_weight_count(&ps3c_info_of(self)->vision));
}

static PyObject *ps3c_checkpoint_text_weights(PyObject *self, void *unused)
{
    (void)unused;
    const ps3c_model *model = ((ps3c_checkpoint_object *)self)->model;
    const ps3c_checkpoint_info *info = ps3c_info_of(self);
    return ps3c_checkpoint_weights(self, ps3c_model_text_weights(model),
                                   info->has_text ? ps3c_text_weight_count(&info->text) : 0);
}

/* ---- methods ----------------------------------------------------------------------------------------------------- */

/* {name: array} of the tensors in the files; None for a dtype that NumPy and the engine do not have. */
static PyObject *ps3c_checkpoint_tensors(PyObject *self, PyObject *unused)
{
    (void)unused;
    const ps3c_checkpoint *checkpoint = ps3c_model_checkpoint(((ps3c_checkpoint_object *)self)->model);
    PyObject *dict = PyDict_New();
    for (int64_t i = 0; i < ps3c_info_of(self)->tensors && dict != NULL; i++) {
        const char *name;
        ps3c_tensor tensor;
        const ps3c_status status = ps3c_checkpoint_tensor(NULL, checkpoint, i, &name, &tensor);
        PyObject *array = status == PS3C_OK ? ps3c_checkpoint_array(self, &tensor) : Py_NewRef(Py_None);
        if (array == NULL || PyDict_SetItemString(dict, name, array) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(array);
    }
    return dict;
}

static PyObject *ps3c_checkpoint_check_py(PyObject *self, PyObject *unused)
{
    (void)unused;
    ps3c_context *context = ps3c_context_create();
    if (context == NULL)
        return PyErr_NoMemory();
    const ps3c_checkpoint *checkpoint = ps3c_model_checkpoint(((ps3c_checkpoint_object *)self)->model);
    const ps3c_status status = ps3c_checkpoint_check(context, checkpoint);
    PyObject *result = status == PS3C_OK ? Py_NewRef(Py_None) : ps3c_python_error(context, status);
    ps3c_context_free(context);
    return result;
}

static PyObject *ps3c_trunks_py(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    char name[PS3C_TRUNK_NAME_BYTES];
    PyObject *list = PyList_New(0);
    for (int64_t i = 0; i < ps3c_trunk_count() && list != NULL; i++) {
        const ps3c_trunk t = ps3c_trunk_at(i, name);
        PyObject *entry = Py_BuildValue("(sLLLdLLOs)", name, (long long)t.width, (long long)t.depth, (long long)t.heads,
                                        t.mlp_ratio, (long long)t.patch, (long long)t.img_size,
                                        t.class_token ? Py_True : Py_False, t.tanh_gelu ? "tanh" : "erf");
        if (entry == NULL || PyList_Append(list, entry) < 0)
            Py_CLEAR(list);
        Py_XDECREF(entry);
    }
    return list;
}

static PyGetSetDef ps3c_checkpoint_attributes[] = {
    {"vision", ps3c_checkpoint_vision, NULL, "VisionModel's config, a dict.", NULL},
    {"text", ps3c_checkpoint_text, NULL, "TextModel's config, a dict, or None.", NULL},
    {"preprocessing", ps3c_checkpoint_preprocessing, NULL, "size (height, width), mean, std, filter.", NULL},
    {"dtype", ps3c_checkpoint_dtype, NULL, "Name of the dtype of the weights below.", NULL},
    {"vision_weights", ps3c_checkpoint_vision_weights, NULL, "Arrays for VisionPlan.run.", NULL},
    {"text_weights", ps3c_checkpoint_text_weights, NULL, "Arrays for TextPlan.run.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef ps3c_checkpoint_object_methods[] = {
    {"tensors", ps3c_checkpoint_tensors, METH_NOARGS,
     "tensors($self)\n--\n\nArrays of all tensors in the files, by name."},
    {"check", ps3c_checkpoint_check_py, METH_NOARGS,
     "check($self)\n--\n\nValueError if a weight file has become shorter since it was opened."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ps3c_checkpoint_slots[] = {
    {Py_tp_doc, "A checkpoint folder whose weights are mapped into memory."},
    {Py_tp_new, ps3c_checkpoint_new},
    {Py_tp_dealloc, ps3c_checkpoint_dealloc},
    {Py_tp_getset, ps3c_checkpoint_attributes},
    {Py_tp_methods, ps3c_checkpoint_object_methods},
    {0, NULL},
};

PyType_Spec ps3c_checkpoint_spec = {
    .name = "ps3c._core.Checkpoint",
    .basicsize = sizeof(ps3c_checkpoint_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ps3c_checkpoint_slots,
};

PyMethodDef ps3c_checkpoint_methods[] = {
    {"trunks", ps3c_trunks_py, METH_NOARGS,
     "trunks()\n--\n\nThe known trunks: (name, width, depth, heads, mlp_ratio, patch, img_size, class_token, gelu)."},
    {NULL, NULL, 0, NULL},
};
