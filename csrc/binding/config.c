/* The tables of the configurations. The keys are the field names of the structs; a list also sets its length field. */
#include "fields.h"

_Static_assert(sizeof(ps3c_adapter) == sizeof(int) && sizeof(ps3c_text_pool) == sizeof(int), "choices are ints");

static const char *const ps3c_adapter_names[] = {"none", "v1", "v2", NULL};
static const char *const ps3c_pool_names[] = {"first", "last", "argmax", "none", NULL};

/* config must be zeroed. */
static int ps3c_read_config(const ps3c_field *fields, PyObject *dict, void *config)
{
    ps3c_reader reader = {.fields = fields, .target = config, .format = "config['%s']", .whole = "config"};
    if (!PyDict_Check(dict)) {
        PyErr_Format(PyExc_TypeError, "config: got %.200s, expected a dict", ps3c_type_name(dict));
        return -1;
    }
    return ps3c_read_arguments(&reader, NULL, dict);
}

#define PS3C_V(field) offsetof(ps3c_vision_config, field)
#define PS3C_T(field) offsetof(ps3c_text_config, field)

static const ps3c_field ps3c_vision_fields[] = {
    {"width", PS3C_FIELD_INT, PS3C_V(width), .required = true},
    {"depth", PS3C_FIELD_INT, PS3C_V(depth), .required = true},
    {"heads", PS3C_FIELD_INT, PS3C_V(heads), .required = true},
    {"mlp_hidden", PS3C_FIELD_INT, PS3C_V(mlp_hidden), .required = true},
    {"patch", PS3C_FIELD_INT, PS3C_V(patch), .required = true},
    {"grid", PS3C_FIELD_INT, PS3C_V(grid), .required = true},
    {"norm_eps", PS3C_FIELD_FLOAT, PS3C_V(norm_eps), .required = true},
    {"tanh_gelu", PS3C_FIELD_BOOL, PS3C_V(tanh_gelu), .required = false},
    {"crop_positions", PS3C_FIELD_BOOL, PS3C_V(crop_positions), .required = true},
    {"final_norm", PS3C_FIELD_BOOL, PS3C_V(final_norm), .required = true},
    {"scales", PS3C_FIELD_LIST, PS3C_V(scales), .required = true, .room = PS3C_MAX_SCALES, .other = PS3C_V(num_scales)},
    {"num_scales", PS3C_FIELD_LENGTH, .other = PS3C_V(num_scales)},
    {"max_select_num", PS3C_FIELD_LIST, PS3C_V(max_select_num), .required = true, .room = PS3C_MAX_SCALES,
     .other = SIZE_MAX},
    {"separate_positions", PS3C_FIELD_BOOL, PS3C_V(separate_positions), .required = true},
    {"select_layers", PS3C_FIELD_LIST, PS3C_V(select_layers), .required = true, .room = PS3C_MAX_SELECT_LAYERS,
     .other = PS3C_V(num_select_layers)},
    {"num_select_layers", PS3C_FIELD_LENGTH, .other = PS3C_V(num_select_layers)},
    {"highres_features", PS3C_FIELD_BOOL, PS3C_V(highres_features), .required = true},
    {"conv_width", PS3C_FIELD_INT, PS3C_V(conv_width), .required = false},
    {"conv_out", PS3C_FIELD_INT, PS3C_V(conv_out), .required = false},
    {"conv_depth", PS3C_FIELD_INT, PS3C_V(conv_depth), .required = false},
    {"conv_kernel", PS3C_FIELD_INT, PS3C_V(conv_kernel), .required = false},
    {"adapter", PS3C_FIELD_CHOICE, PS3C_V(adapter), .required = true, .choices = ps3c_adapter_names},
    {"adapter_hidden", PS3C_FIELD_INT, PS3C_V(adapter_hidden), .required = false},
    {"adapter_out", PS3C_FIELD_INT, PS3C_V(adapter_out), .required = false},
    {"adapter_blocks", PS3C_FIELD_INT, PS3C_V(adapter_blocks), .required = false},
    {"pool_width", PS3C_FIELD_INT, PS3C_V(pool_width), .required = true},
    {"pool_heads", PS3C_FIELD_INT, PS3C_V(pool_heads), .required = true},
    {"pool_hidden", PS3C_FIELD_INT, PS3C_V(pool_hidden), .required = true},
    {"pool_eps", PS3C_FIELD_FLOAT, PS3C_V(pool_eps), .required = true},
    {.name = NULL},
};

