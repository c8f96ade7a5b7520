/* Attention and attention pooling against float64: all shapes of tiles, cached and own tokens, masks, NaN, and results
 * that do not depend on how many segments there are. */
#include "check.h"

#include <algorithm>

namespace
{

/* ---- attention --------------------------------------------------------------------------------------------------- */

struct shape {
    int64_t segments, heads, head_dim, tokens, cached_segments, cached;
    double scale = 1;
    bool causal = false, masked = false, tf32 = false;
    int64_t own_at = 0, cached_at = 0; /* channels before the first ones that are used */
};

/* A problem with its memory; queries, keys and values are neighbours unless `apart`. */
struct attention {
    const shape s;
    const int64_t all;
    both run;
    twin query, own, cached, out;
    std::vector<float> q, kv, past;
    array<uint8_t> mask;
    ps3c_attention_args args = {};

    attention(ps3c_dtype dtype, const shape &wanted, bool apart = false)
        : s(wanted), all(s.heads * s.head_dim),
          run(dtype, std::max(s.segments * s.tokens, s.cached_segments * s.cached), s.own_at + s.cached_at + 3 * all, 1,
              s.tf32),
          query(run, s.segments, s.tokens, apart ? all : s.own_at + 3 * all),
          own(run, s.segments, s.tokens, apart ? s.own_at + 2 * all : 1),
          cached(run, std::max<int64_t>(s.cached_segments, 1), std::max<int64_t>(s.cached, 1), s.cached_at + 2 * all),
          out(run, s.segments, s.tokens, all), q(random_values(run, query.count(), s.scale)),
          kv(apart ? random_values(run, own.count(), s.scale) : q), past(random_values(run, cached.count(), s.scale)),
          mask(s.segments * s.tokens)
    {
        for (int64_t i = 0; i < mask.count; i++)
            mask.on(CUDA)[i] = i % s.tokens == s.tokens / 2 || random_bool();
        args.heads = s.heads;
        args.head_dim = s.head_dim;
        args.query = query.on(CUDA);
        args.query_channel = apart ? 0 : s.own_at;
        args.own = apart ? own.on(CUDA) : args.query;
        args.own_channel = apart ? s.own_at : s.own_at + all;
        args.cached = s.cached ? cached.on(CUDA) : nullptr;
        args.cached_channel = s.cached_at;
        args.causal = s.causal;
        args.last_query_mask = s.masked ? mask.on(CUDA) : nullptr;
        args.out = out.on(CUDA);
        upload();
    }
    void upload()
    {
        query.set(q);
        if (args.own != args.query)
            own.set(kv);
        else
            kv = q;
        cached.set(past);
    }
    std::vector<float> result()
    {
        run.call(CUDA, &ps3c_backend::attention, args);
        return out.rows(CUDA);
    }
};

/* Where a channel of a token's keys is: key i of segment's, cached ones first. */
const float *key_of(const attention &a, int64_t segment, int64_t i)
{
    const int64_t nc = a.s.cached;
    if (i < nc)
        return &a.past[(size_t)(((segment % a.s.cached_segments) * nc + i) * a.args.cached->channels +
                                a.args.cached_channel)];
    return &a.kv[(size_t)((segment * a.s.tokens + i - nc) * a.args.own->channels + a.args.own_channel)];
}

bool is_seen(const attention &a, int64_t segment, int64_t token, int64_t i)
{
    const int64_t t = i - a.s.cached;
    if (t < 0)
        return true;
    return (!a.s.causal || t <= token) &&
           (!a.s.masked || token != a.s.tokens - 1 || a.mask.at(CUDA, segment * a.s.tokens + t));
}

/* Softmax weights of one query, in float64. greatest: the sum of |products| of the largest score. */
std::vector<double> weights_of(const attention &a, int64_t segment, int64_t token, int64_t head, double *greatest)
{
    const int64_t D = a.s.head_dim;
    const float *q = &a.q[(size_t)((segment * a.s.tokens + token) * a.args.query->channels + a.args.query_channel)];
    std::vector<double> p((size_t)(a.s.cached + a.s.tokens));
    double most = -INFINITY, sum = 0;
    *greatest = 0;
    for (size_t i = 0; i < p.size(); i++) {
        const float *k = key_of(a, segment, (int64_t)i);
        double size = 0;
        for (int64_t c = head * D; c < head * D + D; c++) {
            p[i] += (double)q[c] * k[c];
            size += std::fabs((double)q[c] * k[c]);
        }
        p[i] /= sqrt((double)D);
        if (!is_seen(a, segment, token, (int64_t)i)) {
            p[i] = -INFINITY;
            continue;
        }
        *greatest = std::max(*greatest, size / sqrt((double)D));
        most = p[i] > most ? p[i] : most;
    }
    for (double &x : p)
        sum += x = exp(x - most);
    for (double &x : p)
        x /= sum;
    return p;
}

void compare_query(const attention &a, const std::vector<float> &got, int64_t segment, int64_t token, int64_t head)
{
    const ps3c_dtype dtype = a.run.dtype;
    const int64_t D = a.s.head_dim;
    double greatest;
    const std::vector<double> p = weights_of(a, segment, token, head, &greatest);
    /* Weights may be rounded to the dtype; TF32 rounds every factor. */
    double relative = 1e-6 + 6e-7 * greatest + (dtype == PS3C_FLOAT32 ? 0 : unit(dtype, 1) / 2);
    if (a.s.tf32)
        relative += 0x1p-10 * (1 + greatest);
    for (int64_t c = head * D; c < head * D + D; c++) {
        double want = 0, size = 0;
        for (size_t i = 0; i < p.size(); i++) {
            const double v = p[i] * key_of(a, segment, (int64_t)i)[a.all + c];
            want += v, size += std::fabs(v);
        }
        const float y = got[(size_t)((segment * a.s.tokens + token) * a.all + c)];
        const double allowed = relative * size + unit(dtype, want) * 0.51 + 1e-7;
        CHECK(std::fabs(y - want) <= allowed, "[%lld][%lld][%lld]: got %.9g, expected %.9g +- %.2g", (long long)segment,
              (long long)token, (long long)c, y, want, allowed);
    }
}

void check(ps3c_dtype dtype, const shape &s, bool apart = false)
{
    static int seen = 0;
    if (SMALL() && seen++ % 5 != 0) /* the lists of shapes have periods of 2 and 3, so each kind is left */
        return;
    const about what(
        "dtype %d, %lld segments, %lld heads of %lld, %lld tokens, %lld x %lld cached, causal %d, masked %d, "
        "tf32 %d",
        (int)dtype, (long long)s.segments, (long long)s.heads, (long long)s.head_dim, (long long)s.tokens,
        (long long)s.cached_segments, (long long)s.cached, s.causal, s.masked, s.tf32);
    attention a(dtype, s, apart);
    const std::vector<float> got = a.result();
    CHECK(a.query.is_unchanged(), "wrote its input");
    for (int64_t segment = 0; segment < s.segments; segment++)
        for (int64_t token = 0; token < s.tokens; token++)
            for (int64_t head = 0; head < s.heads; head++)
                compare_query(a, got, segment, token, head);
}

/* Few tokens, and tile - 1, tile, tile + 1 of queries and keys (128, 64, 32). */
TEST(own_tokens)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129})
            check(dtype, {1 + tokens % 2, 1, tokens > 16 ? 72 : 64, tokens, 0, 0});
}

