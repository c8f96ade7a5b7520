/* Ground-truth selection maps, area-resized like in the reference. */
#ifndef PS3C_CPU_GROUND_TRUTH_H
#define PS3C_CPU_GROUND_TRUTH_H

#include "resample.h"
#include "tokens.h"

/* A float32 value cast to a tensor's dtype: integers are truncated, bool is 1 if not 0. */
static inline float ps3c_cast(ps3c_dtype dtype, float v)
{
    switch (dtype) {
    case PS3C_FLOAT16:
    case PS3C_BFLOAT16:
        return ps3c_round(dtype, v);
    case PS3C_FLOAT32:
    case PS3C_FLOAT64:
        return v;
    case PS3C_BOOL:
        return v != 0.0f;
    default:
        return truncf(v);
    }
}
/* One cell of map b of gt (B, any, any), resized to rows x cols: adaptive average in float32, summed and divided in
 * torch's order, because the cast to gt's dtype depends on the last bit. */
static inline float ps3c_ground_truth(const ps3c_tensor *gt, int64_t b, int64_t rows, int64_t cols, int64_t row,
                                      int64_t col)
{
    int64_t y0 = ps3c_adaptive_start(gt->shape[1], rows, row), y1 = ps3c_adaptive_end(gt->shape[1], rows, row);
    int64_t x0 = ps3c_adaptive_start(gt->shape[2], cols, col), x1 = ps3c_adaptive_end(gt->shape[2], cols, col);
    float sum = 0.0f;
    for (int64_t y = y0; y < y1; y++)
        for (int64_t x = x0; x < x1; x++)
            sum += ps3c_tensor_float(gt, b * gt->strides[0] + y * gt->strides[1] + x * gt->strides[2]);
    return ps3c_cast(gt->dtype, sum / (float)(y1 - y0) / (float)(x1 - x0));
}

#endif
