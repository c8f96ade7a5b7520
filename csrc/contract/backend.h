/* What a backend provides: the operations of PS3's forward passes over activations of the backend's own layout.
 *
 * The engine (vision.c, text.c) plans integers and calls these in a fixed sequence; nothing it does depends on a
 * value read back from the device. A backend neither allocates nor waits inside an operation: outputs and scratch
 * come from the caller, and a GPU backend only enqueues work on run->stream.
 *
 * Activations. Only the backend knows how an activation lies in memory; the engine asks for its size, passes
 * handles, and moves plain rows in and out through to_rows, patch_gather, token_embedding. An activation has
 * `segments` (an image, a look of an image, or a text), each of `tokens` tokens of `channels` channels, in the run's
 * dtype. Operations act on each token alone unless they say otherwise; attention stays inside a segment.
 *
 * Numbers. Products accumulate in float32; statistics, softmax, GELU, cosines and resampling are float32; the result
 * is rounded once to the run's dtype. Same input, same thread count, same bits. A result never depends on how many
 * segments are in a call. NaN and Inf propagate; indices computed from them stay in bounds.
 *
 * Operations return a status, with a sentence left by ps3c_fail (error.h). Arguments were checked by the engine:
 * backends check only what the engine cannot know (token ids, launch errors).
 */
#ifndef PS3C_BACKEND_H
#define PS3C_BACKEND_H

#include "../ps3c.h"

/* What every operation receives. */
typedef struct ps3c_run {
    ps3c_context *context; /* for ps3c_fail */
    ps3c_dtype dtype;      /* of activations and weights: float32, float16, bfloat16 */
    int threads;           /* CPU */
    int32_t device_index;  /* CUDA */
    void *caller_context;  /* CUDA: what was current on the calling thread; end() makes it so again */
    bool tf32;             /* CUDA: products of float32 may round their factors to TF32 */
    void *stream;          /* CUDA */
    void *scratch;         /* 64-byte aligned; free for any operation, holds nothing between operations */
    size_t scratch_bytes;  /* at least the backend's scratch_bytes() for every operation of the run */
} ps3c_run;

typedef struct ps3c_activation {
    void *data; /* 64-byte aligned (CUDA: 256) */
    int64_t segments, tokens, channels;
} ps3c_activation;

/* A scale of the image: resampled to height x width pixels, cut into rows x cols patches. */
typedef struct ps3c_scale {
    int64_t height, width; /* pixels */
    int64_t rows, cols;    /* patches; a remainder of pixels beyond rows * patch is never read */
    int64_t first;         /* position index of this scale's first patch */
} ps3c_scale;

/* Positions. A patch is named by one int32: scale.first + row * cols + col, where `first` counts the patches of the
 * scales before it in the operation's scale list. `positions` arrays are [segments][tokens]; NULL stands for
 * 0, 1, 2, ... in every segment. Segment s belongs to image s % batch. */

typedef enum ps3c_activation_function {
    PS3C_ACT_NONE = 0,
    PS3C_ACT_GELU_ERF, /* x / 2 (1 + erf(x / sqrt 2)) */
    PS3C_ACT_GELU_TANH,
    PS3C_ACT_RELU,
} ps3c_activation_function;

/* y = (act(x W^T + bias)) * scale + residual.
 * Rounded once; CUDA rounds a 16-bit product before an activation or scale too, as torch does (cuBLASLt writes it). */
typedef struct ps3c_gemm_args {
    const void *weight; /* (n, k), rows ldw elements apart; transposed: (k, n), rows ldw apart; used in place */
    int64_t n, k, ldw;
    bool transposed;
    const void *bias; /* [n] or NULL */
    ps3c_activation_function act;
    const void *scale;               /* [n] or NULL: layer scale */
    const ps3c_activation *x;        /* k channels */
    const ps3c_activation *residual; /* NULL, or n channels; may be y */
    const ps3c_activation *y;        /* at least out_channel + n channels; never x */
    int64_t out_channel;             /* y's channel of output 0; even */
    int64_t values_from;             /* outputs from here on are attention values, which the backend may lay out as its
                                     attention likes; n: none. Multiple of 8; excludes residual */
} ps3c_gemm_args;

