/* The layers that the vision and the text tower share, in terms of a backend's operations. */
#ifndef PS3C_LAYERS_H
#define PS3C_LAYERS_H

#include "../run/pass.h"

/* y = act(x W^T + b): weight number `weight`, (n, x->channels), bias the next number. */
ps3c_status ps3c_linear(const ps3c_pass *pass, int64_t weight, int64_t n, ps3c_activation_function act,
                        const ps3c_activation *x, const ps3c_activation *y);
/* y = x W^T + b + residual; y may be residual. scale: number of a per-channel factor before the residual, or -1. */
ps3c_status ps3c_linear_residual(const ps3c_pass *pass, int64_t weight, int64_t n, int64_t scale,
                                 const ps3c_activation *x, const ps3c_activation *residual, const ps3c_activation *y);
/* y = act(LayerNorm(x)): weight number `weight`, bias the next. y may be x. */
ps3c_status ps3c_norm(const ps3c_pass *pass, int64_t weight, float eps, ps3c_activation_function act,
                      const ps3c_activation *x, const ps3c_activation *y);

/* A pre-norm transformer block (Dosovitskiy et al. 2021):
 * x += attention(norm1(x)); x += fc2(gelu(fc1(norm2(x)))), each addend times a layer scale where there is one. */
typedef struct ps3c_block_args {
    int64_t weights; /* number of the first of PS3C_BLOCK_WEIGHTS (or PS3C_SCALED_BLOCK_WEIGHTS) */
    bool layer_scale;
    int64_t heads, hidden; /* hidden: of the MLP */
    float eps;
    ps3c_activation_function act;
    const ps3c_activation *x;      /* in and out */
    void *normed;                  /* as large as x */
    void *wide;                    /* as large as x with max(3 * channels, hidden) channels */
    const ps3c_activation *cached; /* keys and values that queries see before their own, or NULL */
    const ps3c_activation *keep;   /* where this block's own keys and values go (2 * channels), or NULL: nowhere */
    bool causal;
    const uint8_t *last_query_mask;
} ps3c_block_args;

ps3c_status ps3c_block(const ps3c_pass *pass, const ps3c_block_args *args);

/* The same memory and tokens with another number of channels. */
static inline ps3c_activation ps3c_activation_like(const ps3c_activation *x, void *data, int64_t channels)
{
    return (ps3c_activation){data, x->segments, x->tokens, channels};
}

#endif
