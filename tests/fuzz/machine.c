/* Fuzz target: what the engine reads from the machine: the files of control groups, and environment variables. */
#define _GNU_SOURCE
#include <sched.h>

#include "fuzz.h"

/* ---- processors.c over files in memory --------------------------------------------------------------------------- */

typedef struct file {
    const char *name; /* the end of its path */
    char text[6000];
    size_t length;
    bool exists;
} file;

static file files[] = {
    {.name = "/cgroup"}, {.name = "/cpu.max"}, {.name = "/cpu.cfs_quota_us"}, {.name = "/cpu.cfs_period_us"}};
enum { FILES = sizeof files / sizeof *files };
static int opened;

static FILE *fuzz_open(const char *path, const char *mode)
{
    (void)mode;
    const size_t length = strlen(path);
    FUZZ_CHECK(length < 5000, "a path of %zu bytes", length);
    FUZZ_CHECK(++opened < 20000, "opens files without end");
    for (int i = 0; i < FILES; i++) {
        const size_t end = strlen(files[i].name);
        if (files[i].exists && length >= end && !strcmp(path + length - end, files[i].name))
            return fmemopen(files[i].text, files[i].length, "r");
    }
    return NULL;
}

#define fopen fuzz_open
#define ps3c_processors fuzz_processors
#define ps3c_quota_processors fuzz_quota_processors
#include "../../csrc/run/processors.c"
#undef fopen

static void add(file *file, const char *text, size_t length)
{
    if (file->length + length < sizeof file->text) {
        memcpy(file->text + file->length, text, length);
        file->length += length;
    }
}

static void read_groups(fuzz *f, file *file)
{
    static const char *const words[] = {"0::/", "3:cpu:/", "4:cpu,cpuacct:/", "5:memory:/",     ":", "/", "a",
                                        "../",  "\n",      "user.slice",      "11:cpuset,cpu:", ","};
    for (int i = fuzz_byte(f) % 24; i > 0; i--) {
        const uint8_t which = fuzz_byte(f);
        if (which == 255)
            for (int k = 0; k < 4096; k += 8)
                add(file, "/aaaaaaa", 8);
        else if (which >= 240)
            add(file, (const char *)&which, fuzz_flag(f) ? 1 : 0);
        else
            add(file, words[which % 12], strlen(words[which % 12]));
    }
}

static void read_numbers_of(fuzz *f, file *file)
{
    static const char *const words[] = {"max", "100000", "-1", "0",     "9223372036854775807",  "99999999999999999999",
                                        "1e5", "200000", "x",  "50001", "-9223372036854775808", "1"};
    for (int i = fuzz_byte(f) % 4; i > 0; i--) {
        const char *word = words[fuzz_byte(f) % 12];
        add(file, word, strlen(word));
        add(file, fuzz_flag(f) ? "\n" : " ", 1);
    }
}

static void read_quota(fuzz *f)
{
    opened = 0;
    for (int i = 0; i < FILES; i++) {
        files[i].length = 0;
        files[i].exists = !fuzz_rarely(f, 4);
        if (i)
            read_numbers_of(f, &files[i]);
        else
            read_groups(f, &files[i]);
    }
    const int quota = fuzz_quota_processors("/proc/self/cgroup", "/sys/fs/cgroup");
    FUZZ_CHECK(quota >= 1, "quota %d", quota);
}

/* ---- environment variables ---------------------------------------------------------------------------------------- */

static void set_variable(fuzz *f, const char *name, const char *const *words, int count)
{
    char value[8000] = ""; /* room for the longest */
    size_t length = 0;
    for (int i = fuzz_byte(f) % 4; i > 0; i--) {
        const uint8_t which = fuzz_byte(f);
        const int repeat = which >= 250 ? 100 : 1;
        for (int k = 0; k < repeat && length < sizeof value - 100; k++)
            length += (size_t)snprintf(value + length, sizeof value - length, "%s", words[which % count]);
    }
    if (fuzz_rarely(f, 4))
        unsetenv(name);
    else
        setenv(name, value, 1);
}

static void read_environment(fuzz *f)
{
    static const char *const numbers[] = {"1",          "0", "-", "+", " ", "1024",
                                          "9999999999", "K", "g", "M", "x", "18446744073709551616"};
    static const char *const levels[] = {"portable", "naive", "avx2", "", "%s%n", "\xff"};
    const ps3c_text_config config = {.width = 8,
                                     .depth = 1,
                                     .heads = 1,
                                     .mlp_hidden = 1,
                                     .context_length = 1,
                                     .vocab_size = 1,
                                     .output_dim = 1,
                                     .prompt_dim = 1};
    const ps3c_text_request request = {.batch = 1, .length = 1};
    ps3c_text_plan *plan;
    set_variable(f, "PS3C_NUM_THREADS", numbers, 12);
    set_variable(f, "PS3C_WORKSPACE_LIMIT", numbers, 12);
    set_variable(f, "PS3C_CPU_LEVEL", levels, 6);
    ps3c_context *context = ps3c_context_create();
    if (fuzz_rarely(f, 4)) {
        const int threads = (int)fuzz_integer(f, 0, 2, INT_MIN, INT_MAX);
        FUZZ_CHECK((ps3c_context_set_threads(context, threads) == PS3C_OK) == (threads >= 0), "threads %d", threads);
    }
    if (fuzz_rarely(f, 4))
        ps3c_context_set_cpu_level(context, levels[fuzz_byte(f) % 6]);
    const ps3c_status status = ps3c_text_plan_create(context, &config, &request, &plan);
    if (status != PS3C_OK)
        fuzz_check_failure(context, status);
    else
        FUZZ_CHECK(ps3c_text_plan_workspace_bytes(plan) < 1 << 30, "%zu bytes", ps3c_text_plan_workspace_bytes(plan));
    ps3c_text_plan_free(plan);
    ps3c_context_free(context);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = fuzz_begin(data, size);
    ps3c_context_free(fuzz_context(&f));
    read_quota(&f);
    read_environment(&f);
    fuzz_end(&f);
    return 0;
}
