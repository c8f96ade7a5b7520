/* All tensors of one run: borrowed together, given back together. What they must be, the engine checks. */
#include "binding.h"

#include "../run/cuda_library.h"

int ps3c_bag_open(ps3c_bag *bag, ps3c_state *state, ps3c_device device, Py_ssize_t room)
{
    *bag = (ps3c_bag){.state = state, .device = device, .room = room};
    bag->emulated = device.type == PS3C_CUDA && ps3c_cuda_on_host();
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

/* Borrows a tensor into the next place of the bag; NULL with an exception. */
static ps3c_tensor *ps3c_bag_add(ps3c_bag *bag, const ps3c_label *label, PyObject *object)
{
    if (bag->count == bag->room) {
        PyErr_SetString(PyExc_SystemError, "more tensors than the run counted");
        return NULL;
    }
    ps3c_tensor *tensor = &bag->tensors[bag->count];
    if (ps3c_loan_take(bag->state, label, object, &bag->loans[bag->count], tensor) < 0)
        return NULL;
    bag->count++;
    if (bag->emulated && tensor->device.type == PS3C_CPU)
        tensor->device = bag->device;
    return tensor;
}

int ps3c_bag_take(ps3c_bag *bag, const char *argument, PyObject *object, const ps3c_tensor **tensor)
{
    const ps3c_label label = ps3c_argument(argument);
    *tensor = ps3c_bag_add(bag, &label, object);
    return *tensor == NULL ? -1 : 0;
}

/* The sequence as a tuple (strong) of the given length; NULL with an exception. */
static PyObject *ps3c_tensors(const char *argument, PyObject *sequence, int64_t count)
{
    PyObject *tuple = sequence == Py_None ? PyTuple_New(0) : ps3c_sequence(argument, sequence, "a sequence of tensors");
    if (tuple != NULL && PyTuple_Size(tuple) != count) {
        PyErr_Format(PyExc_ValueError, "%s: got %zd tensors, expected %lld", argument, PyTuple_Size(tuple),
                     (long long)count);
        Py_CLEAR(tuple);
    }
    return tuple;
}

int ps3c_bag_take_many(ps3c_bag *bag, const char *argument, PyObject *sequence, int64_t count, ps3c_tensor **first)
{
    PyObject *tuple = ps3c_tensors(argument, sequence, count);
    bool failed = tuple == NULL;
    *first = count > 0 ? &bag->tensors[bag->count] : NULL;
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        const ps3c_label label = {argument, i, NULL};
        failed = ps3c_bag_add(bag, &label, PyTuple_GetItem(tuple, i)) == NULL;
    }
    Py_XDECREF(tuple);
    return failed ? -1 : 0;
}

int ps3c_bag_take_weights(ps3c_bag *bag, PyObject *sequence, const ps3c_weight_info *infos, int64_t count,
                          const ps3c_tensor **first)
{
    PyObject *tuple = ps3c_tensors("weights", sequence, count);
    bool failed = tuple == NULL;
    *first = &bag->tensors[bag->count];
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        const ps3c_label label = {"weights", i, infos[i].name};
        failed = ps3c_bag_add(bag, &label, PyTuple_GetItem(tuple, i)) == NULL;
    }
    Py_XDECREF(tuple);
    return failed ? -1 : 0;
}

const ps3c_tensor *ps3c_bag_take_workspace(ps3c_bag *bag, const char *argument, PyObject *object)
{
    static const int64_t any[1] = {PS3C_ANY};
    const ps3c_tensor *tensor;
    if (ps3c_bag_take(bag, argument, object, &tensor) < 0)
        return NULL;
    const ps3c_tensor_rule rule = {PS3C_UINT8, bag->device, 1, any, true};
    return ps3c_expect(argument, tensor, &rule) < 0 ? NULL : tensor;
}
