/* Products: every epilogue, weights in any layout, destinations inside wider activations, each segment alone, the
 * search for cuBLASLt, and the table of plans from several threads. */
#include <algorithm>
#include <thread>

#include "../../kernels/cuda/cublaslt.cuh"
#include "check.h"

namespace
{

enum residual_kind { NONE, APART, IN_PLACE };
const residual_kind RESIDUALS[] = {NONE, APART, IN_PLACE};

struct problem {
    int64_t segments, tokens, n, k;
    ps3c_activation_function act = PS3C_ACT_NONE;
    bool bias = false, scale = false, transposed = false;
    residual_kind residual = NONE;
    int64_t out_channel = 0, after = 0; /* channels of y before and after the product's */
    int64_t gap = 0, offset = 0;        /* elements between the weight's rows, which are NaN; before it, bias, scale */

    int64_t channels() const { return out_channel + n + after; }
    int64_t weight_rows() const { return transposed ? k : n; }
    int64_t weight_cols() const { return transposed ? n : k; }
};

struct numbers {
    std::vector<float> weight, bias, scale, x, residual, before;

    numbers(const both &run, const problem &p)
        : bias(random_values(run, p.n)), scale(random_values(run, p.n)),
          x(random_values(run, p.segments * p.tokens * p.k)),
          residual(random_values(run, p.segments * p.tokens * p.n, 3)),
          before(random_values(run, p.segments * p.tokens * p.channels()))
    {
        const int64_t step = p.weight_cols() + p.gap;
        weight.assign((size_t)((p.weight_rows() - 1) * step + p.weight_cols()), NAN);
        for (int64_t i = 0; i < p.weight_rows(); i++)
            for (int64_t j = 0; j < p.weight_cols(); j++)
                weight[(size_t)(i * step + j)] = rounded(run.dtype, (float)random_value());
    }
};

std::vector<float> part(const std::vector<float> &values, int64_t first, int64_t count)
{
    return {values.begin() + first, values.begin() + first + count};
}

/* y's rows after the product of segments [first, first + count). */
struct product {
    both run;
    twin y;

    product(ps3c_dtype dtype, const problem &p, const numbers &v, int64_t first, int64_t count)
        : run(dtype, count * p.tokens, std::max(p.k, p.channels())), y(run, count, p.tokens, p.channels())
    {
        const int64_t row = first * p.tokens, rows = count * p.tokens;
        y.set(p.residual == IN_PLACE ? part(v.residual, row * p.n, rows * p.n)
                                     : part(v.before, row * p.channels(), rows * p.channels()));
        twin x(run, count, p.tokens, p.k, part(v.x, row * p.k, rows * p.k));
        twin residual(run, count, p.tokens, p.n, part(v.residual, row * p.n, rows * p.n));
        const elements weight(run, v.weight, p.offset), bias(run, v.bias, p.offset), scale(run, v.scale, p.offset);
        for (side s : SIDES) {
            if (s == NAIVE && count < p.segments)
                continue; /* only compared with CUDA's own */
            ps3c_gemm_args args = {};
            args.weight = weight.on(s);
            args.n = args.values_from = p.n;
            args.k = p.k;
            args.ldw = p.weight_cols() + p.gap;
            args.transposed = p.transposed;
            args.bias = p.bias ? bias.on(s) : nullptr;
            args.act = p.act;
            args.scale = p.scale ? scale.on(s) : nullptr;
            args.x = x.on(s);
            args.residual = p.residual == NONE ? nullptr : p.residual == IN_PLACE ? y.on(s) : residual.on(s);
            args.y = y.on(s);
            args.out_channel = p.out_channel;
            run.call(s, &ps3c_backend::gemm, args);
        }
        CHECK(x.is_unchanged(), "the product wrote its input");
        CHECK(residual.is_unchanged(), "the product wrote its residual");
    }
};

/* Against the naive product, then each segment in a call of its own: the same bits. */
void check_problem(ps3c_dtype dtype, const problem &p)
{
    /* ThreadSanitizer's shadow of the scratch, filled anew for each call, takes most of its time. */
    static int seen = 0;
    const char *configuration = getenv("EMU_CHECK");
    const int every = !SMALL() ? 1 : strcmp(configuration, "tsan") ? 7 : 41;
    if (seen++ % every != 0)
        return;
    const about here(
        "dtype %d, %d x %d tokens, %d x %d%s, act %d, bias %d, scale %d, residual %d, channels %d + n + %d", dtype,
        (int)p.segments, (int)p.tokens, (int)p.n, (int)p.k, p.transposed ? " transposed" : "", p.act, p.bias, p.scale,
        p.residual, (int)p.out_channel, (int)p.after);
    const numbers v(both(dtype, 1, 1), p);
    product all(dtype, p, v, 0, p.segments);
    /* Activation, scale and residual may follow a product that was rounded to the dtype: half a unit of a sum whose
     * size is about the root of k. Else float32 sums, relative to those of magnitudes. */
    const double rounding = dtype == PS3C_BFLOAT16 ? 0x1p-8 : dtype == PS3C_FLOAT16 ? 0x1p-11 : 6 * 0x1p-24;
    if (p.act != PS3C_ACT_NONE || p.scale)
        all.y.compare(rounding, 2 + sqrt((double)p.k) * (dtype == PS3C_FLOAT32 ? sqrt((double)p.k) / 4 : 1));
    else
        all.y.compare(6 * 0x1p-24, 4 + (double)p.k / 4);
    const std::vector<float> rows = all.y.rows(CUDA);
    for (int64_t s = 0; s < p.segments && p.segments > 1; s++) {
        product one(dtype, p, v, s, 1);
        const int64_t count = p.tokens * p.channels();
        CHECK(one.y.rows(CUDA) == part(rows, s * count, count), "segment %d alone differs", (int)s);
    }
}

} // namespace

