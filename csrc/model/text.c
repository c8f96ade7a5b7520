/* The text tower: token and position embedding, transformer blocks, pooling, projection, and the prompt for the
 * selection of patches.
 *
 * Source: the behaviour of ps3-torch's TextTransformer (open_clip's text tower with a prompt projection). The final
 * norm acts on each token independently, and pooling takes one token, so the norm is applied after pooling. */
#include <stdio.h>
#include <stdlib.h>

#include "../run/context.h"
#include "layers.h"
#include "../run/tensor.h"
#include "weights.h"

static const float PROMPT_NORM_EPS = 1e-5f; /* nn.LayerNorm's default */

struct ps3c_text_plan {
    ps3c_text_config config;
    ps3c_text_request request;
    ps3c_text_index index;
    int64_t tokens;   /* tokens of a text in the blocks: length, or length + 1 with a class token */
    bool every_token; /* no pooling: each token has an output */
    int64_t chunk;    /* texts that run together */
    int threads;
    size_t x, normed, wide, mask, pooled, projected, prompt_hidden, prompt, scratch, bytes; /* workspace offsets */
};

/* ---- plan ------------------------------------------------------------------------------------------------- */

/* The activation after pooling: `texts` segments with all tokens, or one segment with one token per text. */
static ps3c_activation pooled_activation(const ps3c_text_plan *p, int64_t texts, void *data, int64_t channels)
{
    if (p->every_token)
        return (ps3c_activation){.data = data, .segments = texts, .tokens = p->tokens, .channels = channels};
    return (ps3c_activation){.data = data, .segments = 1, .tokens = texts, .channels = channels};
}

static size_t lay_activation(const ps3c_backend *backend, const ps3c_text_plan *p, ps3c_arena *arena, ps3c_activation a)
{
    return ps3c_arena_take(arena, backend->activation_bytes(p->request.dtype, a.segments, a.tokens, a.channels));
}

/* Lays out a workspace for `texts` texts; returns its bytes. */
static size_t lay_out(const ps3c_backend *backend, ps3c_text_plan *p, int64_t texts)
{
    const ps3c_text_config *c = &p->config;
    const int64_t wide = 3 * c->width > c->mlp_hidden ? 3 * c->width : c->mlp_hidden;
    const int64_t widest = c->output_dim > c->prompt_dim ? c->output_dim : c->prompt_dim;
    const ps3c_activation x = {.segments = texts, .tokens = p->tokens, .channels = c->width};
    ps3c_arena arena = {0, 0};
    p->chunk = texts;
    p->x = lay_activation(backend, p, &arena, x);
    p->normed = lay_activation(backend, p, &arena, x);
    p->wide = lay_activation(backend, p, &arena, ps3c_activation_like(&x, NULL, wide));
    p->mask = ps3c_arena_take(&arena, ps3c_bytes_product(texts, p->tokens));
    p->pooled = lay_activation(backend, p, &arena, pooled_activation(p, texts, NULL, c->width));
    p->projected = lay_activation(backend, p, &arena, pooled_activation(p, texts, NULL, c->output_dim));
    p->prompt_hidden = lay_activation(backend, p, &arena, pooled_activation(p, texts, NULL, c->prompt_dim));
    p->prompt = lay_activation(backend, p, &arena, pooled_activation(p, texts, NULL, c->prompt_dim));
    p->scratch = ps3c_arena_take(&arena, backend->scratch_bytes(p->request.dtype, p->threads, texts * p->tokens,
                                                                wide > widest ? wide : widest, 1));
    p->bytes = ps3c_arena_bytes(&arena);
    return p->bytes;
}

static ps3c_status check_request(ps3c_context *context, const ps3c_text_config *config, const ps3c_text_request *r)
{
    PS3C_TRY(ps3c_check_batch(context, r->batch));
    if (r->length < 1 || r->length > config->context_length)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "length: got %lld, expected 1 to %lld, the context length",
                         (long long)r->length, (long long)config->context_length);
    return ps3c_check_dtype(context, r->dtype);
}

