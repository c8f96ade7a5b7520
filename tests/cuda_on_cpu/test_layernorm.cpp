/* Layer norm: rows of every kernel's length and one off it, means far from zero, NaN, in place. */
#include "check.h"

namespace
{

struct shape {
    int64_t segments, tokens, channels;
};

struct options {
    ps3c_activation_function act = PS3C_ACT_NONE;
    bool in_place = false;
    int64_t offset = 0; /* elements from alignment: weight, bias */
    double scale = 1, shift = 0, magnitude = 4;
};

void check_norm(ps3c_dtype dtype, const shape &of, const options &o)
{
    const about here("dtype %d, %d x %d x %d, act %d%s, offset %d, shift %g", dtype, (int)of.segments, (int)of.tokens,
                     (int)of.channels, o.act, o.in_place ? ", in place" : "", (int)o.offset, o.shift);
    const int64_t count = of.segments * of.tokens * of.channels;
    both run(dtype, of.segments * of.tokens, of.channels);
    const std::vector<float> values = random_values(run, count, o.scale, o.shift);
    twin x(run, of.segments, of.tokens, of.channels, values), y(run, of.segments, of.tokens, of.channels);
    twin &out = o.in_place ? x : y;
    const elements weight(run, random_values(run, of.channels), o.offset),
        bias(run, random_values(run, of.channels), o.offset);
    for (side s : SIDES) {
        const ps3c_layernorm_args args = {weight.on(s), bias.on(s), 1e-6f, o.act, x.on(s), out.on(s)};
        run.call(s, &ps3c_backend::layernorm, args);
    }
    out.compare(8 * 0x1p-24, o.magnitude);
    CHECK(o.in_place || x.is_unchanged(), "layer norm wrote its input");
}

const int64_t CHANNELS[] = {1,    2,    7,    8,    9,    31,   127,  128,  129,  255,  256,  257,  384,  511,
                            512,  513,  640,  768,  769,  1024, 1151, 1152, 1153, 1280, 1281, 1520, 1536, 1537,
                            2047, 2048, 2303, 2304, 2305, 4095, 4096, 4097, 8191, 8192, 8193, 9001};

} // namespace

TEST(layernorm_channels)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t channels : CHANNELS) {
            if (SMALL() && channels > 600 && channels % 8 == 0)
                continue;
            options o;
            o.act = (ps3c_activation_function)(channels % 4);
            o.offset = channels % 3 == 0;
            o.shift = 0.3;
            check_norm(dtype, {1, 1, channels}, o);
            o.in_place = true;
            check_norm(dtype, {1, channels > 2000 ? 2 : 5, channels}, o);
        }
}

TEST(layernorm_rows)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t rows = 1; rows <= 9; rows++)
            for (int act = 0; act < 4; act++) {
                options o;
                o.act = (ps3c_activation_function)act;
                check_norm(dtype, {rows % 3 + 1, rows, 40}, o);
            }
}

/* The deviations are exact in the dtype, the mean is not a sum that float32 holds. */
TEST(layernorm_far_from_zero)
{
    for (double shift : {100.0, 3000.0, 30000.0})
        for (int64_t channels : {64, 1152, 3000, 9000}) {
            options o;
            o.shift = shift;
            o.magnitude = 16;
            check_norm(PS3C_FLOAT32, {1, 3, channels}, o);
        }
    options o;
    o.shift = 100;
    o.scale = 8;
    check_norm(PS3C_FLOAT16, {1, 3, 1152}, o);
    check_norm(PS3C_BFLOAT16, {1, 3, 1152}, o);
}

TEST(layernorm_equal_values)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t channels : {1, 9, 1152, 5000}) {
            options o;
            o.scale = 0;
            o.shift = 2;
            o.magnitude = 4;
            check_norm(dtype, {1, 2, channels}, o);
        }
}

/* NaN and Inf make their own token NaN, and no other. */
TEST(layernorm_nan)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t channels : {9, 1153, 5000})
            for (float bad : {NAN, INFINITY}) {
                both run(dtype, 5, channels);
                std::vector<float> values = random_values(run, 5 * channels);
                values[(size_t)(2 * channels + channels - 1)] = bad;
                twin x(run, 1, 5, channels, values), y(run, 1, 5, channels);
                const elements weight(run, random_values(run, channels)), bias(run, random_values(run, channels));
                const ps3c_layernorm_args args = {weight.on(CUDA), bias.on(CUDA), 1e-5f,
                                                  PS3C_ACT_RELU,   x.on(CUDA),    y.on(CUDA)};
                run.call(CUDA, &ps3c_backend::layernorm, args);
                const std::vector<float> got = y.rows(CUDA);
                for (int64_t i = 0; i < 5 * channels; i++)
                    if (std::isnan(got[(size_t)i]) != (i / channels == 2)) {
                        CHECK(false, "dtype %d, %d channels: %g at token %d", dtype, (int)channels, got[(size_t)i],
                              (int)(i / channels));
                        break;
                    }
                CHECK(y.pads_are_zero(), "padding of a token of NaN");
            }
}
