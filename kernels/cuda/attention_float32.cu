/* Attention in float32 arithmetic: float32 activations, and 16-bit ones with head dims that attention.cu has no shape
 * for.
 *
 * The same tiles and online softmax, on fused multiply-adds. A block has 128 queries of one head, a thread 8 of them:
 * 8 x 8 scores (8 x 4 for wide heads) and 8 x N channels of the result, so that a value read from shared memory is used
 * in eight products. Eight neighbouring lanes share their queries: row maxima and sums take three shuffles, and
 * exponentials are exchanged within a warp through shared memory. Keys are copied while values are used, and values
 * while keys are used.
 *
 * The channels of the scores' products are copied in pieces of CHANNELS; with more than one piece, the queries are
 * copied again with each. A head of more than 8 * N channels has one block for each 8 * N channels of its result, and
 * each of them computes the scores again.
 *
 * If the run allows TF32, heads of up to 128 channels use attention.cuh's tensor core kernel.
 */
#include "attention.cuh"

namespace
{

constexpr int THREADS = 128, LANES = 8; /* lanes that share queries */
constexpr int QUERIES = 128, ROWS = 8;  /* of a block; of a thread: number thread / LANES and every 16th after it */
constexpr int EACH = THREADS / LANES;
constexpr int PART = 16, PART_PITCH = 24; /* keys whose exponentials are exchanged at a time; 24: no bank conflicts */

template <int N, int CHANNELS, int KEYS> struct scalar_shape {
    static constexpr int PITCH = (CHANNELS / 4 | 1) * 4; /* an odd number of 16-byte chunks */
    static constexpr int WIDTH = LANES * N;              /* channels of the result */
    static constexpr int COLUMNS = KEYS / LANES;         /* keys of a thread: number lane % 8 and every 8th after it */
    static constexpr int KEYS_AT = QUERIES * PITCH, VALUES_AT = KEYS_AT + KEYS * PITCH,
                         PARTS_AT = VALUES_AT + KEYS * WIDTH, BYTES = (PARTS_AT + QUERIES * PART_PITCH) * 4;
    static constexpr int UNROLL = N > 9 ? 1 : 2; /* limited by registers */
    static_assert(KEYS % PART == 0 && BYTES <= 99 * 1024, "sm_86, sm_89 and sm_120 have no more");
};

/* ---- copies into shared memory, as float32 ----------------------------------------------------------------------- */

/* 8 channels. */
__device__ __forceinline__ void copy_channels(float *to, const float *from, bool valid)
{
    cp_async16(to, from, valid);
    cp_async16(to + 4, from + 4, valid);
}
template <class T> __device__ __forceinline__ void copy_channels(float *to, const T *from, bool valid)
{
    ps3c_pack<T, 8> x = {};
    if (valid)
        x = *(const ps3c_pack<T, 8> *)from;
#pragma unroll
    for (int i = 0; i < 8; i += 4)
        *(float4 *)(to + i) = {ps3c_to_float(x.at[i]), ps3c_to_float(x.at[i + 1]), ps3c_to_float(x.at[i + 2]),
                               ps3c_to_float(x.at[i + 3])};
}

/* Copies COUNT rows of WIDTH channels, from row `first` on. Rows from `tokens` on and channels from `channels` on
 * become zero. */
template <class T, int COUNT, int WIDTH, int PITCH>
__device__ __forceinline__ void copy_rows(float *to, const T *from, int32_t pitch, int32_t first, int32_t tokens,
                                          int32_t channels)
{
    for (int i = threadIdx.x; i < COUNT * (WIDTH / 8); i += THREADS) {
        const int row = i / (WIDTH / 8), c = i % (WIDTH / 8) * 8;
        const int32_t token = first + row;
        const bool valid = token < tokens && c < channels;
        copy_channels(to + row * PITCH + c, from + (valid ? (int64_t)token * pitch + c : 0), valid);
    }
}

/* ---- one tile ---------------------------------------------------------------------------------------------------- */

/* A thread's state of its queries. */
template <int N> struct scalar_rows {
    float max[ROWS], sum[ROWS], out[ROWS][N];
};

/* score += queries keys^T over `channels` channels. */
template <class S>
__device__ __forceinline__ void add_products(float (&score)[ROWS][S::COLUMNS], const float *queries, const float *keys,
                                             int channels)
{
    queries += threadIdx.x / LANES * S::PITCH;
    keys += threadIdx.x % LANES * S::PITCH;
#pragma unroll S::UNROLL
    for (int c = 0; c < channels; c += 4) {
        float4 k[S::COLUMNS];
#pragma unroll
        for (int j = 0; j < S::COLUMNS; j++)
            k[j] = *(const float4 *)(keys + j * LANES * S::PITCH + c);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const float4 q = *(const float4 *)(queries + i * EACH * S::PITCH + c);
#pragma unroll
            for (int j = 0; j < S::COLUMNS; j++) {
                score[i][j] = __fmaf_rn(q.x, k[j].x, score[i][j]);
                score[i][j] = __fmaf_rn(q.y, k[j].y, score[i][j]);
                score[i][j] = __fmaf_rn(q.z, k[j].z, score[i][j]);
                score[i][j] = __fmaf_rn(q.w, k[j].w, score[i][j]);
            }
        }
    }
}