static ps3c_status fill(ps3c_context *context, ps3c_text_plan *p)
{
    const ps3c_text_request *r = &p->request;
    const ps3c_backend *backend;
    ps3c_grouping grouping;
    char what[64];
    PS3C_TRY(ps3c_context_backend(context, r->device, &backend));
    PS3C_TRY(ps3c_text_config_check(context, &p->config));
    PS3C_TRY(check_request(context, &p->config, r));
    ps3c_text_index_of(&p->config, &p->index);
    p->threads = ps3c_threads_limit();
    p->tokens = r->length + p->config.class_token;
    p->every_token = p->config.pool == PS3C_POOL_NONE && !p->config.class_token;
    PS3C_TRY(ps3c_find_grouping(context, backend, r->device.index, r->workspace_limit, &grouping));
    int64_t texts = ps3c_segments_together(&grouping, p->tokens, r->batch);
    while (lay_out(backend, p, texts) > grouping.limit && texts > 1)
        texts = (texts + 1) / 2;
    snprintf(what, sizeof what, "texts of %lld tokens", (long long)p->tokens);
    return ps3c_check_workspace(context, p->bytes, what);
}

ps3c_status ps3c_text_plan_create(ps3c_context *context, const ps3c_text_config *config,
                                  const ps3c_text_request *request, ps3c_text_plan **plan)
{
    ps3c_text_plan *made = calloc(1, sizeof *made);
    ps3c_status status;
    *plan = NULL;
    if (!made)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for a plan");
    made->config = *config;
    made->request = *request;
    status = fill(context, made);
    if (status != PS3C_OK)
        ps3c_text_plan_free(made);
    else
        *plan = made;
    return status;
}

void ps3c_text_plan_free(ps3c_text_plan *plan) { free(plan); }

void ps3c_text_plan_describe(const ps3c_text_plan *plan, ps3c_text_plan_info *info)
{
    *info = (ps3c_text_plan_info){.workspace_bytes = plan->bytes,
                                  .every_token = plan->every_token,
                                  .pooled_tokens = plan->every_token ? plan->tokens : 1};
}

size_t ps3c_text_plan_workspace_bytes(const ps3c_text_plan *plan) { return plan->bytes; }

int64_t ps3c_text_plan_pooled_tokens(const ps3c_text_plan *plan) { return plan->every_token ? plan->tokens : 1; }

/* ---- run -------------------------------------------------------------------------------------------------- */

/* A chunk, the texts that run together. */
typedef struct text_chunk {
    ps3c_pass pass;
    const ps3c_text_plan *plan;
    const ps3c_text_io *io;
    int64_t first, texts;
} text_chunk;

static ps3c_status embed(const text_chunk *chunk, const ps3c_activation *x)
{
    const ps3c_text_plan *p = chunk->plan;
    const ps3c_tensor *weights = chunk->pass.weights;
    const ps3c_token_embedding_args args = {.ids = chunk->io->ids,
                                            .first = chunk->first,
                                            .vocab_size = p->config.vocab_size,
                                            .table = weights[p->index.token_embedding].data,
                                            .positions = weights[p->index.positions].data,
                                            .class_token =
                                                p->config.class_token ? weights[p->index.class_token].data : NULL,
                                            .out = x};
    return chunk->pass.backend->token_embedding(&chunk->pass.run, &args);
}

