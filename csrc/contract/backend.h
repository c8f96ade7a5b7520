/* The interface of a backend: the operations of PS3's forward passes, over activations of the backend's own layout.
 *
 * The engine (model/vision.c, model/text.c) computes a plan of integers and calls the operations in a fixed sequence.
 * It reads no value back from the device. An operation does not allocate and does not wait: the caller provides
 * outputs and scratch, and a GPU backend only enqueues work on run->stream.
 *
 * Activations. Only the backend knows the memory layout of an activation. The engine asks for its size in bytes and
 * passes handles; patch_gather, token_embedding and from_rows write activations, to_rows reads them. An activation has
 * `segments` (an image, a look of an image, or a text) of `tokens` tokens of `channels` channels, in the run's dtype.
 * An operation acts on each token independently unless its comment says otherwise. Attention stays within a segment.
 *
 * Numbers. Products accumulate in float32. Statistics, softmax, GELU, cosines and resampling are computed in float32.
 * The result is rounded once to the run's dtype. Operations are deterministic: the same input and the same number of
 * threads give the same bits. A result does not depend on the number of segments in the call. NaN and Inf propagate;
 * indices computed from them stay in bounds.
 *
 * Errors. Operations return a status and leave a message with ps3c_fail (error.h). The engine has checked the
 * arguments. A backend checks only what the engine cannot check: token ids and errors of kernel launches.
 *
 * Memory. The caller owns everything that an argument struct points to. */
#ifndef PS3C_BACKEND_H
#define PS3C_BACKEND_H

#include "../ps3c.h"

/* The first argument of every operation. */
typedef struct ps3c_run {
    ps3c_context *context; /* for ps3c_fail */
    ps3c_dtype dtype;      /* of activations and weights: float32, float16, bfloat16 */
    int threads;           /* CPU */
    void *team;            /* CPU: its threads, from begin() to end() */
    int32_t device_index;  /* CUDA */
    void *caller_context;  /* CUDA: context that was current before begin(); end() restores it */
    bool tf32;             /* CUDA: float32 products may round their factors to TF32 */
    void *stream;          /* CUDA: the cudaStream_t to enqueue on */
    void *scratch;         /* 64-byte aligned; any operation may use it; its content is lost between operations */
    size_t scratch_bytes;  /* at least the backend's scratch_bytes() for the sizes of the run */
} ps3c_run;

typedef struct ps3c_activation {
    void *data; /* 64-byte aligned (CUDA: 256) */
    int64_t segments, tokens, channels;
} ps3c_activation;

/* A scale: the image is resampled to height x width pixels and divided into rows x cols patches. */
typedef struct ps3c_scale {
    int64_t height, width; /* pixels */
    int64_t rows, cols;    /* patches; pixels beyond rows * patch or cols * patch are not read */
    int64_t first;         /* position index of this scale's first patch */
} ps3c_scale;

/* Positions. The position of a patch is one int32: scale.first + row * cols + col, where `first` is the number of
 * patches of the previous scales in the operation's list. `positions` arrays are [segments][tokens]; NULL means 0, 1,
 * 2, ... in every segment. Segment s belongs to image s % batch. */

typedef enum ps3c_activation_function {
    PS3C_ACT_NONE = 0,
    PS3C_ACT_GELU_ERF,  /* 0.5 x (1 + erf(x / sqrt(2))) */
    PS3C_ACT_GELU_TANH, /* 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
    PS3C_ACT_RELU,      /* max(x, 0) */
} ps3c_activation_function;

/* y = act(x W^T + bias) * scale + residual, rounded once. CUDA also rounds a 16-bit product before an activation or a
 * scale, as torch does, because cuBLASLt writes that product to memory. */
typedef struct ps3c_gemm_args {
    const void *weight; /* (n, k), or (k, n) if transposed; rows are ldw elements apart; read in place */
    int64_t n, k, ldw;
    bool transposed;
    const void *bias; /* [n] or NULL */
    ps3c_activation_function act;
    const void *scale;               /* [n] or NULL: the layer scale */
    const ps3c_activation *x;        /* k channels */
    const ps3c_activation *residual; /* n channels, or NULL; may be y */
    const ps3c_activation *y;        /* at least out_channel + n channels; never x */
    int64_t out_channel;             /* channel of y that receives output 0; even */
    int64_t values_from;             /* the outputs from this index on are attention values, which a backend may store
                                     in another layout; n: there are none. A multiple of 8. If it is less than n,
                                     residual is NULL */
} ps3c_gemm_args;

