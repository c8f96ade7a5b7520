/* The vision pass: low-res tokens, selection, looks, pooling. It reads like the description of the model; what is
 * planned from sizes alone is in vision_plan.c, the arithmetic in the backend.
 *
 * Source: the behaviour of ps3-torch's PS3VisionEncoder. Two facts let all looks be known before the first runs: each
 * look takes the next patches of one stable ranking, and looks see the low-res tokens but not each other. */
#include <stdint.h>

#include "../run/context.h"
#include "layers.h"
#include "../run/tensor.h"
#include "vision_plan.h"

enum { PRIOR, PROMPT, KINDS };
static const float TORCH_NORM_EPS = 1e-5f; /* nn.LayerNorm's default: selection projection, adapter */
static const float CONV_NORM_EPS = 1e-6f;

/* Images that run together: their views of the caller's tensors, and the workspace. */
typedef struct chunk {
    ps3c_pass pass;
    const ps3c_vision_plan *plan;
    const ps3c_vision_io *io;
    char *workspace;
    int64_t first, images;
    ps3c_tensor pixels, prompt, gt;
} chunk;

static ps3c_activation activation(const chunk *k, size_t offset, int64_t segments, int64_t tokens, int64_t channels)
{
    return (ps3c_activation){k->workspace + offset, segments, tokens, channels};
}

static int64_t low_tokens(const ps3c_vision_plan *plan) { return plan->low.rows * plan->low.cols; }

/* Keys and values of block `layer`. */
static ps3c_activation cache_of(const chunk *k, int64_t layer)
{
    const ps3c_vision_plan *p = k->plan;
    return activation(k, p->at.cache + (size_t)layer * p->at.cache_step, k->images, low_tokens(p), 2 * p->config.width);
}

/* ---- tokens ----------------------------------------------------------------------------------------------- */

/* Patches -> embedding -> + position. positions NULL: every patch of the only scale. */
static ps3c_status embed(const chunk *k, const ps3c_scale *scales, int64_t num_scales, const int32_t *positions,
                         const ps3c_activation *x)
{
    const ps3c_vision_plan *p = k->plan;
    const ps3c_vision_config *c = &p->config;
    const void *residual[PS3C_MAX_SCALES];
    int64_t residual_grid[PS3C_MAX_SCALES];
    const ps3c_activation patches = activation(k, p->at.wide, x->segments, x->tokens, 3 * c->patch * c->patch);
    const ps3c_patch_gather_args gather = {&k->pixels, c->patch, scales, num_scales, positions, &patches};
    ps3c_position_add_args add = {k->pass.weights[p->index.pos_embed].data,
                                  c->grid,
                                  c->crop_positions,
                                  scales,
                                  num_scales,
                                  NULL,
                                  NULL,
                                  positions,
                                  x};
    if (positions && c->separate_positions) {
        for (int64_t s = 0; s < num_scales; s++) {
            residual[s] = k->pass.weights[p->index.pos_residual + s].data;
            residual_grid[s] = c->scales[s + 1] / c->patch;
        }
        add.residual = residual;
        add.residual_grid = residual_grid;
    }
    PS3C_TRY(k->pass.backend->patch_gather(&k->pass.run, &gather));
    PS3C_TRY(ps3c_linear(&k->pass, p->index.patch, c->width, PS3C_ACT_NONE, &patches, x));
    return k->pass.backend->position_add(&k->pass.run, &add);
}

/* Tokens after block `layer` into the hidden states, when that layer is returned. */
static ps3c_status return_hidden(const chunk *k, int64_t layer, const ps3c_activation *x, int64_t first_row,
                                 const int32_t *row_of)
{
    const ps3c_vision_plan *p = k->plan;
    const int64_t number = layer - (p->config.depth - p->hidden_states);
    if (number < 0)
        return PS3C_OK;
    const ps3c_tensor *out = &k->io->hidden_states[number];
    const ps3c_to_rows_args args = {x,
                                    row_of,
                                    k->images,
                                    first_row,
                                    (char *)out->data +
                                        (size_t)(k->first * out->strides[0]) * ps3c_dtype_bytes(k->pass.run.dtype),
                                    out->strides[1],
                                    out->strides[0]};
    return k->pass.backend->to_rows(&k->pass.run, &args);
}

