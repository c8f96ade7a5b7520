/* The vision plan: everything that follows from sizes and arguments, including the layout of the workspace. */
#include "vision_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../run/context.h"
#include "layers.h"
#include "selection.h"

#define MOST_OUTPUT ((size_t)1 << 42)  /* most values of an output */
#define MOST_ENTRIES ((size_t)1 << 27) /* most batch * scales * looks: the plan has 1 GB then */
enum { CONV_SIZE = 1512 };             /* side of the convolution network's image, for any size of the request */

static int64_t largest(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- request ---------------------------------------------------------------------------------------------- */

static ps3c_status check_size(ps3c_context *context, const char *name, int64_t size)
{
    if (size >= 1 && size <= INT32_MAX)
        return PS3C_OK;
    return ps3c_fail(context, PS3C_ERROR_VALUE, "%s: got %lld, expected 1 to %d", name, (long long)size, INT32_MAX);
}

static ps3c_status check_request(ps3c_context *context, const ps3c_vision_config *config, const ps3c_vision_request *r)
{
    const int64_t most_pixels = (int64_t)1 << 40, least_states = r->mode == PS3C_VISION_FEATURES;
    PS3C_TRY(ps3c_check_batch(context, r->batch));
    PS3C_TRY(check_size(context, "height", r->height));
    PS3C_TRY(check_size(context, "width", r->width));
    if (r->height * r->width > most_pixels)
        return ps3c_fail(context, PS3C_ERROR_VALUE,
                         "height: got %lld for a width of %lld, expected 2^40 pixels or less", (long long)r->height,
                         (long long)r->width);
    PS3C_TRY(ps3c_check_dtype(context, r->dtype));
    if (r->mode != PS3C_VISION_FEATURES && r->mode != PS3C_VISION_PRETRAIN && r->mode != PS3C_VISION_LOW_RES)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "mode: got %d, expected a ps3c_vision_mode", (int)r->mode);
    if (r->hidden_states < least_states || r->hidden_states > config->depth)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "hidden_states: got %lld, expected %lld to %lld",
                         (long long)r->hidden_states, (long long)least_states, (long long)config->depth);
    if (r->looks_per_step < 0)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "looks_per_step: got %lld, expected 0 (no limit) or more",
                         (long long)r->looks_per_step);
    for (int64_t b = 0; r->first_n_scales && b < r->batch; b++)
        if (r->first_n_scales[b] < 1 || r->first_n_scales[b] >= config->num_scales)
            return ps3c_fail(context, PS3C_ERROR_VALUE, "first_n_scales: got %lld, expected 1 to %lld",
                             (long long)r->first_n_scales[b], (long long)config->num_scales - 1);
    if (r->pool_gt_only && !r->gt_maps && r->mode == PS3C_VISION_PRETRAIN)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "pool_gt_only: got true without gt_maps, expected gt_maps too");
    return PS3C_OK;
}

/* Number of high-res patches that the request can select. */
static int64_t patches_of(const ps3c_vision_plan *plan)
{
    int64_t scales = plan->num_high, patches = 0;
    if (plan->first_n) {
        scales = 0;
        for (int64_t b = 0; b < plan->request.batch; b++)
            scales = largest(scales, plan->first_n[b]);
    }
    for (int64_t s = 0; s < scales; s++)
        patches += plan->high[s].rows * plan->high[s].cols;
    return patches;
}

static void set_scales(ps3c_vision_plan *plan)
{
    const ps3c_vision_config *c = &plan->config;
    int64_t first = 0;
    plan->low = ps3c_scale_of(c, plan->request.height, plan->request.width, 0);
    for (int64_t s = 0; s < plan->num_high; s++) {
        plan->high[s] = ps3c_scale_of(c, plan->request.height, plan->request.width, s + 1);
        plan->high[s].first = first;
        first += plan->high[s].rows * plan->high[s].cols;
    }
    if (c->highres_features)
        plan->conv = (ps3c_scale){CONV_SIZE, CONV_SIZE, CONV_SIZE / c->conv_kernel, CONV_SIZE / c->conv_kernel, 0};
}

