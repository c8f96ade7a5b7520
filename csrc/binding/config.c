/* Configuration dictionaries to structs: the keys are the fields' names, lists carry their own length. */
#include "binding.h"

typedef enum ps3c_field_kind {
    PS3C_FIELD_INT,
    PS3C_FIELD_FLOAT,
    PS3C_FIELD_BOOL,
    PS3C_FIELD_LIST,   /* int64_t[room] and, when counted, its length */
    PS3C_FIELD_CHOICE, /* an enumeration that starts at 0, by name */
    PS3C_FIELD_COUNT,  /* the length of a list: may be given, must then agree */
} ps3c_field_kind;

typedef struct ps3c_field {
    const char *name;
    ps3c_field_kind kind;
    size_t offset;
    bool optional;              /* 0, false or empty when absent */
    const char *const *choices; /* CHOICE */
    int room;                   /* LIST */
    size_t count_offset;        /* LIST: of its length, a field; SIZE_MAX: none */
} ps3c_field;

static int ps3c_read_list(const ps3c_field *field, PyObject *value, char *config)
{
    int64_t *list = (int64_t *)(config + field->offset);
    char name[64];
    PyOS_snprintf(name, sizeof name, "config['%s']", field->name);
    PyObject *tuple = ps3c_sequence(value, "");
    if (tuple == NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "%s: expected a list of integers, got %.200s", name, ps3c_type_name(value));
        return -1;
    }
    Py_ssize_t length = PyTuple_Size(tuple);
    int failed = length > field->room;
    if (failed)
        PyErr_Format(PyExc_ValueError, "%s: expected at most %d entries, got %zd", name, field->room, length);
    for (Py_ssize_t i = 0; i < length && !failed; i++)
        failed = ps3c_parse_int64(name, PyTuple_GetItem(tuple, i), &list[i]) < 0;
    Py_DECREF(tuple);
    if (!failed && field->count_offset != SIZE_MAX)
        *(int64_t *)(config + field->count_offset) = length;
    return failed ? -1 : 0;
}

static int ps3c_read_field(const ps3c_field *field, PyObject *value, char *config)
{
    char name[64];
    double number;
    int truth, choice;
    int64_t count;
    PyOS_snprintf(name, sizeof name, "config['%s']", field->name);
    switch (field->kind) {
    case PS3C_FIELD_INT:
        return ps3c_parse_int64(name, value, (int64_t *)(config + field->offset));
    case PS3C_FIELD_FLOAT:
        number = PyFloat_AsDouble(value);
        if (number == -1.0 && PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "%s: expected a number, got %.200s", name, ps3c_type_name(value));
            return -1;
        }
        *(float *)(config + field->offset) = (float)number;
        return 0;
    case PS3C_FIELD_BOOL:
        truth = PyObject_IsTrue(value);
        *(bool *)(config + field->offset) = truth > 0;
        return truth < 0 ? -1 : 0;
    case PS3C_FIELD_LIST:
        return ps3c_read_list(field, value, config);
    case PS3C_FIELD_CHOICE:
        if (ps3c_parse_choice(name, value, field->choices, &choice) < 0)
            return -1;
        memcpy(config + field->offset, &choice, sizeof choice);
        return 0;
    case PS3C_FIELD_COUNT:
        if (ps3c_parse_int64(name, value, &count) < 0)
            return -1;
        if (count != *(int64_t *)(config + field->offset)) {
            PyErr_Format(PyExc_ValueError, "%s: got %lld, but the list has %lld entries", name, (long long)count,
                         (long long)*(int64_t *)(config + field->offset));
            return -1;
        }
        return 0;
    }
    return 0;
}

static bool ps3c_has_field(const ps3c_field *fields, PyObject *key)
{
    for (const ps3c_field *field = fields; field->name != NULL; field++)
        if (PyUnicode_Check(key) && PyUnicode_CompareWithASCIIString(key, field->name) == 0)
            return true;
    return false;
}

