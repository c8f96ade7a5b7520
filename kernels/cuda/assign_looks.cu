/* From ranks to looks. A binary search of a patch's rank in the ends of its image's looks at its scale gives its look.
 * Its position in the look is the number of patches of that look before it; its row is the number of selected patches
 * before it. Both are counted like the digits of a radix sort (places.cuh), in two launches over tiles of patches of
 * all scales and images: first each tile counts its looks, then each tile sums the counts of the tiles before it and
 * writes its patches.
 *
 * A round has at most LOOKS looks and IMAGES images; more take further rounds of the same two launches. The ends are
 * passed as kernel parameters, packed for the round. */
#include <cstring>

#include "places.cuh"
#include "upload.cuh"

namespace
{

constexpr int ITEMS = 8, WARPS = 8, THREADS = WARPS * 32, TILE = THREADS * ITEMS;
constexpr int LOOKS = PS3C_DIGITS - 1; /* of a round; the next digit marks patches of no look of the round */
constexpr int IMAGES = 32;             /* of a round */
constexpr int SCALES = PS3C_MAX_SCALES;

/* ---- kernel arguments -------------------------------------------------------------------------------------------- */

struct look_entry {
    int64_t first, tokens;
};

/* A scale in a launch. */
struct look_scale {
    const int32_t *rank; /* of image 0 */
    void *map;
    int64_t patches, first; /* first: position of its first patch */
    int64_t first_tile, tiles;
};

struct look_args {
    int64_t first_image, images, num_scales, tiles; /* tiles: of an image, all scales */
    int looks, bits;                                /* bits: of a digit from 0 to looks */
    bool maps;                                      /* write the maps: in the first round of looks */
    const look_entry *entries;                      /* [looks] */
    const int32_t *ends; /* [images][num_scales][looks + 2]: end before the first look, every look's, the last of all */
    int32_t *counts;     /* [images][tiles][PS3C_DIGITS]; in the last place: selected patches */
    int32_t *positions, *row_of;
    look_scale scale[SCALES];
};

/* The tile of a block. */
struct look_tile {
    int64_t image, scale, tile; /* image of the round; tile of the scale */
};

__device__ __forceinline__ look_tile tile_of_block(const look_args &args)
{
    look_tile at = {blockIdx.x / args.tiles, args.num_scales - 1, 0};
    const int64_t tile = blockIdx.x - at.image * args.tiles;
    while (at.scale > 0 && tile < args.scale[at.scale].first_tile)
        at.scale--;
    at.tile = tile - args.scale[at.scale].first_tile;
    return at;
}

__device__ __forceinline__ const int32_t *ends_of(const look_args &args, int64_t image, int64_t scale)
{
    return args.ends + (image * args.num_scales + scale) * (args.looks + 2);
}

/* ---- a tile's looks ---------------------------------------------------------------------------------------------- */

/* look[i]: the look in this round of this thread's patch i; args.looks: none. Returns a bit for each patch that is
 * selected in any round. ends: shared memory, filled here. */
__device__ __forceinline__ unsigned load_looks(const look_args &args, const look_tile &at, int32_t *ends,
                                               int (&look)[ITEMS])
{
    const int32_t *of_scale = ends_of(args, at.image, at.scale);
    const look_scale &scale = args.scale[at.scale];
    const int32_t *rank = scale.rank + (args.first_image + at.image) * scale.patches;
    unsigned selected = 0;
    for (int i = threadIdx.x; i < args.looks + 2; i += THREADS)
        ends[i] = of_scale[i];
    __syncthreads();
    for (int i = 0; i < ITEMS; i++) {
        const int64_t patch = at.tile * TILE + ps3c_tile_at<ITEMS>(i);
        look[i] = args.looks;
        if (patch >= scale.patches)
            continue;
        const int32_t place = rank[patch];
        int low = 0, high = args.looks; /* the first look whose end is greater than the rank */
        while (low < high) {
            const int middle = (low + high) / 2;
            if (place < ends[middle + 1])
                high = middle;
            else
                low = middle + 1;
        }
        look[i] = place < ends[0] ? args.looks : low;
        selected |= place < ends[args.looks + 1] ? 1u << i : 0;
    }
    return selected;
}

__global__ void __launch_bounds__(THREADS) count_looks(look_args args)
{
    PS3C_SHARED(int, counts, [WARPS][PS3C_DIGITS]);
    PS3C_SHARED(int, sums, [WARPS]);
    PS3C_SHARED(int32_t, ends, [LOOKS + 2]);
    const int digit = threadIdx.x;
    int look[ITEMS], place[ITEMS];
    ps3c_clear_counts(counts);
    const unsigned selected = load_looks(args, tile_of_block(args), ends, look);
    ps3c_warp_places(look, args.bits, counts[threadIdx.x / 32], place);
    __syncthreads();
    const int before = ps3c_block_before(__popc(selected), sums);
    const bool last = digit == THREADS - 1; /* this digit is never a look */
    args.counts[(int64_t)blockIdx.x * PS3C_DIGITS + digit] =
        last ? before + __popc(selected) : ps3c_tile_count(counts, digit);
}

/* ---- counts before a tile -------------------------------------------------------------------------------------- */

/* How often this thread's digit occurs in the earlier tiles of the scale. */
__device__ __forceinline__ int count_before(const look_args &args, const look_tile &at)
{
    const int64_t first = at.image * args.tiles + args.scale[at.scale].first_tile;
    int sum = 0;
    for (int64_t i = 0; i < at.tile; i++)
        sum += args.counts[(first + i) * PS3C_DIGITS + threadIdx.x];
    return sum;
}

/* Index of the first entry of `look`, for this image and this scale: entries of earlier scales come before. */
__device__ __forceinline__ int64_t first_entry(const look_args &args, const look_tile &at, int look)
{
    int64_t first = args.entries[look].first + (args.first_image + at.image) * args.entries[look].tokens;
    for (int64_t i = 0; i < at.scale; i++) {
        const int32_t *ends = ends_of(args, at.image, i);
        first += ends[look + 1] - ends[look];
    }
    return first;
}

/* Number of selected patches of earlier scales. */
__device__ __forceinline__ int rows_before(const look_args &args, const look_tile &at)
{
    int rows = 0;
    for (int64_t i = 0; i < at.scale; i++)
        rows += ends_of(args, at.image, i)[args.looks + 1];
    return rows;
}

template <class T> __global__ void __launch_bounds__(THREADS) write_looks(look_args args)
{
    static_assert(THREADS == PS3C_DIGITS, "a thread per digit");
    PS3C_SHARED(int, counts, [WARPS][PS3C_DIGITS]);
    PS3C_SHARED(int64_t, firsts, [PS3C_DIGITS]);
    PS3C_SHARED(int, sums, [WARPS]);
    PS3C_SHARED(int32_t, ends, [LOOKS + 2]);
    PS3C_SHARED(int, row_of_tile, [1]);
    const int digit = threadIdx.x, warp = threadIdx.x / 32;
    const look_tile at = tile_of_block(args);
    const look_scale &scale = args.scale[at.scale];
    int look[ITEMS], place[ITEMS];
    ps3c_clear_counts(counts);
    const unsigned selected = load_looks(args, at, ends, look);
    ps3c_warp_places(look, args.bits, counts[warp], place);
    const int before = count_before(args, at);
    firsts[digit] = digit < args.looks ? first_entry(args, at, digit) : 0;
    if (digit == PS3C_DIGITS - 1)
        row_of_tile[0] = rows_before(args, at) + before;
    __syncthreads();
    ps3c_counts_to_places(counts, digit, before);
    /* Rows are numbered by warp, then by item, then by lane. */
    int of_warp = 0;
    for (int i = 0; i < ITEMS; i++)
        of_warp += __popc(__ballot_sync(0xffffffffu, selected >> i & 1));
    int row = row_of_tile[0] +
              ps3c_block_before(digit % 32 == 31 ? of_warp : 0, sums); /* of_warp counts once, in the last lane */
    row = __shfl_sync(0xffffffffu, row, 0);
    T *map = (T *)scale.map + (args.first_image + at.image) * scale.patches;
    for (int i = 0; i < ITEMS; i++) {
        const int64_t patch = at.tile * TILE + ps3c_tile_at<ITEMS>(i);
        const unsigned chosen = __ballot_sync(0xffffffffu, selected >> i & 1);
        if (look[i] < args.looks) {
            const int64_t entry = firsts[look[i]] + counts[warp][look[i]] + place[i];
            args.positions[entry] = (int32_t)(scale.first + patch);
            args.row_of[entry] = row + __popc(chosen & ((1u << digit % 32) - 1));
        }
        row += __popc(chosen);
        if (args.maps && patch < scale.patches)
            map[patch] = ps3c_from_float<T>(selected >> i & 1 ? 1.0f : 0.0f);
    }
}

/* ---- tables of a round, as kernel parameters --------------------------------------------------------------------- */

/* Collects words on the stack and enqueues an upload when a launch's parameters are full. */
class table_writer
{
    enum { WORDS = 896 };
    const ps3c_run *run_;
    uint32_t words_[WORDS], *device_;
    int count_ = 0;

