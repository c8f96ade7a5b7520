/* Operations of selection, against the plain C ones: cosines and probabilities closely, everything else to the bit. */
#include <algorithm>
#include <memory>
#include <numeric>

#include "check.h"

namespace
{

/* ---- cosine ------------------------------------------------------------------------------------------------------ */

/* Against double: the plain sum of thousands of channels is no better than ours. */
void check_cosine(ps3c_dtype dtype, int64_t segments, int64_t tokens, int64_t channels, int64_t stride)
{
    both run(dtype, segments * tokens, channels);
    const about shape("%s, %d x %d x %d, prompts %d apart", ps3c_dtype_name(dtype), (int)segments, (int)tokens,
                      (int)channels, (int)stride);
    const std::vector<float> rows = random_values(run, segments * tokens * channels, 3);
    const std::vector<float> prompts = random_values(run, (segments - 1) * stride + channels, 0.2);
    twin features(run, segments, tokens, channels, rows);
    const elements prompt(run, prompts);
    array<float> logits(segments * tokens), alone(tokens);
    for (int64_t i = 0; i < segments * tokens; i++) {
        double dot = 0, square = 0, length = 0;
        for (int64_t c = 0; c < channels; c++) {
            const double x = rows[i * channels + c], p = prompts[i / tokens * stride + c];
            dot += x * p;
            square += x * x;
            length += p * p;
        }
        logits.on(NAIVE)[i] = (float)(dot / sqrt(square) / sqrt(length));
    }
    run.call(CUDA, &ps3c_backend::cosine,
             ps3c_cosine_args{features.on(CUDA), prompt.on(CUDA), stride, logits.on(CUDA)});
    logits.compare(1e-6);
    for (int64_t s = 0; s < std::min(segments, (int64_t)3); s++) { /* the same bits, whatever else is in the call */
        twin one(run, 1, tokens, channels,
                 {rows.begin() + s * tokens * channels, rows.begin() + (s + 1) * tokens * channels});
        run.call(CUDA, &ps3c_backend::cosine,
                 ps3c_cosine_args{one.on(CUDA), (char *)prompt.on(CUDA) + s * stride * (int64_t)element_bytes(dtype), 0,
                                  alone.on(CUDA)});
        CHECK(!memcmp(alone.on(CUDA), logits.on(CUDA) + s * tokens, (size_t)tokens * sizeof(float)),
              "segment %d alone differs", (int)s);
    }
}

TEST(cosine)
{
    const int64_t shapes[][3] = {{1, 1, 1},    {2, 5, 3},    {1, 7, 8},    {1, 8, 16},   {3, 9, 17},
                                 {2, 17, 577}, {1, 3, 1152}, {1, 9, 4096}, {2, 9, 4097}, {1, 2, 9001}};
    for (ps3c_dtype dtype : DTYPES) {
        for (const auto &s : shapes)
            for (int64_t stride : {s[2] + 3, s[2], (int64_t)0}) {
                check_cosine(dtype, s[0], s[1], s[2], stride);
                if (SMALL())
                    break;
            }
    }
    if (!SMALL())
        check_cosine(PS3C_FLOAT16, 600, 19, 5, 5); /* more tokens than a segment's blocks have at once */
}

TEST(cosine_of_nothing)
{
    std::vector<float> rows(3 * 4, 1.0f);
    std::fill(rows.begin(), rows.begin() + 4, 0.0f);
    rows[6] = NAN;
    for (ps3c_dtype dtype : DTYPES)
        for (float p : {1.0f, 0.0f}) {
            both run(dtype, 3, 4);
            twin features(run, 1, 3, 4, rows);
            elements prompt(run, std::vector<float>(4, p));
            array<float> logits(3);
            for (side s : SIDES)
                run.call(s, &ps3c_backend::cosine, ps3c_cosine_args{features.on(s), prompt.on(s), 0, logits.on(s)});
            logits.compare(1e-6);
        }
}

/* ---- max pool, probability --------------------------------------------------------------------------------------- */

TEST(max_pool)
{
    const int64_t sizes[][4] = {{54, 54, 27, 27}, {54, 54, 27, 16}, {54, 54, 5, 7}, {3, 5, 7, 9},
                                {1, 1, 4, 4},     {13, 1, 3, 1},    {1, 1, 1, 1}};
    both run(PS3C_FLOAT32, 1, 1);
    for (const auto &z : sizes) {
        std::vector<float> values = random_values(run, 2 * z[0] * z[1]);
        values.front() = NAN;
        values.back() = -INFINITY;
        const array<float> in(values);
        array<float> out(2 * z[2] * z[3]);
        for (side s : SIDES)
            run.call(s, &ps3c_backend::max_pool, ps3c_max_pool_args{in.on(s), out.on(s), 2, z[0], z[1], z[2], z[3]});
        out.compare(0, 0, true);
    }
}

TEST(probability)
{
    const float special[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f, 0.0f, 2.0f, -2.0f, 1e-8f};
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t count : {9, 127, 129, 1003}) {
            both run(dtype, 1, 1);
            std::vector<float> values(count), more(count);
            for (int64_t i = 0; i < count; i++) {
                values[i] = i < 9 ? special[i] : (float)random_value() * 2.5f;
                more[i] = i < 9 ? 0 : (float)random_value();
            }
            const array<float> logits(values), highres(more);
            array<float> probs(count);
            for (bool with : {false, true}) {
                for (side s : SIDES)
                    run.call(s, &ps3c_backend::probability,
                             ps3c_probability_args{logits.on(s), with ? highres.on(s) : nullptr, probs.on(s), count});
                probs.compare(unit(dtype, 1) + 1e-6, 0);
                for (int64_t i = 0; i < count; i++)
                    CHECK(std::isnan(probs.at(CUDA, i)) || probs.at(CUDA, i) == rounded(dtype, probs.at(CUDA, i)),
                          "%g is no value of %s", probs.at(CUDA, i), ps3c_dtype_name(dtype));
            }
        }
}

