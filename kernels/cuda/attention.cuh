/* FlashAttention's forward pass (Dao et al., arXiv:2205.14135; online softmax, arXiv:1805.02867) on mma.sync, for
 * 16-bit types and for float32 factors rounded to TF32; and what all attention kernels share.
 *
 * A block has four warps and computes one tile of queries of one head. A warp has 16 * M queries, so that a fragment of
 * keys or values read from shared memory is used in M products (with M = 1, Hopper's shared memory is the bottleneck).
 * Keys and values are loaded in tiles of KEYS rows, the cached tokens first, then the segment's own. There are two
 * buffers; cp.async fills one tile ahead, with one barrier per tile. The row pitch in shared memory is an odd number of
 * 16-byte chunks, so that eight rows cover all banks. D channels are compiled in; channels from head_dim to D are zeros
 * in shared memory and do not exist in global memory.
 *
 * The exponentials of a row are relative to a reference maximum. A row is rescaled only when its maximum grew by more
 * than 2^8 over the reference, which is rare. Exponentials up to 2^8 lose no precision: float32 sums and both 16-bit
 * types have the range.
 */
#ifndef PS3C_CUDA_ATTENTION_CUH
#define PS3C_CUDA_ATTENTION_CUH

#include "cuda.cuh"

#include <cmath>
#include <cstring>

/* Attention in float32 arithmetic: float32 (TF32 when the run allows it), and 16-bit types of head dims above 256. */
ps3c_status ps3c_attention_float32_cuda(const ps3c_run *run, const ps3c_attention_args *args);

