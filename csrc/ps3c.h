/* ps3c: the PS3 vision encoder and its text tower, in C.
 *
 * PS3 (Shi et al., "Scaling Vision Pre-Training to 4K Resolution", arXiv:2503.19903) looks at a whole
 * image at low resolution, ranks the patches of up to several higher resolutions by saliency or by a
 * text prompt, and encodes only the best of them, a "look" at a time.
 *
 * A whole program (examples/encode.c is this, with its files and its checks):
 *
 *     ps3c_register_backend(PS3C_CPU, &ps3c_cpu_source);          // once a program
 *     ps3c_context *context = ps3c_context_create();
 *     ps3c_vision_config config = {...};                          // sizes of the model
 *     ps3c_vision_request request = {.batch = 1, .height = 1512, .width = 1512, .dtype = PS3C_FLOAT32,
 *                                    .num_look_close = 2, .num_token_look_close = PS3C_NONE,
 *                                    .hidden_states = 1};
 *     ps3c_vision_plan *plan;
 *     if (ps3c_vision_plan_create(context, &config, &request, &plan) != PS3C_OK)
 *         fprintf(stderr, "%s\n", ps3c_context_message(context));
 *
 *     ps3c_vision_io io = {.pixel_values = image,                 // (1, 3, 1512, 1512)
 *                          .weights = weights,                    // ps3c_vision_weight_info names them
 *                          .hidden_states = &features,            // (1, tokens, width), written once
 *                          .selection_maps = maps, .selection_probs = probs,
 *                          .workspace = malloc(size), .workspace_bytes = size};   // plan: workspace_bytes
 *     if (ps3c_vision_run(context, plan, &io) != PS3C_OK) ...
 *
 *     ps3c_vision_plan_free(plan);
 *     ps3c_context_free(context);
 *
 * Letters in shapes: B images, C width, N tokens, H and W pixels, h and w patches, S high-resolution scales.
 *
 * Memory: the caller owns every tensor and the workspace; the library keeps no pointer to them after a call
 * returns. Objects made by a _create function are released by the matching _free, which accepts NULL.
 *
 * Errors: functions return a status; the sentence that explains it is in the context until its next call.
 * A failed call leaves its outputs undefined and everything else as it was.
 *
 * Threads: a context serves one thread at a time. Plans are read-only once made: any number of threads may
 * run one plan at once, each with its own context, outputs and workspace.
 */
#ifndef PS3C_H
#define PS3C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PS3C_MAX_DIMS 8
#define PS3C_MAX_SCALES 16 /* low resolution included */
#define PS3C_MAX_SELECT_LAYERS 64
#define PS3C_MAX_BLOCKS 64 /* of the convolution and of the adapter */
#define PS3C_NAME_BYTES 96 /* a weight's name, terminating zero included */

typedef enum ps3c_status {
    PS3C_OK = 0,
    PS3C_ERROR_VALUE, /* an argument has a value that cannot be used */
    PS3C_ERROR_TYPE,  /* an argument has a dtype, layout or device that cannot be used */
    PS3C_ERROR_RUNTIME,
    PS3C_ERROR_MEMORY,
    PS3C_ERROR_NOT_IMPLEMENTED,
    PS3C_ERROR_INTERRUPTED, /* the context's interrupt function asked to stop */
} ps3c_status;

typedef enum ps3c_dtype {
    PS3C_FLOAT32 = 0,
    PS3C_FLOAT16,
    PS3C_BFLOAT16,
    PS3C_FLOAT64, /* from here on: only where an argument says so */
    PS3C_BOOL,
    PS3C_UINT8,
    PS3C_INT8,
    PS3C_INT16,
    PS3C_INT32,
    PS3C_INT64,
} ps3c_dtype;

/* Bytes of one element. */
size_t ps3c_dtype_bytes(ps3c_dtype dtype);
/* "float32", ...; "unknown" for a value outside the enumeration. */
const char *ps3c_dtype_name(ps3c_dtype dtype);

typedef enum ps3c_device_type { PS3C_CPU = 0, PS3C_CUDA } ps3c_device_type;

typedef struct ps3c_device {
    ps3c_device_type type;
    int32_t index; /* 0 on the CPU */
} ps3c_device;

/* A view of the caller's memory. Strides are in elements. */
typedef struct ps3c_tensor {
    void *data;
    ps3c_dtype dtype;
    ps3c_device device;
    int32_t ndim;
    int64_t shape[PS3C_MAX_DIMS];
    int64_t strides[PS3C_MAX_DIMS];
} ps3c_tensor;

