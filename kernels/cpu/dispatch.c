/* The CPU backend's tables, one per level (levels.def), and the choice among them at run time. */
#include "detect.h"
#include "threads.h"

/* Numbers of the levels, best first. */
#define NUMBER(op, level, ...) LEVEL_##level,
enum { PS3C_CPU_LEVELS(NUMBER, ) LEVELS };

#define COMMON(op, level, ...)                                                                      \
    [LEVEL_##level].name = #level, [LEVEL_##level].activation_bytes = ps3c_cpu_activation_bytes,    \
    [LEVEL_##level].scratch_bytes = ps3c_cpu_scratch_bytes, [LEVEL_##level].begin = ps3c_cpu_begin, \
    [LEVEL_##level].end = ps3c_cpu_end,
#define FIELD(op_name, level, ...) [LEVEL_##level].op_name = ps3c_##op_name##_##level,
#define FIELDS(op) PS3C_CPU_LEVELS(FIELD, op)
static const ps3c_backend backends[LEVELS] = {PS3C_CPU_LEVELS(COMMON, ) PS3C_OPERATIONS(FIELDS)
                                                  PS3C_HOST_OPERATIONS(FIELDS)};

/* Tables of the levels that this processor has and their names, best first, NULL-terminated. Written once, before
 * main() or while the library is opened; afterwards all threads only read them. */
static const ps3c_backend *available[LEVELS + 1];
static const char *names[LEVELS + 1];

__attribute__((constructor(101))) static void find_levels(void)
{
    int count = 0;
    ps3c_detect();
#define ADD(op, level, has, flags)                   \
    if (has) {                                       \
        available[count] = &backends[LEVEL_##level]; \
        names[count++] = #level;                     \
    }
    PS3C_CPU_LEVELS(ADD, )
}

static const char *const *levels(void) { return names; }

static ps3c_status find_backend(ps3c_context *context, int32_t device_index, const char *level,
                                const ps3c_backend **backend)
{
    (void)device_index;
    for (int i = 0; available[i]; i++)
        if (!level || !strcmp(level, available[i]->name)) {
            *backend = available[i];
            return PS3C_OK;
        }
    return ps3c_fail(context, PS3C_ERROR_RUNTIME, "level: got '%s', expected a level that this processor has", level);
}

const ps3c_backend_source ps3c_cpu_source = {.find = find_backend, .levels = levels};
