/* The layers that the vision and the text tower share, as sequences of a backend's operations. A weight is given by its
 * number (weights.h). Activations belong to the caller. Errors are those of the operations. */
#ifndef PS3C_LAYERS_H
#define PS3C_LAYERS_H

#include "../run/pass.h"

/* y = act(x W^T + b). W is weight number `weight`, (n, x->channels); b is the next weight. */
ps3c_status ps3c_linear(const ps3c_pass *pass, int64_t weight, int64_t n, ps3c_activation_function act,
                        const ps3c_activation *x, const ps3c_activation *y);
/* y = (x W^T + b) * scale + residual. scale: number of the per-channel factor, -1: none. y may be residual. */
ps3c_status ps3c_linear_residual(const ps3c_pass *pass, int64_t weight, int64_t n, int64_t scale,
                                 const ps3c_activation *x, const ps3c_activation *residual, const ps3c_activation *y);
/* y = act(LayerNorm(x)). `weight` is the number of the weight, the bias is the next. y may be x. */
ps3c_status ps3c_norm(const ps3c_pass *pass, int64_t weight, float eps, ps3c_activation_function act,
                      const ps3c_activation *x, const ps3c_activation *y);

/* A pre-norm transformer block (Dosovitskiy et al. 2021):
 * x += scale1 * attention(norm1(x)); x += scale2 * fc2(act(fc1(norm2(x)))). Without layer_scale the scales are 1. */
typedef struct ps3c_block_args {
    int64_t weights; /* number of the block's first weight; the order is in weights.h */
    bool layer_scale;
    int64_t heads, hidden; /* hidden: width of the MLP */
    float eps;
    ps3c_activation_function act;
    const ps3c_activation *x;      /* in and out */
    void *normed;                  /* buffer of the size of x */
    void *wide;                    /* buffer of the size of x with max(3 * channels, hidden) channels */
    const ps3c_activation *cached; /* keys and values that queries also see, 2 * channels; or NULL */
    const ps3c_activation *keep;   /* out: the keys and values of x, 2 * channels; NULL: they are not kept */
    bool causal;                   /* this and the next: as in ps3c_attention_args */
    const uint8_t *last_query_mask;
} ps3c_block_args;

ps3c_status ps3c_block(const ps3c_pass *pass, const ps3c_block_args *args);

/* An activation at data with the segments and tokens of x and another number of channels. */
static inline ps3c_activation ps3c_activation_like(const ps3c_activation *x, void *data, int64_t channels)
{
    return (ps3c_activation){data, x->segments, x->tokens, channels};
}

#endif
