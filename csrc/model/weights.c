/* The weights of a configuration: their names (those of ps3-torch's state_dict), shapes and numbers.
 *
 * One function per tower visits all weights in order. Counting, naming, indexing and checking use this same walk with
 * other fields set, so they always agree. */
#include "weights.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "../run/tensor.h"

typedef struct walk {
    int64_t next;   /* number of the next weight */
    int64_t wanted; /* number of the weight to describe in info; -1: none */
    ps3c_weight_info *info;
    const ps3c_tensor *tensors; /* the tensors to check, by number; NULL: none */
    ps3c_dtype dtype;           /* required dtype */
    ps3c_device device;
    int64_t misfit; /* number of the first invalid tensor; -1: none */
} walk;

static const walk COUNT_ALONE = {.wanted = -1, .misfit = -1};

static bool fits(const walk *w, int ndim, const int64_t *shape)
{
    const ps3c_tensor *tensor = &w->tensors[w->next];
    return tensor->ndim == ndim && !memcmp(tensor->shape, shape, (size_t)ndim * sizeof *shape) && tensor->data &&
           tensor->dtype == w->dtype && tensor->device.type == w->device.type &&
           tensor->device.index == w->device.index && ps3c_tensor_is_contiguous(tensor);
}

/* Visits one weight. Its shape is up to four sizes, ended by 0. Returns its number. */
static int64_t add(walk *w, int64_t d0, int64_t d1, int64_t d2, int64_t d3, const char *format, ...)
{
    const int64_t shape[4] = {d0, d1, d2, d3};
    const int ndim = d3 ? 4 : d2 ? 3 : d1 ? 2 : 1;
    if (w->tensors && w->misfit < 0 && !fits(w, ndim, shape))
        w->misfit = w->next;
    if (w->next == w->wanted) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(w->info->name, sizeof w->info->name, format, arguments);
        va_end(arguments);
        w->info->ndim = ndim;
        memcpy(w->info->shape, shape, sizeof shape);
    }
    return w->next++;
}

/* Weight (out, in) and bias (out). */
static int64_t add_linear(walk *w, int64_t out, int64_t in, const char *name)
{
    int64_t first = add(w, out, in, 0, 0, "%s.weight", name);
    add(w, out, 0, 0, 0, "%s.bias", name);
    return first;
}

static int64_t add_norm(walk *w, int64_t channels, const char *name)
{
    int64_t first = add(w, channels, 0, 0, 0, "%s.weight", name);
    add(w, channels, 0, 0, 0, "%s.bias", name);
    return first;
}

/* The same for a member of a list: prefix.number, then name (".mlp.fc1", or "" if the member itself is the layer). */
static int64_t add_linear_of(walk *w, int64_t out, int64_t in, const char *prefix, int64_t number, const char *name)
{
    int64_t first = add(w, out, in, 0, 0, "%s.%lld%s.weight", prefix, (long long)number, name);
    add(w, out, 0, 0, 0, "%s.%lld%s.bias", prefix, (long long)number, name);
    return first;
}

static int64_t add_norm_of(walk *w, int64_t channels, const char *prefix, int64_t number, const char *name)
{
    int64_t first = add(w, channels, 0, 0, 0, "%s.%lld%s.weight", prefix, (long long)number, name);
    add(w, channels, 0, 0, 0, "%s.%lld%s.bias", prefix, (long long)number, name);
    return first;
}

