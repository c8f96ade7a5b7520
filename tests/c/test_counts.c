/* Counts of one forward pass: the calls of each operation, the values that each writes, and the allocations (none).
 *
 * The engine runs on a backend that counts and then calls the naive operations. A number here changes if a fusion is
 * lost, a copy is added, a step runs once per look instead of once per group, or memory is allocated. */
#include "check.h"

/* clang-format off */
#define OPERATIONS(OP) PS3C_OPERATIONS(OP) PS3C_HOST_OPERATIONS(OP)
/* clang-format on */

enum {
    DEPTH = 3,
    WIDTH = 32,
    HIDDEN = 64,
    CONV = 16,
    CONV_DEPTH = 2,
    SELECT = 2,
    PATCH = 4,
    LOW = 16,
    LOOK = 20,
    OUT = 2,
    THREADS = 2
};

#define FIELD(op) int64_t op;
static struct counts {
    OPERATIONS(FIELD)
} calls, values; /* values: number of values that an operation wrote to an activation */
static int64_t multiplications;
static long allocations;

/* ---- the counting backend ---------------------------------------------------------------------------------------- */

static int64_t size_of(const ps3c_activation *a) { return a->segments * a->tokens * a->channels; }

static int64_t written_gemm(const ps3c_gemm_args *args)
{
    multiplications += args->x->segments * args->x->tokens * args->n * args->k;
    return args->x->segments * args->x->tokens * args->n;
}
static int64_t written_layernorm(const ps3c_layernorm_args *args) { return size_of(args->y); }
static int64_t written_attention(const ps3c_attention_args *args) { return size_of(args->out); }
static int64_t written_patch_gather(const ps3c_patch_gather_args *args) { return size_of(args->out); }
static int64_t written_position_add(const ps3c_position_add_args *args) { return size_of(args->x); }
static int64_t written_depthwise(const ps3c_depthwise_args *args) { return size_of(args->y); }
static int64_t written_to_rows(const ps3c_to_rows_args *args) { return size_of(args->x); }
static int64_t written_from_rows(const ps3c_from_rows_args *args) { return size_of(args->out); }
static int64_t written_copy_channels(const ps3c_copy_channels_args *args) { return size_of(args->x); }

#define COUNT_CALLS(op)                                                              \
    static ps3c_status count_##op(const ps3c_run *run, const ps3c_##op##_args *args) \
    {                                                                                \
        calls.op++;                                                                  \
        return ps3c_##op##_naive(run, args);                                         \
    }
#define COUNT_VALUES(op)                                                               \
    static ps3c_status counted_##op(const ps3c_run *run, const ps3c_##op##_args *args) \
    {                                                                                  \
        values.op += written_##op(args);                                               \
        return count_##op(run, args);                                                  \
    }
OPERATIONS(COUNT_CALLS)
COUNT_VALUES(gemm)
COUNT_VALUES(layernorm)
COUNT_VALUES(attention)
COUNT_VALUES(patch_gather)
COUNT_VALUES(position_add)
COUNT_VALUES(depthwise)
COUNT_VALUES(to_rows)
COUNT_VALUES(from_rows)
COUNT_VALUES(copy_channels)

static ps3c_status find_backend(ps3c_context *context, int32_t device_index, const char *level,
                                const ps3c_backend **found)
{
#define COUNTED(op) .op = count_##op,
    static ps3c_backend backend = {.name = "counting",
                                   .activation_bytes = ps3c_cpu_activation_bytes,
                                   .scratch_bytes = ps3c_cpu_scratch_bytes,
                                   .begin = ps3c_cpu_begin,
                                   .end = ps3c_cpu_end,
                                   OPERATIONS(COUNTED)};
    (void)context, (void)device_index, (void)level;
    backend.gemm = counted_gemm;
    backend.layernorm = counted_layernorm;
    backend.attention = counted_attention;
    backend.patch_gather = counted_patch_gather;
    backend.position_add = counted_position_add;
    backend.depthwise = counted_depthwise;
    backend.to_rows = counted_to_rows;
    backend.from_rows = counted_from_rows;
    backend.copy_channels = counted_copy_channels;
    *found = &backend;
    return PS3C_OK;
}

static const ps3c_backend_source counting = {.find = find_backend};

/* The linker redirects the allocations of engine and kernels to these (--wrap). */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes)
{
    allocations++;
    return __real_malloc(bytes);
}
void *__wrap_calloc(size_t count, size_t bytes)
{
    allocations++;
    return __real_calloc(count, bytes);
}
void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    allocations++;
    return __real_aligned_alloc(alignment, bytes);
}

