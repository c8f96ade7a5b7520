/* The emulator's own tests: what each warp function, copy and product does, against plain loops. What it has to refuse
 * is in negatives.cpp. */
#include <thread>

#include "check.h"

namespace
{

/* Device memory as an array. */
template <class T> struct device {
    memory bytes;
    explicit device(size_t count) : bytes(count * sizeof(T)) {}
    explicit device(const std::vector<T> &values) : device(values.size())
    {
        std::copy(values.begin(), values.end(), data());
    }
    T *data() const { return (T *)bytes.data(); }
    T operator[](int64_t i) const { return data()[i]; }
};

/* ---- shuffles and votes ------------------------------------------------------------------------------------------ */

struct wide {
    double a;
    int b, c;
};

template <class T> __global__ void shuffle_all(const T *in, T *out, int argument, int width)
{
    const int i = threadIdx.x;
    out[i] = __shfl_sync(0xffffffffu, in[i], argument, width);
    out[32 + i] = __shfl_up_sync(0xffffffffu, in[i], (unsigned)argument, width);
    out[64 + i] = __shfl_down_sync(0xffffffffu, in[i], (unsigned)argument, width);
    out[96 + i] = __shfl_xor_sync(0xffffffffu, in[i], argument, width);
}

template <class T> void check_shuffles(const std::vector<T> &in)
{
    for (int width : {8, 16, 32})
        for (int argument : {0, 1, 2, 5, width - 1}) {
            about what("width %d, argument %d", width, argument);
            device<T> from(in), to(128);
            PS3C_LAUNCH((shuffle_all<T>), 1, 32, 0, nullptr, from.data(), to.data(), argument, width);
            for (int lane = 0; lane < 32; lane++) {
                const int first = lane / width * width, place = lane % width;
                const int sources[] = {first + argument % width, place >= argument ? lane - argument : lane,
                                       place + argument < width ? lane + argument : lane,
                                       (place ^ argument) < width ? first + (place ^ argument) : lane};
                for (int kind = 0; kind < 4; kind++)
                    CHECK(!memcmp(&to.data()[kind * 32 + lane], &in[(size_t)sources[kind]], sizeof(T)),
                          "kind %d, lane %d", kind, lane);
            }
        }
}

__global__ void vote(const int *in, unsigned *out)
{
    const int i = threadIdx.x, warp = i / 32;
    out[i] = __ballot_sync(0xffffffffu, in[i] > 0);
    out[64 + i] = (unsigned)__any_sync(0xffffffffu, in[i] > 2) << 1 | (unsigned)__all_sync(0xffffffffu, in[i] > -3);
    out[128 + i] = __match_any_sync(0xffffffffu, in[i]);
    out[192 + i] = (unsigned)__reduce_add_sync(0xffffffffu, in[i]);
    out[256 + i] = (unsigned)__reduce_min_sync(0xffffffffu, in[i]);
    out[320 + i] = (unsigned)__reduce_max_sync(0xffffffffu, in[i]);
    out[384 + i] = __reduce_xor_sync(0xffffffffu, (unsigned)in[i]);
    out[448 + i] = (unsigned)__syncthreads_count(in[i] > 0);
    out[512 + i] = (unsigned)__syncthreads_and(in[i] > -3) << 1 | (unsigned)__syncthreads_or(in[i] == warp + 100);
}

__global__ void half_warps(const int *in, int *out)
{
    const unsigned mask = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
    out[threadIdx.x] = (int)__ballot_sync(mask, in[threadIdx.x] > 0);
    out[32 + threadIdx.x] = __shfl_xor_sync(mask, in[threadIdx.x], 3);
}

} // namespace

TEST(shuffles_of_every_type)
{
    std::vector<float> floats;
    std::vector<int64_t> longs;
    std::vector<__half> halves;
    std::vector<wide> wides;
    for (int i = 0; i < 32; i++) {
        floats.push_back((float)i + 0.5f);
        longs.push_back((int64_t)i << 40 | i);
        halves.push_back(__float2half_rn((float)i));
        wides.push_back({i * 0.25, i, -i});
    }
    check_shuffles(floats);
    check_shuffles(longs);
    check_shuffles(halves);
    check_shuffles(wides);
}