/* ---- ground truth ------------------------------------------------------------------------------------------------ */

/* Dtypes of ground truth. */
std::vector<ps3c_dtype> ground_truths()
{
    if (SMALL())
        return {PS3C_FLOAT32, PS3C_BOOL, PS3C_INT16};
    return {PS3C_FLOAT32, PS3C_FLOAT16, PS3C_BFLOAT16, PS3C_FLOAT64, PS3C_BOOL,
            PS3C_UINT8,   PS3C_INT8,    PS3C_INT16,    PS3C_INT32,   PS3C_INT64};
}

void put_any(ps3c_dtype dtype, void *data, int64_t i, float x)
{
    switch (dtype) {
    case PS3C_FLOAT64:
        ((double *)data)[i] = x;
        break;
    case PS3C_BOOL:
        ((uint8_t *)data)[i] = x != 0;
        break;
    case PS3C_UINT8:
        ((uint8_t *)data)[i] = (uint8_t)fabsf(x);
        break;
    case PS3C_INT8:
        ((int8_t *)data)[i] = (int8_t)x;
        break;
    case PS3C_INT16:
        ((int16_t *)data)[i] = (int16_t)x;
        break;
    case PS3C_INT32:
        ((int32_t *)data)[i] = (int32_t)x;
        break;
    case PS3C_INT64:
        ((int64_t *)data)[i] = (int64_t)x;
        break;
    default:
        put(dtype, data, i, x);
    }
}