/* ---- looks ------------------------------------------------------------------------------------------------ */

static ps3c_status unequal(ps3c_context *context, const ps3c_vision_plan *plan, int64_t look, int64_t image,
                           int64_t tokens)
{
    return ps3c_fail(
        context, PS3C_ERROR_VALUE,
        "first_n_scales: got scales from which look %lld takes %lld patches of image %lld and %lld of image "
        "0, expected the same number for every image of a batch",
        (long long)look, (long long)tokens, (long long)image, (long long)plan->look_tokens[look]);
}

static ps3c_status set_looks_of_image(ps3c_context *context, ps3c_vision_plan *plan, const ps3c_looks *looks,
                                      int64_t image)
{
    const int64_t high = plan->num_high;
    int64_t free_patches[PS3C_MAX_SCALES], takes[PS3C_MAX_SCALES];
    int64_t done[PS3C_MAX_SCALES] = {0};
    for (int64_t s = 0; s < high; s++)
        free_patches[s] = plan->high[s].rows * plan->high[s].cols;
    for (int64_t look = 0; look < looks->count; look++) {
        const int64_t last = look + 1 == looks->count;
        const int64_t tokens = !look ? looks->first_tokens : last ? looks->last_tokens : PS3C_NONE;
        int64_t total = 0;
        ps3c_patches_of_look(&plan->config, tokens, plan->first_n ? plan->first_n[image] : PS3C_NONE, free_patches,
                             takes);
        for (int64_t s = 0; s < high; s++) {
            plan->takes[(image * looks->count + look) * high + s] = (int32_t)takes[s];
            plan->ends[(image * high + s) * looks->count + look] = (int32_t)(done[s] += takes[s]);
            total += takes[s];
        }
        if (!image)
            plan->look_tokens[look] = total;
        else if (total != plan->look_tokens[look])
            return unequal(context, plan, look, image, total);
    }
    return PS3C_OK;
}

static ps3c_status set_looks(ps3c_context *context, ps3c_vision_plan *plan)
{
    const int64_t batch = plan->request.batch, high = plan->num_high;
    ps3c_looks looks;
    size_t entries;
    PS3C_TRY(ps3c_looks_of(context, &plan->config, &plan->request, patches_of(plan), &looks));
    plan->looks = looks.count;
    if (!looks.count)
        return PS3C_OK;
    /* Reject a batch with an impossibly large output before allocating the plan's own memory for each image. */
    if (ps3c_bytes_product(batch * plan->low.rows * plan->low.cols, plan->config.width) > MOST_OUTPUT)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the features of %lld images", (long long)batch);
    entries = ps3c_bytes_product(batch * high, looks.count);
    if (entries > MOST_ENTRIES)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the plan of %lld looks of %lld images",
                         (long long)looks.count, (long long)batch);
    plan->takes = malloc(entries * sizeof *plan->takes);
    plan->ends = malloc(entries * sizeof *plan->ends);
    plan->look_tokens = malloc((size_t)looks.count * sizeof *plan->look_tokens);
    plan->look_first = malloc((size_t)looks.count * sizeof *plan->look_first);
    plan->look_entry = malloc((size_t)looks.count * 2 * sizeof *plan->look_entry);
    plan->group_first = malloc((size_t)looks.count * 2 * sizeof *plan->group_first);
    if (!plan->takes || !plan->ends || !plan->look_tokens || !plan->look_first || !plan->look_entry ||
        !plan->group_first)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the plan of %lld looks", (long long)looks.count);
    for (int64_t b = 0; b < batch; b++)
        PS3C_TRY(set_looks_of_image(context, plan, &looks, b));
    for (int64_t look = 0; look < looks.count; look++) {
        plan->look_first[look] = plan->selected;
        plan->selected += plan->look_tokens[look];
    }
    return PS3C_OK;
}

/* ---- workspace -------------------------------------------------------------------------------------------- */

typedef struct layout {
    const ps3c_backend *backend;
    const ps3c_vision_plan *plan;
    ps3c_arena arena;
    int64_t most_tokens, most_channels;
} layout;

