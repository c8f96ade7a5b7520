/* _core.cpu_levels, cpu_level: which instruction sets the CPU backend can use here. */
#include "binding.h"

static PyObject *ps3c_cpu_levels_py(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObject *list = PyList_New(0);
    for (const char *const *level = ps3c_cpu_levels(); list != NULL && *level != NULL; level++) {
        PyObject *name = PyUnicode_FromString(*level);
        if (name == NULL || PyList_Append(list, name) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

static PyObject *ps3c_cpu_level_py(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    ps3c_context *context = ps3c_context_create();
    if (context == NULL)
        return PyErr_NoMemory();
    PyObject *name = PyUnicode_FromString(ps3c_context_cpu_level(context));
    ps3c_context_free(context);
    return name;
}

PyMethodDef ps3c_cpu_methods[] = {
    {"cpu_levels", ps3c_cpu_levels_py, METH_NOARGS,
     "cpu_levels()\n--\n\nInstruction sets that this processor can run, best first."},
    {"cpu_level", ps3c_cpu_level_py, METH_NOARGS,
     "cpu_level()\n--\n\nThe instruction set in use: the best, or what PS3C_CPU_LEVEL names."},
    {NULL, NULL, 0, NULL},
};
