/* Cosine of each token's features with its image's prompt: one warp per token, 16 bytes per lane.
 *
 * Every block normalises its image's prompt into shared memory, always in the same order. So there is one launch, and
 * the result does not depend on the other images of the call. For a lane, 8 channels of a 16-bit type are two groups of
 * 4 floats of the prompt. All first groups are stored together, and all second ones, so that neighbouring lanes read
 * neighbouring 16 bytes. */
#include "cuda.cuh"

namespace
{

using floats4 = ps3c_pack<float, 4>;

constexpr int WARPS = 8, THREADS = WARPS * 32;
constexpr int CHUNK = 4096; /* channels of the prompt in shared memory at a time */

template <class T> struct cosine_args {
    const T *features, *prompt;
    int64_t prompt_stride, tokens, channels, pitch, blocks; /* blocks: of a segment */
    float *logits;
};

/* Keeps NaN. */
__device__ __forceinline__ float at_least(float x, float low) { return x < low ? low : x; }

/* |prompt|, in every thread of the block. */
template <class T> __device__ __forceinline__ float length_of(const T *prompt, int64_t channels, float *warp_sums)
{
    float sum = 0.0f;
    for (int64_t c = threadIdx.x; c < channels; c += THREADS) {
        const float p = ps3c_to_float(prompt[c]);
        sum = __fmaf_rn(p, p, sum);
    }
    sum = ps3c_warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        warp_sums[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0.0f;
    for (int i = 0; i < WARPS; i++)
        sum += warp_sums[i];
    return sqrtf(sum);
}

/* Index of channel c of a chunk in shared memory. N: channels in 16 bytes. */
template <int N> __device__ __forceinline__ int place_of(int c)
{
    return c % N / 4 * (CHUNK * 4 / N) + c / N * 4 + c % 4;
}

/* Channels [first, first + CHUNK) of prompt / length, then zeros. */
template <class T, int N>
__device__ __forceinline__ void load_prompt(const T *prompt, int64_t channels, int64_t first, float length, float *out)
{
    const int64_t left = ps3c_pitch(channels) - first;
    const int count = left < CHUNK ? (int)left : CHUNK;
    for (int c = threadIdx.x; c < count; c += THREADS)
        out[place_of<N>(c)] = first + c < channels ? ps3c_to_float(prompt[first + c]) / length : 0.0f;
}

template <class T> __global__ void __launch_bounds__(THREADS, 4) cosine(cosine_args<T> args)
{
    constexpr int N = 16 / sizeof(T);
    PS3C_SHARED(floats4, staged, [CHUNK / 4]);
    PS3C_SHARED(float, warp_sums, [WARPS]);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t segment = blockIdx.x / args.blocks, block = blockIdx.x - segment * args.blocks;
    const T *prompt = args.prompt + segment * args.prompt_stride;
    const float length = at_least(length_of(prompt, args.channels, warp_sums), 1e-12f);
    const bool once = args.pitch <= CHUNK;
    if (once)
        load_prompt<T, N>(prompt, args.channels, 0, length, staged[0].at);
    for (int64_t token = block * WARPS; token < args.tokens; token += args.blocks * WARPS) {
        const bool mine = token + warp < args.tokens;
        const T *features = args.features + (segment * args.tokens + (mine ? token + warp : 0)) * args.pitch;
        float dot = 0.0f, square = 0.0f;
        for (int64_t first = 0; first < args.pitch; first += CHUNK) {
            if (!once) {
                __syncthreads(); /* every warp has read the previous chunk */
                load_prompt<T, N>(prompt, args.channels, first, length, staged[0].at);
            }
            __syncthreads();
            const int64_t left = args.pitch - first;
            const int packs = mine ? (int)((left < CHUNK ? left : CHUNK) / N) : 0;
            for (int i = lane; i < packs; i += 32) {
                const ps3c_pack<T, N> f = *(const ps3c_pack<T, N> *)(features + first + i * N);
                for (int half = 0; half < N / 4; half++) {
                    const floats4 p = staged[half * (CHUNK / N) + i];
                    for (int j = 0; j < 4; j++) {
                        const float x = ps3c_to_float(f.at[half * 4 + j]);
                        dot = __fmaf_rn(x, p.at[j], dot);
                        square = __fmaf_rn(x, x, square);
                    }
                }
            }
        }
        dot = ps3c_warp_sum(dot);
        square = ps3c_warp_sum(square);
        if (mine && lane == 0)
            args.logits[segment * args.tokens + token + warp] = dot / at_least(sqrtf(square), 1e-12f);
    }
}

template <class T> ps3c_status launch(const ps3c_run *run, const ps3c_cosine_args *args)
{
    const ps3c_activation *f = args->features;
    /* Enough blocks to fill any GPU; more would only normalise the prompt more often. */
    const int64_t most = (1024 + f->segments - 1) / f->segments;
    const int64_t blocks = ps3c_cuda_blocks(f->tokens, WARPS, most);
    const cosine_args<T> in = {(const T *)f->data,
                               (const T *)args->prompt,
                               args->prompt_stride,
                               f->tokens,
                               f->channels,
                               ps3c_pitch(f->channels),
                               blocks,
                               args->logits};
    PS3C_CUDA_LAUNCH(run, "cosine", (cosine<T>), (unsigned)(blocks * f->segments), THREADS, 0, in);
    return PS3C_OK;
}

} // namespace

extern "C" ps3c_status ps3c_cosine_cuda(const ps3c_run *run, const ps3c_cosine_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch<T>(run, args));
}