/* config must be zeroed. */
static int ps3c_read_config(const ps3c_field *fields, PyObject *dict, void *config)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;
    if (!PyDict_Check(dict)) {
        PyErr_Format(PyExc_TypeError, "argument config: expected a dict, got %.200s", ps3c_type_name(dict));
        return -1;
    }
    while (PyDict_Next(dict, &at, &key, &value))
        if (!ps3c_has_field(fields, key)) {
            PyErr_Format(PyExc_ValueError, "argument config: unknown key %R", key);
            return -1;
        }
    for (const ps3c_field *field = fields; field->name != NULL; field++) {
        value = PyDict_GetItemString(dict, field->name);
        if (value == NULL && !field->optional) {
            PyErr_Format(PyExc_ValueError, "argument config: key '%s' is missing", field->name);
            return -1;
        }
        if (value == NULL)
            continue;
        Py_INCREF(value); /* __index__ and the like may change the dict */
        int failed = ps3c_read_field(field, value, config);
        Py_DECREF(value);
        if (failed)
            return -1;
    }
    return 0;
}

_Static_assert(sizeof(ps3c_adapter) == sizeof(int) && sizeof(ps3c_text_pool) == sizeof(int), "choices are ints");

static const char *const ps3c_adapter_names[] = {"none", "v1", "v2", NULL};
static const char *const ps3c_pool_names[] = {"first", "last", "argmax", "none", NULL};

#define PS3C_V(field) offsetof(ps3c_vision_config, field)
#define PS3C_T(field) offsetof(ps3c_text_config, field)
#define PS3C_REQUIRED(name, kind, offset)            \
    {                                                \
        name, kind, offset, false, NULL, 0, SIZE_MAX \
    }
#define PS3C_OPTIONAL(name, kind, offset)           \
    {                                               \
        name, kind, offset, true, NULL, 0, SIZE_MAX \
    }
#define PS3C_CHOICE(name, offset, choices)                           \
    {                                                                \
        name, PS3C_FIELD_CHOICE, offset, false, choices, 0, SIZE_MAX \
    }
#define PS3C_LIST(name, offset, room, count)                    \
    {                                                           \
        name, PS3C_FIELD_LIST, offset, false, NULL, room, count \
    }

int ps3c_parse_vision_config(PyObject *dict, ps3c_vision_config *config)
{
    static const ps3c_field fields[] = {
        PS3C_REQUIRED("width", PS3C_FIELD_INT, PS3C_V(width)),
        PS3C_REQUIRED("depth", PS3C_FIELD_INT, PS3C_V(depth)),
        PS3C_REQUIRED("heads", PS3C_FIELD_INT, PS3C_V(heads)),
        PS3C_REQUIRED("mlp_hidden", PS3C_FIELD_INT, PS3C_V(mlp_hidden)),
        PS3C_REQUIRED("patch", PS3C_FIELD_INT, PS3C_V(patch)),
        PS3C_REQUIRED("grid", PS3C_FIELD_INT, PS3C_V(grid)),
        PS3C_REQUIRED("norm_eps", PS3C_FIELD_FLOAT, PS3C_V(norm_eps)),
        PS3C_OPTIONAL("tanh_gelu", PS3C_FIELD_BOOL, PS3C_V(tanh_gelu)),
        PS3C_REQUIRED("crop_positions", PS3C_FIELD_BOOL, PS3C_V(crop_positions)),
        PS3C_REQUIRED("final_norm", PS3C_FIELD_BOOL, PS3C_V(final_norm)),
        PS3C_LIST("scales", PS3C_V(scales), PS3C_MAX_SCALES, PS3C_V(num_scales)),
        PS3C_OPTIONAL("num_scales", PS3C_FIELD_COUNT, PS3C_V(num_scales)),
        PS3C_LIST("max_select_num", PS3C_V(max_select_num), PS3C_MAX_SCALES, SIZE_MAX),
        PS3C_REQUIRED("separate_positions", PS3C_FIELD_BOOL, PS3C_V(separate_positions)),
        PS3C_LIST("select_layers", PS3C_V(select_layers), PS3C_MAX_SELECT_LAYERS, PS3C_V(num_select_layers)),
        PS3C_OPTIONAL("num_select_layers", PS3C_FIELD_COUNT, PS3C_V(num_select_layers)),
        PS3C_REQUIRED("highres_features", PS3C_FIELD_BOOL, PS3C_V(highres_features)),
        PS3C_OPTIONAL("conv_width", PS3C_FIELD_INT, PS3C_V(conv_width)),
        PS3C_OPTIONAL("conv_out", PS3C_FIELD_INT, PS3C_V(conv_out)),
        PS3C_OPTIONAL("conv_depth", PS3C_FIELD_INT, PS3C_V(conv_depth)),
        PS3C_OPTIONAL("conv_kernel", PS3C_FIELD_INT, PS3C_V(conv_kernel)),
        PS3C_CHOICE("adapter", PS3C_V(adapter), ps3c_adapter_names),
        PS3C_OPTIONAL("adapter_hidden", PS3C_FIELD_INT, PS3C_V(adapter_hidden)),
        PS3C_OPTIONAL("adapter_out", PS3C_FIELD_INT, PS3C_V(adapter_out)),
        PS3C_OPTIONAL("adapter_blocks", PS3C_FIELD_INT, PS3C_V(adapter_blocks)),
        PS3C_REQUIRED("pool_width", PS3C_FIELD_INT, PS3C_V(pool_width)),
        PS3C_REQUIRED("pool_heads", PS3C_FIELD_INT, PS3C_V(pool_heads)),
        PS3C_REQUIRED("pool_hidden", PS3C_FIELD_INT, PS3C_V(pool_hidden)),
        PS3C_REQUIRED("pool_eps", PS3C_FIELD_FLOAT, PS3C_V(pool_eps)),
        {NULL, PS3C_FIELD_INT, 0, false, NULL, 0, 0},
    };
    *config = (ps3c_vision_config){0};
    if (ps3c_read_config(fields, dict, config) < 0)
        return -1;
    Py_ssize_t quotas = PyObject_Length(PyDict_GetItemString(dict, "max_select_num"));
    if (quotas != config->num_scales - 1 && !PyErr_Occurred())
        PyErr_Format(PyExc_ValueError,
                     "config['max_select_num']: expected an entry for each of the %lld scales above the first, got %zd",
                     (long long)config->num_scales - 1, quotas);
    return PyErr_Occurred() ? -1 : 0;
}