/* ---- backends: what computes ---------------------------------------------------------------------------- */

/* Where the backend of a device type comes from (contract/backend.h). */
typedef struct ps3c_backend_source ps3c_backend_source;

/* The CPU kernels, and the CUDA library, which is opened when the first CUDA tensor comes. Static memory. */
extern const ps3c_backend_source ps3c_cpu_source, ps3c_cuda_source;

/* Makes a backend known to the engine, in the place of an earlier one of that type. The engine itself knows none: a
 * program registers those that it links before its first context. Not to be called while another thread is in the
 * engine. source must stay valid. */
void ps3c_register_backend(ps3c_device_type type, const ps3c_backend_source *source);

/* ---- context: error message, threads, instruction set, interruption ------------------------------------ */

typedef struct ps3c_context ps3c_context;

/* NULL when there is no memory. Threads: what OpenMP would use. Level: the best this processor has, or what the
 * environment variable PS3C_CPU_LEVEL names. */
ps3c_context *ps3c_context_create(void);
void ps3c_context_free(ps3c_context *context);
/* The last error's sentence, "" when there was none. Valid until the context's next call. */
const char *ps3c_context_message(const ps3c_context *context);
/* CPU threads of the next calls; 0: what OpenMP would use. */
ps3c_status ps3c_context_set_threads(ps3c_context *context, int threads);
/* CPU instruction set, one of ps3c_cpu_levels(): from the best that the processor has down to "portable" (the fast
 * loops compiled for any processor of the architecture) and "naive" (plain C, the reference of tests); NULL: the best.
 * ERROR_VALUE when it is unknown or not available. */
ps3c_status ps3c_context_set_cpu_level(ps3c_context *context, const char *level);
const char *ps3c_context_cpu_level(const ps3c_context *context);
/* Levels that this processor can run, best first, NULL-terminated; none before the CPU's backend is registered. Static
 * memory. */
const char *const *ps3c_cpu_levels(void);
/* Asked between layers, on the thread that called run; non-zero stops the run with ERROR_INTERRUPTED. */
void ps3c_context_set_interrupt(ps3c_context *context, int (*interrupt)(void *data), void *data);

/* ---- vision -------------------------------------------------------------------------------------------- */

typedef enum ps3c_adapter { PS3C_ADAPTER_NONE = 0, PS3C_ADAPTER_V1, PS3C_ADAPTER_V2 } ps3c_adapter;

typedef struct ps3c_vision_config {
    /* trunk */
    int64_t width; /* C */
    int64_t depth; /* blocks */
    int64_t heads; /* head dim: width / heads, a multiple of 8 */
    int64_t mlp_hidden;
    int64_t patch; /* pixels */
    int64_t grid;  /* side of the position table */
    float norm_eps;
    bool tanh_gelu;      /* blocks (and attention pool, unless there is an adapter): tanh form, else erf */
    bool crop_positions; /* C-RADIO: the table is cropped, not resampled */
    bool final_norm;     /* a LayerNorm after the blocks */
    /* scales, ascending; scales[0] is the low resolution */
    int64_t num_scales;
    int64_t scales[PS3C_MAX_SCALES];
    int64_t max_select_num[PS3C_MAX_SCALES]; /* patches a look takes of scale i + 1 */
    bool separate_positions;                 /* pos_emb_residual */
    /* selection */
    int64_t num_select_layers;
    int64_t select_layers[PS3C_MAX_SELECT_LAYERS];
    bool highres_features; /* the convolution network over the 1512 x 1512 image */
    int64_t conv_width, conv_out, conv_depth, conv_kernel;
    /* after the blocks */
    ps3c_adapter adapter;
    int64_t adapter_hidden, adapter_out, adapter_blocks;
    int64_t pool_width, pool_heads, pool_hidden; /* attention pool */
    float pool_eps;
} ps3c_vision_config;

/* Checks sizes against each other; ERROR_VALUE names the field. */
ps3c_status ps3c_vision_config_check(ps3c_context *context, const ps3c_vision_config *config);

/* The weights, numbered as ps3c_vision_io.weights wants them. Names are those of PS3VisionEncoder's state_dict. */
typedef struct ps3c_weight_info {
    char name[PS3C_NAME_BYTES];
    int32_t ndim;
    int64_t shape[4];
} ps3c_weight_info;

