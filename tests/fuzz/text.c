/* Fuzz target: a text configuration, a request and the tensors of a run, mutated together; as vision.c. */
#include "fuzz.h"

typedef struct inputs {
    ps3c_text_config config;
    ps3c_text_request request;
    ps3c_tensor ids, pooled, prompt, *weights;
    ps3c_text_io io;
    bool known_ids; /* every id is in the vocabulary */
} inputs;

static void read_config(fuzz *f, ps3c_text_config *c)
{
    c->heads = fuzz_integer(f, 1, 2, 1, 1 << 17);
    c->width = fuzz_times(fuzz_times(c->heads, 8), fuzz_integer(f, 1, 2, 1, 1 << 8));
    c->depth = fuzz_integer(f, 1, 2, 1, 4096);
    c->mlp_hidden = fuzz_integer(f, 1, 20, 1, 1 << 20);
    c->context_length = fuzz_integer(f, 1, 60, 1, 1 << 20);
    c->vocab_size = fuzz_integer(f, 1, 20, 1, INT32_MAX);
    c->output_dim = fuzz_integer(f, 1, 20, 1, 1 << 20);
    c->prompt_dim = fuzz_integer(f, 1, 20, 1, 1 << 20);
    c->pad_id = fuzz_integer(f, 0, 3, INT64_MIN, INT64_MAX);
    c->pool = (ps3c_text_pool)fuzz_integer(f, 0, 3, 0, 3);
    c->norm_eps = fuzz_float(f, 1e-6f);
    const uint8_t flags = fuzz_byte(f);
    c->causal = flags & 1;
    c->class_token = flags & 2;
    c->layer_scale = flags & 4;
    c->tanh_gelu = flags & 8;
    c->projection_linear = flags & 16;
    c->projection_bias = flags & 32;
}

static void read_request(fuzz *f, inputs *in)
{
    ps3c_text_request *r = &in->request;
    const int64_t most = in->config.context_length;
    r->batch = fuzz_integer(f, 1, 5, 1, INT32_MAX);
    r->length = fuzz_integer(f, most < 2 ? most : 2, most > 60 ? 60 : most, 1, most);
    r->dtype = (ps3c_dtype)fuzz_integer(f, 0, 2, 0, 2);
    r->device.type = (ps3c_device_type)fuzz_integer(f, 0, 0, 0, 0);
    if (fuzz_rarely(f, 4))
        r->workspace_limit = (size_t)1 << fuzz_byte(f) % 24;
}

static bool make_tensors(fuzz *f, inputs *in, ps3c_context *context, const ps3c_text_plan_info *info, uint8_t kind)
{
    const ps3c_text_request *r = &in->request;
    const int64_t count = ps3c_text_weight_count(&in->config),
                  widths[] = {in->config.output_dim, in->config.prompt_dim};
    ps3c_tensor *outputs[] = {&in->pooled, &in->prompt};
    if (count > 300 || !(in->weights = fuzz_memory(f, (size_t)count * sizeof *in->weights)))
        return false;
    for (int64_t i = 0; i < count; i++) {
        ps3c_weight_info weight;
        FUZZ_CHECK(ps3c_text_weight_info(context, &in->config, i, &weight) == PS3C_OK, "weight %lld", (long long)i);
        if (!fuzz_dense(f, &in->weights[i], r->dtype, weight.ndim, weight.shape, kind))
            return false;
    }
    for (int k = 0; k < 2; k++) {
        const int64_t each[] = {r->batch, info->pooled_tokens, widths[k]}, one[] = {r->batch, widths[k]};
        if (!fuzz_dense(f, outputs[k], r->dtype, info->every_token ? 3 : 2, info->every_token ? each : one, 0))
            return false;
        memset(outputs[k]->data, FUZZ_UNWRITTEN,
               fuzz_values(outputs[k]->ndim, outputs[k]->shape) * ps3c_dtype_bytes(r->dtype));
    }
    if (!fuzz_strided(f, &in->ids, PS3C_INT64, 2, (int64_t[]){r->batch, r->length}, 1))
        return false;
    in->known_ids = true;
    for (int64_t b = 0; b < r->batch; b++)
        for (int64_t t = 0; t < r->length; t++) {
            int64_t *id = (int64_t *)in->ids.data + b * in->ids.strides[0] + t * in->ids.strides[1];
            *id = fuzz_byte(f) % in->config.vocab_size;
        }
    if (fuzz_rarely(f, 8)) {
        *(int64_t *)in->ids.data = fuzz_hostile_value(f, 0, in->config.vocab_size - 1);
        in->known_ids = *(int64_t *)in->ids.data >= 0 && *(int64_t *)in->ids.data < in->config.vocab_size;
    }
    in->io = (ps3c_text_io){.ids = &in->ids, .weights = in->weights, .pooled = &in->pooled, .prompt = &in->prompt};
    return true;
}

