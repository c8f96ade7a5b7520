/* Attention at every level against float64, with random head dims, key counts, cached keys, masks and channel offsets;
 * scores of several hundred; NaN; guard bytes; results independent of other segments and of threads. */
#include "check.h"

typedef ps3c_status (*attention_function)(const ps3c_run *, const ps3c_attention_args *);
static const attention_function functions[LEVELS] = LEVEL_TABLE(attention);

typedef struct problem {
    ps3c_dtype dtype;
    ps3c_attention_args args;
    ps3c_activation own, cached, out;
    guarded own_memory, cached_memory, out_memory, mask;
} problem;

/* Random activation whose channels from `values` on are laid out by tokens; spare tokens are NaN. */
static ps3c_activation keys_values(ps3c_dtype dtype, int64_t segments, int64_t tokens, int64_t channels, int64_t values,
                                   double scale, guarded *memory)
{
    ps3c_activation a = random_activation(dtype, segments, tokens, channels, scale, memory);
    for (int64_t s = 0; s < segments; s++)
        for (int64_t t = 0; t < (tokens + 47) / 48 * 48; t++)
            for (int64_t c = values; c < channels; c++)
                ps3c_store(dtype, a.data, place(&a, dtype, s, t, c, true), t < tokens ? (float)random_value() : NAN);
    return a;
}

static void make_problem(problem *p, ps3c_dtype dtype, int64_t segments, int64_t heads, int64_t head_dim,
                         int64_t tokens, int64_t cached, double scale)
{
    ps3c_attention_args *a = &p->args;
    int64_t all = heads * head_dim, at = random_int(0, 2) * 8, cached_at = random_int(0, 2) * 8;
    int64_t cached_segments = random_bool() ? segments : 1;
    *p = (problem){.dtype = dtype};
    *a = (ps3c_attention_args){.heads = heads, .head_dim = head_dim, .query_channel = at, .own_channel = at + all};
    p->own = keys_values(dtype, segments, tokens, at + 3 * all, at + 2 * all, scale, &p->own_memory);
    p->cached = keys_values(dtype, cached_segments, cached ? cached : 1, cached_at + 2 * all, cached_at + all, scale,
                            &p->cached_memory);
    p->out = random_activation(dtype, segments, tokens, all, 1, &p->out_memory);
    p->mask = guarded_make((size_t)(segments * tokens), 0);
    for (int64_t i = 0; i < segments * tokens; i++)
        ((uint8_t *)p->mask.data)[i] = i % tokens == 0 || random_bool();
    a->query = a->own = &p->own, a->out = &p->out;
    a->cached = cached ? &p->cached : NULL;
    a->cached_channel = cached_at;
    a->causal = random_int(0, 2) == 0;
    a->last_query_mask = random_int(0, 2) == 0 ? p->mask.data : NULL;
}

static void free_problem(problem *p)
{
    guarded *all[] = {&p->own_memory, &p->cached_memory, &p->out_memory, &p->mask};
    for (int i = 0; i < COUNT(all); i++) {
        CHECK(guarded_intact(all[i]), "guard of buffer %d", i);
        guarded_free(all[i]);
    }
}

/* One query of one head in float64: want[head_dim]; size[head_dim], the weighted mean of |value|. Returns the maximum
 * |score|. */
