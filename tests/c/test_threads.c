/* The pool of threads (kernels/cpu/threads.c) and the number of processors. Also built with ThreadSanitizer (tsan). */
#define _GNU_SOURCE /* sched_setaffinity */
#include "check.h"
#include "poll.h"

#include "../../csrc/contract/processors.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TASKS = 1000, CALLERS = 8, REGIONS = 200 };

/* ThreadSanitizer refuses to make threads in a forked child. */
#ifdef __SANITIZE_THREAD__
enum { TSAN = 1 };
#else
enum { TSAN = 0 };
#endif

typedef struct record {
    int threads;
    int done[TASKS];          /* not atomic: each task has its own, and the region's end publishes it */
    int64_t of_thread[64][8]; /* a cache line each: a thread's scratch is its own */
    int64_t order;
} record;

static void note(void *data, int64_t index, int thread)
{
    record *r = data;
    if (thread < 0 || thread >= r->threads)
        abort();
    r->done[index]++;
    r->of_thread[thread][0]++;
}

/* Regions of many sizes; each task runs exactly once. */
static bool regions(int threads, int count)
{
    ps3c_run run = {.threads = threads};
    record *r = calloc(1, sizeof *r);
    bool good = r != NULL;
    ps3c_cpu_begin(&run);
    for (int i = 0; good && i < count; i++) {
        const int64_t tasks = i % 7 == 0 ? TASKS : i % 7 * (threads - 1);
        memset(r, 0, sizeof *r);
        r->threads = threads;
        if (i % 3)
            ps3c_parallel(&run, tasks, note, r);
        else
            ps3c_parallel_ranges(&run, tasks, note, r);
        int64_t sum = 0;
        for (int t = 0; t < threads; t++)
            sum += r->of_thread[t][0];
        good = sum == tasks;
        for (int64_t k = 0; k < TASKS; k++)
            good = good && r->done[k] == (k < tasks);
        if (i % 50 == 49) /* long enough for the workers to fall asleep */
            nanosleep(&(struct timespec){.tv_nsec = 300000}, NULL);
    }
    ps3c_cpu_end(&run);
    free(r);
    return good && !run.team;
}

static void note_order(void *data, int64_t index, int thread)
{
    record *r = data;
    (void)thread;
    if (r->order == index)
        r->order++;
}

static void test_regions(void)
{
    for (int threads = 1; threads <= 64; threads *= 2)
        CHECK(regions(threads, REGIONS), "%d threads", threads);
    record *r = calloc(1, sizeof *r);
    const ps3c_run serial = {.threads = 1}, no_team = {.threads = 4};
    ps3c_parallel(&serial, TASKS, note_order, r);
    CHECK(r->order == TASKS, "serial order");
    r->order = 0;
    ps3c_parallel_ranges(&no_team, TASKS, note_order, r);
    CHECK(r->order == TASKS, "order without a team");
    free(r);
}

static void *call(void *data) { return regions(*(int *)data, REGIONS) ? data : NULL; }

/* Several runs at once have a team each. */
static void test_callers(void)
{
    pthread_t callers[CALLERS];
    int threads[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        threads[i] = 2 + i % 3;
        if (pthread_create(&callers[i], NULL, call, &threads[i]))
            abort();
    }
    for (int i = 0; i < CALLERS; i++) {
        void *good;
        pthread_join(callers[i], &good);
        CHECK(good, "caller %d", i);
    }
}

static bool child_is_good(pid_t child)
{
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static volatile bool forking;
static void *call_until_forked(void *data)
{
    while (__atomic_load_n(&forking, __ATOMIC_ACQUIRE))
        if (!regions(3, 3))
            return NULL;
    return data;
}

/* A child has no threads of its parent's; it computes with new ones. alarm: a child that hangs is ended. */
static void test_fork(void)
{
    pthread_t caller;
    forking = true;
    if (pthread_create(&caller, NULL, call_until_forked, (void *)&forking))
        abort();
    for (int i = 0; i < 50; i++) { /* during another thread's run */
        const pid_t child = fork();
        if (child == 0) {
            alarm(60);
            _exit(!regions(3, 20));
        }
        CHECK(child_is_good(child), "child %d", i);
    }
    __atomic_store_n(&forking, false, __ATOMIC_RELEASE);
    void *good;
    pthread_join(caller, &good);
    CHECK(good, "the parent");
    ps3c_run run = {.threads = 3}; /* during the forking thread's own run */
    record *r = calloc(1, sizeof *r);
    ps3c_cpu_begin(&run);
    const pid_t child = fork();
    r->threads = 3;
    if (child == 0) {
        alarm(60);
        ps3c_parallel(&run, TASKS, note, r);
        bool all = true;
        for (int64_t k = 0; k < TASKS; k++)
            all = all && r->done[k] == 1;
        ps3c_cpu_end(&run);
        _exit(!(all && regions(3, 20)));
    }
    CHECK(child_is_good(child), "child of a run");
    ps3c_parallel(&run, TASKS, note, r);
    ps3c_cpu_end(&run);
    free(r);
}

/* ---- processors -------------------------------------------------------------------------------------------------- */

static void write_file(const char *root, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file))
        abort();
}

