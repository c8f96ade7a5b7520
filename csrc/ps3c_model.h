/* ps3c_model.h: models from checkpoint folders, in C.
 *
 * ps3c.h computes with weights and pixels that the caller holds. This header reads them: a checkpoint folder of the
 * Hugging Face hub, and images as bytes. It needs no other library.
 *
 * Example. open_image stands for the program's own code; examples/features.c is a complete program.
 *
 *     ps3c_register_backend(PS3C_CPU, &ps3c_cpu_source);                   // once in a program
 *     ps3c_context *context = ps3c_context_create();
 *     ps3c_model *model;
 *     if (ps3c_model_open(context, "PS3-4K-SigLIP2", NULL, &model) != PS3C_OK)
 *         fail(ps3c_context_message(context));
 *
 *     ps3c_image image = open_image("map.png");                            // (H, W, 3) bytes
 *     ps3c_encode_request request = {.looks = 2, .tokens = PS3C_NONE};
 *     ps3c_features *features;
 *     if (ps3c_model_encode(context, model, &image, &request, &features) != PS3C_OK)
 *         fail(ps3c_context_message(context));
 *     // features->pooled, features->tokens, features->positions
 *
 *     ps3c_features_free(features);
 *     ps3c_model_free(model);
 *     ps3c_context_free(context);
 *
 * Rules of memory, errors and threads are those of ps3c.h. A checkpoint and a model are not changed after they were
 * opened: any number of threads may use them, each with its own context. */
#ifndef PS3C_MODEL_H
#define PS3C_MODEL_H

#include "ps3c.h"

