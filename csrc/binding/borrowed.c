/* The borrowed tensors of one run. They are returned together. The engine checks their shapes, dtypes and devices. */
#include "binding.h"

#include "../run/cuda_library.h"

int ps3c_borrowed_open(ps3c_borrowed *borrowed, ps3c_state *state, ps3c_device device, Py_ssize_t room)
{
    *borrowed = (ps3c_borrowed){.state = state, .device = device, .room = room};
    borrowed->emulated = device.type == PS3C_CUDA && ps3c_cuda_on_host();
    borrowed->loans = PyMem_New(ps3c_loan, room);
    borrowed->tensors = PyMem_New(ps3c_tensor, room);
    if (borrowed->loans != NULL && borrowed->tensors != NULL)
        return 0;
    ps3c_borrowed_close(borrowed);
    PyErr_NoMemory();
    return -1;
}

void ps3c_borrowed_close(ps3c_borrowed *borrowed)
{
    for (Py_ssize_t i = 0; i < borrowed->count; i++)
        ps3c_loan_return(&borrowed->loans[i]);
    PyMem_Free(borrowed->loans);
    PyMem_Free(borrowed->tensors);
    *borrowed = (ps3c_borrowed){0};
}

/* Borrows a tensor and appends it. Returns NULL with an exception on an error. */
static ps3c_tensor *ps3c_borrowed_add(ps3c_borrowed *borrowed, const ps3c_label *label, PyObject *object)
{
    if (borrowed->count == borrowed->room) {
        PyErr_SetString(PyExc_SystemError, "more tensors than the run counted");
        return NULL;
    }
    ps3c_tensor *tensor = &borrowed->tensors[borrowed->count];
    if (ps3c_loan_take(borrowed->state, label, object, &borrowed->loans[borrowed->count], tensor) < 0)
        return NULL;
    borrowed->count++;
    if (borrowed->emulated && tensor->device.type == PS3C_CPU)
        tensor->device = borrowed->device;
    return tensor;
}

int ps3c_borrowed_take(ps3c_borrowed *borrowed, const char *argument, bool output, PyObject *object,
                       const ps3c_tensor **tensor)
{
    const ps3c_label label = {.argument = argument, .index = -1, .output = output};
    *tensor = ps3c_borrowed_add(borrowed, &label, object);
    return *tensor == NULL ? -1 : 0;
}

/* The sequence as a tuple (strong reference) of the given length. Returns NULL with an exception on an error. */
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

int ps3c_borrowed_take_many(ps3c_borrowed *borrowed, const char *argument, PyObject *sequence, int64_t count,
                            ps3c_tensor **first)
{
    PyObject *tuple = ps3c_tensors(argument, sequence, count);
    bool failed = tuple == NULL;
    *first = count > 0 ? &borrowed->tensors[borrowed->count] : NULL;
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        const ps3c_label label = {.argument = argument, .index = i, .output = true};
        failed = ps3c_borrowed_add(borrowed, &label, PyTuple_GetItem(tuple, i)) == NULL;
    }
    Py_XDECREF(tuple);
    return failed ? -1 : 0;
}

int ps3c_borrowed_take_weights(ps3c_borrowed *borrowed, PyObject *sequence, const ps3c_weight_info *infos,
                               int64_t count, const ps3c_tensor **first)
{
    PyObject *tuple = ps3c_tensors("weights", sequence, count);
    bool failed = tuple == NULL;
    *first = &borrowed->tensors[borrowed->count];
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        const ps3c_label label = {.argument = "weights", .index = i, .weight = infos[i].name};
        failed = ps3c_borrowed_add(borrowed, &label, PyTuple_GetItem(tuple, i)) == NULL;
    }
    Py_XDECREF(tuple);
    return failed ? -1 : 0;
}

const ps3c_tensor *ps3c_borrowed_take_workspace(ps3c_borrowed *borrowed, const char *argument, PyObject *object)
{
    static const int64_t any[1] = {PS3C_ANY};
    const ps3c_tensor *tensor;
    if (ps3c_borrowed_take(borrowed, argument, true, object, &tensor) < 0)
        return NULL;
    const ps3c_tensor_rule rule = {PS3C_UINT8, borrowed->device, 1, any, true};
    return ps3c_expect(argument, tensor, &rule) < 0 ? NULL : tensor;
}