/* Makes one thing of the run invalid. */
static void spoil(fuzz *f, inputs *in)
{
    const uint8_t which = fuzz_byte(f);
    switch (which % 8) {
    case 0:
        in->io.weights = NULL;
        return;
    case 1:
        in->io.ids = NULL;
        return;
    case 2:
        in->io.workspace_bytes -= 1;
        return;
    case 3:
        in->io.pooled = NULL;
        return;
    case 4:
        fuzz_spoil(f, &in->ids, false, 4);
        return;
    case 5:
        fuzz_spoil(f, &in->prompt, true, 4);
        return;
    case 6:
        fuzz_spoil(f, &in->pooled, true, 4);
        return;
    default:
        fuzz_spoil(f, &in->weights[fuzz_byte(f) % ps3c_text_weight_count(&in->config)], true, 4);
    }
}

static void check_written(const ps3c_tensor *t)
{
    const size_t rows = fuzz_values(t->ndim - 1, t->shape),
                 row = (size_t)t->shape[t->ndim - 1] * ps3c_dtype_bytes(t->dtype);
    for (size_t n = 0; n < rows && row > 8; n++) {
        const uint8_t *at = (const uint8_t *)t->data + n * row;
        FUZZ_CHECK(at[0] != FUZZ_UNWRITTEN || memcmp(at, at + 1, row - 1), "row %zu not written", n);
    }
}

static void run_plan(fuzz *f, inputs *in, ps3c_context *context, const ps3c_text_plan *plan)
{
    ps3c_text_plan_info info;
    const size_t offset = fuzz_byte(f);
    const uint8_t kind = fuzz_byte(f);
    ps3c_text_plan_describe(plan, &info);
    FUZZ_CHECK(info.workspace_bytes >= 256 && info.workspace_bytes <= SIZE_MAX / 4, "%zu", info.workspace_bytes);
    if (info.workspace_bytes > FUZZ_MOST_BYTES || in->request.batch * in->request.length > 2000 || in->config.depth > 8)
        return;
    char *workspace = fuzz_memory(f, info.workspace_bytes + offset);
    if (!workspace || !make_tensors(f, in, context, &info, kind))
        return;
    fuzz_fill(workspace, info.workspace_bytes + offset, (uint8_t)(kind + 2));
    in->io.workspace = workspace + offset;
    in->io.workspace_bytes = info.workspace_bytes;
    const bool spoiled = fuzz_rarely(f, 4);
    if (spoiled)
        spoil(f, in);
    const ps3c_status status = ps3c_text_run(context, plan, &in->io);
    if (status != PS3C_OK)
        fuzz_check_failure(context, status);
    FUZZ_CHECK(!spoiled || status != PS3C_OK, "an invalid run was not refused");
    FUZZ_CHECK(spoiled || !in->known_ids || status == PS3C_OK, "a valid run was refused: %s",
               ps3c_context_message(context));
    FUZZ_CHECK(in->known_ids || status != PS3C_OK, "an unknown id was not refused");
    if (status == PS3C_OK) {
        check_written(&in->pooled);
        check_written(&in->prompt);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = fuzz_begin(data, size);
    inputs in = {0};
    ps3c_text_plan *plan = NULL;
    ps3c_context *context = fuzz_context(&f);
    read_config(&f, &in.config);
    read_request(&f, &in);
    const ps3c_status status = ps3c_text_plan_create(context, &in.config, &in.request, &plan);
    FUZZ_CHECK((status == PS3C_OK) == (plan != NULL), "status %d", (int)status);
    if (plan)
        run_plan(&f, &in, context, plan);
    else
        fuzz_check_failure(context, status);
    ps3c_text_plan_free(plan);
    ps3c_context_free(context);
    fuzz_end(&f);
    return 0;
}
