/* Resizing of decoded images in two passes, columns first, with bytes in between. The results are Pillow's, bit for
 * bit.
 *
 * Source: Pillow's ImagingResample for 8-bit images: weights in fixed point, each pass rounded and clipped to a
 * byte. The weights come from csrc/run/preprocess.c. */
#include "cpu.h"

static uint8_t to_byte(int32_t sum)
{
    sum >>= PS3C_WEIGHT_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

ps3c_status ps3c_resize_columns_naive(const ps3c_run *run, const ps3c_resize_columns_args *args)
{
    const ps3c_taps *taps = args->taps;
    (void)run;
    for (int64_t y = 0; y < args->rows; y++)
        for (int64_t x = 0; x < taps->outputs; x++) {
            const uint8_t *in = args->pixels + y * args->row_bytes + taps->firsts[x] * args->channels;
            uint8_t *out = args->out + (y * taps->outputs + x) * 4;
            out[3] = 0;
            for (int c = 0; c < 3; c++) {
                int32_t sum = 1 << (PS3C_WEIGHT_BITS - 1);
                for (int64_t t = 0; t < taps->counts[x]; t++)
                    sum += taps->weights[x * taps->most + t] * in[t * args->channels + c];
                out[c] = to_byte(sum);
            }
        }
    return PS3C_OK;
}

ps3c_status ps3c_resize_rows_naive(const ps3c_run *run, const ps3c_resize_rows_args *args)
{
    const ps3c_taps *taps = args->taps;
    (void)run;
    for (int64_t y = 0; y < taps->outputs; y++)
        for (int64_t x = 0; x < args->width; x++)
            for (int c = 0; c < 3; c++) {
                const uint8_t *in = args->pixels + (taps->firsts[y] * args->width + x) * 4 + c;
                int32_t sum = 1 << (PS3C_WEIGHT_BITS - 1);
                for (int64_t t = 0; t < taps->counts[y]; t++)
                    sum += taps->weights[y * taps->most + t] * in[t * args->width * 4];
                const float unit = (float)to_byte(sum) / 255.0f, centred = unit - args->mean[c];
                args->out[(c * taps->outputs + y) * args->width + x] = centred / args->std[c];
            }
    return PS3C_OK;
}
