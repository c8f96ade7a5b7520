/* Converts an engine status to a Python exception. No other file does this. */
#include "binding.h"

PyObject *ps3c_python_error(const ps3c_context *context, ps3c_status status)
{
    PyObject *type = PyExc_RuntimeError;
    switch (status) {
    case PS3C_ERROR_VALUE:
    case PS3C_ERROR_CHECKPOINT: /* Python code makes a CheckpointError of it, which names the folder */
        type = PyExc_ValueError;
        break;
    case PS3C_ERROR_TYPE:
        type = PyExc_TypeError;
        break;
    case PS3C_ERROR_MEMORY:
        type = PyExc_MemoryError;
        break;
    case PS3C_ERROR_NOT_IMPLEMENTED:
        type = PyExc_NotImplementedError;
        break;
    case PS3C_ERROR_INTERRUPTED:
        if (PyErr_Occurred())
            return NULL; /* set by the signal handler that stopped the run */
        type = PyExc_KeyboardInterrupt;
        break;
    case PS3C_OK:
    case PS3C_ERROR_RUNTIME:
        break;
    }
    const char *message = context != NULL ? ps3c_context_message(context) : "";
    if (message[0] == '\0')
        message = status == PS3C_ERROR_MEMORY ? "out of memory" : "the engine failed without a message";
    PyErr_SetString(type, message);
    return NULL;
}
