/* Fuzz target: a vision configuration, a request and the tensors of a run, mutated together. A tiny model is planned; if
 * the plan succeeds and is small, it runs in memory of exact size. */
#include "fuzz.h"

typedef struct inputs {
    ps3c_vision_config config;
    ps3c_vision_request request;
    int64_t *first_n;
    ps3c_tensor pixels, prompt, maps, global_text, pooled;
    ps3c_tensor *weights, *hidden;
    ps3c_tensor outputs[4][PS3C_MAX_SCALES];
    ps3c_vision_io io;
} inputs;

/* ---- configuration and request ------------------------------------------------------------------------------------ */

static void read_scales(fuzz *f, ps3c_vision_config *c)
{
    int64_t last = fuzz_times(c->patch, fuzz_integer(f, 1, 4, 1, c->patch > 0 ? 65536 / c->patch : 1));
    c->num_scales = fuzz_integer(f, 2, 4, 2, PS3C_MAX_SCALES);
    for (int s = 0; s < PS3C_MAX_SCALES && s < c->num_scales; s++) {
        c->scales[s] = last;
        last = fuzz_plus(last, fuzz_integer(f, 0, 24, 0, last > 0 && last < 65536 ? 65536 - last : 0));
    }
    for (int s = 0; s + 1 < PS3C_MAX_SCALES && s + 1 < c->num_scales; s++)
        c->max_select_num[s] = fuzz_integer(f, 0, 9, 0, INT32_MAX);
    c->separate_positions = fuzz_flag(f);
}

static void read_pool(fuzz *f, ps3c_vision_config *c)
{
    c->adapter = (ps3c_adapter)fuzz_integer(f, 0, 2, 0, 2);
    c->adapter_hidden = fuzz_integer(f, 1, 12, 1, 1 << 20);
    c->adapter_blocks = fuzz_integer(f, 0, 2, 0, PS3C_MAX_BLOCKS);
    c->pool_heads = c->adapter ? fuzz_integer(f, 1, 2, 1, 1 << 17) : c->heads;
    c->adapter_out = c->adapter ? fuzz_times(fuzz_times(8, c->pool_heads), fuzz_integer(f, 1, 2, 1, 1 << 8)) : 0;
    c->pool_width = c->adapter ? c->adapter_out : c->width;
    c->pool_hidden = fuzz_integer(f, 1, 16, 1, 1 << 20);
    c->pool_eps = fuzz_float(f, 1e-6f);
}

static void read_config(fuzz *f, ps3c_vision_config *c)
{
    c->patch = fuzz_integer(f, 1, 5, 1, 1024);
    c->heads = fuzz_integer(f, 1, 2, 1, 1 << 17);
    c->width = fuzz_times(fuzz_times(c->heads, 8), fuzz_integer(f, 1, 2, 1, 1 << 8));
    c->depth = fuzz_integer(f, 1, 2, 1, 4096);
    c->mlp_hidden = fuzz_integer(f, 1, 20, 1, 1 << 20);
    c->norm_eps = fuzz_float(f, 1e-6f);
    c->tanh_gelu = fuzz_flag(f);
    c->crop_positions = fuzz_flag(f);
    c->final_norm = fuzz_flag(f);
    read_scales(f, c);
    c->grid = c->crop_positions ? fuzz_integer(f, 64, 70, 1, 8192) : fuzz_integer(f, 1, 6, 1, 8192);
    c->num_select_layers = fuzz_integer(f, 1, 3, 1, PS3C_MAX_SELECT_LAYERS);
    for (int i = 0; i < PS3C_MAX_SELECT_LAYERS && i < c->num_select_layers; i++)
        c->select_layers[i] = fuzz_integer(f, -1, 0, c->depth > 0 ? -c->depth : 0, c->depth - (c->depth > INT64_MIN));
    c->highres_features = fuzz_rarely(f, 16); /* its image has 1512 x 1512 pixels: slow */
    if (c->highres_features) {
        c->conv_width = fuzz_integer(f, 1, 3, 1, 1 << 20);
        c->conv_out = fuzz_integer(f, 1, 3, 1, 1 << 20);
        c->conv_depth = fuzz_integer(f, 0, 2, 0, PS3C_MAX_BLOCKS);
        c->conv_kernel = fuzz_integer(f, 100, 300, 1, 1512);
    }
    read_pool(f, c);
}

