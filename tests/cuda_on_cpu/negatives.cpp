/* Kernels with one mistake each, behind a switch: what the emulator and the sanitizers have to see.
 *
 *     negatives NAME bug     the kernel with its mistake
 *     negatives NAME fine    the same without it
 *     negatives              lists the names
 *
 * Exit status 0: results were right; 3: wrong. Anything else is the emulator's or a sanitizer's doing. Which mistake is
 * seen by which configuration is stated in tests/test_cuda_on_cpu.py. */
#include "../../kernels/cuda/ptx.cuh"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace
{

constexpr int N = 96; /* threads of a block, where nothing else is said */

/* ---- memory and barriers ----------------------------------------------------------------------------------------- */

__global__ void barrier_before_use(bool bug, const float *in, float *out)
{
    PS3C_SHARED(float, room, [N]);
    const int i = threadIdx.x;
    room[i] = in[i];
    if (!bug)
        __syncthreads();
    out[i] = room[(i + 37) % N];
}

__global__ void barrier_before_overwrite(bool bug, const float *in, float *out)
{
    PS3C_SHARED(float, room, [N]);
    const int i = threadIdx.x;
    float sum = 0;
    for (int round = 0; round < 3; round++) {
        room[i] = in[i] + (float)round;
        __syncthreads();
        sum += room[(i + 37) % N];
        if (!bug)
            __syncthreads();
    }
    out[i] = sum / 3 - 1;
}

__global__ void warp_barrier(bool bug, const float *in, float *out)
{
    PS3C_SHARED(float, room, [N]);
    const int i = threadIdx.x;
    room[i] = in[i];
    if (!bug)
        __syncwarp();
    out[i ^ 5] = room[i ^ 5];
}

__global__ void tail(bool bug, const float *in, float *out)
{
    const int i = threadIdx.x;
    if (i < N - 5 || i >= N)
        return;
    out[i] = in[i];
    if (bug && i == N - 1)
        out[i + 1] = in[i];
}

__global__ void read_beyond(bool bug, const float *in, float *out)
{
    const int i = threadIdx.x;
    const float next = bug || i + 1 < N ? in[i + 1] : 0;
    out[i] = next > 1e30f ? 0 : in[i];
}

__global__ void static_array_index(bool bug, const float *in, float *out)
{
    PS3C_SHARED(float, room, [N]);
    const int i = threadIdx.x;
    room[i] = in[i];
    if (i == 0)
        room[bug ? in[0] > 0 ? N : N - 1 : 0] = in[0]; /* in[0] is 1 */
    __syncthreads();
    out[i] = room[i];
}

__global__ void dynamic_too_small(bool, const float *in, float *out)
{
    PS3C_DYNAMIC_SHARED(float, room);
    const int i = threadIdx.x;
    room[i] = in[i];
    __syncthreads();
    out[i] = room[i];
}

__global__ void never_written(bool bug, const float *in, float *out)
{
    PS3C_SHARED(float, room, [N]);
    const int i = threadIdx.x;
    if (!bug || i % 32)
        room[i] = in[i];
    __syncthreads();
    out[i] = room[i];
}

__global__ void sum_over_blocks(bool bug, const float *in, float *out)
{
    out[blockIdx.x * N + threadIdx.x] = in[threadIdx.x];
    int *total = (int *)(out + 2 * N);
    if (threadIdx.x == 0) {
        if (bug)
            *total += 1;
        else
            atomicAdd(total, 1);
    }
}

__global__ void divergent_barrier(bool bug, const float *in, float *out)
{
    const int i = threadIdx.x;
    out[i] = in[i];
    if (bug && i < 32)
        __syncthreads();
    else
        __syncthreads();
}

__global__ void return_before_barrier(bool bug, const float *in, float *out)
{
    const int i = threadIdx.x;
    out[i] = in[i];
    if (bug && i >= 90)
        return;
    __syncthreads();
}

__global__ void much_static_memory(bool bug, const float *in, float *out)
{
    const int i = threadIdx.x;
    PS3C_SHARED(float, most, [48 * 256]);
    most[i] = in[i];
    out[i] = most[i];
    if (bug) {
        PS3C_SHARED(float, more, [1]);
        more[0] = 0;
    }
}

/* ---- warps ------------------------------------------------------------------------------------------------------- */

__global__ void shuffle_lane(bool bug, const float *in, float *out)
{
    const int i = threadIdx.x;
    float sum = in[i];
    for (int step = 16; step; step /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, bug && step == 2 ? 4 : step);
    out[i] =
        sum == __shfl_sync(0xffffffffu, sum, 0) && fabsf(sum - in[i / 32 * 32 + 31] * 32 + 496) < 1e-3f ? in[i] : -1;
}

__global__ void divergent_shuffle(bool bug, const float *in, float *out)
{
    const int i = threadIdx.x;
    float other = 0;
    if (!bug || i % 32 < 20)
        other = __shfl_xor_sync(0xffffffffu, in[i], 1);
    out[i] = other < 0 ? 0 : in[i];
}

__global__ void lane_outside_mask(bool bug, const float *in, float *out)
{
    const int i = threadIdx.x;
    if (i % 32 < 16)
        out[i] = __shfl_xor_sync(0x0000ffffu, in[i], bug ? 16 : 1) < 0 ? 0 : in[i];
    else
        out[i] = in[i];
}

__global__ void ended_lanes(bool bug, const float *in, float *out)
{
    const int i = threadIdx.x;
    out[i] = in[i];
    if (bug && i % 32 < 4)
        return;
    if (!__ballot_sync(0xffffffffu, 1))
        out[i] = 0;
}

__global__ void differing_masks(bool bug, const float *in, float *out)
{
    const int i = threadIdx.x;
    out[i] = in[i];
    if (!__ballot_sync(bug && i % 32 == 7 ? 0x7fffffffu : 0xffffffffu, 1))
        out[i] = 0;
}

/* ---- instructions ------------------------------------------------------------------------------------------------ */

__global__ void pending_copies(bool bug, const float *in, float *out)
{
    PS3C_SHARED(float4, room, [N]);
    const int i = threadIdx.x;
    cp_async16(&room[i], in + i / 4 * 4, true);
    cp_async_commit();
    if (!bug)
        cp_async_wait<0>();
    out[i] = in[i];
}

__global__ void weak_wait(bool bug, const float *in, float *out)
{
    PS3C_SHARED(float4, room, [N]);
    const int i = threadIdx.x;
    cp_async16(&room[i], in + i / 4 * 4, true);
    cp_async_commit();
    if (bug)
        cp_async_wait<1>();
    else
        cp_async_wait<0>();
    const float4 v = room[i];
    out[i] = i % 4 == 0 ? v.x : i % 4 == 1 ? v.y : i % 4 == 2 ? v.z : v.w;
    cp_async_wait<0>();
}

__global__ void copy_alignment(bool bug, const float *in, float *out)
{
    PS3C_SHARED(float, room, [N * 4 + 4]);
    const int i = threadIdx.x;
    cp_async16(&room[i * 4 + bug], in + i / 4 * 4, true);
    cp_async_commit();
    cp_async_wait<0>();
    out[i] = room[i * 4 + i % 4 + bug];
}

__global__ void ldmatrix_alignment(bool bug, const float *in, float *out)
{
    PS3C_SHARED(uint16_t, room, [32 * 8 + 8]);
    const int i = threadIdx.x;
    uint32_t r[1];
    room[i] = 0;
    __syncthreads();
    ldmatrix<1, false>(r, &room[i % 32 * 8 + bug]);
    out[i] = in[i];
}

__global__ void unrounded_tf32(bool bug, const float *in, float *out)
{
    const int i = threadIdx.x;
    const uint32_t third = bug ? __float_as_uint(1.0f / 3) : to_tf32(1.0f / 3);
    const uint32_t a[4] = {third, third, third, third}, b[2] = {};
    float d[4] = {};
    mma_tf32(d, a, b);
    out[i] = in[i] + d[0];
}

__global__ void wide_shift(bool bug, const float *in, float *out)
{
    const int i = threadIdx.x, places = i % 32 + (bug ? 1 : 0);
    out[i] = (1u << places) - 1 == 0xffffffffu ? 0 : in[i];
}

__global__ void stack_overflow(bool bug, const float *in, float *out)
{
    struct deep {
        static float down(int levels, float x)
        {
            volatile char room[1024];
            room[levels % 1024] = 1;
            return levels ? down(levels - 1, x) + (float)room[levels % 1024] - 1 : x;
        }
    };
    out[threadIdx.x] = deep::down(bug ? 1000 : 3, in[threadIdx.x]);
}

/* ---- running one ------------------------------------------------------------------------------------------------- */

using kernel = void (*)(bool, const float *, float *);
struct negative {
    const char *name;
    kernel function;
    unsigned blocks;
    size_t shared_bytes, shared_bytes_of_bug;
};

#define PLAIN(name)          \
    {                        \
#name, name, 1, 0, 0 \
    }
const negative NEGATIVES[] = {
    PLAIN(barrier_before_use),
    PLAIN(barrier_before_overwrite),
    PLAIN(warp_barrier),
    PLAIN(tail),
    PLAIN(read_beyond),
    PLAIN(static_array_index),
    {"dynamic_too_small", dynamic_too_small, 1, N * 4, N * 4 - 64},
    {"much_dynamic_memory", dynamic_too_small, 1, 163 << 10, (163 << 10) + 4},
    PLAIN(never_written),
    {"sum_over_blocks", sum_over_blocks, 2, 0, 0},
    PLAIN(divergent_barrier),
    PLAIN(return_before_barrier),
    PLAIN(much_static_memory),
    PLAIN(shuffle_lane),
    PLAIN(divergent_shuffle),
    PLAIN(lane_outside_mask),
    PLAIN(ended_lanes),
    PLAIN(differing_masks),
    PLAIN(pending_copies),
    PLAIN(weak_wait),
    PLAIN(copy_alignment),
    PLAIN(ldmatrix_alignment),
    PLAIN(unrounded_tf32),
    PLAIN(wide_shift),
    PLAIN(stack_overflow),
};

int run(const negative &n, bool bug)
{
    const size_t out_count = n.blocks > 1 ? n.blocks * N + 1 : N;
    float *in = nullptr, *out = nullptr;
    if (cudaMalloc((void **)&in, N * 4) != cudaSuccess || cudaMalloc((void **)&out, out_count * 4) != cudaSuccess)
        return 1;
    for (int i = 0; i < N; i++)
        in[i] = (float)(i + 1);
    cudaMemset(out, 0, out_count * 4);
    PS3C_LAUNCH(n.function, n.blocks, N, bug ? n.shared_bytes_of_bug : n.shared_bytes, nullptr, bug, in, out);
    bool right = true;
    for (int i = !strcmp(n.name, "tail") ? N - 5 : 0; i < N; i++)
        right = right && (strncmp(n.name, "barrier", 7) ? out[i] == in[i] : fabsf(out[i] - in[(i + 37) % N]) < 1e-3f);
    cudaFree(in);
    cudaFree(out);
    puts(right ? "right" : "wrong");
    return right ? 0 : 3;
}

} // namespace

int main(int argc, char **argv)
{
    for (const negative &n : NEGATIVES) {
        if (argc < 3)
            puts(n.name);
        else if (!strcmp(n.name, argv[1]))
            return run(n, !strcmp(argv[2], "bug"));
    }
    return argc < 3 ? 0 : 2;
}
