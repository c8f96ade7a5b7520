/* What cuda_on_cpu.cpp (threads, blocks, barriers) and warp.cpp (warp functions) share. Not seen by kernels.
 *
 * These sources are compiled without sanitizers, whatever the kernels are compiled with: they find out which runtime is
 * linked by weak symbols, and tell it of every switch of stacks. */
#ifndef SCHEDULER_H
#define SCHEDULER_H

#include "cuda_on_cpu.h"

#include <memory>
#include <random>

#define EMU_WEAK __attribute__((weak))
extern "C" {
EMU_WEAK void __sanitizer_start_switch_fiber(void **fake, const void *bottom, size_t size);
EMU_WEAK void __sanitizer_finish_switch_fiber(void *fake, const void **bottom, size_t *size);
EMU_WEAK void __asan_unpoison_memory_region(const volatile void *, size_t);
EMU_WEAK void *__tsan_get_current_fiber();
EMU_WEAK void *__tsan_create_fiber(unsigned);
EMU_WEAK void __tsan_destroy_fiber(void *);
EMU_WEAK void __tsan_switch_to_fiber(void *, unsigned flags);
EMU_WEAK void __tsan_acquire(void *);
EMU_WEAK void __tsan_release(void *);
EMU_WEAK void AnnotateIgnoreReadsBegin(const char *, int);
EMU_WEAK void AnnotateIgnoreReadsEnd(const char *, int);
EMU_WEAK void AnnotateIgnoreWritesBegin(const char *, int);
EMU_WEAK void AnnotateIgnoreWritesEnd(const char *, int);
}

namespace emu
{

/* The emulator's own accesses, through functions that ThreadSanitizer watches, are no part of the kernel. */
struct tsan_ignore {
    tsan_ignore()
    {
        if (AnnotateIgnoreReadsBegin) {
            AnnotateIgnoreReadsBegin("", 0);
            AnnotateIgnoreWritesBegin("", 0);
        }
    }
    ~tsan_ignore()
    {
        if (AnnotateIgnoreReadsBegin) {
            AnnotateIgnoreWritesEnd("", 0);
            AnnotateIgnoreReadsEnd("", 0);
        }
    }
};
inline void acquire(void *p)
{
    if (__tsan_acquire)
        __tsan_acquire(p);
}
inline void release(void *p)
{
    if (__tsan_release)
        __tsan_release(p);
}

/* Threads that wait for each other at one call. */
struct meeting {
    unsigned arrived = 0, generation = 0, mask = 0;
    const char *name = nullptr;
    site where = {};
    char sync[2]; /* ThreadSanitizer's, by parity of the generation */

    void arrive(const char *name, site);
    void *token() { return &sync[generation & 1]; }
};

struct warp;

struct fiber : thread {
    void *sp = nullptr;
    char *stack = nullptr;
    const void *stack_bottom = nullptr;
    size_t stack_size = 0;
    void *fake_stack = nullptr, *tsan = nullptr;
    struct warp *of = nullptr;
    const char *waits_at = nullptr;
    site where = {};
    bool done = false;
};

struct warp {
    fiber *fibers[32] = {};
    void *slots[32];      /* operands of the lanes that wait */
    meeting meetings[32]; /* by lowest lane of the mask */
};

/* Fibers that can run: each at most once, so that a ring of a block's size is never full. */
struct queue {
    fiber *ring[1024];
    unsigned first = 0, count = 0;

    void push(fiber *f) { ring[(first + count++) % 1024] = f; }
    fiber *pop_front()
    {
        fiber *f = ring[first++ % 1024];
        count--;
        return f;
    }
    fiber *pop_back() { return ring[(first + --count) % 1024]; }
};

struct block {
    fiber root; /* the OS thread itself */
    std::unique_ptr<fiber[]> fibers;
    std::unique_ptr<warp[]> warps;
    std::vector<char *> stacks;
    unsigned size = 0, running = 0;
    queue ready;
    meeting barrier;
    int votes = 0, vote_result = 0;
    struct array {
        const void *tag;
        void *memory;
    };
    std::vector<array> shared;
    size_t static_bytes = 0, dynamic_bytes = 0;
    void (*body)(void *) = nullptr;
    void *closure = nullptr;
    void *done_token = nullptr;
    long seed = 0;
    std::minstd_rand random;
};

extern thread_local block *the_block;
extern thread_local fiber *current;

long environment(const char *name, long otherwise);
int architecture();
size_t shared_limit(); /* bytes of a block that asked for more than 48 KiB */

/* The current thread waits until it's woken. */
void wait(const char *name, site);
void wake(fiber *);
/* Puts the current thread behind those that can run. */
void yield();

} // namespace emu

#endif
