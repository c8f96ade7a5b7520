/* ps3c_model.h over the naive operations: a folder is opened and images are encoded; what is refused; and every
 * allocation fails once, after which nothing is left and the next call is right. Python's tests compare the values. */
#define _GNU_SOURCE
#include "check.h"
#include "naive_backend.h"
#include "tiny_folder.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../csrc/encode/convert.h"
#include "../../csrc/ps3c_model.h"

/* ---- failing allocations (linked with --wrap) ------------------------------------------------------------------- */

static long allocations, fails_at; /* fails_at 0: none fails */

static bool fails(void) { return ++allocations == fails_at; }

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t count, size_t size) { return fails() ? NULL : __real_calloc(count, size); }
void *__wrap_realloc(void *memory, size_t size) { return fails() ? NULL : __real_realloc(memory, size); }
void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : __real_aligned_alloc(alignment, size);
}

/* ---- the folder ------------------------------------------------------------------------------------------------- */

static char folder[] = P_tmpdir "/ps3c-test-model-XXXXXX";
static ps3c_context *context;

static void write_file(const char *name, const void *first, size_t size, const void *second, size_t more)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(first, 1, size, file) == size && fwrite(second, 1, more, file) == more, "%s", path);
    if (file != NULL)
        fclose(file);
}

static void write_weights(void)
{
    enum { ROOM = 1 << 16 };
    static char text[8 + ROOM];
    size_t size = 0;
    const size_t bytes = tiny_header(context, text + 8, ROOM, &size);
    float *data = malloc(bytes);
    CHECK(bytes > 0 && data != NULL, "no header");
    for (size_t i = 0; i < bytes / 4; i++)
        data[i] = 0.2f * (float)random_value() + (i % 7 == 0 ? 0.3f : 0.0f);
    for (int i = 0; i < 8; i++)
        text[i] = (char)(size >> 8 * i);
    write_file("model.safetensors", text, 8 + size, data, bytes);
    free(data);
}

static void write_folder(void)
{
    write_file("config.json", tiny_config, sizeof tiny_config - 1, "", 0);
    write_file("preprocessor_config.json", tiny_preprocessor, sizeof tiny_preprocessor - 1, "", 0);
    write_weights();
}