static ps3c_status run_blocks(const text_chunk *chunk, const ps3c_activation *x)
{
    const ps3c_text_plan *p = chunk->plan;
    const ps3c_text_config *c = &p->config;
    /* The reference applies the class token's mask only together with the causal mask. */
    const bool masked = c->class_token && c->causal;
    uint8_t *mask = (uint8_t *)chunk->pass.workspace + p->mask;
    const ps3c_class_mask_args mask_args = {
        .ids = chunk->io->ids, .first = chunk->first, .segments = chunk->texts, .pad_id = c->pad_id, .mask = mask};
    if (masked)
        PS3C_TRY(chunk->pass.backend->class_mask(&chunk->pass.run, &mask_args));
    for (int64_t layer = 0; layer < c->depth; layer++) {
        const ps3c_block_args args = {.weights = p->index.blocks + layer * p->index.block_weights,
                                      .layer_scale = c->layer_scale,
                                      .heads = c->heads,
                                      .hidden = c->mlp_hidden,
                                      .eps = c->norm_eps,
                                      .act = c->tanh_gelu ? PS3C_ACT_GELU_TANH : PS3C_ACT_GELU_ERF,
                                      .x = x,
                                      .normed = chunk->pass.workspace + p->normed,
                                      .wide = chunk->pass.workspace + p->wide,
                                      .causal = c->causal,
                                      .last_query_mask = masked ? mask : NULL};
        PS3C_TRY(ps3c_block(&chunk->pass, &args));
    }
    return PS3C_OK;
}

/* Writes the pooled tokens, after the final norm, to `pooled`. */
static ps3c_status pool(const text_chunk *chunk, const ps3c_activation *x, const ps3c_activation *pooled)
{
    const ps3c_text_plan *p = chunk->plan;
    const ps3c_text_pool kind = p->config.class_token ? PS3C_POOL_LAST : p->config.pool;
    const ps3c_pool_tokens_args args = {
        .x = x, .pool = kind, .ids = chunk->io->ids, .first = chunk->first, .out = pooled};
    if (kind == PS3C_POOL_NONE)
        return ps3c_norm(&chunk->pass, p->index.norm, p->config.norm_eps, PS3C_ACT_NONE, x, pooled);
    PS3C_TRY(chunk->pass.backend->pool_tokens(&chunk->pass.run, &args));
    return ps3c_norm(&chunk->pass, p->index.norm, p->config.norm_eps, PS3C_ACT_NONE, pooled, pooled);
}

static ps3c_status project(const text_chunk *chunk, const ps3c_activation *x, const ps3c_activation *y)
{
    const ps3c_text_plan *p = chunk->plan;
    const ps3c_text_config *c = &p->config;
    const ps3c_tensor *weight = &chunk->pass.weights[p->index.projection];
    const ps3c_gemm_args args = {.weight = weight->data,
                                 .n = c->output_dim,
                                 .k = c->width,
                                 .ldw = c->projection_linear ? c->width : c->output_dim,
                                 .transposed = !c->projection_linear,
                                 .bias = c->projection_linear && c->projection_bias ? weight[1].data : NULL,
                                 .x = x,
                                 .y = y,
                                 .values_from = c->output_dim};
    return chunk->pass.backend->gemm(&chunk->pass.run, &args);
}

/* Copies x to the chunk's part of a (B, channels) or (B, tokens, channels) output. */
static ps3c_status return_rows(const text_chunk *chunk, const ps3c_activation *x, const ps3c_tensor *out)
{
    const ps3c_tensor rows = ps3c_tensor_slice(out, chunk->first, chunk->texts);
    const ps3c_to_rows_args args = {.x = x,
                                    .batch = x->segments,
                                    .out = rows.data,
                                    .row_stride = x->channels,
                                    .batch_stride = x->tokens * x->channels};
    return chunk->pass.backend->to_rows(&chunk->pass.run, &args);
}

