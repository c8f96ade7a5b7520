/* Vision configurations, requests and checks of plans, for the targets vision.c and plan.c. */
#ifndef PS3C_FUZZ_VISION_H
#define PS3C_FUZZ_VISION_H

#include "fuzz.h"

typedef struct fuzz_vision {
    ps3c_vision_config config;
    ps3c_vision_request request;
} fuzz_vision;

/* ---- configuration and request ------------------------------------------------------------------------------------ */

static inline void fuzz_read_scales(fuzz *f, ps3c_vision_config *c)
{
    int64_t last = fuzz_times(c->patch, fuzz_integer(f, 1, 4, 1, c->patch > 0 ? 65536 / c->patch : 1));
    c->num_scales = fuzz_integer(f, 2, 4, 2, PS3C_MAX_SCALES);
    for (int s = 0; s < PS3C_MAX_SCALES && s < c->num_scales; s++) {
        c->scales[s] = last;
        last = fuzz_plus(last, fuzz_integer(f, 0, 24, 0, last > 0 && last < 65536 ? 65536 - last : 0));
    }
    const bool unlimited = f->extreme && fuzz_rarely(f, 4);
    for (int s = 0; s + 1 < PS3C_MAX_SCALES && s + 1 < c->num_scales; s++)
        c->max_select_num[s] = unlimited ? INT32_MAX : fuzz_integer(f, 0, 9, 0, INT32_MAX);
    c->separate_positions = fuzz_flag(f);
}

static inline void fuzz_read_pool(fuzz *f, ps3c_vision_config *c)
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

static inline void fuzz_read_config(fuzz *f, ps3c_vision_config *c)
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
    fuzz_read_scales(f, c);
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
    fuzz_read_pool(f, c);
}

static inline void fuzz_read_looks(fuzz *f, const ps3c_vision_config *c, ps3c_vision_request *r)
{
    const uint8_t which = fuzz_byte(f) % 8;
    r->num_look_close = r->num_token_look_close = PS3C_NONE;
    if (which < 4 || which == 7)
        r->num_look_close = fuzz_integer(f, -2, 4, -2, INT64_MAX);
    if (which >= 4)
        r->num_token_look_close = fuzz_integer(f, -2, 30, -2, INT64_MAX);
    if (which == 7 && fuzz_flag(f)) { /* exactly one look, nearly full */
        r->num_look_close = 1;
        r->num_token_look_close = fuzz_byte(f) % 3 - 1;
        for (int s = 0; s + 1 < PS3C_MAX_SCALES && s + 1 < c->num_scales; s++)
            r->num_token_look_close = fuzz_plus(r->num_token_look_close, c->max_select_num[s]);
    }
}

static inline void fuzz_read_request(fuzz *f, fuzz_vision *in)
{
    ps3c_vision_request *r = &in->request;
    r->batch = fuzz_integer(f, 1, 3, 1, INT32_MAX);
    r->height = fuzz_integer(f, 1, 40, 1, INT32_MAX);
    r->width = fuzz_integer(f, 1, 40, 1, INT32_MAX);
    r->dtype = (ps3c_dtype)fuzz_integer(f, 0, 2, 0, 2);
    r->device.type = (ps3c_device_type)fuzz_integer(f, 0, 0, 0, 0);
    r->mode = (ps3c_vision_mode)fuzz_integer(f, 0, 2, 0, 2);
    fuzz_read_looks(f, &in->config, r);
    if (fuzz_rarely(f, 4) && r->batch > 0 && r->batch <= 64) {
        int64_t *first_n = fuzz_memory(f, (size_t)r->batch * sizeof *first_n);
        const int64_t most = in->config.num_scales > 1 && in->config.num_scales <= 16 ? in->config.num_scales - 1 : 1;
        first_n[0] = fuzz_integer(f, 1, most, 1, most);
        for (int64_t b = 1; b < r->batch; b++)
            first_n[b] = fuzz_rarely(f, 4) ? fuzz_integer(f, 1, most, 1, most) : first_n[0];
        r->first_n_scales = first_n;
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
static inline void fuzz_check_takes(const fuzz_vision *in, const ps3c_vision_plan *plan,
                                    const ps3c_vision_plan_info *info)
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
static inline void fuzz_check_steps(const fuzz_vision *in, const ps3c_vision_plan *plan,
                                    const ps3c_vision_plan_info *info)
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

static inline void fuzz_check_plan(const fuzz_vision *in, const ps3c_vision_plan *plan,
                                   const ps3c_vision_plan_info *info)
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
        fuzz_check_takes(in, plan, info);
        fuzz_check_steps(in, plan, info);
    }
}

#endif
