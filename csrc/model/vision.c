/* The vision pass: low-res tokens, selection, looks, pooling. This file describes the model. vision_plan.c computes
 * what follows from sizes alone; the backend does the arithmetic.
 *
 * Source: the behaviour of ps3-torch's PS3VisionEncoder. The patches of all looks are known before the first look
 * runs, because each look takes the next patches of one stable ranking, and a look sees the low-res tokens but no
 * other look. */
#include <stdint.h>

#include "../run/context.h"
#include "layers.h"
#include "../run/tensor.h"
#include "vision_plan.h"

enum { PRIOR, PROMPT, KINDS };
static const float TORCH_NORM_EPS = 1e-5f; /* nn.LayerNorm's default: selection projection, adapter */
static const float CONV_NORM_EPS = 1e-6f;

/* A chunk, the images that run together: views of the caller's tensors, and the workspace. */
typedef struct vision_chunk {
    ps3c_pass pass;
    const ps3c_vision_plan *plan;
    const ps3c_vision_io *io;
    int64_t first, images;
    ps3c_tensor pixels, prompt, gt;
} vision_chunk;

static ps3c_activation activation(const vision_chunk *chunk, size_t offset, int64_t segments, int64_t tokens,
                                  int64_t channels)
{
    return (ps3c_activation){
        .data = chunk->pass.workspace + offset, .segments = segments, .tokens = tokens, .channels = channels};
}

static int64_t low_tokens(const ps3c_vision_plan *plan) { return plan->low.rows * plan->low.cols; }

/* The cached keys and values of block `layer`. */
static ps3c_activation cache_of(const vision_chunk *chunk, int64_t layer)
{
    const ps3c_vision_plan *p = chunk->plan;
    return activation(chunk, p->at.cache + (size_t)layer * p->at.cache_step, chunk->images, low_tokens(p),
                      2 * p->config.width);
}

/* ---- tokens ----------------------------------------------------------------------------------------------- */

/* x = embedding of the patches + their positions. positions NULL: all patches of the only scale. */
static ps3c_status embed(const vision_chunk *chunk, const ps3c_scale *scales, int64_t num_scales,
                         const int32_t *positions, const ps3c_activation *x)
{
    const ps3c_vision_plan *p = chunk->plan;
    const ps3c_vision_config *c = &p->config;
    const void *residual[PS3C_MAX_SCALES];
    int64_t residual_grid[PS3C_MAX_SCALES];
    const ps3c_activation patches = activation(chunk, p->at.wide, x->segments, x->tokens, 3 * c->patch * c->patch);
    const ps3c_patch_gather_args gather = {.pixels = &chunk->pixels,
                                           .patch = c->patch,
                                           .scales = scales,
                                           .num_scales = num_scales,
                                           .positions = positions,
                                           .out = &patches};
    ps3c_position_add_args add = {.table = chunk->pass.weights[p->index.pos_embed].data,
                                  .grid = c->grid,
                                  .crop = c->crop_positions,
                                  .scales = scales,
                                  .num_scales = num_scales,
                                  .positions = positions,
                                  .x = x};
    if (positions && c->separate_positions) {
        for (int64_t s = 0; s < num_scales; s++) {
            residual[s] = chunk->pass.weights[p->index.pos_residual + s].data;
            residual_grid[s] = c->scales[s + 1] / c->patch;
        }
        add.residual = residual;
        add.residual_grid = residual_grid;
    }
    PS3C_TRY(chunk->pass.backend->patch_gather(&chunk->pass.run, &gather));
    PS3C_TRY(ps3c_linear(&chunk->pass, p->index.patch, c->width, PS3C_ACT_NONE, &patches, x));
    return chunk->pass.backend->position_add(&chunk->pass.run, &add);
}