static void walk_trunk(walk *w, const ps3c_vision_config *c, ps3c_vision_index *index)
{
    const char *blocks = "trunk.blocks";
    index->pos_embed = add(w, 1, c->grid * c->grid, c->width, 0, "trunk.pos_embed");
    index->patch = add(w, c->width, 3, c->patch, c->patch, "trunk.patch_embed.proj.weight");
    add(w, c->width, 0, 0, 0, "trunk.patch_embed.proj.bias");
    index->blocks = w->next;
    for (int64_t i = 0; i < c->depth; i++) {
        add_norm_of(w, c->width, blocks, i, ".norm1");
        add_linear_of(w, 3 * c->width, c->width, blocks, i, ".attn.qkv");
        add_linear_of(w, c->width, c->width, blocks, i, ".attn.proj");
        add_norm_of(w, c->width, blocks, i, ".norm2");
        add_linear_of(w, c->mlp_hidden, c->width, blocks, i, ".mlp.fc1");
        add_linear_of(w, c->width, c->mlp_hidden, blocks, i, ".mlp.fc2");
    }
    index->norm = c->final_norm ? add_norm(w, c->width, "trunk.norm") : -1;
}

/* Order in v1: fc1, norm, (Linear, LayerNorm) for each block, fc2. Order in v2: fc1, (LayerNorm, Linear) for each
 * block, final LayerNorm, final Linear. adapter_final is fc2 in v1 and the final LayerNorm in v2; the final Linear is
 * 2 later. */
static void walk_adapter(walk *w, const ps3c_vision_config *c, ps3c_vision_index *index)
{
    const int64_t hidden = c->adapter_hidden;
    if (c->adapter == PS3C_ADAPTER_NONE)
        return;
    index->adapter_fc1 = add_linear(w, hidden, c->width, "trunk.siglip_proj.fc1");
    if (c->adapter == PS3C_ADAPTER_V1) {
        index->adapter_norm = add_norm(w, hidden, "trunk.siglip_proj.norm");
        index->adapter_blocks = w->next;
        for (int64_t i = 0; i < c->adapter_blocks; i++) {
            add_linear_of(w, hidden, hidden, "trunk.siglip_proj.inner", 3 * i, "");
            add_norm_of(w, hidden, "trunk.siglip_proj.inner", 3 * i + 1, "");
        }
        index->adapter_final = add_linear(w, c->adapter_out, hidden, "trunk.siglip_proj.fc2");
        return;
    }
    index->adapter_blocks = w->next;
    for (int64_t i = 0; i < c->adapter_blocks; i++) {
        add_norm_of(w, hidden, "trunk.siglip_proj.blocks", i, ".0");
        add_linear_of(w, hidden, hidden, "trunk.siglip_proj.blocks", i, ".2");
    }
    index->adapter_final = add_norm(w, hidden, "trunk.siglip_proj.final.0");
    add_linear(w, c->adapter_out, hidden, "trunk.siglip_proj.final.2");
}

static void walk_pool(walk *w, const ps3c_vision_config *c, ps3c_vision_index *index)
{
    index->latent = add(w, 1, 1, c->pool_width, 0, "trunk.attn_pool.latent");
    index->pool_q = add_linear(w, c->pool_width, c->pool_width, "trunk.attn_pool.q");
    index->pool_kv = add_linear(w, 2 * c->pool_width, c->pool_width, "trunk.attn_pool.kv");
    index->pool_proj = add_linear(w, c->pool_width, c->pool_width, "trunk.attn_pool.proj");
    index->pool_norm = add_norm(w, c->pool_width, "trunk.attn_pool.norm");
    index->pool_fc1 = add_linear(w, c->pool_hidden, c->pool_width, "trunk.attn_pool.mlp.fc1");
    index->pool_fc2 = add_linear(w, c->pool_width, c->pool_hidden, "trunk.attn_pool.mlp.fc2");
}

