/* The text tower: token and position embedding, transformer blocks, pooling, projection, and the prompt that vision
 * selects with.
 *
 * Source: the behaviour of ps3-torch's TextTransformer (open_clip's text tower with a prompt projection). Pooling takes
 * one token, so the final norm, which acts on tokens alone, is applied after it. */
#include <stdlib.h>

#include "../run/context.h"
#include "layers.h"
#include "../run/tensor.h"
#include "weights.h"

enum { TOGETHER = 4096 };                   /* tokens that run together: see vision_plan.c */
static const float PROMPT_NORM_EPS = 1e-5f; /* nn.LayerNorm's default */

struct ps3c_text_plan {
    ps3c_text_config config;
    ps3c_text_index index;
    int64_t batch, length;
    int64_t tokens;        /* of a text in the blocks: length, and a class token */
    int64_t pooled_tokens; /* of a text after pooling */
    ps3c_dtype dtype;
    ps3c_device device;
    int64_t chunk; /* texts that run together */
    int threads;
    size_t x, normed, wide, mask, pooled, projected, prompt_hidden, prompt, scratch, bytes; /* workspace offsets */
};

/* ---- plan ------------------------------------------------------------------------------------------------- */

static size_t lay_out(const ps3c_backend *backend, ps3c_text_plan *p, int64_t texts)
{
    const ps3c_text_config *c = &p->config;
    const int64_t wide = 3 * c->width > c->mlp_hidden ? 3 * c->width : c->mlp_hidden;
    const int64_t segments = c->pool == PS3C_POOL_NONE && !c->class_token ? texts : 1;
    const int64_t after = segments == 1 ? texts : p->tokens;
    const int64_t widest = c->output_dim > c->prompt_dim ? c->output_dim : c->prompt_dim;
    ps3c_arena arena = {0, 0};
    size_t scratch;
    p->chunk = texts;
    p->x = ps3c_arena_take(&arena, backend->activation_bytes(p->dtype, texts, p->tokens, c->width));
    p->normed = ps3c_arena_take(&arena, backend->activation_bytes(p->dtype, texts, p->tokens, c->width));
    p->wide = ps3c_arena_take(&arena, backend->activation_bytes(p->dtype, texts, p->tokens, wide));
    p->mask = ps3c_arena_take(&arena, ps3c_bytes_product(texts, p->tokens));
    p->pooled = ps3c_arena_take(&arena, backend->activation_bytes(p->dtype, segments, after, c->width));
    p->projected = ps3c_arena_take(&arena, backend->activation_bytes(p->dtype, segments, after, c->output_dim));
    p->prompt_hidden = ps3c_arena_take(&arena, backend->activation_bytes(p->dtype, segments, after, c->prompt_dim));
    p->prompt = ps3c_arena_take(&arena, backend->activation_bytes(p->dtype, segments, after, c->prompt_dim));
    scratch = backend->scratch_bytes(p->dtype, p->threads, texts * p->tokens, wide > widest ? wide : widest, 1);
    p->scratch = ps3c_arena_take(&arena, scratch);
    p->bytes = arena.peak == SIZE_MAX ? SIZE_MAX : arena.peak + 256;
    return p->bytes;
}