static void read_looks(fuzz *f, ps3c_vision_request *r)
{
    const uint8_t which = fuzz_byte(f) % 8;
    r->num_look_close = r->num_token_look_close = PS3C_NONE;
    if (which < 4 || which == 7)
        r->num_look_close = fuzz_integer(f, -2, 4, -2, INT64_MAX);
    if (which >= 4)
        r->num_token_look_close = fuzz_integer(f, -2, 30, -2, INT64_MAX);
}

static void read_request(fuzz *f, inputs *in)
{
    ps3c_vision_request *r = &in->request;
    r->batch = fuzz_integer(f, 1, 3, 1, INT32_MAX);
    r->height = fuzz_integer(f, 1, 40, 1, INT32_MAX);
    r->width = fuzz_integer(f, 1, 40, 1, INT32_MAX);
    r->dtype = (ps3c_dtype)fuzz_integer(f, 0, 2, 0, 2);
    r->device.type = (ps3c_device_type)fuzz_integer(f, 0, 0, 0, 0);
    r->mode = (ps3c_vision_mode)fuzz_integer(f, 0, 2, 0, 2);
    read_looks(f, r);
    if (fuzz_rarely(f, 4) && r->batch > 0 && r->batch <= 64) {
        in->first_n = fuzz_memory(f, (size_t)r->batch * sizeof *in->first_n);
        const int64_t most = in->config.num_scales > 1 && in->config.num_scales <= 16 ? in->config.num_scales - 1 : 1;
        in->first_n[0] = fuzz_integer(f, 1, most, 1, most);
        for (int64_t b = 1; b < r->batch; b++)
            in->first_n[b] = fuzz_rarely(f, 4) ? fuzz_integer(f, 1, most, 1, most) : in->first_n[0];
        r->first_n_scales = in->first_n;
    }
    const uint8_t flags = fuzz_byte(f);
    r->prompt = flags & 1;
    r->gt_maps = flags & 2;
    r->smooth = flags & 4;
    r->pool_gt_only = flags & 8;
    r->global_text = flags & 16;
    r->pooled = flags & 32;
    r->hidden_states = fuzz_integer(f, 1, 1, 0, in->config.depth > 0 ? in->config.depth : 1);
    r->looks_per_step = fuzz_integer(f, 0, 3, 0, INT64_MAX);
    if (fuzz_rarely(f, 4))
        r->workspace_limit = (size_t)1 << fuzz_byte(f) % 24;
}

/* ---- the plan ----------------------------------------------------------------------------------------------------- */

/* Every look takes patches that exist and that no earlier look took. */
static void check_takes(const inputs *in, const ps3c_vision_plan *plan, const ps3c_vision_plan_info *info)
{
    for (int64_t b = 0; b < in->request.batch; b++) {
        int64_t all = 0;
        for (int64_t s = 0; s < info->num_high_scales; s++) {
            int64_t taken = 0;
            for (int64_t look = 0; look < info->looks; look++) {
                const int64_t take = ps3c_vision_plan_take(plan, b, look, s);
                FUZZ_CHECK(take >= 0 && take <= INT32_MAX, "take %lld", (long long)take);
                taken += take;
            }
            FUZZ_CHECK(taken <= info->grid[s + 1][0] * info->grid[s + 1][1], "scale %lld: %lld patches", (long long)s,
                       (long long)taken);
            all += taken;
        }
        FUZZ_CHECK(all == info->selected_tokens, "image %lld: %lld patches", (long long)b, (long long)all);
    }
}

/* The steps hold every image once, and every look of every image once. */
static void check_steps(const inputs *in, const ps3c_vision_plan *plan, const ps3c_vision_plan_info *info)
{
    int64_t images = 0, looks = 0;
    for (int64_t i = 0; i < info->steps; i++) {
        const ps3c_vision_step step = ps3c_vision_plan_step(plan, i);
        FUZZ_CHECK(step.images >= 1 && step.first_image + step.images <= in->request.batch, "step %lld", (long long)i);
        FUZZ_CHECK(step.first_look >= 0 && step.first_look + step.looks <= info->looks, "step %lld", (long long)i);
        images += step.looks ? 0 : step.images;
        looks += step.looks * step.images;
    }
    FUZZ_CHECK(images == in->request.batch, "%lld images", (long long)images);
    FUZZ_CHECK(looks == in->request.batch * info->looks, "%lld looks", (long long)looks);
}