/* y = act(LayerNorm(x)) over channels, with a two-pass variance. y may be x. */
typedef struct ps3c_layernorm_args {
    const void *weight, *bias; /* [channels] */
    float eps;
    ps3c_activation_function act;
    const ps3c_activation *x, *y;
} ps3c_layernorm_args;

/* softmax(q k^T / sqrt(head_dim)) v for every segment and head. The keys are those of the cached tokens, then those of
 * the segment itself. Source: the online softmax of FlashAttention (Dao et al. 2022); no full score matrix is stored.
 */
typedef struct ps3c_attention_args {
    int64_t heads, head_dim;      /* head_dim: any multiple of 8 */
    const ps3c_activation *query; /* channels from query_channel on: [heads][head_dim] */
    int64_t query_channel;
    const ps3c_activation *own; /* the segment's own keys, then values, from own_channel on (written by gemm with
                                     values_from); the segments and tokens of query */
    int64_t own_channel;
    const ps3c_activation *cached; /* or NULL. Segment s of query reads segment s % cached->segments */
    int64_t cached_channel;
    bool causal;                    /* query i sees own keys 0..i, and all cached keys */
    const uint8_t *last_query_mask; /* [segments][tokens], 1: own key that the segment's LAST query sees; or NULL */
    const ps3c_activation *out;     /* heads * head_dim channels; may not alias its inputs */
} ps3c_attention_args;

/* Patches of the resampled image, as 3 * patch * patch channels in (channel, y, x) order. Only the given positions are
 * computed. Resampling is torch's interpolate(mode="bicubic"): a = -0.75, half-pixel centres, clamped borders, no
 * antialiasing, in float32, rounded to the run's dtype. */
typedef struct ps3c_patch_gather_args {
    const ps3c_tensor *pixels; /* (B, 3, H, W), any strides, run's dtype */
    int64_t patch;
    const ps3c_scale *scales;
    int64_t num_scales;
    const int32_t *positions; /* [segments][tokens], or NULL */
    const ps3c_activation *out;
} ps3c_patch_gather_args;

/* x += table row (+ residual row) of each token's patch; the sum is rounded once.
 *
 * The table is resampled to side max(rows, cols) and then cropped to rows x cols. With crop it is only cropped. It is
 * not resampled if rows == cols == grid. Resampling is torch's interpolate(mode="bicubic", antialias=True): a = -0.5,
 * a wider support when shrinking, horizontal pass first, in float32. */
typedef struct ps3c_position_add_args {
    const void *table; /* (grid * grid, channels), contiguous */
    int64_t grid;
    bool crop;
    const ps3c_scale *scales;
    int64_t num_scales;
    const void *const *residual;  /* [num_scales] tables (residual_grid[i]^2, channels) or NULL each; or NULL */
    const int64_t *residual_grid; /* [num_scales] sides; the tables are cropped to rows x cols */
    const int32_t *positions;     /* [segments][tokens], or NULL */
    const ps3c_activation *x;     /* in and out */
} ps3c_position_add_args;

/* 7x7 depthwise convolution with padding 3. The tokens of a segment are a rows x cols map. y is not x. */
typedef struct ps3c_depthwise_args {
    const void *weight; /* (channels, 1, 7, 7), contiguous */
    const void *bias;   /* [channels] */
    int64_t rows, cols;
    const ps3c_activation *x, *y;
} ps3c_depthwise_args;

/* Cosine similarity of each token's features f with its image's prompt p: f / max(|f|, 1e-12) . p / max(|p|, 1e-12). */
typedef struct ps3c_cosine_args {
    const ps3c_activation *features; /* segment b: image b */
    const void *prompt;              /* [segments][channels], rows prompt_stride elements apart (0: one row for all) */
    int64_t prompt_stride;
    float *logits; /* [segments][tokens] */
} ps3c_cosine_args;

/* torch's adaptive_max_pool2d: the maximum of a window that contains NaN is NaN. */
typedef struct ps3c_max_pool_args {
    const float *in; /* [batch][in_rows][in_cols] */
    float *out;      /* [batch][rows][cols] */
    int64_t batch, in_rows, in_cols, rows, cols;
} ps3c_max_pool_args;

/* probs = the first value of softmax({clamp(5 x, -10, 10), 0}), where x is logits, or (logits + highres) / 2. Rounded
 * to the run's dtype. */
