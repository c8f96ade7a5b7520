/* A checkpoint whose weights are ready to compute with. */
#include "model.h"

#include "convert.h"

#include <stdlib.h>

/* ---- weights ----------------------------------------------------------------------------------------------------- */

typedef ps3c_status (*weight_of)(ps3c_context *context, const ps3c_checkpoint *checkpoint, int64_t index,
                                 ps3c_tensor *tensor);

static int64_t elements_of(const ps3c_tensor *tensor)
{
    int64_t count = 1;
    for (int d = 0; d < tensor->ndim; d++)
        count *= tensor->shape[d];
    return count;
}

/* Does the weight have to be copied? A file may hold it at any address. */
static bool needs_copy(const ps3c_tensor *tensor, ps3c_dtype dtype)
{
    return tensor->dtype != dtype || (uintptr_t)tensor->data % ps3c_dtype_bytes(dtype) != 0;
}

/* Gives tower->weights the checkpoint's memory, or converted copies in tower->copies. */
static ps3c_status fill_tower(ps3c_context *context, const ps3c_model *model, weight_of weight,
                              ps3c_loaded_tower *tower)
{
    size_t bytes = 0, used = 0;
    tower->weights = malloc((size_t)tower->count * sizeof *tower->weights);
    if (tower->weights == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the model's weights");
    for (int64_t i = 0; i < tower->count; i++) {
        ps3c_tensor *tensor = &tower->weights[i];
        PS3C_TRY(weight(context, model->checkpoint, i, tensor));
        if (needs_copy(tensor, model->dtype))
            bytes += ((size_t)elements_of(tensor) * ps3c_dtype_bytes(model->dtype) + 63) / 64 * 64;
    }
    tower->copies = bytes > 0 ? aligned_alloc(64, bytes) : NULL;
    if (bytes > 0 && tower->copies == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for %zu bytes of weights as %s", bytes,
                         ps3c_dtype_name(model->dtype));
    for (int64_t i = 0; i < tower->count; i++) {
        ps3c_tensor *tensor = &tower->weights[i];
        if (!needs_copy(tensor, model->dtype))
            continue;
        const int64_t count = elements_of(tensor);
        PS3C_TRY(ps3c_context_poll(context));
        ps3c_convert(tensor->dtype, tensor->data, model->dtype, tower->copies + used, count);
        tensor->data = tower->copies + used;
        tensor->dtype = model->dtype;
        used += ((size_t)count * ps3c_dtype_bytes(model->dtype) + 63) / 64 * 64;
    }
    return PS3C_OK;
}

static ps3c_status open_model(ps3c_context *context, const char *folder, const ps3c_model_options *options,
                              ps3c_model *model)
{
    if (options != NULL && options->has_dtype && (unsigned)options->dtype > PS3C_BFLOAT16)
        return ps3c_fail(context, PS3C_ERROR_TYPE, "dtype: got %s, expected float32, float16 or bfloat16",
                         ps3c_dtype_name(options->dtype));
    PS3C_TRY(ps3c_checkpoint_open(context, folder, &model->checkpoint));
    const ps3c_checkpoint_info *info = ps3c_checkpoint_describe(model->checkpoint);
    model->dtype = options != NULL && options->has_dtype ? options->dtype : info->dtype;
    model->vision.count = ps3c_vision_weight_count(&info->vision);
    PS3C_TRY(fill_tower(context, model, ps3c_checkpoint_vision_weight, &model->vision));
    if (!info->has_text)
        return PS3C_OK;
    model->text.count = ps3c_text_weight_count(&info->text);
    return fill_tower(context, model, ps3c_checkpoint_text_weight, &model->text);
}

/* ---- the public functions ---------------------------------------------------------------------------------------- */

ps3c_status ps3c_model_open(ps3c_context *context, const char *folder, const ps3c_model_options *options,
                            ps3c_model **model)
{
    *model = calloc(1, sizeof **model);
    if (*model == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the model");
    const ps3c_status status = open_model(context, folder, options, *model);
    if (status != PS3C_OK) {
        ps3c_model_free(*model);
        *model = NULL;
    }
    return status;
}

void ps3c_model_free(ps3c_model *model)
{
    if (model == NULL)
        return;
    free(model->vision.weights);
    free(model->vision.copies);
    free(model->text.weights);
    free(model->text.copies);
    ps3c_checkpoint_free(model->checkpoint);
    free(model);
}

const ps3c_checkpoint *ps3c_model_checkpoint(const ps3c_model *model) { return model->checkpoint; }
ps3c_dtype ps3c_model_dtype(const ps3c_model *model) { return model->dtype; }
const ps3c_tensor *ps3c_model_vision_weights(const ps3c_model *model) { return model->vision.weights; }
const ps3c_tensor *ps3c_model_text_weights(const ps3c_model *model) { return model->text.weights; }
