/* Threads of the CPU backend: see threads.h.
 *
 * A team has one caller and its workers. A region (one ps3c_parallel) is open while it has tasks. Workers join it by
 * compare-and-swap on the gate, take tasks from a counter, and leave. The caller takes tasks too. When none is left, it
 * closes the gate and waits for the workers that have joined. So a worker that the system does not run delays nobody
 * unless it has taken a task.
 *
 * A worker without a region waits for a short time for the next one, because a pass has many short regions. Then it
 * sleeps (futex). The caller wakes it only if the workers that are awake do not suffice.
 *
 * Lost wake-ups are impossible: a worker counts itself as a sleeper and then reads the gate; the caller opens the gate
 * and then reads the number of sleepers. These four are sequentially consistent, so one of the two sees the other. */
#include "threads.h"

#include "../../csrc/contract/error.h"
#include "../../csrc/contract/processors.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    MOST_THREADS = 1024,
    STACK_BYTES = 1 << 20,
    SPIN_NANOSECONDS = 50000, /* about what it costs to put a thread to sleep and to wake it */
    PAUSES = 32,              /* between two looks at the clock */
    LINE = 64,                /* bytes of a cache line */
    RANGES_PER_THREAD = 4,
    RANGE = 64,                      /* most items of a task */
    MOST_NANOSECONDS = 50 * 1000000, /* between two polls of the context */
};

/* The gate: 12 bits each for the number of workers that left, that joined, and for the most threads; two flags; the
 * rest is the region's number. */
enum { JOINED_SHIFT = 12, MOST_SHIFT = 24, COUNT_MASK = (1 << 12) - 1 };
#define LEFT_ONE ((uint64_t)1)
#define JOINED_ONE ((uint64_t)1 << JOINED_SHIFT)
#define OPEN ((uint64_t)1 << 36)
#define WAITING ((uint64_t)1 << 37) /* the caller sleeps until all that joined have left */
#define REGION_ONE ((uint64_t)1 << 38)

static int left(uint64_t gate) { return (int)(gate & COUNT_MASK); }
static int joined(uint64_t gate) { return (int)(gate >> JOINED_SHIFT & COUNT_MASK); }
static int most(uint64_t gate) { return (int)(gate >> MOST_SHIFT & COUNT_MASK); }
static uint64_t region(uint64_t gate) { return gate / REGION_ONE; }

typedef struct team {
    _Alignas(LINE) _Atomic uint64_t gate;
    /* Written before the gate opens; read by those who joined. */
    ps3c_task *task;
    void *data;
    int64_t tasks;
    _Alignas(LINE) _Atomic int64_t next;        /* task */
    _Alignas(LINE) _Atomic uint32_t call, done; /* futexes: of sleeping workers, of the sleeping caller */
    _Atomic int sleepers;
    _Atomic bool spin; /* false: there are more threads than processors, so waiting takes a processor from the work */
    /* Only for the pass that has the team: */
    _Alignas(LINE) int workers;
    unsigned process;
    struct team *next_free;
} team;

/* Teams that no pass uses. They are never freed: a thread may still be about to sleep. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static team *free_teams;
static _Atomic unsigned process; /* number of forks that led here: threads of a team of another number don't exist */

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static void sleep_while(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *word, int count)
{
    atomic_fetch_add(word, 1);
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

/* Waiting by looking again and again, for a bounded time. */
typedef struct patience {
    int64_t end; /* 0: not started */
    int pauses;
} patience;

/* False when the time is over. */
static bool wait_briefly(const team *t, patience *p)
{
    if (p->pauses++ % PAUSES == 0) {
        if (!atomic_load_explicit(&t->spin, memory_order_relaxed))
            return false;
        const int64_t time = now();
        if (!p->end)
            p->end = time + SPIN_NANOSECONDS;
        if (time >= p->end)
            return false;
    }
    pause_briefly();
    return true;
}

/* ---- a worker ---------------------------------------------------------------------------------------------------- */

/* Can a worker that has been in region `seen` join? */
static bool may_join(uint64_t gate, uint64_t seen)
{
    return (gate & OPEN) && region(gate) != seen && joined(gate) + 1 < most(gate);
}

/* Waits for a region and joins it. Returns the gate as it was before. */
static uint64_t join(team *t, uint64_t seen)
{
    patience patience = {0};
    for (;;) {
        uint64_t gate = atomic_load_explicit(&t->gate, memory_order_acquire);
        while (may_join(gate, seen))
            if (atomic_compare_exchange_weak_explicit(&t->gate, &gate, gate + JOINED_ONE, memory_order_acq_rel,
                                                      memory_order_acquire))
                return gate;
        if (wait_briefly(t, &patience))
            continue;
        const uint32_t call = atomic_load(&t->call);
        atomic_fetch_add(&t->sleepers, 1);
        if (!may_join(atomic_load(&t->gate), seen))
            sleep_while(&t->call, call);
        atomic_fetch_sub(&t->sleepers, 1);
        patience.end = patience.pauses = 0;
    }
}

static void take_tasks(team *t, int thread)
{
    for (;;) {
        const int64_t index = atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed);
        if (index >= t->tasks)
            return;
        t->task(t->data, index, thread);
    }
}

