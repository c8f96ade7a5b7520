/* Ground-truth selection maps, area-resized like in the reference. */
#ifndef PS3C_CPU_GROUND_TRUTH_H
#define PS3C_CPU_GROUND_TRUTH_H

#include "resample.h"
#include "tokens.h"

/* Maps with more cells than this are read by the calling thread alone, which polls. */
#define PS3C_GROUND_TRUTH_CELLS (INT64_C(1) << 25)

/* One cell of map b of gt (B, any, any), resized to rows x cols: adaptive average in float32, summed and divided in
 * torch's order, because the rounding to a half-precision gt depends on the last bit. Integers and bool are averaged as
 * float32: their mean is not truncated.
 *
 * context: polled in a large window; the value is then undefined and *status is not PS3C_OK. NULL: no polling. */
static inline float ps3c_ground_truth(ps3c_context *context, const ps3c_tensor *gt, int64_t b, int64_t rows,
                                      int64_t cols, int64_t row, int64_t col, ps3c_status *status)
{
    int64_t y0 = ps3c_adaptive_start(gt->shape[1], rows, row), y1 = ps3c_adaptive_end(gt->shape[1], rows, row);
    int64_t x0 = ps3c_adaptive_start(gt->shape[2], cols, col), x1 = ps3c_adaptive_end(gt->shape[2], cols, col);
    const int64_t step = context ? PS3C_GROUND_TRUTH_CELLS / 16 : x1 - x0;
    int64_t unpolled = 0;
    float sum = 0.0f;
    for (int64_t y = y0; y < y1; y++)
        for (int64_t part = x0; part < x1; part += step) {
            const int64_t end = part + step < x1 ? part + step : x1;
            for (int64_t x = part; x < end; x++)
                sum += ps3c_tensor_float(gt, b * gt->strides[0] + y * gt->strides[1] + x * gt->strides[2]);
            unpolled += end - part;
            if (context && unpolled >= step) {
                unpolled = 0;
                if ((*status = ps3c_context_poll(context)) != PS3C_OK)
                    return 0.0f;
            }
        }
    const float mean = sum / (float)(y1 - y0) / (float)(x1 - x0);
    return gt->dtype == PS3C_FLOAT16 || gt->dtype == PS3C_BFLOAT16 ? ps3c_round(gt->dtype, mean) : mean;
}

/* Is gt so large that only the calling thread reads it, polling? */
static inline bool ps3c_ground_truth_is_large(const ps3c_tensor *gt)
{
    return gt->shape[1] > PS3C_GROUND_TRUTH_CELLS / gt->shape[2];
}

#endif