static ps3c_status run_block(const chunk *k, int64_t layer, const ps3c_activation *x, const ps3c_activation *cached,
                             const ps3c_activation *keep)
{
    const ps3c_vision_plan *p = k->plan;
    const ps3c_block_args args = {.weights = p->index.blocks + layer * PS3C_BLOCK_WEIGHTS,
                                  .heads = p->config.heads,
                                  .hidden = p->config.mlp_hidden,
                                  .eps = p->config.norm_eps,
                                  .act = p->config.tanh_gelu ? PS3C_ACT_GELU_TANH : PS3C_ACT_GELU_ERF,
                                  .x = x,
                                  .normed = k->workspace + p->at.normed,
                                  .wide = k->workspace + p->at.wide,
                                  .cached = cached,
                                  .keep = keep};
    return ps3c_block(&k->pass, &args);
}

static ps3c_status run_low_res(const chunk *k, const ps3c_activation *x)
{
    const ps3c_vision_plan *p = k->plan;
    const ps3c_vision_config *c = &p->config;
    const bool select = p->request.mode != PS3C_VISION_LOW_RES;
    const ps3c_activation selected = activation(k, p->at.select, k->images, x->tokens, c->width * c->num_select_layers);
    PS3C_TRY(embed(k, &p->low, 1, NULL, x));
    for (int64_t layer = 0; layer < c->depth; layer++) {
        const ps3c_activation keep = cache_of(k, layer);
        PS3C_TRY(run_block(k, layer, x, NULL, p->looks ? &keep : NULL));
        PS3C_TRY(return_hidden(k, layer, x, 0, NULL));
        for (int64_t i = 0; select && i < c->num_select_layers; i++)
            if (c->select_layers[i] == layer) {
                const ps3c_copy_channels_args copy = {x, &selected, i * c->width};
                PS3C_TRY(k->pass.backend->copy_channels(&k->pass.run, &copy));
            }
    }
    return PS3C_OK;
}

/* ---- pooling ---------------------------------------------------------------------------------------------- */

/* C-RADIO's adapter to SigLIP features; returns where its output lies. */
static ps3c_status adapt(const chunk *k, const ps3c_activation *x, ps3c_activation *out)
{
    const ps3c_vision_plan *p = k->plan;
    const ps3c_vision_config *c = &p->config;
    const ps3c_pass *pass = &k->pass;
    const bool v2 = c->adapter == PS3C_ADAPTER_V2;
    const ps3c_activation a = ps3c_activation_like(x, k->workspace + p->at.adapted[0], c->adapter_hidden);
    const ps3c_activation b = ps3c_activation_like(x, k->workspace + p->at.adapted[1], c->adapter_hidden);
    *out = ps3c_activation_like(x, k->workspace + p->at.adapted[2], c->adapter_out);
    PS3C_TRY(ps3c_linear(pass, p->index.adapter_fc1, c->adapter_hidden, PS3C_ACT_NONE, x, &a));
    if (v2) {
        for (int64_t i = 0; i < c->adapter_blocks; i++) {
            const int64_t w = p->index.adapter_blocks + 4 * i;
            PS3C_TRY(ps3c_norm(pass, w, TORCH_NORM_EPS, PS3C_ACT_GELU_ERF, &a, &b));
            PS3C_TRY(ps3c_linear_residual(pass, w + 2, c->adapter_hidden, -1, &b, &a, &a));
        }
        PS3C_TRY(ps3c_norm(pass, p->index.adapter_final, TORCH_NORM_EPS, PS3C_ACT_GELU_ERF, &a, &a));
        return ps3c_linear(pass, p->index.adapter_final + 2, c->adapter_out, PS3C_ACT_NONE, &a, out);
    }
    const ps3c_activation *in = &a, *next = &b;
    PS3C_TRY(ps3c_norm(pass, p->index.adapter_norm, TORCH_NORM_EPS, PS3C_ACT_RELU, &a, &a));
    for (int64_t i = 0; i < c->adapter_blocks; i++) {
        const int64_t w = p->index.adapter_blocks + 4 * i;
        const ps3c_activation *swap = in;
        PS3C_TRY(ps3c_linear(pass, w, c->adapter_hidden, PS3C_ACT_NONE, in, next));
        PS3C_TRY(ps3c_norm(pass, w + 2, TORCH_NORM_EPS, PS3C_ACT_RELU, next, next));
        in = next;
        next = swap;
    }
    return ps3c_linear(pass, p->index.adapter_final, c->adapter_out, PS3C_ACT_NONE, in, out);
}