static ps3c_status run_chunk(const text_chunk *chunk)
{
    const ps3c_text_plan *p = chunk->plan;
    const ps3c_text_config *c = &p->config;
    char *workspace = chunk->pass.workspace;
    const ps3c_activation x = {
        .data = workspace + p->x, .segments = chunk->texts, .tokens = p->tokens, .channels = c->width};
    const ps3c_activation pooled = pooled_activation(p, chunk->texts, workspace + p->pooled, c->width);
    const ps3c_activation projected = ps3c_activation_like(&pooled, workspace + p->projected, c->output_dim);
    const ps3c_activation hidden = ps3c_activation_like(&pooled, workspace + p->prompt_hidden, c->prompt_dim);
    const ps3c_activation prompt = ps3c_activation_like(&pooled, workspace + p->prompt, c->prompt_dim);
    const ps3c_l2_normalize_args normalize = {.x = &projected, .y = &projected};
    PS3C_TRY(embed(chunk, &x));
    PS3C_TRY(run_blocks(chunk, &x));
    PS3C_TRY(pool(chunk, &x, &pooled));
    PS3C_TRY(project(chunk, &pooled, &projected));
    PS3C_TRY(return_rows(chunk, &projected, chunk->io->pooled));
    PS3C_TRY(chunk->pass.backend->l2_normalize(&chunk->pass.run, &normalize));
    PS3C_TRY(ps3c_linear(&chunk->pass, p->index.prompt_fc1, c->prompt_dim, PS3C_ACT_GELU_ERF, &projected, &hidden));
    PS3C_TRY(ps3c_norm(&chunk->pass, p->index.prompt_norm, PROMPT_NORM_EPS, PS3C_ACT_NONE, &hidden, &hidden));
    PS3C_TRY(ps3c_linear(&chunk->pass, p->index.prompt_fc2, c->prompt_dim, PS3C_ACT_NONE, &hidden, &prompt));
    return return_rows(chunk, &prompt, chunk->io->prompt);
}

/* Checks an output: (B, channels), or (B, tokens, channels) if every token has an output. */
static ps3c_status check_output(ps3c_context *context, const ps3c_text_plan *p, const char *name,
                                const ps3c_tensor *tensor, int64_t channels)
{
    const ps3c_text_request *r = &p->request;
    const int64_t pooled[] = {r->batch, channels}, each[] = {r->batch, p->tokens, channels};
    const ps3c_tensor_rule rule = {(int)r->dtype, r->device, p->every_token ? 3 : 2, p->every_token ? each : pooled,
                                   true};
    return ps3c_tensor_check(context, name, PS3C_ANY, tensor, &rule);
}

static ps3c_status check_io(ps3c_context *context, const ps3c_text_plan *p, const ps3c_text_io *io)
{
    const ps3c_text_request *r = &p->request;
    const int64_t ids[] = {r->batch, r->length};
    const ps3c_tensor_rule ids_rule = {PS3C_INT64, r->device, 2, ids, false};
    PS3C_TRY(ps3c_tensor_check(context, "ids", PS3C_ANY, io->ids, &ids_rule));
    PS3C_TRY(ps3c_text_check_weights(context, &p->config, io->weights, r->dtype, r->device));
    PS3C_TRY(check_output(context, p, "pooled", io->pooled, p->config.output_dim));
    return check_output(context, p, "prompt", io->prompt, p->config.prompt_dim);
}

ps3c_status ps3c_text_run(ps3c_context *context, const ps3c_text_plan *plan, const ps3c_text_io *io)
{
    ps3c_status status = PS3C_OK;
    text_chunk chunk = {.plan = plan, .io = io};
    const ps3c_pass_args args = {.weights = io->weights,
                                 .workspace = io->workspace,
                                 .workspace_bytes = io->workspace_bytes,
                                 .stream = io->stream,
                                 .tf32 = io->tf32,
                                 .dtype = plan->request.dtype,
                                 .device = plan->request.device,
                                 .threads = plan->threads,
                                 .bytes = plan->bytes,
                                 .scratch = plan->scratch};
    PS3C_TRY(check_io(context, plan, io));
    PS3C_TRY(ps3c_pass_begin(context, &args, &chunk.pass));
    for (chunk.first = 0; chunk.first < plan->request.batch && status == PS3C_OK; chunk.first += chunk.texts) {
        const int64_t rest = plan->request.batch - chunk.first;
        chunk.texts = rest < plan->chunk ? rest : plan->chunk;
        status = run_chunk(&chunk);
    }
    ps3c_pass_end(&chunk.pass);
    return status;
}