/* Sets the scores of masked keys to -infinity. */
template <class T, class S>
__device__ __forceinline__ void hide_keys(float (&score)[ROWS][S::COLUMNS], const attention_problem<T> &p,
                                          const attention_place<T> &at, const attention_tile<T> &tile)
{
    const int key = threadIdx.x % LANES;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int32_t query = at.first_query + threadIdx.x / LANES + i * EACH;
        const int32_t seen = tile.own && p.causal && query + 1 < tile.count ? query + 1 : tile.count;
        const int32_t limit = seen - tile.first - key;
        const bool last = tile.own && at.mask != nullptr && query == p.tokens - 1;
#pragma unroll
        for (int j = 0; j < S::COLUMNS; j++) {
            bool hidden = j * LANES >= limit;
            if (last && !hidden)
                hidden = at.mask[tile.first + key + j * LANES] == 0;
            score[i][j] = hidden ? -INFINITY : score[i][j];
        }
    }
}

/* Scores to exponentials, in place, relative to the maximum so far; earlier sums are rescaled to it. */
template <int N, int COLUMNS>
__device__ __forceinline__ void exponentials(scalar_rows<N> &rows, float (&score)[ROWS][COLUMNS], float scale)
{
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        float top = score[i][0];
#pragma unroll
        for (int j = 1; j < COLUMNS; j++)
            top = fmaxf(top, score[i][j]); /* ignores NaN */
#pragma unroll
        for (int lane = 1; lane < LANES; lane *= 2)
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, lane));
        const bool up = top > rows.max[i];
        const float factor = up ? exp2f((rows.max[i] - top) * scale) : 1.0f;
        rows.max[i] = up ? top : rows.max[i];
        const float base = rows.max[i] == -INFINITY ? 0.0f : -rows.max[i] * scale;
        rows.sum[i] *= factor;
#pragma unroll
        for (int n = 0; n < N; n++)
            rows.out[i][n] *= factor;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            score[i][j] = exp2f(__fmaf_rn(score[i][j], scale, base));
            rows.sum[i] += score[i][j];
        }
    }
}

/* out += exponentials values, 16 keys at a time. parts: [queries][PART_PITCH]; a warp uses only its own rows. */
template <class S, int N>
__device__ __forceinline__ void add_values(scalar_rows<N> &rows, const float (&score)[ROWS][S::COLUMNS],
                                           const float *values, float *parts)
{
    constexpr int STEP = N > 10 ? 2 : 4; /* keys at a time: limited by registers */
    const int lane = threadIdx.x % LANES;
    parts += threadIdx.x / LANES * PART_PITCH;
    values += lane;
#pragma unroll
    for (int j = 0; j < S::COLUMNS; j += PART / LANES) {
        __syncwarp();
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int half = 0; half < PART / LANES; half++)
                parts[i * EACH * PART_PITCH + half * LANES + lane] = score[i][j + half];
        __syncwarp();
#pragma unroll 1
        for (int k = 0; k < PART; k += STEP) {
            ps3c_pack<float, STEP> p[ROWS];
#pragma unroll
            for (int i = 0; i < ROWS; i++)
                p[i] = *(const ps3c_pack<float, STEP> *)(parts + i * EACH * PART_PITCH + k);
            const float *row = values + (j * LANES + k) * S::WIDTH;
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int s = 0; s < STEP; s++) {
                    const float v = row[s * S::WIDTH + n * LANES];
#pragma unroll
                    for (int i = 0; i < ROWS; i++)
                        rows.out[i][n] = __fmaf_rn(p[i].at[s], v, rows.out[i][n]);
                }
        }
    }
}

template <class T, int N>
__device__ __forceinline__ void store_rows(const scalar_rows<N> &rows, const attention_problem<T> &p,
                                           const attention_place<T> &at, int first_channel)
{
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        float sum = rows.sum[i];
#pragma unroll
        for (int lane = 1; lane < LANES; lane *= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, lane);
        const int32_t query = at.first_query + threadIdx.x / LANES + i * EACH;
#pragma unroll
        for (int n = 0; n < N; n++) {
            const int c = first_channel + threadIdx.x % LANES + n * LANES;
            if (query < p.tokens && c < p.head_dim)
                at.out[(int64_t)query * p.out_pitch + c] = ps3c_from_float<T>(rows.out[i][n] / sum);
        }
    }
}

/* ---- kernel ------------------------------------------------------------------------------------------------------ */