namespace
{

constexpr float FLASH_SLACK = 8.0f; /* in powers of 2 */

/* ---- kernel arguments ----------------------------------------------------------------------------------------- */

template <class T> struct attention_source {
    const T *keys;  /* the first head's, of segment 0 and token 0 */
    int64_t stride; /* elements from segment to segment */
    uint32_t segments;
    int32_t tokens, pitch;
};

template <class T> struct attention_problem {
    attention_source<T> cached, own; /* values: heads * head_dim behind keys */
    const T *query;
    T *out;
    const uint8_t *last_query_mask;
    int64_t query_stride, out_stride; /* elements from segment to segment */
    int32_t query_pitch, out_pitch;
    int32_t tokens, head_dim;
    uint32_t heads, query_tiles;
    float scale; /* log2(e) / sqrt(head_dim) */
    float slack; /* FLASH_SLACK, in scores */
    bool causal;
};

template <class T> attention_source<T> attention_source_of(const ps3c_activation *x, int64_t channel)
{
    attention_source<T> s = {};
    s.keys = (const T *)x->data + channel;
    s.segments = (uint32_t)x->segments;
    s.tokens = (int32_t)x->tokens;
    s.pitch = (int32_t)ps3c_pitch(x->channels);
    s.stride = x->tokens * s.pitch;
    return s;
}

/* queries: of a tile. */
template <class T> attention_problem<T> attention_problem_of(const ps3c_attention_args *args, int queries)
{
    attention_problem<T> p = {};
    p.own = attention_source_of<T>(args->own, args->own_channel);
    p.cached = args->cached ? attention_source_of<T>(args->cached, args->cached_channel) : p.own;
    p.cached.tokens = args->cached ? p.cached.tokens : 0;
    p.query = (const T *)args->query->data + args->query_channel;
    p.out = (T *)args->out->data;
    p.last_query_mask = args->last_query_mask;
    p.query_pitch = (int32_t)ps3c_pitch(args->query->channels);
    p.out_pitch = (int32_t)ps3c_pitch(args->out->channels);
    p.query_stride = args->query->tokens * p.query_pitch;
    p.out_stride = args->query->tokens * p.out_pitch;
    p.tokens = (int32_t)args->query->tokens;
    p.query_tiles = (uint32_t)((p.tokens + queries - 1) / queries);
    p.heads = (uint32_t)args->heads;
    p.head_dim = (int32_t)args->head_dim;
    p.scale = 1.4426950408889634f / sqrtf((float)args->head_dim);
    p.slack = FLASH_SLACK / p.scale;
    p.causal = args->causal;
    return p;
}

/* ---- the place of a block ------------------------------------------------------------------------------------- */

/* Neighbouring blocks work on the same head of a segment, then on its other heads, so that keys and values stay in
 * the L2 cache. The last tile of queries comes first: with a causal mask it takes longest. */
template <class T> struct attention_place {
    const T *query, *cached, *own; /* of this head, token 0 */
    T *out;
    const uint8_t *mask; /* or NULL; own tokens that the last query may see */
    int32_t first_query;
    int32_t own_keys; /* own keys that this tile of queries reads */

    __device__ __forceinline__ attention_place(const attention_problem<T> &p, int queries)
    {
        const uint32_t row = blockIdx.x / p.query_tiles;
        const int64_t segment = row / p.heads, channel = (int64_t)(row % p.heads) * p.head_dim;
        first_query = (p.query_tiles - 1 - (int32_t)(blockIdx.x % p.query_tiles)) * queries;
        query = p.query + segment * p.query_stride + channel;
        cached = p.cached.keys + row / p.heads % p.cached.segments * p.cached.stride + channel;
        own = p.own.keys + segment * p.own.stride + channel;
        out = p.out + segment * p.out_stride + channel;
        mask = p.last_query_mask != nullptr && first_query + queries >= p.tokens
                   ? p.last_query_mask + segment * p.tokens
                   : nullptr;
        own_keys = p.causal && first_query + queries < p.tokens ? first_query + queries : p.tokens;
    }
};

/* A tile of keys: rows of a source from `first` on; the source has `count` rows (count > first). */
template <class T> struct attention_tile {
    const T *keys;
    int32_t pitch, first, count;
    bool own;
};

template <class T>
__device__ __forceinline__ attention_tile<T>
attention_tile_at(const attention_problem<T> &p, const attention_place<T> &at, int tile, int cached_tiles, int keys)
{
    attention_tile<T> t;
    t.own = tile >= cached_tiles;
    t.keys = t.own ? at.own : at.cached;
    t.pitch = t.own ? p.own.pitch : p.cached.pitch;
    t.first = (t.own ? tile - cached_tiles : tile) * keys;
    t.count = t.own ? p.tokens : p.cached.tokens;
    return t;
}

/* ---- flash attention: shapes ------------------------------------------------------------------------------------- */

constexpr int FLASH_WARPS = 4, FLASH_THREADS = FLASH_WARPS * 32;

/* QUERY_KEPT: the queries' fragments stay in registers, so their shared memory is reused as the second buffer. */
template <class T, int D, int M, int KEYS, bool QUERY_KEPT> struct flash_shape {
    static constexpr int WIDE = 16 / sizeof(T);       /* elements of a chunk */
    static constexpr int CHUNKS = D / WIDE;           /* of a row */
    static constexpr int PITCH = (CHUNKS | 1) * WIDE; /* elements */
    static constexpr int STEPS = CHUNKS / 2; /* whole steps of the scores' products: 32 bytes of channels each */
    static constexpr bool HALF = CHUNKS % 2; /* and one more step of 16 bytes */
    static constexpr int QUERIES = FLASH_WARPS * 16 * M; /* of a block */
    static constexpr int BUFFER = 2 * KEYS * PITCH;      /* elements: keys, then values */
    static constexpr int QUERY_AT = QUERY_KEPT ? BUFFER : 2 * BUFFER;
    static constexpr int BYTES = (2 * BUFFER + (QUERY_KEPT ? 0 : QUERIES * PITCH)) * (int)sizeof(T);
    static_assert(KEYS % 32 == 0 && D % 8 == 0, "half steps read 32 keys");
    static_assert(!QUERY_KEPT || QUERIES * PITCH <= BUFFER, "queries lie in the second buffer");
    static_assert(QUERIES * PITCH <= 2 * BUFFER, "results lie in both");
    static_assert(BYTES <= 99 * 1024, "sm_86, sm_89 and sm_120 have no more");
};

/* ---- products of fragments: 16-bit types, TF32 ------------------------------------------------------------------- */

/* d += a b of one step: 16 channels (TF32: 8). */
template <class T>
__device__ __forceinline__ void flash_product(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    mma<T>(d, a, b);
}
template <>
__device__ __forceinline__ void flash_product<float>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    mma_tf32(d, a, b);
}

