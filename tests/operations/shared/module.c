/* The extension module `operations`: every operation of the backends, and TensorView. For tests and benchmarks. */
#include "operation.h"

#define TABLE(name) extern PyMethodDef ps3c_operation_##name[];
PS3C_OPERATIONS(TABLE)
PS3C_HOST_OPERATIONS(TABLE)
TABLE(activation_bytes) /* rows.c */
TABLE(seconds)          /* operation.c */
#undef TABLE

extern PyType_Spec ps3c_tensor_view_spec; /* tensor_view.c */

static int execute(PyObject *module)
{
#define TABLE(name) ps3c_operation_##name,
    PyMethodDef *const tables[] = {PS3C_OPERATIONS(TABLE) PS3C_HOST_OPERATIONS(TABLE) TABLE(activation_bytes)
                                       TABLE(seconds) ps3c_machine_methods};
#undef TABLE
    ps3c_loans_open(ps3c_state_of(module));
    ps3c_register_backend(PS3C_CPU, &ps3c_cpu_source);
    ps3c_register_backend(PS3C_CUDA, &ps3c_cuda_source);
    if (ps3c_numpy_import() < 0)
        return -1;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (PyModule_AddFunctions(module, tables[i]) < 0)
            return -1;
    PyObject *type = PyType_FromModuleAndSpec(module, &ps3c_tensor_view_spec, NULL);
    const int status = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return status;
}

static int traverse(PyObject *module, visitproc visit, void *arg)
{
    return ps3c_loans_traverse(ps3c_state_of(module), visit, arg);
}

static int clear(PyObject *module)
{
    ps3c_loans_close(ps3c_state_of(module));
    return 0;
}

static void finish(void *module) { clear(module); }

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

/* The state is the binding's, whose dlpack.c TensorView calls. */
static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "operations",
    .m_doc = "Single operations of ps3c's backends on NumPy arrays, and torch tensors as the engine sees them.",
    .m_size = sizeof(ps3c_state),
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = finish,
};

PyMODINIT_FUNC PyInit__operations(void) { return PyModuleDef_Init(&definition); }