TEST(votes_matches_and_sums)
{
    std::vector<int> in;
    for (int i = 0; i < 64; i++)
        in.push_back((int)random_int(-3, 3));
    device<int> from(in);
    device<unsigned> to(576);
    PS3C_LAUNCH(vote, 1, 64, 0, nullptr, from.data(), to.data());
    int positive = 0;
    bool all_of_block = true;
    for (int value : in) {
        positive += value > 0;
        all_of_block = all_of_block && value > -3;
    }
    for (int i = 0; i < 64; i++) {
        unsigned ballot = 0, match = 0, sum = 0, exclusive = 0;
        bool any = false, all = true;
        int least = in[(size_t)i], most = least;
        for (int lane = 0; lane < 32; lane++) {
            const int value = in[(size_t)(i / 32 * 32 + lane)];
            ballot |= (unsigned)(value > 0) << lane;
            match |= (unsigned)(value == in[(size_t)i]) << lane;
            sum += (unsigned)value;
            exclusive ^= (unsigned)value;
            any = any || value > 2;
            all = all && value > -3;
            least = value < least ? value : least;
            most = value > most ? value : most;
        }
        const unsigned want[] = {ballot,
                                 (unsigned)any << 1 | (unsigned)all,
                                 match,
                                 sum,
                                 (unsigned)least,
                                 (unsigned)most,
                                 exclusive,
                                 (unsigned)positive,
                                 (unsigned)all_of_block << 1};
        for (int kind = 0; kind < 9; kind++)
            CHECK(to[kind * 64 + i] == want[kind], "kind %d, thread %d: got %x, expected %x", kind, i,
                  to[kind * 64 + i], want[kind]);
    }
}