/* Final norm, adapter and attention pool (one latent query an image) over x's tokens; out: (1, images, pool width). */
static ps3c_status pool(const chunk *k, const ps3c_activation *x, const uint8_t *mask, const ps3c_activation *out)
{
    const ps3c_vision_plan *p = k->plan;
    const ps3c_vision_config *c = &p->config;
    const ps3c_pass *pass = &k->pass;
    const int64_t width = c->pool_width;
    const ps3c_activation normed = ps3c_activation_like(x, k->workspace + p->at.normed, c->width);
    const ps3c_activation latent = activation(k, p->at.latent, 1, 1, width);
    const ps3c_activation query = activation(k, p->at.pool_query, 1, 1, width);
    const ps3c_activation kv = activation(k, p->at.kv, x->segments, x->tokens, 2 * width);
    const ps3c_activation a = activation(k, p->at.pool_a, 1, k->images, width);
    const ps3c_activation b = activation(k, p->at.pool_b, 1, k->images, width);
    const ps3c_activation hidden = activation(k, p->at.pool_hidden, 1, k->images, c->pool_hidden);
    const ps3c_from_rows_args from = {pass->weights[p->index.latent].data, &latent};
    const ps3c_attention_pool_args attend = {c->pool_heads, width / c->pool_heads, &query, &kv, mask, &a};
    ps3c_activation tokens = *x;
    if (c->final_norm) {
        PS3C_TRY(ps3c_norm(pass, p->index.norm, c->norm_eps, PS3C_ACT_NONE, x, &normed));
        tokens = normed;
    }
    if (c->adapter != PS3C_ADAPTER_NONE) {
        const ps3c_activation in = tokens;
        PS3C_TRY(adapt(k, &in, &tokens));
    }
    PS3C_TRY(pass->backend->from_rows(&pass->run, &from));
    PS3C_TRY(ps3c_linear(pass, p->index.pool_q, width, PS3C_ACT_NONE, &latent, &query));
    PS3C_TRY(ps3c_linear(pass, p->index.pool_kv, 2 * width, PS3C_ACT_NONE, &tokens, &kv));
    PS3C_TRY(pass->backend->attention_pool(&pass->run, &attend));
    PS3C_TRY(ps3c_linear(pass, p->index.pool_proj, width, PS3C_ACT_NONE, &a, &b));
    PS3C_TRY(ps3c_norm(pass, p->index.pool_norm, c->pool_eps, PS3C_ACT_NONE, &b, &a));
    PS3C_TRY(ps3c_linear(pass, p->index.pool_fc1, c->pool_hidden,
                         c->tanh_gelu && c->adapter == PS3C_ADAPTER_NONE ? PS3C_ACT_GELU_TANH : PS3C_ACT_GELU_ERF, &a,
                         &hidden));
    return ps3c_linear_residual(pass, p->index.pool_fc2, width, -1, &hidden, &b, out);
}

static ps3c_status return_pooled(const chunk *k, const ps3c_activation *x)
{
    const ps3c_tensor *out = k->io->pooled;
    const ps3c_to_rows_args args = {x,
                                    NULL,
                                    1,
                                    0,
                                    (char *)out->data +
                                        (size_t)(k->first * out->strides[0]) * ps3c_dtype_bytes(k->pass.run.dtype),
                                    out->strides[0],
                                    0};
    return k->pass.backend->to_rows(&k->pass.run, &args);
}

/* ---- selection -------------------------------------------------------------------------------------------- */