/* ---- a pass ------------------------------------------------------------------------------------------------------ */

static const ps3c_vision_config config = {.width = WIDTH,
                                          .depth = DEPTH,
                                          .heads = 2,
                                          .mlp_hidden = HIDDEN,
                                          .patch = PATCH,
                                          .grid = 4,
                                          .norm_eps = 1e-6f,
                                          .final_norm = true,
                                          .num_scales = 3,
                                          .scales = {16, 32, 64},
                                          .max_select_num = {LOOK / 4, LOOK - LOOK / 4},
                                          .separate_positions = true,
                                          .num_select_layers = SELECT,
                                          .select_layers = {0, 2},
                                          .highres_features = true,
                                          .conv_width = CONV,
                                          .conv_out = CONV,
                                          .conv_depth = CONV_DEPTH,
                                          .conv_kernel = 28,
                                          .pool_width = WIDTH,
                                          .pool_heads = 2,
                                          .pool_hidden = HIDDEN,
                                          .pool_eps = 1e-6f};

static ps3c_tensor random_tensor(int ndim, const int64_t *shape)
{
    ps3c_tensor t = {.dtype = PS3C_FLOAT32, .ndim = ndim};
    int64_t count = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.strides[i] = count;
        count *= shape[i];
    }
    float *data = malloc((size_t)count * sizeof *data);
    for (int64_t i = 0; data && i < count; i++)
        data[i] = (float)random_value();
    t.data = data;
    return t;
}

/* Runs `batch` images with `looks` looks and counts; false on failure. */
static bool run(int64_t batch, int64_t looks)
{
    ps3c_context *context = ps3c_context_create();
    if (context)
        ps3c_context_set_threads(context, THREADS);
    const ps3c_vision_request request = {.batch = batch,
                                         .height = 40,
                                         .width = 40,
                                         .num_look_close = looks,
                                         .num_token_look_close = PS3C_NONE,
                                         .hidden_states = OUT};
    const int64_t count = ps3c_vision_weight_count(&config);
    ps3c_tensor *weights = calloc((size_t)count, sizeof *weights), hidden[DEPTH], maps[2], probs[2];
    ps3c_vision_plan *plan = NULL;
    ps3c_vision_plan_info info;
    bool good = context && weights && ps3c_vision_config_check(context, &config) == PS3C_OK &&
                ps3c_vision_plan_create(context, &config, &request, &plan) == PS3C_OK;
    if (!good) {
        CHECK(false, "plan: %s", context ? ps3c_context_message(context) : "no memory");
        return false;
    }
    for (int64_t i = 0; i < count; i++) {
        ps3c_weight_info weight;
        ps3c_vision_weight_info(context, &config, i, &weight);
        weights[i] = random_tensor(weight.ndim, weight.shape);
    }
    ps3c_vision_plan_describe(plan, &info);
    for (int64_t i = 0; i < info.hidden_states; i++)
        hidden[i] = random_tensor(3, (int64_t[]){batch, info.low_res_tokens + info.selected_tokens, WIDTH});
    for (int64_t s = 0; s < 2; s++) {
        maps[s] = random_tensor(3, (int64_t[]){batch, info.grid[s + 1][0], info.grid[s + 1][1]});
        probs[s] = random_tensor(3, (int64_t[]){batch, info.grid[s + 1][0], info.grid[s + 1][1]});
    }
    ps3c_tensor pixels = random_tensor(4, (int64_t[]){batch, 3, 40, 40});
    const ps3c_vision_io io = {.pixel_values = &pixels,
                               .weights = weights,
                               .hidden_states = hidden,
                               .selection_maps = maps,
                               .selection_probs = probs,
                               .workspace = malloc(info.workspace_bytes),
                               .workspace_bytes = info.workspace_bytes};
    memset(&calls, 0, sizeof calls);
    memset(&values, 0, sizeof values);
    multiplications = allocations = 0;
    good = ps3c_vision_run(context, plan, &io) == PS3C_OK;
    CHECK(good, "run: %s", ps3c_context_message(context));
    CHECK(allocations == 0, "a run allocated memory %ld times", allocations);
    for (int64_t i = 0; i < count; i++)
        free(weights[i].data);
    for (int64_t i = 0; i < info.hidden_states; i++)
        free(hidden[i].data);
    for (int64_t s = 0; s < 2; s++) {
        free(maps[s].data);
        free(probs[s].data);
    }
    free(pixels.data);
    free(io.workspace);
    free(weights);
    ps3c_vision_plan_free(plan);
    ps3c_context_free(context);
    return good;
}