typedef struct ps3c_probability_args {
    const float *logits;  /* [count] */
    const float *highres; /* [count] or NULL */
    float *probs;         /* [count] */
    int64_t count;
} ps3c_probability_args;

/* Low-res probabilities on the grid of one scale, in three steps. 1. Nearest-neighbour resizing. 2. gt: the ground
 * truth is area-resized (adaptive average) to the first high-res grid in float32, rounded to its own dtype if that is
 * float16 or bfloat16, and resized to this grid by nearest neighbour; where it is > 0, the probability becomes 1.
 * 3. smooth: area-resized to 6 x 6, rounded to the run's dtype, and resized back by nearest neighbour. */
typedef struct ps3c_expand_args {
    const float *probs; /* [batch][in_rows][in_cols], values of the run's dtype */
    int64_t batch, in_rows, in_cols;
    const ps3c_tensor *gt;    /* (B, any, any), any dtype and strides, or NULL */
    int64_t gt_rows, gt_cols; /* first high-res grid */
    bool smooth;
    const ps3c_tensor *out; /* (B, rows, cols), contiguous, run's dtype */
} ps3c_expand_args;

/* rank[b][i] = the place of probability i of image b in a stable descending sort; 0 is the greatest. Equal values, and
 * the NaN values at the end, are in the order of their indices. */
typedef struct ps3c_rank_args {
    const ps3c_tensor *probs; /* (B, rows, cols), contiguous, run's dtype */
    int32_t *rank;            /* [B][rows * cols] */
} ps3c_rank_args;

/* Assigns patches to looks by their ranks. At scale s, look l of image b takes the patches whose rank is at least
 * ends[b][s][l - 1] (0 for l = 0) and less than ends[b][s][l].
 * Outputs: for every look, the positions of its tokens in (scale, row, col) order; for each token, its row among all
 * selected patches of the image in that order; and the 0/1 maps of selected patches. */
typedef struct ps3c_assign_looks_args {
    int64_t batch, looks, num_scales;
    const ps3c_scale *scales;   /* [num_scales], high-res only; the first of them has first == 0 */
    const int32_t *const *rank; /* [num_scales]: [batch][rows * cols] */
    const int32_t *ends;        /* host memory, [batch][num_scales][looks]: cumulative count of patches */
    const int64_t *look_first;  /* host memory, [looks]: index in positions and row_of of look l's first entry;
                                     the entries of image b start at look_first[l] + b * look_tokens[l] */
    const int64_t *look_tokens; /* host memory, [looks]: tokens of look l, the same for every image */
    int32_t *positions;         /* [sum over looks of batch * tokens] */
    int32_t *row_of;            /* [sum over looks of batch * tokens] */
    const ps3c_tensor *maps;    /* [num_scales]: (B, rows, cols) contiguous, run's dtype */
} ps3c_assign_looks_args;

/* Copies an activation to plain rows: token t of segment s goes to out[s % batch][first_row + row_of[s][t]][:]. */
typedef struct ps3c_to_rows_args {
    const ps3c_activation *x;
    const int32_t *row_of; /* [segments][tokens], or NULL: row_of[s][t] = t */
    int64_t batch;         /* first dimension of out */
    int64_t first_row;
    void *out;                        /* (batch, rows, channels), run's dtype, channels contiguous */
    int64_t row_stride, batch_stride; /* elements */
} ps3c_to_rows_args;

/* Copies plain rows to an activation. */
typedef struct ps3c_from_rows_args {
    const void *rows; /* (segments * tokens, channels), contiguous */
    const ps3c_activation *out;
} ps3c_from_rows_args;

/* Copies x to channels [at, at + x->channels) of y; at is even. */
typedef struct ps3c_copy_channels_args {
    const ps3c_activation *x, *y;
    int64_t at;
} ps3c_copy_channels_args;

/* out = row ids[b][t] of the table + row t of positions. A class token is token `length` of each segment.
 * An id outside the vocabulary: ERROR_VALUE on the CPU, which names the id; a row of NaN on CUDA. */
typedef struct ps3c_token_embedding_args {
    const ps3c_tensor *ids; /* (batch, length) int64, any strides; segment s is text first + s */
    int64_t first;
    int64_t vocab_size;
    const void *table;          /* (vocab_size, channels), contiguous */
    const void *positions;      /* (at least tokens, channels) */
    const void *class_token;    /* [channels] or NULL */
    const ps3c_activation *out; /* tokens: length, or length + 1 with a class token */
} ps3c_token_embedding_args;