/* The convolution network over image `image` of the chunk: stem, ConvNeXt blocks (Liu et al. 2022), projection. */
static ps3c_status convolve(const chunk *k, int64_t image, const ps3c_activation *out)
{
    const ps3c_vision_plan *p = k->plan;
    const ps3c_vision_config *c = &p->config;
    const ps3c_pass *pass = &k->pass;
    const int64_t tokens = out->tokens, width = c->conv_width;
    const ps3c_tensor pixels = ps3c_tensor_slice(&k->pixels, image, 1);
    const ps3c_activation patches = activation(k, p->at.conv_wide, 1, tokens, 3 * c->conv_kernel * c->conv_kernel);
    const ps3c_activation hidden = activation(k, p->at.conv_wide, 1, tokens, 4 * width);
    const ps3c_activation x = activation(k, p->at.conv_x, 1, tokens, width);
    const ps3c_activation y = activation(k, p->at.conv_y, 1, tokens, width);
    const ps3c_patch_gather_args gather = {&pixels, c->conv_kernel, &p->conv, 1, NULL, &patches};
    PS3C_TRY(ps3c_context_poll(pass->run.context));
    PS3C_TRY(pass->backend->patch_gather(&pass->run, &gather));
    PS3C_TRY(ps3c_linear(pass, p->index.stem, width, PS3C_ACT_NONE, &patches, &x));
    PS3C_TRY(ps3c_norm(pass, p->index.stem_norm, CONV_NORM_EPS, PS3C_ACT_NONE, &x, &x));
    for (int64_t i = 0; i < c->conv_depth; i++) {
        const int64_t w = p->index.conv_blocks + i * PS3C_CONV_BLOCK_WEIGHTS;
        const ps3c_depthwise_args depthwise = {pass->weights[w + PS3C_CONV_DEPTHWISE].data,
                                               pass->weights[w + PS3C_CONV_DEPTHWISE + 1].data,
                                               p->conv.rows,
                                               p->conv.cols,
                                               &x,
                                               &y};
        PS3C_TRY(pass->backend->depthwise(&pass->run, &depthwise));
        PS3C_TRY(ps3c_norm(pass, w + PS3C_CONV_NORM, CONV_NORM_EPS, PS3C_ACT_NONE, &y, &y));
        PS3C_TRY(ps3c_linear(pass, w + PS3C_CONV_FC1, 4 * width, PS3C_ACT_GELU_ERF, &y, &hidden));
        PS3C_TRY(ps3c_linear_residual(pass, w + PS3C_CONV_FC2, width, w + PS3C_CONV_SCALE, &hidden, &x, &x));
    }
    return ps3c_linear(pass, p->index.conv_out, c->conv_out, PS3C_ACT_NONE, &x, out);
}

/* Rows of a prompt: the images', or the prior prompt's one row for all of them. */
static const void *prompt_of(const chunk *k, int kind, int64_t *rows)
{
    *rows = kind == PRIOR ? 1 : k->images;
    return kind == PRIOR ? k->pass.weights[k->plan->index.prior_prompt].data : k->prompt.data;
}

/* A prompt in the convolution features' space, as rows. Only the first scale's slice of the projection is used. */
static ps3c_status project_prompt(const chunk *k, int kind)
{
    const ps3c_vision_plan *p = k->plan;
    const ps3c_vision_config *c = &p->config;
    int64_t rows;
    const void *prompt = prompt_of(k, kind, &rows);
    const ps3c_activation x = activation(k, p->at.prompt, 1, rows, c->width);
    const ps3c_activation y = activation(k, p->at.prompt_high, 1, rows, c->conv_out);
    const ps3c_from_rows_args from = {prompt, &x};
    const ps3c_to_rows_args to = {&y, NULL, 1, 0, k->workspace + p->at.prompt_rows[kind], c->conv_out, 0};
    PS3C_TRY(k->pass.backend->from_rows(&k->pass.run, &from));
    PS3C_TRY(ps3c_linear(&k->pass, p->index.highres_prompt, c->conv_out, PS3C_ACT_NONE, &x, &y));
    return k->pass.backend->to_rows(&k->pass.run, &to);
}