TEST(warps_in_parts)
{
    std::vector<int> in;
    for (int i = 0; i < 32; i++)
        in.push_back((int)random_int(-1, 1));
    device<int> from(in), to(64);
    PS3C_LAUNCH(half_warps, 1, 32, 0, nullptr, from.data(), to.data());
    for (int i = 0; i < 32; i++) {
        unsigned ballot = 0;
        for (int lane = i / 16 * 16; lane < i / 16 * 16 + 16; lane++)
            ballot |= (unsigned)(in[(size_t)lane] > 0) << lane;
        CHECK((unsigned)to[i] == ballot && to[32 + i] == in[(size_t)(i ^ 3)], "lane %d", i);
    }
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

namespace
{

enum kind { BF16_K16, F16_K16, BF16_K8, F16_K8, TF32_K8 };

/* Fragments straight from the tables of the PTX manual: a (16, k) and b (k, 8) as float32, row-major. */
__device__ uint32_t pair(bool bf16, float low, float high)
{
    const uint32_t l = bf16 ? __bfloat16_as_ushort(__float2bfloat16_rn(low)) : __half_as_ushort(__float2half_rn(low));
    const uint32_t h = bf16 ? __bfloat16_as_ushort(__float2bfloat16_rn(high)) : __half_as_ushort(__float2half_rn(high));
    return l | h << 16;
}

__global__ void product(kind which, const float *a, const float *b, float *d)
{
    const int g = threadIdx.x >> 2, t = threadIdx.x & 3;
    float sums[4] = {d[g * 8 + t * 2], d[g * 8 + t * 2 + 1], d[(g + 8) * 8 + t * 2], d[(g + 8) * 8 + t * 2 + 1]};
    if (which == TF32_K8) {
        const uint32_t fa[4] = {to_tf32(a[g * 8 + t]), to_tf32(a[(g + 8) * 8 + t]), to_tf32(a[g * 8 + t + 4]),
                                to_tf32(a[(g + 8) * 8 + t + 4])};
        const uint32_t fb[2] = {to_tf32(b[t * 8 + g]), to_tf32(b[(t + 4) * 8 + g])};
        mma_tf32(sums, fa, fb);
    } else {
        const bool bf16 = which == BF16_K16 || which == BF16_K8, deep = which == BF16_K16 || which == F16_K16;
        const int k = deep ? 16 : 8, i = t * 2;
        uint32_t fa[4] = {}, fb[2] = {};
        for (int part = 0; part < k / 8; part++) {
            fa[2 * part] = pair(bf16, a[g * k + part * 8 + i], a[g * k + part * 8 + i + 1]);
            fa[2 * part + 1] = pair(bf16, a[(g + 8) * k + part * 8 + i], a[(g + 8) * k + part * 8 + i + 1]);
            fb[part] = pair(bf16, b[(part * 8 + i) * 8 + g], b[(part * 8 + i + 1) * 8 + g]);
        }
        const uint32_t half_a[2] = {fa[0], fa[1]};
        if (which == BF16_K16)
            mma<__nv_bfloat16>(sums, fa, fb);
        else if (which == F16_K16)
            mma<__half>(sums, fa, fb);
        else if (which == BF16_K8)
            mma_bf16_k8(sums, half_a, fb[0]);
        else
            mma_f16_k8(sums, half_a, fb[0]);
    }
    d[g * 8 + t * 2] = sums[0];
    d[g * 8 + t * 2 + 1] = sums[1];
    d[(g + 8) * 8 + t * 2] = sums[2];
    d[(g + 8) * 8 + t * 2 + 1] = sums[3];
}

/* The same product with fragments from shared memory. b_columns: b lies by columns (no transposition to load). */
__global__ void product_from_shared(const __half *a, const __half *b, float *d, bool b_columns)
{
    PS3C_SHARED(__half, sa, [16][24]);
    PS3C_SHARED(__half, sb, [16][8]);
    PS3C_SHARED(__half, sb_columns, [8][24]);
    const int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32)
        sa[i / 16][i % 16] = a[i];
    for (int i = lane; i < 128; i += 32) {
        sb[i / 8][i % 8] = b[i];
        sb_columns[i % 8][i / 8] = b[i];
    }
    __syncwarp();
    uint32_t fa[4], fb[2];
    float sums[4] = {};
    ldmatrix<4, false>(fa, &sa[lane % 16][lane / 16 * 8]);
    if (b_columns)
        ldmatrix<2, false>(fb, &sb_columns[lane % 8][lane / 8 % 2 * 8]);
    else
        ldmatrix<2, true>(fb, &sb[lane % 16][0]);
    mma_f16(sums, fa, fb);
    for (int r = 0; r < 4; r++)
        d[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = sums[r];
}

/* The whole of what lanes get, and only the addresses of the first 8 * count lanes looked at. */
template <int count, bool transposed> __global__ void load_matrices(const uint16_t *in, uint32_t *out)
{
    PS3C_SHARED(uint16_t, rows, [32][8]);
    const int lane = threadIdx.x;
    for (int c = 0; c < 8; c++)
        rows[lane][c] = in[lane * 8 + c];
    __syncwarp();
    uint32_t r[count];
    ldmatrix<count, transposed>(r, lane < 8 * count ? (const void *)rows[lane] : (const void *)1);
    for (int m = 0; m < count; m++)
        out[lane * count + m] = r[m];
}

template <int count, bool transposed> void check_ldmatrix()
{
    std::vector<uint16_t> in;
    for (int i = 0; i < 256; i++)
        in.push_back((uint16_t)(i * 257));
    device<uint16_t> from(in);
    device<uint32_t> to(32 * count);
    PS3C_LAUNCH((load_matrices<count, transposed>), 1, 32, 0, nullptr, from.data(), to.data());
    for (int lane = 0; lane < 32; lane++)
        for (int m = 0; m < count; m++)
            for (int high = 0; high < 2; high++) {
                const int one = lane >> 2, two = (lane & 3) * 2 + high;
                const int row = transposed ? two : one, col = transposed ? one : two;
                const uint32_t want = in[(size_t)((8 * m + row) * 8 + col)];
                CHECK((to[lane * count + m] >> 16 * high & 0xffff) == want, "x%d%s lane %d", count,
                      transposed ? ".trans" : "", lane);
            }
}

} // namespace

TEST(products_of_every_kind)
{
    for (kind which : {BF16_K16, F16_K16, BF16_K8, F16_K8, TF32_K8}) {
        about what("kind %d", (int)which);
        const int k = which == BF16_K16 || which == F16_K16 ? 16 : 8;
        std::vector<float> a, b, d;
        for (int i = 0; i < 16 * k; i++) /* few bits: exact in every type */
            a.push_back((float)random_int(-60, 60) / 32);
        for (int i = 0; i < 8 * k; i++)
            b.push_back((float)random_int(-60, 60) / 32);
        for (int i = 0; i < 128; i++)
            d.push_back((float)random_int(-60, 60));
        device<float> da(a), db(b), dd(d);
        PS3C_LAUNCH(product, 1, 32, 0, nullptr, which, da.data(), db.data(), dd.data());
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                double want = d[(size_t)(i * 8 + j)];
                for (int l = 0; l < k; l++)
                    want += (double)a[(size_t)(i * k + l)] * b[(size_t)(l * 8 + j)];
                CHECK(dd[i * 8 + j] == want, "[%d][%d]: got %g, expected %g", i, j, dd[i * 8 + j], want);
            }
    }
}

