/* A pass of a model over its inputs: the parts of planning and running that all models share. */
#ifndef PS3C_PASS_H
#define PS3C_PASS_H

#include "../contract/backend.h"
#include "../contract/error.h"

/* ---- planning ------------------------------------------------------------------------------------------- */

/* Alignment, in bytes, of every buffer in a workspace. A run aligns the start of the caller's workspace, so a plan adds
 * this number of bytes to its size. */
enum { PS3C_WORKSPACE_ALIGN = 256 };

/* Assigns offsets in a workspace like a stack. peak is the size to allocate. Sizes saturate at SIZE_MAX. */
typedef struct ps3c_arena {
    size_t used, peak;
} ps3c_arena;

/* Reserves `bytes` bytes and returns their offset, a multiple of PS3C_WORKSPACE_ALIGN. */
size_t ps3c_arena_take(ps3c_arena *arena, size_t bytes);
/* Size in bytes of the workspace that the caller must provide. */
size_t ps3c_arena_bytes(const ps3c_arena *arena);
/* a * b; SIZE_MAX on overflow or if a factor is negative. */
size_t ps3c_bytes_product(int64_t a, int64_t b);

/* ERROR_VALUE unless batch is 1 to INT32_MAX. */
ps3c_status ps3c_check_batch(ps3c_context *context, int64_t batch);
/* ERROR_TYPE unless dtype is float32, float16 or bfloat16. */
ps3c_status ps3c_check_dtype(ps3c_context *context, ps3c_dtype dtype);
/* ERROR_MEMORY if bytes exceeds SIZE_MAX / 4. what describes the inputs in the message: "images of 8 x 8 pixels". */
ps3c_status ps3c_check_workspace(ps3c_context *context, size_t bytes, const char *what);

/* How segments are grouped. */
typedef struct ps3c_grouping {
    int64_t tokens; /* target for the number of tokens that run together */
    size_t limit;   /* target for the bytes of workspace */
} ps3c_grouping;

/* limit: the request's workspace limit, or 0: the environment variable PS3C_WORKSPACE_LIMIT, else the backend's
 * default. ERROR_VALUE if the variable is not a number of bytes. */
ps3c_status ps3c_find_grouping(ps3c_context *context, const ps3c_backend *backend, int32_t device_index, size_t limit,
                               ps3c_grouping *grouping);
/* Number of segments of `tokens` tokens that run together: at least 1, at most `most`. */
int64_t ps3c_segments_together(const ps3c_grouping *grouping, int64_t tokens, int64_t most);

/* ---- running -------------------------------------------------------------------------------------------- */

typedef struct ps3c_pass {
    const ps3c_backend *backend;
    ps3c_run run;
    const ps3c_tensor *weights; /* all weights of the model */
    char *workspace;            /* aligned; offsets count from here */
} ps3c_pass;

/* The inputs of ps3c_pass_begin: from the caller's io struct and from the plan. */
typedef struct ps3c_pass_args {
    const ps3c_tensor *weights;
    void *workspace; /* the caller's, any alignment */
    size_t workspace_bytes;
    void *stream;
    bool tf32;
    ps3c_dtype dtype;
    ps3c_device device;
    int threads;    /* number that scratch was planned for */
    size_t bytes;   /* size of workspace in the plan */
    size_t scratch; /* offset of scratch, which extends to the end of the workspace */
} ps3c_pass_args;

/* Checks the workspace, finds the backend, and fills *pass. Call ps3c_pass_end if it returns OK. ERROR_VALUE: the
 * workspace is too small. ERROR_RUNTIME: no such backend or device. */
ps3c_status ps3c_pass_begin(ps3c_context *context, const ps3c_pass_args *args, ps3c_pass *pass);
void ps3c_pass_end(ps3c_pass *pass);

/* The first multiple of PS3C_WORKSPACE_ALIGN in the caller's workspace. */
char *ps3c_aligned_workspace(void *workspace);

#endif