/* Maps with zeros, small and large areas, negative where the dtype has them and `least` is; the last has nothing. */
struct truth {
    memory data;
    ps3c_tensor whole;
    truth(ps3c_dtype dtype, int64_t batch, int64_t rows, int64_t cols, double least = -9)
        : data((size_t)(batch * rows * cols) * ps3c_dtype_bytes(dtype)),
          whole(tensor_over(CUDA, data.data(), dtype, {batch, rows, cols}))
    {
        for (int64_t i = 0; i < batch * rows * cols; i++) {
            const bool some = random_int(0, 9) > 6 && i % (rows * cols) < rows * cols / 2 + 1;
            const double value = some && i < (batch - 1) * rows * cols ? random_value() * 9 : 0;
            put_any(dtype, data.data(), i, (float)std::max(value, least));
        }
    }
};

/* As it is, transposed, upside down, every other pixel, one image for all. */
constexpr int VIEWS = 5;
ps3c_tensor view_of(const ps3c_tensor &whole, int kind)
{
    ps3c_tensor view = whole;
    if (kind == 1) {
        std::swap(view.shape[1], view.shape[2]);
        std::swap(view.strides[1], view.strides[2]);
    } else if (kind == 2) {
        view.data = (char *)view.data + (view.shape[1] - 1) * view.strides[1] * (int64_t)ps3c_dtype_bytes(view.dtype);
        view.strides[1] = -view.strides[1];
    } else if (kind == 3) {
        view.shape[2] = (view.shape[2] + 1) / 2;
        view.strides[2] *= 2;
    } else if (kind == 4)
        view.strides[0] = 0;
    return view;
}

/* ---- expand ------------------------------------------------------------------------------------------------------ */

struct grid {
    int64_t rows, cols;
};

void check_expand(ps3c_dtype dtype, int64_t batch, grid in, grid out, const ps3c_tensor *gt, grid first, bool smooth)
{
    both run(dtype, 1, 1);
    const about shape("%s, %d x %d to %d x %d, gt %s, smooth %d", ps3c_dtype_name(dtype), (int)in.rows, (int)in.cols,
                      (int)out.rows, (int)out.cols, gt ? ps3c_dtype_name(gt->dtype) : "none", (int)smooth);
    std::vector<float> values = random_values(run, batch * in.rows * in.cols, 0.5, 0.5);
    if (random_int(0, 3) == 0)
        values[(size_t)random_int(0, (int64_t)values.size() - 1)] = NAN;
    const array<float> probs(values);
    elements maps(run, batch * out.rows * out.cols);
    for (side s : SIDES) {
        const ps3c_tensor map = tensor_over(s, maps.on(s), dtype, {batch, out.rows, out.cols});
        run.call(s, &ps3c_backend::expand,
                 ps3c_expand_args{probs.on(s), batch, in.rows, in.cols, gt, first.rows, first.cols, smooth, &map});
    }
    maps.compare_exact();
}

TEST(expand)
{
    const grid grids[][2] = {{{27, 27}, {54, 54}}, {{27, 16}, {54, 33}}, {{5, 7}, {5, 7}}, {{3, 4}, {2, 9}},
                             {{27, 27}, {90, 50}}, {{1, 1}, {1, 1}},     {{8, 8}, {6, 6}}};
    for (ps3c_dtype dtype : DTYPES)
        for (const auto &g : grids)
            for (bool smooth : {false, true})
                check_expand(dtype, 2, g[0], g[1], nullptr, {1, 1}, smooth);
}

TEST(expand_with_ground_truth)
{
    const grid sizes[] = {{31, 44}, {7, 5}, {1, 1}, {101, 67}};
    for (ps3c_dtype kind : ground_truths())
        for (const grid &size : sizes) {
            const truth gt(kind, 2, size.rows, size.cols);
            for (int i = 0; i < VIEWS; i += SMALL() ? 3 : 1) {
                const ps3c_tensor view = view_of(gt.whole, i);
                check_expand(DTYPES[i % 3], 2, {4, 4}, {9, 8}, &view, {9, 8}, false);
                check_expand(DTYPES[i % 3], 2, {4, 3}, {18, 11}, &view, {6, 7}, i % 2);
            }
            check_expand(PS3C_FLOAT32, 2, {4, 4}, {3, 2}, &gt.whole, {6, 5}, false); /* cells that no patch has */
        }
    const memory nan(8 * sizeof(float));
    const ps3c_tensor gt = tensor_over(CUDA, nan.data(), PS3C_FLOAT32, {1, 2, 4});
    check_expand(PS3C_BFLOAT16, 1, {3, 3}, {6, 6}, &gt, {3, 3}, false);
}

