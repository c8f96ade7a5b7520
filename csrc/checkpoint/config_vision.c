/* The vision configuration of a checkpoint. Field names, defaults and meanings are those of ps3-torch's
 * PS3VisionConfig. */
#include "config.h"

#include "fields.h"
#include "trunks.h"

#include <stdio.h>
#include <string.h>

#define REFUSE(...) ps3c_fail(context, PS3C_ERROR_CHECKPOINT, __VA_ARGS__)

enum { SIGLIP_WIDTH = 1152, SIGLIP_HEADS = 16, SIGLIP_HIDDEN = 4304 }; /* of the pool behind a C-RADIO trunk */
enum { WIDTH = 1 << 16, SIDE = 1 << 14, BLOCKS = 512, UNSET = -1 };

typedef struct fields {
    const char *model_name, *pool, *adapter_version;
    bool pretrained, dynamic_img_size, separate_pos_emb, highres, radio, final_norm, class_token;
    int64_t scales[PS3C_MAX_SCALES], num_scales;
    int64_t layers[PS3C_MAX_SELECT_LAYERS], num_layers;
    int64_t quotas[PS3C_MAX_SCALES], num_quotas;
    int64_t img_size[2], num_sides;
    int64_t max_select_num;
    int64_t conv_width, conv_out, conv_depth, conv_kernel;
    int64_t adapter_in, adapter_hidden, adapter_out, adapter_blocks;
} fields;

#define AT(field) offsetof(fields, field)
static const ps3c_entry entries[] = {
    PS3C_TEXT_ENTRY("model_name", AT(model_name)),
    PS3C_TEXT_ENTRY("pool", AT(pool)),
    PS3C_BOOL_ENTRY("pretrained", AT(pretrained)),
    PS3C_BOOL_ENTRY("dynamic_img_size", AT(dynamic_img_size)),
    PS3C_LIST_ENTRY("ps3_scales", AT(scales), 1, 1 << 16, AT(num_scales), PS3C_MAX_SCALES),
    PS3C_LIST_ENTRY("select_based_on_layer", AT(layers), -4096, 4095, AT(num_layers), PS3C_MAX_SELECT_LAYERS),
    PS3C_INTEGER_ENTRY("max_select_num", AT(max_select_num), 1, INT32_MAX),
    PS3C_LIST_ENTRY("max_select_num_each_scale", AT(quotas), 1, INT32_MAX, AT(num_quotas), PS3C_MAX_SCALES),
    PS3C_BOOL_ENTRY("separate_pos_emb", AT(separate_pos_emb)),
    PS3C_BOOL_ENTRY("highres_selection_feature", AT(highres)),
    PS3C_INTEGER_ENTRY("highres_selection_module_hidden_dim", AT(conv_width), 1, WIDTH),
    PS3C_INTEGER_ENTRY("highres_selection_module_out_dim", AT(conv_out), 1, WIDTH),
    PS3C_INTEGER_ENTRY("highres_selection_module_depth", AT(conv_depth), 0, BLOCKS),
    PS3C_INTEGER_ENTRY("highres_selection_module_kernel_size", AT(conv_kernel), 1, 1 << 12),
    PS3C_BOOL_ENTRY("radio", AT(radio)),
    PS3C_TEXT_ENTRY("radio_adapter_mlp_version", AT(adapter_version)),
    PS3C_INTEGER_ENTRY("radio_adapter_mlp_input_dim", AT(adapter_in), 1, WIDTH),
    PS3C_INTEGER_ENTRY("radio_adapter_mlp_hidden_dim", AT(adapter_hidden), 1, WIDTH),
    PS3C_INTEGER_ENTRY("radio_adapter_mlp_output_dim", AT(adapter_out), 1, WIDTH),
    PS3C_INTEGER_ENTRY("radio_adapter_mlp_num_inner", AT(adapter_blocks), 0, BLOCKS),
    PS3C_LIST_ENTRY("img_size", AT(img_size), 1, SIDE, AT(num_sides), 2),
    PS3C_BOOL_ENTRY("class_token", AT(class_token)),
    PS3C_BOOL_ENTRY("final_norm", AT(final_norm)),
    {.name = NULL},
};

static fields defaults(void)
{
    return (fields){.pool = "avg",
                    .dynamic_img_size = true,
                    .separate_pos_emb = true,
                    .highres = true,
                    .scales = {378, 756, 1512},
                    .num_scales = 3,
                    .layers = {0, 9, 18, 26},
                    .num_layers = 4,
                    .max_select_num = 1280,
                    .conv_width = 512,
                    .conv_out = 512,
                    .conv_depth = 3,
                    .conv_kernel = 28,
                    .adapter_in = UNSET,
                    .adapter_hidden = UNSET,
                    .adapter_out = UNSET,
                    .adapter_blocks = UNSET};
}

