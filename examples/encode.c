/* Encodes one image with ps3c's C library, without Python:
 *
 *     encode MODEL.txt WEIGHTS.bin IMAGE.bin HEIGHT WIDTH LOOKS FEATURES.bin
 *
 * MODEL.txt    the fields of ps3c_vision_config, one "name number ..." per line WEIGHTS.bin  float32 values of all
 * weights, in the order of ps3c_vision_weight_info IMAGE.bin    float32 (3, HEIGHT, WIDTH), normalised with the mean
 * and std of the model LOOKS        number of looks, or "all"; 0: low resolution only FEATURES.bin output: float32
 * (tokens, width); the low-res tokens, then the selected patches in (scale, row, column) order
 *
 * Prints the numbers of tokens, patches and looks. On an error it prints a message to stderr and exits with 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ps3c.h"

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "encode: %s: %s\n", what, why);
    return 1;
}

/* Reads a file of exactly `count` floats. The caller frees them. NULL if the file cannot be read or has another size.
 */
static float *read_floats(const char *path, int64_t count)
{
    FILE *file = fopen(path, "rb");
    float *values = malloc((size_t)count * sizeof *values);
    bool read =
        file && values && fread(values, sizeof *values, (size_t)count, file) == (size_t)count && fgetc(file) == EOF;
    if (file)
        fclose(file);
    if (read)
        return values;
    free(values);
    return NULL;
}

/* Sets the field `name` of the configuration to the `count` numbers v. False if the name is unknown. */
static bool set_field(ps3c_vision_config *c, const char *name, const double *v, int count)
{
    const struct {
        const char *name;
        int64_t *value;
    } sizes[] = {{"width", &c->width},
                 {"depth", &c->depth},
                 {"heads", &c->heads},
                 {"mlp_hidden", &c->mlp_hidden},
                 {"patch", &c->patch},
                 {"grid", &c->grid},
                 {"conv_width", &c->conv_width},
                 {"conv_out", &c->conv_out},
                 {"conv_depth", &c->conv_depth},
                 {"conv_kernel", &c->conv_kernel},
                 {"pool_width", &c->pool_width},
                 {"pool_heads", &c->pool_heads},
                 {"pool_hidden", &c->pool_hidden},
                 {"adapter_hidden", &c->adapter_hidden},
                 {"adapter_out", &c->adapter_out},
                 {"adapter_blocks", &c->adapter_blocks}};
    const struct {
        const char *name;
        bool *value;
    } switches[] = {{"tanh_gelu", &c->tanh_gelu},
                    {"crop_positions", &c->crop_positions},
                    {"final_norm", &c->final_norm},
                    {"separate_positions", &c->separate_positions},
                    {"highres_features", &c->highres_features}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (!strcmp(name, sizes[i].name))
            return *sizes[i].value = (int64_t)v[0], true;
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
        if (!strcmp(name, switches[i].name))
            return *switches[i].value = v[0] != 0, true;
    if (!strcmp(name, "norm_eps"))
        return c->norm_eps = (float)v[0], true;
    if (!strcmp(name, "pool_eps"))
        return c->pool_eps = (float)v[0], true;
    if (!strcmp(name, "adapter"))
        return c->adapter = (ps3c_adapter)v[0], true;
    for (int i = 0; i < count; i++) {
        if (!strcmp(name, "scales"))
            c->scales[i] = (int64_t)v[i], c->num_scales = count;
        else if (!strcmp(name, "max_select_num"))
            c->max_select_num[i] = (int64_t)v[i];
        else if (!strcmp(name, "select_layers"))
            c->select_layers[i] = (int64_t)v[i], c->num_select_layers = count;
        else
            return false;
    }
    return count > 0;
}

static bool read_config(const char *path, ps3c_vision_config *config)
{
    char line[512], name[64];
    bool good = true;
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    while (good && fgets(line, sizeof line, file)) {
        double values[PS3C_MAX_SCALES] = {0};
        int count = 0, at, step;
        if (sscanf(line, "%63s%n", name, &at) != 1)
            continue;
        while (count < PS3C_MAX_SCALES && sscanf(line + at, "%lf%n", &values[count], &step) == 1) {
            at += step;
            count++;
        }
        good = set_field(config, name, values, count);
        if (!good)
            fprintf(stderr, "encode: %s: unknown field '%s'\n", path, name);
    }
    fclose(file);
    return good;
}

/* A contiguous float32 tensor over data. */
static ps3c_tensor tensor_of(float *data, int ndim, const int64_t *shape)
{
    ps3c_tensor tensor = {.data = data, .dtype = PS3C_FLOAT32, .ndim = ndim};
    int64_t stride = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        tensor.shape[i] = shape[i];
        tensor.strides[i] = stride;
        stride *= shape[i];
    }
    return tensor;
}

/* All weights as tensors over one block of floats. *floats: their total number. The caller frees the array of tensors.
 */
static ps3c_tensor *weights_of(ps3c_context *context, const ps3c_vision_config *config, float *values, int64_t *floats)
{
    const int64_t count = ps3c_vision_weight_count(config);
    ps3c_tensor *weights = calloc((size_t)count, sizeof *weights);
    *floats = 0;
    for (int64_t i = 0; weights && i < count; i++) {
        ps3c_weight_info info;
        int64_t size = 1;
        if (ps3c_vision_weight_info(context, config, i, &info) != PS3C_OK)
            break;
        for (int d = 0; d < info.ndim; d++)
            size *= info.shape[d];
        weights[i] = tensor_of(values ? values + *floats : NULL, info.ndim, info.shape);
        *floats += size;
    }
    return weights;
}