TEST(products_from_shared_memory)
{
    for (bool columns : {false, true}) {
        std::vector<__half> a, b;
        for (int i = 0; i < 256; i++)
            a.push_back(__float2half_rn((float)random_int(-20, 20)));
        for (int i = 0; i < 128; i++)
            b.push_back(__float2half_rn((float)random_int(-20, 20)));
        device<__half> da(a), db(b);
        device<float> dd(128);
        PS3C_LAUNCH(product_from_shared, 1, 32, 0, nullptr, da.data(), db.data(), dd.data(), columns);
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                float want = 0;
                for (int l = 0; l < 16; l++)
                    want += __half2float(a[(size_t)(i * 16 + l)]) * __half2float(b[(size_t)(l * 8 + j)]);
                CHECK(dd[i * 8 + j] == want, "[%d][%d]: got %g, expected %g", i, j, dd[i * 8 + j], want);
            }
    }
}

TEST(matrices_from_shared_memory)
{
    check_ldmatrix<1, false>();
    check_ldmatrix<1, true>();
    check_ldmatrix<2, false>();
    check_ldmatrix<2, true>();
    check_ldmatrix<4, false>();
    check_ldmatrix<4, true>();
}

/* ---- copies ------------------------------------------------------------------------------------------------------ */

namespace
{

/* Copies of each thread, every third not valid; the second group is waited for after the first was read. */
template <int bytes> __global__ void copy_groups(const uint32_t *in, uint32_t *out)
{
    constexpr int words = bytes / 4;
    PS3C_DYNAMIC_SHARED(uint32_t, room);
    const int i = threadIdx.x, n = blockDim.x * words;
    cp_async<bytes>(room + i * words, in + i * words, i % 3 != 0);
    cp_async_commit();
    cp_async<bytes>(room + n + i * words, in + n + i * words, true);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    const int other = (i + 7) % blockDim.x;
    for (int w = 0; w < words; w++) {
        out[other * words + w] = room[other * words + w];
        out[2 * n + other * words + w] = room[n + i * words + w]; /* under way: looks like NaN */
    }
    cp_async_wait<0>();
    __syncthreads();
    for (int w = 0; w < words; w++)
        out[n + other * words + w] = room[n + other * words + w];
}

template <int bytes> void check_copies()
{
    about what("%d bytes", bytes);
    constexpr int words = bytes / 4, threads = 64, n = threads * words;
    std::vector<uint32_t> in;
    for (int i = 0; i < 2 * n; i++)
        in.push_back((uint32_t)i + 1);
    device<uint32_t> from(in), to(3 * n);
    PS3C_LAUNCH((copy_groups<bytes>), 1, threads, 2 * n * 4, nullptr, from.data(), to.data());
    for (int i = 0; i < n; i++) {
        CHECK(to[i] == (i / words % 3 ? in[(size_t)i] : 0), "first group at %d: %u", i, to[i]);
        CHECK(to[n + i] == in[(size_t)(n + i)], "second group at %d: %u", i, to[n + i]);
        CHECK(to[2 * n + i] == ~0u, "second group was there at once");
    }
}

} // namespace

