/* Which field of config.json decides a weight's shape. */
#include "fit.h"

#include <string.h>

/* The first row whose text is in the weight's name counts. */
typedef struct row {
    const char *part, *existence, *first, *others; /* fields: of the weight, of axis 0, of the other axes */
} row;

#define CONV "highres_selection_module_"
#define ADAPTER "radio_adapter_mlp_"

static const row vision_rows[] = {
    {"trunk.pos_embed", "model_name", "model_name", "img_size"},
    {"pos_emb_residual.", "separate_pos_emb", "ps3_scales", "ps3_scales"},
    {"selection_feature_proj.fc2.", "model_name", "ps3_scales", "select_based_on_layer"},
    {"selection_feature_proj.", "model_name", "select_based_on_layer", "select_based_on_layer"},
    {"highres_selection_feature_module.stem.0.weight", "highres_selection_feature", CONV "hidden_dim",
     CONV "kernel_size"},
    {"highres_selection_feature_module.blocks.", CONV "depth", CONV "hidden_dim", CONV "hidden_dim"},
    {"highres_selection_feature_module.out_proj.", "highres_selection_feature", CONV "out_dim", CONV "hidden_dim"},
    {"highres_selection_feature_module.", "highres_selection_feature", CONV "hidden_dim", CONV "hidden_dim"},
    {"prompt_proj_for_highres.", "highres_selection_feature", CONV "out_dim", "model_name"},
    {"trunk.siglip_proj.inner.", ADAPTER "num_inner", ADAPTER "hidden_dim", ADAPTER "hidden_dim"},
    {"trunk.siglip_proj.blocks.", ADAPTER "num_inner", ADAPTER "hidden_dim", ADAPTER "hidden_dim"},
    {"trunk.siglip_proj.", ADAPTER "version", ADAPTER "hidden_dim", ADAPTER "hidden_dim"},
    {"", "model_name", "model_name", "model_name"},
};

static const row text_rows[] = {
    {"token_embedding.", "vocab_size", "vocab_size", "width"},
    {"positional_embedding", "context_length", "context_length", "width"},
    {"cls_emb", "embed_cls", "width", "width"},
    {".ls_", "ls_init_value", "width", "width"},
    {".mlp.c_fc.", "layers", "mlp_ratio", "width"},
    {".mlp.c_proj.", "layers", "width", "mlp_ratio"},
    {"transformer.resblocks.", "layers", "width", "width"},
    {"text_projection.", "proj_bias", "output_dim", "width"},
    {"text_projection", "proj_bias", "width", "output_dim"},
    {"prompt_proj.fc1.", "prompt_proj_dim", "prompt_proj_dim", "output_dim"},
    {"prompt_proj.", "prompt_proj_dim", "prompt_proj_dim", "prompt_proj_dim"},
    {"", "width", "width", "width"},
};

static const char *field_of(const row *rows, const char *name, int axis)
{
    while (strstr(name, rows->part) == NULL)
        rows++;
    return axis < 0 ? rows->existence : axis == 0 ? rows->first : rows->others;
}

const char *ps3c_vision_field_of(const char *name, int axis) { return field_of(vision_rows, name, axis); }
const char *ps3c_text_field_of(const char *name, int axis) { return field_of(text_rows, name, axis); }

int ps3c_vision_block_lists(const ps3c_vision_config *config, ps3c_block_list lists[PS3C_BLOCK_LISTS])
{
    const bool v1 = config->adapter == PS3C_ADAPTER_V1; /* its blocks are Linear, LayerNorm, ReLU of one list */
    lists[0] = (ps3c_block_list){"trunk.blocks.", config->depth, "model_name", 1};
    lists[1] = (ps3c_block_list){"highres_selection_feature_module.blocks.",
                                 config->highres_features ? config->conv_depth : 0, CONV "depth", 1};
    lists[2] = (ps3c_block_list){v1 ? "trunk.siglip_proj.inner." : "trunk.siglip_proj.blocks.",
                                 config->adapter != PS3C_ADAPTER_NONE ? config->adapter_blocks : 0, ADAPTER "num_inner",
                                 v1 ? 3 : 1};
    return 3;
}

int ps3c_text_block_lists(const ps3c_text_config *config, ps3c_block_list lists[PS3C_BLOCK_LISTS])
{
    lists[0] = (ps3c_block_list){"transformer.resblocks.", config->depth, "layers", 1};
    return 1;
}