/* Copies one token of each segment to out. ARGMAX: the token of the greatest id, the first one among equals. */
typedef struct ps3c_pool_tokens_args {
    const ps3c_activation *x;
    ps3c_text_pool pool;    /* FIRST, LAST, ARGMAX */
    const ps3c_tensor *ids; /* ARGMAX: (batch, length) int64, any strides; segment s is text first + s */
    int64_t first;
    const ps3c_activation *out; /* 1 segment of x->segments tokens */
} ps3c_pool_tokens_args;

/* y = x / max(|x|, 1e-12), where |x| is the Euclidean norm of a token. y may be x. */
typedef struct ps3c_l2_normalize_args {
    const ps3c_activation *x, *y;
} ps3c_l2_normalize_args;

/* The keys that the class token (the last query) sees: key 0, and key i if ids[i - 1] is not pad_id. ps3-torch's mask
 * has this shift by one. */
typedef struct ps3c_class_mask_args {
    const ps3c_tensor *ids; /* (batch, length) int64, any strides; segment s is text first + s */
    int64_t first, segments;
    int64_t pad_id;
    uint8_t *mask; /* [segments][length + 1], 1: seen */
} ps3c_class_mask_args;

/* The tokens of the only look that lie inside the ground truth. The ground truth is area-resized to the token's own
 * scale and rounded as in expand; a token is inside if its value is not 0. If an image has no token inside,
 * all its tokens are marked. */
typedef struct ps3c_gt_mask_args {
    const ps3c_tensor *gt; /* (B, any, any), any dtype and strides */
    const ps3c_scale *scales;
    int64_t num_scales;
    const int32_t *positions; /* [batch][tokens] */
    int64_t batch, tokens;
    uint8_t *mask; /* [batch][tokens], 1: inside */
} ps3c_gt_mask_args;

/* Attention of one query per head over the tokens of each segment: softmax(q k^T / sqrt(head_dim)) v. */
typedef struct ps3c_attention_pool_args {
    int64_t heads, head_dim;            /* head_dim: a multiple of 8 */
    const ps3c_activation *query;       /* 1 segment, 1 token, heads * head_dim channels */
    const ps3c_activation *keys_values; /* keys, then values, 2 * heads * head_dim channels; gemm without values_from */
    const uint8_t *mask;                /* [segments][tokens], 1: the token is used; or NULL */
    const ps3c_activation *out;         /* 1 segment of keys_values->segments tokens */
} ps3c_attention_pool_args;

/* y = flag * low + (flag == 0) * y for each token. */
typedef struct ps3c_blend_args {
    const ps3c_tensor *flag; /* (B, 1) float32, any strides; token t is image first + t */
    int64_t first;
    const ps3c_activation *low, *y; /* 1 segment */
} ps3c_blend_args;

/* ---- resizing of decoded images, only on the CPU ----------------------------------------------------------------- */

/* The filter that resizes one side of an image. Output i is the sum of the counts[i] inputs from firsts[i] on, times
 * weights[i * most], weights[i * most + 1], ... in units of 2^-PS3C_WEIGHT_BITS. The weights of an output sum to about
 * 1; the sum of their absolute values is less than 2. */
typedef struct ps3c_taps {
    int64_t outputs, most;          /* most: the greatest count */
    const int64_t *firsts, *counts; /* [outputs] */
    const int32_t *weights;         /* [outputs][most] */
} ps3c_taps;

enum { PS3C_WEIGHT_BITS = 22 };

/* Resizes rows of pixels to another width. Values are rounded to nearest and clamped to a byte. */
typedef struct ps3c_resize_columns_args {
    const uint8_t *pixels;
    int64_t rows, row_bytes, channels; /* channels: bytes per pixel, 3 or 4; no byte after a row's last pixel is read */
    const ps3c_taps *taps;
    uint8_t *out; /* (rows, taps->outputs, 4), the fourth byte undefined */
} ps3c_resize_columns_args;

/* Resizes those rows to another height, rounds to bytes v, and writes (v / 255 - mean) / std as one plane per channel.
 */
typedef struct ps3c_resize_rows_args {
    const uint8_t *pixels; /* (any, width, 4) */
    int64_t width;
    const ps3c_taps *taps;
    const float *mean, *std; /* [3] */
    float *out;              /* (3, taps->outputs, width) */
} ps3c_resize_rows_args;

/* ---- the backend ------------------------------------------------------------------------------------------------- */

