/* Opens a checkpoint folder: finds its files, reads its configuration, and holds each weight against it. */
#include "config.h"

#include "../run/tensor.h"
#include "fit.h"
#include "safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFUSE(...) ps3c_fail(context, PS3C_ERROR_CHECKPOINT, __VA_ARGS__)

enum { MOST_FILES = 1024, MOST_BLOCKS = 1 << 20 };

static const char config_name[] = "config.json", single_name[] = "model.safetensors",
                  index_name[] = "model.safetensors.index.json", preprocessor_name[] = "preprocessor_config.json";

struct ps3c_checkpoint {
    ps3c_checkpoint_info info;
    int64_t file_count;
    ps3c_safetensors *files;      /* [file_count] */
    ps3c_stored **tensors;        /* [info.tensors], by name */
    ps3c_stored **vision, **text; /* the engine's weights, in its order */
};

ps3c_status ps3c_in_file(ps3c_context *context, ps3c_status status, const char *prefix)
{
    char message[512];
    if (status == PS3C_OK || status == PS3C_ERROR_MEMORY)
        return status;
    snprintf(message, sizeof message, "%s", ps3c_context_message(context));
    return REFUSE("%s%s", prefix, message);
}

/* ---- JSON files -------------------------------------------------------------------------------------------------- */

/* Reads a JSON file whose root is an object. Call ps3c_json_free if it returns OK. */
static ps3c_status read_object(ps3c_context *context, const char *folder, const char *name,
                               ps3c_json_document *document)
{
    ps3c_mapped file;
    PS3C_TRY(ps3c_mapped_open(context, folder, name, &file));
    ps3c_status status = ps3c_json_read(context, name, (const char *)file.data, file.size, document);
    ps3c_mapped_close(&file);
    if (status == PS3C_OK && document->values->kind != PS3C_JSON_OBJECT) {
        status =
            REFUSE("%s: got a JSON value of type %s, expected an object", name, ps3c_json_kind_name(document->values));
        ps3c_json_free(document);
    }
    return status;
}

/* ---- weight files ------------------------------------------------------------------------------------------------ */

/* A relative path of a safetensors file inside the folder. */
static bool is_plain_name(const char *name)
{
    static const char suffix[] = ".safetensors";
    const size_t length = strlen(name);
    if (length <= sizeof suffix - 1 || strcmp(name + length - (sizeof suffix - 1), suffix) != 0 ||
        strchr(name, '\\') != NULL)
        return false;
    for (const char *part = name;; part++) {
        const size_t own = strcspn(part, "/");
        if (own == 0 || (own == 2 && strncmp(part, "..", 2) == 0))
            return false;
        part += own;
        if (*part == 0)
            return true;
    }
}

/* Opens folder/name unless it is open already. */
static ps3c_status add_file(ps3c_context *context, const char *folder, const char *name, ps3c_checkpoint *checkpoint)
{
    for (int64_t i = 0; i < checkpoint->file_count; i++)
        if (strcmp(checkpoint->files[i].file.name, name) == 0)
            return PS3C_OK;
    if (checkpoint->file_count == MOST_FILES)
        return REFUSE("%s: got more than %d weight files", index_name, MOST_FILES);
    PS3C_TRY(ps3c_safetensors_open(context, folder, name, &checkpoint->files[checkpoint->file_count]));
    checkpoint->file_count++;
    return PS3C_OK;
}

static ps3c_status add_indexed_files(ps3c_context *context, const char *folder, const ps3c_json *root,
                                     ps3c_checkpoint *checkpoint)
{
    const ps3c_json *map = ps3c_json_member(root, "weight_map");
    char tensor[PS3C_JSON_SHOWN], shown[PS3C_JSON_SHOWN];
    if (map == NULL || map->kind != PS3C_JSON_OBJECT || map->count == 0)
        return REFUSE("%s has no weight_map", index_name);
    for (const ps3c_json *item = ps3c_json_first(map); item != NULL; item = ps3c_json_next(map, item)) {
        if (item->kind != PS3C_JSON_STRING || !is_plain_name(item->text))
            return REFUSE("%s: weight_map[%s]: got %s, expected the name of a .safetensors file in the folder",
                          index_name, ps3c_json_quote(item->key, tensor), ps3c_json_show(item, shown));
        PS3C_TRY(add_file(context, folder, item->text, checkpoint));
    }
    return PS3C_OK;
}

