/* 7x7 depthwise convolution of a map of tokens (ConvNeXt: Liu et al. 2022), zero padding 3:
 * y[row][col][c] = bias[c] + sum over 7 x 7 of weight[c][j][i] * x[row + j - 3][col + i - 3][c], in float32. */
#include "tokens.h"

ps3c_status ps3c_depthwise_naive(const ps3c_run *run, const ps3c_depthwise_args *args)
{
    const ps3c_activation *x = args->x, *y = args->y;
    ps3c_activation_clear(y, run->dtype);
    for (int64_t s = 0; s < x->segments; s++)
        for (int64_t c = 0; c < x->channels; c++)
            for (int64_t t = 0; t < x->tokens; t++) {
                int64_t row = t / args->cols, col = t % args->cols;
                float sum = ps3c_load(run->dtype, args->bias, c);
                for (int64_t j = 0; j < 7; j++)
                    for (int64_t i = 0; i < 7; i++) {
                        int64_t r = row + j - 3, q = col + i - 3;
                        if (r >= 0 && r < args->rows && q >= 0 && q < args->cols)
                            sum += ps3c_load(run->dtype, args->weight, c * 49 + j * 7 + i) *
                                   ps3c_get(x, run->dtype, s, r * args->cols + q, c);
                    }
                ps3c_set(y, run->dtype, s, t, c, sum);
            }
    return PS3C_OK;
}