/* The first product of the process finds no library and says so; the next one looks again. First in this file. */
TEST(gemm_without_library)
{
    const char *variable = getenv("PS3C_CUBLASLT");
    const std::string path = variable ? variable : "";
    setenv("PS3C_CUBLASLT", "/nowhere/libcublasLt.so", 1);
    both run(PS3C_FLOAT32, 1, 8);
    twin x(run, 1, 1, 8, random_values(run, 8)), y(run, 1, 1, 8);
    const elements weight(run, random_values(run, 64));
    ps3c_gemm_args args = {};
    args.weight = weight.on(CUDA);
    args.n = args.k = args.ldw = args.values_from = 8;
    args.x = x.on(CUDA);
    args.y = y.on(CUDA);
    CHECK(run.status_of(CUDA, &ps3c_backend::gemm, args) == PS3C_ERROR_RUNTIME, "a missing library is no error");
    CHECK(strstr(run.sentence(), "/nowhere/libcublasLt.so"), "the sentence is: %s", run.sentence());
    setenv("PS3C_CUBLASLT", path.c_str(), 1);
}

namespace
{

void check_shapes()
{
    const int64_t shapes[][4] = {{1, 1, 1, 1},   {2, 3, 5, 7},    {1, 33, 8, 8},   {3, 2, 9, 16},
                                 {1, 9, 33, 31}, {2, 17, 64, 40}, {1, 65, 31, 65}, {2, 2, 40, 588}};
    for (ps3c_dtype dtype : DTYPES)
        for (const auto &shape : shapes)
            for (int act = 0; act < 4; act++)
                for (int bits = 0; bits < 4; bits++) {
                    problem p = {shape[0], shape[1], shape[2], shape[3]};
                    p.act = (ps3c_activation_function)act;
                    p.bias = bits & 1;
                    p.transposed = bits & 2;
                    check_problem(dtype, p);
                }
}

} // namespace

TEST(gemm_shapes)
{
    const int64_t before = ps3c_lt_refusals();
    check_shapes();
    CHECK(ps3c_lt_refusals() == before, "%d products were refused", (int)(ps3c_lt_refusals() - before));
}

/* An algorithm that does not run is replaced by another, then by the plain kernel. */
TEST(gemm_refused)
{
    const int64_t before = ps3c_lt_refusals();
    setenv("STAND_IN_LT_REFUSE", "matmul", 1);
    check_shapes();
    unsetenv("STAND_IN_LT_REFUSE");
    CHECK(ps3c_lt_refusals() > before, "no product was refused");
}