static double expected(const problem *p, int64_t segment, int64_t token, int64_t head, double *want, double *size)
{
    const ps3c_attention_args *a = &p->args;
    int64_t nc = a->cached ? a->cached->tokens : 0, keys = nc + p->own.tokens, D = a->head_dim, all = a->heads * D;
    double *weight = malloc((size_t)keys * sizeof *weight), max = -INFINITY, sum = 0, greatest = 0;
    for (int64_t i = 0; i < keys; i++) {
        const ps3c_activation *k = i < nc ? a->cached : a->own;
        int64_t t = i < nc ? i : i - nc, channel = (i < nc ? a->cached_channel : a->own_channel) + head * D;
        bool seen = i < nc || ((!a->causal || t <= token) && (!a->last_query_mask || token != p->own.tokens - 1 ||
                                                              a->last_query_mask[segment * p->own.tokens + t]));
        weight[i] = 0;
        for (int64_t c = 0; c < D; c++)
            weight[i] += get(&p->own, p->dtype, segment, token, a->query_channel + head * D + c, false) *
                         get(k, p->dtype, segment % k->segments, t, channel + c, false);
        weight[i] = seen ? weight[i] / sqrt((double)D) : -INFINITY;
        max = fmax(max, weight[i]);
        if (seen)
            greatest = fmax(greatest, fabs(weight[i]));
    }
    for (int64_t i = 0; i < keys; i++)
        sum += weight[i] = exp(weight[i] - max);
    for (int64_t c = 0; c < D; c++) {
        want[c] = size[c] = 0;
        for (int64_t i = 0; i < keys; i++) {
            const ps3c_activation *k = i < nc ? a->cached : a->own;
            int64_t t = i < nc ? i : i - nc, channel = (i < nc ? a->cached_channel : a->own_channel) + all + head * D;
            double v = get(k, p->dtype, segment % k->segments, t, channel + c, true) * weight[i] / sum;
            want[c] += v, size[c] += fabs(v);
        }
    }
    free(weight);
    return greatest;
}

static void run_level(problem *p, int level, int threads)
{
    guarded scratch;
    ps3c_run run = make_run(p->dtype, threads, p->own.segments * p->own.tokens, p->own.channels, &scratch);
    functions[level](&run, &p->args);
    CHECK(guarded_intact(&scratch), "%s: scratch overrun", level_names[level]);
    end_run(&run, &scratch);
}

static void check_problem(problem *p)
{
    const ps3c_attention_args *a = &p->args;
    int64_t D = a->head_dim, queries = p->own.segments * p->own.tokens * a->heads;
    double *want = malloc((size_t)(queries * D) * sizeof *want), *size = malloc((size_t)(queries * D) * sizeof *size);
    double *score = malloc((size_t)queries * sizeof *score);
    for (int64_t i = 0; i < queries; i++)
        score[i] = expected(p, i / a->heads / p->own.tokens, i / a->heads % p->own.tokens, i % a->heads, want + i * D,
                            size + i * D);
    for (int level = 0; level < LEVELS; level++) {
        if (!level_available(level))
            continue;
        memset(p->out.data, 0xff, p->out_memory.bytes);
        run_level(p, level, (int)random_int(1, 3));
        for (int64_t i = 0; i < queries * D; i++) {
            int64_t q = i / D, s = q / a->heads / p->own.tokens, t = q / a->heads % p->own.tokens;
            double got = get(&p->out, p->dtype, s, t, q % a->heads * D + i % D, false);
            /* The error of float32 scores is proportional to their size. bfloat16 products round the weights (by up to
             * 2^-8); their exponential has an error of 7.5e-5. */
            double allowed = size[i] * (1e-6 + 1.2e-6 * score[q]) + rounding(p->dtype, want[i]) * 1.01 + 1e-7;
            if (p->dtype == PS3C_BFLOAT16 && !strcmp(level_names[level], "avx512bf16"))
                allowed += size[i] * (0x1p-8 + 1.5e-4);
            CHECK(fabs(got - want[i]) <= allowed,
                  "%s %s heads %ld of %ld, tokens %ld cached %ld causal %d mask %d: [%ld %ld %ld %ld] %.9g, not %.9g "
                  "+- %.2g",
                  level_names[level], dtype_names[p->dtype], (long)a->heads, (long)D, (long)p->own.tokens,
                  a->cached ? (long)a->cached->tokens : 0, a->causal, a->last_query_mask != NULL, (long)s, (long)t,
                  (long)(q % a->heads), (long)(i % D), got, want[i], allowed);
        }
    }
    free(want), free(size), free(score);
}

