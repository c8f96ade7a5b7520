/* From an image to features: preprocess, plan, run step by step, collect. */
#include "model.h"

#include "convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void ps3c_scale_to_length_1(const float *values, int64_t count, float *out)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++)
        sum += (double)values[i] * (double)values[i];
    const float length = fmaxf((float)sqrt(sum), 1e-12f);
    for (int64_t i = 0; i < count; i++)
        out[i] = values[i] / length;
}

/* ---- pixels ------------------------------------------------------------------------------------------------------ */

static ps3c_status check_image(ps3c_context *context, const ps3c_image *image)
{
    if (image->pixels == NULL)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "pixels: got NULL, expected the image's bytes");
    if (image->channels != 3 && image->channels != 4)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "channels: got %lld, expected 3 or 4", (long long)image->channels);
    if (image->height < 1 || image->width < 1 || image->height > 1 << 30 || image->width > 1 << 30)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "image: got %lld x %lld pixels, expected 1 x 1 to 2^30 x 2^30",
                         (long long)image->width, (long long)image->height);
    return PS3C_OK;
}

/* Resizes in two passes by way of `columns`, new memory that the caller frees. */
static ps3c_status resize(ps3c_context *context, const ps3c_preprocessing *p, const ps3c_image *image, float *out)
{
    uint8_t *columns = malloc((size_t)image->height * (size_t)p->width * 4);
    if (columns == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory to resize the image");
    ps3c_status status = ps3c_image_resize_columns(context, image->pixels, image->height, image->width,
                                                   image->row_bytes, image->channels, p->filter, p->width, columns);
    if (status == PS3C_OK)
        status = ps3c_image_resize_rows(context, columns, image->height, p->width, p->filter, p->height, p->mean,
                                        p->std, out);
    free(columns);
    return status;
}

/* pixel_values (3, height, width) in the model's dtype: *memory, which the caller frees, also after an error. */
static ps3c_status make_pixels(ps3c_context *context, const ps3c_model *model, const ps3c_image *image, void **memory)
{
    const ps3c_preprocessing *p = &ps3c_checkpoint_describe(model->checkpoint)->preprocessing;
    const int64_t count = 3 * p->height * p->width;
    float *values = malloc((size_t)count * sizeof *values);
    *memory = values;
    if (values == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for pixel_values");
    if (image->height == p->height && image->width == p->width)
        PS3C_TRY(ps3c_image_normalize(context, image->pixels, image->height, image->width, image->row_bytes,
                                      image->channels, p->mean, p->std, values));
    else
        PS3C_TRY(resize(context, p, image, values));
    if (model->dtype == PS3C_FLOAT32)
        return PS3C_OK;
    void *converted = malloc((size_t)count * ps3c_dtype_bytes(model->dtype));
    if (converted == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for pixel_values");
    ps3c_convert(PS3C_FLOAT32, values, model->dtype, converted, count);
    free(values);
    *memory = converted;
    return PS3C_OK;
}

/* ---- one pass ---------------------------------------------------------------------------------------------------- */

/* Everything that a pass needs besides its results. */
typedef struct pass {
    const ps3c_model *model;
    ps3c_vision_plan *plan;
    ps3c_vision_plan_info info;
    void *pixels, *prompt, *pooled, *workspace, *layers;
    ps3c_tensor *hidden_states;
} pass;

static void close_pass(pass *pass)
{
    ps3c_vision_plan_free(pass->plan);
    free(pass->pixels);
    free(pass->prompt);
    free(pass->pooled);
    free(pass->workspace);
    free(pass->layers);
    free(pass->hidden_states);
}

static ps3c_status make_plan(ps3c_context *context, const ps3c_encode_request *request, pass *pass)
{
    const ps3c_checkpoint_info *info = ps3c_checkpoint_describe(pass->model->checkpoint);
    const bool selects = request->looks != PS3C_NONE || request->tokens != PS3C_NONE;
    if (request->looks != PS3C_NONE && request->tokens != PS3C_NONE)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "looks, tokens: got both, expected one of them");
    if (!selects && request->prompt != NULL)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "prompt: got one without looks or tokens, which it selects");
    const ps3c_vision_request whole = {.batch = 1,
                                       .height = info->preprocessing.height,
                                       .width = info->preprocessing.width,
                                       .dtype = pass->model->dtype,
                                       .mode = selects ? PS3C_VISION_FEATURES : PS3C_VISION_LOW_RES,
                                       .num_look_close = request->looks,
                                       .num_token_look_close = request->tokens,
                                       .prompt = request->prompt != NULL,
                                       .pooled = selects,
                                       .hidden_states = selects ? 1 : 0};
    PS3C_TRY(ps3c_vision_plan_create(context, &info->vision, &whole, &pass->plan));
    ps3c_vision_plan_describe(pass->plan, &pass->info);
    return PS3C_OK;
}

/* A contiguous tensor of the model's dtype on the CPU. */
static ps3c_tensor tensor_of(const pass *pass, void *data, int ndim, const int64_t *shape)
{
    ps3c_tensor tensor = {.data = data, .dtype = pass->model->dtype, .ndim = ndim};
    int64_t stride = 1;
    for (int d = ndim - 1; d >= 0; d--) {
        tensor.shape[d] = shape[d];
        tensor.strides[d] = stride;
        stride *= shape[d];
    }
    return tensor;
}

static ps3c_status make_inputs(ps3c_context *context, const ps3c_encode_request *request, const ps3c_image *image,
                               pass *pass)
{
    const int64_t width = ps3c_checkpoint_describe(pass->model->checkpoint)->vision.width;
    const size_t item = ps3c_dtype_bytes(pass->model->dtype);
    PS3C_TRY(make_pixels(context, pass->model, image, &pass->pixels));
    pass->workspace = malloc(pass->info.workspace_bytes);
    pass->pooled = malloc((size_t)pass->info.pooled_width * item);
    pass->prompt = malloc((size_t)width * item);
    pass->hidden_states = calloc((size_t)pass->info.hidden_states + 1, sizeof *pass->hidden_states);
    if (pass->workspace == NULL || pass->pooled == NULL || pass->prompt == NULL || pass->hidden_states == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for a workspace of %zu bytes",
                         pass->info.workspace_bytes);
    if (request->prompt != NULL)
        ps3c_convert(PS3C_FLOAT32, request->prompt, pass->model->dtype, pass->prompt, width);
    return PS3C_OK;
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

/* Memory of a block, handed out in multiples of 64 bytes; first counted, then given. */
typedef struct block {
    char *start; /* NULL: only count */
    size_t used;
} block;

static void *take(block *block, int64_t count, size_t item)
{
    void *memory = block->start != NULL ? block->start + block->used : NULL;
    block->used += ((size_t)count * item + 63) / 64 * 64;
    return memory;
}

static void lay_out(const pass *pass, ps3c_features *features, block *block)
{
    const size_t item = ps3c_dtype_bytes(features->dtype);
    features->pooled = take(block, features->pooled_width, sizeof *features->pooled);
    if (features->num_tokens == 0)
        return;
    features->tokens = take(block, features->num_tokens * features->width, item);
    features->positions = take(block, 3 * features->num_tokens, sizeof *features->positions);
    features->look = take(block, features->num_tokens, sizeof *features->look);
    for (int64_t s = 0; s < features->num_high_scales; s++) {
        const int64_t patches = pass->info.grid[s + 1][0] * pass->info.grid[s + 1][1];
        features->selection_maps[s] = take(block, patches, item);
        features->selection_probs[s] = take(block, patches, item);
    }
}

static ps3c_status make_features(ps3c_context *context, const pass *pass, bool selects, ps3c_features **features)
{
    ps3c_features sizes = {.pooled_width = pass->info.pooled_width,
                           .dtype = pass->model->dtype,
                           .width = ps3c_checkpoint_describe(pass->model->checkpoint)->vision.width};
    if (selects) {
        sizes.num_tokens = pass->info.low_res_tokens + pass->info.selected_tokens;
        sizes.num_high_scales = pass->info.num_high_scales;
        memcpy(sizes.grid, pass->info.grid, sizeof sizes.grid);
    }
    block block = {0};
    take(&block, 1, sizeof sizes);
    lay_out(pass, &sizes, &block);
    char *memory = aligned_alloc(64, block.used);
    if (memory == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for %zu bytes of features", block.used);
    memset(memory, 0, block.used);
    block = (struct block){.start = memory};
    *features = take(&block, 1, sizeof sizes);
    **features = sizes;
    lay_out(pass, *features, &block);
    return PS3C_OK;
}

/* The tensors of a run that FEATURES writes: the last layer to features->tokens, earlier ones to memory of their own. */
static ps3c_status make_hidden_states(ps3c_context *context, const ps3c_features *features, pass *pass)
{
    const int64_t shape[] = {1, features->num_tokens, features->width}, layers = pass->info.hidden_states;
    const size_t bytes = (size_t)(features->num_tokens * features->width) * ps3c_dtype_bytes(features->dtype);
    if (layers == 0)
        return PS3C_OK;
    pass->layers = malloc((size_t)layers * bytes);
    if (pass->layers == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the outputs of %lld layers", (long long)layers);
    for (int64_t i = 0; i < layers; i++) {
        void *data = i + 1 < layers ? (char *)pass->layers + (size_t)i * bytes : features->tokens;
        pass->hidden_states[i] = tensor_of(pass, data, 3, shape);
    }
    return PS3C_OK;
}

/* Is a patch selected? 0.0 is zero bits in every dtype. */
static bool is_selected(const ps3c_features *features, int64_t scale, int64_t patch)
{
    const void *map = features->selection_maps[scale];
    return features->dtype == PS3C_FLOAT32 ? ((const uint32_t *)map)[patch] != 0 : ((const uint16_t *)map)[patch] != 0;
}

static void fill_positions(const pass *pass, ps3c_features *features)
{
    int32_t *next = features->positions;
    for (int64_t scale = 0; scale <= features->num_high_scales; scale++) {
        const int64_t columns = pass->info.grid[scale][1], patches = pass->info.grid[scale][0] * columns;
        for (int64_t patch = 0; patch < patches; patch++) {
            if (scale > 0 && (pass->info.looks == 0 || !is_selected(features, scale - 1, patch)))
                continue;
            *next++ = (int32_t)scale;
            *next++ = (int32_t)(patch / columns);
            *next++ = (int32_t)(patch % columns);
        }
    }
}

/* Runs all steps, and notes which look encoded each token. */
static ps3c_status run_steps(ps3c_context *context, const pass *pass, const ps3c_vision_io *io, ps3c_features *features)
{
    for (int64_t index = 0; index < pass->info.steps; index++) {
        const ps3c_vision_step step = ps3c_vision_plan_step(pass->plan, index);
        PS3C_TRY(ps3c_vision_run_step(context, pass->plan, io, index));
        const int32_t *rows = ps3c_vision_plan_rows(pass->plan, index, pass->workspace);
        for (int64_t i = 0; i < step.looks * step.tokens; i++)
            features->look[pass->info.low_res_tokens + rows[i]] = (int16_t)(step.first_look + i / step.tokens + 1);
    }
    return PS3C_OK;
}

static ps3c_status run(ps3c_context *context, const ps3c_encode_request *request, pass *pass, ps3c_features *features)
{
    const ps3c_checkpoint_info *info = ps3c_checkpoint_describe(pass->model->checkpoint);
    const int64_t image[] = {1, 3, info->preprocessing.height, info->preprocessing.width},
                  row[] = {1, info->vision.width}, vector[] = {1, pass->info.pooled_width};
    const ps3c_tensor pixels = tensor_of(pass, pass->pixels, 4, image), prompt = tensor_of(pass, pass->prompt, 2, row);
    ps3c_tensor pooled = tensor_of(pass, pass->pooled, 2, vector), maps[PS3C_MAX_SCALES], probs[PS3C_MAX_SCALES];
    for (int64_t s = 0; s < features->num_high_scales; s++) {
        const int64_t grid[] = {1, pass->info.grid[s + 1][0], pass->info.grid[s + 1][1]};
        maps[s] = tensor_of(pass, features->selection_maps[s], 3, grid);
        probs[s] = tensor_of(pass, features->selection_probs[s], 3, grid);
    }
    PS3C_TRY(make_hidden_states(context, features, pass));
    const ps3c_vision_io io = {.pixel_values = &pixels,
                               .prompt = request->prompt != NULL ? &prompt : NULL,
                               .weights = pass->model->vision.weights,
                               .hidden_states = pass->hidden_states,
                               .selection_maps = maps,
                               .selection_probs = probs,
                               .pooled = &pooled,
                               .workspace = pass->workspace,
                               .workspace_bytes = pass->info.workspace_bytes};
    PS3C_TRY(run_steps(context, pass, &io, features));
    ps3c_convert(pass->model->dtype, pass->pooled, PS3C_FLOAT32, features->pooled, features->pooled_width);
    if (!request->raw)
        ps3c_scale_to_length_1(features->pooled, features->pooled_width, features->pooled);
    if (features->num_tokens > 0)
        fill_positions(pass, features);
    return PS3C_OK;
}

/* ---- the public functions ---------------------------------------------------------------------------------------- */

static ps3c_status encode(ps3c_context *context, const ps3c_image *image, const ps3c_encode_request *request,
                          pass *pass, ps3c_features **features)
{
    const bool selects = request->looks != PS3C_NONE || request->tokens != PS3C_NONE;
    PS3C_TRY(check_image(context, image));
    PS3C_TRY(ps3c_checkpoint_check(context, pass->model->checkpoint));
    PS3C_TRY(make_plan(context, request, pass));
    PS3C_TRY(make_inputs(context, request, image, pass));
    PS3C_TRY(make_features(context, pass, selects, features));
    return run(context, request, pass, *features);
}

ps3c_status ps3c_model_encode(ps3c_context *context, const ps3c_model *model, const ps3c_image *image,
                              const ps3c_encode_request *request, ps3c_features **features)
{
    pass pass = {.model = model};
    *features = NULL;
    const ps3c_status status = encode(context, image, request, &pass, features);
    close_pass(&pass);
    if (status != PS3C_OK) {
        ps3c_features_free(*features);
        *features = NULL;
    }
    return status;
}

void ps3c_features_free(ps3c_features *features) { free(features); }
