/* What the warp instructions of kernels/cuda/ptx.cuh do with every lane's registers, as numbers in text.
 *
 * The same source is built by nvcc, for a GPU, and with tests/cuda_on_cpu, whose emulation of these instructions is a
 * reading of the PTX manual: test_gpu_layouts.py compares the two outputs. Factors are small whole numbers, each
 * position another, so sums are exact and any exchange of lanes, registers or halves shows.
 */
#include "../../kernels/cuda/ptx.cuh"

#include <cstdio>
#include <cstdlib>
#include <type_traits>
#include <vector>

namespace
{

constexpr int LANES = 32;
constexpr int WORDS = 8; /* of output a lane, in every kernel */

/* A small whole number that depends on every index: -7 to 7. */
__host__ __device__ inline int small_number(int lane, int index, int salt)
{
    return (lane * 37 + index * 11 + salt * 5 + (lane * index) % 13) % 15 - 7;
}

__device__ inline uint32_t bits(float x)
{
    union {
        float value;
        uint32_t word;
    } u;
    u.value = x;
    return u.word;
}

template <class T> __device__ inline T of_int(int x);
template <> __device__ inline __half of_int<__half>(int x) { return __float2half_rn((float)x); }
template <> __device__ inline __nv_bfloat16 of_int<__nv_bfloat16>(int x) { return __float2bfloat16_rn((float)x); }

/* Two 16-bit numbers, the first in the low half. */
template <class T> __device__ inline uint32_t pair_of(int low, int high)
{
    union {
        T values[2];
        uint32_t word;
    } u = {{of_int<T>(low), of_int<T>(high)}};
    return u.word;
}

template <class T> __device__ inline void operands(int lane, uint32_t (&a)[4], uint32_t (&b)[2], float (&d)[4])
{
    for (int i = 0; i < 4; i++) {
        a[i] = pair_of<T>(small_number(lane, 2 * i, 1), small_number(lane, 2 * i + 1, 1));
        d[i] = (float)small_number(lane, i, 3);
    }
    for (int i = 0; i < 2; i++)
        b[i] = pair_of<T>(small_number(lane, 2 * i, 2), small_number(lane, 2 * i + 1, 2));
}

__device__ inline void store(uint32_t *out, int lane, const float (&d)[4])
{
    for (int i = 0; i < 4; i++)
        out[lane * WORDS + i] = bits(d[i]);
}

template <class T> __global__ void mma_k16(uint32_t *out)
{
    const int lane = (int)threadIdx.x;
    uint32_t a[4], b[2];
    float d[4];
    operands<T>(lane, a, b, d);
    mma<T>(d, a, b);
    store(out, lane, d);
}

template <class T> __global__ void mma_k8(uint32_t *out)
{
    const int lane = (int)threadIdx.x;
    uint32_t a[4], b[2];
    float d[4];
    operands<T>(lane, a, b, d);
    const uint32_t half_a[2] = {a[0], a[1]};
    if constexpr (std::is_same_v<T, __half>)
        mma_f16_k8(d, half_a, b[0]);
    else
        mma_bf16_k8(d, half_a, b[0]);
    store(out, lane, d);
}

/* Factors with bits below TF32's, so that the rounding shows too. */
__global__ void mma_of_tf32(uint32_t *out)
{
    const int lane = (int)threadIdx.x;
    uint32_t a[4], b[2];
    float d[4];
    for (int i = 0; i < 4; i++) {
        a[i] = to_tf32((float)small_number(lane, i, 1));
        d[i] = (float)small_number(lane, i, 3);
    }
    for (int i = 0; i < 2; i++)
        b[i] = to_tf32((float)small_number(lane, i, 2));
    mma_tf32(d, a, b);
    store(out, lane, d);
    for (int i = 0; i < 4; i++)
        out[lane * WORDS + 4 + i] = to_tf32((float)small_number(lane, i, 4) + 0.0001220703125f * (float)(lane + 3 * i));
}

/* Rows lie in another order than the lanes that name them. */
template <int count, bool transposed> __global__ void load_matrices(uint32_t *out)
{
    PS3C_SHARED(uint4, rows, [LANES]); /* 16 bytes each: a row of 8 numbers */
    const int lane = (int)threadIdx.x;
    uint32_t r[count];
    uint16_t *row = (uint16_t *)&rows[lane];
    for (int i = 0; i < 8; i++)
        row[i] = (uint16_t)(lane * 256 + i);
    __syncthreads();
    ldmatrix<count, transposed>(r, &rows[(lane * 5 + 3) % LANES]);
    for (int i = 0; i < count; i++)
        out[lane * WORDS + i] = r[i];
}

/* Copies of 4, 8 and 16 bytes, every third of them not valid. */
template <int bytes> __global__ void copy(uint32_t *out, const uint32_t *in)
{
    PS3C_SHARED(uint4, to, [LANES]);
    const int lane = (int)threadIdx.x;
    to[lane] = make_uint4(0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu);
    __syncthreads();
    cp_async<bytes>(&to[lane], in + 4 * ((lane + 1) % LANES), lane % 3 != 0);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    const uint4 got = to[(lane + 7) % LANES];
    out[lane * WORDS] = got.x;
    out[lane * WORDS + 1] = got.y;
    out[lane * WORDS + 2] = got.z;
    out[lane * WORDS + 3] = got.w;
}

/* ---- host ------------------------------------------------------------------------------------------------------- */

void check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return;
    fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
    exit(1);
}