/* Copies the tokens after block `layer` to the hidden states if that layer is returned. */
static ps3c_status return_hidden(const vision_chunk *chunk, int64_t layer, const ps3c_activation *x, int64_t first_row,
                                 const int32_t *row_of)
{
    const ps3c_vision_plan *p = chunk->plan;
    const int64_t number = layer - (p->config.depth - p->hidden_states);
    if (number < 0)
        return PS3C_OK;
    const ps3c_tensor out = ps3c_tensor_slice(&chunk->io->hidden_states[number], chunk->first, chunk->images);
    const ps3c_to_rows_args args = {.x = x,
                                    .row_of = row_of,
                                    .batch = chunk->images,
                                    .first_row = first_row,
                                    .out = out.data,
                                    .row_stride = out.strides[1],
                                    .batch_stride = out.strides[0]};
    return chunk->pass.backend->to_rows(&chunk->pass.run, &args);
}

static ps3c_status run_block(const vision_chunk *chunk, int64_t layer, const ps3c_activation *x,
                             const ps3c_activation *cached, const ps3c_activation *keep)
{
    const ps3c_vision_plan *p = chunk->plan;
    const ps3c_block_args args = {.weights = p->index.blocks + layer * PS3C_BLOCK_WEIGHTS,
                                  .heads = p->config.heads,
                                  .hidden = p->config.mlp_hidden,
                                  .eps = p->config.norm_eps,
                                  .act = p->config.tanh_gelu ? PS3C_ACT_GELU_TANH : PS3C_ACT_GELU_ERF,
                                  .x = x,
                                  .normed = chunk->pass.workspace + p->at.normed,
                                  .wide = chunk->pass.workspace + p->at.wide,
                                  .cached = cached,
                                  .keep = keep};
    return ps3c_block(&chunk->pass, &args);
}

static ps3c_status run_low_res(const vision_chunk *chunk, const ps3c_activation *x)
{
    const ps3c_vision_plan *p = chunk->plan;
    const ps3c_vision_config *c = &p->config;
    const bool select = p->request.mode != PS3C_VISION_LOW_RES;
    const ps3c_activation selected =
        activation(chunk, p->at.select, chunk->images, x->tokens, c->width * c->num_select_layers);
    PS3C_TRY(embed(chunk, &p->low, 1, NULL, x));
    for (int64_t layer = 0; layer < c->depth; layer++) {
        const ps3c_activation keep = cache_of(chunk, layer);
        PS3C_TRY(run_block(chunk, layer, x, NULL, p->looks ? &keep : NULL));
        PS3C_TRY(return_hidden(chunk, layer, x, 0, NULL));
        for (int64_t i = 0; select && i < c->num_select_layers; i++)
            if (c->select_layers[i] == layer) {
                const ps3c_copy_channels_args copy = {.x = x, .y = &selected, .at = i * c->width};
                PS3C_TRY(chunk->pass.backend->copy_channels(&chunk->pass.run, &copy));
            }
    }
    return PS3C_OK;
}

/* ---- pooling ---------------------------------------------------------------------------------------------- */

