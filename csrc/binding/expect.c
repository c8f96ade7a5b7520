/* Names in messages, and the check of a tensor that the binding itself reads. */
#include "binding.h"

const char *ps3c_label_text(const ps3c_label *label, char *buffer, size_t size)
{
    if (label->weight != NULL)
        snprintf(buffer, size, "weight %s", label->weight);
    else if (label->index >= 0)
        snprintf(buffer, size, "%s[%zd]", label->argument, label->index);
    else
        snprintf(buffer, size, "%s", label->argument);
    return buffer;
}

const char *ps3c_write_type_name(PyTypeObject *type, char *buffer, size_t size)
{
    PyErr_Clear();
    PyObject *name = PyObject_GetAttrString((PyObject *)type, "__name__");
    const char *text = name == NULL ? NULL : PyUnicode_AsUTF8AndSize(name, NULL);
    snprintf(buffer, size, "%s", text != NULL ? text : "object");
    Py_XDECREF(name);
    PyErr_Clear();
    return buffer;
}

int ps3c_expect(const char *name, const ps3c_tensor *tensor, const ps3c_tensor_rule *rule)
{
    ps3c_context *context = ps3c_context_create();
    if (context == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    ps3c_status status = ps3c_tensor_check(context, name, PS3C_ANY, tensor, rule);
    if (status != PS3C_OK)
        ps3c_python_error(context, status);
    ps3c_context_free(context);
    return status == PS3C_OK ? 0 : -1;
}
