/* Plain rows into and out of the panel layout, and channels from one activation to another. Values are copied without
 * rounding. */
#include "tokens.h"

static void move(ps3c_dtype dtype, void *to, int64_t to_element, const void *from, int64_t from_element)
{
    size_t bytes = ps3c_dtype_bytes(dtype);
    memcpy((char *)to + (size_t)to_element * bytes, (const char *)from + (size_t)from_element * bytes, bytes);
}

ps3c_status ps3c_to_rows_naive(const ps3c_run *run, const ps3c_to_rows_args *args)
{
    const ps3c_activation *x = args->x;
    for (int64_t s = 0; s < x->segments; s++)
        for (int64_t t = 0; t < x->tokens; t++) {
            int64_t row = args->first_row + (args->row_of ? args->row_of[s * x->tokens + t] : t);
            int64_t start = s % args->batch * args->batch_stride + row * args->row_stride;
            for (int64_t c = 0; c < x->channels; c++)
                move(run->dtype, args->out, start + c, x->data, ps3c_element(x, run->dtype, s, t, c, false));
        }
    return PS3C_OK;
}

ps3c_status ps3c_from_rows_naive(const ps3c_run *run, const ps3c_from_rows_args *args)
{
    const ps3c_activation *out = args->out;
    ps3c_activation_clear(out, run->dtype);
    for (int64_t s = 0; s < out->segments; s++)
        for (int64_t t = 0; t < out->tokens; t++)
            for (int64_t c = 0; c < out->channels; c++)
                move(run->dtype, out->data, ps3c_element(out, run->dtype, s, t, c, false), args->rows,
                     (s * out->tokens + t) * out->channels + c);
    return PS3C_OK;
}

/* Spare tokens are copied too: those of y may be uninitialised. */
ps3c_status ps3c_copy_channels_naive(const ps3c_run *run, const ps3c_copy_channels_args *args)
{
    const ps3c_activation *x = args->x, *y = args->y;
    for (int64_t s = 0; s < x->segments; s++)
        for (int64_t t = 0; t < ps3c_panels(x->tokens) * PS3C_PANEL; t++) {
            for (int64_t c = 0; c < x->channels; c++)
                move(run->dtype, y->data, ps3c_element(y, run->dtype, s, t, args->at + c, false), x->data,
                     ps3c_element(x, run->dtype, s, t, c, false));
            if (ps3c_is16(run->dtype) && y->channels % 2 && args->at + x->channels == y->channels)
                ps3c_set(y, run->dtype, s, t, y->channels, 0.0f);
        }
    return PS3C_OK;
}