/* ---- gt_mask ----------------------------------------------------------------------------------------------------- */

void check_gt_mask(const ps3c_tensor &whole, int64_t tokens)
{
    const int64_t batch = whole.shape[0];
    const ps3c_scale scales[] = {{0, 0, 18, 18, 0}, {0, 0, 36, 20, 324}, {0, 0, 3, 5, 1044}};
    both run(PS3C_FLOAT32, batch * tokens, 1);
    std::vector<int32_t> chosen((size_t)(batch * tokens));
    for (int32_t &position : chosen)
        position = (int32_t)random_int(0, 1058);
    const array<int32_t> positions(chosen);
    array<uint8_t> mask(batch * tokens);
    for (int i = 0; i < VIEWS; i += SMALL() ? 3 : 1) {
        const about shape("%s, %d tokens, view %d", ps3c_dtype_name(whole.dtype), (int)tokens, i);
        const ps3c_tensor view = view_of(whole, i);
        for (side s : SIDES)
            run.call(s, &ps3c_backend::gt_mask,
                     ps3c_gt_mask_args{&view, scales, 3, positions.on(s), batch, tokens, mask.on(s)});
        mask.compare_exact();
    }
}

TEST(gt_mask)
{
    for (ps3c_dtype kind : ground_truths())
        for (double least : {-9.0, 0.0}) {
            const truth gt(kind, 3, 45, 50, least);
            for (int64_t tokens : {1, 67})
                check_gt_mask(gt.whole, tokens);
        }
    const memory nan(3 * 4 * sizeof(float));
    check_gt_mask(tensor_over(CUDA, nan.data(), PS3C_FLOAT32, {3, 2, 2}), 5);
}

/* Values of both signs whose sum is 0 count as none, as in the reference. */
TEST(gt_mask_of_a_sum_of_zero)
{
    array<int32_t> positions(std::vector<int32_t>{0, 3, 1, 2, 0, 3, 0, 1});
    array<float> gt(std::vector<float>{1.5f, 0, 0, -1.5f, 1.5f, 0, 0, -1});
    array<uint8_t> mask(8);
    const ps3c_scale scale = {0, 0, 2, 2, 0};
    both run(PS3C_FLOAT32, 8, 1);
    for (side s : SIDES) {
        const ps3c_tensor view = tensor_over(s, gt.on(s), PS3C_FLOAT32, {2, 2, 2});
        run.call(s, &ps3c_backend::gt_mask, ps3c_gt_mask_args{&view, &scale, 1, positions.on(s), 2, 4, mask.on(s)});
    }
    mask.compare_exact();
    CHECK(mask.at(CUDA, 0) == 1 && mask.at(CUDA, 2) == 1 && mask.at(CUDA, 4) == 1 && mask.at(CUDA, 7) == 0,
          "not the reference's rule");
}

/* ---- rank -------------------------------------------------------------------------------------------------------- */

enum { RANDOM, TIES, EQUAL, BITS, KINDS };

void put_probs(ps3c_dtype dtype, void *data, int64_t count, int kind)
{
    static const float special[] = {NAN, 0.0f, -0.0f, INFINITY, -INFINITY, 1.0f, -1.0f, 6e-8f, -6e-8f};
    for (int64_t i = 0; i < count; i++) {
        if (kind == BITS) {
            const uint32_t bits = (uint32_t)random_bits();
            memcpy((char *)data + i * (int64_t)element_bytes(dtype), &bits, element_bytes(dtype));
        } else if (kind == TIES && random_int(0, 3) == 0)
            put(dtype, data, i, special[random_int(0, 8)]);
        else
            put(dtype, data, i,
                kind == EQUAL  ? 0.25f
                : kind == TIES ? (float)random_int(0, 8) / 8
                               : (float)random_value());
    }
}