int64_t ps3c_vision_weight_count(const ps3c_vision_config *config);
/* ERROR_VALUE when index is outside [0, count). */
ps3c_status ps3c_vision_weight_info(ps3c_context *context, const ps3c_vision_config *config, int64_t index,
                                    ps3c_weight_info *info);

/* Values of num_look_close and num_token_look_close beside the numbers from 0 on. */
#define PS3C_NONE (-1)
#define PS3C_ALL (-2)

typedef enum ps3c_vision_mode {
    PS3C_VISION_FEATURES = 0, /* hidden states of low-res and selected patches */
    PS3C_VISION_PRETRAIN,     /* one look, pooled */
    PS3C_VISION_LOW_RES,      /* low-res pooled vector and hidden states, nothing else */
} ps3c_vision_mode;

typedef struct ps3c_vision_request {
    int64_t batch, height, width; /* of pixel_values */
    ps3c_dtype dtype;             /* of pixel_values, prompt and weights: float32, float16 or bfloat16 */
    ps3c_device device;
    ps3c_vision_mode mode;
    int64_t num_look_close;        /* looks; PS3C_NONE, PS3C_ALL */
    int64_t num_token_look_close;  /* patches; PS3C_NONE, PS3C_ALL */
    const int64_t *first_n_scales; /* [batch]: take (nearly) only the first n high-res scales; NULL: all. Copied. */
    bool prompt;                   /* a prompt will come */
    bool gt_maps;                  /* gt_selection_maps will come */
    bool smooth;                   /* smooth_selection_prob */
    bool pool_gt_only;             /* PRETRAIN: pool only tokens inside the ground truth */
    bool global_text;              /* PRETRAIN: is_global_text will come */
    bool pooled;                   /* FEATURES: return the low-res pooled vector too, as LOW_RES does */
    int64_t hidden_states;         /* last layers to return, 1..depth; FEATURES without looks returns all,
                                     LOW_RES returns this many, 0 included */
    int64_t looks_per_step;        /* at most this many looks run together; 0: as many as memory allows */
    size_t workspace_limit;        /* bytes to stay under where grouping of looks and images allows; 0: what the
                                     environment variable PS3C_WORKSPACE_LIMIT says, else the backend's default */
} ps3c_vision_request;

typedef struct ps3c_vision_plan ps3c_vision_plan;

/* Everything that follows from sizes and arguments alone. ERROR_VALUE names what is wrong with them. */
ps3c_status ps3c_vision_plan_create(ps3c_context *context, const ps3c_vision_config *config,
                                    const ps3c_vision_request *request, ps3c_vision_plan **plan);
void ps3c_vision_plan_free(ps3c_vision_plan *plan);

typedef struct ps3c_vision_plan_info {
    size_t workspace_bytes; /* whatever the alignment: the run aligns */
    int64_t low_res_tokens;
    int64_t selected_tokens; /* an image, all looks */
    int64_t looks;
    int64_t steps;                          /* of a run, at least 1 */
    int64_t pooled_width;                   /* 0: no pooled output */
    int64_t num_high_scales;                /* S */
    int64_t image_size[PS3C_MAX_SCALES][2]; /* pixels (H, W) of each scale, scale 0 first */
    int64_t grid[PS3C_MAX_SCALES][2];       /* patches (h, w) of each scale */
    /* How many tensors of each output a run writes: layers, and S or 0 maps. */
    int64_t hidden_states, selection_maps, selection_probs, bottomup_probs, topdown_probs;
} ps3c_vision_plan_info;

void ps3c_vision_plan_describe(const ps3c_vision_plan *plan, ps3c_vision_plan_info *info);
/* Patches that look `look` takes from high-res scale `scale` (0: the first above low-res) of image `image`. */
int64_t ps3c_vision_plan_take(const ps3c_vision_plan *plan, int64_t image, int64_t look, int64_t scale);

/* Tensors of one run. Inputs may have any strides unless it says contiguous; outputs are contiguous.
 * dtype: the request's, unless it says otherwise. All on the request's device. */