int ps3c_parse_text_config(PyObject *dict, ps3c_text_config *config)
{
    static const ps3c_field fields[] = {
        PS3C_REQUIRED("width", PS3C_FIELD_INT, PS3C_T(width)),
        PS3C_REQUIRED("depth", PS3C_FIELD_INT, PS3C_T(depth)),
        PS3C_REQUIRED("heads", PS3C_FIELD_INT, PS3C_T(heads)),
        PS3C_REQUIRED("mlp_hidden", PS3C_FIELD_INT, PS3C_T(mlp_hidden)),
        PS3C_REQUIRED("context_length", PS3C_FIELD_INT, PS3C_T(context_length)),
        PS3C_REQUIRED("vocab_size", PS3C_FIELD_INT, PS3C_T(vocab_size)),
        PS3C_REQUIRED("output_dim", PS3C_FIELD_INT, PS3C_T(output_dim)),
        PS3C_REQUIRED("prompt_dim", PS3C_FIELD_INT, PS3C_T(prompt_dim)),
        PS3C_REQUIRED("norm_eps", PS3C_FIELD_FLOAT, PS3C_T(norm_eps)),
        PS3C_REQUIRED("causal", PS3C_FIELD_BOOL, PS3C_T(causal)),
        PS3C_REQUIRED("class_token", PS3C_FIELD_BOOL, PS3C_T(class_token)),
        PS3C_REQUIRED("pad_id", PS3C_FIELD_INT, PS3C_T(pad_id)),
        PS3C_REQUIRED("layer_scale", PS3C_FIELD_BOOL, PS3C_T(layer_scale)),
        PS3C_REQUIRED("tanh_gelu", PS3C_FIELD_BOOL, PS3C_T(tanh_gelu)),
        PS3C_REQUIRED("projection_linear", PS3C_FIELD_BOOL, PS3C_T(projection_linear)),
        PS3C_REQUIRED("projection_bias", PS3C_FIELD_BOOL, PS3C_T(projection_bias)),
        PS3C_CHOICE("pool", PS3C_T(pool), ps3c_pool_names),
        {NULL, PS3C_FIELD_INT, 0, false, NULL, 0, 0},
    };
    *config = (ps3c_text_config){0};
    return ps3c_read_config(fields, dict, config);
}
