/* Planning and running a pass: the parts that are independent of the model. */
#include "pass.h"

#include <stdint.h>

#include "context.h"

/* ---- planning ------------------------------------------------------------------------------------------- */

/* Default of backend->tokens_together: large enough to use full vectors in every thread, and small enough for
 * activations to stay in or near the caches. */
enum { TOKENS_TOGETHER = 4096 };

size_t ps3c_bytes_product(int64_t a, int64_t b)
{
    size_t product;
    if (a < 0 || b < 0 || __builtin_mul_overflow((size_t)a, (size_t)b, &product))
        return SIZE_MAX;
    return product;
}

size_t ps3c_arena_take(ps3c_arena *arena, size_t bytes)
{
    const size_t offset = arena->used, align = PS3C_WORKSPACE_ALIGN;
    if (bytes > SIZE_MAX / 4 || offset > SIZE_MAX / 2 - bytes - align)
        arena->used = SIZE_MAX;
    else
        arena->used = offset + (bytes + align - 1) / align * align;
    if (arena->used > arena->peak)
        arena->peak = arena->used;
    return offset;
}

size_t ps3c_arena_bytes(const ps3c_arena *arena)
{
    return arena->peak == SIZE_MAX ? SIZE_MAX : arena->peak + PS3C_WORKSPACE_ALIGN;
}

ps3c_status ps3c_check_batch(ps3c_context *context, int64_t batch)
{
    if (batch >= 1 && batch <= INT32_MAX)
        return PS3C_OK;
    return ps3c_fail(context, PS3C_ERROR_VALUE, "batch: got %lld, expected 1 to %d", (long long)batch, INT32_MAX);
}

ps3c_status ps3c_check_dtype(ps3c_context *context, ps3c_dtype dtype)
{
    if (dtype == PS3C_FLOAT32 || dtype == PS3C_FLOAT16 || dtype == PS3C_BFLOAT16)
        return PS3C_OK;
    return ps3c_fail(context, PS3C_ERROR_TYPE, "dtype: got %s, expected float32, float16 or bfloat16",
                     ps3c_dtype_name(dtype));
}

ps3c_status ps3c_check_workspace(ps3c_context *context, size_t bytes, const char *what)
{
    if (bytes <= SIZE_MAX / 4)
        return PS3C_OK;
    return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the workspace of %s", what);
}

ps3c_status ps3c_find_grouping(ps3c_context *context, const ps3c_backend *backend, int32_t device_index, size_t limit,
                               ps3c_grouping *grouping)
{
    grouping->tokens = backend->tokens_together ? backend->tokens_together : TOKENS_TOGETHER;
    grouping->limit = limit;
    return limit ? PS3C_OK : ps3c_context_workspace_limit(context, backend, device_index, &grouping->limit);
}

int64_t ps3c_segments_together(const ps3c_grouping *grouping, int64_t tokens, int64_t most)
{
    const int64_t segments = grouping->tokens / tokens;
    return segments < 1 ? 1 : segments < most ? segments : most;
}

/* ---- running -------------------------------------------------------------------------------------------- */

char *ps3c_aligned_workspace(void *workspace)
{
    const uintptr_t align = PS3C_WORKSPACE_ALIGN;
    return (char *)(((uintptr_t)workspace + align - 1) / align * align);
}

ps3c_status ps3c_pass_begin(ps3c_context *context, const ps3c_pass_args *args, ps3c_pass *pass)
{
    if (!args->workspace || args->workspace_bytes < args->bytes)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "workspace: got %zu bytes, expected %zu or more",
                         args->workspace ? args->workspace_bytes : 0, args->bytes);
    pass->workspace = ps3c_aligned_workspace(args->workspace);
    pass->weights = args->weights;
    pass->run = (ps3c_run){.context = context,
                           .dtype = args->dtype,
                           .threads = ps3c_context_threads(context, args->threads),
                           .device_index = args->device.index,
                           .tf32 = args->tf32,
                           .stream = args->stream,
                           .scratch = pass->workspace + args->scratch,
                           .scratch_bytes = args->bytes - PS3C_WORKSPACE_ALIGN - args->scratch};
    PS3C_TRY(ps3c_context_backend(context, args->device, &pass->backend));
    return pass->backend->begin ? pass->backend->begin(&pass->run) : PS3C_OK;
}

void ps3c_pass_end(ps3c_pass *pass)
{
    if (pass->backend->end)
        pass->backend->end(&pass->run);
}