/* A trunk with a class token of its own needs "class_token": false. */
static ps3c_status check_class_token(ps3c_context *context, const char *prefix, const ps3c_json *object,
                                     const fields *f, const ps3c_trunk *trunk)
{
    const ps3c_json *given = ps3c_json_member(object, "class_token");
    const bool own = given == NULL || given->kind == PS3C_JSON_NULL;
    if (own ? !trunk->class_token : !f->class_token)
        return PS3C_OK;
    return REFUSE("%sclass_token: got %s, which gives %s a class token, expected false", prefix, own ? "none" : "true",
                  f->model_name);
}

static ps3c_status find_trunk(ps3c_context *context, const char *prefix, const fields *f, ps3c_trunk *trunk)
{
    char shown[PS3C_JSON_SHOWN];
    if (f->model_name == NULL)
        return REFUSE("%smodel_name: got none, expected the name of a timm vision transformer, such as "
                      "'vit_so400m_patch14_siglip_384'",
                      prefix);
    if (!ps3c_trunk_find(f->model_name, trunk))
        return REFUSE("%smodel_name: got %s, which is not among the known trunks, such as "
                      "'vit_so400m_patch14_siglip_384'",
                      prefix, ps3c_json_quote(f->model_name, shown));
    if (strcmp(f->pool, "map") != 0)
        return REFUSE("%spool: got %s, expected 'map': PS3 pools by attention", prefix,
                      ps3c_json_quote(f->pool, shown));
    if (f->pretrained)
        return REFUSE("%spretrained: got true, expected false: the trunk's weights are in the checkpoint", prefix);
    if (!f->dynamic_img_size)
        return REFUSE("%sdynamic_img_size: got false, expected true: every scale has a size of its own", prefix);
    return PS3C_OK;
}

static ps3c_status fill_trunk(ps3c_context *context, const char *prefix, const fields *f, const ps3c_trunk *trunk,
                              ps3c_vision_config *c)
{
    const int64_t side = f->num_sides > 0 ? f->img_size[0] : trunk->img_size;
    if (f->num_sides == 2 && f->img_size[0] != f->img_size[1])
        return REFUSE("%simg_size: got [%lld, %lld], expected one size or two equal ones: positions form a square",
                      prefix, (long long)f->img_size[0], (long long)f->img_size[1]);
    if (side < trunk->patch)
        return REFUSE("%simg_size: got %lld, expected %lld or more", prefix, (long long)side, (long long)trunk->patch);
    c->width = trunk->width;
    c->depth = trunk->depth;
    c->heads = trunk->heads;
    c->mlp_hidden = trunk->mlp_hidden;
    c->patch = trunk->patch;
    c->grid = side / trunk->patch;
    c->norm_eps = trunk->norm_eps;
    c->tanh_gelu = trunk->tanh_gelu;
    c->crop_positions = f->radio;
    c->final_norm = !f->radio || f->final_norm;
    c->pool_width = trunk->width;
    c->pool_heads = trunk->heads;
    c->pool_hidden = trunk->mlp_hidden;
    c->pool_eps = trunk->norm_eps;
    return PS3C_OK;
}

static void sort_ascending(int64_t *values, int64_t count)
{
    for (int64_t i = 1; i < count; i++)
        for (int64_t j = i; j > 0 && values[j] < values[j - 1]; j--) {
            const int64_t other = values[j];
            values[j] = values[j - 1];
            values[j - 1] = other;
        }
}

/* Scales, and the patches that a look takes of each high-res scale: max_select_num shared out by numbers of pixels.
 * What whole numbers leave over goes to the last scale. */
static ps3c_status fill_scales(ps3c_context *context, const char *prefix, fields *f, ps3c_vision_config *c)
{
    long double pixels = 0.0L; /* the products are exact in it, as Python's integers are */
    int64_t left = f->max_select_num;
    if (f->num_scales < 2)
        return REFUSE("%sps3_scales: got %lld sizes, expected a list of two or more", prefix, (long long)f->num_scales);
    sort_ascending(f->scales, f->num_scales);
    c->num_scales = f->num_scales;
    memcpy(c->scales, f->scales, sizeof c->scales);
    for (int64_t i = 1; i < f->num_scales; i++)
        pixels += (long double)(f->scales[i] * f->scales[i]);
    if (f->num_quotas > 0) {
        if (f->num_quotas != f->num_scales - 1)
            return REFUSE("%smax_select_num_each_scale: got %lld numbers, expected %lld, one for each high-res scale",
                          prefix, (long long)f->num_quotas, (long long)(f->num_scales - 1));
        memcpy(c->max_select_num, f->quotas, sizeof c->max_select_num);
        return PS3C_OK;
    }
    for (int64_t i = 1; i < f->num_scales; i++) {
        const long double own = (long double)(f->scales[i] * f->scales[i]);
        c->max_select_num[i - 1] = (int64_t)(double)((long double)f->max_select_num * own / pixels);
        left -= c->max_select_num[i - 1];
    }
    c->max_select_num[f->num_scales - 2] += left;
    return PS3C_OK;
}

