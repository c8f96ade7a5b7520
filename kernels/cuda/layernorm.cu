/* y = act((x - mean) / sqrt(variance + eps) * weight + bias) over the channels of each token, in float32; the variance
 * from the deviations (two passes).
 *
 * A row is read once: it stays in registers, in its own dtype, while its mean and then its variance are computed. One
 * warp computes a row of up to 4.5 KiB (6 in float32), with shuffles only. A block computes a longer row; what does not
 * fit the block's registers is read again, from cache, in each pass.
 *
 * If the mean is far from zero, the rounding error of the first sum can be as large as the deviations. So the second
 * pass also sums the deviations: their mean is the error of the first mean, and corrects both mean and variance.
 */
#include "cuda.cuh"

namespace
{

template <class T> constexpr int WIDE = 16 / sizeof(T); /* elements of a pack */

struct norm_args {
    int64_t rows, channels, pitch;
    float eps;
    ps3c_activation_function act;
    bool wide; /* weight and bias are 16-byte aligned */
};

/* ---- a thread's part of a row ---------------------------------------------------------------------------------- */

template <class T> using pack = ps3c_pack<T, WIDE<T>>;

template <class T> __device__ __forceinline__ float sum_of(const pack<T> &x)
{
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < WIDE<T>; j++)
        sum += ps3c_to_float(x.at[j]); /* padding is zero */
    return sum;
}

struct deviations {
    float sum, squares;
};

template <class T>
__device__ __forceinline__ void add_deviations(const pack<T> &x, int64_t valid, float mean, deviations *d)
{
#pragma unroll
    for (int j = 0; j < WIDE<T>; j++) {
        const float deviation = j < valid ? ps3c_to_float(x.at[j]) - mean : 0.0f;
        d->sum += deviation;
        d->squares = __fmaf_rn(deviation, deviation, d->squares);
    }
}

template <class T> __device__ __forceinline__ pack<T> load_channels(const T *from, int64_t valid, bool wide)
{
    pack<T> x;
    if (wide && valid >= WIDE<T>)
        return *(const pack<T> *)from;
#pragma unroll
    for (int j = 0; j < WIDE<T>; j++)
        x.at[j] = j < valid ? from[j] : ps3c_from_float<T>(0.0f);
    return x;
}

/* mean and correction stay separate: x - mean is exact if x is close to the mean. */
struct moments {
    float mean, correction, factor;
};

__device__ __forceinline__ moments moments_of(float mean, deviations d, const norm_args &a)
{
    moments m;
    m.mean = mean;
    m.correction = d.sum / (float)a.channels;
    const float variance = d.squares / (float)a.channels - m.correction * m.correction;
    m.factor = 1.0f / sqrtf((variance < 0.0f ? 0.0f : variance) + a.eps);
    return m;
}

template <class T>
__device__ __forceinline__ pack<T> normalize(const pack<T> &x, int64_t c, const moments &m, const norm_args &a,
                                             const T *weight, const T *bias)
{
    const int64_t valid = a.channels - c;
    const pack<T> w = load_channels<T>(weight + c, valid, a.wide), b = load_channels<T>(bias + c, valid, a.wide);
    float v[WIDE<T>];
    pack<T> y;
#pragma unroll
    for (int j = 0; j < WIDE<T>; j++)
        v[j] = __fmaf_rn((ps3c_to_float(x.at[j]) - m.mean - m.correction) * m.factor, ps3c_to_float(w.at[j]),
                         ps3c_to_float(b.at[j]));
    if (a.act != PS3C_ACT_NONE) {
#pragma unroll
        for (int j = 0; j < WIDE<T>; j++)
            v[j] = ps3c_activate(a.act, v[j]);
    }
#pragma unroll
    for (int j = 0; j < WIDE<T>; j++)
        y.at[j] = ps3c_from_float<T>(j < valid ? v[j] : 0.0f);
    return y;
}

/* ---- a warp a row ---------------------------------------------------------------------------------------------- */

constexpr int WARPS = 4; /* rows of a block */

/* y may be x: a lane reads its own packs before it writes them. */
template <class T, int PACKS>
__global__ void __launch_bounds__(WARPS * 32, PACKS <= 5   ? 4
                                              : PACKS <= 6 ? 3
                                                           : 2)
    norm_warp(norm_args a, const T *x, const T *weight, const T *bias, T *y)
{
    const int lane = threadIdx.x % 32;
    const int64_t step = (int64_t)gridDim.x * WARPS;
    for (int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32; row < a.rows; row += step) {
        const T *from = x + row * a.pitch;
        T *to = y + row * a.pitch;
        pack<T> v[PACKS];
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
            const int64_t c = (int64_t)(lane + 32 * i) * WIDE<T>;
            v[i] = c < a.pitch ? *(const pack<T> *)(from + c) : pack<T>{};
        }
#pragma unroll
        for (int i = 0; i < PACKS; i++)
            sum += sum_of<T>(v[i]);
        const float mean = ps3c_warp_sum(sum) / (float)a.channels;
        deviations d = {0.0f, 0.0f};
#pragma unroll
        for (int i = 0; i < PACKS; i++)
            add_deviations<T>(v[i], a.channels - (int64_t)(lane + 32 * i) * WIDE<T>, mean, &d);
        d.sum = ps3c_warp_sum(d.sum);
        d.squares = ps3c_warp_sum(d.squares);
        const moments m = moments_of(mean, d, a);
#pragma unroll
        for (int i = 0; i < PACKS; i++) {
            const int64_t c = (int64_t)(lane + 32 * i) * WIDE<T>;
            if (c < a.pitch)
                *(pack<T> *)(to + c) = normalize<T>(v[i], c, m, a, weight, bias);
        }
    }
}