TEST(head_dims)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t dim : {8, 16, 24, 32, 40, 64, 72, 80, 88, 96, 104, 128, 136, 200, 256, 264, 520}) {
            check(dtype, {1, 2, dim, 37, 1, 5});
            if (dtype == PS3C_FLOAT32)
                check(dtype, {1, 2, dim, 37, 1, 5, 1, false, false, true});
        }
}

TEST(cached_tokens)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t cached : {1, 2, 31, 32, 33, 63, 64, 65, 130})
            for (int64_t tokens : {1, 5, 66})
                check(dtype, {3, 1, 24, tokens, 1 + cached % 3, cached});
}

TEST(causal)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t tokens : {1, 2, 5, 9, 31, 33, 64, 65, 77, 128, 130}) {
            check(dtype, {1, 2, 16, tokens, 0, 0, 1, true});
            check(dtype, {2, 1, 72, tokens, 1, 3, 1, true, tokens % 2 == 1});
        }
}

TEST(last_query_mask)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t tokens : {1, 2, 3, 9, 64, 65, 128, 129, 140}) {
            check(dtype, {2, 1, 32, tokens, 0, 0, 1, false, true});
            check(dtype, {2, 1, 128, tokens, 0, 0, 1, true, true});
        }
}

/* Scores of hundreds: one key takes all, and the maximum rises and falls from tile to tile. */
TEST(great_scores)
{
    for (ps3c_dtype dtype : DTYPES)
        for (double scale : {1e-3, 12.0, 40.0})
            check(dtype, {1, 1, 72, 150, 1, 70, scale});
}

TEST(tf32)
{
    for (int64_t tokens : {1, 3, 31, 32, 33, 64, 65, 129})
        for (int64_t dim : {64, 72, 128})
            check(PS3C_FLOAT32, {1, 1, dim, tokens, 1, tokens / 2, 1, tokens % 2 == 1, tokens % 3 == 0, true});
}

TEST(channels_before)
{
    for (ps3c_dtype dtype : DTYPES)
        for (bool apart : {false, true}) {
            shape s = {2, 2, 40, 35, 2, 33};
            s.own_at = 8, s.cached_at = 24;
            check(dtype, s, apart);
        }
}