/* y = act(LayerNorm(x)) over channels; two-pass variance. y may be x. */
typedef struct ps3c_layernorm_args {
    const void *weight, *bias; /* [channels] */
    float eps;
    ps3c_activation_function act;
    const ps3c_activation *x, *y;
} ps3c_layernorm_args;

/* softmax(q k^T / sqrt(head_dim)) v for every segment and head; queries see the cached tokens, then their own.
 * FlashAttention's online softmax (Dao et al. 2022): never a full score matrix. */
typedef struct ps3c_attention_args {
    int64_t heads, head_dim;      /* head_dim: any multiple of 8 */
    const ps3c_activation *query; /* channels from query_channel on: [heads][head_dim] */
    int64_t query_channel;
    const ps3c_activation *own; /* same segments and tokens as query; from own_channel on: keys, then values
                                     (written by gemm with values_from) */
    int64_t own_channel;
    const ps3c_activation *cached; /* NULL: none. Segment s of query reads segment s % cached->segments */
    int64_t cached_channel;
    bool causal; /* query i sees own keys 0..i (cached keys all) */
    const uint8_t
        *last_query_mask;       /* NULL, or [segments][tokens]: own keys that the segment's LAST query may see (1) */
    const ps3c_activation *out; /* heads * head_dim channels; may not alias its inputs */
} ps3c_attention_args;

/* Patches of the image, resampled from the source (bicubic, a = -0.75, half-pixel centres, clamped borders, no
 * antialias, float32, rounded to dtype: torch's interpolate(mode="bicubic")), as 3 * patch * patch channels in (channel, y, x)
 * order. Only the patches named are ever computed. */
typedef struct ps3c_patch_gather_args {
    const ps3c_tensor *pixels; /* (B, 3, H, W), any strides, run's dtype */
    int64_t patch;
    const ps3c_scale *scales;
    int64_t num_scales;
    const int32_t *positions; /* [segments][tokens], or NULL */
    const ps3c_activation *out;
} ps3c_patch_gather_args;

/* x += table row (+ residual row) of each token's patch.
 * The table (grid * grid, channels) is resampled to max(rows, cols) squared (torch's interpolate(mode="bicubic",
 * antialias=True): a = -0.5, support scaled when shrinking, horizontal pass first, float32), then
 * cropped to rows x cols; with crop it is only cropped. The sum is rounded once. When rows == cols == grid it is used as it is. */
typedef struct ps3c_position_add_args {
    const void *table; /* (grid * grid, channels), contiguous */
    int64_t grid;
    bool crop;
    const ps3c_scale *scales;
    int64_t num_scales;
    const void *const *residual;  /* [num_scales] tables (residual_grid[i]^2, channels), entries may be NULL; or NULL */
    const int64_t *residual_grid; /* [num_scales] sides; cropped to rows x cols */
    const int32_t *positions;     /* or NULL */
    const ps3c_activation *x;     /* in and out */
} ps3c_position_add_args;

/* 7x7 depthwise convolution, padding 3, over a segment's tokens as a rows x cols map. y is never x. */
typedef struct ps3c_depthwise_args {
    const void *weight; /* (channels, 1, 7, 7), contiguous */
    const void *bias;   /* [channels] */
    int64_t rows, cols;
    const ps3c_activation *x, *y;
} ps3c_depthwise_args;

/* Cosine of each token's features with its image's prompt: f / max(|f|, 1e-12) . p / max(|p|, 1e-12). */
typedef struct ps3c_cosine_args {
    const ps3c_activation *features; /* segment b: image b */
    const void *prompt;              /* [segments][channels], rows prompt_stride elements apart (0: one for all) */
    int64_t prompt_stride;
    float *logits; /* [segments][tokens] */
} ps3c_cosine_args;

/* torch's adaptive_max_pool2d. NaN wins. */
typedef struct ps3c_max_pool_args {
    const float *in; /* [batch][in_rows][in_cols] */
    float *out;      /* [batch][rows][cols] */
    int64_t batch, in_rows, in_cols, rows, cols;
} ps3c_max_pool_args;