void check_rank(ps3c_dtype dtype, int64_t batch, int64_t rows, int64_t cols, int kind)
{
    const int64_t count = batch * rows * cols;
    both run(dtype, 1, 1, count);
    const about shape("%s, %d x %d x %d, kind %d", ps3c_dtype_name(dtype), (int)batch, (int)rows, (int)cols, kind);
    elements probs(run, count);
    array<int32_t> rank(count);
    const memory exact(ps3c_rank_cuda_scratch(count)); /* that of the backend has room for other operations */
    put_probs(dtype, probs.on(NAIVE), count, kind);
    memcpy(probs.on(CUDA), probs.on(NAIVE), (size_t)count * element_bytes(dtype));
    run.runs[CUDA].scratch = exact.data();
    for (side s : SIDES) {
        const ps3c_tensor map = tensor_over(s, probs.on(s), dtype, {batch, rows, cols});
        run.call(s, &ps3c_backend::rank, ps3c_rank_args{&map, rank.on(s)});
    }
    rank.compare_exact();
}

TEST(rank_of_a_block)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int kind = 0; kind < KINDS; kind++) {
            if (SMALL() && kind != TIES)
                continue;
            for (int64_t n : {1, 2, 9, 31, 33, 257})
                check_rank(dtype, 1 + n % 3, 1, n, kind);
            check_rank(dtype, 1, 64, 64, kind);
        }
}

TEST(rank_of_tiles)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int kind = 0; kind < KINDS; kind++) {
            check_rank(dtype, 1, 17, 241, kind); /* 4097: two tiles and a patch */
            if (SMALL())
                break;
            check_rank(dtype, 2, 53, 97, kind);  /* 5141 */
            check_rank(dtype, 1, 128, 64, kind); /* four tiles */
        }
}

/* ---- looks ------------------------------------------------------------------------------------------------------- */

/* A case: patches of each look at each scale, the same number of tokens for every image. Each look takes a random part
 * of what the ones before left; with `all`, the last takes what is left. */
struct looks_case {
    int64_t batch, looks, patches = 0, most = 0, entries = 0;
    std::vector<grid> grids;
    std::vector<ps3c_scale> scales;
    std::vector<int64_t> first, tokens;
    std::vector<int32_t> ends; /* [batch][scales][looks] */

    looks_case(int64_t images, const std::vector<grid> &g, int64_t count, bool all)
        : batch(images), looks(count), grids(g), ends((size_t)(images * (int64_t)g.size() * count))
    {
        for (const grid &size : grids) {
            scales.push_back({0, 0, size.rows, size.cols, patches});
            patches += size.rows * size.cols;
            most = std::max(most, size.rows * size.cols);
        }
        for (int64_t l = 0, left = patches; l < looks; left -= tokens[l], l++) {
            first.push_back(entries);
            tokens.push_back(l + 1 == looks && all ? left : std::min(left, random_int(0, 2 * patches / (looks + 1))));
            entries += batch * tokens[l];
        }
        for (int64_t b = 0; b < batch; b++)
            deal(b);
    }
    /* Image b's tokens over the scales, a part at a time. */
    void deal(int64_t b)
    {
        const int64_t count = (int64_t)grids.size();
        std::vector<int64_t> taken(grids.size());
        for (int64_t l = 0; l < looks; l++) {
            for (int64_t left = tokens[l]; left > 0;) {
                const int64_t s = random_int(0, count - 1);
                const int64_t part = std::min(grids[s].rows * grids[s].cols - taken[s], random_int(1, left));
                taken[s] += part;
                left -= part;
            }
            for (int64_t s = 0; s < count; s++)
                ends[(size_t)((b * count + s) * looks + l)] = (int32_t)taken[s];
        }
    }
};

