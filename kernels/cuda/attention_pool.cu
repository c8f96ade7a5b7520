/* Attention of one query per head over the tokens of each segment, in float32 arithmetic.
 *
 * A block computes one head of one segment. It reads the keys and values once, PART tokens at a time, with an online
 * softmax. Four lanes compute the score of a key; then each thread sums a chunk of the values' channels over every
 * slots-th token. All sums have a fixed order. A head with more than MOST_CHUNKS chunks has several blocks: each sums
 * its part of the channels, and all of them compute the scores.
 */
#include "cuda.cuh"

#include <cmath>

namespace
{

constexpr int THREADS = 512, WARPS = THREADS / 32;
constexpr int QUAD = 4, TOGETHER = 4; /* lanes per key; keys that a quad reads at once */
constexpr int PART = 1024;            /* tokens */
constexpr int MOST_CHUNKS = 64;       /* of a block's values */
static_assert(PART % THREADS == 0, "every thread has the same number of tokens");

/* Elements loaded together: 16 bytes where heads are 16-byte aligned, else one element. */
template <class T, int WIDE> using chunk = ps3c_pack<T, WIDE>;

template <class T> struct pool_problem {
    const T *query, *keys_values;
    const uint8_t *mask; /* or NULL */
    T *out;
    int32_t tokens, heads, head_dim, pitch, out_pitch;
    float scale;
};

/* ---- sums over a block ------------------------------------------------------------------------------------------- */

__device__ __forceinline__ float warp_max(float x)
{
    for (int lane = 16; lane; lane /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lane)); /* ignores NaN */
    return x;
}