/* probs = softmax over {clamp(5 x, -10, 10), 0} of x = logits, or (logits + highres) / 2; rounded to the run's dtype. */
typedef struct ps3c_probability_args {
    const float *logits;  /* [count] */
    const float *highres; /* [count] or NULL */
    float *probs;         /* [count] */
    int64_t count;
} ps3c_probability_args;

/* Low-res probabilities to one scale: nearest; then 1 where the ground truth says so; then smoothed.
 * gt: area-resized (adaptive average) to the first high-res grid in float32, cast to gt's own dtype (integers truncate,
 * bool: not 0), nearest to this grid; probability 1 where > 0.
 * smooth: area to 6 x 6, rounded to dtype, nearest back. */
typedef struct ps3c_expand_args {
    const float *probs; /* [batch][in_rows][in_cols], values of the run's dtype */
    int64_t batch, in_rows, in_cols;
    const ps3c_tensor *gt;    /* (B, any, any), any strides, or NULL */
    int64_t gt_rows, gt_cols; /* first high-res grid */
    bool smooth;
    const ps3c_tensor *out; /* (B, rows, cols), contiguous, run's dtype */
} ps3c_expand_args;

/* rank[b][i] = place of probability i in a stable descending order: 0 the greatest, lowest index first among equals,
 * NaN after everything else (in index order). */
typedef struct ps3c_rank_args {
    const ps3c_tensor *probs; /* (B, rows, cols), contiguous, run's dtype */
    int32_t *rank;            /* [B][rows * cols] */
} ps3c_rank_args;

/* From ranks to looks. Look l takes ranks ends[b][l - 1] .. ends[b][l] - 1 of image b at each scale.
 * Writes, for every look: its tokens' positions, scale after scale, row-major within; and for each token its row among
 * all selected patches of the image in (scale, row, col) order. Writes the 0/1 maps. */
typedef struct ps3c_assign_looks_args {
    int64_t batch, looks, num_scales;
    const ps3c_scale *scales;   /* [num_scales], high-res only; first counts from 0 at the first of them */
    const int32_t *const *rank; /* [num_scales]: [batch][rows * cols] */
    const int32_t *ends;        /* host memory, [batch][num_scales][looks]: cumulated patches after each look */
    const int64_t *look_first;  /* host memory, [looks]: index in positions/row_of of look l's first entry;
                                     image b's entries follow at look_first[l] + b * look_tokens[l] */
    const int64_t *look_tokens; /* host memory, [looks]: tokens of a look, the same for every image */
    int32_t *positions;         /* [sum over looks of batch * tokens] */
    int32_t *row_of;            /* likewise */
    const ps3c_tensor *maps;    /* [num_scales]: (B, rows, cols) contiguous, run's dtype */
} ps3c_assign_looks_args;

/* Rows of an activation into a plain tensor: out[segment % batch][first_row + row_of[segment][token]][:] . */
typedef struct ps3c_to_rows_args {
    const ps3c_activation *x;
    const int32_t *row_of; /* [segments][tokens], or NULL: the token's own number */
    int64_t batch;         /* of out */
    int64_t first_row;
    void *out;                        /* (batch, rows, channels), run's dtype, channels contiguous */
    int64_t row_stride, batch_stride; /* elements */
} ps3c_to_rows_args;

/* Plain rows (segments * tokens, channels), contiguous, into an activation. */
typedef struct ps3c_from_rows_args {
    const void *rows;
    const ps3c_activation *out;
} ps3c_from_rows_args;

/* Channels of x into channels [at, at + x->channels) of y; at even. */
typedef struct ps3c_copy_channels_args {
    const ps3c_activation *x, *y;
    int64_t at;
} ps3c_copy_channels_args;

/* Row ids[b][t] of the table (+ position t); class token, when there is one, as token `length`.
 * ERROR_VALUE (CPU) for an id outside the vocabulary, naming it. */
typedef struct ps3c_token_embedding_args {
    const ps3c_tensor *ids; /* (batch, length) int64, any strides; segment s: text first + s */
    int64_t first;
    int64_t vocab_size;
    const void *table;          /* (vocab_size, channels), contiguous */
    const void *positions;      /* (>= tokens, channels) */
    const void *class_token;    /* [channels] or NULL */
    const ps3c_activation *out; /* tokens: length, + 1 with a class token */
} ps3c_token_embedding_args;

