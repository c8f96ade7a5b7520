/* GEMM at every level against float64, with random shapes, strides, alignments, layouts and epilogues; guard bytes
 * around buffers of exact size; results independent of other segments and of threads. */
#include "check.h"

typedef ps3c_status (*gemm_function)(const ps3c_run *, const ps3c_gemm_args *);
static const gemm_function functions[LEVELS] = LEVEL_TABLE(gemm);

typedef struct problem {
    ps3c_dtype dtype;
    ps3c_gemm_args args;
    ps3c_activation x, residual, y;
    bool in_place; /* the residual is y */
    guarded weight, bias, scale, x_memory, residual_memory, y_memory, before, scratch;
} problem;

static void make_problem(problem *p, ps3c_dtype dtype, int64_t n, int64_t k, int64_t tokens, int64_t segments)
{
    ps3c_gemm_args *g = &p->args;
    bool shift = random_int(0, 5) == 0 && dtype != PS3C_FLOAT32;
    int64_t after, rows;
    *p = (problem){.dtype = dtype};
    g->n = n, g->k = k;
    g->transposed = random_int(0, 4) == 0;
    g->ldw = (g->transposed ? n : k) + (random_bool() ? 0 : random_int(0, 5));
    rows = g->transposed ? k : n;
    /* rows may be ldw apart; no padding after the last one */
    p->weight = random_array(dtype, (rows - 1) * g->ldw + (g->transposed ? n : k), 1 / sqrt((double)k), shift ? 2 : 0);
    g->weight = p->weight.data;
    g->act = (ps3c_activation_function)random_int(0, 3);
    p->bias = random_array(dtype, n, 1, random_int(0, 1) * element_bytes(dtype));
    p->scale = random_array(dtype, n, 1, 0);
    g->bias = random_bool() ? p->bias.data : NULL;
    g->scale = random_int(0, 2) == 0 ? p->scale.data : NULL;
    p->x = random_activation(dtype, segments, tokens, k, 2, &p->x_memory);
    g->values_from = n;
    if (n % 8 == 0 && random_bool())
        g->values_from = random_int(0, n / 8) * 8;
    g->out_channel = random_bool() ? 0 : random_int(0, 4) * 8;
    after = random_bool() ? 0 : random_int(0, 5);
    p->y = random_activation(dtype, segments, tokens, g->out_channel + n + after, 1, &p->y_memory);
    p->residual = random_activation(dtype, segments, tokens, n, 1, &p->residual_memory);
    g->x = &p->x, g->y = &p->y;
    if (g->values_from == n && random_bool()) {
        p->in_place = g->out_channel == 0 && after == 0 && random_bool();
        g->residual = p->in_place ? &p->y : &p->residual;
    }
    p->before = guarded_make(p->y_memory.bytes, 0);
    memcpy(p->before.data, p->y.data, p->y_memory.bytes);
}

static void free_problem(problem *p)
{
    guarded *all[] = {&p->weight, &p->bias, &p->scale, &p->x_memory, &p->residual_memory, &p->y_memory, &p->before};
    for (int i = 0; i < COUNT(all); i++) {
        CHECK(guarded_intact(all[i]), "guard of buffer %d", i);
        guarded_free(all[i]);
    }
}

/* Expected value, and the allowed error: rounding of the result and of a float32 sum of these terms. */
static double expected(const problem *p, int64_t segment, int64_t token, int64_t n, double *allowed)
{
    const ps3c_gemm_args *g = &p->args;
    double sum = 0, size = 0, v, scale = g->scale ? ps3c_load(p->dtype, g->scale, n) : 1;
    for (int64_t k = 0; k < g->k; k++) {
        double w = ps3c_load(p->dtype, g->weight, g->transposed ? k * g->ldw + n : n * g->ldw + k);
        double product = w * get(g->x, p->dtype, segment, token, k, false);
        sum += product, size += fabs(product);
    }
    if (g->bias) {
        double b = ps3c_load(p->dtype, g->bias, n);
        sum += b, size += fabs(b);
    }
    v = activate(g->act, sum) * scale;
    *allowed = (1.2e-7 * size + 4e-7 * fmax(1, fabs(sum))) * fabs(scale);
    if (g->residual) {
        ps3c_activation before = *g->residual;
        if (p->in_place)
            before.data = p->before.data;
        v += get(&before, p->dtype, segment, token, n, false);
        *allowed += fabs(v) * 1.2e-7;
    }
    *allowed += rounding(p->dtype, v) * 1.01;
    return v;
}

/* Channels outside the call's output must be unchanged. */
static void check_rest(const problem *p, const char *level)
{
    const ps3c_gemm_args *g = &p->args;
    ps3c_activation before = p->y;
    before.data = p->before.data;
    for (int64_t s = 0; s < p->y.segments; s++)
        for (int64_t t = 0; t < p->y.tokens; t++)
            for (int64_t c = 0; c < p->y.channels; c++) {
                if (c >= g->out_channel && c < g->out_channel + g->n)
                    continue;
                CHECK(get(&p->y, p->dtype, s, t, c, false) == get(&before, p->dtype, s, t, c, false),
                      "%s %s: channel %ld of others was written (n %ld at %ld of %ld)", level, dtype_names[p->dtype],
                      (long)c, (long)g->n, (long)g->out_channel, (long)p->y.channels);
            }
}

