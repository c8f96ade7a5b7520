/* LayerNorm at every level against float64: widths, dtypes, activations; in place or not; large means. */
#include "check.h"

typedef ps3c_status (*layernorm_function)(const ps3c_run *, const ps3c_layernorm_args *);
static const layernorm_function functions[LEVELS] = LEVEL_TABLE(layernorm);

static void check(ps3c_dtype dtype, int64_t segments, int64_t tokens, int64_t channels)
{
    guarded x_memory, y_memory, before, weight, bias;
    double scale = random_bool() ? 1 : 30, shift = random_int(0, 2) == 0 ? 100 : 0;
    ps3c_activation x = random_activation(dtype, segments, tokens, channels, scale, &x_memory), y = x, source = x;
    ps3c_layernorm_args args = {.eps = random_bool() ? 1e-6f : 1e-5f, .x = &x, .y = &y};
    bool in_place = random_bool();
    args.act = (ps3c_activation_function)random_int(0, 3);
    weight = random_array(dtype, channels, 1, 0), bias = random_array(dtype, channels, 1, 0);
    args.weight = weight.data, args.bias = bias.data;
    for (int64_t s = 0; s < segments; s++)
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t c = 0; c < channels; c++)
                ps3c_store(dtype, x.data, place(&x, dtype, s, t, c, false),
                           (float)(get(&x, dtype, s, t, c, false) + shift));
    before = guarded_make(x_memory.bytes, 0);
    memcpy(before.data, x.data, x_memory.bytes);
    source.data = before.data;
    y_memory = guarded_make(x_memory.bytes, 0);
    for (int level = 0; level < LEVELS; level++) {
        guarded scratch;
        ps3c_run run;
        if (!level_available(level))
            continue;
        run = make_run(dtype, (int)random_int(1, 3), segments * tokens, channels, &scratch);
        memcpy(x.data, before.data, x_memory.bytes);
        memset(y_memory.data, 0xff, y_memory.bytes);
        y.data = in_place ? x.data : y_memory.data;
        functions[level](&run, &args);
        for (int64_t i = 0; i < segments * tokens; i++) {
            int64_t s = i / tokens, t = i % tokens;
            double mean = 0, variance = 0, factor;
            for (int64_t c = 0; c < channels; c++)
                mean += get(&source, dtype, s, t, c, false) / (double)channels;
            for (int64_t c = 0; c < channels; c++)
                variance += pow(get(&source, dtype, s, t, c, false) - mean, 2) / (double)channels;
            factor = 1 / sqrt(variance + args.eps);
            for (int64_t c = 0; c < channels; c++) {
                double w = ps3c_load(dtype, weight.data, c), b = ps3c_load(dtype, bias.data, c);
                double normal = (get(&source, dtype, s, t, c, false) - mean) * factor, v = normal * w + b;
                double want = activate(args.act, v), got = get(&y, dtype, s, t, c, false);
                /* rounding of the mean, divided by the deviation; then a few more roundings */
                double allowed = fabs(w) * factor * fabs(mean) * 2e-7 + 6e-7 * (fabs(normal * w) + fmax(1, fabs(b)));
                allowed += rounding(dtype, want) * 1.01;
                CHECK(fabs(got - want) <= allowed,
                      "%s %s tokens %ld channels %ld act %d: [%ld %ld %ld] %.9g, not %.9g +- %.2g", level_names[level],
                      dtype_names[dtype], (long)tokens, (long)channels, (int)args.act, (long)s, (long)t, (long)c, got,
                      want, allowed);
            }
            if (dtype != PS3C_FLOAT32 && channels % 2)
                CHECK(get(&y, dtype, s, t, channels, false) == 0, "%s: spare half word not zero", level_names[level]);
        }
        CHECK(guarded_intact(&scratch) && guarded_intact(&x_memory) && guarded_intact(&y_memory), "guards");
        end_run(&run, &scratch);
    }
    guarded_free(&x_memory), guarded_free(&y_memory), guarded_free(&before);
    guarded_free(&weight), guarded_free(&bias);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 60;
    static const int64_t widths[] = {1, 2, 3, 4, 5, 7, 64, 1152, 1153};
    for (int d = 0; d < COUNT(dtypes); d++) {
        for (int i = 0; i < COUNT(widths); i++)
            check(dtypes[d], 1, random_int(1, 70), widths[i]);
        for (int i = 0; i < rounds; i++)
            check(dtypes[d], random_int(1, 3), random_int(1, 110), random_int(1, 150));
    }
    return check_report("layernorm");
}