bool same(const std::vector<float> &a, const std::vector<float> &b, size_t first = 0)
{
    return memcmp(a.data() + first, b.data(), b.size() * sizeof(float)) == 0;
}

/* Each segment alone gives the bits that it gives among others. */
TEST(segments_are_independent)
{
    for (ps3c_dtype dtype : DTYPES)
        for (bool tf32 : {false, true}) {
            if (tf32 && dtype != PS3C_FLOAT32)
                continue;
            shape s = {4, 2, 72, 70, 2, 40};
            s.tf32 = tf32;
            attention together(dtype, s);
            const std::vector<float> whole = together.result();
            CHECK(same(together.result(), whole), "another run gives other bits");
            s.segments = s.cached_segments = 1;
            for (size_t i = 0; i < 4; i++) {
                attention alone(dtype, s);
                std::copy_n(together.q.begin() + (int64_t)(i * alone.q.size()), alone.q.size(), alone.q.begin());
                std::copy_n(together.past.begin() + (int64_t)(i % 2 * alone.past.size()), alone.past.size(),
                            alone.past.begin());
                alone.upload();
                CHECK(same(whole, alone.result(), i * 70 * 144), "dtype %d tf32 %d: segment %zu differs when alone",
                      (int)dtype, tf32, i);
            }
        }
}

/* NaN and Inf in one query stay there; in a key, they reach the queries that see it; in a value, their channel. */
TEST(not_a_number)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t dim : {72, 264}) {
            attention a(dtype, {2, dim == 72 ? 2 : 1, dim, 70, 1, 3, 1, true});
            const int64_t width = 3 * a.all;
            const std::vector<float> plain = a.result();
            const auto poison = [&](int64_t channel, float value, const char *what, auto &&reached) {
                const int64_t at = 60 * width + channel; /* segment 0 */
                const float before = a.q[(size_t)at];
                a.q[(size_t)at] = value;
                a.upload();
                std::vector<float> got = a.result();
                for (int64_t i = 0; i < (int64_t)got.size(); i++) {
                    const int64_t token = i / a.all, c = i % a.all;
                    if (token < 70 && reached(token, c))
                        CHECK(std::isnan(got[(size_t)i]), "%s: [%lld][%lld] is %g", what, (long long)token,
                              (long long)c, got[(size_t)i]);
                    else
                        CHECK(got[(size_t)i] == plain[(size_t)i], "%s: [%lld][%lld] is %g, not %g", what,
                              (long long)token, (long long)c, got[(size_t)i], plain[(size_t)i]);
                }
                a.q[(size_t)at] = before;
            };
            const auto its_own = [&](int64_t token, int64_t c) { return token == 60 && c < dim; };
            const about what("dtype %d, dim %lld", (int)dtype, (long long)dim);
            poison(3, NAN, "NaN in a query", its_own);
            poison(3, INFINITY, "Inf in a query", its_own);
            poison(a.all + 3, NAN, "NaN in a key", [&](int64_t t, int64_t c) { return t >= 60 && c < dim; });
        }
}

TEST(nothing_but_nan)
{
    for (ps3c_dtype dtype : DTYPES) {
        attention a(dtype, {1, 1, 72, 66, 0, 0});
        std::fill(a.q.begin(), a.q.end(), NAN);
        a.upload();
        for (float y : a.result())
            CHECK(std::isnan(y), "%g", y);
    }
}

TEST(no_segments)
{
    for (ps3c_dtype dtype : DTYPES) {
        attention a(dtype, {1, 1, 8, 1, 0, 0});
        ps3c_activation none = *a.args.query, out = *a.args.out;
        none.segments = out.segments = 0;
        a.args.query = a.args.own = &none;
        a.args.out = &out;
        a.run.call(CUDA, &ps3c_backend::attention, a.args);
        CHECK(std::isnan(a.out.rows(CUDA)[0]), "something was written");
    }
}

/* ---- attention pooling ------------------------------------------------------------------------------------------- */

struct pool {
    both run;
    twin query, keys_values, out;
    array<uint8_t> mask;
    ps3c_attention_pool_args args[2];

    pool(ps3c_dtype dtype, int64_t segments, int64_t tokens, int64_t heads, int64_t dim, bool masked, double scale = 1)
        : run(dtype, segments * tokens, 2 * heads * dim), query(run, 1, 1, heads * dim),
          keys_values(run, segments, tokens, 2 * heads * dim), out(run, 1, segments, heads * dim),
          mask(segments * tokens)
    {
        query.set(random_values(run, query.count(), scale));
        keys_values.set(random_values(run, keys_values.count(), scale));
        for (int64_t i = 0; i < mask.count; i++)
            mask.on(NAIVE)[i] = mask.on(CUDA)[i] = i % tokens == tokens - 1 || random_bool();
        for (side s : SIDES)
            args[s] = {heads, dim, query.on(s), keys_values.on(s), masked ? mask.on(s) : nullptr, out.on(s)};
    }
    void call()
    {
        for (side s : SIDES)
            run.call(s, &ps3c_backend::attention_pool, args[s]);
    }
};