/* A random permutation for each image. */
std::vector<int32_t> random_rank(int64_t batch, int64_t patches)
{
    std::vector<int32_t> rank((size_t)(batch * patches));
    for (int64_t b = 0; b < batch; b++) {
        int32_t *of_image = rank.data() + b * patches;
        std::iota(of_image, of_image + patches, 0);
        for (int64_t i = patches - 1; i > 0; i--)
            std::swap(of_image[i], of_image[random_int(0, i)]);
    }
    return rank;
}

void check_looks(ps3c_dtype dtype, const looks_case &in)
{
    const int64_t num_scales = (int64_t)in.scales.size();
    both run(dtype, 1, 1, in.batch * in.most);
    const about shape("%s, %d images, %d scales, %d looks", ps3c_dtype_name(dtype), (int)in.batch, (int)num_scales,
                      (int)in.looks);
    const memory exact(ps3c_assign_looks_cuda_scratch(in.batch * in.most));
    array<int32_t> positions(in.entries), row_of(in.entries);
    std::vector<std::unique_ptr<array<int32_t>>> ranks;
    std::vector<std::unique_ptr<elements>> maps;
    for (const grid &g : in.grids) {
        ranks.emplace_back(new array<int32_t>(random_rank(in.batch, g.rows * g.cols)));
        maps.emplace_back(new elements(run, in.batch * g.rows * g.cols));
    }
    run.runs[CUDA].scratch = exact.data();
    for (side s : SIDES) {
        std::vector<const int32_t *> rank;
        std::vector<ps3c_tensor> map;
        for (int64_t i = 0; i < num_scales; i++) {
            rank.push_back(ranks[i]->on(s));
            map.push_back(tensor_over(s, maps[i]->on(s), dtype, {in.batch, in.grids[i].rows, in.grids[i].cols}));
        }
        run.call(s, &ps3c_backend::assign_looks,
                 ps3c_assign_looks_args{in.batch, in.looks, num_scales, in.scales.data(), rank.data(), in.ends.data(),
                                        in.first.data(), in.tokens.data(), positions.on(s), row_of.on(s), map.data()});
    }
    positions.compare_exact();
    row_of.compare_exact();
    for (const auto &map : maps)
        map->compare_exact();
}

TEST(assign_looks)
{
    for (ps3c_dtype dtype : DTYPES)
        for (bool all : {false, true}) {
            check_looks(dtype, {1, {{1, 1}}, 1, all});
            check_looks(dtype, {1, {{4, 4}}, 3, all});
            check_looks(dtype, {2, {{6, 6}, {12, 12}}, 2, all});
            check_looks(dtype, {3, {{3, 9}, {2, 2}, {1, 7}, {5, 5}}, 6, all});
            if (!SMALL() || (dtype == PS3C_FLOAT32 && all))
                check_looks(dtype, {1, {{27, 27}, {54, 54}}, 2, all});
        }
    check_looks(PS3C_FLOAT32, {2, {{3, 3}}, 0, false});
}

TEST(assign_looks_of_tiles)
{
    for (int64_t looks : {3, 35}) /* a tile less one, a tile, a tile and one, several */
        check_looks(PS3C_BFLOAT16, {1, {{1, 2047}, {32, 64}, {3, 683}, {70, 67}}, looks, true});
}

TEST(assign_looks_in_rounds)
{
    const std::vector<grid> grids = {{20, 20}, {7, 6}};
    for (int64_t looks : {254, 255, 256, 600})
        if (!SMALL() || looks == 256)
            check_looks(PS3C_FLOAT16, {1, grids, looks, true});
    check_looks(PS3C_FLOAT32, {65, {{3, 3}, {5, 4}}, 4, true}); /* more images than two rounds have */
    check_looks(PS3C_FLOAT32,
                {34, SMALL() ? std::vector<grid>{{2, 3}} : std::vector<grid>{{9, 9}, {13, 15}}, 270, false});
}

} // namespace