/* Cosines of the convolution features with each wanted prompt, max-pooled to the low-res grid. */
static ps3c_status highres_logits(const chunk *k, const bool *wanted)
{
    const ps3c_vision_plan *p = k->plan;
    const int64_t tokens = p->conv.rows * p->conv.cols;
    const size_t bytes = ps3c_dtype_bytes(k->pass.run.dtype);
    const ps3c_activation features = activation(k, p->at.conv_out, 1, tokens, p->config.conv_out);
    float *logits = (float *)(k->workspace + p->at.high_logits);
    for (int kind = 0; kind < KINDS; kind++)
        if (wanted[kind])
            PS3C_TRY(project_prompt(k, kind));
    for (int64_t image = 0; image < k->images; image++) {
        PS3C_TRY(convolve(k, image, &features));
        for (int kind = 0; kind < KINDS; kind++) {
            const int64_t row = kind == PRIOR ? 0 : image;
            const char *prompt = k->workspace + p->at.prompt_rows[kind] + (size_t)(row * p->config.conv_out) * bytes;
            float *pooled = (float *)(k->workspace + p->at.high_pooled[kind]) + image * low_tokens(p);
            const ps3c_cosine_args cosine = {&features, prompt, 0, logits};
            const ps3c_max_pool_args pool_args = {logits,       pooled,      1,          p->conv.rows,
                                                  p->conv.cols, p->low.rows, p->low.cols};
            if (!wanted[kind])
                continue;
            PS3C_TRY(k->pass.backend->cosine(&k->pass.run, &cosine));
            PS3C_TRY(k->pass.backend->max_pool(&k->pass.run, &pool_args));
        }
    }
    return PS3C_OK;
}

/* One prompt's probabilities, at every high-res scale, into `out` [S]; plain: without ground truth and smoothing. */
static ps3c_status expand(const chunk *k, const ps3c_tensor *out, bool plain)
{
    const ps3c_vision_plan *p = k->plan;
    for (int64_t s = 0; s < p->num_high; s++) {
        const ps3c_tensor slice = ps3c_tensor_slice(&out[s], k->first, k->images);
        const ps3c_expand_args args = {(const float *)(k->workspace + p->at.probs),
                                       k->images,
                                       p->low.rows,
                                       p->low.cols,
                                       plain || !p->request.gt_maps ? NULL : &k->gt,
                                       p->high[0].rows,
                                       p->high[0].cols,
                                       !plain && p->request.smooth,
                                       &slice};
        PS3C_TRY(k->pass.backend->expand(&k->pass.run, &args));
    }
    return PS3C_OK;
}

static ps3c_status probabilities(const chunk *k, int kind, const ps3c_activation *features)
{
    const ps3c_vision_plan *p = k->plan;
    int64_t rows;
    const void *prompt = prompt_of(k, kind, &rows);
    float *logits = (float *)(k->workspace + p->at.logits);
    const ps3c_cosine_args cosine = {features, prompt, rows > 1 ? p->config.width : 0, logits};
    const ps3c_probability_args probability = {
        logits, p->config.highres_features ? (const float *)(k->workspace + p->at.high_pooled[kind]) : NULL,
        (float *)(k->workspace + p->at.probs), k->images * low_tokens(p)};
    PS3C_TRY(k->pass.backend->cosine(&k->pass.run, &cosine));
    return k->pass.backend->probability(&k->pass.run, &probability);
}

static ps3c_status select_patches(const chunk *k)
{
    const ps3c_vision_plan *p = k->plan;
    const ps3c_vision_config *c = &p->config;
    const int64_t low = low_tokens(p), wide = c->width * c->num_select_layers;
    const int chosen = p->request.prompt ? PROMPT : PRIOR;
    const bool pretrain = p->request.mode == PS3C_VISION_PRETRAIN;
    const bool wanted[KINDS] = {pretrain || chosen == PRIOR, chosen == PROMPT};
    const ps3c_activation concat = activation(k, p->at.select, k->images, low, wide);
    const ps3c_activation hidden = activation(k, p->at.select_hidden, k->images, low, wide);
    const ps3c_activation features = activation(k, p->at.select_out, k->images, low, c->width);
    PS3C_TRY(ps3c_linear(&k->pass, p->index.select_fc1, wide, PS3C_ACT_GELU_ERF, &concat, &hidden));
    PS3C_TRY(ps3c_norm(&k->pass, p->index.select_norm, TORCH_NORM_EPS, PS3C_ACT_NONE, &hidden, &hidden));
    /* The projection holds one slice a scale; the reference uses the first for all of them. */
    PS3C_TRY(ps3c_linear(&k->pass, p->index.select_fc2, c->width, PS3C_ACT_NONE, &hidden, &features));
    if (c->highres_features)
        PS3C_TRY(highres_logits(k, wanted));
    for (int kind = 0; kind < KINDS; kind++) {
        if (!wanted[kind])
            continue;
        PS3C_TRY(probabilities(k, kind, &features));
        if (pretrain)
            PS3C_TRY(expand(k, kind == PRIOR ? k->io->bottomup_probs : k->io->topdown_probs, true));
        if (kind == chosen)
            PS3C_TRY(expand(k, k->io->selection_probs, false));
    }
    return PS3C_OK;
}