/* Converts what ldmatrix read to a factor of a product: float32 is rounded to TF32. */
template <class T, int N> __device__ __forceinline__ void flash_factor(uint32_t (&r)[N])
{
    if constexpr (sizeof(T) == 4)
#pragma unroll
        for (int i = 0; i < N; i++)
            r[i] = to_tf32(__uint_as_float(r[i]));
}

template <class T> __device__ __forceinline__ uint32_t flash_pair(float low, float high)
{
    uint32_t pair;
    if constexpr (sizeof(ps3c_pack<T, 2>) == 4) {
        ps3c_pack<T, 2> p = {{ps3c_from_float<T>(low), ps3c_from_float<T>(high)}};
        memcpy(&pair, &p, 4);
    }
    return pair;
}
/* One instruction each. */
template <> __device__ __forceinline__ uint32_t flash_pair<ps3c_half>(float low, float high)
{
    const __half2 p = __floats2half2_rn(low, high);
    uint32_t pair;
    memcpy(&pair, &p, 4);
    return pair;
}
template <> __device__ __forceinline__ uint32_t flash_pair<ps3c_bf16>(float low, float high)
{
    const __nv_bfloat162 p = __floats2bfloat162_rn(low, high);
    uint32_t pair;
    memcpy(&pair, &p, 4);
    return pair;
}

/* ---- copies into shared memory ----------------------------------------------------------------------------------- */

/* Starts the copy of ROWS rows of `from`, from row `first` on, to `to`; if values is not 0, also of their values,
 * `values` elements behind, to to + ROWS * PITCH. A thread always copies the same column, which keeps the addresses
 * cheap. Rows from `count` on and channels from head_dim on become zero. */
template <class T, class S, int ROWS>
__device__ __forceinline__ void flash_copy(T *to, const T *from, int32_t pitch, int32_t first, int32_t count,
                                           int32_t head_dim, int64_t values)
{
    constexpr int AT_ONCE = FLASH_THREADS / S::CHUNKS;
    const int row = threadIdx.x / S::CHUNKS, c = threadIdx.x % S::CHUNKS * S::WIDE;
    const bool inside = c < head_dim;
    from += inside ? c : 0;
    to += row * S::PITCH + c;
    if (row >= AT_ONCE)
        return;
#pragma unroll
    for (int r = 0; r < ROWS; r += AT_ONCE) {
        const int32_t token = first + row + r;
        const bool valid = inside && token < count;
        const T *source = from + (int64_t)(token < count ? token : count - 1) * pitch;
        if (r + AT_ONCE > ROWS && row + r >= ROWS)
            break;
        cp_async16(to + r * S::PITCH, source, valid);
        if (values)
            cp_async16(to + (ROWS + r) * S::PITCH, source + values, valid);
    }
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* Fragments of a warp's queries for one step; in a half step the upper half is zero. */
template <class T, class S, int M>
__device__ __forceinline__ void flash_queries(uint32_t (&q)[M][4], const T *queries, int step)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < M; m++) {
        const T *row = queries + (m * 16 + lane % 16) * S::PITCH + step * 2 * S::WIDE;
        if (step < S::STEPS) {
            ldmatrix<4, false>(q[m], row + lane / 16 * S::WIDE);
        } else {
            uint32_t half[2];
            ldmatrix<2, false>(half, row);
            q[m][0] = half[0], q[m][1] = half[1], q[m][2] = q[m][3] = 0;
        }
        flash_factor<T>(q[m]);
    }
}

/* score += queries keys^T of one step. */
template <class T, class S, int M, int KEYS>
__device__ __forceinline__ void flash_score_step(float (&score)[M][KEYS / 8][4], const uint32_t (&q)[M][4],
                                                 const T *keys, int step)
{
    const int lane = threadIdx.x % 32;
    const T *column = keys + step * 2 * S::WIDE;
    if (step < S::STEPS) {
#pragma unroll
        for (int j = 0; j < KEYS / 8; j += 2) {
            uint32_t k[4];
            ldmatrix<4, false>(k, column + (j * 8 + lane / 16 * 8 + lane % 8) * S::PITCH + lane / 8 % 2 * S::WIDE);
            flash_factor<T>(k);
#pragma unroll
            for (int m = 0; m < M; m++) {
                flash_product<T>(score[m][j], q[m], {k[0], k[1]});
                flash_product<T>(score[m][j + 1], q[m], {k[2], k[3]});
            }
        }
    } else {
#pragma unroll
        for (int j = 0; j < KEYS / 8; j += 4) {
            uint32_t k[4];
            ldmatrix<4, false>(k, column + (j * 8 + lane) * S::PITCH);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int m = 0; m < M; m++)
                    flash_product<T>(score[m][j + i], q[m], {k[i], 0});
        }
    }
}

