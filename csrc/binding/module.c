/* The extension module ps3c._core: its state, its types and its functions. */
#include "arrays.h"

static int ps3c_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type == NULL ? -1 : PyModule_AddType(module, *type);
}

static int ps3c_add_types(PyObject *module, ps3c_state *state)
{
    if (ps3c_add_type(module, &ps3c_vision_model_spec, &state->vision_model) < 0 ||
        ps3c_add_type(module, &ps3c_vision_plan_spec, &state->vision_plan) < 0 ||
        ps3c_add_type(module, &ps3c_text_model_spec, &state->text_model) < 0 ||
        ps3c_add_type(module, &ps3c_text_plan_spec, &state->text_plan) < 0 ||
        ps3c_add_type(module, &ps3c_parameters_spec, &state->parameters) < 0 ||
        ps3c_add_type(module, &ps3c_checkpoint_spec, &state->checkpoint) < 0)
        return -1;
    return 0;
}

static int ps3c_core_exec(PyObject *module)
{
    static PyMethodDef *const tables[] = {ps3c_machine_methods, ps3c_image_methods, ps3c_checkpoint_methods};
    ps3c_state *state = ps3c_state_of(module);
    ps3c_loans_open(state);
    ps3c_register_backend(PS3C_CPU, &ps3c_cpu_source);
    ps3c_register_backend(PS3C_CUDA, &ps3c_cuda_source);
    if (ps3c_numpy_import() < 0)
        return -1;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (PyModule_AddFunctions(module, tables[i]) < 0)
            return -1;
    return ps3c_add_types(module, state);
}

static int ps3c_core_traverse(PyObject *module, visitproc visit, void *arg)
{
    ps3c_state *state = ps3c_state_of(module);
    Py_VISIT(state->vision_model);
    Py_VISIT(state->vision_plan);
    Py_VISIT(state->text_model);
    Py_VISIT(state->text_plan);
    Py_VISIT(state->parameters);
    Py_VISIT(state->checkpoint);
    return ps3c_loans_traverse(state, visit, arg);
}

static int ps3c_core_clear(PyObject *module)
{
    ps3c_state *state = ps3c_state_of(module);
    Py_CLEAR(state->vision_model);
    Py_CLEAR(state->vision_plan);
    Py_CLEAR(state->text_model);
    Py_CLEAR(state->text_plan);
    Py_CLEAR(state->parameters);
    Py_CLEAR(state->checkpoint);
    ps3c_loans_close(state);
    return 0;
}

static void ps3c_core_free(void *module) { ps3c_core_clear(module); }

static PyModuleDef_Slot ps3c_core_slots[] = {
    {Py_mod_exec, ps3c_core_exec},
    {0, NULL},
};

static PyModuleDef ps3c_core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "ps3c._core",
    .m_doc = "The C engine of ps3c. Private: use the ps3c package.",
    .m_size = sizeof(ps3c_state),
    .m_slots = ps3c_core_slots,
    .m_traverse = ps3c_core_traverse,
    .m_clear = ps3c_core_clear,
    .m_free = ps3c_core_free,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&ps3c_core_module); }