static ps3c_status fill(ps3c_context *context, ps3c_text_plan *p, size_t limit)
{
    const ps3c_backend *backend;
    int64_t texts;
    PS3C_TRY(ps3c_context_backend(context, p->device, &backend));
    PS3C_TRY(ps3c_text_config_check(context, &p->config));
    if (p->batch < 1 || p->batch > INT32_MAX)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "text: got a batch of %lld texts, expected 1 or more",
                         (long long)p->batch);
    if (p->length < 1 || p->length > p->config.context_length)
        return ps3c_fail(context, PS3C_ERROR_VALUE,
                         "text: got %lld tokens a text, expected 1 to %lld, the context length", (long long)p->length,
                         (long long)p->config.context_length);
    if (p->dtype != PS3C_FLOAT32 && p->dtype != PS3C_FLOAT16 && p->dtype != PS3C_BFLOAT16)
        return ps3c_fail(context, PS3C_ERROR_TYPE, "weights: got dtype %s, expected float32, float16 or bfloat16",
                         ps3c_dtype_name(p->dtype));
    ps3c_text_index_of(&p->config, &p->index);
    p->threads = ps3c_threads_limit();
    p->tokens = p->length + p->config.class_token;
    p->pooled_tokens = p->config.pool == PS3C_POOL_NONE && !p->config.class_token ? p->tokens : 1;
    const int64_t together = backend->tokens_together ? backend->tokens_together : TOGETHER;
    texts = together / p->tokens > 0 ? together / p->tokens : 1;
    texts = texts < p->batch ? texts : p->batch;
    if (!limit)
        PS3C_TRY(ps3c_context_workspace_limit(context, backend, p->device.index, &limit));
    while (lay_out(backend, p, texts) > limit && texts > 1)
        texts = (texts + 1) / 2;
    if (p->bytes > SIZE_MAX / 4)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "text: a workspace for %lld tokens does not fit memory",
                         (long long)p->tokens);
    return PS3C_OK;
}

ps3c_status ps3c_text_plan_create(ps3c_context *context, const ps3c_text_config *config, int64_t batch, int64_t length,
                                  ps3c_dtype dtype, ps3c_device device, size_t workspace_limit, ps3c_text_plan **plan)
{
    ps3c_text_plan *made = calloc(1, sizeof *made);
    ps3c_status status;
    *plan = NULL;
    if (!made)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for a plan");
    made->config = *config;
    made->batch = batch;
    made->length = length;
    made->dtype = dtype;
    made->device = device;
    status = fill(context, made, workspace_limit);
    if (status != PS3C_OK)
        ps3c_text_plan_free(made);
    else
        *plan = made;
    return status;
}

void ps3c_text_plan_free(ps3c_text_plan *plan) { free(plan); }

size_t ps3c_text_plan_workspace_bytes(const ps3c_text_plan *plan) { return plan->bytes; }

int64_t ps3c_text_plan_pooled_tokens(const ps3c_text_plan *plan) { return plan->pooled_tokens; }

/* ---- run -------------------------------------------------------------------------------------------------- */

/* Texts that run together. */
typedef struct chunk {
    ps3c_pass pass;
    const ps3c_text_plan *plan;
    const ps3c_text_io *io;
    char *workspace;
    int64_t first, texts;
} chunk;

static ps3c_status embed(const chunk *k, const ps3c_activation *x)
{
    const ps3c_text_plan *p = k->plan;
    const ps3c_tensor *weights = k->pass.weights;
    const ps3c_token_embedding_args args = {k->io->ids,
                                            k->first,
                                            p->config.vocab_size,
                                            weights[p->index.token_embedding].data,
                                            weights[p->index.positions].data,
                                            p->config.class_token ? weights[p->index.class_token].data : NULL,
                                            x};
    return k->pass.backend->token_embedding(&k->pass.run, &args);
}

static ps3c_status run_blocks(const chunk *k, const ps3c_activation *x)
{
    const ps3c_text_plan *p = k->plan;
    const ps3c_text_config *c = &p->config;
    /* The reference applies the class token's mask only together with the causal one. */
    const bool masked = c->class_token && c->causal;
    uint8_t *mask = (uint8_t *)k->workspace + p->mask;
    const ps3c_class_mask_args mask_args = {k->io->ids, k->first, k->texts, c->pad_id, mask};
    if (masked)
        PS3C_TRY(k->pass.backend->class_mask(&k->pass.run, &mask_args));
    for (int64_t layer = 0; layer < c->depth; layer++) {
        const ps3c_block_args args = {.weights = p->index.blocks + layer * p->index.block_weights,
                                      .layer_scale = c->layer_scale,
                                      .heads = c->heads,
                                      .hidden = c->mlp_hidden,
                                      .eps = c->norm_eps,
                                      .act = c->tanh_gelu ? PS3C_ACT_GELU_TANH : PS3C_ACT_GELU_ERF,
                                      .x = x,
                                      .normed = k->workspace + p->normed,
                                      .wide = k->workspace + p->wide,
                                      .causal = c->causal,
                                      .last_query_mask = masked ? mask : NULL};
        PS3C_TRY(ps3c_block(&k->pass, &args));
    }
    return PS3C_OK;
}