/* Sets the scores of masked keys to -infinity. A thread has rows lane / 4 and lane / 4 + 8, and two columns of every
 * 8. */
template <class T, int M, int KEYS>
__device__ __forceinline__ void flash_mask(float (&score)[M][KEYS / 8][4], const attention_problem<T> &p,
                                           const uint8_t *mask, const attention_tile<T> &tile, int32_t warp_query)
{
    const int lane = threadIdx.x % 32, column = lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int32_t query = warp_query + m * 16 + r * 8 + lane / 4;
            const int32_t seen = tile.own && p.causal && query + 1 < tile.count ? query + 1 : tile.count;
            const int32_t limit = seen - tile.first - column;
            const bool last = tile.own && mask != nullptr && query == p.tokens - 1;
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    bool hidden = j * 8 + c >= limit;
                    if (last && !hidden)
                        hidden = mask[tile.first + column + j * 8 + c] == 0;
                    score[m][j][r * 2 + c] = hidden ? -INFINITY : score[m][j][r * 2 + c];
                }
        }
}

/* ---- softmax ----------------------------------------------------------------------------------------------------- */

/* A thread's state of its rows: the reference maximum of the exponentials (the same in a quad), the sum of the thread's
 * own exponentials, and its part of the result. */
template <int M, int D> struct flash_rows {
    float max[M][2], sum[M][2], out[M][D / 8][4];
};

/* Updates the reference maximum from the scores. base: is added to the scaled scores. A row that has only -infinity so
 * far gets base 0, so that its exponentials are 0. */
template <int M, int D, int N>
__device__ __forceinline__ void flash_follow_maximum(flash_rows<M, D> &rows, float (&base)[M][2],
                                                     const float (&score)[M][N][4], float scale, float slack)
{
#pragma unroll
    for (int m = 0; m < M; m++) {
        float factor[2];
        bool moved = false;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float top = score[m][0][r * 2];
#pragma unroll
            for (int j = 0; j < N; j++)
                top = fmaxf(top, fmaxf(score[m][j][r * 2], score[m][j][r * 2 + 1])); /* ignores NaN */
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
            top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
            const float old = rows.max[m][r];
            const bool up = top > old + slack;
            rows.max[m][r] = up ? top : old;
            factor[r] = up ? fast_exp2((old - top) * scale) : 1.0f;
            base[m][r] = rows.max[m][r] == -INFINITY ? 0.0f : -rows.max[m][r] * scale;
            moved = moved || up;
        }
        if (__any_sync(0xffffffffu, moved)) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
                rows.sum[m][r] *= factor[r];
#pragma unroll
                for (int n = 0; n < D / 8; n++)
                    rows.out[m][n][r * 2] *= factor[r], rows.out[m][n][r * 2 + 1] *= factor[r];
            }
        }
    }
}

/* Scores of 8 keys to exponentials, in place. */
template <int M, int D, int N>
__device__ __forceinline__ void flash_exponentials(flash_rows<M, D> &rows, const float (&base)[M][2],
                                                   float (&score)[M][N][4], int j, float scale)
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            score[m][j][i] = fast_exp2(__fmaf_rn(score[m][j][i], scale, base[m][i / 2]));
            rows.sum[m][i / 2] += score[m][j][i];
        }
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* out += exp(scores) values. Each exponential is computed just before the product that uses it, so that both
 * overlap. */
