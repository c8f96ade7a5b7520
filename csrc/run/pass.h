/* A pass of a model over its inputs: what planning and running have in common for every model. */
#ifndef PS3C_PASS_H
#define PS3C_PASS_H

#include "../contract/backend.h"
#include "../contract/error.h"

/* ---- planning ------------------------------------------------------------------------------------------- */

/* Every buffer in a workspace starts on this many bytes. A run aligns the caller's workspace itself, so that a plan
 * asks for as many bytes more. */
enum { PS3C_WORKSPACE_ALIGN = 256 };

/* A workspace by offsets: a stack, whose highest mark is what to allocate. Sizes saturate at SIZE_MAX. */
typedef struct ps3c_arena {
    size_t used, peak;
} ps3c_arena;

/* Offset of `bytes` new bytes, aligned. */
size_t ps3c_arena_take(ps3c_arena *arena, size_t bytes);
/* Bytes that the caller has to bring. */
size_t ps3c_arena_bytes(const ps3c_arena *arena);
/* a * b, SIZE_MAX on overflow or when either is negative. */
size_t ps3c_bytes_product(int64_t a, int64_t b);

/* A batch has 1 to INT32_MAX entries; VALUE error otherwise. */
ps3c_status ps3c_check_batch(ps3c_context *context, int64_t batch);
/* Weights and activations are float32, float16 or bfloat16; TYPE error otherwise. */
ps3c_status ps3c_check_dtype(ps3c_context *context, ps3c_dtype dtype);
/* MEMORY error when no machine has a workspace of so many bytes. what: "images of 8 x 8 pixels". */
ps3c_status ps3c_check_workspace(ps3c_context *context, size_t bytes, const char *what);

/* How a backend likes its work grouped. */
typedef struct ps3c_grouping {
    int64_t tokens; /* that run together where there is a choice */
    size_t limit;   /* bytes of workspace to stay under where there is a choice */
} ps3c_grouping;

/* limit: the request's, or 0: what PS3C_WORKSPACE_LIMIT says, else the backend's default. VALUE error when the variable
 * holds no number. */
ps3c_status ps3c_find_grouping(ps3c_context *context, const ps3c_backend *backend, int32_t device_index, size_t limit,
                               ps3c_grouping *grouping);
/* Segments of so many tokens that run together, of `most`: at least 1. */
int64_t ps3c_segments_together(const ps3c_grouping *grouping, int64_t tokens, int64_t most);

/* ---- running -------------------------------------------------------------------------------------------- */

typedef struct ps3c_pass {
    const ps3c_backend *backend;
    ps3c_run run;
    const ps3c_tensor *weights; /* all of the model's */
    char *workspace;            /* aligned: what offsets count from */
} ps3c_pass;

/* What a run brings and what its plan decided. */
typedef struct ps3c_pass_args {
    const ps3c_tensor *weights;
    void *workspace; /* the caller's, as it came */
    size_t workspace_bytes;
    void *stream;
    bool tf32;
    ps3c_dtype dtype;
    ps3c_device device;
    int threads;    /* that scratch was planned for */
    size_t bytes;   /* of workspace that the plan asks for */
    size_t scratch; /* offset of scratch, which reaches to the end */
} ps3c_pass_args;

/* Checks the workspace and sets the pass up; ps3c_pass_end follows where this returned OK. VALUE error: a workspace that
 * is too small. RUNTIME error: no such backend or device. */
ps3c_status ps3c_pass_begin(ps3c_context *context, const ps3c_pass_args *args, ps3c_pass *pass);
void ps3c_pass_end(ps3c_pass *pass);

/* The caller's workspace as runs see it. */
char *ps3c_aligned_workspace(void *workspace);

#endif