/* Pooled tokens, normed, into `pooled`. */
static ps3c_status pool(const chunk *k, const ps3c_activation *x, const ps3c_activation *pooled)
{
    const ps3c_text_plan *p = k->plan;
    const ps3c_text_pool kind = p->config.class_token ? PS3C_POOL_LAST : p->config.pool;
    const ps3c_pool_tokens_args args = {x, kind, k->io->ids, k->first, pooled};
    if (kind == PS3C_POOL_NONE)
        return ps3c_norm(&k->pass, p->index.norm, p->config.norm_eps, PS3C_ACT_NONE, x, pooled);
    PS3C_TRY(k->pass.backend->pool_tokens(&k->pass.run, &args));
    return ps3c_norm(&k->pass, p->index.norm, p->config.norm_eps, PS3C_ACT_NONE, pooled, pooled);
}

static ps3c_status project(const chunk *k, const ps3c_activation *x, const ps3c_activation *y)
{
    const ps3c_text_plan *p = k->plan;
    const ps3c_text_config *c = &p->config;
    const ps3c_tensor *weight = &k->pass.weights[p->index.projection];
    const ps3c_gemm_args args = {.weight = weight->data,
                                 .n = c->output_dim,
                                 .k = c->width,
                                 .ldw = c->projection_linear ? c->width : c->output_dim,
                                 .transposed = !c->projection_linear,
                                 .bias = c->projection_linear && c->projection_bias ? weight[1].data : NULL,
                                 .x = x,
                                 .y = y,
                                 .values_from = c->output_dim};
    return k->pass.backend->gemm(&k->pass.run, &args);
}

/* Rows of x into the chunk's part of a (B, channels) or (B, tokens, channels) output. */
static ps3c_status return_rows(const chunk *k, const ps3c_activation *x, const ps3c_tensor *out)
{
    const int64_t text = k->plan->pooled_tokens * x->channels;
    const ps3c_to_rows_args args = {x,
                                    NULL,
                                    x->segments,
                                    0,
                                    (char *)out->data + (size_t)(k->first * text) * ps3c_dtype_bytes(k->pass.run.dtype),
                                    x->channels,
                                    text};
    return k->pass.backend->to_rows(&k->pass.run, &args);
}

static ps3c_status run_chunk(const chunk *k)
{
    const ps3c_text_plan *p = k->plan;
    const ps3c_text_config *c = &p->config;
    const ps3c_activation x = {k->workspace + p->x, k->texts, p->tokens, c->width};
    const bool all = p->config.pool == PS3C_POOL_NONE && !c->class_token;
    const ps3c_activation pooled = {k->workspace + p->pooled, all ? k->texts : 1, all ? p->tokens : k->texts, c->width};
    const ps3c_activation projected = ps3c_activation_like(&pooled, k->workspace + p->projected, c->output_dim);
    const ps3c_activation hidden = ps3c_activation_like(&pooled, k->workspace + p->prompt_hidden, c->prompt_dim);
    const ps3c_activation prompt = ps3c_activation_like(&pooled, k->workspace + p->prompt, c->prompt_dim);
    const ps3c_l2_normalize_args normalize = {&projected, &projected};
    PS3C_TRY(embed(k, &x));
    PS3C_TRY(run_blocks(k, &x));
    PS3C_TRY(pool(k, &x, &pooled));
    PS3C_TRY(project(k, &pooled, &projected));
    PS3C_TRY(return_rows(k, &projected, k->io->pooled));
    PS3C_TRY(k->pass.backend->l2_normalize(&k->pass.run, &normalize));
    PS3C_TRY(ps3c_linear(&k->pass, p->index.prompt_fc1, c->prompt_dim, PS3C_ACT_GELU_ERF, &projected, &hidden));
    PS3C_TRY(ps3c_norm(&k->pass, p->index.prompt_norm, PROMPT_NORM_EPS, PS3C_ACT_NONE, &hidden, &hidden));
    PS3C_TRY(ps3c_linear(&k->pass, p->index.prompt_fc2, c->prompt_dim, PS3C_ACT_NONE, &hidden, &prompt));
    return return_rows(k, &prompt, k->io->prompt);
}