/* One token of each segment: out is 1 segment of x->segments tokens. ARGMAX: at the first greatest id. */
typedef struct ps3c_pool_tokens_args {
    const ps3c_activation *x;
    ps3c_text_pool pool;    /* FIRST, LAST, ARGMAX */
    const ps3c_tensor *ids; /* ARGMAX: (batch, length) int64 */
    int64_t first;
    const ps3c_activation *out;
} ps3c_pool_tokens_args;

/* x / max(|x|, 1e-12) for every token. y may be x. */
typedef struct ps3c_l2_normalize_args {
    const ps3c_activation *x, *y;
} ps3c_l2_normalize_args;

/* [segments][tokens] of 0/1: keys that the class token, the last query, may see: index 0, and i where
 * ids[i - 1] is not pad (the reference's mask is shifted by one). tokens = length + 1. */
typedef struct ps3c_class_mask_args {
    const ps3c_tensor *ids;
    int64_t first, segments;
    int64_t pad_id;
    uint8_t *mask;
} ps3c_class_mask_args;

/* 0/1 for each token of the only look: is the area-resized ground truth of its patch (cast to gt's dtype as in
 * expand, but resized to each token's own scale) not 0? All 1 for an image that would have none. */
typedef struct ps3c_gt_mask_args {
    const ps3c_tensor *gt; /* (B, any, any) */
    const ps3c_scale *scales;
    int64_t num_scales;
    const int32_t *positions; /* [batch][tokens] */
    int64_t batch, tokens;
    uint8_t *mask; /* [batch][tokens] */
} ps3c_gt_mask_args;

/* Attention of one query per head over each segment's tokens. */
typedef struct ps3c_attention_pool_args {
    int64_t heads, head_dim;
    const ps3c_activation *query; /* 1 segment, 1 token, heads * head_dim channels */
    const ps3c_activation
        *keys_values;           /* keys, then values (gemm without values_from), 2 * heads * head_dim channels */
    const uint8_t *mask;        /* [segments][tokens] or NULL */
    const ps3c_activation *out; /* 1 segment of keys_values->segments tokens */
} ps3c_attention_pool_args;

/* y = flag * low + (flag == 0) * y, token by token. */
typedef struct ps3c_blend_args {
    const ps3c_tensor *flag; /* (B, 1) float32, any strides; token t: image first + t */
    int64_t first;
    const ps3c_activation *low, *y; /* 1 segment */
} ps3c_blend_args;

/* ---- resizing of decoded images, on the host alone ------------------------------------------------------------------ */

/* How one side of an image is resized: output i is the sum of `counts[i]` inputs from `firsts[i]` on, times weights
 * [i * most], .., in units of 2^-PS3C_WEIGHT_BITS; they add up to about 1, their absolute values to less than 2. */
typedef struct ps3c_taps {
    int64_t outputs, most;
    const int64_t *firsts, *counts;
    const int32_t *weights;
} ps3c_taps;

enum { PS3C_WEIGHT_BITS = 22 };

/* Rows of pixels to rows of another width, each pixel 4 bytes (the fourth: anything). Rounded to nearest and clipped. */
typedef struct ps3c_resize_columns_args {
    const uint8_t *pixels;
    int64_t rows, row_bytes, channels; /* channels: bytes a pixel, 3 or 4; no byte beyond a row's is read */
    const ps3c_taps *taps;
    uint8_t *out; /* (rows, taps->outputs, 4) */
} ps3c_resize_columns_args;

/* Columns of those to another height, rounded to bytes v, then (v / 255 - mean) / std in planes. */
typedef struct ps3c_resize_rows_args {
    const uint8_t *pixels; /* (any, width, 4) */
    int64_t width;
    const ps3c_taps *taps;
    const float *mean, *std; /* [3] */
    float *out;              /* (3, taps->outputs, width) */
} ps3c_resize_rows_args;

/* ---- the backend --------------------------------------------------------------------------------------------------- */

/* The one list of operations: the struct below and the tables of all backends are made from it. Operation X takes a
 * ps3c_X_args. A backend that lacks one does not link. */