static void check_plan(const inputs *in, const ps3c_vision_plan *plan, const ps3c_vision_plan_info *info)
{
    int64_t patches = 0;
    for (int64_t s = 0; s <= info->num_high_scales; s++) {
        FUZZ_CHECK(info->grid[s][0] >= 1 && info->grid[s][1] >= 1 && info->grid[s][0] <= INT32_MAX / info->grid[s][1],
                   "scale %lld: %lld x %lld", (long long)s, (long long)info->grid[s][0], (long long)info->grid[s][1]);
        patches += s ? info->grid[s][0] * info->grid[s][1] : 0;
    }
    FUZZ_CHECK(info->low_res_tokens == info->grid[0][0] * info->grid[0][1], "low %lld",
               (long long)info->low_res_tokens);
    FUZZ_CHECK(info->looks >= 0 && info->steps >= 1, "%lld looks", (long long)info->looks);
    FUZZ_CHECK(info->selected_tokens >= 0 && info->selected_tokens <= patches, "%lld",
               (long long)info->selected_tokens);
    FUZZ_CHECK(info->workspace_bytes >= 256 && info->workspace_bytes <= SIZE_MAX / 4, "%zu", info->workspace_bytes);
    if (in->request.batch <= 100 && info->looks <= 1000 && info->steps <= 1000) {
        check_takes(in, plan, info);
        check_steps(in, plan, info);
    }
}

/* ---- the tensors -------------------------------------------------------------------------------------------------- */

static bool make_weights(fuzz *f, inputs *in, ps3c_context *context, uint8_t kind)
{
    const int64_t count = ps3c_vision_weight_count(&in->config);
    if (count > 300 || !(in->weights = fuzz_memory(f, (size_t)count * sizeof *in->weights)))
        return false;
    for (int64_t i = 0; i < count; i++) {
        ps3c_weight_info info;
        FUZZ_CHECK(ps3c_vision_weight_info(context, &in->config, i, &info) == PS3C_OK, "weight %lld", (long long)i);
        if (!fuzz_dense(f, &in->weights[i], in->request.dtype, info.ndim, info.shape, kind))
            return false;
    }
    in->io.weights = in->weights;
    return true;
}

static bool make_inputs(fuzz *f, inputs *in, uint8_t kind)
{
    const ps3c_vision_request *r = &in->request;
    const int64_t maps[] = {r->batch, fuzz_integer(f, 1, 9, 0, 1 << 12), fuzz_integer(f, 1, 9, 0, 1 << 12)};
    const ps3c_dtype map_dtype = (ps3c_dtype)(fuzz_byte(f) % 10);
    if (!fuzz_strided(f, &in->pixels, r->dtype, 4, (int64_t[]){r->batch, 3, r->height, r->width}, kind))
        return false;
    in->io.pixel_values = &in->pixels;
    if (r->prompt && !fuzz_dense(f, &in->prompt, r->dtype, 2, (int64_t[]){r->batch, in->config.width}, kind))
        return false;
    if (r->gt_maps && !fuzz_strided(f, &in->maps, map_dtype, 3, maps, map_dtype == PS3C_BOOL ? 1 : kind))
        return false;
    if (r->global_text && !fuzz_strided(f, &in->global_text, PS3C_FLOAT32, 2, (int64_t[]){r->batch, 1}, kind))
        return false;
    in->io.prompt = r->prompt ? &in->prompt : NULL;
    in->io.gt_maps = r->gt_maps ? &in->maps : NULL;
    in->io.global_text = r->global_text ? &in->global_text : NULL;
    return true;
}

static bool make_output(fuzz *f, ps3c_tensor *t, ps3c_dtype dtype, int ndim, const int64_t *shape)
{
    if (!fuzz_dense(f, t, dtype, ndim, shape, 0))
        return false;
    memset(t->data, FUZZ_UNWRITTEN, fuzz_values(ndim, shape) * ps3c_dtype_bytes(dtype));
    return true;
}

