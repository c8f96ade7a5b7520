/* _core.cpu_levels, cpu_level, cuda_error, cuda_refused_products: the CPU levels and CUDA devices of this machine. */
#include "binding.h"

#include "../run/context.h"
#include "../run/cuda_library.h"

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

static PyObject *ps3c_cuda_error_py(PyObject *module, PyObject *args)
{
    (void)module;
    int index = 0;
    const ps3c_backend *backend;
    PyObject *result;
    if (!PyArg_ParseTuple(args, "|i:cuda_error", &index))
        return NULL;
    ps3c_context *context = ps3c_context_create();
    if (context == NULL)
        return PyErr_NoMemory();
    ps3c_status status;
    Py_BEGIN_ALLOW_THREADS status = ps3c_context_backend(context, (ps3c_device){PS3C_CUDA, index}, &backend);
    Py_END_ALLOW_THREADS result =
        status == PS3C_OK ? Py_NewRef(Py_None) : PyUnicode_FromString(ps3c_context_message(context));
    ps3c_context_free(context);
    return result;
}

static PyObject *ps3c_cuda_refused_py(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    const ps3c_cuda_library *library;
    ps3c_context *context = ps3c_context_create();
    if (context == NULL)
        return PyErr_NoMemory();
    ps3c_status status = ps3c_cuda_library_find(context, &library);
    PyObject *result =
        status == PS3C_OK ? PyLong_FromLongLong(library->refused_products()) : ps3c_python_error(context, status);
    ps3c_context_free(context);
    return result;
}

PyMethodDef ps3c_machine_methods[] = {
    {"cpu_levels", ps3c_cpu_levels_py, METH_NOARGS,
     "cpu_levels()\n--\n\nList of the CPU levels that this processor can run, best first."},
    {"cpu_level", ps3c_cpu_level_py, METH_NOARGS,
     "cpu_level()\n--\n\nThe CPU level in use: the one that PS3C_CPU_LEVEL names, else the best."},
    {"cuda_error", ps3c_cuda_error_py, METH_VARARGS,
     "cuda_error(index=0)\n--\n\nThe reason why a CUDA device cannot be used, or None if it can."},
    {"cuda_refused_products", ps3c_cuda_refused_py, METH_NOARGS,
     "cuda_refused_products()\n--\n\nNumber of products of this process that cuBLASLt refused and a slow kernel "
     "computed."},
    {NULL, NULL, 0, NULL},
};
