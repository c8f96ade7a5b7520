/* Threads of the CPU backend: a pool of our own, so that no OpenMP runtime is needed.
 *
 * A run leases a team of threads in the backend's begin() and gives it back in end(). Two runs at once have two teams.
 * Idle threads sleep. A forked child starts without threads and makes new ones when it needs them. */
#ifndef PS3C_CPU_THREADS_H
#define PS3C_CPU_THREADS_H

#include "cpu.h"

/* The task with one index. thread: less than run->threads; two tasks that run at once have different ones. */
typedef void ps3c_task(void *data, int64_t index, int thread);

/* Runs the tasks 0 to tasks - 1 and returns when all of them are done. They start in the order of their indices. The
 * calling thread takes part. Serial if run->threads <= 1 or if the run has no team. data: passed on.
 *
 * ERROR_INTERRUPTED: the context was polled between two tasks, and the later ones did not start. No task runs while the
 * context is polled, or after the return. A task should take a few milliseconds at most: polling waits for it. */
ps3c_status ps3c_parallel(const ps3c_run *run, int64_t tasks, ps3c_task *task, void *data);
/* The number of tasks for `count` small items, which a task loops over: task t has the items from count * t / parts to
 * count * (t + 1) / parts. */
int64_t ps3c_parts(const ps3c_run *run, int64_t count);
/* The same for many small tasks: a thread takes neighbouring indices together. */
ps3c_status ps3c_parallel_ranges(const ps3c_run *run, int64_t count, ps3c_task *task, void *data);

/* The backend's begin() and end(). begin sets run->team for run->threads threads and always returns OK: if the system
 * refuses a thread, the team is smaller. It allocates only if there are more teams in use than ever before. */
ps3c_status ps3c_cpu_begin(ps3c_run *run);
void ps3c_cpu_end(ps3c_run *run);

#endif