void check_pool(ps3c_dtype dtype, int64_t segments, int64_t tokens, int64_t heads, int64_t dim, bool masked,
                double scale = 1)
{
    const about what("dtype %d, %lld segments, %lld tokens, %lld heads of %lld, masked %d", (int)dtype,
                     (long long)segments, (long long)tokens, (long long)heads, (long long)dim, masked);
    pool p(dtype, segments, tokens, heads, dim, masked, scale);
    p.call();
    p.out.compare(2e-6, scale * (1 + scale * scale)); /* naive sums in float32, one token after the other */
    CHECK(p.keys_values.is_unchanged(), "wrote its input");
}

TEST(pool_tokens)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t tokens : {1, 2, 3, 7, 8, 9, 31, 32, 33, 511, 512, 513})
            check_pool(dtype, 2, tokens, 2, 8, tokens % 2);
}

TEST(pool_more_tokens_than_a_part)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t tokens : {1023, 1024, 1025, 2060})
            check_pool(dtype, 1, tokens, 1, 8, tokens % 2, 2);
}

TEST(pool_head_dims)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t dim : {1, 2, 3, 4, 5, 8, 12, 16, 17, 64, 65, 72, 80, 256, 264, 520})
            check_pool(dtype, 1, 37, 3, dim, dim % 3 == 0);
}

TEST(pool_great_scores)
{
    for (ps3c_dtype dtype : DTYPES)
        check_pool(dtype, 2, 97, 2, 16, false, 12);
}

/* Hidden keys may be NaN; NaN in a query stays in its head; a segment of hidden keys alone gives NaN. */
TEST(pool_not_a_number)
{
    for (ps3c_dtype dtype : DTYPES) {
        const about what("dtype %d", (int)dtype);
        pool p(dtype, 2, 50, 2, 16, true);
        p.call();
        const std::vector<float> plain = p.out.rows(CUDA);
        p.mask.on(CUDA)[3] = 0;
        p.run.call(CUDA, &ps3c_backend::attention_pool, p.args[CUDA]);
        const std::vector<float> hidden = p.out.rows(CUDA);
        put(dtype, p.keys_values.on(CUDA)->data, 3 * 64 + 5, NAN);
        p.run.call(CUDA, &ps3c_backend::attention_pool, p.args[CUDA]);
        CHECK(same(p.out.rows(CUDA), hidden), "a hidden key's NaN is seen");
        p.mask.on(CUDA)[3] = 1;
        p.run.call(CUDA, &ps3c_backend::attention_pool, p.args[CUDA]);
        const std::vector<float> got = p.out.rows(CUDA);
        for (size_t i = 0; i < got.size(); i++)
            CHECK(i < 16 ? std::isnan(got[i]) : got[i] == hidden[i] || i < 32, "[%zu]: %g", i, got[i]);
        std::fill_n(p.mask.on(CUDA), 50, 0);
        put(dtype, p.keys_values.on(CUDA)->data, 3 * 64 + 5, 0.0f);
        p.run.call(CUDA, &ps3c_backend::attention_pool, p.args[CUDA]);
        const std::vector<float> nothing = p.out.rows(CUDA);
        for (size_t i = 0; i < nothing.size(); i++)
            CHECK(i < 32 ? std::isnan(nothing[i]) : nothing[i] == plain[i], "all hidden, [%zu]: %g", i, nothing[i]);
    }
}

TEST(pool_segments_are_independent)
{
    for (ps3c_dtype dtype : DTYPES) {
        pool p(dtype, 3, 45, 2, 24, true);
        p.call();
        const std::vector<float> whole = p.out.rows(CUDA);
        ps3c_activation alone = *p.keys_values.on(CUDA), out = *p.out.on(CUDA);
        alone.segments = 1;
        alone.data = (char *)alone.data + 2 * 45 * 96 * element_bytes(dtype);
        out.tokens = 1;
        p.args[CUDA].keys_values = &alone;
        p.args[CUDA].mask += 2 * 45;
        p.args[CUDA].out = &out;
        p.run.call(CUDA, &ps3c_backend::attention_pool, p.args[CUDA]);
        const std::vector<float> one = p.out.rows(CUDA);
        CHECK(memcmp(one.data(), whole.data() + 2 * 48, 48 * sizeof(float)) == 0, "segment 2 differs when alone");
    }
}

} // namespace
