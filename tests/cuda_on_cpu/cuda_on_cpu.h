/* Runs CUDA kernels on the CPU: what the compiler sees in place of CUDA's language. A .cu file is compiled as C++ with
 * this header before everything else (-x c++ -include cuda_on_cpu.h) and linked with cuda_on_cpu.cpp, warp.cpp and
 * runtime.cpp.
 *
 * Each CUDA thread is a fiber with a stack of its own. A block runs on one OS thread, blocks are spread over OS
 * threads. Misuse that can be seen (divergent barrier, wrong mask, deadlock, misalignment, ...) ends the process with a
 * sentence. Environment, read at each launch: EMU_SEED      order of threads and blocks: 0 ascending (default), -1
 * descending, n > 0 random, reproducibly EMU_THREADS   OS threads of a launch (default: the processors) EMU_ARCH 80,
 * 86, 89, 90, 100, 120: whose shared memory limit holds, and what the device says it is (default 80) EMU_FAIL launches
 * of kernels whose name has this in it fail, as if the device were out of resources
 */
#ifndef CUDA_ON_CPU_H
#define CUDA_ON_CPU_H

#define PS3C_EMU 1

/* The toolkit's headers leave these names alone where they are defined already. */
#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline
#include <cuda_runtime_api.h>
#include <vector_functions.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __forceinline__
#define __forceinline__ inline
#undef __shared__
#define __shared__ static_assert(false, "use PS3C_SHARED or PS3C_DYNAMIC_SHARED")
#ifndef __clang__
#define __builtin_assume(condition) ((void)0)
#endif

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <tuple>
#include <type_traits>
#include <vector>

/* ---- launch and shared memory: what CUDA's syntax has and C++ has not ----------------------------------------- */

#define PS3C_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    emu::launch(#kernel, stream, kernel, grid, block, shared_bytes, __VA_ARGS__)
#define PS3C_SHARED(type, name, dims) \
    typedef type name##_type dims;    \
    static char name##_tag;           \
    name##_type &name =               \
        *static_cast<name##_type *>(emu::shared_static(&name##_tag, sizeof(name##_type), alignof(name##_type)))
#define PS3C_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(emu::shared_dynamic())

#define threadIdx (emu::self->thread_idx)
#define blockIdx (emu::self->block_idx)
#define blockDim (emu::self->block_dim)
#define gridDim (emu::self->grid_dim)
constexpr int warpSize = 32;

extern "C" {
/* The next launch of a kernel whose name, as the source writes it, has `part` in it fails. NULL: none. */
void emu_fail_next_launch(const char *part);
/* From here on, calls of this OS thread that allocate or wait end the process (true), or may be made again. */
void emu_forbid_waiting(bool forbid);
/* cudaDeviceSynchronize: a call that waits. */
void emu_wait();
}