static size_t activation(layout *l, int64_t segments, int64_t tokens, int64_t channels)
{
    l->most_tokens = largest(l->most_tokens, segments * tokens);
    l->most_channels = largest(l->most_channels, channels);
    return ps3c_arena_take(&l->arena, l->backend->activation_bytes(l->plan->request.dtype, segments, tokens, channels));
}

static size_t array(layout *l, int64_t count, size_t bytes)
{
    return ps3c_arena_take(&l->arena, ps3c_bytes_product(count, (int64_t)bytes));
}

static void lay_tokens(layout *l, ps3c_vision_buffers *at, int64_t segments, int64_t tokens)
{
    const ps3c_vision_config *c = &l->plan->config;
    const int64_t wide = largest(largest(3 * c->width, c->mlp_hidden), 3 * c->patch * c->patch);
    at->x = activation(l, segments, tokens, c->width);
    at->normed = activation(l, segments, tokens, c->width);
    at->wide = activation(l, segments, tokens, wide);
}

static void lay_pool(layout *l, ps3c_vision_buffers *at, int64_t images, int64_t tokens)
{
    const ps3c_vision_config *c = &l->plan->config;
    const int64_t p = c->pool_width;
    if (c->adapter != PS3C_ADAPTER_NONE) {
        at->adapted[0] = activation(l, images, tokens, c->adapter_hidden);
        at->adapted[1] = activation(l, images, tokens, c->adapter_hidden);
        at->adapted[2] = activation(l, images, tokens, c->adapter_out);
    }
    at->kv = activation(l, images, tokens, 2 * p);
    at->mask = array(l, images * tokens, 1);
    at->latent = activation(l, 1, 1, p);
    at->pool_query = activation(l, 1, 1, p);
    at->pool_a = activation(l, 1, images, p);
    at->pool_b = activation(l, 1, images, p);
    at->pool_hidden = activation(l, 1, images, c->pool_hidden);
}

static void lay_selection(layout *l, ps3c_vision_buffers *at, int64_t images, int64_t tokens)
{
    const ps3c_vision_config *c = &l->plan->config;
    const int64_t conv_tokens = l->plan->conv.rows * l->plan->conv.cols;
    at->select_hidden = activation(l, images, tokens, c->width * c->num_select_layers);
    at->select_out = activation(l, images, tokens, c->width);
    at->logits = array(l, images * tokens, sizeof(float));
    if (!c->highres_features)
        return;
    at->conv_x = activation(l, 1, conv_tokens, c->conv_width);
    at->conv_y = activation(l, 1, conv_tokens, c->conv_width);
    at->conv_wide = activation(l, 1, conv_tokens, largest(4 * c->conv_width, 3 * c->conv_kernel * c->conv_kernel));
    at->conv_out = activation(l, 1, conv_tokens, c->conv_out);
    at->prompt = activation(l, 1, images, c->width);
    at->prompt_high = activation(l, 1, images, c->conv_out);
    at->high_logits = array(l, conv_tokens, sizeof(float));
    for (int kind = 0; kind < 2; kind++) {
        at->prompt_rows[kind] = array(l, images * c->conv_out, sizeof(float));
        at->high_pooled[kind] = array(l, images * tokens, sizeof(float));
    }
}

/* Sets segments and tokens to those of the largest group of looks in a chunk of `images` images, if it is larger. The
 * last chunk may have the largest group: with fewer images, more looks run together. */
static void find_largest_group(const ps3c_backend *backend, const ps3c_vision_plan *plan, int64_t images,
                               int64_t *segments, int64_t *tokens)
{
    const ps3c_dtype dtype = plan->request.dtype;
    const int64_t width = plan->config.width;
    for (int64_t look = 0, count; look < plan->looks; look += count) {
        count = ps3c_vision_group(plan, look, images);
        if (backend->activation_bytes(dtype, count * images, plan->look_tokens[look], width) <=
            backend->activation_bytes(dtype, *segments, *tokens, width))
            continue;
        *segments = count * images;
        *tokens = plan->look_tokens[look];
    }
}

