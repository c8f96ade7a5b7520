/* Fails the n-th allocation. Preloaded (LD_PRELOAD) into a Python process, whose faults.py drives it.
 *
 * There are two sets of allocations, and one of them is counted at a time:
 *   "library"  malloc, calloc, realloc, aligned_alloc, posix_memalign, mmap of memory, pthread_create and fopen, called
 *              from the code of one shared library;
 *   "python"   CPython's allocators. An allocation that native code of another package asked for never fails: that
 *              would test the other package. The stack tells whose it is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* glibc's own names of its allocator: dlsym would allocate. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

enum { NOTHING, LIBRARY, PYTHON };

static uintptr_t library_low, library_high; /* of the code of the library */
static atomic_int counted;                  /* which set is counted */
static atomic_long count, failed;           /* allocations that were counted, and those that failed */
static long first;                          /* the number of the allocation that fails; 0: none */
static bool for_ever;                       /* the later ones fail too */
static atomic_bool in_library;              /* the last one that failed was asked for by the library's code */

static bool fails(void)
{
    const long number = atomic_fetch_add(&count, 1) + 1;
    const bool fail = first > 0 && (number == first || (for_ever && number > first));
    if (fail)
        atomic_fetch_add(&failed, 1);
    return fail;
}

/* ---- the library's allocations ----------------------------------------------------------------------------------- */

static bool is_library(const void *caller) { return (uintptr_t)caller - library_low < library_high - library_low; }

#define FROM_LIBRARY (atomic_load(&counted) == LIBRARY && is_library(__builtin_return_address(0)))

/* What the library has allocated and not freed. A table with open addressing; its size is far above what is live. */
enum { LIVE = 1 << 14 };
static _Atomic(void *) live[LIVE];
static atomic_long live_count;
static void *const GONE = &live_count;

static size_t place(const void *memory) { return ((uintptr_t)memory >> 4) * 0x9E3779B97F4A7C15u >> 50; }

static void *kept(void *memory)
{
    if (memory == NULL)
        return NULL;
    for (size_t at = place(memory), tries = 0; tries < LIVE; at = (at + 1) % LIVE, tries++) {
        void *empty = NULL, *gone = GONE;
        if (atomic_compare_exchange_strong(&live[at], &empty, memory) ||
            atomic_compare_exchange_strong(&live[at], &gone, memory)) {
            atomic_fetch_add(&live_count, 1);
            return memory;
        }
    }
    return memory;
}

static void forget(void *memory)
{
    if (memory == NULL || atomic_load(&live_count) == 0)
        return;
    for (size_t at = place(memory), tries = 0; tries < LIVE; at = (at + 1) % LIVE, tries++) {
        void *found = atomic_load(&live[at]);
        if (found == NULL)
            return;
        if (found == memory && atomic_compare_exchange_strong(&live[at], &found, GONE)) {
            atomic_fetch_sub(&live_count, 1);
            return;
        }
    }
}

static void *no_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

void *malloc(size_t size)
{
    if (!FROM_LIBRARY)
        return __libc_malloc(size);
    return fails() ? no_memory() : kept(__libc_malloc(size));
}

void *calloc(size_t items, size_t size)
{
    if (!FROM_LIBRARY)
        return __libc_calloc(items, size);
    return fails() ? no_memory() : kept(__libc_calloc(items, size));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    if (!FROM_LIBRARY)
        return __libc_memalign(alignment, size);
    return fails() ? no_memory() : kept(__libc_memalign(alignment, size));
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    const bool ours = FROM_LIBRARY;
    void *got = ours && fails() ? NULL : __libc_memalign(alignment, size);
    if (got == NULL)
        return ENOMEM;
    *memory = ours ? kept(got) : got;
    return 0;
}

void *realloc(void *memory, size_t size)
{
    const bool ours = FROM_LIBRARY;
    if (ours && fails())
        return no_memory();
    forget(memory);
    void *got = __libc_realloc(memory, size);
    return ours ? kept(got) : got;
}

void free(void *memory)
{
    forget(memory);
    __libc_free(memory);
}

