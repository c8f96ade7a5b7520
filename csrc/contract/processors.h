/* The number of processors, for the engine and the CPU kernels. */
#ifndef PS3C_PROCESSORS_H
#define PS3C_PROCESSORS_H

/* Processors that this process can keep busy, at least 1: those that the calling thread may use (sched_getaffinity),
 * but no more than the control group's CPU quota, rounded up. The quota is read once per process. */
int ps3c_processors(void);

/* The smallest CPU quota, in processors rounded up, of the control groups that the file `groups` (/proc/self/cgroup)
 * lists and of their parents, under the folder `root` (/sys/fs/cgroup); versions 1 and 2. INT_MAX if there is none. */
int ps3c_quota_processors(const char *groups, const char *root);

#endif
