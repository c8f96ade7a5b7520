/* Patches of the image by bicubic resampling, straight from the source, for the selected positions only.
 *
 * Each value is sum over 4 rows of wy * (sum over 4 columns of wx * pixel), as torch's
 * interpolate(x.float(), mode="bicubic") sums it, then rounded to the run's dtype. */
#include "resample.h"
#include "tokens.h"

static float bicubic(const ps3c_tensor *pixels, ps3c_dtype dtype, int64_t image, int64_t channel,
                     const ps3c_scale *scale, int64_t y, int64_t x)
{
    const int64_t height = pixels->shape[2], width = pixels->shape[3];
    float wy[4], wx[4], sum = 0.0f;
    int64_t y0 = ps3c_bicubic_taps(height, scale->height, y, wy), x0 = ps3c_bicubic_taps(width, scale->width, x, wx);
    int64_t plane = image * pixels->strides[0] + channel * pixels->strides[1];
    for (int64_t j = 0; j < 4; j++) {
        int64_t row = plane + ps3c_clamp(y0 + j - 1, 0, height - 1) * pixels->strides[2];
        float line = 0.0f;
        for (int64_t i = 0; i < 4; i++)
            line +=
                wx[i] * ps3c_load(dtype, pixels->data, row + ps3c_clamp(x0 + i - 1, 0, width - 1) * pixels->strides[3]);
        sum += wy[j] * line;
    }
    return sum;
}

ps3c_status ps3c_patch_gather_naive(const ps3c_run *run, const ps3c_patch_gather_args *args)
{
    const ps3c_activation *out = args->out;
    const int64_t patch = args->patch;
    ps3c_activation_clear(out, run->dtype);
    for (int64_t s = 0; s < out->segments; s++)
        for (int64_t t = 0; t < out->tokens; t++) {
            ps3c_patch at = ps3c_locate(args->scales, args->num_scales, args->positions, out->tokens, s, t);
            for (int64_t c = 0; c < out->channels; c++)
                ps3c_set(out, run->dtype, s, t, c,
                         bicubic(args->pixels, run->dtype, s % args->pixels->shape[0], c / (patch * patch),
                                 &args->scales[at.scale], at.row * patch + c / patch % patch,
                                 at.col * patch + c % patch));
        }
    return PS3C_OK;
}