typedef struct ps3c_vision_io {
    const ps3c_tensor *pixel_values; /* (B, 3, H, W) */
    const ps3c_tensor *prompt;       /* (B, C), or NULL */
    const ps3c_tensor *gt_maps;      /* (B, any, any), any dtype of ps3c_dtype, or NULL */
    const ps3c_tensor *global_text;  /* (B, 1) float32, or NULL */
    const ps3c_tensor *weights;      /* [ps3c_vision_weight_count], contiguous */
    ps3c_tensor *hidden_states;      /* [hidden_states]: (B, low_res_tokens + selected_tokens, C) each */
    ps3c_tensor *selection_maps;     /* [S]: (B, h, w), 0 or 1; unused (may be NULL) without looks */
    ps3c_tensor *selection_probs;    /* [S]: (B, h, w); NULL in LOW_RES */
    ps3c_tensor *bottomup_probs;     /* [S]: (B, h, w), PRETRAIN */
    ps3c_tensor *topdown_probs;      /* [S]: (B, h, w), PRETRAIN with a prompt */
    ps3c_tensor *pooled;             /* (B, pooled_width), PRETRAIN, LOW_RES, and FEATURES with request.pooled */
    void *workspace;
    size_t workspace_bytes;
    void *stream; /* cudaStream_t on the request's device, which the work is enqueued on; NULL on the CPU */
    bool tf32;    /* CUDA: float32 products may round their factors to TF32 (10 bits); true float32 otherwise */
} ps3c_vision_io;

ps3c_status ps3c_vision_run(ps3c_context *context, const ps3c_vision_plan *plan, const ps3c_vision_io *io);

/* ---- a vision run in steps: to show progress, to use each look when it is there, to stop early ---------- */

/* Images run in chunks, as many together as memory allows. The first step of a chunk does its low resolution and its
 * selection, where all its looks get their patches; each further step encodes a group of its looks. Instead of
 * ps3c_vision_run:
 *
 *     for (int64_t step = 0; step < info.steps; step++)
 *         if (ps3c_vision_run_step(context, plan, &io, step) != PS3C_OK) ...
 */
typedef struct ps3c_vision_step {
    int64_t first_image, images; /* the chunk */
    int64_t first_look, looks;   /* looks 0: the first step of the chunk */
    int64_t tokens;              /* of each look of an image, the same for all of the group */
} ps3c_vision_step;

/* Step `index`, from 0 to steps - 1; all zeros outside. */
ps3c_vision_step ps3c_vision_plan_step(const ps3c_vision_plan *plan, int64_t index);

/* One step of a run. All of them in order are ps3c_vision_run, bit for bit.
 *
 * What a step wrote is final: the first of a chunk writes its images' low-res tokens, maps, probabilities and pooled
 * vector (in PRETRAIN its look writes that one), the others the rows that ps3c_vision_plan_rows names. The rest of the
 * outputs is not touched.
 *
 * From the first step of a chunk to the last, pass the same io and leave its workspace, weights and inputs as they are;
 * outputs and workspace may be read. Runs with another workspace may come in between.
 *
 * After the first step of a chunk, its looks may run in any order, again (after ERROR_INTERRUPTED, say) or not at all.
 * Chunks share nothing but the workspace. Undefined: a step of looks on a workspace where the first step of its chunk
 * did not run, failed, or was followed by another chunk's. The step reads its output rows from that workspace;
 * checking it would need a device synchronisation.
 *
 * ERROR_VALUE when step is outside [0, steps). */
ps3c_status ps3c_vision_run_step(ps3c_context *context, const ps3c_vision_plan *plan, const ps3c_vision_io *io,
                                 int64_t step);

/* Which rows of hidden_states the looks of a step fill: [looks][images][tokens]; r stands for row low_res_tokens + r,
 * ascending within a look of an image. Points into the workspace, which is the device's memory; there from the
 * chunk's first step until another chunk's. NULL when the step has no looks. */
const int32_t *ps3c_vision_plan_rows(const ps3c_vision_plan *plan, int64_t step, const void *workspace);

/* ---- text ---------------------------------------------------------------------------------------------- */

typedef enum ps3c_text_pool { PS3C_POOL_FIRST = 0, PS3C_POOL_LAST, PS3C_POOL_ARGMAX, PS3C_POOL_NONE } ps3c_text_pool;

typedef struct ps3c_text_config {
    int64_t width, depth, heads, mlp_hidden;
    int64_t context_length; /* positions, without the class token */
    int64_t vocab_size;
    int64_t output_dim, prompt_dim;
    float norm_eps;
    bool causal;
    bool class_token; /* appended; it overrides pool */
    int64_t pad_id;
    bool layer_scale;
    bool tanh_gelu;         /* tanh approximation, else erf */
    bool projection_linear; /* Linear(width, output_dim), else a bare (width, output_dim) matrix */
    bool projection_bias;
    ps3c_text_pool pool;
} ps3c_text_config;

