/* Linear layers, norms and transformer blocks as sequences of a backend's operations. */
#include "layers.h"

#include "../run/context.h"
#include "weights.h"

static ps3c_status linear(const ps3c_pass *pass, int64_t weight, ps3c_gemm_args *args)
{
    args->weight = pass->weights[weight].data;
    args->bias = pass->weights[weight + 1].data;
    args->k = args->ldw = args->x->channels;
    if (args->values_from == 0)
        args->values_from = args->n;
    return pass->backend->gemm(&pass->run, args);
}

ps3c_status ps3c_linear(const ps3c_pass *pass, int64_t weight, int64_t n, ps3c_activation_function act,
                        const ps3c_activation *x, const ps3c_activation *y)
{
    ps3c_gemm_args args = {.n = n, .act = act, .x = x, .y = y};
    return linear(pass, weight, &args);
}

ps3c_status ps3c_linear_residual(const ps3c_pass *pass, int64_t weight, int64_t n, int64_t scale,
                                 const ps3c_activation *x, const ps3c_activation *residual, const ps3c_activation *y)
{
    ps3c_gemm_args args = {.n = n, .x = x, .y = y, .residual = residual};
    if (scale >= 0)
        args.scale = pass->weights[scale].data;
    return linear(pass, weight, &args);
}

ps3c_status ps3c_norm(const ps3c_pass *pass, int64_t weight, float eps, ps3c_activation_function act,
                      const ps3c_activation *x, const ps3c_activation *y)
{
    const ps3c_layernorm_args args = {pass->weights[weight].data, pass->weights[weight + 1].data, eps, act, x, y};
    return pass->backend->layernorm(&pass->run, &args);
}

/* y = x W^T + b for rows [first, first + n) of the block's QKV matrix W. */
static ps3c_status project(const ps3c_pass *pass, int64_t weight, int64_t first, int64_t n, int64_t values_from,
                           const ps3c_activation *x, const ps3c_activation *y)
{
    const size_t bytes = ps3c_dtype_bytes(pass->run.dtype);
    const ps3c_gemm_args args = {.weight =
                                     (const char *)pass->weights[weight].data + (size_t)(first * x->channels) * bytes,
                                 .bias = (const char *)pass->weights[weight + 1].data + (size_t)first * bytes,
                                 .n = n,
                                 .k = x->channels,
                                 .ldw = x->channels,
                                 .x = x,
                                 .y = y,
                                 .values_from = values_from};
    return pass->backend->gemm(&pass->run, &args);
}

/* out = attention(normed). `wide` holds the queries, and the keys and values unless a->keep holds them. */
static ps3c_status attend(const ps3c_pass *pass, const ps3c_block_args *a, const ps3c_activation *normed,
                          const ps3c_activation *out)
{
    const int64_t width = a->x->channels, qkv = a->weights + PS3C_QKV_WEIGHT;
    ps3c_activation wide = ps3c_activation_like(a->x, a->wide, a->keep ? width : 3 * width);
    const ps3c_attention_args args = {.heads = a->heads,
                                      .head_dim = width / a->heads,
                                      .query = &wide,
                                      .own = a->keep ? a->keep : &wide,
                                      .own_channel = a->keep ? 0 : width,
                                      .cached = a->cached,
                                      .causal = a->causal,
                                      .last_query_mask = a->last_query_mask,
                                      .out = out};
    if (a->keep) {
        PS3C_TRY(project(pass, qkv, 0, width, width, normed, &wide));
        PS3C_TRY(project(pass, qkv, width, 2 * width, width, normed, a->keep));
    } else {
        PS3C_TRY(project(pass, qkv, 0, 3 * width, 2 * width, normed, &wide));
    }
    PS3C_TRY(ps3c_context_poll(pass->run.context));
    return pass->backend->attention(&pass->run, &args);
}

ps3c_status ps3c_block(const ps3c_pass *pass, const ps3c_block_args *a)
{
    const int64_t width = a->x->channels, w = a->weights;
    const int64_t scale1 = a->layer_scale ? w + PS3C_SCALE1 : -1, scale2 = a->layer_scale ? w + PS3C_SCALE2 : -1;
    const ps3c_activation normed = ps3c_activation_like(a->x, a->normed, width);
    const ps3c_activation hidden = ps3c_activation_like(a->x, a->wide, a->hidden);
    PS3C_TRY(ps3c_context_poll(pass->run.context));
    PS3C_TRY(ps3c_norm(pass, w + PS3C_NORM1_WEIGHT, a->eps, PS3C_ACT_NONE, a->x, &normed));
    /* The normed tokens are not needed after their projection, so attention writes its result over them. */
    PS3C_TRY(attend(pass, a, &normed, &normed));
    PS3C_TRY(ps3c_context_poll(pass->run.context));
    PS3C_TRY(ps3c_linear_residual(pass, w + PS3C_PROJ_WEIGHT, width, scale1, &normed, a->x, a->x));
    PS3C_TRY(ps3c_norm(pass, w + PS3C_NORM2_WEIGHT, a->eps, PS3C_ACT_NONE, a->x, &normed));
    PS3C_TRY(ps3c_linear(pass, w + PS3C_FC1_WEIGHT, a->hidden, a->act, &normed, &hidden));
    PS3C_TRY(ps3c_context_poll(pass->run.context));
    return ps3c_linear_residual(pass, w + PS3C_FC2_WEIGHT, width, scale2, &hidden, a->x, a->x);
}