static ps3c_status check_output(ps3c_context *context, const ps3c_text_plan *p, const char *name,
                                const ps3c_tensor *tensor, int64_t channels)
{
    const bool all = p->config.pool == PS3C_POOL_NONE && !p->config.class_token;
    const int64_t one[] = {p->batch, channels}, each[] = {p->batch, p->tokens, channels};
    return ps3c_tensor_check_contiguous(context, name, tensor, p->dtype, p->device, all ? 3 : 2, all ? each : one);
}

static ps3c_status check_io(ps3c_context *context, const ps3c_text_plan *p, const ps3c_text_io *io)
{
    const int64_t ids[] = {p->batch, p->length};
    PS3C_TRY(ps3c_tensor_check(context, "text", io->ids, PS3C_INT64, p->device, 2, ids));
    PS3C_TRY(check_output(context, p, "pooled", io->pooled, p->config.output_dim));
    PS3C_TRY(check_output(context, p, "prompt", io->prompt, p->config.prompt_dim));
    for (int64_t i = 0; i < p->index.count; i++) {
        const ps3c_tensor *w = &io->weights[i];
        if (w->dtype == p->dtype && w->data && ps3c_tensor_is_contiguous(w))
            continue;
        ps3c_weight_info info;
        PS3C_TRY(ps3c_text_weight_info(context, &p->config, i, &info));
        PS3C_TRY(ps3c_tensor_check_contiguous(context, info.name, w, p->dtype, p->device, info.ndim, info.shape));
    }
    if (!io->workspace || io->workspace_bytes < p->bytes)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "workspace: got %zu bytes, expected %zu",
                         io->workspace ? io->workspace_bytes : 0, p->bytes);
    return PS3C_OK;
}

ps3c_status ps3c_text_run(ps3c_context *context, const ps3c_text_plan *plan, const ps3c_text_io *io)
{
    ps3c_status status = PS3C_OK;
    chunk k = {.plan = plan, .io = io};
    k.pass.run = (ps3c_run){.context = context,
                            .dtype = plan->dtype,
                            .threads = ps3c_context_threads(context, plan->threads),
                            .device_index = plan->device.index,
                            .tf32 = io->tf32,
                            .stream = io->stream};
    k.pass.weights = io->weights;
    PS3C_TRY(ps3c_context_backend(context, plan->device, &k.pass.backend));
    PS3C_TRY(check_io(context, plan, io));
    k.workspace = (char *)(((uintptr_t)io->workspace + 255) / 256 * 256);
    k.pass.run.scratch = k.workspace + plan->scratch;
    k.pass.run.scratch_bytes = plan->bytes - 256 - plan->scratch;
    PS3C_TRY(ps3c_pass_begin(&k.pass));
    for (k.first = 0; k.first < plan->batch && status == PS3C_OK; k.first += k.texts) {
        const int64_t rest = plan->batch - k.first;
        k.texts = rest < plan->chunk ? rest : plan->chunk;
        status = run_chunk(&k);
    }
    ps3c_pass_end(&k.pass);
    return status;
}
