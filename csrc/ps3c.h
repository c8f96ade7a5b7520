/* ps3c: the PS3 vision encoder and its text tower, in C.
 *
 * PS3 (Shi et al., "Scaling Vision Pre-Training to 4K Resolution", arXiv:2503.19903) encodes an image in two stages.
 * First it encodes the whole image at low resolution. Then it ranks the patches of the high-resolution scales, by
 * saliency or by similarity to a text prompt, and encodes only the best patches. A "look" is one group of such patches.
 *
 * ps3c_model.h opens checkpoint folders and encodes images in one call each. This header is for programs that hold the
 * weights and pixels themselves.
 *
 * Example. read_config, read_weights, read_pixels and fail stand for the program's own code.
 *
 *     ps3c_register_backend(PS3C_CPU, &ps3c_cpu_source);                   // once in a program
 *     ps3c_context *context = ps3c_context_create();
 *     ps3c_vision_config config = read_config();                           // the sizes of the model
 *     ps3c_vision_request request = {.batch = 1, .height = 1512, .width = 1512, .dtype = PS3C_FLOAT32,
 *                                    .num_look_close = 2, .num_token_look_close = PS3C_NONE, .hidden_states = 1};
 *     ps3c_vision_plan *plan;
 *     if (ps3c_vision_plan_create(context, &config, &request, &plan) != PS3C_OK)
 *         fail(ps3c_context_message(context));
 *
 *     ps3c_vision_plan_info info;                                          // the sizes of outputs and workspace
 *     ps3c_vision_plan_describe(plan, &info);
 *     int64_t n = info.low_res_tokens + info.selected_tokens, c = config.width;
 *     ps3c_tensor pixels = {.data = read_pixels(), .ndim = 4, .shape = {1, 3, 1512, 1512},
 *                           .strides = {3 * 1512 * 1512, 1512 * 1512, 1512, 1}};
 *     ps3c_tensor features = {.data = malloc(n * c * sizeof(float)), .ndim = 3, .shape = {1, n, c},
 *                             .strides = {n * c, c, 1}};
 *     ps3c_tensor maps[PS3C_MAX_SCALES], probs[PS3C_MAX_SCALES];
 *     for (int64_t s = 0; s < info.num_high_scales; s++) {
 *         int64_t h = info.grid[s + 1][0], w = info.grid[s + 1][1];
 *         maps[s] = (ps3c_tensor){.data = malloc(h * w * sizeof(float)), .ndim = 3, .shape = {1, h, w},
 *                                 .strides = {h * w, w, 1}};
 *         probs[s] = maps[s];
 *         probs[s].data = malloc(h * w * sizeof(float));
 *     }
 *     ps3c_vision_io io = {.pixel_values = &pixels,
 *                          .weights = read_weights(&config),               // order: ps3c_vision_weight_info
 *                          .hidden_states = &features, .selection_maps = maps, .selection_probs = probs,
 *                          .workspace = malloc(info.workspace_bytes), .workspace_bytes = info.workspace_bytes};
 *     if (ps3c_vision_run(context, plan, &io) != PS3C_OK)                  // writes features, maps and probs
 *         fail(ps3c_context_message(context));
 *
 *     ps3c_vision_plan_free(plan);
 *     ps3c_context_free(context);
 *
 * Groups of this header: version; types; backends; context; vision; vision in steps; text; image.
 *
 * Letters in shapes: B images, C width, N tokens, H and W pixels, h and w patches, S high-resolution scales.
 *
 * Memory: the caller owns every tensor and the workspace. The library keeps no pointer to them after a call returns;
 * on CUDA they must stay valid until the stream has done the work. An object made by a _create function is released by
 * the matching _free function, which accepts NULL.
 *
 * Errors: functions return a status. The context holds the message of the error until its next call. A message reads
 * "NAME: got X, expected Y", where NAME is the field of this header. A failed call leaves its outputs undefined and
 * changes nothing else.
 *
 * Threads: a context serves one thread at a time. A plan is not changed after it was made: any number of threads may
 * run one plan at the same time, each with its own context, outputs and workspace.
 */
