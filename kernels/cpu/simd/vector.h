/* The vector types of a level and plain arithmetic on them, with the compilers' vector extensions. Included by each
 * level's header after it has defined PS3C_VECTOR, the number of floats of a vector: 4, 8 or 16. */
#ifndef PS3C_CPU_SIMD_VECTOR_H
#define PS3C_CPU_SIMD_VECTOR_H

#include "../cpu.h"

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { VECTOR = PS3C_VECTOR }; /* floats, words */

typedef float vfloat __attribute__((vector_size(4 * PS3C_VECTOR), may_alias));
typedef uint32_t vword __attribute__((vector_size(4 * PS3C_VECTOR), may_alias));
typedef uint16_t vhalf __attribute__((vector_size(2 * PS3C_VECTOR), may_alias));

/* Memory: aligned unless the name says otherwise. */
INLINE vfloat v_load(const void *p) { return *(const vfloat *)p; }
INLINE void v_store(void *p, vfloat v) { *(vfloat *)p = v; }
INLINE vword v_load_word(const void *p) { return *(const vword *)p; }
INLINE void v_store_word(void *p, vword v) { *(vword *)p = v; }
INLINE void v_store_unaligned(void *p, vfloat v) { memcpy(p, &v, sizeof v); }

INLINE vfloat v_splat(float f) { return f - (vfloat){0}; }
INLINE vword v_splat_word(uint32_t u) { return u + (vword){0}; }

INLINE vfloat v_select(vword mask, vfloat a, vfloat b) { return (vfloat)((mask & (vword)a) | (~mask & (vword)b)); }
INLINE vfloat v_abs(vfloat a) { return (vfloat)((vword)a & 0x7fffffffu); }

#endif
