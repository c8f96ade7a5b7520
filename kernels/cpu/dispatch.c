/* The CPU backend's tables, one per instruction set, and the choice among them at run time.
 *
 * Sources and their flags. Every file: -std=gnu11 -O3 -ffp-contract=fast -fopenmp.
 *   Once:       *_naive.c, dispatch.c, half.c, activation.c; no further flags.
 *   Per level:  the other kernels/cpu/X.c, with -DPS3C_LEVEL=<level> and
 *       portable     nothing more (the baseline of the architecture)
 *       avx2         -mavx2 -mfma -mf16c
 *       avx512       -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mprefer-vector-width=512
 *       avx512bf16   those of avx512, and -mavx512bf16
 * Other processors than x86-64 have naive and portable only.
 */
#include "cpu.h"

#if defined(__x86_64__) && !defined(PS3C_NO_X86_LEVELS)
#define PS3C_X86_LEVELS 1
#include <cpuid.h>
#else
#define PS3C_X86_LEVELS 0
#endif

#define FIELD(op, level) .op = ps3c_##op##_##level,
#define FIELD_naive(op) FIELD(op, naive)
#define FIELD_portable(op) FIELD(op, portable)
#define FIELD_avx2(op) FIELD(op, avx2)
#define FIELD_avx512(op) FIELD(op, avx512)
#define FIELD_avx512bf16(op) FIELD(op, avx512bf16)
#define BACKEND(level)                                                                          \
    static const ps3c_backend level##_backend = {.name = #level,                                \
                                                 .activation_bytes = ps3c_cpu_activation_bytes, \
                                                 .scratch_bytes = ps3c_cpu_scratch_bytes,       \
                                                 PS3C_CPU_FAST_OPERATIONS(FIELD_##level)        \
                                                     PS3C_CPU_PLAIN_OPERATIONS(FIELD_naive)};

BACKEND(naive)
BACKEND(portable)
#if PS3C_X86_LEVELS
BACKEND(avx2)
BACKEND(avx512)
BACKEND(avx512bf16)
#endif

/* Best first. Each level contains the next one's instructions, so what a processor can run is the end of the list. */
static const ps3c_backend *const backends[] = {
#if PS3C_X86_LEVELS
    &avx512bf16_backend, &avx512_backend, &avx2_backend,
#endif
    &portable_backend,   &naive_backend,  NULL,
};
static const char *const names[] = {
#if PS3C_X86_LEVELS
    "avx512bf16", "avx512", "avx2",
#endif
    "portable",   "naive",  NULL,
};

#if PS3C_X86_LEVELS
/* Not all compilers know it by name in __builtin_cpu_supports. */
static int has_f16c(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}
#endif

/* Index of the best level that this processor has. */
static int best_level(void)
{
#if PS3C_X86_LEVELS
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()))
        return 3;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")))
        return 2;
    return __builtin_cpu_supports("avx512bf16") ? 0 : 1;
#else
    return 0;
#endif
}

static const char *const *levels(void) { return names + best_level(); }

static ps3c_status find_backend(ps3c_context *context, int32_t device_index, const char *level,
                                const ps3c_backend **backend)
{
    (void)device_index;
    for (int i = best_level(); backends[i]; i++)
        if (!level || !strcmp(level, backends[i]->name)) {
            *backend = backends[i];
            return PS3C_OK;
        }
    return ps3c_fail(context, PS3C_ERROR_RUNTIME, "level: got '%s', expected one of this processor's", level);
}

const ps3c_backend_source ps3c_cpu_source = {.find = find_backend, .levels = levels};