/* The result is in every thread. `warps` may be reused after the next barrier. */
__device__ __forceinline__ float block_max(float x, float *warps)
{
    x = warp_max(x);
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = x;
    __syncthreads();
    float most = warps[0];
#pragma unroll
    for (int i = 1; i < WARPS; i++)
        most = fmaxf(most, warps[i]);
    return most;
}
__device__ __forceinline__ float block_sum(float x, float *warps)
{
    x = ps3c_warp_sum(x);
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < WARPS; i++)
        sum += warps[i];
    return sum;
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* scores[i] of `count` tokens; keys: of the first token. Masked tokens get -infinity, whatever their keys are. */
template <class T, int WIDE>
__device__ __forceinline__ void make_scores(float *scores, const float *query, const pool_problem<T> &p, const T *keys,
                                            const uint8_t *mask, int count)
{
    const int lane = threadIdx.x % 32, quad = lane / QUAD;
    constexpr int STEP = 32 / QUAD; /* distance of a quad's tokens */
    for (int first = threadIdx.x / 32 * STEP * TOGETHER; first < count; first += WARPS * STEP * TOGETHER) {
        float dot[TOGETHER] = {};
#pragma unroll 1
        for (int c = lane % QUAD * WIDE; c < p.head_dim; c += QUAD * WIDE) {
            chunk<T, WIDE> k[TOGETHER];
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) {
                const int token = first + quad + i * STEP;
                k[i] = *(const chunk<T, WIDE> *)(keys + (int64_t)(token < count ? token : count - 1) * p.pitch + c);
            }
#pragma unroll
            for (int j = 0; j < WIDE; j++) {
                const float q = query[c + j];
#pragma unroll
                for (int i = 0; i < TOGETHER; i++)
                    dot[i] = __fmaf_rn(q, ps3c_to_float(k[i].at[j]), dot[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const int token = first + quad + i * STEP;
            dot[i] += __shfl_xor_sync(0xffffffffu, dot[i], 1);
            dot[i] += __shfl_xor_sync(0xffffffffu, dot[i], 2);
            if (lane % QUAD == 0 && token < count)
                scores[token] = mask != nullptr && mask[token] == 0 ? -INFINITY : dot[i] * p.scale;
        }
    }
}

/* ---- kernel ------------------------------------------------------------------------------------------------------ */

struct pool_shared {
    float scores[PART], warps[2][WARPS];
};

/* v += exponential of token t times its values, for t = slot, slot + slots, ... */
template <class T, int WIDE>
__device__ __forceinline__ void add_values(float (&v)[WIDE], const float *exponentials, const T *values, int64_t step,
                                           int slot, int slots, int count)
{
#pragma unroll 4
    for (int t = slot; t < count; t += slots) {
        const chunk<T, WIDE> x = *(const chunk<T, WIDE> *)values;
#pragma unroll
        for (int j = 0; j < WIDE; j++)
            v[j] = __fmaf_rn(exponentials[t], ps3c_to_float(x.at[j]), v[j]);
        values += step;
    }
}

/* Adds up the partial sums of each of the block's channels, divides by the sum of exponentials, and stores. */
template <class T>
__device__ __forceinline__ void store_channels(const float *partial, float sum, T *out, int channels, int slots)
{
    for (int c = threadIdx.x; c < channels; c += THREADS) {
        float v = 0.0f;
        for (int slot = 0; slot < slots; slot++)
            v += partial[slot * channels + c];
        out[c] = ps3c_from_float<T>(v / sum);
    }
}

/* Grid x: segments * heads; y: pieces of a head's channels. Dynamic shared memory: THREADS * WIDE floats of sums, and
 * the query. */
template <class T, int WIDE> __global__ void __launch_bounds__(THREADS, 2) attention_pool(pool_problem<T> p)
{
    PS3C_SHARED(pool_shared, s, [1]);
    PS3C_DYNAMIC_SHARED(float, partial);
    float *query = partial + THREADS * WIDE;
    const int head = blockIdx.x % p.heads, first_channel = blockIdx.y * MOST_CHUNKS * WIDE;
    const int64_t segment = blockIdx.x / p.heads;
    const int left = p.head_dim - first_channel, channels = left < MOST_CHUNKS * WIDE ? left : MOST_CHUNKS * WIDE;
    const int chunks = channels / WIDE, slots = THREADS / chunks, slot = threadIdx.x / chunks;
    const int channel = threadIdx.x % chunks * WIDE;
    const T *keys = p.keys_values + segment * p.tokens * p.pitch + head * p.head_dim;
    const T *values = keys + (int64_t)p.heads * p.head_dim + first_channel + channel + (int64_t)slot * p.pitch;
    T *out = p.out + segment * p.out_pitch + head * p.head_dim + first_channel;
    float max = -INFINITY, sum = 0.0f, v[WIDE] = {};

    for (int c = threadIdx.x; c < p.head_dim; c += THREADS)
        query[c] = ps3c_to_float(p.query[head * p.head_dim + c]);
    for (int first = 0; first < p.tokens; first += PART) {
        const int count = p.tokens - first < PART ? p.tokens - first : PART;
        __syncthreads(); /* the query has arrived; no warp reads the previous part any more */
        make_scores<T, WIDE>(s->scores, query, p, keys + (int64_t)first * p.pitch,
                             p.mask ? p.mask + segment * p.tokens + first : nullptr, count);
        __syncthreads();
        float most = max;
        for (int t = threadIdx.x; t < count; t += THREADS)
            most = fmaxf(most, s->scores[t]);
        most = block_max(most, s->warps[0]);
        const float base = most == -INFINITY ? 0.0f : most; /* only masked tokens so far: exponentials are 0 */
        const float factor = max == most ? 1.0f : expf(max - base);
        max = most;
        sum *= factor;
        for (int t = threadIdx.x; t < count; t += THREADS) {
            s->scores[t] = expf(s->scores[t] - base);
            sum += s->scores[t];
        }
        __syncthreads();
#pragma unroll
        for (int j = 0; j < WIDE; j++)
            v[j] *= factor;
        if (slot < slots)
            add_values<T, WIDE>(v, s->scores, values + (int64_t)first * p.pitch, (int64_t)slots * p.pitch, slot, slots,
                                count);
    }
    if (slot < slots)
#pragma unroll
        for (int j = 0; j < WIDE; j++)
            partial[slot * channels + channel + j] = v[j];
    sum = block_sum(sum, s->warps[1]); /* after its barrier, partial is complete */
    store_channels<T>(partial, sum, out, channels, slots);
    const int width = p.heads * p.head_dim; /* padding channels are zero */
    if (head == p.heads - 1 && first_channel + channels == p.head_dim && (int)threadIdx.x < p.out_pitch - width)
        p.out[segment * p.out_pitch + width + threadIdx.x] = ps3c_from_float<T>(0.0f);
}

template <class T, int WIDE>
ps3c_status launch_wide(const ps3c_run *run, const ps3c_attention_pool_args *args, const pool_problem<T> &p)
{
    const int64_t blocks = args->keys_values->segments * args->heads;
    const dim3 grid((unsigned)blocks, (unsigned)((p.head_dim + MOST_CHUNKS * WIDE - 1) / (MOST_CHUNKS * WIDE)));
    if (blocks > 0)
        PS3C_CUDA_LAUNCH(run, "attention_pool", (attention_pool<T, WIDE>), grid, THREADS,
                         (THREADS * WIDE + p.head_dim) * sizeof(float), p);
    return PS3C_OK;
}

template <class T> ps3c_status launch(const ps3c_run *run, const ps3c_attention_pool_args *args)
{
    constexpr int WIDE = 16 / sizeof(T);
    pool_problem<T> p = {};
    p.query = (const T *)args->query->data;
    p.keys_values = (const T *)args->keys_values->data;
    p.mask = args->mask;
    p.out = (T *)args->out->data;
    p.tokens = (int32_t)args->keys_values->tokens;
    p.heads = (int32_t)args->heads;
    p.head_dim = (int32_t)args->head_dim;
    p.pitch = (int32_t)ps3c_pitch(args->keys_values->channels);
    p.out_pitch = (int32_t)ps3c_pitch(args->out->channels);
    p.scale = 1.0f / sqrtf((float)args->head_dim);
    return args->head_dim % WIDE ? launch_wide<T, 1>(run, args, p) : launch_wide<T, WIDE>(run, args, p);
}

} // namespace

extern "C" ps3c_status ps3c_attention_pool_cuda(const ps3c_run *run, const ps3c_attention_pool_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch<T>(run, args));
}