static void walk_selection(walk *w, const ps3c_vision_config *c, ps3c_vision_index *index)
{
    const int64_t in = c->width * c->num_select_layers, high = c->num_scales - 1, d = c->conv_width;
    const char *conv = "highres_selection_feature_module", *blocks = "highres_selection_feature_module.blocks";
    index->prior_prompt = add(w, c->width, 0, 0, 0, "prior_prompt");
    index->select_fc1 = add_linear(w, in, in, "selection_feature_proj.fc1");
    index->select_norm = add_norm(w, in, "selection_feature_proj.norm");
    index->select_fc2 = add_linear(w, c->width * high, in, "selection_feature_proj.fc2");
    if (c->separate_positions) {
        index->pos_residual = w->next;
        for (int64_t i = 0; i < high; i++) {
            int64_t side = c->scales[i + 1] / c->patch;
            add(w, 1, side * side, c->width, 0, "pos_emb_residual.%lld", (long long)i);
        }
    }
    if (!c->highres_features)
        return;
    index->stem = add(w, d, 3, c->conv_kernel, c->conv_kernel, "%s.stem.0.weight", conv);
    add(w, d, 0, 0, 0, "%s.stem.0.bias", conv);
    index->stem_norm = add(w, d, 0, 0, 0, "%s.stem.1.weight", conv);
    add(w, d, 0, 0, 0, "%s.stem.1.bias", conv);
    index->conv_blocks = w->next;
    for (int64_t i = 0; i < c->conv_depth; i++) {
        add(w, d, 0, 0, 0, "%s.%lld.weight", blocks, (long long)i);
        add(w, d, 1, 7, 7, "%s.%lld.conv_dw.weight", blocks, (long long)i);
        add(w, d, 0, 0, 0, "%s.%lld.conv_dw.bias", blocks, (long long)i);
        add_norm_of(w, d, blocks, i, ".norm");
        add_linear_of(w, 4 * d, d, blocks, i, ".mlp.fc1");
        add_linear_of(w, d, 4 * d, blocks, i, ".mlp.fc2");
    }
    index->conv_out = add(w, c->conv_out, d, 1, 1, "%s.out_proj.weight", conv);
    add(w, c->conv_out, 0, 0, 0, "%s.out_proj.bias", conv);
    index->highres_prompt = add_linear(w, c->conv_out * high, c->width, "prompt_proj_for_highres");
}

static void walk_vision(walk *w, const ps3c_vision_config *config, ps3c_vision_index *index)
{
    memset(index, 0xff, sizeof *index); /* -1 everywhere */
    walk_trunk(w, config, index);
    walk_adapter(w, config, index);
    walk_pool(w, config, index);
    walk_selection(w, config, index);
    index->count = w->next;
}

static void walk_text(walk *w, const ps3c_text_config *c, ps3c_text_index *index)
{
    const char *blocks = "transformer.resblocks";
    memset(index, 0xff, sizeof *index);
    index->token_embedding = add(w, c->vocab_size, c->width, 0, 0, "token_embedding.weight");
    if (c->class_token)
        index->class_token = add(w, c->width, 0, 0, 0, "cls_emb");
    index->positions = add(w, c->context_length + c->class_token, c->width, 0, 0, "positional_embedding");
    index->blocks = w->next;
    index->block_weights = c->layer_scale ? PS3C_SCALED_BLOCK_WEIGHTS : PS3C_BLOCK_WEIGHTS;
    for (int64_t i = 0; i < c->depth; i++) {
        add_norm_of(w, c->width, blocks, i, ".ln_1");
        add(w, 3 * c->width, c->width, 0, 0, "%s.%lld.attn.in_proj_weight", blocks, (long long)i);
        add(w, 3 * c->width, 0, 0, 0, "%s.%lld.attn.in_proj_bias", blocks, (long long)i);
        add_linear_of(w, c->width, c->width, blocks, i, ".attn.out_proj");
        add_norm_of(w, c->width, blocks, i, ".ln_2");
        add_linear_of(w, c->mlp_hidden, c->width, blocks, i, ".mlp.c_fc");
        add_linear_of(w, c->width, c->mlp_hidden, blocks, i, ".mlp.c_proj");
        if (c->layer_scale) {
            add(w, c->width, 0, 0, 0, "%s.%lld.ls_1.gamma", blocks, (long long)i);
            add(w, c->width, 0, 0, 0, "%s.%lld.ls_2.gamma", blocks, (long long)i);
        }
    }
    index->norm = add_norm(w, c->width, "ln_final");
    if (c->projection_linear) {
        index->projection = add(w, c->output_dim, c->width, 0, 0, "text_projection.weight");
        if (c->projection_bias)
            add(w, c->output_dim, 0, 0, 0, "text_projection.bias");
    } else {
        index->projection = add(w, c->width, c->output_dim, 0, 0, "text_projection");
    }
    index->prompt_fc1 = add_linear(w, c->prompt_dim, c->output_dim, "prompt_proj.fc1");
    index->prompt_norm = add_norm(w, c->prompt_dim, "prompt_proj.norm");
    index->prompt_fc2 = add_linear(w, c->prompt_dim, c->prompt_dim, "prompt_proj.fc2");
    index->count = w->next;
}