/* Plans, allocates, runs, and writes the last hidden state to the file `out`. Frees all that it allocates. */
static int encode(ps3c_context *context, const ps3c_vision_config *config, const ps3c_vision_request *request,
                  ps3c_tensor *weights, float *image, const char *out)
{
    const int64_t image_shape[] = {1, 3, request->height, request->width};
    ps3c_tensor pixels = tensor_of(image, 4, image_shape), maps[PS3C_MAX_SCALES], probs[PS3C_MAX_SCALES];
    ps3c_vision_plan_info info;
    ps3c_vision_plan *plan;
    int64_t tokens, patches = 0;
    int failed = 0;
    if (ps3c_vision_plan_create(context, config, request, &plan) != PS3C_OK)
        return fail("plan", ps3c_context_message(context));
    ps3c_vision_plan_describe(plan, &info);
    tokens = info.low_res_tokens + info.selected_tokens;
    for (int64_t s = 0; s < info.num_high_scales; s++)
        patches += info.grid[s + 1][0] * info.grid[s + 1][1];
    float *features = malloc((size_t)(info.hidden_states * tokens * config->width) * sizeof *features);
    float *both = malloc((size_t)patches * 2 * sizeof *both);
    void *workspace = malloc(info.workspace_bytes);
    ps3c_tensor *hidden = calloc((size_t)info.hidden_states, sizeof *hidden);
    if (features && both && workspace && hidden) {
        const int64_t shape[] = {1, tokens, config->width};
        float *at = both;
        for (int64_t i = 0; i < info.hidden_states; i++)
            hidden[i] = tensor_of(features + i * tokens * config->width, 3, shape);
        for (int64_t s = 0; s < info.num_high_scales; s++) {
            const int64_t map[] = {1, info.grid[s + 1][0], info.grid[s + 1][1]};
            maps[s] = tensor_of(at, 3, map);
            probs[s] = tensor_of(at + map[1] * map[2], 3, map);
            at += 2 * map[1] * map[2];
        }
        const ps3c_vision_io io = {.pixel_values = &pixels,
                                   .weights = weights,
                                   .hidden_states = hidden,
                                   .selection_maps = maps,
                                   .selection_probs = probs,
                                   .workspace = workspace,
                                   .workspace_bytes = info.workspace_bytes};
        if (ps3c_vision_run(context, plan, &io) != PS3C_OK) {
            failed = fail("run", ps3c_context_message(context));
        } else {
            const float *last = features + (info.hidden_states - 1) * tokens * config->width;
            FILE *file = fopen(out, "wb");
            const size_t count = (size_t)(tokens * config->width);
            if (!file || fwrite(last, sizeof *last, count, file) != count)
                failed = fail(out, "cannot be written");
            if (file && fclose(file))
                failed = fail(out, "cannot be written");
            printf("%lld low-res tokens, %lld patches in %lld looks, width %lld, %s\n", (long long)info.low_res_tokens,
                   (long long)info.selected_tokens, (long long)info.looks, (long long)config->width,
                   ps3c_context_cpu_level(context));
        }
    } else {
        failed = fail("run", "no memory");
    }
    free(hidden);
    free(workspace);
    free(both);
    free(features);
    ps3c_vision_plan_free(plan);
    return failed;
}

int main(int argc, char **argv)
{
    ps3c_vision_config config = {0};
    ps3c_vision_request request = {
        .batch = 1, .dtype = PS3C_FLOAT32, .num_token_look_close = PS3C_NONE, .hidden_states = 1};
    ps3c_register_backend(PS3C_CPU, &ps3c_cpu_source);
    ps3c_context *context = ps3c_context_create();
    ps3c_tensor *weights = NULL;
    float *values = NULL, *image = NULL;
    int64_t floats;
    int failed = 1;
    if (!context)
        return fail("context", "no memory");
    if (argc != 8) {
        fail("arguments", "expected MODEL.txt WEIGHTS.bin IMAGE.bin HEIGHT WIDTH LOOKS FEATURES.bin");
    } else if (!read_config(argv[1], &config)) {
        fail(argv[1], "cannot be read");
    } else if (ps3c_vision_config_check(context, &config) != PS3C_OK) {
        fail(argv[1], ps3c_context_message(context));
    } else {
        request.height = atoll(argv[4]);
        request.width = atoll(argv[5]);
        request.num_look_close = strcmp(argv[6], "all") ? atoll(argv[6]) : PS3C_ALL;
        free(weights_of(context, &config, NULL, &floats));
        values = read_floats(argv[2], floats);
        image =
            request.height > 0 && request.width > 0 ? read_floats(argv[3], 3 * request.height * request.width) : NULL;
        weights = weights_of(context, &config, values, &floats);
        if (!values || !image || !weights)
            fail(!values ? argv[2] : argv[3], "cannot be read, or has another size than the model wants");
        else
            failed = encode(context, &config, &request, weights, image, argv[7]);
    }
    free(weights);
    free(image);
    free(values);
    ps3c_context_free(context);
    return failed;
}
