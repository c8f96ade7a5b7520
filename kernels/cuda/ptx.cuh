/* The PTX instructions that kernels use, and macros for the CUDA syntax that is not C++.
 *
 * nvcc gets inline assembly. In tests/cuda_on_cpu, whose cuda_on_cpu.h is included first and defines PS3C_EMU, the same
 * names call the emulator. Kernels contain no assembly of their own, so both can compile them.
 *
 *   PS3C_SHARED(float, sum, [2][32]);       static shared memory; sum is a float[2][32]
 *   PS3C_DYNAMIC_SHARED(float, rows);       dynamic shared memory, 128-byte aligned; rows is a float *
 *   PS3C_LAUNCH((kernel<T, 4>), grid, block, shared_bytes, stream, arguments...);
 *
 * Fragments. lane = 4 * g + t. mma m16n8k16, 16-bit elements (lower index in the low half):
 *   a[0] = A[g][2t..], a[1] = A[g + 8][2t..], a[2] = A[g][2t + 8..], a[3] = A[g + 8][2t + 8..]
 *   b[0] = B[2t..][g], b[1] = B[2t + 8..][g]
 *   d[0], d[1] = D[g][2t], D[g][2t + 1]; d[2], d[3] = D[g + 8][2t], D[g + 8][2t + 1]
 * mma m16n8k8, 16-bit elements: a[0], a[1], b[0] as above.
 * mma m16n8k8, TF32: a[0] = A[g][t], a[1] = A[g + 8][t], a[2] = A[g][t + 4], a[3] = A[g + 8][t + 4];
 *   b[0] = B[t][g], b[1] = B[t + 4][g]; d as above.
 * ldmatrix<count, transposed>: lane l gives the address of row l % 8 (16 bytes, 16-byte aligned) of matrix l / 8, and
 *   gets of matrix m in r[m] elements [g][2t] and [g][2t + 1], or [2t][g] and [2t + 1][g] when transposed. Addresses of
 *   lanes from 8 * count on are not used.
 */
#ifndef PS3C_PTX_CUH
#define PS3C_PTX_CUH

#include <cstdint>

#ifndef PS3C_EMU
#include <cuda_runtime.h>
#endif
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#ifdef PS3C_EMU

/* PS3C_SHARED, PS3C_DYNAMIC_SHARED and PS3C_LAUNCH are cuda_on_cpu.h's. */

template <int count, bool transposed> inline void ldmatrix(uint32_t (&r)[count], const void *row, EMU_SITE)
{
    static_assert(count == 1 || count == 2 || count == 4, "ldmatrix loads 1, 2 or 4 matrices");
    emu::ldmatrix(r, count, transposed, row, site);
}
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMU_SITE)
{
    emu::mma(emu::mma_kind::bf16_k16, d, a, b, site);
}
inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMU_SITE)
{
    emu::mma(emu::mma_kind::f16_k16, d, a, b, site);
}
inline void mma_bf16_k8(float (&d)[4], const uint32_t (&a)[2], uint32_t b, EMU_SITE)
{
    emu::mma(emu::mma_kind::bf16_k8, d, a, &b, site);
}
inline void mma_f16_k8(float (&d)[4], const uint32_t (&a)[2], uint32_t b, EMU_SITE)
{
    emu::mma(emu::mma_kind::f16_k8, d, a, &b, site);
}
inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMU_SITE)
{
    emu::mma(emu::mma_kind::tf32_k8, d, a, b, site);
}
inline uint32_t to_tf32(float x) { return emu::to_tf32(x); }
inline float fast_exp2(float x) { return emu::fast_exp2(x); }
template <int bytes> inline void cp_async(void *to, const void *from, bool valid, EMU_SITE)
{
    static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    emu::cp_async(to, from, bytes, valid, site);
}
inline void cp_async_commit() { emu::cp_async_commit(); }
template <int pending> inline void cp_async_wait() { emu::cp_async_wait(pending); }
inline void cp_async16(void *to, const void *from, bool valid, EMU_SITE) { emu::cp_async(to, from, 16, valid, site); }

template <class T> inline void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMU_SITE)
{
    static_assert(std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>, "mma of 16-bit types");
    emu::mma(std::is_same_v<T, __half> ? emu::mma_kind::f16_k16 : emu::mma_kind::bf16_k16, d, a, b, site);
}

#else

#define PS3C_SHARED(type, name, dims) __shared__ type name dims
#define PS3C_DYNAMIC_SHARED(type, name)                                         \
    extern __shared__ __align__(128) unsigned char ps3c_dynamic_shared_bytes[]; \
    type *name = reinterpret_cast<type *>(ps3c_dynamic_shared_bytes)

