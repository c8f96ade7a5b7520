/* 7x7 depthwise convolution of a map of tokens (ConvNeXt: Liu et al. 2022), zero padding 3, float32.
 *
 * A lane computes two neighbouring channels of STRIP outputs along a map row, so a warp reads 64 channels of a token
 * at a time. The lane loads STRIP + 6 inputs of each of 7 rows and uses each up to 7 times from registers. The warps
 * of a block have neighbouring rows of the same columns; the inputs they share are in cache. The block's weights are
 * transposed in shared memory, so that lanes read neighbouring words. Strips of six outputs and bands of six rows
 * divide the model's 54 x 54 map evenly. */
#include "tokens.cuh"

namespace
{

constexpr int SIDE = 7, TAPS = SIDE * SIDE, BORDER = SIDE / 2;
constexpr int STRIP = 6, ROWS = 6, CHANNELS = 64;
constexpr int WEIGHT_PITCH = CHANNELS + 2; /* even, for pairs; consecutive taps are in different banks */

struct conv_args {
    int64_t channels, pitch, rows, cols, tokens;
    int64_t strips, bands, groups, blocks; /* of columns, of rows, of channels; in all, segments included */
};

/* The strip's inputs of one row; 0 outside the map. */
template <class T>
__device__ __forceinline__ void load_row(ps3c_pack<T, 2> (&in)[STRIP + 2 * BORDER], const T *row, int64_t first,
                                         const conv_args &a)
{
#pragma unroll
    for (int i = 0; i < STRIP + 2 * BORDER; i++) {
        const int64_t col = first + i - BORDER;
        in[i] = col >= 0 && col < a.cols ? *(const ps3c_pack<T, 2> *)(row + col * a.pitch) : ps3c_pack<T, 2>{};
    }
}

/* sum[i] += the products of SIDE taps with inputs i .. i + SIDE - 1. weight: the row's first tap, lane's channels. */
template <class T>
__device__ __forceinline__ void add_row(float (&sum)[STRIP][2], const ps3c_pack<T, 2> (&in)[STRIP + 2 * BORDER],
                                        const float *weight)
{
#pragma unroll
    for (int tap = 0; tap < SIDE; tap++) {
        const ps3c_pack<float, 2> w = *(const ps3c_pack<float, 2> *)(weight + tap * WEIGHT_PITCH);
#pragma unroll
        for (int i = 0; i < STRIP; i++) {
            sum[i][0] = __fmaf_rn(w.at[0], ps3c_to_float(in[i + tap].at[0]), sum[i][0]);
            sum[i][1] = __fmaf_rn(w.at[1], ps3c_to_float(in[i + tap].at[1]), sum[i][1]);
        }
    }
}

template <class T> __device__ __forceinline__ float vector_at(const T *v, int64_t c, int64_t channels)
{
    return c < channels ? ps3c_to_float(v[c]) : 0.0f; /* padding stays zero */
}

template <class T>
__global__ void __launch_bounds__(ROWS * 32, 4) convolve(conv_args a, const T *x, const T *weight, const T *bias, T *y)
{
    PS3C_SHARED(float, taps, [TAPS * WEIGHT_PITCH]);
    const int lane = threadIdx.x % 32;
    const int64_t block = blockIdx.x, group = block % a.groups, strip = block / a.groups % a.strips;
    const int64_t band = block / a.groups / a.strips % a.bands, segment = block / a.groups / a.strips / a.bands;
    const int64_t c = group * CHANNELS + lane * 2, row = band * ROWS + threadIdx.x / 32, first = strip * STRIP;
    for (int i = threadIdx.x; i < CHANNELS * TAPS; i += ROWS * 32) {
        const int channel = i / TAPS, tap = i - channel * TAPS;
        taps[tap * WEIGHT_PITCH + channel] =
            vector_at(weight, group * CHANNELS * TAPS + i, a.channels * TAPS); /* contiguous, channel by channel */
    }
    __syncthreads();
    if (c >= a.pitch || row >= a.rows)
        return;
    float sum[STRIP][2];
    const float b0 = vector_at(bias, c, a.channels), b1 = vector_at(bias, c + 1, a.channels);
#pragma unroll
    for (int i = 0; i < STRIP; i++) {
        sum[i][0] = b0;
        sum[i][1] = b1;
    }
    const T *from = x + segment * a.tokens * a.pitch + c;
#pragma unroll 1
    for (int j = 0; j < SIDE; j++) {
        const int64_t r = row + j - BORDER;
        if (r < 0 || r >= a.rows)
            continue;
        ps3c_pack<T, 2> in[STRIP + 2 * BORDER];
        load_row(in, from + r * a.cols * a.pitch, first, a);
        add_row(sum, in, taps + j * SIDE * WEIGHT_PITCH + lane * 2);
    }
    T *to = y + (segment * a.tokens + row * a.cols + first) * a.pitch + c;
#pragma unroll
    for (int i = 0; i < STRIP; i++)
        if (first + i < a.cols)
            *(ps3c_pack<T, 2> *)(to + i * a.pitch) = {ps3c_from_float<T>(sum[i][0]), ps3c_from_float<T>(sum[i][1])};
}

template <class T> ps3c_status launch(const ps3c_run *run, const ps3c_depthwise_args *args)
{
    conv_args a = {};
    a.channels = args->x->channels;
    a.pitch = ps3c_pitch(a.channels);
    a.rows = args->rows;
    a.cols = args->cols;
    a.tokens = args->x->tokens;
    a.strips = (a.cols + STRIP - 1) / STRIP;
    a.bands = (a.rows + ROWS - 1) / ROWS;
    a.groups = (a.pitch + CHANNELS - 1) / CHANNELS;
    a.blocks = args->x->segments * a.bands * a.strips * a.groups;
    if (a.blocks)
        PS3C_CUDA_LAUNCH(run, "depthwise", (convolve<T>), (unsigned)a.blocks, ROWS * 32, 0, a, (const T *)args->x->data,
                         (const T *)args->weight, (const T *)args->bias, (T *)args->y->data);
    return PS3C_OK;
}

} // namespace

extern "C" ps3c_status ps3c_depthwise_cuda(const ps3c_run *run, const ps3c_depthwise_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch<T>(run, args));
}