/* Lays out a workspace for `images` images and groups of `group` tokens; returns its bytes. */
static size_t lay_out(const ps3c_backend *backend, ps3c_vision_plan *plan, int64_t images, int64_t group)
{
    const ps3c_vision_config *c = &plan->config;
    const int64_t low = plan->low.rows * plan->low.cols;
    ps3c_vision_buffers *at = &plan->at;
    layout l = {backend, plan, {0, 0}, 0, 0};
    int64_t most_positions = 1;
    size_t phase, scratch;
    *at = (ps3c_vision_buffers){0};
    plan->chunk = images;
    plan->group_tokens = group;
    if (plan->looks) {
        at->cache_step = backend->activation_bytes(plan->request.dtype, images, low, 2 * c->width);
        at->cache_step = at->cache_step > SIZE_MAX - 255 ? SIZE_MAX : (at->cache_step + 255) / 256 * 256;
        at->cache = array(&l, c->depth, at->cache_step > SIZE_MAX / 2 ? SIZE_MAX / 2 : at->cache_step);
        for (int64_t s = 0; s < plan->num_high; s++) {
            at->rank[s] = array(&l, images * plan->high[s].rows * plan->high[s].cols, sizeof(int32_t));
            most_positions = largest(most_positions, images * plan->high[s].rows * plan->high[s].cols);
        }
        at->positions = array(&l, images * plan->selected, sizeof(int32_t));
        at->row_of = array(&l, images * plan->selected, sizeof(int32_t));
    }
    if (plan->request.mode != PS3C_VISION_LOW_RES) {
        at->select = activation(&l, images, low, c->width * c->num_select_layers);
        at->probs = array(&l, images * low, sizeof(float));
    }
    if (plan->low_pooled)
        at->low_pooled = activation(&l, 1, images, c->pool_width);
    phase = l.arena.used;
    if (phase != SIZE_MAX) {
        lay_selection(&l, at, images, low);
        l.arena.used = l.arena.peak == SIZE_MAX ? SIZE_MAX : phase;
        /* The low-res pass and the looks use the same memory, one after the other; its size is that of the larger. */
        int64_t segments = images, tokens = low;
        find_largest_group(backend, plan, images, &segments, &tokens);
        find_largest_group(backend, plan, ps3c_vision_last_images(plan), &segments, &tokens);
        lay_tokens(&l, at, segments, tokens);
        if (plan->pooled)
            lay_pool(&l, at, images,
                     plan->request.mode == PS3C_VISION_PRETRAIN ? largest(low, plan->look_tokens[0]) : low);
    }
    l.arena.used = l.arena.peak;
    scratch =
        backend->scratch_bytes(plan->request.dtype, plan->threads, l.most_tokens, l.most_channels, most_positions);
    at->scratch = ps3c_arena_take(&l.arena, scratch);
    at->bytes = ps3c_arena_bytes(&l.arena);
    return at->bytes;
}

static ps3c_status set_workspace(ps3c_context *context, const ps3c_backend *backend, ps3c_vision_plan *plan)
{
    const ps3c_vision_request *r = &plan->request;
    ps3c_grouping grouping;
    char what[96];
    PS3C_TRY(ps3c_find_grouping(context, backend, r->device.index, r->workspace_limit, &grouping));
    int64_t images = ps3c_segments_together(&grouping, plan->low.rows * plan->low.cols, r->batch);
    int64_t group = grouping.tokens;
    while (lay_out(backend, plan, images, group) > grouping.limit && (group > 1 || images > 1)) {
        if (group > 1)
            group /= 2;
        else
            images = (images + 1) / 2;
    }
    snprintf(what, sizeof what, "images of %lld x %lld pixels", (long long)r->height, (long long)r->width);
    PS3C_TRY(ps3c_check_workspace(context, plan->at.bytes, what));
    ps3c_vision_set_groups(plan);
    return PS3C_OK;
}

/* ---- public ----------------------------------------------------------------------------------------------- */

