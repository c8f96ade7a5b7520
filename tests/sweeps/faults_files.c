/* Fails the n-th call for files. Preloaded (LD_PRELOAD) into a Python process, whose faults.py drives it.
 *
 * Only calls for files below one folder count: by their path, or by a descriptor that was opened there. Each fault has
 * the calls that it can happen to: a disk is full when something is written, a signal interrupts what can wait. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

typedef enum fault { IO_ERROR, FULL, INTERRUPTED, SHORT, SHRINK } fault;

enum { OPEN = 1, CREATE = 2, READ = 4, WRITE = 8, MAP = 16, STAT = 32, SEEK = 64, NAME = 128, SYNC = 256, CLOSE = 512 };

static const int calls_of[] = {
    [IO_ERROR] = OPEN | CREATE | READ | WRITE | MAP | STAT | SEEK | NAME | SYNC | CLOSE,
    [FULL] = CREATE | WRITE | NAME | SYNC | CLOSE,
    [INTERRUPTED] = OPEN | CREATE | READ | WRITE | SYNC | CLOSE,
    [SHORT] = READ | WRITE,
    [SHRINK] = OPEN | READ | MAP | STAT | SEEK | CLOSE,
};

enum { DESCRIPTORS = 4096, PATH = 1024 };

static char folder[PATH];
static atomic_bool armed;
static fault kind;
static long first; /* the number of the call that fails; 0: none */
static bool for_ever;
static atomic_long count, failed;
static char names[DESCRIPTORS][PATH]; /* of the files below the folder that are open; "": another file */
static char what[PATH + 32];          /* the first call that failed */

#define REAL(name)                 \
    static __typeof__(&name) real; \
    if (real == NULL)              \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name);

static bool is_below(const char *path)
{
    const size_t length = strlen(folder);
    return path != NULL && length > 0 && strncmp(path, folder, length) == 0;
}

static const char *name_of(int descriptor)
{
    return descriptor >= 0 && descriptor < DESCRIPTORS && names[descriptor][0] ? names[descriptor] : NULL;
}

static void shrink(const char *path)
{
    struct stat now;
    if (stat(path, &now) == 0 && S_ISREG(now.st_mode))
        (void)!truncate(path, now.st_size / 2);
}

/* Is this the call that fails? errno is what it fails with. path: the file's, or NULL: of no interest. */
static bool fails(const char *call, int group, const char *path)
{
    if (!atomic_load(&armed) || path == NULL || !is_below(path) || !(calls_of[kind] & group))
        return false;
    const long number = atomic_fetch_add(&count, 1) + 1;
    if (first == 0 || number < first || (number > first && !for_ever))
        return false;
    if (atomic_fetch_add(&failed, 1) == 0)
        snprintf(what, sizeof what, "%s %s", call, path + strlen(folder));
    atomic_store(&armed, false); /* for this file's own calls */
    if (kind == SHRINK)
        shrink(path);
    atomic_store(&armed, true);
    errno = kind == FULL ? ENOSPC : kind == INTERRUPTED ? EINTR : EIO;
    return kind != SHRINK;
}

/* ---- by path ----------------------------------------------------------------------------------------------------- */

static int opened(int descriptor, const char *path)
{
    if (descriptor >= 0 && descriptor < DESCRIPTORS)
        snprintf(names[descriptor], PATH, "%s", is_below(path) ? path : "");
    return descriptor;
}

#define OPENS(name, parameters, arguments)                                                               \
    int name parameters                                                                                  \
    {                                                                                                    \
        mode_t mode = 0;                                                                                 \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                             \
            va_list rest;                                                                                \
            va_start(rest, flags);                                                                       \
            mode = va_arg(rest, mode_t);                                                                 \
            va_end(rest);                                                                                \
        }                                                                                                \
        REAL(name)                                                                                       \
        return fails("open", flags & O_CREAT ? CREATE : OPEN, path) ? -1 : opened(real arguments, path); \
    }

OPENS(open, (const char *path, int flags, ...), (path, flags, mode))
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode))
OPENS(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode))
OPENS(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode))

