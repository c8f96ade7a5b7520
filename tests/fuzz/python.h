/* What the targets with Python share. The interpreter is this program's own (libFuzzer), or the one that loaded the
 * target as a library (replay). */
#ifndef PS3C_FUZZ_PYTHON_H
#define PS3C_FUZZ_PYTHON_H

#include "../../csrc/binding/arrays.h"
#include "fuzz.h"

static inline void fuzz_python_start(void)
{
    if (!Py_IsInitialized())
        Py_Initialize();
    FUZZ_CHECK(ps3c_numpy_import() == 0, "NumPy cannot be imported");
}

/* Runs the code of a module and returns its dictionary. */
static inline PyObject *fuzz_python_run(const char *code)
{
    PyObject *globals = PyDict_New();
    PyDict_SetItemString(globals, "__builtins__", PyImport_ImportModule("builtins"));
    PyObject *compiled = Py_CompileString(code, "fuzz", Py_file_input);
    PyObject *result = compiled ? PyEval_EvalCode(compiled, globals, globals) : NULL;
    if (!result)
        PyErr_Print();
    FUZZ_CHECK(result, "the target's Python code failed");
    Py_DECREF(result);
    Py_DECREF(compiled);
    return globals;
}

/* A new ps3c._core, with state of its own. */
PyObject *PyInit__core(void);
static inline PyObject *fuzz_python_core(PyObject *globals)
{
    PyModuleDef *definition = (PyModuleDef *)PyInit__core();
    PyObject *core = PyModule_FromDefAndSpec(definition, PyDict_GetItemString(globals, "spec"));
    FUZZ_CHECK(core && PyModule_ExecDef(core, definition) == 0, "ps3c._core cannot be made");
    return core;
}

#endif