static ps3c_status open_weights(ps3c_context *context, const char *folder, ps3c_checkpoint *checkpoint)
{
    ps3c_json_document index;
    checkpoint->files = calloc(MOST_FILES, sizeof *checkpoint->files);
    if (checkpoint->files == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the checkpoint's files");
    if (ps3c_has_entry(folder, single_name))
        return add_file(context, folder, single_name, checkpoint);
    if (!ps3c_has_entry(folder, index_name))
        return ps3c_has_entry(folder, "pytorch_model.bin") || ps3c_has_entry(folder, "pytorch_model.bin.index.json")
                   ? REFUSE("got weights in pytorch_model.bin, whose pickled objects only torch reads, expected %s",
                            single_name)
                   : REFUSE("has no weights, expected %s", single_name);
    PS3C_TRY(read_object(context, folder, index_name, &index));
    const ps3c_status status = add_indexed_files(context, folder, index.values, checkpoint);
    ps3c_json_free(&index);
    return status;
}

static int by_name(const void *left, const void *right)
{
    return strcmp((*(ps3c_stored *const *)left)->name, (*(ps3c_stored *const *)right)->name);
}

/* One table of all files' tensors. */
static ps3c_status list_tensors(ps3c_context *context, ps3c_checkpoint *checkpoint)
{
    char tensor[PS3C_JSON_SHOWN];
    int64_t count = 0;
    for (int64_t i = 0; i < checkpoint->file_count; i++)
        count += checkpoint->files[i].count;
    checkpoint->tensors = malloc((size_t)(count + 1) * sizeof *checkpoint->tensors);
    if (checkpoint->tensors == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the checkpoint's %lld tensors", (long long)count);
    for (int64_t i = 0; i < checkpoint->file_count; i++)
        for (int64_t t = 0; t < checkpoint->files[i].count; t++)
            checkpoint->tensors[checkpoint->info.tensors++] = &checkpoint->files[i].tensors[t];
    qsort(checkpoint->tensors, (size_t)count, sizeof *checkpoint->tensors, by_name);
    for (int64_t i = 1; i < count; i++)
        if (strcmp(checkpoint->tensors[i - 1]->name, checkpoint->tensors[i]->name) == 0)
            return REFUSE("%s: %s is there twice, expected once", checkpoint->tensors[i]->file->name,
                          ps3c_json_quote(checkpoint->tensors[i]->name, tensor));
    return PS3C_OK;
}

static ps3c_stored *find(const ps3c_checkpoint *checkpoint, const char *name)
{
    const ps3c_stored wanted = {.name = name};
    const ps3c_stored *key = &wanted;
    ps3c_stored **found =
        bsearch(&key, checkpoint->tensors, (size_t)checkpoint->info.tensors, sizeof *checkpoint->tensors, by_name);
    return found != NULL ? *found : NULL;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* What stands before the engine's names in the files: of a PS3 checkpoint, of open_clip's, of the bare tower. */
static const char *const vision_prefixes[] = {"vision_model.", "visual.", "", NULL};
static const char *const text_prefixes[] = {"text_model.", "text.", NULL};

static void join(char name[2 * PS3C_NAME_BYTES], const char *prefix, const char *own)
{
    snprintf(name, 2 * PS3C_NAME_BYTES, "%s%s", prefix, own);
}

/* The first prefix with which the files have the tensor; NULL: none. */
static const char *find_prefix(const ps3c_checkpoint *checkpoint, const char *const *prefixes, const char *own)
{
    char name[2 * PS3C_NAME_BYTES];
    for (; *prefixes != NULL; prefixes++) {
        join(name, *prefixes, own);
        if (find(checkpoint, name) != NULL)
            return *prefixes;
    }
    return NULL;
}

typedef struct tower {
    const char *prefix; /* of its weights' names in the files */
    const char *part;   /* what stands before its fields in messages: "config.json: vision_config." */
    int64_t count;
    ps3c_status (*info)(ps3c_context *context, const ps3c_checkpoint_info *config, int64_t index,
                        ps3c_weight_info *info);
    const char *(*field_of)(const char *name, int axis);
    int lists;
    ps3c_block_list blocks[PS3C_BLOCK_LISTS];
} tower;

static ps3c_status vision_info(ps3c_context *context, const ps3c_checkpoint_info *config, int64_t index,
                               ps3c_weight_info *info)
{
    return ps3c_vision_weight_info(context, &config->vision, index, info);
}
static ps3c_status text_info(ps3c_context *context, const ps3c_checkpoint_info *config, int64_t index,
                             ps3c_weight_info *info)
{
    return ps3c_text_weight_info(context, &config->text, index, info);
}

static ps3c_status check_weight(ps3c_context *context, const tower *tower, const ps3c_stored *stored,
                                const ps3c_weight_info *info)
{
    char expected[PS3C_SHAPE_BYTES], got[PS3C_SHAPE_BYTES];
    int axis = 0;
    while (stored->ndim == info->ndim && axis < info->ndim && stored->shape[axis] == info->shape[axis])
        axis++;
    if (stored->ndim != info->ndim || axis < info->ndim)
        return REFUSE("%s%s: makes %s of shape %s, expected %s as in %s", tower->part,
                      tower->field_of(info->name, axis), stored->name,
                      ps3c_sizes_text(info->ndim, info->shape, expected),
                      ps3c_sizes_text(stored->ndim, stored->shape, got), stored->file->name);
    if (stored->dtype < 0 || stored->dtype > PS3C_FLOAT64)
        return REFUSE("%s: %s: got dtype %s, expected float32, float16, bfloat16 or float64", stored->file->name,
                      stored->name, stored->stored_dtype);
    return PS3C_OK;
}

/* Are there as many blocks in the files as the configuration says? Names are sorted, so a list's follow each other. */
static ps3c_status check_blocks(ps3c_context *context, const ps3c_checkpoint *checkpoint, const tower *tower,
                                const ps3c_block_list *list)
{
    char stem[2 * PS3C_NAME_BYTES];
    int64_t most = -1;
    join(stem, tower->prefix, list->stem);
    const size_t length = strlen(stem);
    for (int64_t i = 0; i < checkpoint->info.tensors; i++) {
        const char *name = checkpoint->tensors[i]->name;
        if (strncmp(name, stem, length) != 0)
            continue;
        const long long number = strtoll(name + length, NULL, 10);
        most = number > MOST_BLOCKS ? MOST_BLOCKS : number > most ? number : most;
    }
    const int64_t found = (most + list->numbers) / list->numbers;
    if (found == list->count)
        return PS3C_OK;
    return REFUSE("%s%s: got %lld blocks, expected %lld as in the weight files (%s*)", tower->part, list->field,
                  (long long)list->count, (long long)found, stem);
}

/* Finds a tower's weights, *weights in the engine's order. The caller frees the table, also after an error. */
static ps3c_status find_weights(ps3c_context *context, const ps3c_checkpoint *checkpoint, const tower *tower,
                                ps3c_stored ***weights)
{
    char name[2 * PS3C_NAME_BYTES];
    ps3c_weight_info info;
    for (int i = 0; i < tower->lists; i++)
        PS3C_TRY(check_blocks(context, checkpoint, tower, &tower->blocks[i]));
    *weights = malloc((size_t)(tower->count + 1) * sizeof **weights);
    if (*weights == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the model's %lld weights", (long long)tower->count);
    for (int64_t i = 0; i < tower->count; i++) {
        PS3C_TRY(tower->info(context, &checkpoint->info, i, &info));
        join(name, tower->prefix, info.name);
        ps3c_stored *stored = find(checkpoint, name);
        if (stored == NULL)
            return REFUSE("%s%s: makes %s, which the weight files lack", tower->part, tower->field_of(info.name, -1),
                          name);
        PS3C_TRY(check_weight(context, tower, stored, &info));
        (*weights)[i] = stored;
    }
    return PS3C_OK;
}

/* ---- configuration ----------------------------------------------------------------------------------------------- */

static ps3c_status read_dtype(ps3c_context *context, const ps3c_json *root, ps3c_checkpoint *checkpoint)
{
    const ps3c_json *named = ps3c_json_member(root, "dtype");
    char shown[PS3C_JSON_SHOWN];
    if (named == NULL || named->kind == PS3C_JSON_NULL)
        named = ps3c_json_member(root, "torch_dtype");
    int dtype = checkpoint->vision[0]->dtype;
    if (named != NULL && named->kind != PS3C_JSON_NULL) {
        const char *name = named->kind == PS3C_JSON_STRING ? named->text : "";
        if (strncmp(name, "torch.", 6) == 0)
            name += 6;
        for (dtype = 0; dtype <= PS3C_FLOAT64 && strcmp(ps3c_dtype_name((ps3c_dtype)dtype), name) != 0;)
            dtype++;
        if (dtype > PS3C_FLOAT64)
            return REFUSE("config.json: dtype: got %s, expected 'float32', 'float16' or 'bfloat16'",
                          ps3c_json_show(named, shown));
    }
    checkpoint->info.dtype = dtype == PS3C_FLOAT64 ? PS3C_FLOAT32 : (ps3c_dtype)dtype;
    return PS3C_OK;
}

static ps3c_status check_not_quantised(ps3c_context *context, const char *part, const ps3c_json *object)
{
    const ps3c_json *found = ps3c_json_member(object, "quantization_config");
    if (found == NULL || found->kind == PS3C_JSON_NULL)
        return PS3C_OK;
    return REFUSE("config.json: %s%squantization_config: got a quantised model, expected weights of float32, float16, "
                  "bfloat16 or float64",
                  part != NULL ? part : "", part != NULL ? "." : "");
}

/* Sets *whole if config.json describes both towers. */
static ps3c_status check_kind(ps3c_context *context, const ps3c_json *root, bool *whole)
{
    const ps3c_json *kind = ps3c_json_member(root, "model_type"), *part;
    const char *name = kind != NULL && kind->kind == PS3C_JSON_STRING ? kind->text : "";
    char shown[PS3C_JSON_SHOWN];
    *whole = strcmp(name, "ps3") == 0;
    if (strcmp(name, "ps3_text_model") == 0)
        return REFUSE("config.json: got model_type 'ps3_text_model', a text tower only, expected 'ps3' or "
                      "'ps3_vision_model'");
    if (!*whole && strcmp(name, "ps3_vision_model") != 0)
        return REFUSE("config.json: got model_type %s, expected 'ps3' or 'ps3_vision_model'",
                      kind != NULL ? ps3c_json_show(kind, shown) : "none");
    static const char *const parts[] = {"vision_config", "text_config"};
    for (int i = 0; i < 2 && *whole; i++) {
        part = ps3c_json_member(root, parts[i]);
        if (part != NULL && part->kind != PS3C_JSON_NULL && part->kind != PS3C_JSON_OBJECT)
            return REFUSE("config.json: %s: got %s, expected an object", parts[i], ps3c_json_show(part, shown));
        PS3C_TRY(check_not_quantised(context, parts[i], part));
    }
    return check_not_quantised(context, NULL, root);
}

/* Reads config.json's content, when the weight files are open. whole: as check_kind found. */
static ps3c_status read_config(ps3c_context *context, const ps3c_json *root, bool whole, ps3c_checkpoint *checkpoint)
{
    ps3c_checkpoint_info *info = &checkpoint->info;
    tower eyes = {.part = whole ? "config.json: vision_config." : "config.json: ",
                  .info = vision_info,
                  .field_of = ps3c_vision_field_of},
          words = {.part = "config.json: text_config.", .info = text_info, .field_of = ps3c_text_field_of};
    PS3C_TRY(ps3c_read_vision_config(context, eyes.part, whole ? ps3c_json_member(root, "vision_config") : root,
                                     &info->vision));
    eyes.prefix = find_prefix(checkpoint, vision_prefixes, "prior_prompt");
    eyes.prefix = eyes.prefix != NULL ? eyes.prefix : vision_prefixes[0];
    eyes.count = ps3c_vision_weight_count(&info->vision);
    eyes.lists = ps3c_vision_block_lists(&info->vision, eyes.blocks);
    PS3C_TRY(find_weights(context, checkpoint, &eyes, &checkpoint->vision));
    words.prefix = find_prefix(checkpoint, text_prefixes, "positional_embedding");
    info->has_text = whole && words.prefix != NULL;
    if (info->has_text) {
        PS3C_TRY(ps3c_read_text_config(context, words.part, ps3c_json_member(root, "text_config"), &info->text));
        words.count = ps3c_text_weight_count(&info->text);
        words.lists = ps3c_text_block_lists(&info->text, words.blocks);
        PS3C_TRY(find_weights(context, checkpoint, &words, &checkpoint->text));
    }
    return read_dtype(context, root, checkpoint);
}

static ps3c_status read_preprocessor(ps3c_context *context, const char *folder, ps3c_preprocessing *preprocessing)
{
    ps3c_json_document document;
    if (!ps3c_has_entry(folder, preprocessor_name))
        return REFUSE("has no %s, which describes the preprocessing of images", preprocessor_name);
    PS3C_TRY(read_object(context, folder, preprocessor_name, &document));
    const ps3c_status status = ps3c_read_preprocessing(context, document.values, preprocessing);
    ps3c_json_free(&document);
    return status;
}

static ps3c_status read_folder(ps3c_context *context, const char *folder, ps3c_checkpoint *checkpoint)
{
    ps3c_json_document config;
    if (!ps3c_has_entry(folder, "."))
        return REFUSE("the folder does not exist, or is a file");
    if (!ps3c_has_entry(folder, config_name))
        return REFUSE("has no %s, so it is not a checkpoint folder", config_name);
    PS3C_TRY(read_object(context, folder, config_name, &config));
    bool whole;
    ps3c_status status = check_kind(context, config.values, &whole); /* before gigabytes are mapped */
    if (status == PS3C_OK)
        status = open_weights(context, folder, checkpoint);
    if (status == PS3C_OK)
        status = list_tensors(context, checkpoint);
    if (status == PS3C_OK)
        status = read_config(context, config.values, whole, checkpoint);
    ps3c_json_free(&config);
    return status == PS3C_OK ? read_preprocessor(context, folder, &checkpoint->info.preprocessing) : status;
}

/* ---- the public functions ---------------------------------------------------------------------------------------- */

ps3c_status ps3c_checkpoint_open(ps3c_context *context, const char *folder, ps3c_checkpoint **checkpoint)
{
    *checkpoint = calloc(1, sizeof **checkpoint);
    if (*checkpoint == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the checkpoint");
    const ps3c_status status = read_folder(context, folder, *checkpoint);
    if (status != PS3C_OK) {
        ps3c_checkpoint_free(*checkpoint);
        *checkpoint = NULL;
    }
    return status;
}

void ps3c_checkpoint_free(ps3c_checkpoint *checkpoint)
{
    if (checkpoint == NULL)
        return;
    for (int64_t i = 0; i < checkpoint->file_count; i++)
        ps3c_safetensors_close(&checkpoint->files[i]);
    free(checkpoint->files);
    free(checkpoint->tensors);
    free(checkpoint->vision);
    free(checkpoint->text);
    free(checkpoint);
}

const ps3c_checkpoint_info *ps3c_checkpoint_describe(const ps3c_checkpoint *checkpoint) { return &checkpoint->info; }

/* A view of the file's memory. */
static ps3c_tensor view(const ps3c_stored *stored)
{
    ps3c_tensor tensor = {.data = stored->data, .dtype = (ps3c_dtype)stored->dtype, .ndim = stored->ndim};
    int64_t stride = 1;
    for (int d = stored->ndim - 1; d >= 0; d--) {
        tensor.shape[d] = stored->shape[d];
        tensor.strides[d] = stride;
        stride *= stored->shape[d];
    }
    return tensor;
}

static ps3c_status check_index(ps3c_context *context, int64_t index, int64_t count)
{
    return index >= 0 && index < count ? PS3C_OK
                                       : ps3c_fail(context, PS3C_ERROR_VALUE, "index: got %lld, expected 0 to %lld",
                                                   (long long)index, (long long)(count - 1));
}

ps3c_status ps3c_checkpoint_tensor(ps3c_context *context, const ps3c_checkpoint *checkpoint, int64_t index,
                                   const char **name, ps3c_tensor *tensor)
{
    PS3C_TRY(check_index(context, index, checkpoint->info.tensors));
    const ps3c_stored *stored = checkpoint->tensors[index];
    *name = stored->name;
    if (stored->dtype < 0)
        return ps3c_fail(context, PS3C_ERROR_TYPE, "%s: got dtype %s, expected one of ps3c_dtype", stored->name,
                         stored->stored_dtype);
    *tensor = view(stored);
    return PS3C_OK;
}

ps3c_status ps3c_checkpoint_vision_weight(ps3c_context *context, const ps3c_checkpoint *checkpoint, int64_t index,
                                          ps3c_tensor *tensor)
{
    PS3C_TRY(check_index(context, index, ps3c_vision_weight_count(&checkpoint->info.vision)));
    *tensor = view(checkpoint->vision[index]);
    return PS3C_OK;
}

ps3c_status ps3c_checkpoint_text_weight(ps3c_context *context, const ps3c_checkpoint *checkpoint, int64_t index,
                                        ps3c_tensor *tensor)
{
    const int64_t count = checkpoint->info.has_text ? ps3c_text_weight_count(&checkpoint->info.text) : 0;
    PS3C_TRY(check_index(context, index, count));
    *tensor = view(checkpoint->text[index]);
    return PS3C_OK;
}

ps3c_status ps3c_checkpoint_check(ps3c_context *context, const ps3c_checkpoint *checkpoint)
{
    for (int64_t i = 0; i < checkpoint->file_count; i++)
        PS3C_TRY(ps3c_mapped_check(context, &checkpoint->files[i].file));
    return PS3C_OK;
}
