/* What the processor can run: the functions that expressions in levels.def call. __builtin_cpu_init() must have run. */
#ifndef PS3C_CPU_DETECT_H
#define PS3C_CPU_DETECT_H

#include "cpu.h"

#ifdef __x86_64__
#include <cpuid.h>

#define HAS(feature) __builtin_cpu_supports(#feature)

/* avx2 with fma and f16c. Not every compiler knows f16c in __builtin_cpu_supports. */
static inline bool has_avx2(void)
{
    unsigned eax, ebx, ecx, edx;
    return HAS(avx2) && HAS(fma) && __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}
static inline bool has_avx512(void)
{
    return has_avx2() && HAS(avx512f) && HAS(avx512bw) && HAS(avx512vl) && HAS(avx512dq);
}
static inline void ps3c_detect(void) { __builtin_cpu_init(); }
#else
static inline void ps3c_detect(void) {}
#endif

#endif