TEST(asynchronous_copies)
{
    check_copies<4>();
    check_copies<8>();
    check_copies<16>();
}

/* ---- memory, launches -------------------------------------------------------------------------------------------- */

namespace
{

__global__ void count_all(int *counts, float *sum)
{
    PS3C_SHARED(int, inside, [2]);
    if (threadIdx.x < 2)
        inside[threadIdx.x] = 0;
    __syncthreads();
    atomicAdd(&inside[threadIdx.x % 2], 1);
    atomicMax(&counts[2], (int)(blockIdx.x * blockDim.x + threadIdx.x));
    atomicMin(&counts[3], -(int)threadIdx.x);
    atomicOr((unsigned *)&counts[4], 1u << threadIdx.x % 8);
    __syncthreads();
    if (threadIdx.x < 2)
        atomicAdd(&counts[threadIdx.x], inside[threadIdx.x]);
    if (threadIdx.x == 0)
        atomicAdd(sum, 0.5f);
}

/* Each block writes its part; the one that comes last adds them up. */
__global__ void last_block_adds(int *parts, int *arrived, int *total)
{
    PS3C_SHARED(int, is_last, [1]);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = (int)blockIdx.x + 1;
        __threadfence();
        is_last[0] = atomicAdd(arrived, 1) == (int)gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (is_last[0] && threadIdx.x == 0) {
        int sum = 0;
        for (unsigned i = 0; i < gridDim.x; i++)
            sum += parts[i];
        *total = sum;
    }
}

__global__ void place(int *out)
{
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * (blockDim.x * blockDim.y * blockDim.z) + thread] = (int)(block * 1000 + thread);
}

__global__ void use_shared(float *out)
{
    PS3C_DYNAMIC_SHARED(float, room);
    room[threadIdx.x] = 1;
    __syncthreads();
    if (threadIdx.x == 0)
        out[0] = room[1] + room[31];
}

__global__ void add_one(int *p, int count)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        p[i]++;
}

} // namespace

TEST(atomics_and_fences)
{
    device<int> counts(std::vector<int>(5));
    device<float> sum(std::vector<float>(1));
    PS3C_LAUNCH(count_all, 5, 64, 0, nullptr, counts.data(), sum.data());
    CHECK(counts[0] == 160 && counts[1] == 160 && counts[2] == 319 && counts[3] == -63 && counts[4] == 255, "atomics");
    CHECK(sum[0] == 2.5f, "atomic float");
    device<int> parts(std::vector<int>(6)), arrived(std::vector<int>(1)), total(std::vector<int>(1));
    PS3C_LAUNCH(last_block_adds, 6, 32, 0, nullptr, parts.data(), arrived.data(), total.data());
    CHECK(total[0] == 21, "the last block's sum: %d", total[0]);
}

TEST(grids_and_blocks_of_three_dimensions)
{
    device<int> out(2 * 3 * 2 * 4 * 2 * 3);
    PS3C_LAUNCH(place, dim3(2, 3, 2), dim3(4, 2, 3), 0, nullptr, out.data());
    for (int i = 0; i < 12 * 24; i++)
        CHECK(out[i] == i / 24 * 1000 + i % 24, "at %d: %d", i, out[i]);
}

TEST(shared_memory_by_architecture)
{
    const char *before = getenv("EMU_ARCH");
    const std::string kept = before ? before : "";
    const struct {
        const char *name;
        int kibibytes;
    } architectures[] = {{"80", 163}, {"86", 99}, {"89", 99}, {"90", 227}, {"100", 227}, {"120", 99}};
    for (const auto &a : architectures) {
        setenv("EMU_ARCH", a.name, 1);
        int most = 0, major = 0;
        device<float> out(1);
        cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
        CHECK(most == a.kibibytes << 10 && major == atoi(a.name) / 10, "sm_%s: %d bytes", a.name, most);
        PS3C_LAUNCH(use_shared, 1, 32, (size_t)most, nullptr, out.data());
        CHECK(out[0] == 2, "sm_%s", a.name);
    }
    if (before)
        setenv("EMU_ARCH", kept.c_str(), 1);
    else
        unsetenv("EMU_ARCH");
}