namespace emu
{

/* Where in a kernel a call stands. */
struct site {
    const char *file;
    int line;
    static constexpr site here(const char *file = __builtin_FILE(), int line = __builtin_LINE())
    {
        return {file, line};
    }
};
#define EMU_SITE emu::site site = emu::site::here()

/* A cp.async that was issued and not yet waited for. */
struct async_copy {
    uint32_t *to;
    uint32_t data[4];
    unsigned words, group;
};

/* A CUDA thread, as kernels see it. */
struct thread {
    uint3 thread_idx, block_idx;
    dim3 block_dim, grid_dim;
    unsigned lane;
    unsigned groups_committed;
    std::vector<async_copy> copies;
};
extern __thread thread *self;

[[noreturn]] void fail(site, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool launch_fails(const char *kernel);
void run(const char *kernel, dim3 grid, dim3 block, size_t shared_bytes, void (*body)(void *), void *closure);
void *shared_static(const void *tag, size_t bytes, size_t alignment);
void *shared_dynamic();
void maybe_yield(); /* lets other threads run, in random order only */
void fence();

enum class vote { count, all, any };
int block_barrier(const char *name, vote, int predicate, site);

enum class shuffle { index, up, down, exclusive_or };
void warp_shuffle(unsigned mask, const char *name, shuffle, void *value, size_t bytes, int argument, int width, site);
unsigned warp_ballot(unsigned mask, const char *name, int predicate, site);
unsigned warp_match(unsigned mask, uint64_t value, site);
enum class reduction { sum, least, most, and_, or_, xor_ };
int64_t warp_reduce(unsigned mask, const char *name, reduction, int64_t value, site);
void warp_sync(unsigned mask, site);
void warp_ldmatrix(uint32_t *out, int count, bool transposed, const uint32_t (&row)[4], site);

/* 16 x 8 products: element type, and the length of the sums. */
enum class mma_kind { bf16_k16, f16_k16, bf16_k8, f16_k8, tf32_k8 };
void mma(mma_kind, float *d, const uint32_t *a, const uint32_t *b, site);

template <class... P, class... A>
void launch(const char *name, cudaStream_t, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
            A &&...args)
{
    struct call {
        void (*kernel)(P...);
        std::tuple<std::decay_t<P>...> args;
    } closure{kernel, {static_cast<P>(args)...}};
    if (shared_bytes > 32 * 1024) /* as the macro of ptx.cuh */
        (void)cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   (int)shared_bytes);
    if (launch_fails(name))
        return;
    run(
        name, grid, block, shared_bytes,
        [](void *c) {
            auto *made = static_cast<call *>(c);
            std::apply(made->kernel, made->args);
        },
        &closure);
}

template <class To, class From> To bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

/* ---- the instructions of ptx.cuh ------------------------------------------------------------------------------- */

inline void ldmatrix(uint32_t *out, int count, bool transposed, const void *row, site site)
{
    uint32_t data[4] = {};
    if (self->lane < 8u * (unsigned)count) { /* other lanes' addresses are not used */
        if ((uintptr_t)row % 16)
            fail(site, "ldmatrix: row address %p is not 16-byte aligned", row);
        const uint4 loaded = *static_cast<const uint4 *>(row);
        memcpy(data, &loaded, 16);
    }
    warp_ldmatrix(out, count, transposed, data, site);
}

/* The destination holds NaN from the issue until the wait: reading it too early shows, and so does overwriting what
 * others still read. */
inline void cp_async(void *to, const void *from, unsigned bytes, bool valid, site site)
{
    if ((uintptr_t)to % bytes || (uintptr_t)from % bytes)
        fail(site, "cp.async: %p <- %p is not %u-byte aligned", to, from, bytes);
    async_copy copy = {static_cast<uint32_t *>(to), {}, bytes / 4, self->groups_committed};
    for (unsigned i = 0; i < copy.words; i++) {
        copy.data[i] = valid ? static_cast<const uint32_t *>(from)[i] : 0;
        copy.to[i] = ~0u;
    }
    self->copies.push_back(copy);
}
inline void cp_async_commit() { self->groups_committed++; }
inline void cp_async_wait(unsigned pending)
{
    auto &copies = self->copies;
    size_t done = 0;
    for (; done < copies.size() && copies[done].group + pending < self->groups_committed; done++)
        for (unsigned i = 0; i < copies[done].words; i++)
            copies[done].to[i] = copies[done].data[i];
    copies.erase(copies.begin(), copies.begin() + (ptrdiff_t)done);
}

inline uint32_t to_tf32(float x)
{
    const uint32_t u = bits<uint32_t>(x);
    return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : (u + 0x1000u) & ~0x1fffu;
}
inline float fast_exp2(float x)
{
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y; /* NaN stays */
}

template <class T>
T shuffled(unsigned mask, const char *name, shuffle kind, T value, int argument, int width, site site)
{
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 16, "plain values of up to 16 bytes");
    warp_shuffle(mask, name, kind, &value, sizeof value, argument, width, site);
    return value;
}
template <class T, class F> T atomic_update(T *p, F f)
{
    maybe_yield();
    T old = __atomic_load_n(p, __ATOMIC_RELAXED), next = f(old);
    while (!__atomic_compare_exchange_n(p, &old, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        next = f(old);
    return old;
}
template <class T> using same = typename std::enable_if<true, T>::type; /* takes no part in deduction */
template <class...> constexpr bool never = false;

} // namespace emu

/* ---- barriers and warp functions --------------------------------------------------------------------------------- */

inline void __syncthreads(EMU_SITE) { emu::block_barrier("__syncthreads", emu::vote::any, 0, site); }
inline int __syncthreads_count(int p, EMU_SITE)
{
    return emu::block_barrier("__syncthreads_count", emu::vote::count, p, site);
}
inline int __syncthreads_and(int p, EMU_SITE)
{
    return emu::block_barrier("__syncthreads_and", emu::vote::all, p, site);
}
inline int __syncthreads_or(int p, EMU_SITE) { return emu::block_barrier("__syncthreads_or", emu::vote::any, p, site); }
inline void __syncwarp(unsigned mask = ~0u, EMU_SITE) { emu::warp_sync(mask, site); }
inline unsigned __ballot_sync(unsigned mask, int p, EMU_SITE)
{
    return emu::warp_ballot(mask, "__ballot_sync", p, site);
}
inline int __any_sync(unsigned mask, int p, EMU_SITE) { return emu::warp_ballot(mask, "__any_sync", p, site) != 0; }
inline int __all_sync(unsigned mask, int p, EMU_SITE) { return emu::warp_ballot(mask, "__all_sync", p, site) == mask; }
template <class T> unsigned __match_any_sync(unsigned mask, T value, EMU_SITE)
{
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "32 or 64 bits");
    if constexpr (sizeof(T) == 4)
        return emu::warp_match(mask, emu::bits<uint32_t>(value), site);
    else
        return emu::warp_match(mask, emu::bits<uint64_t>(value), site);
}
template <class T = void> unsigned __activemask()
{
    static_assert(emu::never<T>, "no __activemask: masks are written out");
    return 0;
}