static ps3c_status fill(ps3c_context *context, ps3c_vision_plan *plan)
{
    const ps3c_vision_request *r = &plan->request;
    const ps3c_backend *backend;
    PS3C_TRY(ps3c_context_backend(context, r->device, &backend));
    PS3C_TRY(ps3c_vision_config_check(context, &plan->config));
    PS3C_TRY(check_request(context, &plan->config, r));
    for (int64_t i = 0; i < plan->config.num_select_layers; i++)
        if (plan->config.select_layers[i] < 0)
            plan->config.select_layers[i] += plan->config.depth;
    ps3c_vision_index_of(&plan->config, &plan->index);
    plan->num_high = plan->config.num_scales - 1;
    plan->threads = ps3c_threads_limit();
    if (r->first_n_scales) {
        plan->first_n = malloc((size_t)r->batch * sizeof *plan->first_n);
        if (!plan->first_n)
            return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the plan of %lld images", (long long)r->batch);
        memcpy(plan->first_n, r->first_n_scales, (size_t)r->batch * sizeof *plan->first_n);
        plan->request.first_n_scales = plan->first_n;
    }
    set_scales(plan);
    PS3C_TRY(set_looks(context, plan));
    plan->pooled = r->mode != PS3C_VISION_FEATURES || r->pooled;
    plan->low_pooled = plan->pooled && (r->mode != PS3C_VISION_PRETRAIN || r->global_text);
    plan->hidden_states = r->mode == PS3C_VISION_PRETRAIN                   ? 0
                          : r->mode == PS3C_VISION_FEATURES && !plan->looks ? plan->config.depth
                                                                            : r->hidden_states;
    return set_workspace(context, backend, plan);
}

ps3c_status ps3c_vision_plan_create(ps3c_context *context, const ps3c_vision_config *config,
                                    const ps3c_vision_request *request, ps3c_vision_plan **plan)
{
    ps3c_vision_plan *made = calloc(1, sizeof *made);
    ps3c_status status;
    *plan = NULL;
    if (!made)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for a plan");
    made->config = *config;
    made->request = *request;
    status = fill(context, made);
    if (status != PS3C_OK)
        ps3c_vision_plan_free(made);
    else
        *plan = made;
    return status;
}

void ps3c_vision_plan_free(ps3c_vision_plan *plan)
{
    if (!plan)
        return;
    free(plan->first_n);
    free(plan->takes);
    free(plan->ends);
    free(plan->look_tokens);
    free(plan->look_first);
    free(plan->look_entry);
    free(plan->group_first);
    free(plan);
}

static void describe_scale(const ps3c_scale *scale, int64_t *size, int64_t *grid)
{
    size[0] = scale->height;
    size[1] = scale->width;
    grid[0] = scale->rows;
    grid[1] = scale->cols;
}

void ps3c_vision_plan_describe(const ps3c_vision_plan *plan, ps3c_vision_plan_info *info)
{
    const int64_t scales = plan->num_high;
    const bool pretrain = plan->request.mode == PS3C_VISION_PRETRAIN;
    *info = (ps3c_vision_plan_info){.workspace_bytes = plan->at.bytes,
                                    .low_res_tokens = plan->low.rows * plan->low.cols,
                                    .selected_tokens = plan->selected,
                                    .looks = plan->looks,
                                    .steps = ps3c_vision_steps(plan),
                                    .pooled_width = plan->pooled ? plan->config.pool_width : 0,
                                    .num_high_scales = scales,
                                    .hidden_states = plan->hidden_states,
                                    .selection_maps = plan->looks ? scales : 0,
                                    .selection_probs = plan->request.mode == PS3C_VISION_LOW_RES ? 0 : scales,
                                    .bottomup_probs = pretrain ? scales : 0,
                                    .topdown_probs = pretrain && plan->request.prompt ? scales : 0};
    describe_scale(&plan->low, info->image_size[0], info->grid[0]);
    for (int64_t s = 0; s < plan->num_high; s++)
        describe_scale(&plan->high[s], info->image_size[s + 1], info->grid[s + 1]);
}

int64_t ps3c_vision_plan_take(const ps3c_vision_plan *plan, int64_t image, int64_t look, int64_t scale)
{
    if (image < 0 || image >= plan->request.batch || look < 0 || look >= plan->looks || scale < 0 ||
        scale >= plan->num_high)
        return 0;
    return plan->takes[(image * plan->looks + look) * plan->num_high + scale];
}