/* The only list of operations. The struct below and the tables of all backends are generated from it. Operation X
 * takes a ps3c_X_args. A backend without one of them does not link. */
/* clang-format off */
#define PS3C_OPERATIONS(OP) \
    OP(gemm) OP(layernorm) OP(attention) OP(patch_gather) OP(position_add) OP(depthwise) OP(cosine) OP(max_pool) \
    OP(probability) OP(expand) OP(rank) OP(assign_looks) OP(to_rows) OP(from_rows) OP(copy_channels) \
    OP(token_embedding) OP(pool_tokens) OP(l2_normalize) OP(class_mask) OP(gt_mask) OP(attention_pool) OP(blend)
/* Resizing of decoded images: only the CPU backend has these. */
#define PS3C_HOST_OPERATIONS(OP) OP(resize_columns) OP(resize_rows)
/* clang-format on */

typedef struct ps3c_backend {
    const char *name;
    /* Optional. Called before and after the operations of a run, on the calling thread: begin() selects the run's
     * device, or leases the threads; end() restores the caller's device, or gives the threads back. end() follows
     * every begin() that returned OK. */
    ps3c_status (*begin)(ps3c_run *run);
    void (*end)(ps3c_run *run);
    /* Optional (0, NULL): the defaults of a plan for the number of tokens that run together and the bytes of
     * workspace. */
    int64_t tokens_together;
    size_t (*default_workspace)(int32_t device_index);
    /* Size of an activation in bytes, a multiple of 64 (CUDA: 256). SIZE_MAX on overflow. */
    size_t (*activation_bytes)(ps3c_dtype dtype, int64_t segments, int64_t tokens, int64_t channels);
    /* The most scratch, in bytes, that an operation of a run needs. tokens: the greatest segments * tokens of an
     * activation; channels: the greatest number of channels; positions: the greatest number of patches of one rank
     * call, over all its images. */
    size_t (*scratch_bytes)(ps3c_dtype dtype, int threads, int64_t tokens, int64_t channels, int64_t positions);

#define PS3C_OPERATION_FIELD(name) ps3c_status (*name)(const ps3c_run *run, const ps3c_##name##_args *args);
    PS3C_OPERATIONS(PS3C_OPERATION_FIELD)
    PS3C_HOST_OPERATIONS(PS3C_OPERATION_FIELD) /* NULL except in the CPU backend */
#undef PS3C_OPERATION_FIELD
} ps3c_backend;

/* ---- the interface to the CUDA library, which is loaded at run time ---------------------------------------------- */

enum { PS3C_CUDA_ABI = 5 }; /* increased by every change of what engine and library share */

/* What the engine passes to the library. */
typedef struct ps3c_cuda_host {
    int abi;             /* PS3C_CUDA_ABI */
    size_t backend_size; /* sizeof(ps3c_backend), to detect a library of another build */
    ps3c_status (*fail)(ps3c_context *context, ps3c_status status, const char *sentence);
} ps3c_cuda_host;

/* What the library returns to the engine. */
typedef struct ps3c_cuda_library {
    const ps3c_backend *backend;
    bool host_memory; /* the CPU emulator (tests/cuda_on_cpu): device memory is host memory */
    /* ERROR_RUNTIME if there is no driver or no such device; the message says which. */
    ps3c_status (*check_device)(ps3c_context *context, int32_t device_index);
    /* Number of products of this process that cuBLASLt refused and a plain, slow kernel computed; 0 for real models. */
    int64_t (*refused_products)(void);
} ps3c_cuda_library;

/* The library's only exported symbol, "ps3c_cuda_open". It returns NULL if the engine is of another build. The result
 * is static memory. */
typedef const ps3c_cuda_library *ps3c_cuda_open_function(const ps3c_cuda_host *host);

/* ---- finding a backend ------------------------------------------------------------------------------------------- */

/* Finds the backend of a device type. ps3c_register_backend (ps3c.h) registers it. */
struct ps3c_backend_source {
    /* Sets *backend (static memory) for a device of this type. level: one of levels(), NULL: the best; always NULL if
     * `levels` is NULL. ERROR_RUNTIME with a message that says what is missing. */
    ps3c_status (*find)(ps3c_context *context, int32_t device_index, const char *level, const ps3c_backend **backend);
    /* Optional. Names of the levels that this machine can run, best first, NULL-terminated; static memory. */
    const char *const *(*levels)(void);
};

#endif