/* clang-format off */
#define PS3C_OPERATIONS(OP) \
    OP(gemm) OP(layernorm) OP(attention) OP(patch_gather) OP(position_add) OP(depthwise) OP(cosine) OP(max_pool) \
    OP(probability) OP(expand) OP(rank) OP(assign_looks) OP(to_rows) OP(from_rows) OP(copy_channels) \
    OP(token_embedding) OP(pool_tokens) OP(l2_normalize) OP(class_mask) OP(gt_mask) OP(attention_pool) OP(blend)
/* Resizing of decoded images: the CPU's alone. */
#define PS3C_HOST_OPERATIONS(OP) OP(resize_columns) OP(resize_rows)
/* clang-format on */

typedef struct ps3c_backend {
    const char *name;
    /* (optional) Around the operations of a run, on the calling thread: makes the run's device current, and the caller's
     * again. end() follows every begin() that returned OK. */
    ps3c_status (*begin)(ps3c_run *run);
    void (*end)(ps3c_run *run);
    /* What a plan aims at unless it is told: tokens that run together, and bytes of workspace. (optional: 0, NULL) */
    int64_t tokens_together;
    size_t (*default_workspace)(int32_t device_index);
    /* Bytes of an activation, a multiple of 64 (CUDA: 256). SIZE_MAX when it does not fit a size_t. */
    size_t (*activation_bytes)(ps3c_dtype dtype, int64_t segments, int64_t tokens, int64_t channels);
    /* Scratch that any operation of a run may need. tokens: the most an activation of the run has, segments * tokens;
     * channels: the widest; positions: the most patches one rank call orders, all its images together. */
    size_t (*scratch_bytes)(ps3c_dtype dtype, int threads, int64_t tokens, int64_t channels, int64_t positions);

#define PS3C_OPERATION_FIELD(name) ps3c_status (*name)(const ps3c_run *run, const ps3c_##name##_args *args);
    PS3C_OPERATIONS(PS3C_OPERATION_FIELD)
    PS3C_HOST_OPERATIONS(PS3C_OPERATION_FIELD) /* NULL in other backends than the CPU's */
#undef PS3C_OPERATION_FIELD
} ps3c_backend;

/* ---- the CUDA backend, a library of its own ------------------------------------------------------------------------ */

enum { PS3C_CUDA_ABI = 4 }; /* counts changes of anything that both sides of the library see */

/* What the engine gives the library. */
typedef struct ps3c_cuda_host {
    int abi;             /* PS3C_CUDA_ABI */
    size_t backend_size; /* sizeof(ps3c_backend): a library of another build is refused */
    ps3c_status (*fail)(ps3c_context *context, ps3c_status status, const char *sentence);
} ps3c_cuda_host;

/* What the library gives the engine. */
typedef struct ps3c_cuda_library {
    const ps3c_backend *backend;
    bool host_memory; /* the kernels run on the CPU (tests/cuda_on_cpu): device memory is the host's */
    /* OK, or RUNTIME: no driver, or no such device; the sentence says which. */
    ps3c_status (*check_device)(ps3c_context *context, int32_t device_index);
    /* Products of this process that cuBLASLt refused and a plain, slow kernel computed: 0 for any model of use. */
    int64_t (*refused_products)(void);
} ps3c_cuda_library;

/* The library's one exported symbol, "ps3c_cuda_open". NULL: the host is of another build. Static memory. */
typedef const ps3c_cuda_library *ps3c_cuda_open_function(const ps3c_cuda_host *host);

/* ---- where backends come from -------------------------------------------------------------------------------------- */

/* The backend of a device type; ps3c_register_backend (ps3c.h) makes it known to the engine. */
struct ps3c_backend_source {
    /* The backend for a device of this type, static memory. level: one of levels(), NULL: the best; always NULL where
     * there are no levels. RUNTIME error that says what is missing. */
    ps3c_status (*find)(ps3c_context *context, int32_t device_index, const char *level, const ps3c_backend **backend);
    /* (optional) Names of the levels that this machine can run, best first, NULL-terminated; static memory. */
    const char *const *(*levels)(void);
};

#endif
