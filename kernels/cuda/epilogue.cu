/* The part of a product's epilogue that cuBLASLt does not have: one pass over the result, 16 bytes per thread where
 * the destination is 16-byte aligned (out_channel may be any even number). The pass is bound by memory bandwidth;
 * the product of one look is still in the L2 cache. */
#include "epilogue.cuh"

namespace
{

constexpr int THREADS = 256;
constexpr int64_t MOST = (int64_t)1 << 30; /* packs in a launch: 32-bit division */

struct finish_args {
    unsigned packs, count; /* of a row, in all */
    int n, pads;           /* outputs of a row; elements after them that are zeroed */
    int64_t in_pitch, residual_pitch, y_pitch;
    bool wide_scale; /* scale is aligned to packs */
};

template <class T, int N> __device__ __forceinline__ ps3c_pack<T, N> load(const T *from, int valid, bool wide)
{
    ps3c_pack<T, N> pack;
    if (wide && valid >= N)
        return *(const ps3c_pack<T, N> *)from;
#pragma unroll
    for (int j = 0; j < N; j++)
        pack.at[j] = j < valid ? from[j] : ps3c_from_float<T>(0.0f);
    return pack;
}

/* in and residual may be y: a thread reads its own elements before it writes them. */
template <class T, int N, ps3c_activation_function ACT>
__global__ void finish(finish_args a, const T *in, const T *scale, const T *residual, T *y)
{
    const unsigned step = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += step) {
        const unsigned row = i / a.packs, first = (i - row * a.packs) * N;
        const int valid = a.n - (int)first;
        const ps3c_pack<T, N> v = load<T, N>(in + row * a.in_pitch + first, valid, true);
        float out[N];
#pragma unroll
        for (int j = 0; j < N; j++)
            out[j] = ps3c_activate(ACT, ps3c_to_float(v.at[j]));
        if (scale) {
            const ps3c_pack<T, N> s = load<T, N>(scale + first, valid, a.wide_scale);
#pragma unroll
            for (int j = 0; j < N; j++)
                out[j] *= ps3c_to_float(s.at[j]);
        }
        if (residual) {
            const ps3c_pack<T, N> r = load<T, N>(residual + row * a.residual_pitch + first, valid, true);
#pragma unroll
            for (int j = 0; j < N; j++)
                out[j] += ps3c_to_float(r.at[j]);
        }
        ps3c_pack<T, N> result;
#pragma unroll
        for (int j = 0; j < N; j++)
            result.at[j] = ps3c_from_float<T>(j < valid ? out[j] : 0.0f);
        T *to = y + row * a.y_pitch + first;
        if (valid + a.pads >= N) {
            *(ps3c_pack<T, N> *)to = result;
        } else {
#pragma unroll
            for (int j = 0; j < N; j++)
                if (j < valid)
                    to[j] = result.at[j];
        }
    }
}

template <class T, int N, ps3c_activation_function ACT>
ps3c_status launch(const ps3c_run *run, const ps3c_epilogue *e, int64_t pads)
{
    finish_args a = {};
    a.packs = (unsigned)((e->n + pads + N - 1) / N);
    a.n = (int)e->n;
    a.pads = (int)pads;
    a.in_pitch = e->in_pitch;
    a.residual_pitch = e->residual_pitch;
    a.y_pitch = ps3c_pitch(e->y_channels);
    a.wide_scale = (uintptr_t)e->scale % sizeof(ps3c_pack<T, N>) == 0;
    const int64_t most = MOST / a.packs > 0 ? MOST / a.packs : 1;
    for (int64_t row = 0; row < e->rows; row += most) {
        const int64_t rows = e->rows - row < most ? e->rows - row : most;
        a.count = (unsigned)(rows * a.packs);
        PS3C_CUDA_LAUNCH(run, "gemm", (finish<T, N, ACT>), ps3c_cuda_blocks(a.count, THREADS), THREADS, 0, a,
                         (const T *)e->in + row * a.in_pitch, (const T *)e->scale,
                         e->residual ? (const T *)e->residual + row * a.residual_pitch : (const T *)nullptr,
                         (T *)e->y + row * a.y_pitch + e->channel);
    }
    return PS3C_OK;
}

template <class T, int N> ps3c_status launch_activation(const ps3c_run *run, const ps3c_epilogue *e, int64_t pads)
{
    switch (e->act) {
    case PS3C_ACT_GELU_ERF:
        return launch<T, N, PS3C_ACT_GELU_ERF>(run, e, pads);
    case PS3C_ACT_GELU_TANH:
        return launch<T, N, PS3C_ACT_GELU_TANH>(run, e, pads);
    case PS3C_ACT_RELU:
        return launch<T, N, PS3C_ACT_RELU>(run, e, pads);
    default:
        return launch<T, N, PS3C_ACT_NONE>(run, e, pads);
    }
}

template <class T> ps3c_status launch_type(const ps3c_run *run, const ps3c_epilogue *e)
{
    constexpr int WIDE = 16 / sizeof(T);
    const int64_t end = e->channel + e->n, pads = end == e->y_channels ? ps3c_pitch(end) - end : 0;
    return e->channel % WIDE == 0 ? launch_activation<T, WIDE>(run, e, pads) : launch_activation<T, 2>(run, e, pads);
}

template <class T> __global__ void zero_pads(T *y, int64_t rows, int64_t channels, int64_t pitch)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; row < rows; row += step)
        for (int64_t c = channels; c < pitch; c++)
            y[row * pitch + c] = ps3c_from_float<T>(0.0f);
}

template <class T> ps3c_status launch_zero_pads(const ps3c_run *run, void *y, int64_t rows, int64_t channels)
{
    PS3C_CUDA_LAUNCH(run, "gemm", (zero_pads<T>), ps3c_cuda_blocks(rows, 128), 128, 0, (T *)y, rows, channels,
                     ps3c_pitch(channels));
    return PS3C_OK;
}

} // namespace

ps3c_status ps3c_epilogue_cuda(const ps3c_run *run, const ps3c_epilogue *epilogue)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch_type<T>(run, epilogue));
}

ps3c_status ps3c_zero_pads_cuda(const ps3c_run *run, void *y, int64_t rows, int64_t channels)
{
    if (channels % PS3C_CHUNK == 0 || rows == 0)
        return PS3C_OK;
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch_zero_pads<T>(run, y, rows, channels));
}
