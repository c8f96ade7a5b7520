/* The number of processors that this process can keep busy: see processors.h. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "../contract/processors.h"

#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Reads the numbers of a control group's file. Returns how many there are; 0 if there is no file or it says "max". */
static int read_numbers(const char *folder, const char *name, long long numbers[2])
{
    char path[PATH_MAX + 32];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    const int count = fscanf(file, "%lld %lld", &numbers[0], &numbers[1]);
    fclose(file);
    return count < 0 ? 0 : count;
}

/* The quota of the group in one folder. */
static int quota_of_folder(const char *folder)
{
    long long quota[2], period[2]; /* microseconds */
    if (read_numbers(folder, "cpu.max", quota) == 2)
        period[0] = quota[1];
    else if (read_numbers(folder, "cpu.cfs_quota_us", quota) < 1 ||
             read_numbers(folder, "cpu.cfs_period_us", period) < 1)
        return INT_MAX;
    if (quota[0] <= 0 || period[0] <= 0 || quota[0] / period[0] >= INT_MAX)
        return INT_MAX; /* -1: no quota */
    return (int)(quota[0] / period[0] + (quota[0] % period[0] > 0));
}

/* The smallest quota of root/group and of its parents up to root. Inside a container the group's path may be that of
 * the host, which does not exist here; root is then the container's own group. */
static int quota_of_group(const char *root, const char *group)
{
    char folder[PATH_MAX];
    int least = INT_MAX;
    if (snprintf(folder, sizeof folder, "%s%s", root, group) >= (int)sizeof folder)
        return INT_MAX;
    for (size_t length = strlen(folder); length >= strlen(root); length--)
        if (folder[length] == '/' || folder[length] == 0) {
            folder[length] = 0;
            const int quota = quota_of_folder(folder);
            least = quota < least ? quota : least;
        }
    return least;
}

/* Is "cpu" one of the names in "cpu,cpuacct"? */
static int names_cpu(const char *controllers, const char *end)
{
    for (const char *name = controllers; name < end;) {
        const char *comma = memchr(name, ',', (size_t)(end - name));
        const char *stop = comma ? comma : end;
        if (stop - name == 3 && !memcmp(name, "cpu", 3))
            return 1;
        name = stop + 1;
    }
    return 0;
}

int ps3c_quota_processors(const char *groups, const char *root)
{
    char line[PATH_MAX + 64], mount[PATH_MAX];
    int least = INT_MAX;
    FILE *file = fopen(groups, "re");
    if (!file)
        return INT_MAX;
    while (fgets(line, sizeof line, file)) { /* number:controllers:group */
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(++controllers, ':') : NULL;
        if (!group)
            continue;
        const int version1 = names_cpu(controllers, group);
        if (!version1 && group != controllers)
            continue;
        group++;
        group[strcspn(group, "\n")] = 0;
        if (!strcmp(group, "/"))
            group[0] = 0;
        if (snprintf(mount, sizeof mount, "%s%s", root, version1 ? "/cpu" : "") < (int)sizeof mount) {
            const int quota = quota_of_group(mount, group);
            least = quota < least ? quota : least;
        }
    }
    fclose(file);
    return least;
}

int ps3c_processors(void)
{
    static atomic_int known; /* the quota; 0: not read yet */
    int quota = atomic_load(&known);
    cpu_set_t set;
    if (!quota) {
        quota = ps3c_quota_processors("/proc/self/cgroup", "/sys/fs/cgroup");
        quota = quota < 1 ? 1 : quota;
        atomic_store(&known, quota);
    }
    /* More processors than a cpu_set_t holds: sched_getaffinity fails. */
    const long allowed = sched_getaffinity(0, sizeof set, &set) ? sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    return allowed < 1 ? 1 : allowed < quota ? (int)allowed : quota;
}