TEST(launches_that_fail)
{
    device<int> p(std::vector<int>(1));
    emu_fail_next_launch("add_one");
    PS3C_LAUNCH(place, 1, 1, 0, nullptr, p.data());
    CHECK(cudaGetLastError() == cudaSuccess, "another kernel failed");
    p.data()[0] = 5;
    PS3C_LAUNCH(add_one, 1, 32, 0, nullptr, p.data(), 1);
    CHECK(cudaPeekAtLastError() == cudaErrorLaunchOutOfResources, "did not fail");
    CHECK(cudaGetLastError() == cudaErrorLaunchOutOfResources && cudaGetLastError() == cudaSuccess, "the error stays");
    CHECK(p[0] == 5, "ran all the same");
    PS3C_LAUNCH(add_one, 1, 32, 0, nullptr, p.data(), 1);
    CHECK(cudaGetLastError() == cudaSuccess && p[0] == 6, "failed twice");
}

TEST(launches_from_several_threads)
{
    constexpr int threads = 4, count = 200;
    std::vector<device<int> *> memories;
    std::vector<std::thread> others;
    for (int t = 0; t < threads; t++)
        memories.push_back(new device<int>(std::vector<int>(count, t)));
    for (int t = 0; t < threads; t++)
        others.emplace_back([p = memories[(size_t)t]->data()] {
            for (int i = 0; i < 10; i++)
                PS3C_LAUNCH(add_one, 3, 32, 0, nullptr, p, +count);
        });
    for (auto &other : others)
        other.join();
    for (int t = 0; t < threads; t++) {
        for (int i = 0; i < count; i++)
            CHECK((*memories[(size_t)t])[i] == t + 10, "thread %d at %d", t, i);
        delete memories[(size_t)t];
    }
}

TEST(memory_starts_as_nan)
{
    device<float> p(100);
    for (int i = 0; i < 100; i++)
        CHECK(std::isnan(p[i]), "at %d", i);
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

TEST(arithmetic)
{
    CHECK(to_tf32(1.0f) == 0x3f800000u && to_tf32(-INFINITY) == 0xff800000u, "exact values");
    CHECK(emu::bits<float>(to_tf32(1.0f + 0x1p-11f)) == 1.0f + 0x1p-10f, "ties go away from zero");
    CHECK(emu::bits<float>(to_tf32(1.0f + 0x1p-12f)) == 1.0f, "less than a tie");
    CHECK(std::isnan(emu::bits<float>(to_tf32(NAN))), "NaN");
    CHECK(fast_exp2(3.0f) == 8 && fast_exp2(-INFINITY) == 0 && fast_exp2(-140.0f) == 0 && std::isnan(fast_exp2(NAN)),
          "fast_exp2");
    CHECK(__float2int_rn(2.5f) == 2 && __float2int_rd(-0.5f) == -1 && __float2int_rz(-1.9f) == -1 &&
              __float2int_ru(0.1f) == 1,
          "rounding");
    CHECK(__float2int_rn(3e9f) == INT32_MAX && __float2int_rn(-3e9f) == INT32_MIN && __float2int_rn(NAN) == 0 &&
              __float2uint_rn(-1.0f) == 0 && __float2uint_rn(5e9f) == UINT32_MAX,
          "out of range");
    CHECK(__byte_perm(0x33221100u, 0x77665544u, 0x7420u) == 0x77442200u, "__byte_perm");
    CHECK(__popc(0xf0u) == 4 && __ffs(8) == 4 && __ffs(0) == 0 && __clz(1) == 31 && __clz(0) == 32 &&
              __brev(1) == 0x80000000u,
          "bits");
    CHECK(min(3, (int64_t)2) == 2 && max(1.0f, NAN) == 1.0f && min(NAN, 1.0f) == 1.0f, "min, max");
}
