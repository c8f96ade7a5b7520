/* What the C API refuses: the status, and the message that names the field. The tests of Python reach what Python can
 * pass; this file has the rest. The engine runs over the naive operations. */
#include "check.h"
#include "naive_backend.h"

static ps3c_context *context;

/* The call's status is `wanted`, and its message begins with `words`. */
static void refused(ps3c_status status, ps3c_status wanted, const char *words)
{
    const char *message = ps3c_context_message(context);
    CHECK(status == wanted && !strncmp(message, words, strlen(words)), "got status %d, \"%s\", expected %d, \"%s\"",
          (int)status, message, (int)wanted, words);
}

static ps3c_vision_config vision_config(void)
{
    return (ps3c_vision_config){.width = 32,
                                .depth = 2,
                                .heads = 2,
                                .mlp_hidden = 64,
                                .patch = 8,
                                .grid = 4,
                                .norm_eps = 1e-6f,
                                .num_scales = 3,
                                .scales = {32, 64, 128},
                                .max_select_num = {10, 40},
                                .num_select_layers = 1,
                                .select_layers = {-1},
                                .pool_width = 32,
                                .pool_heads = 2,
                                .pool_hidden = 64,
                                .pool_eps = 1e-6f};
}

static ps3c_vision_request vision_request(void)
{
    return (ps3c_vision_request){.batch = 1,
                                 .height = 128,
                                 .width = 128,
                                 .dtype = PS3C_FLOAT32,
                                 .num_look_close = 1,
                                 .num_token_look_close = PS3C_NONE,
                                 .hidden_states = 1};
}

static ps3c_text_config text_config(void)
{
    return (ps3c_text_config){.width = 32,
                              .depth = 1,
                              .heads = 2,
                              .mlp_hidden = 64,
                              .context_length = 8,
                              .vocab_size = 50,
                              .output_dim = 24,
                              .prompt_dim = 32,
                              .norm_eps = 1e-6f,
                              .pool = PS3C_POOL_NONE};
}

/* ---- vision ------------------------------------------------------------------------------------------------------ */

static void refuse_vision(ps3c_vision_config config, ps3c_vision_request request, ps3c_status wanted, const char *words)
{
    ps3c_vision_plan *plan = (ps3c_vision_plan *)&request;
    refused(ps3c_vision_plan_create(context, &config, &request, &plan), wanted, words);
    CHECK(!plan, "%s: a plan was made", words);
}

static void test_vision_plans(void)
{
    const ps3c_vision_config config = vision_config();
    ps3c_vision_request request = vision_request();
    ps3c_vision_plan *plan;
    CHECK(ps3c_vision_plan_create(context, &config, &request, &plan) == PS3C_OK, "%s", ps3c_context_message(context));
    ps3c_vision_plan_free(plan);
    request.dtype = PS3C_INT8;
    refuse_vision(config, request, PS3C_ERROR_TYPE, "dtype: got int8, expected float32");
    request = vision_request();
    request.mode = (ps3c_vision_mode)9;
    refuse_vision(config, request, PS3C_ERROR_VALUE, "mode: got 9, expected a ps3c_vision_mode");
    request = vision_request();
    request.num_look_close = -7;
    refuse_vision(config, request, PS3C_ERROR_VALUE, "num_look_close: got -7, expected PS3C_NONE, PS3C_ALL or 0");
    request = vision_request();
    request.num_look_close = PS3C_NONE;
    request.num_token_look_close = -8;
    refuse_vision(config, request, PS3C_ERROR_VALUE, "num_token_look_close: got -8, expected");
    request = vision_request();
    request.device.type = PS3C_CUDA;
    refuse_vision(config, request, PS3C_ERROR_RUNTIME, "device: got cuda, expected a device whose backend is");
}