static bool make_outputs(fuzz *f, inputs *in, const ps3c_vision_plan_info *info)
{
    const ps3c_vision_request *r = &in->request;
    const int64_t rows = info->low_res_tokens + info->selected_tokens;
    const int64_t counts[] = {info->selection_maps, info->selection_probs, info->bottomup_probs, info->topdown_probs};
    ps3c_tensor **io[] = {&in->io.selection_maps, &in->io.selection_probs, &in->io.bottomup_probs,
                          &in->io.topdown_probs};
    in->hidden = fuzz_memory(f, (size_t)info->hidden_states * sizeof *in->hidden);
    if (!in->hidden)
        return false;
    for (int64_t i = 0; i < info->hidden_states; i++)
        if (!make_output(f, &in->hidden[i], r->dtype, 3, (int64_t[]){r->batch, rows, in->config.width}))
            return false;
    in->io.hidden_states = in->hidden;
    for (int k = 0; k < 4; k++) {
        for (int64_t s = 0; s < counts[k]; s++)
            if (!make_output(f, &in->outputs[k][s], r->dtype, 3,
                             (int64_t[]){r->batch, info->grid[s + 1][0], info->grid[s + 1][1]}))
                return false;
        *io[k] = counts[k] ? in->outputs[k] : NULL;
    }
    if (info->pooled_width && !make_output(f, &in->pooled, r->dtype, 2, (int64_t[]){r->batch, info->pooled_width}))
        return false;
    in->io.pooled = info->pooled_width ? &in->pooled : NULL;
    return true;
}

/* ---- the run ------------------------------------------------------------------------------------------------------ */

/* Makes one thing of the run invalid. */
static void spoil(fuzz *f, inputs *in, const ps3c_vision_plan_info *info)
{
    const uint64_t which = fuzz_byte(f);
    switch (which % 8) {
    case 0:
        fuzz_spoil(f, &in->pixels, false, 4);
        return;
    case 1:
        fuzz_spoil(f, &in->weights[fuzz_byte(f) % ps3c_vision_weight_count(&in->config)], true, 4);
        return;
    case 2:
        if (!info->hidden_states)
            break;
        fuzz_spoil(f, &in->hidden[fuzz_byte(f) % info->hidden_states], true, 4);
        return;
    case 3:
        if (!info->selection_probs)
            break;
        fuzz_spoil(f, &in->outputs[1][fuzz_byte(f) % info->selection_probs], true, 4);
        return;
    case 4:
        if (!in->io.gt_maps)
            break;
        fuzz_spoil(f, &in->maps, false, 1);
        return;
    case 5:
        if (in->io.prompt)
            fuzz_spoil(f, &in->prompt, true, 4);
        else
            in->io.prompt = &in->pixels;
        return;
    case 6:
        if (in->io.pooled)
            fuzz_spoil(f, &in->pooled, true, 4);
        else
            in->io.pooled = &in->pixels;
        return;
    default:
        break;
    }
    if (which & 8)
        in->io.weights = NULL;
    else if (which & 16)
        in->io.pixel_values = NULL;
    else if (which & 32 && info->hidden_states)
        in->io.hidden_states = NULL;
    else if (which & 64)
        in->io.workspace = NULL;
    else
        in->io.workspace_bytes -= 1;
}

/* Every row was written, and the maps mark as many patches as the looks take. */
static void check_outputs(const inputs *in, const ps3c_vision_plan *plan, const ps3c_vision_plan_info *info)
{
    static const uint32_t ones[] = {0x3f800000u, 0x3c00u, 0x3f80u};
    const size_t item = ps3c_dtype_bytes(in->request.dtype), row = (size_t)in->config.width * item;
    const int64_t rows = in->request.batch * (info->low_res_tokens + info->selected_tokens);
    for (int64_t i = 0; i < info->hidden_states; i++)
        for (int64_t n = 0; n < rows; n++) {
            const uint8_t *at = (const uint8_t *)in->hidden[i].data + (size_t)n * row;
            FUZZ_CHECK(at[0] != FUZZ_UNWRITTEN || memcmp(at, at + 1, row - 1),
                       "hidden state %lld: row %lld not written", (long long)i, (long long)n);
        }
    for (int64_t s = 0; s < info->selection_maps; s++)
        for (int64_t b = 0; b < in->request.batch; b++) {
            const int64_t patches = info->grid[s + 1][0] * info->grid[s + 1][1];
            int64_t marked = 0, taken = 0;
            for (int64_t look = 0; look < info->looks; look++)
                taken += ps3c_vision_plan_take(plan, b, look, s);
            for (int64_t p = 0; p < patches; p++) {
                uint32_t value = 0;
                memcpy(&value, (const char *)in->outputs[0][s].data + (size_t)(b * patches + p) * item, item);
                FUZZ_CHECK(!value || value == ones[in->request.dtype], "map value %x", value);
                marked += value != 0;
            }
            FUZZ_CHECK(marked == taken, "scale %lld: %lld marked, %lld taken", (long long)s, (long long)marked,
                       (long long)taken);
        }
}