static void remove_folder(void)
{
    static const char *const names[] = {"config.json", "preprocessor_config.json", "model.safetensors"};
    char path[128];
    for (int i = 0; i < COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

/* ---- encoding --------------------------------------------------------------------------------------------------- */

static uint8_t pixels[50 * 40 * 4];

static ps3c_image image_of(int64_t height, int64_t width, int64_t channels)
{
    return (ps3c_image){pixels, height, width, width * channels, channels};
}

static void check_features(const ps3c_features *f, int64_t looks, int64_t selected, const char *what)
{
    double length = 0.0;
    for (int64_t i = 0; i < f->pooled_width; i++)
        length += (double)f->pooled[i] * f->pooled[i];
    CHECK(f->pooled_width == 64 && fabs(length - 1.0) < 1e-5, "%s: a vector of %lld, length %g", what,
          (long long)f->pooled_width, length);
    if (selected < 0) {
        CHECK(f->num_tokens == 0 && f->tokens == NULL && f->positions == NULL, "%s: has tokens", what);
        return;
    }
    CHECK(f->num_tokens == 1 + selected && f->num_high_scales == 1 && f->grid[1][0] == 2, "%s: %lld tokens", what,
          (long long)f->num_tokens);
    for (int64_t i = 0, last = -1; i < f->num_tokens; i++) {
        const int32_t *p = f->positions + 3 * i;
        const int64_t place = 100 * p[0] + 10 * p[1] + p[2];
        CHECK(place > last && p[0] == (i > 0) && p[1] < 2 && p[2] < 2, "%s: token %d at %d %d %d", what, (int)i, p[0],
              p[1], p[2]);
        CHECK(i == 0 ? f->look[i] == 0 : f->look[i] >= 1 && f->look[i] <= looks, "%s: token %d of look %d", what,
              (int)i, f->look[i]);
        last = place;
    }
}

static void test_requests(void)
{
    const struct {
        int64_t looks, tokens, number, selected;
    } requests[] = {{PS3C_NONE, PS3C_NONE, 0, -1}, {0, PS3C_NONE, 0, 0}, {1, PS3C_NONE, 1, 2},
                    {PS3C_ALL, PS3C_NONE, 2, 4},   {PS3C_NONE, 3, 2, 3}, {PS3C_NONE, PS3C_ALL, 2, 4}};
    float prompt[64];
    for (int i = 0; i < 64; i++)
        prompt[i] = (float)random_value();
    for (int dtype = PS3C_FLOAT32; dtype <= PS3C_BFLOAT16; dtype++)
        for (int i = 0; i < COUNT(requests); i++)
            for (int prompted = 0; prompted < (i > 0 ? 2 : 1); prompted++) {
                const ps3c_model_options options = {.has_dtype = true, .dtype = (ps3c_dtype)dtype};
                const ps3c_encode_request request = {
                    .looks = requests[i].looks, .tokens = requests[i].tokens, .prompt = prompted ? prompt : NULL};
                const ps3c_image image = i % 2 ? image_of(32, 32, 3) : image_of(50, 40, 4);
                ps3c_model *model;
                ps3c_features *features = NULL;
                char what[64];
                snprintf(what, sizeof what, "request %d in %s", i, ps3c_dtype_name((ps3c_dtype)dtype));
                ps3c_status status = ps3c_model_open(context, folder, &options, &model);
                if (status == PS3C_OK)
                    status = ps3c_model_encode(context, model, &image, &request, &features);
                CHECK(status == PS3C_OK, "%s: %s", what, ps3c_context_message(context));
                if (features != NULL)
                    check_features(features, requests[i].number, requests[i].selected, what);
                CHECK(model != NULL && ps3c_model_dtype(model) == (ps3c_dtype)dtype, "%s: another dtype", what);
                CHECK(ps3c_model_vision_weights(model) != NULL && ps3c_model_text_weights(model) != NULL, "weights");
                ps3c_features_free(features);
                ps3c_model_free(model);
            }
}

/* ---- refusals --------------------------------------------------------------------------------------------------- */

static void refused(ps3c_status status, ps3c_status wanted, const char *words)
{
    const char *message = ps3c_context_message(context);
    CHECK(status == wanted && strstr(message, words) != NULL, "got status %d, \"%s\", expected %d, \"%s\"", (int)status,
          message, (int)wanted, words);
}

static void test_refusals(void)
{
    const ps3c_model_options whole_numbers = {.has_dtype = true, .dtype = PS3C_INT8};
    ps3c_model *model;
    ps3c_features *features;
    refused(ps3c_model_open(context, folder, &whole_numbers, &model), PS3C_ERROR_TYPE, "dtype: got int8");
    CHECK(model == NULL, "a model after an error");
    refused(ps3c_model_open(context, "/nowhere", NULL, &model), PS3C_ERROR_CHECKPOINT, "does not exist");
    CHECK(ps3c_model_open(context, folder, NULL, &model) == PS3C_OK, "%s", ps3c_context_message(context));
    if (model == NULL)
        return;
    const struct {
        ps3c_image image;
        int64_t looks, tokens;
        const char *words;
    } rows[] = {{{NULL, 3, 3, 9, 3}, 1, PS3C_NONE, "pixels: got NULL"},
                {{pixels, 3, 3, 9, 2}, 1, PS3C_NONE, "channels: got 2"},
                {{pixels, 0, 3, 9, 3}, 1, PS3C_NONE, "image: got 3 x 0"},
                {{pixels, 3, INT64_MAX, 9, 3}, 1, PS3C_NONE, "image: got 9223372036854775807 x 3"},
                {{pixels, 3, 3, 9, 3}, 1, 1, "looks, tokens: got both"},
                {{pixels, 3, 3, 9, 3}, -7, PS3C_NONE, "num_look_close: got -7"}};
    for (int i = 0; i < COUNT(rows); i++) {
        const ps3c_encode_request request = {.looks = rows[i].looks, .tokens = rows[i].tokens};
        refused(ps3c_model_encode(context, model, &rows[i].image, &request, &features), PS3C_ERROR_VALUE,
                rows[i].words);
        CHECK(features == NULL, "features after an error");
    }
    const float prompt[64] = {0};
    const ps3c_encode_request request = {.looks = PS3C_NONE, .tokens = PS3C_NONE, .prompt = prompt};
    const ps3c_image image = image_of(32, 32, 3);
    refused(ps3c_model_encode(context, model, &image, &request, &features), PS3C_ERROR_VALUE, "prompt: got one");
    const ps3c_checkpoint *checkpoint = ps3c_model_checkpoint(model);
    const char *name;
    ps3c_tensor tensor;
    refused(ps3c_checkpoint_tensor(context, checkpoint, -1, &name, &tensor), PS3C_ERROR_VALUE, "index: got -1");
    refused(ps3c_checkpoint_text_weight(context, checkpoint, 99, &tensor), PS3C_ERROR_VALUE, "index: got 99");
    CHECK(ps3c_checkpoint_tensor(context, checkpoint, 0, &name, &tensor) == PS3C_OK && name[0] != 0, "tensor 0");
    char path[128];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    CHECK(truncate(path, 1000) == 0, "%s", path);
    const ps3c_encode_request plain = {.looks = 1, .tokens = PS3C_NONE};
    refused(ps3c_model_encode(context, model, &image, &plain, &features), PS3C_ERROR_CHECKPOINT, "was changed");
    ps3c_model_free(model);
    write_weights();
}

/* ---- the n-th allocation ------------------------------------------------------------------------------------------ */

static ps3c_status open_and_encode(void)
{
    const ps3c_model_options options = {.has_dtype = true, .dtype = PS3C_FLOAT16};
    const ps3c_encode_request request = {.looks = 1, .tokens = PS3C_NONE};
    const ps3c_image image = image_of(50, 40, 3);
    ps3c_model *model = NULL;
    ps3c_features *features = NULL;
    ps3c_status status = ps3c_model_open(context, folder, &options, &model);
    if (status == PS3C_OK)
        status = ps3c_model_encode(context, model, &image, &request, &features);
    CHECK((status == PS3C_OK) == (features != NULL), "features and status %d", (int)status);
    ps3c_features_free(features);
    ps3c_model_free(model);
    return status;
}

static void test_allocations(void)
{
    allocations = 0;
    CHECK(open_and_encode() == PS3C_OK, "%s", ps3c_context_message(context));
    const long all = allocations;
    CHECK(all > 20, "only %ld allocations", all);
    for (long n = 1; n <= all; n++) {
        allocations = 0;
        fails_at = n;
        const ps3c_status status = open_and_encode();
        fails_at = 0;
        CHECK(status == PS3C_ERROR_MEMORY || status == PS3C_OK, "allocation %ld of %ld: status %d, %s", n, all,
              (int)status, ps3c_context_message(context));
        CHECK(open_and_encode() == PS3C_OK, "after allocation %ld: %s", n, ps3c_context_message(context));
    }
}

/* ---- conversions -------------------------------------------------------------------------------------------------- */

static void test_conversions(void)
{
    const double wide[] = {1.0, -2.5, 1e-300, 1e300};
    float single[4];
    uint16_t half[4];
    ps3c_convert(PS3C_FLOAT64, wide, PS3C_FLOAT32, single, 4);
    CHECK(single[0] == 1.0f && single[1] == -2.5f && single[2] == 0.0f && isinf(single[3]), "float64");
    ps3c_convert(PS3C_FLOAT64, wide, PS3C_BFLOAT16, half, 4);
    CHECK(half[0] == 0x3f80 && half[1] == 0xc020 && half[2] == 0 && half[3] == 0x7f80, "bfloat16");
    for (uint32_t bits = 0; bits < 0x10000; bits++) { /* every half comes back, and a NaN stays one */
        const uint16_t value = (uint16_t)bits;
        uint16_t back;
        for (int dtype = PS3C_FLOAT16; dtype <= PS3C_BFLOAT16; dtype++) {
            ps3c_convert((ps3c_dtype)dtype, &value, PS3C_FLOAT32, single, 1);
            ps3c_convert(PS3C_FLOAT32, single, (ps3c_dtype)dtype, &back, 1);
            CHECK(isnan(single[0]) ? back != value || (back & 0x7fff) > 0x7c00 : back == value, "%04x -> %04x", value,
                  back);
        }
    }
}

int main(void)
{
    ps3c_register_backend(PS3C_CPU, &naive_source);
    context = ps3c_context_create();
    if (mkdtemp(folder) == NULL) {
        printf("FAIL %s: %s\n", folder, strerror(errno));
        return 1;
    }
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)random_bits();
    write_folder();
    CHECK(strcmp(ps3c_version(), "") != 0, "no version");
    test_requests();
    test_refusals();
    test_allocations();
    test_conversions();
    remove_folder();
    ps3c_context_free(context);
    return check_report("model");
}