#ifndef PS3C_H
#define PS3C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef PS3C_EXPORT /* while libps3c.so is built: it exports what this header declares */
#pragma GCC visibility push(default)
#endif
#ifdef __cplusplus
extern "C" {
#endif

/* ---- version --------------------------------------------------------------------------------------------- */

#define PS3C_VERSION_MAJOR 0
#define PS3C_VERSION_MINOR 1
#define PS3C_VERSION_PATCH 0
/* The version of the library that the program runs with, such as "0.1.0". Static memory. */
const char *ps3c_version(void);

/* ---- types: limits, status, dtype, device, tensor -------------------------------------------------------- */

#define PS3C_MAX_DIMS 8
#define PS3C_MAX_SCALES 16 /* includes the low resolution */
#define PS3C_MAX_SELECT_LAYERS 64
#define PS3C_MAX_BLOCKS 64 /* blocks of the convolution network, and of the adapter */
#define PS3C_NAME_BYTES 96 /* size of a weight's name, including the terminating zero */

typedef enum ps3c_status {
    PS3C_OK = 0,
    PS3C_ERROR_VALUE,   /* an argument has an invalid value or shape */
    PS3C_ERROR_TYPE,    /* an argument has an invalid dtype, or is not contiguous */
    PS3C_ERROR_RUNTIME, /* no backend for the device, a tensor on another device, or a driver error */
    PS3C_ERROR_MEMORY,  /* an allocation failed, or a size exceeds the address space */
    PS3C_ERROR_NOT_IMPLEMENTED,
    PS3C_ERROR_INTERRUPTED, /* the context's interrupt function returned non-zero */
    PS3C_ERROR_CHECKPOINT,  /* a file of a checkpoint cannot be read, is damaged, or does not fit the others */
} ps3c_status;

typedef enum ps3c_dtype {
    PS3C_FLOAT32 = 0,
    PS3C_FLOAT16,
    PS3C_BFLOAT16,
    PS3C_FLOAT64, /* this and the following: only for arguments that say so */
    PS3C_BOOL,
    PS3C_UINT8,
    PS3C_INT8,
    PS3C_INT16,
    PS3C_INT32,
    PS3C_INT64,
} ps3c_dtype;

/* Size of one element in bytes. */
size_t ps3c_dtype_bytes(ps3c_dtype dtype);
/* The name, such as "float32"; "unknown" for a value outside the enumeration. Static memory. */
const char *ps3c_dtype_name(ps3c_dtype dtype);

typedef enum ps3c_device_type { PS3C_CPU = 0, PS3C_CUDA } ps3c_device_type;

typedef struct ps3c_device {
    ps3c_device_type type;
    int32_t index; /* 0 on the CPU */
} ps3c_device;

/* A view of the caller's memory. */
typedef struct ps3c_tensor {
    void *data; /* the first element, in the device's memory */
    ps3c_dtype dtype;
    ps3c_device device;
    int32_t ndim;
    int64_t shape[PS3C_MAX_DIMS];   /* [ndim] */
    int64_t strides[PS3C_MAX_DIMS]; /* [ndim], in elements */
} ps3c_tensor;

/* ---- backends: CPU and CUDA kernels ------------------------------------------------------------------------- */

/* Finds the backend of a device type (contract/backend.h). */
typedef struct ps3c_backend_source ps3c_backend_source;

/* The CPU kernels; the CUDA library, which is opened when a plan for a CUDA device is created. Static memory. */
extern const ps3c_backend_source ps3c_cpu_source, ps3c_cuda_source;

/* Registers a backend; it replaces an earlier one of the same type. No backend is registered at the start: a program
 * registers the backends that it links, before it creates its first context. Do not call it while another thread uses
 * the engine. source must stay valid. */
void ps3c_register_backend(ps3c_device_type type, const ps3c_backend_source *source);

/* ---- context: error message, threads, instruction set, interruption ------------------------------------ */

typedef struct ps3c_context ps3c_context;

/* A new context; NULL if the allocation fails. Threads: the default. CPU level: the one that the environment variable
 * PS3C_CPU_LEVEL names, else the best that this processor has. */
ps3c_context *ps3c_context_create(void);
void ps3c_context_free(ps3c_context *context);
/* The message of the last error, "" if there was none. Valid until the context's next call. */
const char *ps3c_context_message(const ps3c_context *context);
/* Sets the number of CPU threads of the next calls. 0 is the default: the environment variable PS3C_NUM_THREADS, else
 * the number of processors that this process may use (affinity and CPU quota). A number above both
 * is clamped. ERROR_VALUE if negative. */
ps3c_status ps3c_context_set_threads(ps3c_context *context, int threads);
/* Sets the CPU instruction set to one of ps3c_cpu_levels(); NULL: the best. "portable": the optimised kernels compiled
 * for any processor of the architecture. "naive": plain C, the reference of the tests. ERROR_VALUE if the level is
 * unknown or not available. */
ps3c_status ps3c_context_set_cpu_level(ps3c_context *context, const char *level);
/* The level that was set, else the best; "" if no CPU backend is registered. Static memory. */
const char *ps3c_context_cpu_level(const ps3c_context *context);
/* Levels that this processor can run, best first, NULL-terminated. Empty before the CPU backend is registered. Static
 * memory. */
const char *const *ps3c_cpu_levels(void);
/* Sets a function that a run calls between layers, on the thread that called run. If it returns non-zero, the run stops
 * with ERROR_INTERRUPTED. NULL: none. */
void ps3c_context_set_interrupt(ps3c_context *context, int (*interrupt)(void *data), void *data);

/* ---- vision: configuration, weights, plan, run ------------------------------------------------------------------- */

typedef enum ps3c_adapter { PS3C_ADAPTER_NONE = 0, PS3C_ADAPTER_V1, PS3C_ADAPTER_V2 } ps3c_adapter;

typedef struct ps3c_vision_config {
    /* trunk */
    int64_t width; /* C */
    int64_t depth; /* blocks */
    int64_t heads; /* head dim: width / heads, a multiple of 8 */
    int64_t mlp_hidden;
    int64_t patch; /* side of a patch, pixels */
    int64_t grid;  /* side of the position table, patches */
    float norm_eps;
    bool tanh_gelu;      /* GELU of the blocks, and of the pool without adapter: tanh form, else erf */
    bool crop_positions; /* C-RADIO: the position table is cropped, not resampled */
    bool final_norm;     /* a LayerNorm follows the blocks */
    /* scales */
    int64_t num_scales;
    int64_t scales[PS3C_MAX_SCALES];         /* [num_scales], longer side, pixels, ascending; [0]: low resolution */
    int64_t max_select_num[PS3C_MAX_SCALES]; /* [num_scales - 1], patches that one look takes from scale i + 1 */
    bool separate_positions; /* each high-res scale adds a position table of its own (pos_emb_residual) */
    /* selection */
    int64_t num_select_layers;
    int64_t select_layers[PS3C_MAX_SELECT_LAYERS]; /* blocks whose outputs are concatenated; < 0: from the end */
    bool highres_features;                         /* a convolution network over the image at 1512 x 1512 pixels */
    int64_t conv_width, conv_out, conv_depth, conv_kernel;
    /* after the blocks */
    ps3c_adapter adapter;
    int64_t adapter_hidden, adapter_out, adapter_blocks;
    int64_t pool_width, pool_heads, pool_hidden; /* attention pool */
    float pool_eps;
} ps3c_vision_config;

/* Checks the fields. ERROR_VALUE names the first invalid one. The functions of weights expect a configuration that
 * passed this check. */
ps3c_status ps3c_vision_config_check(ps3c_context *context, const ps3c_vision_config *config);

/* Describes one weight. */
typedef struct ps3c_weight_info {
    char name[PS3C_NAME_BYTES]; /* its name in the state_dict of ps3-torch's PS3VisionEncoder or TextTransformer */
    int32_t ndim;
    int64_t shape[4];
} ps3c_weight_info;

/* Number of weights of a configuration. */
int64_t ps3c_vision_weight_count(const ps3c_vision_config *config);
/* Describes the weight that ps3c_vision_io.weights[index] holds. ERROR_VALUE if index is outside [0, count). */
ps3c_status ps3c_vision_weight_info(ps3c_context *context, const ps3c_vision_config *config, int64_t index,
                                    ps3c_weight_info *info);

/* Special values of num_look_close and num_token_look_close: not given, and as many as there are. */
#define PS3C_NONE (-1)
#define PS3C_ALL (-2)

typedef enum ps3c_vision_mode {
    PS3C_VISION_FEATURES = 0, /* hidden states of the low-res tokens and of the selected patches */
    PS3C_VISION_PRETRAIN,     /* one look and its pooled vector */
    PS3C_VISION_LOW_RES,      /* only the pooled vector and the hidden states of the low-res tokens */
} ps3c_vision_mode;

typedef struct ps3c_vision_request {
    int64_t batch, height, width; /* of pixel_values */
    ps3c_dtype dtype;             /* of pixel_values, prompt and weights: float32, float16 or bfloat16 */
    ps3c_device device;
    ps3c_vision_mode mode;
    int64_t num_look_close;        /* looks, 0 or more, or PS3C_NONE, PS3C_ALL; larger values are clamped */
    int64_t num_token_look_close;  /* selected patches, 0 or more, or PS3C_NONE, PS3C_ALL; clamped likewise */
    const int64_t *first_n_scales; /* [batch], copied; NULL: all scales. The looks take their patches from the first n
                                      high-res scales, and one from each other scale (the last one also gives
                                      the rounding remainder) */
    bool prompt;                   /* io.prompt is given */
    bool gt_maps;                  /* io.gt_maps is given */
    bool smooth;                   /* smooth the selection probabilities (smooth_selection_prob) */
    bool pool_gt_only;             /* PRETRAIN: pool only the tokens inside the ground truth */
    bool global_text;              /* PRETRAIN: io.global_text is given */
    bool pooled;                   /* FEATURES: also return the low-res pooled vector, as LOW_RES does */
    int64_t hidden_states;         /* number of last layers to return, 1..depth (LOW_RES, PRETRAIN: 0..depth). FEATURES
                                      without looks returns all depth layers, PRETRAIN returns none */
    int64_t looks_per_step;        /* most looks that run together; 0: no limit but memory */
    size_t workspace_limit;        /* target in bytes: images and looks run in smaller groups to stay below it. 0: the
                                      environment variable PS3C_WORKSPACE_LIMIT, else the backend's default */
} ps3c_vision_request;

typedef struct ps3c_vision_plan ps3c_vision_plan;

/* Computes everything that follows from sizes and arguments alone; it reads no pixels. *plan: the new plan, NULL on an
 * error. ERROR_VALUE or ERROR_TYPE names the invalid field; ERROR_RUNTIME: no such device; ERROR_MEMORY. */
ps3c_status ps3c_vision_plan_create(ps3c_context *context, const ps3c_vision_config *config,
                                    const ps3c_vision_request *request, ps3c_vision_plan **plan);
void ps3c_vision_plan_free(ps3c_vision_plan *plan);

typedef struct ps3c_vision_plan_info {
    size_t workspace_bytes;  /* the workspace may have any alignment */
    int64_t low_res_tokens;  /* per image */
    int64_t selected_tokens; /* per image, all looks together */
    int64_t looks;
    int64_t steps;                          /* steps of a run, at least 1 */
    int64_t pooled_width;                   /* 0: no pooled output */
    int64_t num_high_scales;                /* S */
    int64_t image_size[PS3C_MAX_SCALES][2]; /* pixels (H, W) of each scale, scale 0 first */
    int64_t grid[PS3C_MAX_SCALES][2];       /* patches (h, w) of each scale */
    /* Number of tensors of each output that a run writes: of hidden states, and of maps (S or 0). */
    int64_t hidden_states, selection_maps, selection_probs, bottomup_probs, topdown_probs;
} ps3c_vision_plan_info;

void ps3c_vision_plan_describe(const ps3c_vision_plan *plan, ps3c_vision_plan_info *info);
/* Number of patches that look `look` takes from high-res scale `scale` (0: the first above the low resolution) of image
 * `image`. 0 if an index is out of range. */
int64_t ps3c_vision_plan_take(const ps3c_vision_plan *plan, int64_t image, int64_t look, int64_t scale);

/* The tensors of one run, all on the request's device and of the request's dtype unless a line says otherwise. Inputs
 * may have any strides unless a line says contiguous. Outputs are contiguous. The caller owns all of them. */
typedef struct ps3c_vision_io {
    const ps3c_tensor *pixel_values; /* (B, 3, H, W) */
    const ps3c_tensor *prompt;       /* (B, C), contiguous; NULL unless request.prompt */
    const ps3c_tensor *gt_maps;      /* (B, any, any), any dtype; NULL unless request.gt_maps */
    const ps3c_tensor *global_text;  /* (B, 1), float32; NULL unless request.global_text */
    const ps3c_tensor *weights;      /* [ps3c_vision_weight_count], contiguous */
    ps3c_tensor *hidden_states;      /* [info.hidden_states]: (B, low_res_tokens + selected_tokens, C) each */
    ps3c_tensor *selection_maps;     /* [S]: (B, h, w), values 0 and 1; unused without looks */
    ps3c_tensor *selection_probs;    /* [S]: (B, h, w); unused in LOW_RES */
    ps3c_tensor *bottomup_probs;     /* [S]: (B, h, w); used only in PRETRAIN */
    ps3c_tensor *topdown_probs;      /* [S]: (B, h, w); used only in PRETRAIN with a prompt */
    ps3c_tensor *pooled;             /* (B, info.pooled_width); NULL if that is 0 */
    void *workspace;                 /* memory of the request's device, any alignment */
    size_t workspace_bytes;          /* at least info.workspace_bytes */
    void *stream; /* CUDA: the cudaStream_t that work is enqueued on, of the request's device; NULL on the CPU */
    bool tf32;    /* CUDA: float32 products may round their factors to TF32 (10 bits of mantissa) */
} ps3c_vision_io;

/* Encodes the images and writes the outputs. On CUDA it enqueues the work and does not wait for it. ERROR_VALUE: a
 * tensor is missing, not expected or of another shape, or the workspace is too small; ERROR_TYPE: another dtype, or
 * not contiguous; ERROR_RUNTIME: another device; ERROR_INTERRUPTED. */
ps3c_status ps3c_vision_run(ps3c_context *context, const ps3c_vision_plan *plan, const ps3c_vision_io *io);
/* Checks the tensors of a run as ps3c_vision_run does, and runs nothing. It does not need the workspace. */
ps3c_status ps3c_vision_check_io(ps3c_context *context, const ps3c_vision_plan *plan, const ps3c_vision_io *io);

/* ---- vision in steps: to show progress, to use each look as soon as it is encoded, to stop early --------- */

/* Images run in chunks, as many together as memory allows. The first step of a chunk encodes its low-res tokens and
 * selects the patches of all its looks. Each further step encodes a group of its looks. This loop replaces
 * ps3c_vision_run:
 *
 *     for (int64_t step = 0; step < info.steps; step++)
 *         if (ps3c_vision_run_step(context, plan, &io, step) != PS3C_OK) ...
 */
typedef struct ps3c_vision_step {
    int64_t first_image, images; /* the images of the chunk */
    int64_t first_look, looks;   /* the looks of the step; looks is 0 in the first step of a chunk */
    int64_t tokens;              /* per look and image, the same for all looks of the step */
} ps3c_vision_step;

/* Describes step `index`, from 0 to steps - 1; all zeros if it is out of range. */
ps3c_vision_step ps3c_vision_plan_step(const ps3c_vision_plan *plan, int64_t index);

/* Runs one step. All steps in order give the bits that ps3c_vision_run gives.
 *
 * Outputs: the first step of a chunk writes the low-res tokens, maps, probabilities and pooled vectors of its images.
 * In PRETRAIN the step of the look writes the pooled vectors. A step of looks writes the rows that
 * ps3c_vision_plan_rows gives. No later step changes what a step wrote.
 *
 * From the first step of a chunk to its last, pass the same io and do not change its workspace, weights and inputs;
 * outputs and workspace may be read. Runs with another workspace may come in between.
 *
 * After the first step of a chunk, its steps of looks may run in any order, more than once (for example after
 * ERROR_INTERRUPTED), or not at all. Chunks share only the workspace. A step of looks needs the results of its chunk's
 * first step: that step must have succeeded on the same workspace, and no first step of another chunk may have
 * followed. Otherwise the behaviour is undefined: the step reads its output rows from that workspace, and checking it
 * would need a device synchronisation.
 *
 * Errors: those of ps3c_vision_run; ERROR_VALUE if step is outside [0, steps). */
ps3c_status ps3c_vision_run_step(ps3c_context *context, const ps3c_vision_plan *plan, const ps3c_vision_io *io,
                                 int64_t step);

/* The rows of hidden_states that the looks of a step write, as [looks][images][tokens]: value r means row
 * low_res_tokens + r. Values ascend within a look of an image. The pointer points into the workspace, which is memory
 * of the device. The values are valid from the first step of the chunk until the first step of another chunk. NULL if
 * the step has no looks. */
const int32_t *ps3c_vision_plan_rows(const ps3c_vision_plan *plan, int64_t step, const void *workspace);

/* ---- text: configuration, weights, plan, run --------------------------------------------------------------------- */

typedef enum ps3c_text_pool { PS3C_POOL_FIRST = 0, PS3C_POOL_LAST, PS3C_POOL_ARGMAX, PS3C_POOL_NONE } ps3c_text_pool;

typedef struct ps3c_text_config {
    int64_t width, depth, heads, mlp_hidden; /* as in ps3c_vision_config */
    int64_t context_length;                  /* positions, without the class token */
    int64_t vocab_size;
    int64_t output_dim, prompt_dim; /* widths of pooled and of prompt */
    float norm_eps;
    bool causal;
    bool class_token; /* a learned token is appended; its output is pooled and pool is ignored */
    int64_t pad_id;   /* token id that the class token does not see */
    bool layer_scale;
    bool tanh_gelu;         /* GELU: tanh form, else erf */
    bool projection_linear; /* the projection is a Linear layer, else a (width, output_dim) matrix */
    bool projection_bias;   /* the Linear layer has a bias */
    ps3c_text_pool pool;    /* the token that is pooled; ARGMAX: the one with the greatest id; NONE: every token */
} ps3c_text_config;

/* As the functions of vision. */
ps3c_status ps3c_text_config_check(ps3c_context *context, const ps3c_text_config *config);
int64_t ps3c_text_weight_count(const ps3c_text_config *config);
ps3c_status ps3c_text_weight_info(ps3c_context *context, const ps3c_text_config *config, int64_t index,
                                  ps3c_weight_info *info);

typedef struct ps3c_text_plan ps3c_text_plan;

typedef struct ps3c_text_request {
    int64_t batch, length; /* shape of ids; 1 <= length <= context_length */
    ps3c_dtype dtype;      /* of weights and outputs: float32, float16 or bfloat16 */
    ps3c_device device;
    size_t workspace_limit; /* as in ps3c_vision_request */
} ps3c_text_request;

/* *plan: the new plan, NULL on an error. Errors as those of ps3c_vision_plan_create. */
ps3c_status ps3c_text_plan_create(ps3c_context *context, const ps3c_text_config *config,
                                  const ps3c_text_request *request, ps3c_text_plan **plan);
void ps3c_text_plan_free(ps3c_text_plan *plan);

typedef struct ps3c_text_plan_info {
    size_t workspace_bytes; /* the workspace may have any alignment */
    bool every_token;       /* outputs have a vector for each token: (B, length, dim); else (B, dim) */
    int64_t pooled_tokens;  /* output vectors of one text: length with every_token, else 1 */
} ps3c_text_plan_info;

void ps3c_text_plan_describe(const ps3c_text_plan *plan, ps3c_text_plan_info *info);
/* The fields of the same name of ps3c_text_plan_info. */
size_t ps3c_text_plan_workspace_bytes(const ps3c_text_plan *plan);
int64_t ps3c_text_plan_pooled_tokens(const ps3c_text_plan *plan);

/* The tensors of one run, all on the request's device and, except ids, of its dtype. The caller owns all of them. */
typedef struct ps3c_text_io {
    const ps3c_tensor *ids;     /* (B, length), int64, any strides */
    const ps3c_tensor *weights; /* [ps3c_text_weight_count], contiguous */
    ps3c_tensor *pooled;        /* out: (B, output_dim), or (B, length, output_dim) with info.every_token; contiguous */
    ps3c_tensor *prompt;        /* out: (B, prompt_dim), or (B, length, prompt_dim); contiguous */
    void *workspace;            /* this and the following: as in ps3c_vision_io */
    size_t workspace_bytes;
    void *stream;
    bool tf32;
} ps3c_text_io;

/* Encodes the texts and writes the outputs. On CUDA it enqueues the work and does not wait for it. Errors: those of
 * ps3c_vision_run. An id outside the vocabulary: ERROR_VALUE on the CPU; on CUDA the embedding of that token is NaN,
 * because reporting the id would need a device synchronisation. */
ps3c_status ps3c_text_run(ps3c_context *context, const ps3c_text_plan *plan, const ps3c_text_io *io);

/* ---- image: from bytes to pixel_values, on the CPU --------------------------------------------------------------- */

/* out[c][y][x] = (pixels[y][x][c] / 255 - mean[c]) / std[c] in float32, with the roundings of torchvision's ToTensor
 * and Normalize. pixels: H rows, `row_bytes` bytes apart, of W pixels of `channels` bytes (3, or 4 of which the fourth
 * is skipped). out: (3, H, W), contiguous. ERROR_VALUE: channels, a size below 1, or a std of 0. */
ps3c_status ps3c_image_normalize(ps3c_context *context, const uint8_t *pixels, int64_t height, int64_t width,
                                 int64_t row_bytes, int64_t channels, const float mean[3], const float std[3],
                                 float *out);

/* Resizes an image in two calls: the first changes the width of any number of rows, the second changes the height of
 * the whole image and normalises it. Shrinking is antialiased. The resized bytes are equal to those of Pillow's resize
 * of an RGB image: each pass computes in fixed point, rounds, and clamps to a byte. Errors: ERROR_VALUE for channels,
 * filter, a side outside 1 to 2^30, or a std of 0; ERROR_MEMORY for the filter weights; ERROR_RUNTIME without a CPU
 * backend. */
typedef enum ps3c_image_filter { PS3C_BILINEAR, PS3C_BICUBIC } ps3c_image_filter; /* bicubic: Keys (1981), a = -0.5 */

/* pixels: as in ps3c_image_normalize. out: (height, out_width, 4), contiguous; the fourth byte is undefined. */
ps3c_status ps3c_image_resize_columns(ps3c_context *context, const uint8_t *pixels, int64_t height, int64_t width,
                                      int64_t row_bytes, int64_t channels, ps3c_image_filter filter, int64_t out_width,
                                      uint8_t *out);
/* pixels: (height, width, 4), contiguous: the output of ps3c_image_resize_columns. out: (3, out_height, width),
 * float32, contiguous: (v / 255 - mean) / std of each resized byte v, rounded as in ps3c_image_normalize. */
ps3c_status ps3c_image_resize_rows(ps3c_context *context, const uint8_t *pixels, int64_t height, int64_t width,
                                   ps3c_image_filter filter, int64_t out_height, const float mean[3],
                                   const float std[3], float *out);

#ifdef __cplusplus
}
#endif
#ifdef PS3C_EXPORT
#pragma GCC visibility pop
#endif
#endif