static void test_vision_weights(void)
{
    const ps3c_vision_config config = vision_config();
    const ps3c_vision_request request = vision_request();
    const int64_t count = ps3c_vision_weight_count(&config);
    ps3c_weight_info info;
    refused(ps3c_vision_weight_info(context, &config, -1, &info), PS3C_ERROR_VALUE, "index: got -1, expected 0 to ");
    refused(ps3c_vision_weight_info(context, &config, count, &info), PS3C_ERROR_VALUE, "index: got ");
    ps3c_vision_plan *plan;
    const ps3c_tensor good = {
        .data = &info, .ndim = 4, .shape = {1, 3, 128, 128}, .strides = {3 * 128 * 128, 128 * 128, 128, 1}};
    const ps3c_tensor pixels = {.data = &info, .ndim = 9};
    CHECK(ps3c_vision_plan_create(context, &config, &request, &plan) == PS3C_OK, "no plan");
    refused(ps3c_vision_check_io(context, plan, &(ps3c_vision_io){.pixel_values = &good}), PS3C_ERROR_VALUE,
            "weights: got no tensors, expected ");
    ps3c_tensor *weights = calloc((size_t)count, sizeof *weights);
    for (int64_t i = 0; weights && i < count; i++) {
        ps3c_vision_weight_info(context, &config, i, &info);
        weights[i] = (ps3c_tensor){.data = &info, .ndim = info.ndim};
        for (int d = info.ndim - 1, stride = 1; d >= 0; stride *= (int)info.shape[d--]) {
            weights[i].shape[d] = info.shape[d];
            weights[i].strides[d] = stride;
        }
    }
    refused(ps3c_vision_check_io(context, plan, &(ps3c_vision_io){.pixel_values = &pixels, .weights = weights}),
            PS3C_ERROR_VALUE, "pixel_values: got 9 dimensions, expected 0 to 8");
    refused(ps3c_vision_run_step(context, plan, &(ps3c_vision_io){.pixel_values = &pixels, .weights = weights}, 9),
            PS3C_ERROR_VALUE, "step: got 9, expected 0 to ");
    free(weights);
    ps3c_vision_plan_free(plan);
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void test_text(void)
{
    ps3c_text_config config = text_config();
    ps3c_text_request request = {.batch = 2, .length = 8, .dtype = PS3C_FLOAT32};
    ps3c_weight_info info;
    ps3c_text_plan *plan;
    CHECK(ps3c_text_plan_create(context, &config, &request, &plan) == PS3C_OK, "%s", ps3c_context_message(context));
    ps3c_text_plan_info described;
    ps3c_text_plan_describe(plan, &described);
    CHECK(ps3c_text_plan_workspace_bytes(plan) == described.workspace_bytes && described.workspace_bytes > 0 &&
              ps3c_text_plan_pooled_tokens(plan) == 8 && described.pooled_tokens == 8,
          "the two ways to read a plan differ");
    ps3c_text_plan_free(plan);
    refused(ps3c_text_weight_info(context, &config, 999, &info), PS3C_ERROR_VALUE, "index: got 999, expected 0 to ");
    request.dtype = PS3C_UINT8;
    refused(ps3c_text_plan_create(context, &config, &request, &plan), PS3C_ERROR_TYPE, "dtype: got uint8, expected");
    CHECK(!plan, "a plan was made");
}

/* ---- context ----------------------------------------------------------------------------------------------------- */

static void test_context(void)
{
    refused(ps3c_context_set_threads(context, -1), PS3C_ERROR_VALUE, "threads: got -1, expected 0");
    refused(ps3c_context_set_cpu_level(context, "abacus"), PS3C_ERROR_VALUE, "level: got 'abacus', expected ");
    const ps3c_vision_config config = vision_config();
    const ps3c_vision_request request = vision_request();
    ps3c_vision_plan *plan;
    ps3c_context *kept = context;
    setenv("PS3C_CPU_LEVEL", "abacus", 1);
    context = ps3c_context_create();
    refused(ps3c_vision_plan_create(context, &config, &request, &plan), PS3C_ERROR_VALUE,
            "environment variable PS3C_CPU_LEVEL: got 'abacus', expected ");
    ps3c_context_free(context);
    setenv("PS3C_CPU_LEVEL", "naive", 1);
    context = ps3c_context_create();
    CHECK(!strcmp(ps3c_context_cpu_level(context), "naive"), "got level %s", ps3c_context_cpu_level(context));
    ps3c_context_free(context);
    unsetenv("PS3C_CPU_LEVEL");
    context = kept;
}

/* ---- image ------------------------------------------------------------------------------------------------------- */

static void test_image(void)
{
    const uint8_t pixels[4 * 4 * 4] = {0};
    const float mean[3] = {0}, std[3] = {1, 1, 1}, none[3] = {1, 0, 1};
    float out[3 * 4 * 4];
    refused(ps3c_image_normalize(context, pixels, 4, 4, 8, 2, mean, std, out), PS3C_ERROR_VALUE,
            "pixels: got 2 channels, expected 3 or 4");
    refused(ps3c_image_normalize(context, pixels, 0, 4, 12, 3, mean, std, out), PS3C_ERROR_VALUE,
            "pixels: got 0 x 4, expected 1 x 1 or more");
    refused(ps3c_image_normalize(context, pixels, 4, 4, 12, 3, mean, none, out), PS3C_ERROR_VALUE,
            "std: got 0 for channel 1");
    uint8_t resized[4 * 4 * 4];
    refused(ps3c_image_resize_columns(context, pixels, 4, 4, 12, 2, PS3C_BICUBIC, 4, resized), PS3C_ERROR_VALUE,
            "pixels: got 2 channels, expected 3 or 4");
    refused(ps3c_image_resize_columns(context, pixels, 4, 4, 12, 3, (ps3c_image_filter)7, 4, resized), PS3C_ERROR_VALUE,
            "filter: got 7, expected PS3C_BILINEAR or PS3C_BICUBIC");
    refused(ps3c_image_resize_rows(context, pixels, 4, 4, PS3C_BICUBIC, 0, mean, std, out), PS3C_ERROR_VALUE,
            "pixels: got 4 x 4 to resize to 0, expected sides of 1 to 2^30");
    CHECK(ps3c_image_normalize(context, pixels, 4, 4, 12, 3, mean, std, out) == PS3C_OK && out[0] == 0, "not zeros");
}

int main(void)
{
    ps3c_register_backend(PS3C_CPU, &naive_source);
    context = ps3c_context_create();
    if (!context)
        return 2;
    test_vision_plans();
    test_vision_weights();
    test_text();
    test_context();
    test_image();
    ps3c_context_free(context);
    return check_report("test_refusals");
}