/* ---- a block a row --------------------------------------------------------------------------------------------- */

constexpr int THREADS = 256, KEPT = 4; /* packs that a thread keeps in registers */

/* The sum over the block, in every thread. `parts` may be reused after the next barrier. */
__device__ __forceinline__ float block_sum(float x, float *parts)
{
    x = ps3c_warp_sum(x);
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < THREADS / 32; i++)
        sum += parts[i];
    return sum;
}

template <class T>
__global__ void __launch_bounds__(THREADS, 2) norm_block(norm_args a, const T *x, const T *weight, const T *bias, T *y)
{
    PS3C_SHARED(float, parts, [3][THREADS / 32]);
    constexpr int64_t STEP = (int64_t)THREADS * WIDE<T>;
    const int64_t own = (int64_t)threadIdx.x * WIDE<T>, rest = own + KEPT * STEP;
    for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
        const T *from = x + row * a.pitch;
        T *to = y + row * a.pitch;
        pack<T> v[KEPT];
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < KEPT; i++) {
            v[i] = own + i * STEP < a.pitch ? *(const pack<T> *)(from + own + i * STEP) : pack<T>{};
            sum += sum_of<T>(v[i]);
        }
        for (int64_t c = rest; c < a.pitch; c += STEP)
            sum += sum_of<T>(*(const pack<T> *)(from + c));
        const float mean = block_sum(sum, parts[0]) / (float)a.channels;
        deviations d = {0.0f, 0.0f};
#pragma unroll
        for (int i = 0; i < KEPT; i++)
            add_deviations<T>(v[i], a.channels - own - i * STEP, mean, &d);
        for (int64_t c = rest; c < a.pitch; c += STEP)
            add_deviations<T>(*(const pack<T> *)(from + c), a.channels - c, mean, &d);
        d.sum = block_sum(d.sum, parts[1]);
        d.squares = block_sum(d.squares, parts[2]);
        const moments m = moments_of(mean, d, a);
#pragma unroll
        for (int i = 0; i < KEPT; i++)
            if (own + i * STEP < a.pitch)
                *(pack<T> *)(to + own + i * STEP) = normalize<T>(v[i], own + i * STEP, m, a, weight, bias);
        for (int64_t c = rest; c < a.pitch; c += STEP)
            *(pack<T> *)(to + c) = normalize<T>(*(const pack<T> *)(from + c), c, m, a, weight, bias);
    }
}

/* ---- launches --------------------------------------------------------------------------------------------------- */

template <class T, int PACKS>
ps3c_status launch_warps(const ps3c_run *run, const ps3c_layernorm_args *args, const norm_args &a)
{
    PS3C_CUDA_LAUNCH(run, "layernorm", (norm_warp<T, PACKS>), ps3c_cuda_blocks(a.rows, WARPS), WARPS * 32, 0, a,
                     (const T *)args->x->data, (const T *)args->weight, (const T *)args->bias, (T *)args->y->data);
    return PS3C_OK;
}

template <class T> ps3c_status launch_blocks(const ps3c_run *run, const ps3c_layernorm_args *args, const norm_args &a)
{
    PS3C_CUDA_LAUNCH(run, "layernorm", (norm_block<T>), ps3c_cuda_blocks(a.rows, 1), THREADS, 0, a,
                     (const T *)args->x->data, (const T *)args->weight, (const T *)args->bias, (T *)args->y->data);
    return PS3C_OK;
}

template <class T> ps3c_status launch(const ps3c_run *run, const ps3c_layernorm_args *args)
{
    norm_args a = {};
    a.rows = args->x->segments * args->x->tokens;
    a.channels = args->x->channels;
    a.pitch = ps3c_pitch(a.channels);
    a.eps = args->eps;
    a.act = args->act;
    a.wide = (uintptr_t)args->weight % 16 == 0 && (uintptr_t)args->bias % 16 == 0;
    if (a.rows == 0)
        return PS3C_OK;
    const int64_t packs = (a.pitch / WIDE<T> + 31) / 32; /* of a lane */
    if (packs <= 2)
        return launch_warps<T, 2>(run, args, a);
    if (packs <= 3)
        return launch_warps<T, 3>(run, args, a);
    if (packs <= 5)
        return launch_warps<T, 5>(run, args, a);
    if (packs <= 6)
        return launch_warps<T, 6>(run, args, a);
    if (packs <= 9)
        return launch_warps<T, 9>(run, args, a);
    if constexpr (sizeof(T) == 4) { /* 12 packs of 16-bit elements, as floats, do not fit the registers */
        if (packs <= 12)
            return launch_warps<T, 12>(run, args, a);
    }
    return launch_blocks<T>(run, args, a);
}

} // namespace

extern "C" ps3c_status ps3c_layernorm_cuda(const ps3c_run *run, const ps3c_layernorm_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch<T>(run, args));
}
