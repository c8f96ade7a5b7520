/* Stable descending order of probabilities: LSD radix sort, 8 bits per pass, on keys that ascend as probabilities
 * descend: 2 passes for 16-bit types, 4 for float32. All images of a call are sorted in the same launches, each on its
 * own.
 *
 * An image of at most SMALL patches is sorted by one block in shared memory. A larger one is split into tiles, and a
 * pass is two launches: first each tile counts its digits, then each tile sums the counts of the tiles before it and
 * moves its elements. The last pass writes ranks instead. Elements past the image's end have the greatest key: they
 * come last and do not change the positions of others. */
#include "places.cuh"

namespace
{

constexpr int ITEMS = 8;
constexpr int SMALL_WARPS = 16, SMALL = SMALL_WARPS * 32 * ITEMS; /* 4096 */
constexpr int WARPS = 8, THREADS = WARPS * 32, TILE = THREADS * ITEMS;
constexpr int BITS = 8;

/* ---- keys -------------------------------------------------------------------------------------------------------- */

template <int BYTES> struct bits_of;
template <> struct bits_of<4> {
    using type = uint32_t;
};
template <> struct bits_of<2> {
    using type = uint16_t;
};
template <class T> struct infinity_of; /* its bits */
template <> struct infinity_of<float> {
    static constexpr uint32_t bits = 0x7f800000u;
};
template <> struct infinity_of<ps3c_half> {
    static constexpr uint32_t bits = 0x7c00u;
};
template <> struct infinity_of<ps3c_bf16> {
    static constexpr uint32_t bits = 0x7f80u;
};

/* 0 and -0 have the same key; NaN has the greatest. */
template <class T> __device__ __forceinline__ uint32_t key_of(const T *probs, int64_t i)
{
    constexpr uint32_t sign = 1u << (sizeof(T) * 8 - 1);
    const uint32_t bits = ((const typename bits_of<sizeof(T)>::type *)probs)[i], size = bits & (sign - 1);
    if (size > infinity_of<T>::bits)
        return sign * 2u - 1u;
    return bits == size || size == 0 ? sign - 1 - size : bits;
}

/* ---- one block --------------------------------------------------------------------------------------------------- */

template <class T> __global__ void __launch_bounds__(SMALL_WARPS * 32) rank_small(const T *probs, int32_t *rank, int n)
{
    PS3C_SHARED(uint32_t, keys, [SMALL]);
    PS3C_SHARED(uint16_t, indices, [SMALL]);
    PS3C_SHARED(int, counts, [SMALL_WARPS][PS3C_DIGITS]);
    PS3C_SHARED(int, sums, [SMALL_WARPS]);
    const int64_t image = (int64_t)blockIdx.x * n;
    const int warp = threadIdx.x / 32;
    uint32_t key[ITEMS];
    int index[ITEMS], digit[ITEMS], place[ITEMS];
    for (int i = 0; i < ITEMS; i++) {
        index[i] = ps3c_tile_at<ITEMS>(i);
        key[i] = index[i] < n ? key_of(probs, image + index[i]) : 0xffffffffu;
    }
    for (int shift = 0; shift < (int)sizeof(T) * 8; shift += BITS) {
        for (int i = 0; i < ITEMS; i++)
            digit[i] = key[i] >> shift & (PS3C_DIGITS - 1);
        ps3c_clear_counts(counts);
        __syncthreads();
        ps3c_warp_places(digit, BITS, counts[warp], place);
        __syncthreads();
        const int mine = threadIdx.x < PS3C_DIGITS ? ps3c_tile_count(counts, threadIdx.x) : 0;
        const int first = ps3c_block_before(mine, sums);
        if (threadIdx.x < PS3C_DIGITS)
            ps3c_counts_to_places(counts, threadIdx.x, first);
        __syncthreads();
        const bool last = shift + BITS == (int)sizeof(T) * 8;
        for (int i = 0; i < ITEMS; i++) {
            const int at = counts[warp][digit[i]] + place[i];
            if (!last) {
                keys[at] = key[i];
                indices[at] = (uint16_t)index[i];
            } else if (index[i] < n)
                rank[image + index[i]] = at;
        }
        __syncthreads();
        for (int i = 0; i < ITEMS && !last; i++) {
            key[i] = keys[ps3c_tile_at<ITEMS>(i)];
            index[i] = indices[ps3c_tile_at<ITEMS>(i)];
        }
    }
}

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

struct entry {
    uint32_t key;
    int32_t index;
};

template <class T> struct pass_args {
    const T *probs;    /* of the first pass */
    const entry *from; /* of any other; NULL: the first */
    entry *to;         /* NULL: the last pass */
    int32_t *rank;     /* of the last pass */
    int32_t *counts;   /* [images][tiles][PS3C_DIGITS] */
    int64_t n, tiles;  /* of an image */
    int shift;
};

/* The tile of a block. */
struct rank_tile {
    int64_t image, number; /* number: in the image */
};

template <class T> __device__ __forceinline__ rank_tile tile_of_block(const pass_args<T> &args)
{
    const int64_t image = blockIdx.x / args.tiles;
    return {image, blockIdx.x - image * args.tiles};
}

/* This thread's elements of the tile, their digits, and how many elements of the warp before each have its digit.
 * counts: filled here, complete after the next barrier. */
template <class T>
__device__ __forceinline__ void count_tile(const pass_args<T> &args, const rank_tile &tile, entry (&in)[ITEMS],
                                           int (&digit)[ITEMS], int (&place)[ITEMS], int (&counts)[WARPS][PS3C_DIGITS])
{
    const int64_t first = tile.image * args.n;
    for (int i = 0; i < ITEMS; i++) {
        const int64_t at = tile.number * TILE + ps3c_tile_at<ITEMS>(i);
        in[i] = {0xffffffffu, -1};
        if (at < args.n)
            in[i] = args.from ? args.from[first + at] : entry{key_of(args.probs, first + at), (int32_t)at};
        digit[i] = in[i].key >> args.shift & (PS3C_DIGITS - 1);
    }
    ps3c_clear_counts(counts);
    __syncthreads();
    ps3c_warp_places(digit, BITS, counts[threadIdx.x / 32], place);
}

template <class T> __global__ void __launch_bounds__(THREADS) count_digits(pass_args<T> args)
{
    PS3C_SHARED(int, counts, [WARPS][PS3C_DIGITS]);
    entry in[ITEMS];
    int digit[ITEMS], place[ITEMS];
    count_tile(args, tile_of_block(args), in, digit, place, counts);
    __syncthreads();
    args.counts[(int64_t)blockIdx.x * PS3C_DIGITS + threadIdx.x] = ps3c_tile_count(counts, threadIdx.x);
}

template <class T> __global__ void __launch_bounds__(THREADS) move_by_digit(pass_args<T> args)
{
    static_assert(THREADS == PS3C_DIGITS, "a thread per digit");
    PS3C_SHARED(int, counts, [WARPS][PS3C_DIGITS]);
    PS3C_SHARED(int, sums, [WARPS]);
    const rank_tile tile = tile_of_block(args);
    entry in[ITEMS];
    int digit[ITEMS], place[ITEMS];
    count_tile(args, tile, in, digit, place, counts);
    /* How often this thread's digit occurs, in the image and in the tiles before. */
    const int32_t *of_tile = args.counts + tile.image * args.tiles * PS3C_DIGITS + threadIdx.x;
    int all = 0, before = 0;
    for (int64_t i = 0; i < args.tiles; i++) {
        const int count = of_tile[i * PS3C_DIGITS];
        all += count;
        before += i < tile.number ? count : 0;
    }
    const int first = ps3c_block_before(all, sums);
    ps3c_counts_to_places(counts, threadIdx.x, first + before);
    __syncthreads();
    for (int i = 0; i < ITEMS; i++) {
        const int at = counts[threadIdx.x / 32][digit[i]] + place[i];
        if (in[i].index < 0)
            continue;
        if (args.to)
            args.to[tile.image * args.n + at] = in[i];
        else
            args.rank[tile.image * args.n + in[i].index] = at;
    }
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

template <class T> ps3c_status rank(const ps3c_run *run, const ps3c_rank_args *args)
{
    const int64_t batch = args->probs->shape[0], n = args->probs->shape[1] * args->probs->shape[2];
    const T *probs = (const T *)args->probs->data;
    if (n <= SMALL) {
        PS3C_CUDA_LAUNCH(run, "rank", (rank_small<T>), (unsigned)batch, SMALL_WARPS * 32, 0, probs, args->rank, (int)n);
        return PS3C_OK;
    }
    entry *one = (entry *)run->scratch, *other = one + batch * n;
    const int64_t tiles = (n + TILE - 1) / TILE;
    pass_args<T> pass = {probs, NULL, one, args->rank, (int32_t *)(other + batch * n), n, tiles, 0};
    for (; pass.shift < (int)sizeof(T) * 8; pass.shift += BITS) {
        if (pass.shift + BITS == (int)sizeof(T) * 8)
            pass.to = NULL;
        PS3C_CUDA_LAUNCH(run, "rank", (count_digits<T>), (unsigned)(batch * tiles), THREADS, 0, pass);
        PS3C_CUDA_LAUNCH(run, "rank", (move_by_digit<T>), (unsigned)(batch * tiles), THREADS, 0, pass);
        pass.from = pass.to;
        pass.to = pass.to == one ? other : one;
    }
    return PS3C_OK;
}

} // namespace

/* Two lists of entries, and counts. An image of more than SMALL patches has more than two full tiles, so that its
 * number of tiles is at most 1.5 times patches / TILE. */
size_t ps3c_rank_cuda_scratch(int64_t positions)
{
    const size_t tiles = (size_t)positions * 3 / (2 * TILE) + 1;
    return (size_t)positions * 2 * sizeof(entry) + tiles * PS3C_DIGITS * sizeof(int32_t);
}

extern "C" ps3c_status ps3c_rank_cuda(const ps3c_run *run, const ps3c_rank_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return rank<T>(run, args));
}