int ps3c_parse_vision_config(PyObject *dict, ps3c_vision_config *config)
{
    *config = (ps3c_vision_config){0};
    if (ps3c_read_config(ps3c_vision_fields, dict, config) < 0)
        return -1;
    PyObject *list = ps3c_dict_item(dict, "max_select_num");
    Py_ssize_t quotas = list == NULL ? -1 : PyObject_Length(list);
    if (!PyErr_Occurred() && quotas != config->num_scales - 1)
        PyErr_Format(PyExc_ValueError,
                     "config['max_select_num']: got %zd entries, expected %lld, one for each scale above the first",
                     quotas, (long long)config->num_scales - 1);
    return PyErr_Occurred() ? -1 : 0;
}

static const ps3c_field ps3c_text_fields[] = {
    {"width", PS3C_FIELD_INT, PS3C_T(width), .required = true},
    {"depth", PS3C_FIELD_INT, PS3C_T(depth), .required = true},
    {"heads", PS3C_FIELD_INT, PS3C_T(heads), .required = true},
    {"mlp_hidden", PS3C_FIELD_INT, PS3C_T(mlp_hidden), .required = true},
    {"context_length", PS3C_FIELD_INT, PS3C_T(context_length), .required = true},
    {"vocab_size", PS3C_FIELD_INT, PS3C_T(vocab_size), .required = true},
    {"output_dim", PS3C_FIELD_INT, PS3C_T(output_dim), .required = true},
    {"prompt_dim", PS3C_FIELD_INT, PS3C_T(prompt_dim), .required = true},
    {"norm_eps", PS3C_FIELD_FLOAT, PS3C_T(norm_eps), .required = true},
    {"causal", PS3C_FIELD_BOOL, PS3C_T(causal), .required = true},
    {"class_token", PS3C_FIELD_BOOL, PS3C_T(class_token), .required = true},
    {"pad_id", PS3C_FIELD_INT, PS3C_T(pad_id), .required = true},
    {"layer_scale", PS3C_FIELD_BOOL, PS3C_T(layer_scale), .required = true},
    {"tanh_gelu", PS3C_FIELD_BOOL, PS3C_T(tanh_gelu), .required = true},
    {"projection_linear", PS3C_FIELD_BOOL, PS3C_T(projection_linear), .required = true},
    {"projection_bias", PS3C_FIELD_BOOL, PS3C_T(projection_bias), .required = true},
    {"pool", PS3C_FIELD_CHOICE, PS3C_T(pool), .required = true, .choices = ps3c_pool_names},
    {.name = NULL},
};

int ps3c_parse_text_config(PyObject *dict, ps3c_text_config *config)
{
    *config = (ps3c_text_config){0};
    return ps3c_read_config(ps3c_text_fields, dict, config);
}

PyObject *ps3c_vision_config_dict(const ps3c_vision_config *config)
{
    PyObject *dict = ps3c_write_fields(ps3c_vision_fields, config);
    PyObject *quotas = dict == NULL ? NULL : ps3c_int_list(config->max_select_num, config->num_scales - 1);
    if (quotas == NULL || PyDict_SetItemString(dict, "max_select_num", quotas) < 0)
        Py_CLEAR(dict);
    Py_XDECREF(quotas);
    return dict;
}

PyObject *ps3c_text_config_dict(const ps3c_text_config *config) { return ps3c_write_fields(ps3c_text_fields, config); }
