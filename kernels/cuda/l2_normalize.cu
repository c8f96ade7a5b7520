/* x / max(|x|, 1e-12) for every token, in float32. One warp per row reads it twice, the second time from cache:
 * there are only a few pooled vectors. */
#include "tokens.cuh"

namespace
{

/* y may be x: a lane writes only packs that no other lane reads. */
template <class T>
__global__ void __launch_bounds__(PS3C_ROW_WARPS * 32, 8) normalize(int64_t rows, int64_t channels, const T *x, T *y)
{
    const int64_t pitch = ps3c_pitch(channels);
    const int lane = threadIdx.x % 32;
    for (int64_t row = ps3c_cuda_first_row(); row < rows; row += ps3c_cuda_row_step()) {
        const T *from = x + row * pitch;
        T *to = y + row * pitch;
        float squares = 0.0f;
        for (int64_t c = lane * PS3C_WIDE<T>; c < pitch; c += 32 * PS3C_WIDE<T>) {
            const ps3c_wide<T> v = *(const ps3c_wide<T> *)(from + c);
#pragma unroll
            for (int j = 0; j < PS3C_WIDE<T>; j++)
                squares = __fmaf_rn(ps3c_to_float(v.at[j]), ps3c_to_float(v.at[j]), squares);
        }
        float norm = sqrtf(ps3c_warp_sum(squares));
        norm = norm < 1e-12f ? 1e-12f : norm; /* keeps NaN */
        for (int64_t c = lane * PS3C_WIDE<T>; c < pitch; c += 32 * PS3C_WIDE<T>) {
            ps3c_wide<T> v = *(const ps3c_wide<T> *)(from + c);
#pragma unroll
            for (int j = 0; j < PS3C_WIDE<T>; j++)
                v.at[j] = ps3c_from_float<T>(c + j < channels ? ps3c_to_float(v.at[j]) / norm
                                                              : 0.0f); /* padding stays 0 even if norm is NaN */
            *(ps3c_wide<T> *)(to + c) = v;
        }
    }
}

template <class T> ps3c_status launch(const ps3c_run *run, const ps3c_l2_normalize_args *args)
{
    const int64_t rows = args->x->segments * args->x->tokens;
    if (rows)
        PS3C_CUDA_LAUNCH_ROWS(run, "l2_normalize", (normalize<T>), rows, rows, args->x->channels,
                              (const T *)args->x->data, (T *)args->y->data);
    return PS3C_OK;
}

} // namespace

extern "C" ps3c_status ps3c_l2_normalize_cuda(const ps3c_run *run, const ps3c_l2_normalize_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch<T>(run, args));
}