template <class T, class S, int M, int D, int KEYS>
__device__ __forceinline__ void flash_values(flash_rows<M, D> &rows, const float (&base)[M][2],
                                             float (&score)[M][KEYS / 8][4], const T *values, float scale)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < KEYS / 8; j += 2) {
        uint32_t p[M][4];
        flash_exponentials(rows, base, score, j, scale);
        flash_exponentials(rows, base, score, j + 1, scale);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[m][i] = flash_pair<T>(score[m][j + i / 2][i % 2 * 2], score[m][j + i / 2][i % 2 * 2 + 1]);
        const T *row = values + (j * 8 + lane % 16) * S::PITCH;
#pragma unroll
        for (int n = 0; n + 1 < D / 8; n += 2) {
            uint32_t v[4];
            ldmatrix<4, true>(v, row + n * 8 + lane / 16 * 8);
#pragma unroll
            for (int m = 0; m < M; m++) {
                flash_product<T>(rows.out[m][n], p[m], {v[0], v[1]});
                flash_product<T>(rows.out[m][n + 1], p[m], {v[2], v[3]});
            }
        }
        if constexpr (D / 8 % 2) {
            uint32_t v[2];
            ldmatrix<2, true>(v, row + D - 8);
#pragma unroll
            for (int m = 0; m < M; m++)
                flash_product<T>(rows.out[m][D / 8 - 1], p[m], v);
        }
    }
}

/* TF32. The order of the keys within a step is free if both factors use the same one. With keys 2t and 2t + 1 as
 * columns t and t + 4, the scores already are the fragment. */
template <class T, class S, int M, int D, int KEYS>
__device__ __forceinline__ void flash_values_tf32(flash_rows<M, D> &rows, const float (&base)[M][2],
                                                  float (&score)[M][KEYS / 8][4], const T *values, float scale)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++) {
        uint32_t p[M][4];
        flash_exponentials(rows, base, score, j, scale);
#pragma unroll
        for (int m = 0; m < M; m++) {
            p[m][0] = to_tf32(score[m][j][0]), p[m][1] = to_tf32(score[m][j][2]);
            p[m][2] = to_tf32(score[m][j][1]), p[m][3] = to_tf32(score[m][j][3]);
        }
        const T *row = values + (j * 8 + lane % 4 * 2) * S::PITCH + lane / 4;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const uint32_t v[2] = {to_tf32(row[n * 8]), to_tf32(row[S::PITCH + n * 8])};
#pragma unroll
            for (int m = 0; m < M; m++)
                flash_product<T>(rows.out[m][n], p[m], v);
        }
    }
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

/* Stores a warp's results through its own rows of shared memory, so that global stores are 16 bytes wide. */
template <class T, class S, int M, int D>
__device__ __forceinline__ void flash_store(flash_rows<M, D> &rows, T *staged, T *out, int32_t pitch, int32_t queries,
                                            int32_t head_dim)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float sum = rows.sum[m][r];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            const float factor = 1.0f / sum;
            T *row = staged + (m * 16 + r * 8 + lane / 4) * S::PITCH + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                *(ps3c_pack<T, 2> *)(row + n * 8) = {{ps3c_from_float<T>(rows.out[m][n][r * 2] * factor),
                                                      ps3c_from_float<T>(rows.out[m][n][r * 2 + 1] * factor)}};
        }
    __syncwarp();
    for (int i = lane; i < 16 * M * S::CHUNKS; i += 32) {
        const int row = i / S::CHUNKS, c = i % S::CHUNKS * S::WIDE;
        if (row < queries && c < head_dim)
            *(uint4 *)(out + (int64_t)row * pitch + c) = *(const uint4 *)(staged + row * S::PITCH + c);
    }
}

/* ---- kernel ------------------------------------------------------------------------------------------------------ */

/* One warp's work on a tile of keys and values. */
template <class T, class S, int D, int M, int KEYS, bool QUERY_KEPT, int Q>
__device__ __forceinline__ void flash_tile(flash_rows<M, D> &rows, const uint32_t (&kept)[Q][M][4], const T *queries,
                                           const T *keys, const attention_problem<T> &p, const uint8_t *mask,
                                           const attention_tile<T> &tile, int32_t warp_query)
{
    float score[M][KEYS / 8][4] = {}, base[M][2];
#pragma unroll
    for (int step = 0; step < S::STEPS + S::HALF; step++) {
        if constexpr (QUERY_KEPT) {
            flash_score_step<T, S, M, KEYS>(score, kept[step], keys, step);
        } else {
            uint32_t q[M][4];
            flash_queries<T, S, M>(q, queries, step);
            flash_score_step<T, S, M, KEYS>(score, q, keys, step);
        }
    }
    if (tile.first + KEYS > tile.count ||
        (tile.own && ((p.causal && tile.first + KEYS - 1 > warp_query) || mask != nullptr)))
        flash_mask<T, M, KEYS>(score, p, mask, tile, warp_query);
    flash_follow_maximum(rows, base, score, p.scale, p.slack);
    if constexpr (sizeof(T) == 2)
        flash_values<T, S, M, D, KEYS>(rows, base, score, keys + KEYS * S::PITCH, p.scale);
    else
        flash_values_tf32<T, S, M, D, KEYS>(rows, base, score, keys + KEYS * S::PITCH, p.scale);
}