ps3c_status ps3c_text_config_check(ps3c_context *context, const ps3c_text_config *config);
int64_t ps3c_text_weight_count(const ps3c_text_config *config);
ps3c_status ps3c_text_weight_info(ps3c_context *context, const ps3c_text_config *config, int64_t index,
                                  ps3c_weight_info *info);

typedef struct ps3c_text_plan ps3c_text_plan;

typedef struct ps3c_text_request {
    int64_t batch, length; /* of ids; 1 <= length <= context_length */
    ps3c_dtype dtype;      /* of weights and outputs: float32, float16 or bfloat16 */
    ps3c_device device;
    size_t workspace_limit; /* as in ps3c_vision_request */
} ps3c_text_request;

ps3c_status ps3c_text_plan_create(ps3c_context *context, const ps3c_text_config *config,
                                  const ps3c_text_request *request, ps3c_text_plan **plan);
void ps3c_text_plan_free(ps3c_text_plan *plan);

typedef struct ps3c_text_plan_info {
    size_t workspace_bytes; /* whatever the alignment: the run aligns */
    bool every_token;       /* outputs are (B, length, dim), one vector a token; else (B, dim) */
    int64_t pooled_tokens;  /* vectors of a text: length with every_token, else 1 */
} ps3c_text_plan_info;

void ps3c_text_plan_describe(const ps3c_text_plan *plan, ps3c_text_plan_info *info);
/* Two fields of it. */
size_t ps3c_text_plan_workspace_bytes(const ps3c_text_plan *plan);
int64_t ps3c_text_plan_pooled_tokens(const ps3c_text_plan *plan);

typedef struct ps3c_text_io {
    const ps3c_tensor *ids;     /* (B, length) int64; ERROR_VALUE on the CPU for an id outside the vocabulary */
    const ps3c_tensor *weights; /* [ps3c_text_weight_count], contiguous */
    ps3c_tensor *pooled;        /* (B, output_dim), or (B, length, output_dim) with info.every_token */
    ps3c_tensor *prompt;        /* (B, prompt_dim), or (B, length, prompt_dim) */
    void *workspace;
    size_t workspace_bytes;
    void *stream; /* as in ps3c_vision_io */
    bool tf32;
} ps3c_text_io;

ps3c_status ps3c_text_run(ps3c_context *context, const ps3c_text_plan *plan, const ps3c_text_io *io);

/* ---- image ---------------------------------------------------------------------------------------------- */

/* out[c][y][x] = (pixels[y][x][c] / 255 - mean[c]) / std[c], float32, each step rounded as torchvision does.
 * pixels: H rows of `row_bytes` bytes, `channels` (3 or 4; the fourth is skipped) bytes a pixel. out: (3, H, W) contiguous. */
ps3c_status ps3c_image_normalize(ps3c_context *context, const uint8_t *pixels, int64_t height, int64_t width,
                                 int64_t row_bytes, int64_t channels, const float mean[3], const float std[3],
                                 float *out);

/* Resizing, antialiased where an image shrinks, in two calls: the width of any rows of it, then the height of the whole,
 * with normalisation. Between them a pixel has 4 bytes. The bytes are those of Pillow's resize of an RGB image: each pass
 * in fixed point, rounded and clipped to a byte. MEMORY error: none for the weights. */
typedef enum ps3c_image_filter { PS3C_BILINEAR, PS3C_BICUBIC } ps3c_image_filter; /* bicubic: a = -0.5 */

/* pixels: `height` rows of `width` pixels, `row_bytes` apart, of `channels` (3 or 4) bytes, the fourth being skipped.
 * out: (height, out_width, 4), contiguous; the fourth byte means nothing. */
ps3c_status ps3c_image_resize_columns(ps3c_context *context, const uint8_t *pixels, int64_t height, int64_t width,
                                      int64_t row_bytes, int64_t channels, ps3c_image_filter filter, int64_t out_width,
                                      uint8_t *out);
/* pixels: (height, width, 4) contiguous, as the first call writes them. out: (3, out_height, width), float32,
 * (v / 255 - mean) / std of each byte v, rounded as by ps3c_image_normalize. */
ps3c_status ps3c_image_resize_rows(ps3c_context *context, const uint8_t *pixels, int64_t height, int64_t width,
                                   ps3c_image_filter filter, int64_t out_height, const float mean[3],
                                   const float std[3], float *out);

#ifdef __cplusplus
}
#endif
#endif