static int quota(const char *root, const char *groups)
{
    char path[512];
    snprintf(path, sizeof path, "%s/groups", root);
    write_file(root, "groups", groups);
    return ps3c_quota_processors(path, root);
}

static void test_processors(void)
{
    char root[] = "/tmp/ps3c-groups-XXXXXX", command[64];
    cpu_set_t before, one;
    if (!mkdtemp(root))
        abort();
    static const char *const folders[] = {"pod", "pod/box", "cpu", "cpu/box"};
    for (size_t i = 0; i < COUNT(folders); i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", root, folders[i]);
        if (mkdir(path, 0700))
            abort();
    }
#define EXPECT(groups, expected) CHECK(quota(root, groups) == (expected), "%s: got %d", groups, quota(root, groups))
    EXPECT("0::/pod/box\n", INT_MAX);
    write_file(root, "pod/box/cpu.max", "max 100000\n");
    EXPECT("0::/pod/box\n", INT_MAX);
    write_file(root, "pod/box/cpu.max", "350000 100000\n");
    EXPECT("0::/pod/box\n", 4);
    EXPECT("0::/pod\n", INT_MAX);
    write_file(root, "pod/cpu.max", "150000 100000\n"); /* the parent's holds too */
    EXPECT("0::/pod/box\n", 2);
    EXPECT("0::/\n", INT_MAX);
    write_file(root, "cpu.max", "50000 100000\n");
    EXPECT("0::/\n", 1);
    EXPECT("0::/host/path/not/here\n", 1);
    write_file(root, "cpu/box/cpu.cfs_quota_us", "300000\n");
    write_file(root, "cpu/box/cpu.cfs_period_us", "100000\n");
    EXPECT("3:cpuset:/\n2:cpu,cpuacct:/box\n", 3);
    EXPECT("2:cpuset:/box\n1:cpuacct:/box\n", INT_MAX);
    write_file(root, "cpu/box/cpu.cfs_quota_us", "-1\n");
    EXPECT("2:cpu:/box\n", INT_MAX);
    EXPECT("nonsense\n\n:\n", INT_MAX);
    CHECK(ps3c_quota_processors("/no/such/file", root) == INT_MAX, "no file");
    snprintf(command, sizeof command, "rm -r %s", root);
    CHECK(system(command) == 0, "rm");

    CHECK(ps3c_processors() >= 1, "processors");
    if (sched_getaffinity(0, sizeof before, &before) == 0) {
        int first = 0;
        while (!CPU_ISSET(first, &before))
            first++;
        CPU_ZERO(&one);
        CPU_SET(first, &one);
        CHECK(sched_setaffinity(0, sizeof one, &one) == 0 && ps3c_processors() == 1, "one processor");
        CHECK(regions(4, REGIONS), "four threads on one processor");
        sched_setaffinity(0, sizeof before, &before);
    }
}

static void pause_for(int milliseconds) { nanosleep(&(struct timespec){0, milliseconds * 1000000L}, NULL); }

static void note_slowly(void *data, int64_t index, int thread)
{
    note(data, index, thread);
    pause_for(1);
}

/* Of a long region: the tasks that ran are the first ones, each once, and none runs after the return. */
static void long_region(int threads, bool interrupted)
{
    const int64_t tasks = 300;
    ps3c_run run = {.threads = threads};
    record *r = calloc(1, sizeof *r);
    if (!r)
        return;
    r->threads = threads;
    test_polls = 0;
    test_interrupted = interrupted;
    ps3c_cpu_begin(&run);
    const ps3c_status status = ps3c_parallel(&run, tasks, note_slowly, r);
    int64_t ran = 0;
    while (ran < tasks && r->done[ran] == 1)
        ran++;
    pause_for(5);
    int64_t others = 0;
    for (int64_t i = ran; i < TASKS; i++)
        others += r->done[i];
    CHECK(others == 0, "%d threads: %lld tasks beside the first %lld", threads, (long long)others, (long long)ran);
    if (interrupted)
        CHECK(status == PS3C_ERROR_INTERRUPTED && test_polls == 1 && ran > 0 && ran < tasks, "%d threads: %lld tasks",
              threads, (long long)ran);
    else
        CHECK(status == PS3C_OK && test_polls > 0 && ran == tasks, "%d threads: %lld tasks, %d polls", threads,
              (long long)ran, test_polls);
    ps3c_cpu_end(&run);
    test_interrupted = false;
    free(r);
}

static void test_interruption(void)
{
    for (int threads = 1; threads <= 4; threads *= 2) {
        long_region(threads, false);
        long_region(threads, true);
    }
}

int main(void)
{
    test_processors();
    test_regions();
    test_interruption();
    test_callers();
    if (!TSAN)
        test_fork();
    return check_report("test_threads");
}