template <class T, int D, int M, int KEYS, bool QUERY_KEPT>
__global__ void __launch_bounds__(FLASH_THREADS, 2) attention_flash(attention_problem<T> p)
{
    using S = flash_shape<T, D, M, KEYS, QUERY_KEPT>;
    PS3C_DYNAMIC_SHARED(T, shared);
    const attention_place<T> at(p, S::QUERIES);
    const int warp = threadIdx.x / 32, warp_row = warp * 16 * M;
    const int32_t warp_query = at.first_query + warp_row;
    const int cached_tiles = (p.cached.tokens + KEYS - 1) / KEYS;
    const int tiles = cached_tiles + (at.own_keys + KEYS - 1) / KEYS;
    const int64_t values = (int64_t)p.heads * p.head_dim;
    T *queries = shared + S::QUERY_AT;
    uint32_t kept[QUERY_KEPT ? S::STEPS + S::HALF : 1][M][4];
    flash_rows<M, D> rows = {};
#pragma unroll
    for (int m = 0; m < M; m++)
        rows.max[m][0] = rows.max[m][1] = -INFINITY;

    flash_copy<T, S, S::QUERIES>(queries, at.query, p.query_pitch, at.first_query, p.tokens, p.head_dim, 0);
    cp_async_commit();
    attention_tile<T> next = attention_tile_at(p, at, 0, cached_tiles, KEYS);
    flash_copy<T, S, KEYS>(shared, next.keys, next.pitch, next.first, next.count, p.head_dim, values);
    cp_async_commit();
    if constexpr (QUERY_KEPT) {
        cp_async_wait<1>();
        __syncthreads();
#pragma unroll
        for (int step = 0; step < S::STEPS + S::HALF; step++)
            flash_queries<T, S, M>(kept[step], queries + warp_row * S::PITCH, step);
    }
    for (int t = 0; t < tiles; t++) {
        const attention_tile<T> tile = next;
        cp_async_wait<0>();
        __syncthreads(); /* this tile has arrived; no warp reads the other buffer any more */
        if (t + 1 < tiles) {
            next = attention_tile_at(p, at, t + 1, cached_tiles, KEYS);
            flash_copy<T, S, KEYS>(shared + (t + 1) % 2 * S::BUFFER, next.keys, next.pitch, next.first, next.count,
                                   p.head_dim, values);
            cp_async_commit();
        }
        const bool ahead = tile.own && p.causal && tile.first >= warp_query + 16 * M;
        if (warp_query < p.tokens && !ahead)
            flash_tile<T, S, D, M, KEYS, QUERY_KEPT>(rows, kept, queries + warp_row * S::PITCH,
                                                     shared + t % 2 * S::BUFFER, p, at.mask, tile, warp_query);
    }
    __syncthreads();
    flash_store<T, S, M, D>(rows, shared + warp_row * S::PITCH, at.out + (int64_t)warp_query * p.out_pitch, p.out_pitch,
                            p.tokens - warp_query, p.head_dim);
}

/* ---- launch ------------------------------------------------------------------------------------------------------ */

template <class T, int D, int M, int KEYS, bool QUERY_KEPT>
ps3c_status attention_flash_launch(const ps3c_run *run, const ps3c_attention_args *args)
{
    using S = flash_shape<T, D, M, KEYS, QUERY_KEPT>;
    const attention_problem<T> p = attention_problem_of<T>(args, S::QUERIES);
    const int64_t blocks = (int64_t)p.query_tiles * args->query->segments * args->heads;
    if (blocks > 0)
        PS3C_CUDA_LAUNCH(run, "attention", (attention_flash<T, D, M, KEYS, QUERY_KEPT>), (unsigned)blocks,
                         FLASH_THREADS, S::BYTES, p);
    return PS3C_OK;
}

} // namespace

#endif