#define BY_PATH(name, group, path, parameters, arguments)       \
    int name parameters                                         \
    {                                                           \
        REAL(name)                                              \
        return fails(#name, group, path) ? -1 : real arguments; \
    }

BY_PATH(stat, STAT, path, (const char *path, struct stat *out), (path, out))
BY_PATH(stat64, STAT, path, (const char *path, struct stat64 *out), (path, out))
BY_PATH(lstat, STAT, path, (const char *path, struct stat *out), (path, out))
BY_PATH(fstatat, STAT, path, (int at, const char *path, struct stat *out, int flags), (at, path, out, flags))
BY_PATH(access, STAT, path, (const char *path, int mode), (path, mode))
BY_PATH(rename, NAME, to, (const char *from, const char *to), (from, to))
BY_PATH(link, NAME, to, (const char *from, const char *to), (from, to))
BY_PATH(linkat, NAME, to, (int at, const char *from, int there, const char *to, int flags),
        (at, from, there, to, flags))
BY_PATH(unlink, NAME, path, (const char *path), (path))
BY_PATH(mkdir, NAME, path, (const char *path, mode_t mode), (path, mode))
BY_PATH(chmod, NAME, path, (const char *path, mode_t mode), (path, mode))

int statx(int at, const char *path, int flags, unsigned mask, struct statx *out)
{
    REAL(statx)
    return fails("statx", STAT, path[0] ? path : name_of(at)) ? -1 : real(at, path, flags, mask, out);
}

DIR *opendir(const char *path)
{
    REAL(opendir)
    return fails("opendir", OPEN, path) ? NULL : real(path);
}

/* ---- by descriptor ----------------------------------------------------------------------------------------------- */

BY_PATH(fstat, STAT, name_of(file), (int file, struct stat *out), (file, out))
BY_PATH(fstat64, STAT, name_of(file), (int file, struct stat64 *out), (file, out))
BY_PATH(fsync, SYNC, name_of(file), (int file), (file))
BY_PATH(fdatasync, SYNC, name_of(file), (int file), (file))
BY_PATH(ftruncate, WRITE, name_of(file), (int file, off_t length), (file, length))
BY_PATH(ftruncate64, WRITE, name_of(file), (int file, off_t length), (file, length))
BY_PATH(flock, SYNC, name_of(file), (int file, int operation), (file, operation))

/* The descriptor is closed whatever close() says. */
int close(int file)
{
    REAL(close)
    const bool fail = fails("close", CLOSE, name_of(file));
    const int error = errno;
    opened(file, "");
    if (!fail)
        return real(file);
    real(file);
    errno = error;
    return -1;
}

/* A short call moves the half of its bytes, at least one. */
#define MOVES(name, group, parameters, half, whole) \
    ssize_t name parameters                         \
    {                                               \
        REAL(name)                                  \
        if (!fails(#name, group, name_of(file)))    \
            return real whole;                      \
        return kind == SHORT ? real half : -1;      \
    }
#define HALF ((size + 1) / 2)

MOVES(read, READ, (int file, void *to, size_t size), (file, to, HALF), (file, to, size))
MOVES(pread, READ, (int file, void *to, size_t size, off_t at), (file, to, HALF, at), (file, to, size, at))
MOVES(pread64, READ, (int file, void *to, size_t size, off64_t at), (file, to, HALF, at), (file, to, size, at))
MOVES(write, WRITE, (int file, const void *from, size_t size), (file, from, HALF), (file, from, size))
MOVES(pwrite, WRITE, (int file, const void *from, size_t size, off_t at), (file, from, HALF, at),
      (file, from, size, at))
MOVES(pwrite64, WRITE, (int file, const void *from, size_t size, off64_t at), (file, from, HALF, at),
      (file, from, size, at))
MOVES(writev, WRITE, (int file, const struct iovec *from, int size), (file, from, HALF), (file, from, size))

#define SEEKS(name, offset)                                                   \
    offset name(int file, offset at, int from)                                \
    {                                                                         \
        REAL(name)                                                            \
        return fails(#name, SEEK, name_of(file)) ? -1 : real(file, at, from); \
    }

SEEKS(lseek, off_t)
SEEKS(lseek64, off64_t)

#define MAPS(name, offset)                                                                   \
    void *name(void *address, size_t length, int protection, int flags, int file, offset at) \
    {                                                                                        \
        REAL(name)                                                                           \
        const bool fail = !(flags & MAP_ANONYMOUS) && fails(#name, MAP, name_of(file));      \
        return fail ? MAP_FAILED : real(address, length, protection, flags, file, at);       \
    }

MAPS(mmap, off_t)
MAPS(mmap64, off64_t)

/* ---- for faults.py ----------------------------------------------------------------------------------------------- */

/* Counts from 1 the calls for files below a folder that `fault` can happen to. It happens to the n-th, and to the later
 * ones if `ever`; n = 0: to none. */
void faults_files_arm(const char *below, int fault, long n, int ever)
{
    atomic_store(&armed, false);
    snprintf(folder, sizeof folder, "%s", below);
    kind = fault;
    first = n;
    for_ever = ever != 0;
    what[0] = '\0';
    atomic_store(&count, 0);
    atomic_store(&failed, 0);
    atomic_store(&armed, true);
}

void faults_files_disarm(void) { atomic_store(&armed, false); }
long faults_files_count(void) { return atomic_load(&count); }
long faults_files_failed(void) { return atomic_load(&failed); }
const char *faults_files_what(void) { return what; }
