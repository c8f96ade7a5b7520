/* Stable counting, as in a radix sort: how many elements before an element of a tile have the same digit. rank.cu
 * and assign_looks.cu compute positions from these counts. The counts are integers, so the order of warps does not
 * matter. */
#ifndef PS3C_CUDA_PLACES_CUH
#define PS3C_CUDA_PLACES_CUH

#include "cuda.cuh"

constexpr int PS3C_DIGITS = 256;

/* Sum over the lanes before this one. */
__device__ __forceinline__ int ps3c_warp_before(int x)
{
    const int lane = threadIdx.x % 32;
    int sum = x;
    for (int on = 1; on < 32; on *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, sum, on);
        sum += lane >= on ? other : 0;
    }
    return sum - x;
}

/* Sum over the threads before this one. Ends with a barrier, so that it can be called again. */
template <int WARPS> __device__ __forceinline__ int ps3c_block_before(int x, int (&sums)[WARPS])
{
    const int warp = threadIdx.x / 32;
    int before = ps3c_warp_before(x);
    if (threadIdx.x % 32 == 31)
        sums[warp] = before + x;
    __syncthreads();
    for (int i = 0; i < WARPS; i++)
        before += i < warp ? sums[i] : 0;
    __syncthreads();
    return before;
}

/* In a tile, every warp has ITEMS * 32 neighbouring elements. Number in the tile of this thread's element i. */
template <int ITEMS> __device__ __forceinline__ int ps3c_tile_at(int i)
{
    return (int)threadIdx.x / 32 * ITEMS * 32 + i * 32 + (int)threadIdx.x % 32;
}

/* place[i]: how many elements of the warp before element i have its digit, which has `bits` bits.
 * count: the warp's PS3C_DIGITS counters, all zero; afterwards the number of elements with each digit. */
template <int ITEMS>
__device__ __forceinline__ void ps3c_warp_places(const int (&digit)[ITEMS], int bits, int *count, int (&place)[ITEMS])
{
    const unsigned before = (1u << threadIdx.x % 32) - 1;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        unsigned same = 0xffffffffu;
        for (int bit = 0; bit < bits; bit++) {
            const int mine = digit[i] >> bit & 1;
            const unsigned ones = __ballot_sync(0xffffffffu, mine);
            same &= mine ? ones : ~ones;
        }
        const int first = count[digit[i]];
        place[i] = first + __popc(same & before);
        __syncwarp();
        if (!(same & before))
            count[digit[i]] = first + __popc(same);
        __syncwarp();
    }
}

/* Zeroes all warps' counters. No barrier. */
template <int WARPS> __device__ __forceinline__ void ps3c_clear_counts(int (&counts)[WARPS][PS3C_DIGITS])
{
    for (int i = threadIdx.x; i < WARPS * PS3C_DIGITS; i += WARPS * 32)
        counts[i / PS3C_DIGITS][i % PS3C_DIGITS] = 0;
}

/* Number of elements of the tile with a digit. */
template <int WARPS> __device__ __forceinline__ int ps3c_tile_count(const int (&counts)[WARPS][PS3C_DIGITS], int digit)
{
    int sum = 0;
    for (int i = 0; i < WARPS; i++)
        sum += counts[i][digit];
    return sum;
}

/* Replaces each warp's count of a digit by the position of its first element; `first`: that of the first warp. */
template <int WARPS>
__device__ __forceinline__ void ps3c_counts_to_places(int (&counts)[WARPS][PS3C_DIGITS], int digit, int first)
{
    for (int i = 0; i < WARPS; i++) {
        const int count = counts[i][digit];
        counts[i][digit] = first;
        first += count;
    }
}

#endif
