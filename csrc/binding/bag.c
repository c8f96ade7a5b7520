/* All tensors of one run: borrowed together, checked against what the plan wants, given back together. */
#include "binding.h"

#include "../run/cuda_library.h"

int ps3c_bag_open(ps3c_bag *bag, ps3c_state *state, Py_ssize_t room)
{
    *bag = (ps3c_bag){.state = state, .cuda_on_host = ps3c_cuda_on_host(), .room = room};
    bag->loans = PyMem_New(ps3c_loan, room);
    bag->tensors = PyMem_New(ps3c_tensor, room);
    if (bag->loans != NULL && bag->tensors != NULL)
        return 0;
    ps3c_bag_close(bag);
    PyErr_NoMemory();
    return -1;
}

void ps3c_bag_close(ps3c_bag *bag)
{
    for (Py_ssize_t i = 0; i < bag->count; i++)
        ps3c_loan_return(&bag->loans[i]);
    PyMem_Free(bag->loans);
    PyMem_Free(bag->tensors);
    *bag = (ps3c_bag){0};
}

ps3c_tensor *ps3c_bag_take(ps3c_bag *bag, const ps3c_label *label, PyObject *object,
                           const ps3c_expectation *expectation)
{
    if (bag->count == bag->room) {
        PyErr_SetString(PyExc_SystemError, "more tensors than the run counted");
        return NULL;
    }
    ps3c_tensor *tensor = &bag->tensors[bag->count];
    if (ps3c_loan_take(bag->state, label, object, &bag->loans[bag->count], tensor) < 0)
        return NULL;
    bag->count++;
    if (expectation->device.type == PS3C_CUDA && tensor->device.type == PS3C_CPU && bag->cuda_on_host)
        tensor->device = expectation->device;
    return ps3c_expect(label, tensor, expectation) < 0 ? NULL : tensor;
}

int ps3c_bag_take_optional(ps3c_bag *bag, const char *argument, PyObject *object, bool wanted,
                           const ps3c_expectation *expectation, ps3c_tensor **tensor)
{
    ps3c_label label = ps3c_argument(argument);
    *tensor = NULL;
    if ((object != Py_None) != wanted) {
        PyErr_Format(PyExc_ValueError, "argument %s: expected %s, got %.200s", argument,
                     wanted ? "a tensor, as the plan says" : "None, as the plan says", ps3c_type_name(object));
        return -1;
    }
    if (!wanted)
        return 0;
    *tensor = ps3c_bag_take(bag, &label, object, expectation);
    return *tensor == NULL ? -1 : 0;
}

/* The sequence as a tuple (strong) of the given length; NULL with an exception. */
static PyObject *ps3c_tensors(const char *argument, PyObject *sequence, int64_t count)
{
    PyObject *tuple = sequence == Py_None ? PyTuple_New(0) : ps3c_sequence(sequence, "");
    if (tuple == NULL && PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "argument %s: expected a sequence of tensors, got %.200s", argument,
                     ps3c_type_name(sequence));
    if (tuple != NULL && PyTuple_Size(tuple) != count) {
        PyErr_Format(PyExc_ValueError, "argument %s: expected %lld tensors, got %zd", argument, (long long)count,
                     PyTuple_Size(tuple));
        Py_CLEAR(tuple);
    }
    return tuple;
}

int ps3c_bag_take_many(ps3c_bag *bag, const char *argument, PyObject *sequence, int64_t count,
                       const ps3c_expectation *expectation, int step, ps3c_tensor **first)
{
    ps3c_expectation each = *expectation;
    PyObject *tuple = ps3c_tensors(argument, sequence, count);
    bool failed = tuple == NULL;
    *first = count > 0 ? &bag->tensors[bag->count] : NULL;
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        ps3c_label label = {argument, i, NULL};
        each.shape = expectation->shape + i * step;
        failed = ps3c_bag_take(bag, &label, PyTuple_GetItem(tuple, i), &each) == NULL;
    }
    Py_XDECREF(tuple);
    return failed ? -1 : 0;
}

int ps3c_bag_take_weights(ps3c_bag *bag, PyObject *sequence, const ps3c_weight_info *infos, int64_t count,
                          ps3c_dtype dtype, ps3c_device device, ps3c_tensor **first)
{
    PyObject *tuple = ps3c_tensors("weights", sequence, count);
    bool failed = tuple == NULL;
    *first = &bag->tensors[bag->count];
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        ps3c_label label = {"weights", i, infos[i].name};
        ps3c_expectation each = {(int)dtype, device, infos[i].ndim, infos[i].shape, true};
        failed = ps3c_bag_take(bag, &label, PyTuple_GetItem(tuple, i), &each) == NULL;
    }
    Py_XDECREF(tuple);
    return failed ? -1 : 0;
}

ps3c_tensor *ps3c_bag_take_workspace(ps3c_bag *bag, PyObject *object, ps3c_device device, size_t bytes)
{
    static const int64_t any[1] = {PS3C_ANY};
    ps3c_label label = ps3c_argument("workspace");
    ps3c_tensor *tensor = ps3c_bag_take(bag, &label, object, &(ps3c_expectation){PS3C_UINT8, device, 1, any, true});
    if (tensor != NULL && (uint64_t)tensor->shape[0] < bytes) {
        PyErr_Format(PyExc_ValueError, "argument workspace: expected at least %zu bytes, got %lld", bytes,
                     (long long)tensor->shape[0]);
        return NULL;
    }
    return tensor;
}

PyObject *ps3c_weights_list(const ps3c_weight_info *infos, int64_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; i < count && list != NULL; i++) {
        PyObject *shape = PyTuple_New(infos[i].ndim);
        for (int d = 0; d < infos[i].ndim && shape != NULL; d++) {
            PyObject *size = PyLong_FromLongLong(infos[i].shape[d]);
            if (size == NULL)
                Py_CLEAR(shape);
            else
                PyTuple_SetItem(shape, d, size);
        }
        PyObject *entry = shape == NULL ? NULL : Py_BuildValue("(sN)", infos[i].name, shape);
        if (entry == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, i, entry);
    }
    return list;
}
