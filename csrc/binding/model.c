/* Code that VisionModel and TextModel share: the list of weights. */
#include "binding.h"

int ps3c_model_list_weights(ps3c_model *self, ps3c_context *context, int64_t count, ps3c_weight_info_function *info)
{
    ps3c_status status = PS3C_OK;
    self->weight_infos = PyMem_New(ps3c_weight_info, count);
    if (self->weight_infos == NULL)
        status = PS3C_ERROR_MEMORY;
    for (int64_t i = 0; i < count && status == PS3C_OK; i++)
        status = info(context, &self->config, i, &self->weight_infos[i]);
    if (status != PS3C_OK) {
        ps3c_python_error(context, status);
        return -1;
    }
    self->weight_count = count;
    return 0;
}

void ps3c_model_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(((ps3c_model *)self)->weight_infos);
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
    const ps3c_model *model = (const ps3c_model *)self;
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
