/* The files of a small checkpoint: a vision tower of timm's test_vit with images of 32 x 32 pixels, 1 low-res patch and
 * 4 high-res patches, of which a look takes 2; and a text tower. */
#ifndef PS3C_TINY_FOLDER_H
#define PS3C_TINY_FOLDER_H

#include <stdio.h>
#include <string.h>

#include "../../csrc/ps3c.h"

static const char tiny_config[] =
    "{\"model_type\":\"ps3\",\"torch_dtype\":\"float32\",\"vision_config\":{\"model_name\":\"test_vit\",\"pool\":"
    "\"map\","
    "\"class_token\":false,\"img_size\":16,\"ps3_scales\":[16,32],\"select_based_on_layer\":[0],\"max_select_num\":2,"
    "\"highres_selection_feature\":false,\"separate_pos_emb\":true},\"text_config\":{\"width\":8,\"heads\":1,"
    "\"layers\":1,\"vocab_size\":4,\"context_length\":3,\"output_dim\":8,\"prompt_proj_dim\":8,\"proj_bias\":true,"
    "\"pool_type\":\"last\",\"act_kwargs\":{\"approximate\":\"tanh\"},\"norm_kwargs\":{\"eps\":1e-6}}}";
static const char tiny_preprocessor[] =
    "{\"image_size\":32,\"mean\":[0.5,0.5,0.5],\"std\":0.5,\"interpolation\":\"bicubic\",\"resize_mode\":\"squash\"}";

/* Writes the header of model.safetensors, without its length, to text[room]; *size: its bytes. Returns the bytes of the
 * data, which are float32; 0 if the text does not fit. */
static inline size_t tiny_header(ps3c_context *context, char *text, size_t room, size_t *size)
{
    const ps3c_vision_config vision = {.width = 64,
                                       .depth = 6,
                                       .heads = 2,
                                       .mlp_hidden = 192,
                                       .patch = 16,
                                       .grid = 1,
                                       .norm_eps = 1e-6f,
                                       .final_norm = true,
                                       .num_scales = 2,
                                       .scales = {16, 32},
                                       .max_select_num = {2},
                                       .separate_positions = true,
                                       .num_select_layers = 1,
                                       .pool_width = 64,
                                       .pool_heads = 2,
                                       .pool_hidden = 192,
                                       .pool_eps = 1e-6f};
    const ps3c_text_config words = {.width = 8,
                                    .depth = 1,
                                    .heads = 1,
                                    .mlp_hidden = 32,
                                    .context_length = 3,
                                    .vocab_size = 4,
                                    .output_dim = 8,
                                    .prompt_dim = 8,
                                    .norm_eps = 1e-6f,
                                    .causal = true,
                                    .tanh_gelu = true,
                                    .projection_linear = true,
                                    .projection_bias = true,
                                    .pool = PS3C_POOL_LAST};
    const int64_t eyes = ps3c_vision_weight_count(&vision), all = eyes + ps3c_text_weight_count(&words);
    size_t at = 0, used = 0;
    for (int64_t i = 0; i < all && used + 512 < room; i++) {
        ps3c_weight_info info;
        size_t bytes = 4;
        const ps3c_status status = i < eyes ? ps3c_vision_weight_info(context, &vision, i, &info)
                                            : ps3c_text_weight_info(context, &words, i - eyes, &info);
        if (status != PS3C_OK)
            return 0;
        used += (size_t)sprintf(text + used, "%c\"%s%s\":{\"dtype\":\"F32\",\"shape\":[", i > 0 ? ',' : '{',
                                i < eyes ? "vision_model." : "text_model.", info.name);
        for (int d = 0; d < info.ndim; d++) {
            used += (size_t)sprintf(text + used, d > 0 ? ",%lld" : "%lld", (long long)info.shape[d]);
            bytes *= (size_t)info.shape[d];
        }
        used += (size_t)sprintf(text + used, "],\"data_offsets\":[%zu,%zu]}", at, at + bytes);
        at += bytes;
    }
    if (used + 512 >= room)
        return 0;
    used += (size_t)sprintf(text + used, "}");
    *size = used;
    return at;
}

#endif
