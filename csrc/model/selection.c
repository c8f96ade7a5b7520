/* The integers of selection. They follow from sizes and arguments and not from pixels, so a pass can be planned before
 * it runs.
 *
 * Source: the behaviour of ps3-torch's PS3VisionEncoder (image_size_scale_i, get_selection_maps, forward) at the head
 * of its repository. The last scale gets the remainder of every integer division of a quota. Divisions that the
 * reference does in floating point are done in double and in the same order here, so that truncation gives the same
 * integers. */
#include "selection.h"

#include <stdio.h>

static int64_t largest(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t smallest(int64_t a, int64_t b) { return a < b ? a : b; }

ps3c_scale ps3c_scale_of(const ps3c_vision_config *config, int64_t height, int64_t width, int64_t index)
{
    const int64_t base = config->scales[0], patch = config->patch;
    ps3c_scale scale = {base, base, base / patch, base / patch, 0};
    if (index > 0) {
        const int64_t zoom = config->scales[index] / base, longer = largest(height, width),
                      shorter = smallest(height, width);
        const volatile double unit = (double)base / (double)longer; /* volatile: rounded before the product */
        const int64_t cut = largest((int64_t)(unit * (double)shorter) / patch, 1) * patch * zoom;
        scale.height = height >= width ? base * zoom : cut;
        scale.width = height >= width ? cut : base * zoom;
        scale.rows = largest(scale.height / patch, 1);
        scale.cols = largest(scale.width / patch, 1);
    }
    return scale;
}

static int64_t sum(const int64_t *values, int64_t count)
{
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++)
        total += values[i];
    return total;
}

/* Increases the quotas of the first first_n scales in proportion until they fill the look. Every other scale gets 1
 * patch; the last scale also gets the remainder. If that makes the last scale negative (the reference fails then), the
 * first scales give the difference. */
static void keep_first_scales(const ps3c_vision_config *config, int64_t first_n, int64_t *takes)
{
    const int64_t scales = config->num_scales - 1, quota = sum(config->max_select_num, scales);
    const int64_t *ratio = sum(takes, first_n) ? takes : config->max_select_num;
    const int64_t kept = largest(sum(ratio, first_n), 1), total = sum(ratio, scales);
    int64_t grown[PS3C_MAX_SCALES] = {0};
    for (int64_t i = 0; i < scales; i++) {
        const volatile double share = (double)ratio[i] / (double)kept;
        grown[i] = i < first_n ? (int64_t)(share * (double)total) : 1;
    }
    grown[scales - 1] += quota - sum(grown, scales);
    if (grown[scales - 1] < 0) {
        int64_t missing = -grown[scales - 1];
        grown[scales - 1] = 0;
        for (int64_t i = 0; i < scales && missing; i++) {
            const int64_t given = smallest(missing, largest(grown[i], 0));
            grown[i] -= given;
            missing -= given;
        }
    }
    for (int64_t i = 0; i < scales; i++)
        takes[i] = grown[i];
}

void ps3c_patches_of_look(const ps3c_vision_config *config, int64_t tokens, int64_t first_n, int64_t *free_patches,
                          int64_t *takes)
{
    const int64_t scales = config->num_scales - 1, quota = sum(config->max_select_num, scales);
    for (int64_t i = 0; i < scales; i++)
        takes[i] = tokens == PS3C_NONE ? config->max_select_num[i]
                                       : (int64_t)((__int128)config->max_select_num[i] * tokens / quota);
    if (tokens != PS3C_NONE)
        takes[scales - 1] += tokens - sum(takes, scales);
    if (first_n != PS3C_NONE)
        keep_first_scales(config, first_n, takes);
    for (int64_t i = 0; i < scales; i++) {
        if (free_patches[i] < takes[i]) {
            if (i + 1 < scales)
                takes[i + 1] += takes[i] - free_patches[i];
            takes[i] = free_patches[i];
        }
        free_patches[i] -= takes[i];
    }
}

/* Rejects both numbers together if they give more than one look: the reference has no rule for the last look and
 * fails. */
static ps3c_status one_of_two(ps3c_context *context, const ps3c_vision_request *request, int64_t looks)
{
    char asked[24] = "PS3C_ALL";
    if (request->num_look_close != PS3C_ALL)
        snprintf(asked, sizeof asked, "%lld", (long long)request->num_look_close);
    return ps3c_fail(
        context, PS3C_ERROR_VALUE,
        "num_look_close, num_token_look_close: got %s and %lld, which make %lld looks, expected one of the two "
        "(num_token_look_close alone encodes %lld patches)",
        asked, (long long)request->num_token_look_close, (long long)looks, (long long)request->num_token_look_close);
}

ps3c_status ps3c_looks_of(ps3c_context *context, const ps3c_vision_config *config, const ps3c_vision_request *request,
                          int64_t patches, ps3c_looks *looks)
{
    const int64_t quota = sum(config->max_select_num, config->num_scales - 1), most = (patches + quota - 1) / quota;
    const int64_t asked = request->num_look_close, tokens = request->num_token_look_close;
    *looks = (ps3c_looks){1, PS3C_NONE, PS3C_NONE};
    if (request->mode == PS3C_VISION_PRETRAIN)
        return PS3C_OK;
    if (asked < PS3C_ALL || tokens < PS3C_ALL)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "%s: got %lld, expected PS3C_NONE, PS3C_ALL or 0 and more",
                         asked < PS3C_ALL ? "num_look_close" : "num_token_look_close",
                         (long long)(asked < PS3C_ALL ? asked : tokens));
    if (request->mode == PS3C_VISION_LOW_RES || asked == 0 || tokens == 0) {
        looks->count = 0;
        return PS3C_OK;
    }
    if (asked == PS3C_NONE && tokens == PS3C_NONE)
        return ps3c_fail(context, PS3C_ERROR_VALUE,
                         "num_look_close, num_token_look_close: got neither, expected one of the two");
    if (asked == PS3C_NONE && tokens > 0) {
        const int64_t all = smallest(tokens, patches);
        looks->count = (all + quota - 1) / quota;
        looks->first_tokens = all <= quota ? all : PS3C_NONE;
        looks->last_tokens = all % quota ? all % quota : quota;
        return PS3C_OK;
    }
    looks->count = asked > 0 && tokens != PS3C_ALL ? smallest(asked, most) : most;
    if (tokens > 0) {
        if (looks->count > 1)
            return one_of_two(context, request, looks->count);
        looks->first_tokens = tokens <= quota ? tokens : PS3C_NONE;
    }
    return PS3C_OK;
}