/* Ranks -> what each look takes, and the 0/1 maps. */
static ps3c_status assign(const chunk *k)
{
    const ps3c_vision_plan *p = k->plan;
    ps3c_tensor maps[PS3C_MAX_SCALES];
    const int32_t *rank[PS3C_MAX_SCALES];
    for (int64_t s = 0; s < p->num_high; s++) {
        const ps3c_tensor probs = ps3c_tensor_slice(&k->io->selection_probs[s], k->first, k->images);
        const ps3c_rank_args args = {&probs, (int32_t *)(k->workspace + p->at.rank[s])};
        PS3C_TRY(k->pass.backend->rank(&k->pass.run, &args));
        maps[s] = ps3c_tensor_slice(&k->io->selection_maps[s], k->first, k->images);
        rank[s] = args.rank;
    }
    const ps3c_assign_looks_args args = {k->images,
                                         p->looks,
                                         p->num_high,
                                         p->high,
                                         rank,
                                         p->ends + k->first * p->num_high * p->looks,
                                         ps3c_vision_look_entry(p, k->images),
                                         p->look_tokens,
                                         (int32_t *)(k->workspace + p->at.positions),
                                         (int32_t *)(k->workspace + p->at.row_of),
                                         maps};
    return k->pass.backend->assign_looks(&k->pass.run, &args);
}

/* The first step of a chunk: the low resolution, and which patches its looks will take. */
static ps3c_status see_whole(const chunk *k)
{
    const ps3c_vision_plan *p = k->plan;
    const ps3c_activation x = activation(k, p->at.x, k->images, low_tokens(p), p->config.width);
    const ps3c_activation low_pooled = activation(k, p->at.low_pooled, 1, k->images, p->config.pool_width);
    PS3C_TRY(run_low_res(k, &x));
    if (p->low_pooled)
        PS3C_TRY(pool(k, &x, NULL, &low_pooled));
    if (p->low_pooled && p->request.mode != PS3C_VISION_PRETRAIN)
        PS3C_TRY(return_pooled(k, &low_pooled));
    if (p->request.mode == PS3C_VISION_LOW_RES)
        return PS3C_OK;
    PS3C_TRY(select_patches(k));
    return p->looks ? assign(k) : PS3C_OK;
}

/* ---- looks ------------------------------------------------------------------------------------------------ */

/* Looks of the same length, as segments of x: look after look, image after image. */
static ps3c_status run_looks(const chunk *k, const int32_t *positions, const int32_t *row_of, const ps3c_activation *x)
{
    const ps3c_vision_plan *p = k->plan;
    PS3C_TRY(embed(k, p->high, p->num_high, positions, x));
    for (int64_t layer = 0; layer < p->config.depth; layer++) {
        const ps3c_activation cached = cache_of(k, layer);
        PS3C_TRY(run_block(k, layer, x, &cached, NULL));
        PS3C_TRY(return_hidden(k, layer, x, low_tokens(p), row_of));
    }
    return PS3C_OK;
}

