/* Checks of configurations: every size that later code uses as a divisor, an index or a factor. Messages name the
 * fields of ps3c.h. */
#include "../contract/error.h"

/* Upper bound of sizes, larger than in any model: products of three sizes fit int64. */
enum { MOST = 1 << 20 };

static ps3c_status in_range(ps3c_context *context, const char *name, int64_t value, int64_t least, int64_t most)
{
    if (value >= least && value <= most)
        return PS3C_OK;
    return ps3c_fail(context, PS3C_ERROR_VALUE, "%s: got %lld, expected %lld to %lld", name, (long long)value,
                     (long long)least, (long long)most);
}

static ps3c_status check_heads(ps3c_context *context, const char *width_name, int64_t width, const char *heads_name,
                               int64_t heads)
{
    PS3C_TRY(in_range(context, width_name, width, 8, MOST));
    PS3C_TRY(in_range(context, heads_name, heads, 1, MOST));
    if (width % heads || width / heads % 8)
        return ps3c_fail(context, PS3C_ERROR_VALUE,
                         "%s: got %lld for a %s of %lld, expected heads that divide it into multiples of 8", heads_name,
                         (long long)heads, width_name, (long long)width);
    return PS3C_OK;
}

static ps3c_status check_scales(ps3c_context *context, const ps3c_vision_config *c)
{
    int64_t total = 0, positions = 0;
    PS3C_TRY(in_range(context, "num_scales", c->num_scales, 2, PS3C_MAX_SCALES));
    for (int64_t i = 0; i < c->num_scales; i++) {
        PS3C_TRY(in_range(context, "scales", c->scales[i], c->patch, 1 << 16));
        if (i && c->scales[i] < c->scales[i - 1])
            return ps3c_fail(context, PS3C_ERROR_VALUE, "scales: got %lld after %lld, expected ascending sizes",
                             (long long)c->scales[i], (long long)c->scales[i - 1]);
    }
    for (int64_t i = 0; i < c->num_scales; i++) {
        const int64_t side = c->scales[i] / c->scales[0] * c->scales[0] / c->patch;
        positions = side * side + (i > 1 ? positions : 0); /* of the low resolution alone, or of the others together */
        if (positions > INT32_MAX)
            return ps3c_fail(context, PS3C_ERROR_VALUE,
                             "scales: got %lld for a patch size of %lld, expected 2^31 - 1 patches or less",
                             (long long)c->scales[i], (long long)c->patch);
    }
    if (c->scales[0] % c->patch)
        return ps3c_fail(context, PS3C_ERROR_VALUE,
                         "scales: got a lowest scale of %lld, expected a multiple of the patch size %lld",
                         (long long)c->scales[0], (long long)c->patch);
    for (int64_t i = 0; i + 1 < c->num_scales; i++) {
        PS3C_TRY(in_range(context, "max_select_num", c->max_select_num[i], 0, INT32_MAX));
        total += c->max_select_num[i];
    }
    const int64_t zoom = c->scales[c->num_scales - 1] / c->scales[0], patches = zoom * c->scales[0] / c->patch;
    if (c->crop_positions && c->grid < patches) /* a cropped table is never resampled to a larger grid */
        return ps3c_fail(context, PS3C_ERROR_VALUE,
                         "grid: got %lld with crop_positions, expected %lld or more, the patches along a side of the "
                         "largest scale",
                         (long long)c->grid, (long long)patches);
    if (total < 1)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "max_select_num: got only zeros, expected patches to take");
    return PS3C_OK;
}

static ps3c_status check_selection(ps3c_context *context, const ps3c_vision_config *c)
{
    PS3C_TRY(in_range(context, "num_select_layers", c->num_select_layers, 1, PS3C_MAX_SELECT_LAYERS));
    for (int64_t i = 0; i < c->num_select_layers; i++)
        PS3C_TRY(in_range(context, "select_layers", c->select_layers[i], -c->depth, c->depth - 1));
    if (!c->highres_features)
        return PS3C_OK;
    PS3C_TRY(in_range(context, "conv_width", c->conv_width, 1, MOST));
    PS3C_TRY(in_range(context, "conv_out", c->conv_out, 1, MOST));
    PS3C_TRY(in_range(context, "conv_depth", c->conv_depth, 0, PS3C_MAX_BLOCKS));
    return in_range(context, "conv_kernel", c->conv_kernel, 1, 1512);
}

static ps3c_status check_pool(ps3c_context *context, const ps3c_vision_config *c)
{
    const int64_t pooled = c->adapter == PS3C_ADAPTER_NONE ? c->width : c->adapter_out;
    PS3C_TRY(in_range(context, "adapter", c->adapter, PS3C_ADAPTER_NONE, PS3C_ADAPTER_V2));
    if (c->adapter != PS3C_ADAPTER_NONE) {
        PS3C_TRY(in_range(context, "adapter_hidden", c->adapter_hidden, 1, MOST));
        PS3C_TRY(in_range(context, "adapter_out", c->adapter_out, 1, MOST));
        PS3C_TRY(in_range(context, "adapter_blocks", c->adapter_blocks, 0, PS3C_MAX_BLOCKS));
    }
    PS3C_TRY(check_heads(context, "pool_width", c->pool_width, "pool_heads", c->pool_heads));
    PS3C_TRY(in_range(context, "pool_hidden", c->pool_hidden, 1, MOST));
    if (pooled != c->pool_width)
        return ps3c_fail(
            context, PS3C_ERROR_VALUE, "%s: got %lld, expected %lld, the width of the attention pool that reads it",
            c->adapter == PS3C_ADAPTER_NONE ? "width" : "adapter_out", (long long)pooled, (long long)c->pool_width);
    return PS3C_OK;
}

ps3c_status ps3c_vision_config_check(ps3c_context *context, const ps3c_vision_config *config)
{
    PS3C_TRY(check_heads(context, "width", config->width, "heads", config->heads));
    PS3C_TRY(in_range(context, "depth", config->depth, 1, 4096));
    PS3C_TRY(in_range(context, "mlp_hidden", config->mlp_hidden, 1, MOST));
    PS3C_TRY(in_range(context, "patch", config->patch, 1, 1024));
    PS3C_TRY(in_range(context, "grid", config->grid, 1, 8192));
    PS3C_TRY(check_scales(context, config));
    PS3C_TRY(check_selection(context, config));
    return check_pool(context, config);
}

ps3c_status ps3c_text_config_check(ps3c_context *context, const ps3c_text_config *config)
{
    PS3C_TRY(check_heads(context, "width", config->width, "heads", config->heads));
    PS3C_TRY(in_range(context, "depth", config->depth, 1, 4096));
    PS3C_TRY(in_range(context, "mlp_hidden", config->mlp_hidden, 1, MOST));
    PS3C_TRY(in_range(context, "context_length", config->context_length, 1, MOST));
    PS3C_TRY(in_range(context, "vocab_size", config->vocab_size, 1, INT32_MAX));
    PS3C_TRY(in_range(context, "output_dim", config->output_dim, 1, MOST));
    PS3C_TRY(in_range(context, "prompt_dim", config->prompt_dim, 1, MOST));
    return in_range(context, "pool", config->pool, PS3C_POOL_FIRST, PS3C_POOL_NONE);
}
