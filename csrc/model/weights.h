/* The numbering of weights: which index each parameter of a configuration has. */
#ifndef PS3C_WEIGHTS_H
#define PS3C_WEIGHTS_H

#include "../contract/error.h"

/* Weights of one transformer block, from its first index on. The order is the same for vision and text; text with
 * layer scale has ls_1 and ls_2 after them. */
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

/* First indices; -1: the configuration has none. Linear layers and norms: weight, then bias. */
typedef struct ps3c_vision_index {
    int64_t pos_embed, patch; /* patch: projection (C, 3, p, p), bias */
    int64_t blocks;           /* PS3C_BLOCK_WEIGHTS each */
    int64_t norm;             /* final norm */
    int64_t pos_residual;     /* one a high-res scale */
    int64_t prior_prompt;
    int64_t select_fc1, select_norm, select_fc2;
    int64_t stem, stem_norm;
    int64_t conv_blocks; /* layer scale, depthwise, norm, fc1, fc2: 9 each */
    int64_t conv_out;
    int64_t highres_prompt;
    int64_t adapter_fc1, adapter_norm, adapter_blocks, adapter_final; /* blocks: 4 each; see weights.c */
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

/* Checks all weights of a run: shape, dtype, device, contiguous. The message names the first that is not so by its
 * state_dict name: "weight trunk.norm.bias: got ...". */
ps3c_status ps3c_vision_check_weights(ps3c_context *context, const ps3c_vision_config *config,
                                      const ps3c_tensor *weights, ps3c_dtype dtype, ps3c_device device);
ps3c_status ps3c_text_check_weights(ps3c_context *context, const ps3c_text_config *config, const ps3c_tensor *weights,
                                    ps3c_dtype dtype, ps3c_device device);

enum {
    PS3C_CONV_SCALE,
    PS3C_CONV_DEPTHWISE,
    PS3C_CONV_NORM = 3,
    PS3C_CONV_FC1 = 5,
    PS3C_CONV_FC2 = 7,
    PS3C_CONV_BLOCK_WEIGHTS = 9
};

#endif