  public:
    table_writer(const ps3c_run *run, void *device) : run_(run), device_((uint32_t *)device) {}
    ps3c_status flush()
    {
        const int count = count_;
        if (!count)
            return PS3C_OK;
        count_ = 0;
        device_ += count;
        return ps3c_cuda_upload(run_, "assign_looks", device_ - count, words_, (size_t)count * 4);
    }
    template <class T> ps3c_status add(const T &value)
    {
        constexpr int words = sizeof(T) / 4;
        if (count_ + words > WORDS)
            PS3C_TRY(flush());
        memcpy(words_ + count_, &value, sizeof value);
        count_ += words;
        return PS3C_OK;
    }
};

/* Scratch: entries, ends, counts. */
constexpr size_t ENTRIES_BYTES = LOOKS * sizeof(look_entry) + 16;
constexpr size_t ENDS_BYTES = (size_t)IMAGES * SCALES * (LOOKS + 2) * sizeof(int32_t);
constexpr size_t TILE_BYTES = PS3C_DIGITS * sizeof(int32_t);

ps3c_status upload_tables(const ps3c_run *run, const ps3c_assign_looks_args *args, int64_t first_look,
                          const look_args *round)
{
    table_writer entries(run, run->scratch), ends(run, (char *)run->scratch + ENTRIES_BYTES);
    for (int64_t l = first_look; l < first_look + round->looks; l++)
        PS3C_TRY(entries.add(look_entry{args->look_first[l], args->look_tokens[l]}));
    PS3C_TRY(entries.flush());
    for (int64_t i = round->first_image * args->num_scales; i < (round->first_image + round->images) * args->num_scales;
         i++) {
        const int32_t *of_scale = args->ends + i * args->looks;
        PS3C_TRY(ends.add(first_look ? of_scale[first_look - 1] : 0));
        for (int l = 0; l < round->looks; l++)
            PS3C_TRY(ends.add(of_scale[first_look + l]));
        PS3C_TRY(ends.add(args->looks ? of_scale[args->looks - 1] : 0));
    }
    return ends.flush();
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

template <class T>
ps3c_status run_round(const ps3c_run *run, const ps3c_assign_looks_args *args, int64_t first_look, look_args *round)
{
    const int64_t left = args->looks - first_look, images_left = args->batch - round->first_image;
    round->looks = (int)(left < LOOKS ? left : LOOKS);
    round->images = images_left < IMAGES ? images_left : IMAGES;
    round->maps = first_look == 0;
    for (round->bits = 1; 1 << round->bits <= round->looks;)
        round->bits++;
    PS3C_TRY(upload_tables(run, args, first_look, round));
    const unsigned blocks = (unsigned)(round->images * round->tiles);
    PS3C_CUDA_LAUNCH(run, "assign_looks", count_looks, blocks, THREADS, 0, *round);
    PS3C_CUDA_LAUNCH(run, "assign_looks", (write_looks<T>), blocks, THREADS, 0, *round);
    return PS3C_OK;
}

template <class T> ps3c_status assign_looks(const ps3c_run *run, const ps3c_assign_looks_args *args)
{
    look_args round = {};
    round.num_scales = args->num_scales;
    for (int64_t i = 0; i < args->num_scales; i++) {
        const int64_t patches = args->scales[i].rows * args->scales[i].cols, tiles = (patches + TILE - 1) / TILE;
        round.scale[i] = {args->rank[i], args->maps[i].data, patches, args->scales[i].first, round.tiles, tiles};
        round.tiles += tiles;
    }
    char *scratch = (char *)run->scratch;
    round.entries = (const look_entry *)scratch;
    round.ends = (const int32_t *)(scratch + ENTRIES_BYTES);
    round.counts = (int32_t *)(scratch + ENTRIES_BYTES + ENDS_BYTES);
    round.positions = args->positions;
    round.row_of = args->row_of;
    for (; round.first_image < args->batch; round.first_image += IMAGES) {
        int64_t look = 0;
        do {
            PS3C_TRY(run_round<T>(run, args, look, &round));
            look += LOOKS;
        } while (look < args->looks);
    }
    return PS3C_OK;
}

} // namespace

/* The tables of a round and the counts of its tiles. At each scale there is at most one partial tile per image, and at
 * most positions / TILE full ones. */
size_t ps3c_assign_looks_cuda_scratch(int64_t positions)
{
    const size_t tiles = SCALES * ((size_t)IMAGES + (size_t)positions / TILE);
    return ENTRIES_BYTES + ENDS_BYTES + tiles * TILE_BYTES;
}

extern "C" ps3c_status ps3c_assign_looks_cuda(const ps3c_run *run, const ps3c_assign_looks_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return assign_looks<T>(run, args));
}