/* Grid x: see attention_place; y: pieces of the result's channels. */
template <class T, int N, int CHANNELS, int KEYS>
__global__ void __launch_bounds__(THREADS, 2) attention_scalar(attention_problem<T> p)
{
    using S = scalar_shape<N, CHANNELS, KEYS>;
    PS3C_DYNAMIC_SHARED(float, shared);
    const attention_place<T> at(p, QUERIES);
    const int cached_tiles = (p.cached.tokens + KEYS - 1) / KEYS;
    const int tiles = cached_tiles + (at.own_keys + KEYS - 1) / KEYS;
    const int pieces = (p.head_dim + CHANNELS - 1) / CHANNELS, first_channel = blockIdx.y * S::WIDTH;
    scalar_rows<N> rows = {};
#pragma unroll
    for (int i = 0; i < ROWS; i++)
        rows.max[i] = -INFINITY;

    const auto copy_piece = [&](const attention_tile<T> &tile, int piece, bool with_queries) {
        const int c = piece * CHANNELS;
        if (with_queries)
            copy_rows<T, QUERIES, CHANNELS, S::PITCH>(shared, at.query + c, p.query_pitch, at.first_query, p.tokens,
                                                      p.head_dim - c);
        copy_rows<T, KEYS, CHANNELS, S::PITCH>(shared + S::KEYS_AT, tile.keys + c, tile.pitch, tile.first, tile.count,
                                               p.head_dim - c);
        cp_async_commit();
    };

    attention_tile<T> tile = attention_tile_at(p, at, 0, cached_tiles, KEYS);
    copy_piece(tile, 0, true);
    for (int t = 0; t < tiles; t++) {
        float score[ROWS][S::COLUMNS] = {};
        for (int piece = 0; piece < pieces; piece++) {
            if (piece) {
                __syncthreads(); /* no warp reads the previous piece any more */
                copy_piece(tile, piece, true);
            }
            cp_async_wait<0>();
            __syncthreads(); /* the piece has arrived; no warp reads the previous tile's values any more */
            if (piece == 0) {
                copy_rows<T, KEYS, S::WIDTH, S::WIDTH>(shared + S::VALUES_AT,
                                                       tile.keys + (int64_t)p.heads * p.head_dim + first_channel,
                                                       tile.pitch, tile.first, tile.count, p.head_dim - first_channel);
                cp_async_commit();
            }
            const int left = p.head_dim - piece * CHANNELS;
            add_products<S>(score, shared, shared + S::KEYS_AT, left < CHANNELS ? left : CHANNELS);
        }
        if (tile.first + KEYS > tile.count ||
            (tile.own && ((p.causal && tile.first + KEYS - 1 > at.first_query) || at.mask != nullptr)))
            hide_keys<T, S>(score, p, at, tile);
        exponentials<N, S::COLUMNS>(rows, score, p.scale);
        cp_async_wait<0>();
        __syncthreads(); /* the values have arrived; no warp reads the keys any more */
        if (t + 1 < tiles) {
            tile = attention_tile_at(p, at, t + 1, cached_tiles, KEYS);
            copy_piece(tile, 0, pieces > 1);
        }
        add_values<S, N>(rows, score, shared + S::VALUES_AT, shared + S::PARTS_AT);
    }
    store_rows<T, N>(rows, p, at, first_channel);
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

template <class T, int N, int CHANNELS, int KEYS>
ps3c_status launch(const ps3c_run *run, const ps3c_attention_args *args)
{
    using S = scalar_shape<N, CHANNELS, KEYS>;
    const attention_problem<T> p = attention_problem_of<T>(args, QUERIES);
    const int64_t blocks = (int64_t)p.query_tiles * args->query->segments * args->heads;
    const dim3 grid((unsigned)blocks, (unsigned)((args->head_dim + S::WIDTH - 1) / S::WIDTH));
    if (blocks > 0)
        PS3C_CUDA_LAUNCH(run, "attention", (attention_scalar<T, N, CHANNELS, KEYS>), grid, THREADS, S::BYTES, p);
    return PS3C_OK;
}

ps3c_status launch_float32(const ps3c_run *run, const ps3c_attention_args *args)
{
    const int64_t dim = args->head_dim;
    if (run->tf32 && dim <= 64)
        return attention_flash_launch<float, 64, 2, 32, false>(run, args);
    if (run->tf32 && dim <= 72)
        return attention_flash_launch<float, 72, 2, 32, false>(run, args);
    if (run->tf32 && dim <= 128)
        return attention_flash_launch<float, 128, 1, 32, false>(run, args);
    if (dim <= 64)
        return launch<float, 8, 64, 64>(run, args);
    if (dim <= 72)
        return launch<float, 9, 72, 64>(run, args);
    if (dim <= 80)
        return launch<float, 10, 80, 64>(run, args);
    return launch<float, 16, 64, 32>(run, args);
}

} // namespace

ps3c_status ps3c_attention_float32_cuda(const ps3c_run *run, const ps3c_attention_args *args)
{
    if (run->dtype == PS3C_FLOAT16)
        return launch<ps3c_half, 16, 64, 32>(run, args);
    if (run->dtype == PS3C_BFLOAT16)
        return launch<ps3c_bf16, 16, 64, 32>(run, args);
    return launch_float32(run, args);
}