/* C-RADIO's adapter to SigLIP features. *out: its output, in the workspace. */
static ps3c_status adapt(const vision_chunk *chunk, const ps3c_activation *x, ps3c_activation *out)
{
    const ps3c_vision_plan *p = chunk->plan;
    const ps3c_vision_config *c = &p->config;
    const ps3c_pass *pass = &chunk->pass;
    const bool v2 = c->adapter == PS3C_ADAPTER_V2;
    const ps3c_activation a = ps3c_activation_like(x, chunk->pass.workspace + p->at.adapted[0], c->adapter_hidden);
    const ps3c_activation b = ps3c_activation_like(x, chunk->pass.workspace + p->at.adapted[1], c->adapter_hidden);
    *out = ps3c_activation_like(x, chunk->pass.workspace + p->at.adapted[2], c->adapter_out);
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

/* Final norm, adapter and attention pool, with one latent query per image, over the tokens of x. out: (1, images, pool
 * width). */
static ps3c_status pool(const vision_chunk *chunk, const ps3c_activation *x, const uint8_t *mask,
                        const ps3c_activation *out)
{
    const ps3c_vision_plan *p = chunk->plan;
    const ps3c_vision_config *c = &p->config;
    const ps3c_pass *pass = &chunk->pass;
    const int64_t width = c->pool_width;
    const ps3c_activation normed = ps3c_activation_like(x, chunk->pass.workspace + p->at.normed, c->width);
    const ps3c_activation latent = activation(chunk, p->at.latent, 1, 1, width);
    const ps3c_activation query = activation(chunk, p->at.pool_query, 1, 1, width);
    const ps3c_activation kv = activation(chunk, p->at.kv, x->segments, x->tokens, 2 * width);
    const ps3c_activation a = activation(chunk, p->at.pool_a, 1, chunk->images, width);
    const ps3c_activation b = activation(chunk, p->at.pool_b, 1, chunk->images, width);
    const ps3c_activation hidden = activation(chunk, p->at.pool_hidden, 1, chunk->images, c->pool_hidden);
    const ps3c_from_rows_args from = {.rows = pass->weights[p->index.latent].data, .out = &latent};
    const ps3c_attention_pool_args attend = {.heads = c->pool_heads,
                                             .head_dim = width / c->pool_heads,
                                             .query = &query,
                                             .keys_values = &kv,
                                             .mask = mask,
                                             .out = &a};
    ps3c_activation tokens = *x;
    if (c->final_norm) {
        PS3C_TRY(ps3c_norm(pass, p->index.norm, c->norm_eps, PS3C_ACT_NONE, x, &normed));
        tokens = normed;
    }
    if (c->adapter != PS3C_ADAPTER_NONE) {
        const ps3c_activation in = tokens;
        PS3C_TRY(adapt(chunk, &in, &tokens));
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

static ps3c_status return_pooled(const vision_chunk *chunk, const ps3c_activation *x)
{
    const ps3c_tensor out = ps3c_tensor_slice(chunk->io->pooled, chunk->first, chunk->images);
    const ps3c_to_rows_args args = {.x = x, .batch = 1, .out = out.data, .row_stride = out.strides[0]};
    return chunk->pass.backend->to_rows(&chunk->pass.run, &args);
}

/* ---- selection -------------------------------------------------------------------------------------------- */

/* Runs the convolution network on one image of the chunk: stem, ConvNeXt blocks (Liu et al. 2022), projection. */
static ps3c_status convolve(const vision_chunk *chunk, int64_t image, const ps3c_activation *out)
{
    const ps3c_vision_plan *p = chunk->plan;
    const ps3c_vision_config *c = &p->config;
    const ps3c_pass *pass = &chunk->pass;
    const int64_t tokens = out->tokens, width = c->conv_width;
    const ps3c_tensor pixels = ps3c_tensor_slice(&chunk->pixels, image, 1);
    const ps3c_activation patches = activation(chunk, p->at.conv_wide, 1, tokens, 3 * c->conv_kernel * c->conv_kernel);
    const ps3c_activation hidden = activation(chunk, p->at.conv_wide, 1, tokens, 4 * width);
    const ps3c_activation x = activation(chunk, p->at.conv_x, 1, tokens, width);
    const ps3c_activation y = activation(chunk, p->at.conv_y, 1, tokens, width);
    const ps3c_patch_gather_args gather = {
        .pixels = &pixels, .patch = c->conv_kernel, .scales = &p->conv, .num_scales = 1, .out = &patches};
    PS3C_TRY(ps3c_context_poll(pass->run.context));
    PS3C_TRY(pass->backend->patch_gather(&pass->run, &gather));
    PS3C_TRY(ps3c_linear(pass, p->index.stem, width, PS3C_ACT_NONE, &patches, &x));
    PS3C_TRY(ps3c_norm(pass, p->index.stem_norm, CONV_NORM_EPS, PS3C_ACT_NONE, &x, &x));
    for (int64_t i = 0; i < c->conv_depth; i++) {
        const int64_t w = p->index.conv_blocks + i * PS3C_CONV_BLOCK_WEIGHTS;
        const ps3c_depthwise_args depthwise = {.weight = pass->weights[w + PS3C_CONV_DEPTHWISE].data,
                                               .bias = pass->weights[w + PS3C_CONV_DEPTHWISE + 1].data,
                                               .rows = p->conv.rows,
                                               .cols = p->conv.cols,
                                               .x = &x,
                                               .y = &y};
        PS3C_TRY(ps3c_context_poll(pass->run.context));
        PS3C_TRY(pass->backend->depthwise(&pass->run, &depthwise));
        PS3C_TRY(ps3c_norm(pass, w + PS3C_CONV_NORM, CONV_NORM_EPS, PS3C_ACT_NONE, &y, &y));
        PS3C_TRY(ps3c_linear(pass, w + PS3C_CONV_FC1, 4 * width, PS3C_ACT_GELU_ERF, &y, &hidden));
        PS3C_TRY(ps3c_linear_residual(pass, w + PS3C_CONV_FC2, width, w + PS3C_CONV_SCALE, &hidden, &x, &x));
    }
    return ps3c_linear(pass, p->index.conv_out, c->conv_out, PS3C_ACT_NONE, &x, out);
}

/* The rows of a prompt: one per image for the prompt, one for all images for the prior prompt. */
static const void *prompt_of(const vision_chunk *chunk, int kind, int64_t *rows)
{
    *rows = kind == PRIOR ? 1 : chunk->images;
    return kind == PRIOR ? chunk->pass.weights[chunk->plan->index.prior_prompt].data : chunk->prompt.data;
}

/* Projects a prompt into the space of the convolution features, as plain rows. As in the reference, only the first
 * scale's slice of the projection is used. */
static ps3c_status project_prompt(const vision_chunk *chunk, int kind)
{
    const ps3c_vision_plan *p = chunk->plan;
    const ps3c_vision_config *c = &p->config;
    int64_t rows;
    const void *prompt = prompt_of(chunk, kind, &rows);
    const ps3c_activation x = activation(chunk, p->at.prompt, 1, rows, c->width);
    const ps3c_activation y = activation(chunk, p->at.prompt_high, 1, rows, c->conv_out);
    const ps3c_from_rows_args from = {.rows = prompt, .out = &x};
    const ps3c_to_rows_args to = {
        .x = &y, .batch = 1, .out = chunk->pass.workspace + p->at.prompt_rows[kind], .row_stride = c->conv_out};
    PS3C_TRY(chunk->pass.backend->from_rows(&chunk->pass.run, &from));
    PS3C_TRY(ps3c_linear(&chunk->pass, p->index.highres_prompt, c->conv_out, PS3C_ACT_NONE, &x, &y));
    return chunk->pass.backend->to_rows(&chunk->pass.run, &to);
}

/* Cosine similarities of the convolution features with each wanted prompt, max-pooled to the low-res grid. */
static ps3c_status highres_logits(const vision_chunk *chunk, const bool *wanted)
{
    const ps3c_vision_plan *p = chunk->plan;
    const int64_t tokens = p->conv.rows * p->conv.cols;
    const size_t bytes = ps3c_dtype_bytes(chunk->pass.run.dtype);
    const ps3c_activation features = activation(chunk, p->at.conv_out, 1, tokens, p->config.conv_out);
    float *logits = (float *)(chunk->pass.workspace + p->at.high_logits);
    for (int kind = 0; kind < KINDS; kind++)
        if (wanted[kind])
            PS3C_TRY(project_prompt(chunk, kind));
    for (int64_t image = 0; image < chunk->images; image++) {
        PS3C_TRY(convolve(chunk, image, &features));
        for (int kind = 0; kind < KINDS; kind++) {
            const int64_t row = kind == PRIOR ? 0 : image;
            const char *prompt =
                chunk->pass.workspace + p->at.prompt_rows[kind] + (size_t)(row * p->config.conv_out) * bytes;
            float *pooled = (float *)(chunk->pass.workspace + p->at.high_pooled[kind]) + image * low_tokens(p);
            const ps3c_cosine_args cosine = {.features = &features, .prompt = prompt, .logits = logits};
            const ps3c_max_pool_args pool_args = {.in = logits,
                                                  .out = pooled,
                                                  .batch = 1,
                                                  .in_rows = p->conv.rows,
                                                  .in_cols = p->conv.cols,
                                                  .rows = p->low.rows,
                                                  .cols = p->low.cols};
            if (!wanted[kind])
                continue;
            PS3C_TRY(chunk->pass.backend->cosine(&chunk->pass.run, &cosine));
            PS3C_TRY(chunk->pass.backend->max_pool(&chunk->pass.run, &pool_args));
        }
    }
    return PS3C_OK;
}

/* Resizes the current prompt's probabilities to every high-res scale: out[S]. plain: without ground truth and
 * smoothing. */
static ps3c_status expand(const vision_chunk *chunk, const ps3c_tensor *out, bool plain)
{
    const ps3c_vision_plan *p = chunk->plan;
    for (int64_t s = 0; s < p->num_high; s++) {
        const ps3c_tensor slice = ps3c_tensor_slice(&out[s], chunk->first, chunk->images);
        const ps3c_expand_args args = {.probs = (const float *)(chunk->pass.workspace + p->at.probs),
                                       .batch = chunk->images,
                                       .in_rows = p->low.rows,
                                       .in_cols = p->low.cols,
                                       .gt = plain || !p->request.gt_maps ? NULL : &chunk->gt,
                                       .gt_rows = p->high[0].rows,
                                       .gt_cols = p->high[0].cols,
                                       .smooth = !plain && p->request.smooth,
                                       .out = &slice};
        PS3C_TRY(chunk->pass.backend->expand(&chunk->pass.run, &args));
    }
    return PS3C_OK;
}

static ps3c_status probabilities(const vision_chunk *chunk, int kind, const ps3c_activation *features)
{
    const ps3c_vision_plan *p = chunk->plan;
    int64_t rows;
    const void *prompt = prompt_of(chunk, kind, &rows);
    float *logits = (float *)(chunk->pass.workspace + p->at.logits);
    const ps3c_cosine_args cosine = {
        .features = features, .prompt = prompt, .prompt_stride = rows > 1 ? p->config.width : 0, .logits = logits};
    const void *highres = p->config.highres_features ? chunk->pass.workspace + p->at.high_pooled[kind] : NULL;
    const ps3c_probability_args probability = {.logits = logits,
                                               .highres = highres,
                                               .probs = (float *)(chunk->pass.workspace + p->at.probs),
                                               .count = chunk->images * low_tokens(p)};
    PS3C_TRY(chunk->pass.backend->cosine(&chunk->pass.run, &cosine));
    return chunk->pass.backend->probability(&chunk->pass.run, &probability);
}

static ps3c_status select_patches(const vision_chunk *chunk)
{
    const ps3c_vision_plan *p = chunk->plan;
    const ps3c_vision_config *c = &p->config;
    const int64_t low = low_tokens(p), wide = c->width * c->num_select_layers;
    const int chosen = p->request.prompt ? PROMPT : PRIOR;
    const bool pretrain = p->request.mode == PS3C_VISION_PRETRAIN;
    const bool wanted[KINDS] = {pretrain || chosen == PRIOR, chosen == PROMPT};
    const ps3c_activation concat = activation(chunk, p->at.select, chunk->images, low, wide);
    const ps3c_activation hidden = activation(chunk, p->at.select_hidden, chunk->images, low, wide);
    const ps3c_activation features = activation(chunk, p->at.select_out, chunk->images, low, c->width);
    PS3C_TRY(ps3c_linear(&chunk->pass, p->index.select_fc1, wide, PS3C_ACT_GELU_ERF, &concat, &hidden));
    PS3C_TRY(ps3c_norm(&chunk->pass, p->index.select_norm, TORCH_NORM_EPS, PS3C_ACT_NONE, &hidden, &hidden));
    /* The projection has one slice per scale; the reference uses the first slice for all scales. */
    PS3C_TRY(ps3c_linear(&chunk->pass, p->index.select_fc2, c->width, PS3C_ACT_NONE, &hidden, &features));
    if (c->highres_features)
        PS3C_TRY(highres_logits(chunk, wanted));
    for (int kind = 0; kind < KINDS; kind++) {
        if (!wanted[kind])
            continue;
        PS3C_TRY(probabilities(chunk, kind, &features));
        if (pretrain)
            PS3C_TRY(expand(chunk, kind == PRIOR ? chunk->io->bottomup_probs : chunk->io->topdown_probs, true));
        if (kind == chosen)
            PS3C_TRY(expand(chunk, chunk->io->selection_probs, false));
    }
    return PS3C_OK;
}

/* Ranks the patches, assigns them to looks, and writes the 0/1 maps. */
static ps3c_status assign(const vision_chunk *chunk)
{
    const ps3c_vision_plan *p = chunk->plan;
    ps3c_tensor maps[PS3C_MAX_SCALES];
    const int32_t *rank[PS3C_MAX_SCALES];
    for (int64_t s = 0; s < p->num_high; s++) {
        const ps3c_tensor probs = ps3c_tensor_slice(&chunk->io->selection_probs[s], chunk->first, chunk->images);
        const ps3c_rank_args args = {.probs = &probs, .rank = (int32_t *)(chunk->pass.workspace + p->at.rank[s])};
        PS3C_TRY(chunk->pass.backend->rank(&chunk->pass.run, &args));
        maps[s] = ps3c_tensor_slice(&chunk->io->selection_maps[s], chunk->first, chunk->images);
        rank[s] = args.rank;
    }
    const ps3c_assign_looks_args args = {.batch = chunk->images,
                                         .looks = p->looks,
                                         .num_scales = p->num_high,
                                         .scales = p->high,
                                         .rank = rank,
                                         .ends = p->ends + chunk->first * p->num_high * p->looks,
                                         .look_first = ps3c_vision_look_entry(p, chunk->images),
                                         .look_tokens = p->look_tokens,
                                         .positions = (int32_t *)(chunk->pass.workspace + p->at.positions),
                                         .row_of = (int32_t *)(chunk->pass.workspace + p->at.row_of),
                                         .maps = maps};
    return chunk->pass.backend->assign_looks(&chunk->pass.run, &args);
}

/* The first step of a chunk: encodes the low-res tokens and selects the patches of its looks. */
static ps3c_status run_low_res_step(const vision_chunk *chunk)
{
    const ps3c_vision_plan *p = chunk->plan;
    const ps3c_activation x = activation(chunk, p->at.x, chunk->images, low_tokens(p), p->config.width);
    const ps3c_activation low_pooled = activation(chunk, p->at.low_pooled, 1, chunk->images, p->config.pool_width);
    PS3C_TRY(run_low_res(chunk, &x));
    if (p->low_pooled)
        PS3C_TRY(pool(chunk, &x, NULL, &low_pooled));
    if (p->low_pooled && p->request.mode != PS3C_VISION_PRETRAIN)
        PS3C_TRY(return_pooled(chunk, &low_pooled));
    if (p->request.mode == PS3C_VISION_LOW_RES)
        return PS3C_OK;
    PS3C_TRY(select_patches(chunk));
    return p->looks ? assign(chunk) : PS3C_OK;
}

/* ---- looks ------------------------------------------------------------------------------------------------ */

/* Encodes looks of the same number of tokens. The segments of x are in the order (look, image). */
static ps3c_status run_looks(const vision_chunk *chunk, const int32_t *positions, const int32_t *row_of,
                             const ps3c_activation *x)
{
    const ps3c_vision_plan *p = chunk->plan;
    PS3C_TRY(embed(chunk, p->high, p->num_high, positions, x));
    for (int64_t layer = 0; layer < p->config.depth; layer++) {
        const ps3c_activation cached = cache_of(chunk, layer);
        PS3C_TRY(run_block(chunk, layer, x, &cached, NULL));
        PS3C_TRY(return_hidden(chunk, layer, x, low_tokens(p), row_of));
    }
    return PS3C_OK;
}

/* PRETRAIN: the pooled vector of the only look. An image with a global text gets the low-res vector. */
static ps3c_status pool_look(const vision_chunk *chunk, const int32_t *positions, const ps3c_activation *x)
{
    const ps3c_vision_plan *p = chunk->plan;
    uint8_t *mask = (uint8_t *)chunk->pass.workspace + p->at.mask;
    const ps3c_activation pooled = activation(chunk, p->at.pool_a, 1, chunk->images, p->config.pool_width);
    const ps3c_activation low = activation(chunk, p->at.low_pooled, 1, chunk->images, p->config.pool_width);
    const ps3c_gt_mask_args args = {.gt = &chunk->gt,
                                    .scales = p->high,
                                    .num_scales = p->num_high,
                                    .positions = positions,
                                    .batch = chunk->images,
                                    .tokens = x->tokens,
                                    .mask = mask};
    const ps3c_blend_args blend = {.flag = chunk->io->global_text, .first = chunk->first, .low = &low, .y = &pooled};
    if (p->request.pool_gt_only)
        PS3C_TRY(chunk->pass.backend->gt_mask(&chunk->pass.run, &args));
    PS3C_TRY(pool(chunk, x, p->request.pool_gt_only ? mask : NULL, &pooled));
    if (p->request.global_text)
        PS3C_TRY(chunk->pass.backend->blend(&chunk->pass.run, &blend));
    return return_pooled(chunk, &pooled);
}

/* Any later step of a chunk: encodes a group of its looks. */
static ps3c_status run_look_step(const vision_chunk *chunk, const ps3c_vision_step *step)
{
    const ps3c_vision_plan *p = chunk->plan;
    const int64_t entry = ps3c_vision_look_entry(p, chunk->images)[step->first_look];
    const int32_t *positions = (const int32_t *)(chunk->pass.workspace + p->at.positions) + entry;
    const int32_t *row_of = (const int32_t *)(chunk->pass.workspace + p->at.row_of) + entry;
    const ps3c_activation x = activation(chunk, p->at.x, step->looks * chunk->images, step->tokens, p->config.width);
    if (!x.tokens)
        return PS3C_OK;
    PS3C_TRY(run_looks(chunk, positions, row_of, &x));
    return p->request.mode == PS3C_VISION_PRETRAIN ? pool_look(chunk, positions, &x) : PS3C_OK;
}

/* ---- the caller's tensors --------------------------------------------------------------------------------- */

/* As many as an image's pixels (vision_plan.c): products with the sizes of grids stay far below 2^63. */
#define MOST_MAP_CELLS (INT64_C(1) << 40)

static ps3c_status check_inputs(ps3c_context *context, const ps3c_vision_plan *p, const ps3c_vision_io *io)
{
    const ps3c_vision_request *r = &p->request;
    const int64_t pixels[] = {r->batch, 3, r->height, r->width}, prompt[] = {r->batch, p->config.width};
    const int64_t maps[] = {r->batch, PS3C_ANY, PS3C_ANY}, flags[] = {r->batch, 1};
    const ps3c_tensor_rule pixels_rule = {(int)r->dtype, r->device, 4, pixels, false};
    const ps3c_tensor_rule prompt_rule = {(int)r->dtype, r->device, 2, prompt, true};
    const ps3c_tensor_rule maps_rule = {PS3C_ANY, r->device, 3, maps, false};
    const ps3c_tensor_rule flags_rule = {PS3C_FLOAT32, r->device, 2, flags, false};
    PS3C_TRY(ps3c_tensor_check(context, "pixel_values", PS3C_ANY, io->pixel_values, &pixels_rule));
    PS3C_TRY(ps3c_tensor_check_optional(context, "prompt", r->prompt, io->prompt, &prompt_rule));
    PS3C_TRY(ps3c_tensor_check_optional(context, "gt_maps", r->gt_maps, io->gt_maps, &maps_rule));
    const int64_t *map = r->gt_maps ? io->gt_maps->shape : NULL;
    if (map && (map[1] < 1 || map[2] < 1 || map[1] > MOST_MAP_CELLS / map[2]))
        return ps3c_fail(context, PS3C_ERROR_VALUE, "gt_maps: got shape %s, expected maps of 1 x 1 or more%s",
                         ps3c_sizes_text(io->gt_maps->ndim, map, (char[PS3C_SHAPE_BYTES]){0}),
                         map[1] < 1 || map[2] < 1 ? "" : ", and of 2^40 values or less");
    PS3C_TRY(ps3c_tensor_check_optional(context, "global_text", r->global_text, io->global_text, &flags_rule));
    return ps3c_vision_check_weights(context, &p->config, io->weights, r->dtype, r->device);
}

/* Checks `count` maps, one for each high-res scale: (B, rows, cols). */
static ps3c_status check_maps(ps3c_context *context, const ps3c_vision_plan *p, const char *name, int64_t count,
                              const ps3c_tensor *maps)
{
    for (int64_t s = 0; s < count; s++) {
        const int64_t shape[] = {p->request.batch, p->high[s].rows, p->high[s].cols};
        const ps3c_tensor_rule rule = {(int)p->request.dtype, p->request.device, 3, shape, true};
        PS3C_TRY(ps3c_tensor_check(context, name, s, maps ? &maps[s] : NULL, &rule));
    }
    return PS3C_OK;
}

static ps3c_status check_outputs(ps3c_context *context, const ps3c_vision_plan *p, const ps3c_vision_io *io)
{
    const ps3c_vision_request *r = &p->request;
    const int64_t hidden[] = {r->batch, low_tokens(p) + p->selected, p->config.width};
    const int64_t pooled[] = {r->batch, p->config.pool_width};
    const ps3c_tensor_rule hidden_rule = {(int)r->dtype, r->device, 3, hidden, true};
    const ps3c_tensor_rule pooled_rule = {(int)r->dtype, r->device, 2, pooled, true};
    ps3c_vision_plan_info info;
    ps3c_vision_plan_describe(p, &info);
    for (int64_t i = 0; i < info.hidden_states; i++)
        PS3C_TRY(ps3c_tensor_check(context, "hidden_states", i, io->hidden_states ? &io->hidden_states[i] : NULL,
                                   &hidden_rule));
    PS3C_TRY(check_maps(context, p, "selection_maps", info.selection_maps, io->selection_maps));
    PS3C_TRY(check_maps(context, p, "selection_probs", info.selection_probs, io->selection_probs));
    PS3C_TRY(check_maps(context, p, "bottomup_probs", info.bottomup_probs, io->bottomup_probs));
    PS3C_TRY(check_maps(context, p, "topdown_probs", info.topdown_probs, io->topdown_probs));
    return ps3c_tensor_check_optional(context, "pooled", p->pooled, io->pooled, &pooled_rule);
}

ps3c_status ps3c_vision_check_io(ps3c_context *context, const ps3c_vision_plan *plan, const ps3c_vision_io *io)
{
    PS3C_TRY(check_inputs(context, plan, io));
    return check_outputs(context, plan, io);
}

/* ---- steps ------------------------------------------------------------------------------------------------ */

static ps3c_status run_step(vision_chunk *chunk, int64_t index)
{
    const ps3c_vision_plan *p = chunk->plan;
    const ps3c_vision_step step = ps3c_vision_plan_step(p, index);
    chunk->first = step.first_image;
    chunk->images = step.images;
    chunk->pixels = ps3c_tensor_slice(chunk->io->pixel_values, chunk->first, chunk->images);
    if (p->request.prompt)
        chunk->prompt = ps3c_tensor_slice(chunk->io->prompt, chunk->first, chunk->images);
    if (p->request.gt_maps)
        chunk->gt = ps3c_tensor_slice(chunk->io->gt_maps, chunk->first, chunk->images);
    return step.looks ? run_look_step(chunk, &step) : run_low_res_step(chunk);
}

/* Runs the steps [first, end). */
static ps3c_status run_steps(ps3c_context *context, const ps3c_vision_plan *plan, const ps3c_vision_io *io,
                             int64_t first, int64_t end)
{
    ps3c_status status = PS3C_OK;
    vision_chunk chunk = {.plan = plan, .io = io};
    const ps3c_pass_args args = {.weights = io->weights,
                                 .workspace = io->workspace,
                                 .workspace_bytes = io->workspace_bytes,
                                 .stream = io->stream,
                                 .tf32 = io->tf32,
                                 .dtype = plan->request.dtype,
                                 .device = plan->request.device,
                                 .threads = plan->threads,
                                 .bytes = plan->at.bytes,
                                 .scratch = plan->at.scratch};
    PS3C_TRY(ps3c_vision_check_io(context, plan, io));
    PS3C_TRY(ps3c_pass_begin(context, &args, &chunk.pass));
    for (int64_t index = first; index < end && status == PS3C_OK; index++)
        status = run_step(&chunk, index);
    ps3c_pass_end(&chunk.pass);
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
