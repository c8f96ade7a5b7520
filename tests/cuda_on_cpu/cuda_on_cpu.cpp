/* The scheduler: threads of a block as fibers, blocks over OS threads, barriers, shared memory. */
#include "scheduler.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <thread>

#if !defined(__x86_64__)
#error "cuda_on_cpu: the switch of stacks is written for x86-64"
#endif

extern "C" void emu_switch(void **save_sp, void *sp);
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, @function
emu_switch:
    push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
    ret
.size emu_switch, .-emu_switch
.section .note.GNU-stack,"",@progbits
.text
)");

namespace emu
{

__thread thread *self;
thread_local block *the_block;
thread_local fiber *current;

namespace
{

constexpr size_t PAGE = 4096, PLAIN_SHARED = 48 << 10;

/* Under ThreadSanitizer stacks have to be made anew, at a cost by size. */
size_t stack_bytes() { return __tsan_create_fiber ? 64 << 10 : 256 << 10; }

/* ThreadSanitizer's fibers that ended are kept for a while: a race with a destroyed one would not be reported. */
thread_local std::deque<void *> ended_tsan_fibers;

/* Stacks are kept for the next block. Each has a page below it that faults. */
struct stack_store {
    std::mutex mutex;
    std::vector<char *> unused;

    static char *map(char *at, size_t bytes, int flags)
    {
        void *p = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
        if (p == MAP_FAILED) {
            perror("emu: stack");
            abort();
        }
        return static_cast<char *>(p);
    }
    static char *make()
    {
        char *stack = map(nullptr, stack_bytes(), 0);
        if (mprotect(stack, PAGE, PROT_NONE)) {
            perror("emu: stack");
            abort();
        }
        return stack;
    }
    void take(size_t count, std::vector<char *> *stacks)
    {
        {
            std::lock_guard<std::mutex> guard(mutex);
            const size_t kept = std::min(count, unused.size());
            stacks->assign(unused.end() - (ptrdiff_t)kept, unused.end());
            unused.resize(unused.size() - kept);
        }
        while (stacks->size() < count)
            stacks->push_back(make());
    }
    void give(const std::vector<char *> &stacks)
    {
        if (__tsan_create_fiber) /* a new mapping has no history of accesses */
            for (char *stack : stacks)
                map(stack + PAGE, stack_bytes() - PAGE, MAP_FIXED);
        std::lock_guard<std::mutex> guard(mutex);
        unused.insert(unused.end(), stacks.begin(), stacks.end());
    }
};
stack_store &store()
{
    static stack_store *only = new stack_store();
    return *only;
}

/* ---- fibers ------------------------------------------------------------------------------------------------------ */

void arrived_from_switch(void *fake_stack)
{
    if (!__sanitizer_finish_switch_fiber)
        return;
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(fake_stack, &bottom, &size);
    if (!the_block->root.stack_bottom) {
        the_block->root.stack_bottom = bottom;
        the_block->root.stack_size = size;
    }
}

void switch_to(fiber *to)
{
    fiber *from = current;
    if (from == to)
        return;
    current = to;
    self = to;
    if (__sanitizer_start_switch_fiber)
        __sanitizer_start_switch_fiber(from->done ? nullptr : &from->fake_stack, to->stack_bottom, to->stack_size);
    if (__tsan_switch_to_fiber)
        __tsan_switch_to_fiber(to->tsan, 1); /* 1: the switch orders nothing */
    emu_switch(&from->sp, to->sp);
    arrived_from_switch(from->fake_stack);
}

fiber *pick()
{
    queue &ready = the_block->ready;
    if (!ready.count)
        return &the_block->root;
    if (the_block->seed < 0)
        return ready.pop_back();
    if (the_block->seed > 0)
        std::swap(ready.ring[ready.first % 1024], ready.ring[(ready.first + the_block->random() % ready.count) % 1024]);
    return ready.pop_front();
}

void fiber_main()
{
    arrived_from_switch(nullptr);
    the_block->body(the_block->closure);
    fiber *next;
    {
        tsan_ignore ignore;
        if (!current->copies.empty())
            fail({"kernel", 0}, "cp.async: copies still pending when the thread exits");
        release(the_block->done_token);
        current->done = true;
        the_block->running--;
        next = pick();
    }
    switch_to(next);
    abort();
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

void forget_tsan_fibers(size_t keep)
{
    for (; ended_tsan_fibers.size() > keep; ended_tsan_fibers.pop_front())
        __tsan_destroy_fiber(ended_tsan_fibers.front());
}

void prepare(fiber *f, unsigned i, uint3 index, dim3 grid, dim3 dim)
{
    block &b = *the_block;
    f->thread_idx = {i % dim.x, i / dim.x % dim.y, i / dim.x / dim.y};
    f->block_idx = index;
    f->block_dim = dim;
    f->grid_dim = grid;
    f->lane = i % 32;
    f->groups_committed = 0;
    f->of = &b.warps[i / 32];
    f->of->fibers[f->lane] = f;
    f->stack = b.stacks[i];
    f->stack_bottom = f->stack + PAGE;
    f->stack_size = stack_bytes() - PAGE;
    if (__asan_unpoison_memory_region)
        __asan_unpoison_memory_region(f->stack + PAGE, f->stack_size);
    /* Six registers, then the return address. Stacks start at different places of their pages, or their tops would all
     * fall into the same lines of the cache. */
    void **top = reinterpret_cast<void **>(f->stack + stack_bytes() - i * 5 % 32 * 128) - 10;
    std::fill(top, top + 10, nullptr);
    top[6] = reinterpret_cast<void *>(fiber_main);
    f->sp = top;
    if (__tsan_create_fiber)
        f->tsan = __tsan_create_fiber(0);
    b.ready.push(f);
}

[[noreturn]] void deadlock(uint3 index)
{
    const block &b = *the_block;
    fprintf(stderr, "emu: deadlock in block (%u,%u,%u); threads wait at:\n", index.x, index.y, index.z);
    for (unsigned first = 0, end; first < b.size; first = end) {
        const fiber &f = b.fibers[first];
        for (end = first + 1; end < b.size; end++) {
            const fiber &other = b.fibers[end];
            if (other.done != f.done || other.waits_at != f.waits_at || other.where.line != f.where.line)
                break;
        }
        if (f.done)
            fprintf(stderr, "  threads %u..%u: ended\n", first, end - 1);
        else
            fprintf(stderr, "  threads %u..%u: %s at %s:%d\n", first, end - 1, f.waits_at, f.where.file, f.where.line);
    }
    abort();
}

struct grid_run {
    dim3 grid, dim;
    size_t shared_bytes;
    void (*body)(void *);
    void *closure;
    long seed;
    char done_token;
};

void run_block(grid_run *run, uint3 index)
{
    tsan_ignore ignore;
    auto owner = std::make_unique<block>();
    block &b = *(the_block = owner.get());
    b.size = b.running = run->dim.x * run->dim.y * run->dim.z;
    b.fibers.reset(new fiber[b.size]);
    b.warps.reset(new warp[(b.size + 31) / 32]);
    store().take(b.size, &b.stacks);
    b.dynamic_bytes = run->shared_bytes;
    b.body = run->body;
    b.closure = run->closure;
    b.done_token = &run->done_token;
    b.seed = run->seed;
    b.random.seed((unsigned)run->seed + index.x * 7919u + index.y * 104729u + index.z);
    if (__tsan_get_current_fiber)
        b.root.tsan = __tsan_get_current_fiber();
    for (unsigned i = 0; i < b.size; i++)
        prepare(&b.fibers[i], i, index, run->grid, run->dim);
    current = &b.root;
    switch_to(pick());
    if (b.running) /* nothing can run, and some have not ended */
        deadlock(index);
    if (__tsan_destroy_fiber)
        for (unsigned i = 0; i < b.size; i++)
            ended_tsan_fibers.push_back(b.fibers[i].tsan);
    store().give(b.stacks);
    for (auto &array : b.shared)
        free(array.memory);
    forget_tsan_fibers(2000); /* ThreadSanitizer has room for some 8000 */
    the_block = nullptr;
    self = nullptr;
}

void check_launch(const char *kernel, dim3 grid, dim3 dim, size_t shared_bytes)
{
    const size_t threads = (size_t)dim.x * dim.y * dim.z, blocks = (size_t)grid.x * grid.y * grid.z;
    if (self)
        fail({kernel, 0}, "launched from a kernel");
    if (!threads || threads > 1024 || dim.z > 64)
        fail({kernel, 0}, "launch: %zu threads in a block", threads);
    if (!blocks || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        fail({kernel, 0}, "launch: a grid of (%u,%u,%u)", grid.x, grid.y, grid.z);
    if (shared_bytes > shared_limit())
        fail({kernel, 0}, "launch: %zu bytes of shared memory, of %zu", shared_bytes, shared_limit());
}

} // namespace

/* ---- the emulator's own ------------------------------------------------------------------------------------------ */

long environment(const char *name, long otherwise)
{
    const char *value = getenv(name);
    return value && *value ? atol(value) : otherwise;
}

int architecture() { return (int)environment("EMU_ARCH", 80); }

size_t shared_limit()
{
    switch (architecture()) {
    case 80:
    case 87:
        return 163 << 10;
    case 90:
    case 100:
    case 103:
        return 227 << 10;
    default: /* 86, 89, 120 */
        return 99 << 10;
    }
}

void wait(const char *name, site where)
{
    current->waits_at = name;
    current->where = where;
    switch_to(pick());
}

void wake(fiber *f)
{
    f->waits_at = nullptr;
    the_block->ready.push(f);
}

void yield()
{
    the_block->ready.push(current);
    switch_to(pick());
}

void meeting::arrive(const char *new_name, site new_where)
{
    if (!arrived++) {
        name = new_name;
        where = new_where;
    } else if (where.line != new_where.line || (name != new_name && strcmp(name, new_name)) ||
               (where.file != new_where.file && strcmp(where.file, new_where.file))) {
        fail(new_where, "%s here, but other threads are at %s, %s:%d", new_name, name, where.file, where.line);
    }
}

void fail(site where, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "emu: %s:%d: ", where.file, where.line);
    if (self)
        fprintf(stderr, "block (%u,%u,%u) thread (%u,%u,%u): ", self->block_idx.x, self->block_idx.y, self->block_idx.z,
                self->thread_idx.x, self->thread_idx.y, self->thread_idx.z);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    abort();
}

void run(const char *kernel, dim3 grid, dim3 dim, size_t shared_bytes, void (*body)(void *), void *closure)
{
    check_launch(kernel, grid, dim, shared_bytes);
    const size_t blocks = (size_t)grid.x * grid.y * grid.z;
    grid_run job = {grid, dim, shared_bytes, body, closure, environment("EMU_SEED", 0), 0};
    std::vector<size_t> order;
    if (job.seed > 0) {
        for (size_t i = 0; i < blocks; i++)
            order.push_back(i);
        std::shuffle(order.begin(), order.end(), std::minstd_rand((unsigned)job.seed));
    }
    std::atomic<size_t> next{0};
    auto work = [&] {
        for (size_t i; (i = next++) < blocks;) {
            const size_t n = job.seed > 0 ? order[i] : job.seed < 0 ? blocks - 1 - i : i;
            run_block(&job, {(unsigned)(n % grid.x), (unsigned)(n / grid.x % grid.y), (unsigned)(n / grid.x / grid.y)});
        }
        forget_tsan_fibers(0);
    };
    std::vector<std::thread> others;
    const size_t threads = (size_t)std::max(1l, environment("EMU_THREADS", (long)std::thread::hardware_concurrency()));
    for (size_t i = 1; i < std::min(threads, blocks); i++)
        others.emplace_back(work);
    work();
    for (auto &other : others)
        other.join();
    acquire(&job.done_token);
}

void maybe_yield()
{
    if (the_block->seed <= 0)
        return;
    tsan_ignore ignore;
    yield();
}

/* All fences are in one order: ThreadSanitizer, which knows no fences, sees each after those before it. */
void fence()
{
    static char token;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    acquire(&token);
    release(&token);
}

void *shared_static(const void *tag, size_t bytes, size_t alignment)
{
    tsan_ignore ignore;
    block &b = *the_block;
    for (auto &array : b.shared)
        if (array.tag == tag)
            return array.memory;
    void *memory;
    if (posix_memalign(&memory, std::max<size_t>(alignment, 128), bytes))
        abort();
    memset(memory, 0xff, bytes); /* NaN: what was never written shows */
    b.shared.push_back({tag, memory});
    if (tag) {
        b.static_bytes += bytes;
        if (b.static_bytes > PLAIN_SHARED)
            fail({"kernel", 0}, "%zu bytes of static shared memory, of %zu", b.static_bytes, PLAIN_SHARED);
        const size_t limit = b.dynamic_bytes > PLAIN_SHARED ? shared_limit() : PLAIN_SHARED;
        if (b.static_bytes + b.dynamic_bytes > limit)
            fail({"kernel", 0}, "%zu bytes of static and %zu of dynamic shared memory, of %zu", b.static_bytes,
                 b.dynamic_bytes, limit);
    }
    return memory;
}

void *shared_dynamic() { return shared_static(nullptr, the_block->dynamic_bytes, 128); }

int block_barrier(const char *name, vote kind, int predicate, site where)
{
    tsan_ignore ignore;
    block &b = *the_block;
    meeting &m = b.barrier;
    m.arrive(name, where);
    void *sync = m.token();
    release(sync);
    b.votes += predicate != 0;
    if (m.arrived == b.size) {
        b.vote_result = kind == vote::count ? b.votes : kind == vote::all ? b.votes == (int)b.size : b.votes > 0;
        b.votes = 0;
        m.arrived = 0;
        m.generation++;
        for (unsigned i = 0; i < b.size; i++)
            if (&b.fibers[i] != current)
                wake(&b.fibers[i]);
        if (b.seed)
            yield();
    } else {
        wait(name, where);
    }
    acquire(sync);
    return b.vote_result;
}

} // namespace emu
