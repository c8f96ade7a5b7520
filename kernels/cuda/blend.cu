/* y = flag * low + (flag == 0) * y, token by token: the choice between two pooled vectors. Computed by
 * multiplication, not by selection, so that NaN and infinity propagate as in the reference. One warp per token. */
#include "tokens.cuh"

namespace
{

template <class T>
__global__ void __launch_bounds__(PS3C_ROW_WARPS * 32)
    blend(int64_t tokens, int64_t channels, const float *flag, int64_t flag_stride, const T *low, T *y)
{
    const int lane = threadIdx.x % 32;
    const int64_t pitch = ps3c_pitch(channels);
    for (int64_t t = ps3c_cuda_first_row(); t < tokens; t += ps3c_cuda_row_step()) {
        const float of_low = flag[t * flag_stride], of_y = of_low == 0.0f ? 1.0f : 0.0f;
        for (int64_t c = lane * PS3C_WIDE<T>; c < pitch; c += 32 * PS3C_WIDE<T>) {
            const ps3c_wide<T> a = *(const ps3c_wide<T> *)(low + t * pitch + c);
            ps3c_wide<T> *own = (ps3c_wide<T> *)(y + t * pitch + c), b = *own;
#pragma unroll
            for (int j = 0; j < PS3C_WIDE<T>; j++) {
                const float v = of_low * ps3c_to_float(a.at[j]) + of_y * ps3c_to_float(b.at[j]);
                b.at[j] =
                    ps3c_from_float<T>(c + j < channels ? v : 0.0f); /* padding stays zero even if the flag is NaN */
            }
            *own = b;
        }
    }
}

template <class T> ps3c_status launch(const ps3c_run *run, const ps3c_blend_args *args)
{
    const int64_t stride = args->flag->strides[0];
    const float *flag = (const float *)args->flag->data + args->first * stride;
    if (args->y->tokens)
        PS3C_CUDA_LAUNCH_ROWS(run, "blend", (blend<T>), args->y->tokens, args->y->tokens, args->y->channels, flag,
                              stride, (const T *)args->low->data, (T *)args->y->data);
    return PS3C_OK;
}

} // namespace

extern "C" ps3c_status ps3c_blend_cuda(const ps3c_run *run, const ps3c_blend_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch<T>(run, args));
}
