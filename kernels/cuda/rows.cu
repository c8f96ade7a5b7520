/* Plain rows into and out of activations, and channels from one activation to another. Values are copied without
 * rounding. One warp per row, 16 bytes per lane where both sides are aligned, as they always are in published
 * models. */
#include "tokens.cuh"

namespace
{

/* ---- to_rows --------------------------------------------------------------------------------------------------- */

struct to_rows_args {
    int64_t rows, tokens, channels, pitch;
    int64_t batch, first_row, row_stride, batch_stride;
    const int32_t *row_of;
    bool wide;
};

template <class T> __global__ void __launch_bounds__(PS3C_ROW_WARPS * 32) to_rows(to_rows_args a, const T *x, T *out)
{
    for (int64_t row = ps3c_cuda_first_row(); row < a.rows; row += ps3c_cuda_row_step()) {
        const int64_t segment = row / a.tokens, token = row % a.tokens;
        const int64_t place = a.first_row + (a.row_of ? a.row_of[row] : token);
        ps3c_cuda_copy_row(out + segment % a.batch * a.batch_stride + place * a.row_stride, x + row * a.pitch,
                           a.channels, a.channels, a.wide);
    }
}

template <class T> ps3c_status launch_to_rows(const ps3c_run *run, const ps3c_to_rows_args *args)
{
    to_rows_args a = {};
    a.rows = args->x->segments * args->x->tokens;
    a.tokens = args->x->tokens;
    a.channels = args->x->channels;
    a.pitch = ps3c_pitch(a.channels);
    a.batch = args->batch;
    a.first_row = args->first_row;
    a.row_stride = args->row_stride;
    a.batch_stride = args->batch_stride;
    a.row_of = args->row_of;
    a.wide = ps3c_cuda_wide(args->out, a.row_stride, sizeof(T)) && ps3c_cuda_wide(args->out, a.batch_stride, sizeof(T));
    if (a.rows)
        PS3C_CUDA_LAUNCH_ROWS(run, "to_rows", (to_rows<T>), a.rows, a, (const T *)args->x->data, (T *)args->out);
    return PS3C_OK;
}

/* ---- from_rows, copy_channels ------------------------------------------------------------------------------------ */

struct copy_args {
    int64_t rows, channels, from_pitch, to_pitch;
    int64_t at, end; /* channels from at + channels to end, counted from `at`, are zeroed */
    bool wide;
};

template <class T> __global__ void __launch_bounds__(PS3C_ROW_WARPS * 32) copy_rows(copy_args a, const T *from, T *to)
{
    for (int64_t row = ps3c_cuda_first_row(); row < a.rows; row += ps3c_cuda_row_step())
        ps3c_cuda_copy_row(to + row * a.to_pitch + a.at, from + row * a.from_pitch, a.channels, a.end, a.wide);
}

template <class T> ps3c_status launch_from_rows(const ps3c_run *run, const ps3c_from_rows_args *args)
{
    copy_args a = {};
    a.rows = args->out->segments * args->out->tokens;
    a.channels = a.from_pitch = args->out->channels;
    a.to_pitch = a.end = ps3c_pitch(a.channels);
    a.wide = ps3c_cuda_wide(args->rows, a.channels, sizeof(T));
    if (a.rows)
        PS3C_CUDA_LAUNCH_ROWS(run, "from_rows", (copy_rows<T>), a.rows, a, (const T *)args->rows, (T *)args->out->data);
    return PS3C_OK;
}

/* The call that writes y's last channels also writes its padding: y may be uninitialised. */
template <class T> ps3c_status launch_copy_channels(const ps3c_run *run, const ps3c_copy_channels_args *args)
{
    copy_args a = {};
    a.rows = args->x->segments * args->x->tokens;
    a.channels = args->x->channels;
    a.from_pitch = ps3c_pitch(a.channels);
    a.to_pitch = ps3c_pitch(args->y->channels);
    a.at = args->at;
    a.end = args->at + a.channels == args->y->channels ? a.to_pitch - args->at : a.channels;
    a.wide = args->at % PS3C_WIDE<T> == 0;
    if (a.rows)
        PS3C_CUDA_LAUNCH_ROWS(run, "copy_channels", (copy_rows<T>), a.rows, a, (const T *)args->x->data,
                              (T *)args->y->data);
    return PS3C_OK;
}

} // namespace

extern "C" ps3c_status ps3c_to_rows_cuda(const ps3c_run *run, const ps3c_to_rows_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch_to_rows<T>(run, args));
}

extern "C" ps3c_status ps3c_from_rows_cuda(const ps3c_run *run, const ps3c_from_rows_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch_from_rows<T>(run, args));
}

extern "C" ps3c_status ps3c_copy_channels_cuda(const ps3c_run *run, const ps3c_copy_channels_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch_copy_channels<T>(run, args));
}