#ifdef PS3C_EXPORT /* while libps3c.so is built: it exports what this header declares */
#pragma GCC visibility push(default)
#endif
#ifdef __cplusplus
extern "C" {
#endif

/* ---- checkpoint: the files of a folder --------------------------------------------------------------------------- */

/* How images become pixel_values: preprocessor_config.json. */
typedef struct ps3c_preprocessing {
    int64_t height, width; /* of pixel_values; the aspect ratio is not kept */
    float mean[3], std[3];
    ps3c_image_filter filter;
} ps3c_preprocessing;

typedef struct ps3c_checkpoint ps3c_checkpoint;

typedef struct ps3c_checkpoint_info {
    ps3c_vision_config vision;
    bool has_text;
    ps3c_text_config text; /* zeros without a text tower */
    ps3c_preprocessing preprocessing;
    ps3c_dtype dtype; /* of the weights: what config.json names, else that of the first weight. float32, float16 or
                              bfloat16; weights of float64 count as float32 */
    int64_t tensors;  /* number of tensors in the weight files */
} ps3c_checkpoint_info;

/* Opens a checkpoint folder: config.json, preprocessor_config.json, and model.safetensors or the files that
 * model.safetensors.index.json lists. It maps the weights into memory and reads none: processes share their pages.
 *
 * Keys of a PS3 checkpoint begin with vision_model. and text_model.; those of an open_clip checkpoint with visual. and
 * text. Both are accepted.
 *
 * *checkpoint: the new checkpoint, NULL on an error. ERROR_CHECKPOINT: a file is missing or damaged, a value cannot be
 * used, or a weight is missing or has another shape than the configuration gives it; the message names the file and the
 * field or weight. ERROR_MEMORY. Weight files of pickled objects (.bin) are not read. */
ps3c_status ps3c_checkpoint_open(ps3c_context *context, const char *folder, ps3c_checkpoint **checkpoint);
void ps3c_checkpoint_free(ps3c_checkpoint *checkpoint);
/* Valid until the checkpoint is freed. */
const ps3c_checkpoint_info *ps3c_checkpoint_describe(const ps3c_checkpoint *checkpoint);

/* The tensor of a number from 0 to info.tensors - 1, in alphabetical order. *name and the tensor's memory are valid
 * until the checkpoint is freed; the memory may be written to, which changes neither the file nor other processes'
 * memory. ERROR_VALUE: another number. ERROR_TYPE: a dtype that is not one of ps3c_dtype; *name is set. */
ps3c_status ps3c_checkpoint_tensor(ps3c_context *context, const ps3c_checkpoint *checkpoint, int64_t index,
                                   const char **name, ps3c_tensor *tensor);
/* The weight that ps3c_vision_io.weights[index] or ps3c_text_io.weights[index] holds, as it is in the file. */
ps3c_status ps3c_checkpoint_vision_weight(ps3c_context *context, const ps3c_checkpoint *checkpoint, int64_t index,
                                          ps3c_tensor *tensor);
ps3c_status ps3c_checkpoint_text_weight(ps3c_context *context, const ps3c_checkpoint *checkpoint, int64_t index,
                                        ps3c_tensor *tensor);
/* ERROR_CHECKPOINT if a weight file has become shorter since it was opened: to read it would stop the process with
 * SIGBUS. ps3c_model_encode calls it. A file that shrinks during a run cannot be detected: replace weight files by
 * renaming, as huggingface_hub does. */
ps3c_status ps3c_checkpoint_check(ps3c_context *context, const ps3c_checkpoint *checkpoint);

/* ---- model: a checkpoint that is ready to encode ----------------------------------------------------------------- */

typedef struct ps3c_model ps3c_model;

typedef struct ps3c_model_options {
    bool has_dtype; /* false: the checkpoint's dtype */
    ps3c_dtype
        dtype; /* to compute in: float32, float16 or bfloat16. Weights of another dtype are converted, which takes
                         memory of their size; others stay in the file's pages */
} ps3c_model_options;

/* Opens a checkpoint folder on the CPU. options: NULL for the defaults. *model: the new model, NULL on an error. Errors:
 * those of ps3c_checkpoint_open; ERROR_TYPE: another dtype. */
ps3c_status ps3c_model_open(ps3c_context *context, const char *folder, const ps3c_model_options *options,
                            ps3c_model **model);
void ps3c_model_free(ps3c_model *model);
/* The model's checkpoint and the dtype it computes in. Valid until the model is freed. */
const ps3c_checkpoint *ps3c_model_checkpoint(const ps3c_model *model);
ps3c_dtype ps3c_model_dtype(const ps3c_model *model);
/* The weights, in the order of ps3c_vision_io.weights and ps3c_text_io.weights, for runs of the functions of ps3c.h.
 * NULL without a text tower. */
const ps3c_tensor *ps3c_model_vision_weights(const ps3c_model *model);
const ps3c_tensor *ps3c_model_text_weights(const ps3c_model *model);

/* ---- encode: from an image to features --------------------------------------------------------------------------- */

/* An upright image of bytes. */
typedef struct ps3c_image {
    const uint8_t *pixels; /* height rows, row_bytes bytes apart, of width pixels of `channels` bytes */
    int64_t height, width, row_bytes;
    int64_t channels; /* 3, or 4 of which the fourth is skipped */
} ps3c_image;

typedef struct ps3c_encode_request {
    int64_t looks;  /* number of looks, PS3C_ALL, or PS3C_NONE */
    int64_t tokens; /* number of high-res patches instead, PS3C_ALL, or PS3C_NONE */
    const float
        *prompt; /* [config.width], such as a text's prompt: selects patches that match it. NULL: salient patches */
    bool raw;    /* do not scale the pooled vector to length 1 */
} ps3c_encode_request;

/* What an image was encoded to. One block of memory, released by ps3c_features_free. Without looks and tokens (both
 * PS3C_NONE) there is only the pooled vector; the other pointers are NULL. */
typedef struct ps3c_features {
    int64_t pooled_width;
    float *pooled; /* [pooled_width] */
    int64_t num_tokens, width;
    ps3c_dtype dtype; /* of tokens and maps: the model's */
    void *tokens;     /* [num_tokens][width]: the low-res tokens, then the selected patches of each scale, row by row */
    int32_t *positions;      /* [num_tokens][3]: scale, row, column; scale 0 is the low resolution */
    int16_t *look;           /* [num_tokens]: number of the look that encoded the token; 0 is the low resolution */
    int64_t num_high_scales; /* S */
    int64_t grid[PS3C_MAX_SCALES][2];       /* patches (h, w) of each scale, the low resolution first */
    void *selection_maps[PS3C_MAX_SCALES];  /* [S]: (h, w), 1 where a patch was selected, else 0 */
    void *selection_probs[PS3C_MAX_SCALES]; /* [S]: (h, w), the selection probability of each patch */
} ps3c_features;

/* Resizes and normalises the image as the checkpoint says, and encodes it. Tokens, positions,
 * maps and probabilities are those of Python's ps3c.load(folder).embed_images for an opaque image, bit for bit; the
 * vector is too, before it is scaled. *features: the new features, NULL on an error. ERROR_VALUE: an image without pixels, or looks and tokens together; ERROR_CHECKPOINT: as ps3c_checkpoint_check;
 * ERROR_MEMORY; ERROR_INTERRUPTED. */
ps3c_status ps3c_model_encode(ps3c_context *context, const ps3c_model *model, const ps3c_image *image,
                              const ps3c_encode_request *request, ps3c_features **features);
void ps3c_features_free(ps3c_features *features);

/* out[i] = values[i] / length, where length is the Euclidean length, summed in float64 and rounded to float32, and at
 * least 1e-12. out may be values. */
void ps3c_scale_to_length_1(const float *values, int64_t count, float *out);

#ifdef __cplusplus
}
#endif
#ifdef PS3C_EXPORT
#pragma GCC visibility pop
#endif
#endif
