/* The numbers of the weights of a configuration: indices in the `weights` array of a run. */
#ifndef PS3C_WEIGHTS_H
#define PS3C_WEIGHTS_H

#include "../contract/error.h"

/* The weights of one transformer block, as offsets from its first index. Vision and text have the same order. Text with
 * layer scale adds ls_1 and ls_2. */
enum {
    PS3C_NORM1_WEIGHT,
    PS3C_NORM1_BIAS,
    PS3C_QKV_WEIGHT,
    PS3C_QKV_BIAS,
    PS3C_PROJ_WEIGHT,
    PS3C_PROJ_BIAS,
    PS3C_NORM2_WEIGHT,
    PS3C_NORM2_BIAS,
    PS3C_FC1_WEIGHT,
    PS3C_FC1_BIAS,
    PS3C_FC2_WEIGHT,
    PS3C_FC2_BIAS,
    PS3C_BLOCK_WEIGHTS,
    PS3C_SCALE1 = PS3C_BLOCK_WEIGHTS,
    PS3C_SCALE2,
    PS3C_SCALED_BLOCK_WEIGHTS
};

/* Index of the first weight of each part; -1: the configuration does not have it. Linear layers and norms: weight, then
 * bias. */
typedef struct ps3c_vision_index {
    int64_t pos_embed, patch; /* patch: projection (C, 3, patch, patch), then bias */
    int64_t blocks;           /* PS3C_BLOCK_WEIGHTS each */
    int64_t norm;             /* final norm */
    int64_t pos_residual;     /* one for each high-res scale */
    int64_t prior_prompt;
    int64_t select_fc1, select_norm, select_fc2;
    int64_t stem, stem_norm;
    int64_t conv_blocks; /* layer scale, depthwise, norm, fc1, fc2: 9 each */
    int64_t conv_out;
    int64_t highres_prompt;
    int64_t adapter_fc1, adapter_norm, adapter_blocks, adapter_final; /* blocks: 4 each, in the order of weights.c */
    int64_t latent, pool_q, pool_kv, pool_proj, pool_norm, pool_fc1, pool_fc2;
    int64_t count;
} ps3c_vision_index;

typedef struct ps3c_text_index {
    int64_t token_embedding, class_token, positions, blocks, block_weights, norm, projection, prompt_fc1, prompt_norm,
        prompt_fc2;
    int64_t count;
} ps3c_text_index;

void ps3c_vision_index_of(const ps3c_vision_config *config, ps3c_vision_index *index);
void ps3c_text_index_of(const ps3c_text_config *config, ps3c_text_index *index);

/* Checks shape, dtype and device of all weights, and that they are contiguous. The message names the first invalid one
 * by its state_dict name: "weight trunk.norm.bias: got ...". Errors: those of ps3c_tensor_check. */
ps3c_status ps3c_vision_check_weights(ps3c_context *context, const ps3c_vision_config *config,
                                      const ps3c_tensor *weights, ps3c_dtype dtype, ps3c_device device);
ps3c_status ps3c_text_check_weights(ps3c_context *context, const ps3c_text_config *config, const ps3c_tensor *weights,
                                    ps3c_dtype dtype, ps3c_device device);

/* The weights of one block of the convolution network, as offsets from its first index. */
enum {
    PS3C_CONV_SCALE,
    PS3C_CONV_DEPTHWISE,
    PS3C_CONV_NORM = 3,
    PS3C_CONV_FC1 = 5,
    PS3C_CONV_FC2 = 7,
    PS3C_CONV_BLOCK_WEIGHTS = 9
};

#endif