/* More than 48 KiB, static shared memory included, has to be requested. If the request is refused, the launch fails too
 * and cudaGetLastError reports it. */
#define PS3C_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                               \
    do {                                                                                                          \
        if ((shared_bytes) > 32 * 1024)                                                                           \
            (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(shared_bytes)); \
        kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__);                                               \
    } while (0)

__device__ __forceinline__ uint32_t ps3c_shared_address(const void *p)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

#define PS3C_LDMATRIX(suffix) "ldmatrix.sync.aligned.m8n8." suffix ".shared.b16 "
template <int count, bool transposed> __device__ __forceinline__ void ldmatrix(uint32_t (&r)[count], const void *row)
{
    static_assert(count == 1 || count == 2 || count == 4, "ldmatrix loads 1, 2 or 4 matrices");
    const uint32_t at = ps3c_shared_address(row);
    if constexpr (count == 4 && transposed)
        asm volatile(PS3C_LDMATRIX("x4.trans") "{%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
    else if constexpr (count == 4)
        asm volatile(PS3C_LDMATRIX("x4") "{%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
    else if constexpr (count == 2 && transposed)
        asm volatile(PS3C_LDMATRIX("x2.trans") "{%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(at) : "memory");
    else if constexpr (count == 2)
        asm volatile(PS3C_LDMATRIX("x2") "{%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(at) : "memory");
    else if constexpr (transposed)
        asm volatile(PS3C_LDMATRIX("x1.trans") "{%0}, [%1];" : "=r"(r[0]) : "r"(at) : "memory");
    else
        asm volatile(PS3C_LDMATRIX("x1") "{%0}, [%1];" : "=r"(r[0]) : "r"(at) : "memory");
}
#undef PS3C_LDMATRIX

/* d += a b, accumulated in float32. */
#define PS3C_MMA_K16(name, type)                                                                     \
    __device__ __forceinline__ void name(float(&d)[4], const uint32_t(&a)[4], const uint32_t(&b)[2]) \
    {                                                                                                \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 "                  \
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"               \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));            \
    }
#define PS3C_MMA_K8(name, type)                                                           \
    __device__ __forceinline__ void name(float(&d)[4], const uint32_t(&a)[2], uint32_t b) \
    {                                                                                     \
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32." type "." type ".f32 "        \
                     "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"                \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                     \
                     : "r"(a[0]), "r"(a[1]), "r"(b));                                     \
    }
PS3C_MMA_K16(mma_bf16, "bf16")
PS3C_MMA_K16(mma_f16, "f16")
PS3C_MMA_K8(mma_bf16_k8, "bf16")
PS3C_MMA_K8(mma_f16_k8, "f16")
#undef PS3C_MMA_K16
#undef PS3C_MMA_K8

/* The factors must come from to_tf32. */
__device__ __forceinline__ void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* x rounded to 10 bits of mantissa (ties away from zero); the other bits are zero. */
__device__ __forceinline__ uint32_t to_tf32(float x)
{
    uint32_t r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
}

/* 2^x within 2 units in the last place; subnormal results are zero. */
__device__ __forceinline__ float fast_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Copies `bytes` from global to shared memory, or writes as many zeros if not valid; `from` must be in bounds in both
 * cases. Both addresses are aligned to `bytes`. The copy is complete after cp_async_commit, then cp_async_wait. */
template <int bytes> __device__ __forceinline__ void cp_async(void *to, const void *from, bool valid)
{
    static_assert(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes");
    if constexpr (bytes == 16) /* .cg: not through the L1 cache */
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ps3c_shared_address(to)),
                     "l"(__cvta_generic_to_global(from)), "r"(valid ? 16 : 0)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(ps3c_shared_address(to)),
                     "l"(__cvta_generic_to_global(from)), "n"(bytes), "r"(valid ? bytes : 0)
                     : "memory");
}
__device__ __forceinline__ void cp_async16(void *to, const void *from, bool valid) { cp_async<16>(to, from, valid); }
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Waits until all but the latest `pending` groups of this thread are complete. Other threads see the data after the
 * next barrier. */
template <int pending> __device__ __forceinline__ void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

/* m16n8k16 of __half or __nv_bfloat16. */
template <class T> __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <> __device__ __forceinline__ void mma<__half>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    mma_f16(d, a, b);
}
template <>
__device__ __forceinline__ void mma<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    mma_bf16(d, a, b);
}

#endif

#endif