static void *work(void *data)
{
    team *t = data;
    uint64_t seen = 0;
    for (;;) {
        uint64_t gate = join(t, seen);
        seen = region(gate);
        take_tasks(t, joined(gate) + 1);
        gate = atomic_fetch_add_explicit(&t->gate, LEFT_ONE, memory_order_acq_rel) + LEFT_ONE;
        if ((gate & WAITING) && left(gate) == joined(gate))
            wake(&t->done, 1);
    }
    return NULL;
}

/* ---- the caller -------------------------------------------------------------------------------------------------- */

static void open_region(team *t, int threads, int64_t first)
{
    const uint64_t number = region(atomic_load_explicit(&t->gate, memory_order_relaxed)) + 1;
    atomic_store_explicit(&t->next, first, memory_order_relaxed);
    atomic_store(&t->gate, number * REGION_ONE | OPEN | (uint64_t)threads << MOST_SHIFT);
    const int sleepers = atomic_load(&t->sleepers), missing = threads - 1 - (t->workers - sleepers);
    if (sleepers > 0 && missing > 0)
        wake(&t->call, missing);
}

/* Returns when the workers that joined have left. */
static void close_region(team *t)
{
    uint64_t gate = atomic_fetch_and_explicit(&t->gate, ~OPEN, memory_order_acq_rel);
    patience patience = {0};
    while (left(gate) < joined(gate) && wait_briefly(t, &patience))
        gate = atomic_load_explicit(&t->gate, memory_order_acquire);
    if (left(gate) == joined(gate))
        return;
    atomic_fetch_or_explicit(&t->gate, WAITING, memory_order_acq_rel);
    for (;;) {
        const uint32_t done = atomic_load(&t->done);
        gate = atomic_load(&t->gate);
        if (left(gate) == joined(gate))
            return;
        sleep_while(&t->done, done);
    }
}

/* As take_tasks, until the time `end`. Returns the first task that no thread has taken. */
static int64_t take_tasks_until(team *t, int64_t end)
{
    do {
        const int64_t index = atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed);
        if (index >= t->tasks)
            return t->tasks;
        t->task(t->data, index, 0);
    } while (now() < end);
    const int64_t next = atomic_exchange_explicit(&t->next, t->tasks, memory_order_relaxed);
    return next < t->tasks ? next : t->tasks;
}

static ps3c_status run_serially(const ps3c_run *run, int64_t tasks, ps3c_task *task, void *data)
{
    int64_t end = now() + MOST_NANOSECONDS;
    for (int64_t i = 0; i < tasks; i++) {
        task(data, i, 0);
        if (now() >= end && i + 1 < tasks) {
            PS3C_TRY(ps3c_context_poll(run->context));
            end = now() + MOST_NANOSECONDS;
        }
    }
    return PS3C_OK;
}

/* Polling may run any code of the program and may end the calling thread, on whose stack `data` is. So the region is
 * closed first. */