static ps3c_status fill_selection(ps3c_context *context, const char *prefix, const fields *f, ps3c_vision_config *c)
{
    if (f->num_layers < 1)
        return REFUSE("%sselect_based_on_layer: got an empty list, expected layers", prefix);
    c->num_select_layers = f->num_layers;
    for (int64_t i = 0; i < f->num_layers; i++) {
        if (f->layers[i] < -c->depth || f->layers[i] >= c->depth)
            return REFUSE("%sselect_based_on_layer: got %lld, expected %lld to %lld: the trunk has %lld layers", prefix,
                          (long long)f->layers[i], (long long)-c->depth, (long long)(c->depth - 1),
                          (long long)c->depth);
        c->select_layers[i] = (f->layers[i] + c->depth) % c->depth;
    }
    c->separate_positions = f->separate_pos_emb;
    c->highres_features = f->highres;
    if (f->highres) {
        c->conv_width = f->conv_width;
        c->conv_out = f->conv_out;
        c->conv_depth = f->conv_depth;
        c->conv_kernel = f->conv_kernel;
    }
    return PS3C_OK;
}

static ps3c_status fill_adapter(ps3c_context *context, const char *prefix, const fields *f, ps3c_vision_config *c)
{
    const struct {
        const char *name;
        int64_t value, expected; /* expected: UNSET for any size */
    } sizes[] = {{"input_dim", f->adapter_in, c->width},
                 {"hidden_dim", f->adapter_hidden, UNSET},
                 {"output_dim", f->adapter_out, SIGLIP_WIDTH},
                 {"num_inner", f->adapter_blocks, UNSET}};
    char shown[PS3C_JSON_SHOWN];
    if (!f->radio)
        return PS3C_OK;
    const char *version = f->adapter_version != NULL ? f->adapter_version : "none";
    if (strcmp(version, "v1") != 0 && strcmp(version, "v2") != 0)
        return REFUSE("%sradio_adapter_mlp_version: got %s, expected 'v1' or 'v2'", prefix,
                      ps3c_json_quote(version, shown));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (sizes[i].value == UNSET)
            return REFUSE("%sradio_adapter_mlp_%s: got none, expected an integer", prefix, sizes[i].name);
        if (sizes[i].expected != UNSET && sizes[i].value != sizes[i].expected)
            return REFUSE("%sradio_adapter_mlp_%s: got %lld, expected %lld", prefix, sizes[i].name,
                          (long long)sizes[i].value, (long long)sizes[i].expected);
    }
    c->adapter = version[1] == '1' ? PS3C_ADAPTER_V1 : PS3C_ADAPTER_V2;
    c->adapter_hidden = f->adapter_hidden;
    c->adapter_out = f->adapter_out;
    c->adapter_blocks = f->adapter_blocks;
    c->pool_width = SIGLIP_WIDTH;
    c->pool_heads = SIGLIP_HEADS;
    c->pool_hidden = SIGLIP_HIDDEN;
    return PS3C_OK;
}

ps3c_status ps3c_read_vision_config(ps3c_context *context, const char *prefix, const ps3c_json *object,
                                    ps3c_vision_config *config)
{
    fields f = defaults();
    ps3c_trunk trunk;
    *config = (ps3c_vision_config){0};
    PS3C_TRY(ps3c_read_fields(context, prefix, object, entries, &f));
    PS3C_TRY(find_trunk(context, prefix, &f, &trunk));
    PS3C_TRY(check_class_token(context, prefix, object, &f, &trunk));
    PS3C_TRY(fill_trunk(context, prefix, &f, &trunk, config));
    PS3C_TRY(fill_scales(context, prefix, &f, config));
    PS3C_TRY(fill_selection(context, prefix, &f, config));
    PS3C_TRY(fill_adapter(context, prefix, &f, config));
    return ps3c_in_file(context, ps3c_vision_config_check(context, config), prefix);
}