void *mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset)
{
    static void *(*real)(void *, size_t, int, int, int, off_t);
    if (real == NULL)
        real = (void *(*)(void *, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
    if ((flags & MAP_ANONYMOUS) && FROM_LIBRARY && fails()) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return real(address, length, protection, flags, descriptor, offset);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*work)(void *), void *argument)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (real == NULL)
        real =
            (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create");
    return FROM_LIBRARY && fails() ? EAGAIN : real(thread, attributes, work, argument);
}

FILE *fopen(const char *path, const char *mode)
{
    static FILE *(*real)(const char *, const char *);
    if (real == NULL)
        real = (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, "fopen");
    return FROM_LIBRARY && fails() ? no_memory() : real(path, mode);
}

/* ---- Python's allocations ---------------------------------------------------------------------------------------- */

/* CPython's PyMemAllocatorEx. */
typedef struct allocator {
    void *context;
    void *(*malloc)(void *context, size_t size);
    void *(*calloc)(void *context, size_t count, size_t size);
    void *(*realloc)(void *context, void *memory, size_t size);
    void (*free)(void *context, void *memory);
} allocator;

/* MANY: "for ever", for Python's allocations. CPython 3.11 repeats one for ever when it enters an exception's handler. */
enum { DOMAINS = 3, DEPTH = 64, MOST_PACKAGES = 1024, MANY = 100 };

typedef struct range {
    uintptr_t low, high;
    bool interpreter; /* of CPython, libc or this file: the caller stands further out */
} range;

static allocator before[DOMAINS];
static range ranges[MOST_PACKAGES];
static int range_count;
static uintptr_t evaluate_low, evaluate_high; /* the function that interprets Python code */
static _Thread_local bool looking;            /* at the stack, which may allocate */

static bool is_theirs(void)
{
    void *stack[DEPTH];
    const int depth = backtrace(stack, DEPTH);
    for (int i = 0; i < depth; i++) {
        const uintptr_t caller = (uintptr_t)stack[i];
        if (is_library(stack[i]) || caller - evaluate_low < evaluate_high - evaluate_low) {
            atomic_store(&in_library, is_library(stack[i]));
            return false;
        }
        for (int r = 0; r < range_count; r++)
            if (caller - ranges[r].low < ranges[r].high - ranges[r].low && !ranges[r].interpreter)
                return true;
    }
    return false;
}

static bool python_fails(void)
{
    if (atomic_load(&counted) != PYTHON || looking)
        return false;
    const long number = atomic_fetch_add(&count, 1) + 1;
    if (first == 0 || number < first || number > first + (for_ever ? MANY : 0))
        return false;
    looking = true;
    const bool theirs = is_theirs();
    looking = false;
    if (!theirs)
        atomic_fetch_add(&failed, 1);
    return !theirs;
}

static void *python_malloc(void *context, size_t size)
{
    const allocator *real = context;
    return python_fails() ? NULL : real->malloc(real->context, size);
}

static void *python_calloc(void *context, size_t items, size_t size)
{
    const allocator *real = context;
    return python_fails() ? NULL : real->calloc(real->context, items, size);
}

static void *python_realloc(void *context, void *memory, size_t size)
{
    const allocator *real = context;
    return python_fails() ? NULL : real->realloc(real->context, memory, size);
}

static void python_free(void *context, void *memory)
{
    const allocator *real = context;
    real->free(real->context, memory);
}

static int add_ranges(struct dl_phdr_info *object, size_t size, void *library)
{
    (void)size;
    const char *name = object->dlpi_name, *file = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &object->dlpi_phdr[i];
        const uintptr_t low = object->dlpi_addr + header->p_vaddr, high = low + header->p_memsz;
        if (header->p_type != PT_LOAD || !(header->p_flags & PF_X) || range_count == MOST_PACKAGES)
            continue;
        if (strcmp(name, library) == 0) {
            library_low = low;
            library_high = high;
        }
        const bool interpreter = (uintptr_t)add_ranges - low < high - low || name[0] == '\0' ||
                                 strstr(name, "/lib-dynload/") || strncmp(file, "libpython", 9) == 0 ||
                                 strncmp(file, "libc.", 5) == 0 || strncmp(file, "libm.", 5) == 0 ||
                                 strncmp(file, "ld-", 3) == 0;
        ranges[range_count++] = (range){low, high, interpreter};
    }
    return 0;
}

/* ---- for faults.py ----------------------------------------------------------------------------------------------- */

/* Learns where the code of the library and of all other packages is. Returns 0, or what is missing. */
const char *faults_memory_open(const char *library)
{
    range_count = 0;
    dl_iterate_phdr(add_ranges, (void *)library);
    if (library_high == 0)
        return "the library is not loaded";
    void *evaluate = dlsym(RTLD_DEFAULT, "_PyEval_EvalFrameDefault");
    Dl_info info;
    const ElfW(Sym) *symbol = NULL;
    if (evaluate == NULL || !dladdr1(evaluate, &info, (void **)&symbol, RTLD_DL_SYMENT) || symbol == NULL)
        return "the interpreter does not export its main function";
    evaluate_low = (uintptr_t)evaluate;
    evaluate_high = evaluate_low + symbol->st_size;
    void (*get)(int, allocator *) = (void (*)(int, allocator *))dlsym(RTLD_DEFAULT, "PyMem_GetAllocator");
    void (*set)(int, allocator *) = (void (*)(int, allocator *))dlsym(RTLD_DEFAULT, "PyMem_SetAllocator");
    if (get == NULL || set == NULL)
        return "the interpreter does not export its allocators";
    void *stack[2];
    backtrace(stack, 2); /* the first call loads libgcc */
    for (int domain = 0; domain < DOMAINS && before[domain].malloc == NULL; domain++) {
        get(domain, &before[domain]);
        set(domain, &(allocator){&before[domain], python_malloc, python_calloc, python_realloc, python_free});
    }
    return NULL;
}

/* Counts from 1. The n-th allocation fails, and the later ones if `ever`; n = 0: none fails. */
void faults_memory_arm(int set, long n, int ever)
{
    first = n;
    for_ever = ever != 0;
    atomic_store(&count, 0);
    atomic_store(&failed, 0);
    atomic_store(&counted, set);
}

void faults_memory_disarm(void) { atomic_store(&counted, NOTHING); }
long faults_memory_count(void) { return atomic_load(&count); }
long faults_memory_failed(void) { return atomic_load(&failed); }
long faults_memory_in_library(void) { return atomic_load(&in_library); }
long faults_memory_live(void) { return atomic_load(&live_count); }
