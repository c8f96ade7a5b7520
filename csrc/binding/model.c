/* Code that VisionModel and TextModel share: the constructor and the list of weights. */
#include "binding.h"

static ps3c_status ps3c_model_list_weights(const ps3c_tower_kind *tower, ps3c_model_object *self, ps3c_context *context)
{
    const int64_t count = tower->weight_count(self);
    ps3c_status status = PS3C_OK;
    self->weight_infos = PyMem_New(ps3c_weight_info, count);
    if (self->weight_infos == NULL)
        return PS3C_ERROR_MEMORY;
    for (int64_t i = 0; i < count && status == PS3C_OK; i++)
        status = tower->weight_info(context, self, i, &self->weight_infos[i]);
    self->weight_count = status == PS3C_OK ? count : 0;
    return status;
}

static int ps3c_model_fill(const ps3c_tower_kind *tower, ps3c_model_object *self, PyObject *config)
{
    ps3c_call call = {0};
    if (tower->parse(config, self) < 0 || ps3c_call_begin(&call, 0, NULL) < 0)
        return -1;
    ps3c_status status = tower->check(call.context, self);
    if (status == PS3C_OK)
        status = ps3c_model_list_weights(tower, self, call.context);
    if (status != PS3C_OK)
        ps3c_python_error(call.context, status);
    ps3c_call_end(&call);
    return status == PS3C_OK ? 0 : -1;
}

PyObject *ps3c_model_new(const ps3c_tower_kind *tower, PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"config", NULL};
    PyObject *config;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, tower->format, keywords, &config))
        return NULL;
    ps3c_model_object *self = (ps3c_model_object *)PyType_GenericAlloc(type, 0);
    if (self != NULL && ps3c_model_fill(tower, self, config) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

void ps3c_model_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(((ps3c_model_object *)self)->weight_infos);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *ps3c_shape_tuple(const ps3c_weight_info *info)
{
    PyObject *shape = PyTuple_New(info->ndim);
    for (int d = 0; d < info->ndim && shape != NULL; d++) {
        PyObject *size = PyLong_FromLongLong(info->shape[d]);
        if (size == NULL)
            Py_CLEAR(shape);
        else
            PyTuple_SetItem(shape, d, size);
    }
    return shape;
}

PyObject *ps3c_model_weights(PyObject *self, void *unused)
{
    (void)unused;
    const ps3c_model_object *model = (const ps3c_model_object *)self;
    PyObject *list = PyList_New(model->weight_count);
    for (Py_ssize_t i = 0; i < model->weight_count && list != NULL; i++) {
        PyObject *shape = ps3c_shape_tuple(&model->weight_infos[i]);
        PyObject *entry = shape == NULL ? NULL : Py_BuildValue("(sN)", model->weight_infos[i].name, shape);
        if (entry == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, i, entry);
    }
    return list;
}