/* Defines the public functions of a tower from its walk. */
#define PS3C_TOWER(tower)                                                                                             \
    void ps3c_##tower##_index_of(const ps3c_##tower##_config *config, ps3c_##tower##_index *index)                    \
    {                                                                                                                 \
        walk w = COUNT_ALONE;                                                                                         \
        walk_##tower(&w, config, index);                                                                              \
    }                                                                                                                 \
    int64_t ps3c_##tower##_weight_count(const ps3c_##tower##_config *config)                                          \
    {                                                                                                                 \
        ps3c_##tower##_index index;                                                                                   \
        ps3c_##tower##_index_of(config, &index);                                                                      \
        return index.count;                                                                                           \
    }                                                                                                                 \
    ps3c_status ps3c_##tower##_weight_info(ps3c_context *context, const ps3c_##tower##_config *config, int64_t index, \
                                           ps3c_weight_info *info)                                                    \
    {                                                                                                                 \
        walk w = {.wanted = index, .info = info, .misfit = -1};                                                       \
        ps3c_##tower##_index all;                                                                                     \
        walk_##tower(&w, config, &all);                                                                               \
        return index >= 0 && index < all.count ? PS3C_OK : outside(context, index, all.count);                        \
    }                                                                                                                 \
    ps3c_status ps3c_##tower##_check_weights(ps3c_context *context, const ps3c_##tower##_config *config,              \
                                             const ps3c_tensor *weights, ps3c_dtype dtype, ps3c_device device)        \
    {                                                                                                                 \
        walk w = {.wanted = -1, .tensors = weights, .dtype = dtype, .device = device, .misfit = -1};                  \
        ps3c_##tower##_index all;                                                                                     \
        ps3c_weight_info info;                                                                                        \
        walk_##tower(&w, config, &all);                                                                               \
        if (!weights)                                                                                                 \
            return no_weights(context, all.count);                                                                    \
        if (w.misfit < 0)                                                                                             \
            return PS3C_OK;                                                                                           \
        PS3C_TRY(ps3c_##tower##_weight_info(context, config, w.misfit, &info));                                       \
        return misfit(context, &info, &weights[w.misfit], dtype, device);                                             \
    }

static ps3c_status outside(ps3c_context *context, int64_t index, int64_t count)
{
    return ps3c_fail(context, PS3C_ERROR_VALUE, "index: got %lld, expected 0 to %lld", (long long)index,
                     (long long)count - 1);
}

static ps3c_status no_weights(ps3c_context *context, int64_t count)
{
    return ps3c_fail(context, PS3C_ERROR_VALUE, "weights: got no tensors, expected %lld", (long long)count);
}

static ps3c_status misfit(ps3c_context *context, const ps3c_weight_info *info, const ps3c_tensor *weight,
                          ps3c_dtype dtype, ps3c_device device)
{
    char name[PS3C_NAME_BYTES + 8];
    const ps3c_tensor_rule rule = {(int)dtype, device, info->ndim, info->shape, true};
    snprintf(name, sizeof name, "weight %s", info->name);
    return ps3c_tensor_check(context, name, PS3C_ANY, weight, &rule);
}

PS3C_TOWER(vision)
PS3C_TOWER(text)
