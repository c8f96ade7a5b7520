/* Fuzz target: a vision configuration, a request and the tensors of a run, mutated together. A tiny model is planned; if
 * the plan succeeds and is small, it runs in memory of exact size. */
#include "vision.h"

typedef struct inputs {
    fuzz_vision vision;
    ps3c_tensor pixels, prompt, maps, global_text, pooled;
    ps3c_tensor *weights, *hidden;
    ps3c_tensor outputs[4][PS3C_MAX_SCALES];
    ps3c_vision_io io;
} inputs;

/* ---- the tensors -------------------------------------------------------------------------------------------------- */

static bool make_weights(fuzz *f, inputs *in, ps3c_context *context, uint8_t kind)
{
    const int64_t count = ps3c_vision_weight_count(&in->vision.config);
    if (count > 300 || !(in->weights = fuzz_memory(f, (size_t)count * sizeof *in->weights)))
        return false;
    for (int64_t i = 0; i < count; i++) {
        ps3c_weight_info info;
        FUZZ_CHECK(ps3c_vision_weight_info(context, &in->vision.config, i, &info) == PS3C_OK, "weight %lld",
                   (long long)i);
        if (!fuzz_dense(f, &in->weights[i], in->vision.request.dtype, info.ndim, info.shape, kind))
            return false;
    }
    in->io.weights = in->weights;
    return true;
}

static bool make_inputs(fuzz *f, inputs *in, uint8_t kind)
{
    const ps3c_vision_request *r = &in->vision.request;
    const int64_t maps[] = {r->batch, fuzz_integer(f, 1, 9, 0, 1 << 12), fuzz_integer(f, 1, 9, 0, 1 << 12)};
    const ps3c_dtype map_dtype = (ps3c_dtype)(fuzz_byte(f) % 10);
    if (!fuzz_strided(f, &in->pixels, r->dtype, 4, (int64_t[]){r->batch, 3, r->height, r->width}, kind))
        return false;
    in->io.pixel_values = &in->pixels;
    if (r->prompt && !fuzz_dense(f, &in->prompt, r->dtype, 2, (int64_t[]){r->batch, in->vision.config.width}, kind))
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
    const ps3c_vision_request *r = &in->vision.request;
    const int64_t rows = info->low_res_tokens + info->selected_tokens;
    const int64_t counts[] = {info->selection_maps, info->selection_probs, info->bottomup_probs, info->topdown_probs};
    ps3c_tensor **io[] = {&in->io.selection_maps, &in->io.selection_probs, &in->io.bottomup_probs,
                          &in->io.topdown_probs};
    in->hidden = fuzz_memory(f, (size_t)info->hidden_states * sizeof *in->hidden);
    if (!in->hidden)
        return false;
    for (int64_t i = 0; i < info->hidden_states; i++)
        if (!make_output(f, &in->hidden[i], r->dtype, 3, (int64_t[]){r->batch, rows, in->vision.config.width}))
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
    switch (fuzz_byte(f) % 8) {
    case 0:
        fuzz_spoil(f, &in->pixels, false, 4);
        return;
    case 1:
        fuzz_spoil(f, &in->weights[fuzz_byte(f) % ps3c_vision_weight_count(&in->vision.config)], true, 4);
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
    switch (fuzz_byte(f) % 6) {
    case 0:
        in->io.weights = NULL;
        return;
    case 1:
        in->io.pixel_values = NULL;
        return;
    case 2:
        in->io.workspace = NULL;
        return;
    case 3:
        if (!info->hidden_states)
            break;
        in->io.hidden_states = NULL;
        return;
    default:
        break;
    }
    in->io.workspace_bytes -= 1;
}

/* Every row was written, and the maps mark as many patches as the looks take. */
static void check_outputs(const inputs *in, const ps3c_vision_plan *plan, const ps3c_vision_plan_info *info)
{
    static const uint32_t ones[] = {0x3f800000u, 0x3c00u, 0x3f80u};
    const size_t item = ps3c_dtype_bytes(in->vision.request.dtype), row = (size_t)in->vision.config.width * item;
    const int64_t rows = in->vision.request.batch * (info->low_res_tokens + info->selected_tokens);
    for (int64_t i = 0; i < info->hidden_states; i++)
        for (int64_t n = 0; n < rows; n++) {
            const uint8_t *at = (const uint8_t *)in->hidden[i].data + (size_t)n * row;
            FUZZ_CHECK(at[0] != FUZZ_UNWRITTEN || memcmp(at, at + 1, row - 1),
                       "hidden state %lld: row %lld not written", (long long)i, (long long)n);
        }
    for (int64_t s = 0; s < info->selection_maps; s++)
        for (int64_t b = 0; b < in->vision.request.batch; b++) {
            const int64_t patches = info->grid[s + 1][0] * info->grid[s + 1][1];
            int64_t marked = 0, taken = 0;
            for (int64_t look = 0; look < info->looks; look++)
                taken += ps3c_vision_plan_take(plan, b, look, s);
            for (int64_t p = 0; p < patches; p++) {
                uint32_t value = 0;
                memcpy(&value, (const char *)in->outputs[0][s].data + (size_t)(b * patches + p) * item, item);
                FUZZ_CHECK(!value || value == ones[in->vision.request.dtype], "map value %x", value);
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
    const int64_t tokens = in->vision.request.batch * (info->low_res_tokens + info->selected_tokens);
    const size_t offset = fuzz_byte(f);
    const uint8_t kind = fuzz_byte(f), end = fuzz_byte(f);
    int polls = end % 8 == 7 ? 1 + end / 8 : 0;
    if (tokens > 2000 || in->vision.config.num_select_layers > 8 || in->vision.config.depth > 8)
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
    fuzz_read_config(&f, &in.vision.config);
    fuzz_read_request(&f, &in.vision);
    const ps3c_status status = ps3c_vision_plan_create(context, &in.vision.config, &in.vision.request, &plan);
    FUZZ_CHECK((status == PS3C_OK) == (plan != NULL), "status %d", (int)status);
    if (plan) {
        ps3c_vision_plan_info info;
        ps3c_vision_plan_describe(plan, &info);
        fuzz_check_plan(&in.vision, plan, &info);
        run_plan(&f, &in, context, plan, &info);
    } else {
        fuzz_check_failure(context, status);
    }
    ps3c_vision_plan_free(plan);
    ps3c_context_free(context);
    fuzz_end(&f);
    return 0;
}