#define EMU_REDUCE(name, kind, type)                                                   \
    inline type name(unsigned mask, type value, EMU_SITE)                              \
    {                                                                                  \
        return (type)emu::warp_reduce(mask, #name, emu::reduction::kind, value, site); \
    }
EMU_REDUCE(__reduce_add_sync, sum, int)
EMU_REDUCE(__reduce_add_sync, sum, unsigned)
EMU_REDUCE(__reduce_min_sync, least, int)
EMU_REDUCE(__reduce_min_sync, least, unsigned)
EMU_REDUCE(__reduce_max_sync, most, int)
EMU_REDUCE(__reduce_max_sync, most, unsigned)
EMU_REDUCE(__reduce_and_sync, and_, unsigned)
EMU_REDUCE(__reduce_or_sync, or_, unsigned)
EMU_REDUCE(__reduce_xor_sync, xor_, unsigned)
#undef EMU_REDUCE

#define EMU_SHUFFLE(name, kind, type)                                                             \
    template <class T> T name(unsigned mask, T value, type argument, int width = 32, EMU_SITE)    \
    {                                                                                             \
        return emu::shuffled(mask, #name, emu::shuffle::kind, value, (int)argument, width, site); \
    }
EMU_SHUFFLE(__shfl_sync, index, int)
EMU_SHUFFLE(__shfl_up_sync, up, unsigned)
EMU_SHUFFLE(__shfl_down_sync, down, unsigned)
EMU_SHUFFLE(__shfl_xor_sync, exclusive_or, int)
#undef EMU_SHUFFLE

/* ---- memory ------------------------------------------------------------------------------------------------------ */

inline void __threadfence() { emu::fence(); }
inline void __threadfence_block() { emu::fence(); }
template <class T> T __ldg(const T *p) { return *p; }
template <class T> T __ldcg(const T *p) { return *p; }
template <class T> T __ldca(const T *p) { return *p; }
template <class T> T __ldcs(const T *p) { return *p; }
template <class T> void __stcg(T *p, emu::same<T> v) { *p = v; }
template <class T> void __stcs(T *p, emu::same<T> v) { *p = v; }

template <class T> T atomicAdd(T *p, emu::same<T> v)
{
    if constexpr (std::is_same_v<T, float>)
        return emu::bits<float>(emu::atomic_update(reinterpret_cast<unsigned *>(p), [v](unsigned old) {
            return emu::bits<unsigned>(emu::bits<float>(old) + v);
        }));
    else
        return emu::atomic_update(p, [v](T old) { return T(old + v); });
}
template <class T> T atomicSub(T *p, emu::same<T> v)
{
    return emu::atomic_update(p, [v](T old) { return T(old - v); });
}
template <class T> T atomicMax(T *p, emu::same<T> v)
{
    return emu::atomic_update(p, [v](T old) { return old < v ? v : old; });
}
template <class T> T atomicMin(T *p, emu::same<T> v)
{
    return emu::atomic_update(p, [v](T old) { return v < old ? v : old; });
}
template <class T> T atomicAnd(T *p, emu::same<T> v)
{
    return emu::atomic_update(p, [v](T old) { return T(old & v); });
}
template <class T> T atomicOr(T *p, emu::same<T> v)
{
    return emu::atomic_update(p, [v](T old) { return T(old | v); });
}
template <class T> T atomicXor(T *p, emu::same<T> v)
{
    return emu::atomic_update(p, [v](T old) { return T(old ^ v); });
}
template <class T> T atomicExch(T *p, emu::same<T> v)
{
    return emu::atomic_update(p, [v](T) { return v; });
}
template <class T> T atomicCAS(T *p, emu::same<T> expected, emu::same<T> v)
{
    return emu::atomic_update(p, [=](T old) { return old == expected ? v : old; });
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

inline unsigned __float_as_uint(float x) { return emu::bits<unsigned>(x); }
inline int __float_as_int(float x) { return emu::bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emu::bits<float>(x); }
inline float __int_as_float(int x) { return emu::bits<float>(x); }
inline long long __double_as_longlong(double x) { return emu::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emu::bits<double>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline unsigned __brev(unsigned x)
{
    unsigned y = 0;
    for (int i = 0; i < 32; i++)
        y |= (x >> i & 1) << (31 - i);
    return y;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector)
{
    const uint64_t both = (uint64_t)b << 32 | a;
    unsigned y = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned choice = selector >> 4 * i & 15, byte = (unsigned)(both >> 8 * (choice & 7)) & 255;
        y |= (choice & 8 ? byte & 128 ? 255u : 0u : byte) << 8 * i;
    }
    return y;
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return (float)(1.0 / sqrt((double)x)); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x > 0.0f ? x < 1.0f ? x : 1.0f : 0.0f; } /* NaN: 0 */
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __powf(float x, float y) { return powf(x, y); }

/* Float to integer: out of range clamps, NaN is 0 (64 bits: the least). */
template <class I> I emu_to_integer(float x)
{
    constexpr bool wide = sizeof(I) == 8, is_signed = std::is_signed_v<I>;
    constexpr float beyond = wide ? is_signed ? 0x1p63f : 0x1p64f : is_signed ? 0x1p31f : 0x1p32f;
    if (x != x)
        return wide ? (I)((uint64_t)1 << 63) : 0;
    if (x >= beyond)
        return (I) ~(is_signed ? (uint64_t)1 << (8 * sizeof(I) - 1) : 0);
    if (x <= (is_signed ? -beyond : 0.0f))
        return is_signed ? (I)((uint64_t)1 << (8 * sizeof(I) - 1)) : 0;
    return (I)x;
}
#define EMU_CONVERT(name, type)                                                              \
    inline type __float2##name##_rn(float x) { return emu_to_integer<type>(nearbyintf(x)); } \
    inline type __float2##name##_rd(float x) { return emu_to_integer<type>(floorf(x)); }     \
    inline type __float2##name##_ru(float x) { return emu_to_integer<type>(ceilf(x)); }      \
    inline type __float2##name##_rz(float x) { return emu_to_integer<type>(truncf(x)); }     \
    inline float __##name##2float_rn(type x) { return (float)x; }
EMU_CONVERT(int, int)
EMU_CONVERT(uint, unsigned)
EMU_CONVERT(ll, long long)
EMU_CONVERT(ull, unsigned long long)
#undef EMU_CONVERT

/* Of a number and NaN: the number, as fminf and fmaxf have it. */
template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b)
{
    using T = std::common_type_t<A, B>;
    return static_cast<T>(b) < static_cast<T>(a) || a != a ? static_cast<T>(b) : static_cast<T>(a);
}
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b)
{
    using T = std::common_type_t<A, B>;
    return static_cast<T>(a) < static_cast<T>(b) || a != a ? static_cast<T>(b) : static_cast<T>(a);
}

#endif