/* Pre-training's pooled vector of the only look; images with a global text get the low-res one. */
static ps3c_status pool_look(const chunk *k, const int32_t *positions, const ps3c_activation *x)
{
    const ps3c_vision_plan *p = k->plan;
    uint8_t *mask = (uint8_t *)k->workspace + p->at.mask;
    const ps3c_activation pooled = activation(k, p->at.pool_a, 1, k->images, p->config.pool_width);
    const ps3c_activation low = activation(k, p->at.low_pooled, 1, k->images, p->config.pool_width);
    const ps3c_gt_mask_args args = {&k->gt, p->high, p->num_high, positions, k->images, x->tokens, mask};
    const ps3c_blend_args blend = {k->io->global_text, k->first, &low, &pooled};
    if (p->request.pool_gt_only)
        PS3C_TRY(k->pass.backend->gt_mask(&k->pass.run, &args));
    PS3C_TRY(pool(k, x, p->request.pool_gt_only ? mask : NULL, &pooled));
    if (p->request.global_text)
        PS3C_TRY(k->pass.backend->blend(&k->pass.run, &blend));
    return return_pooled(k, &pooled);
}

/* Each further step of a chunk: a group of its looks. */
static ps3c_status look_close(const chunk *k, const ps3c_vision_step *step)
{
    const ps3c_vision_plan *p = k->plan;
    const int64_t entry = ps3c_vision_look_entry(p, k->images)[step->first_look];
    const int32_t *positions = (const int32_t *)(k->workspace + p->at.positions) + entry;
    const int32_t *row_of = (const int32_t *)(k->workspace + p->at.row_of) + entry;
    const ps3c_activation x = activation(k, p->at.x, step->looks * k->images, step->tokens, p->config.width);
    if (!x.tokens)
        return PS3C_OK;
    PS3C_TRY(run_looks(k, positions, row_of, &x));
    return p->request.mode == PS3C_VISION_PRETRAIN ? pool_look(k, positions, &x) : PS3C_OK;
}

/* ---- the caller's tensors --------------------------------------------------------------------------------- */

static ps3c_status check_outputs(ps3c_context *context, const ps3c_vision_plan *p, const char *name,
                                 const ps3c_tensor *outputs)
{
    for (int64_t s = 0; s < p->num_high; s++) {
        const int64_t shape[] = {p->request.batch, p->high[s].rows, p->high[s].cols};
        PS3C_TRY(ps3c_tensor_check_contiguous(context, name, outputs ? &outputs[s] : NULL, p->request.dtype,
                                              p->request.device, 3, shape));
    }
    return PS3C_OK;
}

static ps3c_status check_inputs(ps3c_context *context, const ps3c_vision_plan *p, const ps3c_vision_io *io)
{
    const ps3c_vision_request *r = &p->request;
    const int64_t pixels[] = {r->batch, 3, r->height, r->width}, prompt[] = {r->batch, p->config.width};
    const int64_t gt[] = {r->batch, -1, -1}, flag[] = {r->batch, 1};
    PS3C_TRY(ps3c_tensor_check(context, "pixel_values", io->pixel_values, r->dtype, r->device, 4, pixels));
    if (r->prompt)
        PS3C_TRY(ps3c_tensor_check_contiguous(context, "prompt", io->prompt, r->dtype, r->device, 2, prompt));
    if (r->gt_maps) {
        PS3C_TRY(ps3c_tensor_check(context, "gt_selection_maps", io->gt_maps,
                                   io->gt_maps ? io->gt_maps->dtype : r->dtype, r->device, 3, gt));
        if (!io->gt_maps->shape[1] || !io->gt_maps->shape[2])
            return ps3c_fail(context, PS3C_ERROR_VALUE, "gt_selection_maps: got an empty map, expected 1 x 1 or more");
    }
    if (r->global_text)
        PS3C_TRY(ps3c_tensor_check(context, "is_global_text", io->global_text, PS3C_FLOAT32, r->device, 2, flag));
    for (int64_t i = 0; i < p->index.count; i++) {
        const ps3c_tensor *w = &io->weights[i];
        if (w->dtype == r->dtype && w->data && ps3c_tensor_is_contiguous(w))
            continue;
        ps3c_weight_info info;
        PS3C_TRY(ps3c_vision_weight_info(context, &p->config, i, &info));
        PS3C_TRY(ps3c_tensor_check_contiguous(context, info.name, w, r->dtype, r->device, info.ndim, info.shape));
    }
    return PS3C_OK;
}