/* NaN in one token's key reaches every query that sees the key, and no other segment. All NaN: the results are NaN. */
static void check_nan(ps3c_dtype dtype)
{
    problem p;
    make_problem(&p, dtype, 2, 2, 16, 70, 0, 1);
    p.args.causal = true, p.args.last_query_mask = NULL;
    ps3c_store(dtype, p.own.data, place(&p.own, dtype, 0, 60, p.args.own_channel + 3, false), NAN);
    for (int level = 0; level < LEVELS; level++) {
        if (!level_available(level))
            continue;
        run_level(&p, level, 2);
        for (int64_t s = 0; s < 2; s++)
            for (int64_t t = 0; t < 70; t++)
                for (int64_t c = 0; c < 32; c++)
                    CHECK(isnan(get(&p.out, dtype, s, t, c, false)) == (s == 0 && t >= 60 && c < 16),
                          "%s %s: NaN of token 60 at [%ld %ld %ld]", level_names[level], dtype_names[dtype], (long)s,
                          (long)t, (long)c);
    }
    for (size_t i = 0; i < p.own_memory.bytes / element_bytes(dtype); i++)
        ps3c_store(dtype, p.own.data, (int64_t)i, NAN);
    for (int level = 0; level < LEVELS; level++) {
        if (!level_available(level))
            continue;
        memset(p.out.data, 0, p.out_memory.bytes);
        run_level(&p, level, 1);
        CHECK(isnan(get(&p.out, dtype, 1, 69, 31, false)), "%s %s: all NaN", level_names[level], dtype_names[dtype]);
    }
    free_problem(&p);
}

/* The last of three segments has the same bits when computed alone, with another number of threads. */
static void check_independence(ps3c_dtype dtype, int level)
{
    problem p, alone;
    guarded kept;
    size_t out_bytes;
    make_problem(&p, dtype, 3, 3, 40, 101, 77, 1);
    run_level(&p, level, 3);
    kept = guarded_make(p.out_memory.bytes, 0);
    memcpy(kept.data, p.out.data, p.out_memory.bytes);
    memset(p.out.data, 0, p.out_memory.bytes);
    alone = p;
    out_bytes = p.out_memory.bytes / 3;
    alone.own.segments = alone.out.segments = 1;
    alone.own.data = (char *)p.own.data + 2 * (p.own_memory.bytes / 3);
    alone.out.data = (char *)p.out.data + 2 * out_bytes;
    if (p.cached.segments == 3) {
        alone.cached.segments = 1;
        alone.cached.data = (char *)p.cached.data + 2 * (p.cached_memory.bytes / 3);
    }
    alone.args.query = alone.args.own = &alone.own;
    alone.args.cached = &alone.cached;
    alone.args.out = &alone.out;
    if (alone.args.last_query_mask)
        alone.args.last_query_mask += 2 * p.own.tokens;
    run_level(&alone, level, 1);
    for (int64_t t = 0; t < 101; t++)
        for (int64_t c = 0; c < 120; c++) {
            ps3c_activation together = p.out;
            together.data = kept.data;
            CHECK(get(&together, dtype, 2, t, c, false) == get(&p.out, dtype, 2, t, c, false),
                  "%s %s: segment 2 differs when alone", level_names[level], dtype_names[dtype]);
        }
    guarded_free(&kept);
    free_problem(&p);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 20;
    static const struct {
        int64_t segments, heads, head_dim, tokens, cached;
        double scale;
    } shapes[] = {
        {1, 1, 8, 1, 0, 1},     {1, 2, 72, 49, 0, 1},   {2, 1, 64, 65, 1, 1},  {1, 2, 72, 30, 311, 1},
        {1, 1, 256, 60, 0, 1},  {1, 1, 200, 300, 0, 1}, {1, 1, 264, 20, 5, 1}, {1, 1, 72, 350, 0, 12},
        {1, 2, 128, 97, 50, 9}, {2, 2, 24, 48, 96, 25},
    };
    for (int d = 0; d < COUNT(dtypes); d++) {
        for (int i = 0; i < COUNT(shapes) + rounds; i++) {
            problem p;
            if (i < COUNT(shapes))
                make_problem(&p, dtypes[d], shapes[i].segments, shapes[i].heads, shapes[i].head_dim, shapes[i].tokens,
                             shapes[i].cached, shapes[i].scale);
            else
                make_problem(&p, dtypes[d], random_int(1, 3), random_int(1, 3), random_int(1, 12) * 8,
                             random_int(1, 110), random_bool() ? 0 : random_int(1, 110), 1);
            check_problem(&p);
            free_problem(&p);
        }
        check_nan(dtypes[d]);
        for (int level = 0; level < LEVELS; level++)
            if (level_available(level))
                check_independence(dtypes[d], level);
    }
    return check_report("attention");
}