/* Compares every step-th output. */
static void check_problem(problem *p, int64_t step)
{
    const ps3c_gemm_args *g = &p->args;
    int64_t outputs = (g->n + step - 1) / step, cells = p->x.segments * p->x.tokens * outputs;
    double *want = malloc((size_t)cells * sizeof *want), *allowed = malloc((size_t)cells * sizeof *allowed);
    for (int64_t i = 0; i < cells; i++)
        want[i] = expected(p, i / outputs / p->x.tokens, i / outputs % p->x.tokens, i % outputs * step, &allowed[i]);
    for (int level = 0; level < LEVELS; level++) {
        ps3c_run run;
        if (!level_available(level))
            continue;
        memcpy(p->y.data, p->before.data, p->y_memory.bytes);
        run = make_run(p->dtype, (int)random_int(1, 3), p->x.segments * p->x.tokens, p->y.channels, &p->scratch);
        functions[level](&run, g);
        for (int64_t i = 0; i < cells; i++) {
            int64_t n = i % outputs * step, t = i / outputs % p->x.tokens, s = i / outputs / p->x.tokens;
            double v = get(&p->y, p->dtype, s, t, g->out_channel + n, n >= g->values_from);
            CHECK(fabs(v - want[i]) <= allowed[i],
                  "%s %s n %ld k %ld ldw %ld tokens %ld transposed %d act %d values %ld: [%ld %ld %ld] %.9g, not %.9g "
                  "+- %.2g",
                  level_names[level], dtype_names[p->dtype], (long)g->n, (long)g->k, (long)g->ldw, (long)p->x.tokens,
                  g->transposed, (int)g->act, (long)g->values_from, (long)s, (long)t, (long)n, v, want[i], allowed[i]);
        }
        check_rest(p, level_names[level]);
        if (p->dtype != PS3C_FLOAT32 && p->y.channels % 2 && g->out_channel + g->n == p->y.channels)
            CHECK(ps3c_load(p->dtype, p->y.data, place(&p->y, p->dtype, 0, 0, p->y.channels, false)) == 0,
                  "%s: spare half word not zero", level_names[level]);
        CHECK(guarded_intact(&p->scratch), "%s: scratch overrun", level_names[level]);
        end_run(&run, &p->scratch);
    }
    free(want);
    free(allowed);
}

/* Each of three segments has the same bits when computed alone, at other thread counts. */
static void check_independence(ps3c_dtype dtype, int level)
{
    problem p;
    int64_t tokens = 61, n = 88, k = 1301;
    size_t bytes;
    make_problem(&p, dtype, n, k, tokens, 3);
    bytes = p.y_memory.bytes / 3;
    for (int threads = 1; threads <= 3; threads++) {
        ps3c_run run = make_run(dtype, threads, 3 * tokens, p.y.channels, &p.scratch);
        guarded together = guarded_make(p.y_memory.bytes, 0);
        memcpy(p.y.data, p.before.data, p.y_memory.bytes);
        functions[level](&run, &p.args);
        memcpy(together.data, p.y.data, p.y_memory.bytes);
        memcpy(p.y.data, p.before.data, p.y_memory.bytes);
        run.threads = 1;
        for (int64_t s = 0; s < 3; s++) {
            problem q = p;
            size_t x_bytes = p.x_memory.bytes / 3, r_bytes = p.residual_memory.bytes / 3;
            q.x.segments = q.y.segments = q.residual.segments = 1;
            q.x.data = (char *)p.x.data + (size_t)s * x_bytes;
            q.y.data = (char *)p.y.data + (size_t)s * bytes;
            q.residual.data = (char *)p.residual.data + (size_t)s * r_bytes;
            q.args.x = &q.x, q.args.y = &q.y;
            if (q.args.residual)
                q.args.residual = p.in_place ? &q.y : &q.residual;
            functions[level](&run, &q.args);
        }
        for (int64_t s = 0; s < 3; s++)
            for (int64_t t = 0; t < tokens; t++)
                for (int64_t c = 0; c < p.y.channels; c++) {
                    ps3c_activation all = p.y;
                    bool values = c - p.args.out_channel >= p.args.values_from && c < p.args.out_channel + n;
                    all.data = together.data;
                    CHECK(get(&all, dtype, s, t, c, values) == get(&p.y, dtype, s, t, c, values),
                          "%s %s: segment %ld differs when alone (%d threads)", level_names[level], dtype_names[dtype],
                          (long)s, threads);
                }
        guarded_free(&together);
        end_run(&run, &p.scratch);
    }
    free_problem(&p);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 25;
    static const struct {
        int64_t n, k, tokens, segments, step;
    } shapes[] = {
        {1, 1, 1, 1, 1},     {8, 8, 48, 1, 1},     {7, 3, 49, 2, 1},   {24, 588, 50, 1, 1},  {17, 575, 5, 3, 1},
        {64, 577, 97, 1, 3}, {48, 1153, 20, 2, 1}, {700, 40, 9, 1, 1}, {96, 4304, 16, 1, 7}, {1300, 24, 100, 1, 11},
    };
    for (int d = 0; d < COUNT(dtypes); d++) {
        for (int i = 0; i < COUNT(shapes) + rounds; i++) {
            problem p;
            if (i < COUNT(shapes)) {
                make_problem(&p, dtypes[d], shapes[i].n, shapes[i].k, shapes[i].tokens, shapes[i].segments);
                check_problem(&p, shapes[i].step);
            } else {
                make_problem(&p, dtypes[d], random_int(1, 90), random_int(1, 130), random_int(1, 110),
                             random_int(1, 3));
                check_problem(&p, 1);
            }
            free_problem(&p);
        }
        for (int level = 0; level < LEVELS; level++)
            if (level_available(level))
                check_independence(dtypes[d], level);
    }
    return check_report("gemm");
}