/* No algorithm at all, for what no test before this has asked for. */
TEST(gemm_without_algorithm)
{
    const int64_t before = ps3c_lt_refusals();
    setenv("STAND_IN_LT_REFUSE", "heuristic", 1);
    for (ps3c_dtype dtype : DTYPES)
        for (residual_kind residual : RESIDUALS) {
            problem p = {2, 3, 72, 80};
            p.act = PS3C_ACT_GELU_TANH;
            p.bias = true;
            p.residual = residual;
            check_problem(dtype, p);
        }
    unsetenv("STAND_IN_LT_REFUSE");
    CHECK(SMALL() || ps3c_lt_refusals() > before, "no product was refused");
}

TEST(gemm_epilogues)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int act = 0; act < 4; act++)
            for (int bits = 0; bits < 8; bits++)
                for (residual_kind residual : RESIDUALS) {
                    problem p = {2, 7, bits & 4 ? 19 : 24, 31};
                    p.act = (ps3c_activation_function)act;
                    p.bias = bits & 1;
                    p.scale = bits & 2;
                    p.gap = 3;
                    p.offset = bits & 4 ? 1 : 0;
                    p.residual = residual;
                    check_problem(dtype, p);
                }
}

/* Inside a wider activation: its other channels stay as they are, and so does its padding, zero. */
TEST(gemm_channels)
{
    for (ps3c_dtype dtype : DTYPES)
        for (const int64_t out_channel : {2, 4, 6, 8, 10})
            for (const int64_t after : {0, 1, 8})
                for (const int64_t n : {1, 6, 13, 16}) {
                    problem p = {2, 3, n, 24};
                    p.out_channel = out_channel;
                    p.after = after;
                    p.act = n == 16 ? PS3C_ACT_NONE : PS3C_ACT_GELU_ERF;
                    p.bias = true;
                    p.scale = after == 1;
                    p.residual = n % 2 ? APART : NONE;
                    p.gap = 8;
                    check_problem(dtype, p);
                }
}

/* Padding that held NaN is zeroed by the product that writes the last channels. */
TEST(gemm_padding)
{
    for (ps3c_dtype dtype : DTYPES)
        for (const int64_t n : {1, 7, 13})
            for (int act = 0; act < 2; act++) {
                both run(dtype, 10, 24);
                twin x(run, 2, 5, 24, random_values(run, 2 * 5 * 24)), y(run, 2, 5, n);
                const elements weight(run, random_values(run, n * 24));
                ps3c_gemm_args args = {};
                args.weight = weight.on(CUDA);
                args.n = args.values_from = n;
                args.k = args.ldw = 24;
                args.act = (ps3c_activation_function)act;
                args.x = x.on(CUDA);
                args.y = y.on(CUDA);
                run.call(CUDA, &ps3c_backend::gemm, args);
                CHECK(y.pads_are_zero(), "padding after %d channels", (int)n);
            }
}

/* A weight that is padded in more than one block of outputs. */
TEST(gemm_blocks)
{
    if (SMALL())
        return;
    for (ps3c_dtype dtype : DTYPES) {
        problem p = {1, 1, 70, dtype == PS3C_FLOAT32 ? 20001 : 40001};
        p.bias = true;
        p.residual = APART;
        check_problem(dtype, p);
    }
}

namespace
{

/* Products by the identity; the stand-in computes them on the calling thread. */
void multiply_many(int thread, long *wrong)
{
    const memory workspace(ps3c_lt_workspace_bytes());
    alignas(16) float x[8], weight[8 * 8], y[8];
    for (int i = 0; i < 400; i++) {
        ps3c_run run = {};
        ps3c_lt_product g = {};
        bool done = false;
        for (int j = 0; j < 8; j++) {
            x[j] = (float)(j + thread);
            for (int k = 0; k < 8; k++)
                weight[j * 8 + k] = j == k;
        }
        g.rows = 1;
        g.planned = 64 * (1 + (i * 7 + thread) % 400);
        g.n = g.k = g.ldw = g.ldx = g.ldy = 8;
        g.weight = weight;
        g.x = x;
        g.y = y;
        g.workspace = workspace.data();
        if (ps3c_lt_multiply(&run, &g, &done) != PS3C_OK || !done || memcmp(x, y, sizeof x) != 0)
            ++*wrong;
    }
}

} // namespace

TEST(gemm_threads)
{
    long wrong[4] = {};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back(multiply_many, i, &wrong[i]);
    for (std::thread &thread : threads)
        thread.join();
    for (const long count : wrong)
        CHECK(count == 0, "%ld products of a thread are wrong", count);
}