uint32_t *device_words(const std::vector<uint32_t> &words)
{
    void *memory = nullptr;
    check(cudaMalloc(&memory, words.size() * sizeof words[0]), "cudaMalloc");
    check(cudaMemcpy(memory, words.data(), words.size() * sizeof words[0], cudaMemcpyHostToDevice), "cudaMemcpy");
    return (uint32_t *)memory;
}

/* One line a lane: the name, the lane, its words. */
void print(const char *name, uint32_t *out)
{
    std::vector<uint32_t> words(LANES * WORDS);
    check(cudaGetLastError(), name);
    check(cudaDeviceSynchronize(), name);
    check(cudaMemcpy(words.data(), out, words.size() * sizeof words[0], cudaMemcpyDeviceToHost), "cudaMemcpy");
    for (int lane = 0; lane < LANES; lane++) {
        printf("%s lane %d:", name, lane);
        for (int i = 0; i < WORDS; i++)
            printf(" %08x", words[lane * WORDS + i]);
        printf("\n");
    }
    check(cudaFree(out), "cudaFree");
}

template <class Launch> void show(const char *name, Launch launch)
{
    uint32_t *out = device_words(std::vector<uint32_t>(LANES * WORDS, 0));
    launch(out);
    print(name, out);
}

} // namespace

#define SHOW(name, kernel) show(name, [](uint32_t *out) { PS3C_LAUNCH(kernel, 1, LANES, 0, (cudaStream_t)0, out); })
#define SHOW_COPY(name, bytes) \
    show(name,                 \
         [=](uint32_t *out) { PS3C_LAUNCH(copy<bytes>, 1, LANES, 0, (cudaStream_t)0, out, (const uint32_t *)in); })

int main()
{
    std::vector<uint32_t> words(4 * LANES);
    for (size_t i = 0; i < words.size(); i++)
        words[i] = (uint32_t)(0x01000000u + i * 0x10001u);
    uint32_t *in = device_words(words);

    SHOW("mma m16n8k16 f16", (mma_k16<__half>));
    SHOW("mma m16n8k16 bf16", (mma_k16<__nv_bfloat16>));
    SHOW("mma m16n8k8 f16", (mma_k8<__half>));
    SHOW("mma m16n8k8 bf16", (mma_k8<__nv_bfloat16>));
    SHOW("mma m16n8k8 tf32", mma_of_tf32);
    SHOW("ldmatrix x1", (load_matrices<1, false>));
    SHOW("ldmatrix x2", (load_matrices<2, false>));
    SHOW("ldmatrix x4", (load_matrices<4, false>));
    SHOW("ldmatrix x1 trans", (load_matrices<1, true>));
    SHOW("ldmatrix x2 trans", (load_matrices<2, true>));
    SHOW("ldmatrix x4 trans", (load_matrices<4, true>));
    SHOW_COPY("cp.async 4", 4);
    SHOW_COPY("cp.async 8", 8);
    SHOW_COPY("cp.async 16", 16);
    check(cudaFree(in), "cudaFree");
    return 0;
}
