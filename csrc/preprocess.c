/* A decoded image to the model's input: bytes to [0, 1], then normalised, channel planes out, in one pass.
 *
 * A channel has 256 possible values, so each is computed once, with the roundings of torchvision's ToTensor and
 * Normalize (v / 255, - mean, / std, each in float32), and looked up. */
#include "error.h"

ps3c_status ps3c_image_normalize(ps3c_context *context, const uint8_t *pixels, int64_t height, int64_t width,
                                 int64_t row_bytes, int64_t channels, const float mean[3], const float std[3],
                                 float *out)
{
    float table[3][256];
    if (channels != 3 && channels != 4)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "pixels has %lld channels, expected 3 or 4", (long long)channels);
    if (height < 1 || width < 1)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "pixels is %lld x %lld, expected at least 1 x 1", (long long)height,
                         (long long)width);
    for (int c = 0; c < 3; c++)
        if (std[c] == 0.0f)
            return ps3c_fail(context, PS3C_ERROR_VALUE,
                             "std: got 0 for channel %d, expected another number: it divides", c);
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++) {
            float unit = (float)v / 255.0f, centred = unit - mean[c];
            table[c][v] = centred / std[c];
        }
    for (int64_t y = 0; y < height; y++) {
        const uint8_t *row = pixels + y * row_bytes;
        float *red = out + y * width, *green = red + height * width, *blue = green + height * width;
        for (int64_t x = 0; x < width; x++, row += channels) {
            red[x] = table[0][row[0]];
            green[x] = table[1][row[1]];
            blue[x] = table[2][row[2]];
        }
    }
    return PS3C_OK;
}