static ps3c_status check_io(ps3c_context *context, const ps3c_vision_plan *p, const ps3c_vision_io *io)
{
    const ps3c_vision_request *r = &p->request;
    const int64_t pooled[] = {r->batch, p->config.pool_width};
    PS3C_TRY(check_inputs(context, p, io));
    for (int64_t i = 0; i < p->hidden_states; i++) {
        const int64_t shape[] = {r->batch, low_tokens(p) + p->selected, p->config.width};
        PS3C_TRY(ps3c_tensor_check_contiguous(
            context, "hidden_states", io->hidden_states ? &io->hidden_states[i] : NULL, r->dtype, r->device, 3, shape));
    }
    if (r->mode != PS3C_VISION_LOW_RES)
        PS3C_TRY(check_outputs(context, p, "selection_probs", io->selection_probs));
    if (p->looks)
        PS3C_TRY(check_outputs(context, p, "selection_maps", io->selection_maps));
    if (r->mode == PS3C_VISION_PRETRAIN)
        PS3C_TRY(check_outputs(context, p, "bottomup_probs", io->bottomup_probs));
    if (r->mode == PS3C_VISION_PRETRAIN && r->prompt)
        PS3C_TRY(check_outputs(context, p, "topdown_probs", io->topdown_probs));
    if (p->pooled)
        PS3C_TRY(ps3c_tensor_check_contiguous(context, "pooled", io->pooled, r->dtype, r->device, 2, pooled));
    if (!io->workspace || io->workspace_bytes < p->at.bytes)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "workspace: got %zu bytes, expected %zu",
                         io->workspace ? io->workspace_bytes : 0, p->at.bytes);
    return PS3C_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------------ */

static ps3c_status run_step(chunk *k, int64_t index)
{
    const ps3c_vision_plan *p = k->plan;
    const ps3c_vision_step step = ps3c_vision_plan_step(p, index);
    k->first = step.first_image;
    k->images = step.images;
    k->pixels = ps3c_tensor_slice(k->io->pixel_values, k->first, k->images);
    if (p->request.prompt)
        k->prompt = ps3c_tensor_slice(k->io->prompt, k->first, k->images);
    if (p->request.gt_maps)
        k->gt = ps3c_tensor_slice(k->io->gt_maps, k->first, k->images);
    return step.looks ? look_close(k, &step) : see_whole(k);
}

/* Steps [first, end). */
static ps3c_status run_steps(ps3c_context *context, const ps3c_vision_plan *plan, const ps3c_vision_io *io,
                             int64_t first, int64_t end)
{
    ps3c_status status = PS3C_OK;
    chunk k = {.plan = plan, .io = io};
    k.pass.run = (ps3c_run){.context = context,
                            .dtype = plan->request.dtype,
                            .threads = ps3c_context_threads(context, plan->threads),
                            .device_index = plan->request.device.index,
                            .tf32 = io->tf32,
                            .stream = io->stream};
    k.pass.weights = io->weights;
    PS3C_TRY(ps3c_context_backend(context, plan->request.device, &k.pass.backend));
    PS3C_TRY(check_io(context, plan, io));
    k.workspace = ps3c_vision_workspace(io->workspace);
    k.pass.run.scratch = k.workspace + plan->at.scratch;
    k.pass.run.scratch_bytes = plan->at.bytes - 256 - plan->at.scratch;
    PS3C_TRY(ps3c_pass_begin(&k.pass));
    for (int64_t index = first; index < end && status == PS3C_OK; index++)
        status = run_step(&k, index);
    ps3c_pass_end(&k.pass);
    return status;
}

ps3c_status ps3c_vision_run(ps3c_context *context, const ps3c_vision_plan *plan, const ps3c_vision_io *io)
{
    return run_steps(context, plan, io, 0, ps3c_vision_steps(plan));
}

ps3c_status ps3c_vision_run_step(ps3c_context *context, const ps3c_vision_plan *plan, const ps3c_vision_io *io,
                                 int64_t step)
{
    const int64_t steps = ps3c_vision_steps(plan);
    if (step < 0 || step >= steps)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "step: got %lld, expected 0 to %lld", (long long)step,
                         (long long)steps - 1);
    return run_steps(context, plan, io, step, step + 1);
}