#define EXPECT(counter, expected)                                                                            \
    CHECK(counter == (expected), "%s: got %lld, expected %lld", #counter " (" WHERE ")", (long long)counter, \
          (long long)(expected))

/* Two looks of one image run as one group of two segments. */
static void test_two_looks(void)
{
#define WHERE "one image, two looks"
    const int64_t looked = 2 * LOOK, tokens = LOW + looked, conv = (1512 / 28) * (1512 / 28), wide = SELECT * WIDTH;
    if (!run(1, 2))
        return;
    /* low-res: the embedding; per block q, k v (separate, because they are kept as the cache), projection, fc1, fc2 */
    EXPECT(calls.gemm, 1 + 5 * DEPTH + 1 + 4 * DEPTH + 2 + 2 + 2 * CONV_DEPTH + 1);
    EXPECT(calls.layernorm, 2 * 2 * DEPTH + 1 + 1 + CONV_DEPTH);
    EXPECT(calls.attention, 2 * DEPTH);
    EXPECT(calls.patch_gather, 3);
    EXPECT(calls.position_add, 2);
    EXPECT(calls.depthwise, CONV_DEPTH);
    EXPECT(calls.copy_channels, SELECT);
    EXPECT(calls.to_rows, 2 * OUT + 1);
    EXPECT(calls.from_rows, 1);
    EXPECT(calls.cosine, 2);
    EXPECT(calls.max_pool, 1);
    EXPECT(calls.probability, 1);
    EXPECT(calls.expand, 2);
    EXPECT(calls.rank, 2);
    EXPECT(calls.assign_looks, 1);
    EXPECT(calls.attention_pool + calls.blend + calls.gt_mask + calls.l2_normalize + calls.pool_tokens, 0);
    EXPECT(values.gemm, tokens * (WIDTH + DEPTH * (3 * WIDTH + WIDTH + HIDDEN + WIDTH)) + LOW * (wide + WIDTH) + CONV +
                            conv * (CONV + CONV_DEPTH * (4 * CONV + CONV) + CONV));
    EXPECT(values.layernorm, tokens * 2 * DEPTH * WIDTH + LOW * wide + conv * CONV * (1 + CONV_DEPTH));
    EXPECT(values.attention, tokens * DEPTH * WIDTH);
    EXPECT(values.patch_gather, tokens * 3 * PATCH * PATCH + conv * 3 * 28 * 28);
    EXPECT(values.position_add, tokens * WIDTH);
    EXPECT(values.copy_channels, LOW * wide);
    EXPECT(values.to_rows, OUT * tokens * WIDTH + CONV);
    EXPECT(values.from_rows, WIDTH);
    EXPECT(multiplications, tokens * (3 * PATCH * PATCH * WIDTH + DEPTH * (4 * WIDTH * WIDTH + 2 * WIDTH * HIDDEN)) +
                                LOW * (wide * wide + wide * WIDTH) + WIDTH * CONV +
                                conv * (3 * 28 * 28 * CONV + CONV_DEPTH * 8 * CONV * CONV + CONV * CONV));
#undef WHERE
}

/* Images of a batch share all products; only the convolution network runs image by image. */
static void test_batch(void)
{
#define WHERE "three images, one look"
    if (!run(3, 1))
        return;
    EXPECT(calls.gemm, 1 + 5 * DEPTH + 1 + 4 * DEPTH + 2 + 1 + 3 * (1 + 2 * CONV_DEPTH + 1));
    EXPECT(calls.attention, 2 * DEPTH);
    EXPECT(calls.to_rows, 2 * OUT + 1);
    EXPECT(calls.rank, 2);
    EXPECT(calls.assign_looks, 1);
#undef WHERE
}

/* More looks are more segments, not more calls. */
static void test_more_looks(void)
{
    struct counts two;
    if (!run(1, 2))
        return;
    two = calls;
    if (run(1, 3))
        CHECK(!memcmp(&two, &calls, sizeof calls), "three looks make other calls than two: %lld products, not %lld",
              (long long)calls.gemm, (long long)two.gemm);
}

int main(void)
{
    /* The process's first team of threads is allocated here. The runs below lease it and give it back. */
    ps3c_run first = {.threads = THREADS};
    ps3c_cpu_begin(&first);
    CHECK(first.team && allocations == 1, "the first team took %ld allocations", allocations);
    ps3c_cpu_end(&first);
    ps3c_register_backend(PS3C_CPU, &counting);
    test_two_looks();
    test_batch();
    test_more_looks();
    return check_report("test_counts");
}