static ps3c_status run(fuzz *f, inputs *in, ps3c_context *context, const ps3c_vision_plan *plan,
                       const ps3c_vision_plan_info *info)
{
    ps3c_status status = PS3C_OK;
    if (!fuzz_rarely(f, 3))
        return ps3c_vision_run(context, plan, &in->io);
    for (int64_t step = 0; step < info->steps && status == PS3C_OK; step++) {
        status = ps3c_vision_run_step(context, plan, &in->io, step);
        const ps3c_vision_step at = ps3c_vision_plan_step(plan, step);
        const int32_t *rows = ps3c_vision_plan_rows(plan, step, in->io.workspace);
        for (int64_t i = 0; rows && status == PS3C_OK && i < at.looks * at.images * at.tokens; i++)
            FUZZ_CHECK(rows[i] >= 0 && rows[i] < info->selected_tokens, "row %d", (int)rows[i]);
    }
    return status;
}

static void run_plan(fuzz *f, inputs *in, ps3c_context *context, const ps3c_vision_plan *plan,
                     const ps3c_vision_plan_info *info)
{
    const int64_t tokens = in->request.batch * (info->low_res_tokens + info->selected_tokens);
    const size_t offset = fuzz_byte(f);
    const uint8_t kind = fuzz_byte(f), end = fuzz_byte(f);
    int polls = end % 8 == 7 ? 1 + end / 8 : 0;
    if (tokens > 2000 || in->config.num_select_layers > 8 || in->config.depth > 8)
        return;
    char *workspace = fuzz_memory(f, info->workspace_bytes + offset);
    if (!workspace || !make_weights(f, in, context, kind) || !make_inputs(f, in, fuzz_byte(f)) ||
        !make_outputs(f, in, info) || (size_t)tokens * f->bytes > (size_t)1 << 30)
        return;
    fuzz_fill(workspace, info->workspace_bytes + offset, (uint8_t)(kind + end));
    in->io.workspace = workspace + offset;
    in->io.workspace_bytes = info->workspace_bytes;
    const bool spoiled = fuzz_rarely(f, 4);
    if (spoiled)
        spoil(f, in, info);
    if (polls)
        ps3c_context_set_interrupt(context, fuzz_interrupt, &polls);
    const ps3c_status status = run(f, in, context, plan, info);
    if (status != PS3C_OK)
        fuzz_check_failure(context, status);
    FUZZ_CHECK(!spoiled || status != PS3C_OK, "an invalid run was not refused");
    const bool no_maps = in->io.gt_maps && !fuzz_values(3, in->maps.shape);
    FUZZ_CHECK(spoiled || no_maps || status == PS3C_OK || status == PS3C_ERROR_INTERRUPTED,
               "a valid run was refused: %s", ps3c_context_message(context));
    if (status == PS3C_OK)
        check_outputs(in, plan, info);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = fuzz_begin(data, size);
    inputs in = {0};
    ps3c_vision_plan *plan = NULL;
    ps3c_context *context = fuzz_context(&f);
    read_config(&f, &in.config);
    read_request(&f, &in);
    const ps3c_status status = ps3c_vision_plan_create(context, &in.config, &in.request, &plan);
    FUZZ_CHECK((status == PS3C_OK) == (plan != NULL), "status %d", (int)status);
    if (plan) {
        ps3c_vision_plan_info info;
        ps3c_vision_plan_describe(plan, &info);
        check_plan(&in, plan, &info);
        run_plan(&f, &in, context, plan, &info);
    } else {
        fuzz_check_failure(context, status);
    }
    ps3c_vision_plan_free(plan);
    ps3c_context_free(context);
    fuzz_end(&f);
    return 0;
}
