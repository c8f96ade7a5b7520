/* Contexts: error message, threads, instruction set and interruption of a call. */
#include "context.h"
#include "../contract/processors.h"
#include "registry.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_THREADS = 1024 }; /* that PS3C_NUM_THREADS may request */

ps3c_status ps3c_fail(ps3c_context *context, ps3c_status status, const char *format, ...)
{
    va_list arguments;
    if (!context)
        return status;
    va_start(arguments, format);
    vsnprintf(context->message, sizeof context->message, format, arguments);
    va_end(arguments);
    return status;
}

/* Writes the levels available here as "a, b, c". */
static void list_levels(char *text, size_t size)
{
    size_t used = 0;
    text[0] = 0;
    for (const char *const *level = ps3c_cpu_levels(); *level && used < size; level++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", *level);
}

static ps3c_status unknown_level(ps3c_context *context, const char *argument, const char *level)
{
    char known[128];
    list_levels(known, sizeof known);
    return ps3c_fail(context, PS3C_ERROR_VALUE, "%s: got '%.100s', expected one of the levels available here: %s",
                     argument, level, known);
}

static const char *find_level(const char *name)
{
    for (const char *const *level = ps3c_cpu_levels(); *level; level++)
        if (!strcmp(*level, name))
            return *level;
    return NULL;
}

/* The number of threads that the environment requests; 0: none, or an invalid one, which `invalid` names. */
static int threads_from_environment(const char **invalid)
{
    const char *asked = getenv("PS3C_NUM_THREADS");
    char *end;
    *invalid = NULL;
    if (!asked || !*asked)
        return 0;
    const long threads = strtol(asked, &end, 10);
    if (isdigit((unsigned char)*asked) && !*end && threads >= 1 && threads <= MOST_THREADS)
        return (int)threads;
    *invalid = asked;
    return 0;
}

ps3c_context *ps3c_context_create(void)
{
    ps3c_context *context = calloc(1, sizeof *context);
    const char *level = getenv("PS3C_CPU_LEVEL"), *invalid;
    threads_from_environment(&invalid);
    if (context && invalid)
        snprintf(context->invalid_threads, sizeof context->invalid_threads, "%s", invalid);
    if (context && level && *level) {
        context->level = find_level(level);
        if (!context->level)
            snprintf(context->unknown_level, sizeof context->unknown_level, "%s", level);
    }
    return context;
}

/* Parses a number of bytes such as "268435456", "256M" or "2G", clamped to SIZE_MAX / 2. False if it is invalid or 0.
 */
static bool parse_bytes(const char *text, size_t *bytes)
{
    static const char units[] = "KMG";
    char *end;
    const unsigned long long number = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    size_t factor = 1;
    for (const char *u = units; unit && u <= unit; u++)
        factor *= 1024;
    *bytes = number > SIZE_MAX / 2 / factor ? SIZE_MAX / 2 : (size_t)number * factor;
    return isdigit((unsigned char)*text) && number > 0 && (!*end || (unit && !end[1]));
}

ps3c_status ps3c_context_workspace_limit(ps3c_context *context, const ps3c_backend *backend, int32_t device_index,
                                         size_t *limit)
{
    const char *asked = getenv("PS3C_WORKSPACE_LIMIT");
    *limit = backend->default_workspace ? backend->default_workspace(device_index) : PS3C_DEFAULT_WORKSPACE;
    if (asked && *asked && !parse_bytes(asked, limit))
        return ps3c_fail(
            context, PS3C_ERROR_VALUE,
            "environment variable PS3C_WORKSPACE_LIMIT: got '%s', expected bytes, or a number with K, M or G", asked);
    return PS3C_OK;
}

void ps3c_context_free(ps3c_context *context) { free(context); }

const char *ps3c_context_message(const ps3c_context *context) { return context->message; }

ps3c_status ps3c_context_set_threads(ps3c_context *context, int threads)
{
    if (threads < 0)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "threads: got %d, expected 0 (the default) or more", threads);
    context->threads = threads;
    if (threads)
        context->invalid_threads[0] = 0;
    return PS3C_OK;
}

ps3c_status ps3c_context_set_cpu_level(ps3c_context *context, const char *level)
{
    const char *found = level ? find_level(level) : NULL;
    if (level && !found)
        return unknown_level(context, "level", level);
    context->level = found;
    context->unknown_level[0] = 0;
    return PS3C_OK;
}

const char *ps3c_context_cpu_level(const ps3c_context *context)
{
    const char *best = ps3c_cpu_levels()[0];
    return context->level ? context->level : best ? best : "";
}

void ps3c_context_set_interrupt(ps3c_context *context, int (*interrupt)(void *data), void *data)
{
    context->interrupt = interrupt;
    context->interrupt_data = data;
}

static int default_threads(void)
{
    const char *invalid;
    const int asked = threads_from_environment(&invalid);
    return asked ? asked : ps3c_processors();
}

int ps3c_threads_limit(void)
{
    const int processors = ps3c_processors(), asked = default_threads();
    return processors > asked ? processors : asked;
}

int ps3c_context_threads(const ps3c_context *context, int limit)
{
    const int threads = context->threads ? context->threads : default_threads();
    return threads < 1 ? 1 : threads > limit ? limit : threads;
}

ps3c_status ps3c_context_backend(ps3c_context *context, ps3c_device device, const ps3c_backend **backend)
{
    const ps3c_backend_source *source = ps3c_registered_source(device.type);
    if (!source)
        return ps3c_fail(context, PS3C_ERROR_RUNTIME, "device: got %s, expected a device whose backend is registered",
                         ps3c_device_name(device.type));
    if (!source->levels)
        return source->find(context, device.index, NULL, backend);
    if (context->invalid_threads[0])
        return ps3c_fail(context, PS3C_ERROR_VALUE, "environment variable PS3C_NUM_THREADS: got '%s', expected 1 to %d",
                         context->invalid_threads, MOST_THREADS);
    if (context->unknown_level[0])
        return unknown_level(context, "environment variable PS3C_CPU_LEVEL", context->unknown_level);
    return source->find(context, device.index, context->level, backend);
}

ps3c_status ps3c_context_poll(ps3c_context *context)
{
    if (context && context->interrupt && context->interrupt(context->interrupt_data))
        return ps3c_fail(context, PS3C_ERROR_INTERRUPTED, "interrupted");
    return PS3C_OK;
}