ps3c_status ps3c_parallel(const ps3c_run *run, int64_t tasks, ps3c_task *task, void *data)
{
    team *t = run->team;
    int64_t threads = run->threads < tasks ? run->threads : tasks;
    if (t && threads > t->workers + 1)
        threads = t->workers + 1;
    if (!t || threads <= 1)
        return run_serially(run, tasks, task, data);
    t->task = task;
    t->data = data;
    t->tasks = tasks;
    for (int64_t first = 0;;) {
        open_region(t, (int)threads, first);
        first = take_tasks_until(t, now() + MOST_NANOSECONDS);
        close_region(t);
        if (first >= tasks)
            return PS3C_OK;
        PS3C_TRY(ps3c_context_poll(run->context));
    }
}

typedef struct ranges {
    ps3c_task *task;
    void *data;
    int64_t count, parts;
} ranges;

static void take_range(void *data, int64_t part, int thread)
{
    const ranges *r = data;
    const int64_t size = r->count / r->parts, longer = r->count % r->parts; /* so many ranges have one more */
    const int64_t first = part * size + (part < longer ? part : longer);
    for (int64_t i = first; i < first + size + (part < longer); i++)
        r->task(r->data, i, thread);
}

int64_t ps3c_parts(const ps3c_run *run, int64_t count)
{
    const int64_t few = (int64_t)(run->threads > 1 ? run->threads : 1) * RANGES_PER_THREAD;
    const int64_t most = (count + RANGE - 1) / RANGE, parts = few > most ? few : most;
    return parts < count ? parts : count;
}

ps3c_status ps3c_parallel_ranges(const ps3c_run *run, int64_t count, ps3c_task *task, void *data)
{
    ranges r = {task, data, count, ps3c_parts(run, count)};
    return count > 0 ? ps3c_parallel(run, r.parts, take_range, &r) : PS3C_OK;
}

/* ---- teams ------------------------------------------------------------------------------------------------------- */

static void before_fork(void) { pthread_mutex_lock(&mutex); }
static void after_fork_parent(void) { pthread_mutex_unlock(&mutex); }
static void after_fork_child(void)
{
    mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    free_teams = NULL; /* their threads are the parent's */
    atomic_fetch_add(&process, 1);
}

static void handle_forks(void) { pthread_atfork(before_fork, after_fork_parent, after_fork_child); }

static team *take_team(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, handle_forks);
    pthread_mutex_lock(&mutex);
    team *t = free_teams;
    if (t)
        free_teams = t->next_free;
    pthread_mutex_unlock(&mutex);
    if (!t && (t = aligned_alloc(LINE, sizeof *t))) {
        memset(t, 0, sizeof *t);
        t->process = atomic_load(&process);
    }
    return t;
}

/* Makes the workers that a team of `threads` threads lacks. */
static void add_workers(team *t, int threads)
{
    sigset_t mask, before;
    pthread_attr_t attributes;
    if (t->workers >= threads - 1 || pthread_attr_init(&attributes))
        return;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    /* Signals are for the program's threads, except those that a worker causes itself. */
    sigfillset(&mask);
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&mask, own[i]);
    pthread_sigmask(SIG_SETMASK, &mask, &before);
    pthread_t thread;
    while (t->workers < threads - 1 && !pthread_create(&thread, &attributes, work, t))
        t->workers++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

ps3c_status ps3c_cpu_begin(ps3c_run *run)
{
    const int threads = run->threads < MOST_THREADS ? run->threads : MOST_THREADS;
    run->team = NULL;
    if (threads <= 1)
        return PS3C_OK;
    team *t = take_team();
    if (!t)
        return PS3C_OK; /* no memory: the run is serial */
    atomic_store_explicit(&t->spin, threads <= ps3c_processors(), memory_order_relaxed);
    add_workers(t, threads);
    run->team = t;
    return PS3C_OK;
}

void ps3c_cpu_end(ps3c_run *run)
{
    team *t = run->team;
    run->team = NULL;
    if (!t || t->process != atomic_load(&process)) /* forked during the run: the team stays the parent's */
        return;
    pthread_mutex_lock(&mutex);
    t->next_free = free_teams;
    free_teams = t;
    pthread_mutex_unlock(&mutex);
}
