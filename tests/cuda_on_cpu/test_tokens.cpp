/* Rows, patches, positions, the convolution, the text tower's own operations: CUDA against naive, on tiny and ragged
 * shapes. Values that are moved are compared exactly. */
#include "check.h"

namespace
{

/* Less than a pack, whole packs, more than one; the real width. */
std::vector<int64_t> channel_counts()
{
    return SMALL() ? std::vector<int64_t>{3, 8, 17} : std::vector<int64_t>{1, 2, 3, 5, 8, 17, 40, 1152};
}

const float NOT_A_NUMBER = NAN, INFINITE = INFINITY;

/* Random numbers from 0 to `below` - 1. */
std::vector<int32_t> random_positions(int64_t count, int64_t below)
{
    std::vector<int32_t> positions((size_t)count);
    for (int32_t &p : positions)
        p = (int32_t)random_int(0, below - 1);
    return positions;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

void check_from_rows(both &run, int64_t segments, int64_t tokens, int64_t channels, int64_t offset)
{
    elements rows(run, random_values(run, segments * tokens * channels), offset);
    twin x(run, segments, tokens, channels);
    for (side s : SIDES) {
        ps3c_from_rows_args args = {rows.on(s), x.on(s)};
        run.call(s, &ps3c_backend::from_rows, args);
    }
    x.compare_exact();
}

/* Looks into their places: out[segment % batch][first + row_of], rows `gap` elements apart more than they need. */
void check_to_rows(both &run, int64_t batch, int64_t looks, int64_t tokens, int64_t channels, int64_t gap,
                   int64_t offset)
{
    const int64_t first = 2, rows = first + looks * tokens + 1, stride = channels + gap;
    twin x(run, batch * looks, tokens, channels, random_values(run, batch * looks * tokens * channels));
    elements out(run, batch * rows * stride, offset), plain(run, batch * rows * stride, offset);
    std::vector<int32_t> places((size_t)(batch * looks * tokens));
    for (size_t i = 0; i < places.size(); i++) /* reversed: segment s is look s / batch of image s % batch */
        places[i] = (int32_t)(looks * tokens - 1 - ((int64_t)i / tokens / batch * tokens + (int64_t)i % tokens));
    array<int32_t> row_of(places);
    for (side s : SIDES) {
        ps3c_to_rows_args args = {x.on(s), row_of.on(s), batch, first, out.on(s), stride, rows * stride};
        run.call(s, &ps3c_backend::to_rows, args);
        args.row_of = nullptr;
        args.out = plain.on(s);
        if (looks == 1)
            run.call(s, &ps3c_backend::to_rows, args);
    }
    out.compare_exact(); /* also the rows that no token is written to: both are NaN there */
    plain.compare_exact();
    CHECK(x.is_unchanged(), "to_rows wrote its input");
}

TEST(rows_in_and_out)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t channels : channel_counts())
            for (int64_t offset : {0, 1}) {
                about what("%s, %d channels, offset %d", ps3c_dtype_name(dtype), (int)channels, (int)offset);
                both run(dtype, 40, channels);
                check_from_rows(run, 1, 1, channels, offset);
                check_from_rows(run, 3, 5, channels, offset);
                check_to_rows(run, 1, 1, 1, channels, 0, offset);
                check_to_rows(run, 2, 1, 5, channels, 8, offset);
                check_to_rows(run, 2, 3, 3, channels, 3, offset);
            }
}

/* More rows than a launch has warps: a warp computes several rows. */
TEST(very_many_rows)
{
    if (SMALL())
        return;
    const int64_t rows = 65536 * 4 + 9;
    both run(PS3C_FLOAT16, rows, 1);
    check_from_rows(run, 1, rows, 1, 0);
}

TEST(copied_channels)
{
    const int64_t parts[][4] = {{1, 0, 0, 0}, {8, 8, 0, 0}, {2, 3, 0, 0},  {4, 4, 1, 0},    {8, 16, 8, 17},
                                {2, 2, 2, 2}, {6, 1, 0, 0}, {40, 7, 0, 0}, {30, 16, 18, 0}, {1152, 1152, 0, 0}};
    for (ps3c_dtype dtype : DTYPES)
        for (const auto &part : parts) {
            const int64_t width = part[0] + part[1] + part[2] + part[3];
            if (SMALL() && width > 100)
                continue;
            about what("%s, %d channels", ps3c_dtype_name(dtype), (int)width);
            both run(dtype, 14, width);
            twin y(run, 2, 7, width); /* garbage until all parts are there */
            int64_t at = 0;
            for (int i = 0; i < 4 && part[i]; at += part[i++]) {
                twin x(run, 2, 7, part[i], random_values(run, 14 * part[i]));
                for (side s : SIDES) {
                    ps3c_copy_channels_args args = {x.on(s), y.on(s), at};
                    run.call(s, &ps3c_backend::copy_channels, args);
                }
                CHECK(x.is_unchanged(), "copy_channels wrote its input");
            }
            y.compare_exact();
        }
}

/* ---- patches ----------------------------------------------------------------------------------------------------- */

enum layout { CONTIGUOUS, CHANNELS_LAST, MIRRORED, BROADCAST, LAYOUTS };

/* A view (batch, 3, height, width) of `data`, which has as many elements. */
ps3c_tensor pixels_over(side s, const elements &data, ps3c_dtype dtype, int64_t batch, int64_t height, int64_t width,
                        layout how)
{
    ps3c_tensor t = tensor_over(s, data.on(s), dtype, {batch, 3, height, width});
    if (how == CHANNELS_LAST) {
        t.strides[1] = 1;
        t.strides[2] = 3 * width;
        t.strides[3] = 3;
    } else if (how == MIRRORED) {
        t.data = (char *)t.data + (size_t)(data.count - 1) * element_bytes(dtype);
        for (int i = 0; i < 4; i++)
            t.strides[i] = -t.strides[i];
    } else if (how == BROADCAST) {
        t.strides[0] = t.strides[1] = 0;
    }
    return t;
}

struct size {
    int64_t height, width;
};

/* Scales of whole patches; the number of positions. */
int64_t whole_patches(const std::vector<size> &sizes, int64_t patch, std::vector<ps3c_scale> *scales)
{
    int64_t first = 0;
    for (size s : sizes) {
        scales->push_back({s.height, s.width, s.height / patch, s.width / patch, first});
        first += s.height / patch * (s.width / patch);
    }
    return first;
}

struct gather_case {
    int64_t batch, height, width, patch;
    std::vector<size> sizes;
    int64_t most; /* positions that are asked for; 0: all of them */
};

void check_patches(ps3c_dtype dtype, const gather_case &c, layout how, float special)
{
    std::vector<ps3c_scale> scales;
    const int64_t positions = whole_patches(c.sizes, c.patch, &scales), tokens = c.most ? c.most : positions;
    const int64_t segments = c.most ? 2 * c.batch : c.batch, channels = 3 * c.patch * c.patch;
    about what("%s, patch %d, %d x %d, layout %d, special %g", ps3c_dtype_name(dtype), (int)c.patch, (int)c.height,
               (int)c.width, (int)how, special);
    both run(dtype, segments * tokens, channels);
    std::vector<float> values = random_values(run, c.batch * 3 * c.height * c.width);
    if (special != 0)
        values[(size_t)random_int(0, (int64_t)values.size() - 1)] = special;
    elements data(run, values);
    array<int32_t> named(random_positions(segments * tokens, positions));
    twin out(run, segments, tokens, channels);
    for (side s : SIDES) {
        const ps3c_tensor pixels = pixels_over(s, data, dtype, c.batch, c.height, c.width, how);
        ps3c_patch_gather_args args = {
            &pixels, c.patch, scales.data(), (int64_t)scales.size(), c.most ? named.on(s) : nullptr, out.on(s)};
        run.call(s, &ps3c_backend::patch_gather, args);
    }
    out.compare(5e-7, 2);
}

const gather_case GATHER[] = {
    {1, 1, 1, 1, {{1, 1}}, 0},
    {1, 1, 1, 8, {{16, 24}}, 0},
    {2, 5, 3, 4, {{24, 20}}, 0},
    {1, 20, 20, 3, {{9, 9}}, 0},
    {1, 1, 33, 5, {{10, 55}}, 9},
    {1, 50, 41, 14, {{45, 59}, {14, 28}, {140, 84}}, 7},
    {2, 301, 97, 7, {{14, 14}, {21, 35}}, 5},
    {1, 30, 20, 11, {{11, 22}, {33, 33}}, 4},
    {1, 37, 41, 28, {{84, 84}}, 3},
    {1, 40, 45, 33, {{33, 66}}, 2},
    {1, 100, 90, 70, {{140, 70}}, 2},
    {1, 16, 4000, 14, {{14, 5600}}, 6},
};

TEST(patches)
{
    for (ps3c_dtype dtype : DTYPES)
        for (const gather_case &c : GATHER) {
            if (SMALL() && c.patch > 33)
                continue;
            check_patches(dtype, c, CONTIGUOUS, 0);
        }
}

TEST(patches_of_views)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int how = CHANNELS_LAST; how < LAYOUTS; how++)
            check_patches(dtype, {2, 15, 23, 7, {{14, 14}, {28, 35}}, 5}, (layout)how, 0);
}

TEST(patches_near_what_is_not_finite)
{
    for (ps3c_dtype dtype : DTYPES)
        for (float special : {NOT_A_NUMBER, INFINITE, -INFINITE})
            for (int64_t side : {12, 24, 36})
                check_patches(dtype, {1, 24, 24, 6, {{side, side}}, 0}, CONTIGUOUS, special);
}

/* A patch has the same bits whichever others are asked for. */
TEST(patches_alone)
{
    const int64_t patch = 7, channels = 3 * patch * patch;
    both run(PS3C_FLOAT32, 64, channels);
    elements data(run, random_values(run, 3 * 19 * 31));
    const ps3c_tensor pixels = tensor_over(CUDA, data.on(CUDA), PS3C_FLOAT32, {1, 3, 19, 31});
    std::vector<ps3c_scale> scales;
    const int64_t positions = whole_patches({{21, 14}, {35, 56}}, patch, &scales);
    twin all(run, 1, positions, channels), one(run, 1, 1, channels);
    ps3c_patch_gather_args args = {&pixels, patch, scales.data(), 2, nullptr, all.on(CUDA)};
    run.call(CUDA, &ps3c_backend::patch_gather, args);
    const std::vector<float> want = all.rows(CUDA);
    for (int64_t p = 0; p < positions; p += 5) {
        array<int32_t> named(std::vector<int32_t>{(int32_t)p});
        args.positions = named.on(CUDA);
        args.out = one.on(CUDA);
        run.call(CUDA, &ps3c_backend::patch_gather, args);
        const std::vector<float> got = one.rows(CUDA);
        CHECK(!memcmp(got.data(), &want[(size_t)(p * channels)], (size_t)channels * 4), "patch %d differs", (int)p);
    }
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

struct position_case {
    int64_t grid, channels, offset; /* offset: of the table from alignment, in elements */
    bool crop;
    std::vector<size> grids;
    std::vector<int64_t> residual; /* sides of the residual tables, 0: none; or empty */
    int64_t most;                  /* tokens that are named; 0: all */
    int64_t residual_offset = 0;   /* of the residual tables from alignment, more than the table's */
};

void check_positions(ps3c_dtype dtype, const position_case &c)
{
    std::vector<ps3c_scale> scales;
    const int64_t positions = whole_patches(c.grids, 1, &scales), tokens = c.most ? c.most : positions;
    const int64_t segments = 2, channels = c.channels;
    about what("%s, grid %d, %d channels, offset %d, crop %d, %d residuals", ps3c_dtype_name(dtype), (int)c.grid,
               (int)channels, (int)c.offset, c.crop, (int)c.residual.size());
    both run(dtype, segments * tokens, channels);
    twin x(run, segments, tokens, channels, random_values(run, segments * tokens * channels));
    elements table(run, random_values(run, c.grid * c.grid * channels), c.offset);
    array<int32_t> named(random_positions(segments * tokens, positions));
    std::vector<elements *> tables;
    for (int64_t side : c.residual)
        tables.push_back(
            side ? new elements(run, random_values(run, side * side * channels), c.offset + c.residual_offset)
                 : nullptr);
    for (side s : SIDES) {
        std::vector<const void *> residual;
        for (const elements *t : tables)
            residual.push_back(t ? t->on(s) : nullptr);
        ps3c_position_add_args args = {};
        args.table = table.on(s);
        args.grid = c.grid;
        args.crop = c.crop;
        args.scales = scales.data();
        args.num_scales = (int64_t)scales.size();
        args.residual = residual.empty() ? nullptr : residual.data();
        args.residual_grid = residual.empty() ? nullptr : c.residual.data();
        args.positions = c.most ? named.on(s) : nullptr;
        args.x = x.on(s);
        run.call(s, &ps3c_backend::position_add, args);
    }
    x.compare(5e-7, 2);
    for (elements *t : tables)
        delete t;
}

const position_case POSITIONS[] = {
    {4, 10, 0, false, {{8, 8}}, {}, 0},
    {7, 8, 0, false, {{3, 3}, {7, 7}, {14, 14}}, {}, 9},
    {7, 16, 1, false, {{3, 3}, {7, 7}, {14, 14}}, {}, 9},
    {5, 3, 0, false, {{4, 5}, {5, 3}, {9, 2}}, {}, 0},
    {1, 1, 0, false, {{1, 1}, {4, 3}}, {}, 0},
    {2, 17, 0, false, {{1, 1}, {3, 3}}, {}, 0},
    {31, 5, 0, false, {{2, 2}}, {}, 0},         /* 31 taps and more */
    {40, 8, 0, false, {{1, 1}, {2, 1}}, {}, 0}, /* more taps than a warp has lanes */
    {70, 2, 0, false, {{1, 1}}, {}, 0},
    {27, 264, 0, false, {{54, 40}, {1, 27}}, {}, 5},
    {27, 1152, 0, false, {{54, 54}}, {}, 2},
    {9, 8, 0, true, {{6, 5}, {9, 2}}, {}, 0},
    {8, 7, 0, false, {{4, 3}, {6, 8}, {5, 5}}, {4, 0, 11}, 0},
    {8, 24, 0, false, {{4, 3}, {6, 8}, {5, 5}}, {4, 0, 11}, 20},
    {8, 24, 1, true, {{4, 3}, {6, 8}, {5, 5}}, {4, 0, 11}, 20},
    {8, 24, 0, true, {{4, 3}, {6, 8}, {5, 5}}, {4, 0, 11}, 20, 1},
};

TEST(positions)
{
    for (ps3c_dtype dtype : DTYPES)
        for (const position_case &c : POSITIONS) {
            if (SMALL() && c.channels > 300)
                continue;
            check_positions(dtype, c);
        }
}

/* ---- convolution ------------------------------------------------------------------------------------------------- */

void check_depthwise(ps3c_dtype dtype, int64_t rows, int64_t cols, int64_t channels, float special)
{
    const int64_t segments = 2, tokens = rows * cols;
    about what("%s, %d x %d, %d channels, special %g", ps3c_dtype_name(dtype), (int)rows, (int)cols, (int)channels,
               special);
    both run(dtype, segments * tokens, channels);
    std::vector<float> values = random_values(run, segments * tokens * channels);
    if (special != 0)
        values[(size_t)random_int(0, (int64_t)values.size() - 1)] = special;
    twin x(run, segments, tokens, channels, values), y(run, segments, tokens, channels);
    elements weight(run, random_values(run, channels * 49), channels % 2);
    elements bias(run, random_values(run, channels), channels % 2);
    for (side s : SIDES) {
        ps3c_depthwise_args args = {weight.on(s), bias.on(s), rows, cols, x.on(s), y.on(s)};
        run.call(s, &ps3c_backend::depthwise, args);
    }
    y.compare(3e-7, 8);
    CHECK(special != 0 || x.is_unchanged(), "depthwise wrote its input");
}

TEST(depthwise)
{
    const int64_t maps[][3] = {{1, 1, 1},  {1, 9, 3},  {9, 1, 2},  {2, 3, 5},   {6, 6, 8},    {7, 7, 9},
                               {5, 12, 4}, {6, 13, 7}, {13, 5, 2}, {12, 11, 3}, {3, 4, 1152}, {7, 6, 65}};
    for (ps3c_dtype dtype : DTYPES)
        for (const auto &map : maps) {
            if (SMALL() && map[2] > 65)
                continue;
            check_depthwise(dtype, map[0], map[1], map[2], 0);
        }
    for (ps3c_dtype dtype : DTYPES)
        for (float special : {NOT_A_NUMBER, INFINITE})
            check_depthwise(dtype, 13, 12, 3, special);
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* Ids (texts, length), by rows or by columns. */
ps3c_tensor ids_over(side s, const array<int64_t> &ids, int64_t texts, int64_t length, bool columns)
{
    ps3c_tensor t = tensor_over(s, ids.on(s), PS3C_INT64, {texts, length});
    if (columns) {
        t.strides[0] = 1;
        t.strides[1] = texts;
    }
    return t;
}

array<int64_t> random_ids(int64_t count, int64_t below)
{
    std::vector<int64_t> ids((size_t)count);
    for (int64_t &id : ids)
        id = random_int(0, below - 1);
    return array<int64_t>(ids);
}

void check_embedding(ps3c_dtype dtype, int64_t length, int64_t channels, bool class_token, int64_t offset)
{
    const int64_t texts = 3, first = 1, vocabulary = 11, tokens = length + class_token;
    about what("%s, length %d, %d channels, class token %d, offset %d", ps3c_dtype_name(dtype), (int)length,
               (int)channels, class_token, (int)offset);
    both run(dtype, 2 * tokens, channels);
    const array<int64_t> ids = random_ids(texts * length, vocabulary);
    elements table(run, random_values(run, vocabulary * channels), offset);
    elements positions(run, random_values(run, tokens * channels), offset);
    elements token(run, random_values(run, channels), offset);
    twin out(run, texts - first, tokens, channels);
    for (side s : SIDES) {
        const ps3c_tensor view = ids_over(s, ids, texts, length, offset != 0);
        ps3c_token_embedding_args args = {
            &view, first, vocabulary, table.on(s), positions.on(s), class_token ? token.on(s) : nullptr, out.on(s)};
        run.call(s, &ps3c_backend::token_embedding, args);
    }
    out.compare_exact();
}

TEST(token_embedding)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t channels : channel_counts())
            for (int64_t offset : {0, 1}) {
                check_embedding(dtype, 1, channels, false, offset);
                check_embedding(dtype, 9, channels, true, offset);
            }
}

/* The row of an id outside the vocabulary is NaN, up to its padding; nothing is read there. */
TEST(unknown_ids)
{
    for (int64_t bad : {(int64_t)-1, (int64_t)4, INT64_MAX, INT64_MIN}) {
        both run(PS3C_BFLOAT16, 3, 5);
        array<int64_t> ids(std::vector<int64_t>{3, bad, 0});
        elements table(run, random_values(run, 4 * 5)), positions(run, random_values(run, 3 * 5));
        twin out(run, 1, 3, 5);
        const ps3c_tensor view = ids_over(CUDA, ids, 1, 3, false);
        ps3c_token_embedding_args args = {&view, 0, 4, table.on(CUDA), positions.on(CUDA), nullptr, out.on(CUDA)};
        run.call(CUDA, &ps3c_backend::token_embedding, args);
        const std::vector<float> rows = out.rows(CUDA);
        for (int64_t i = 0; i < 15; i++)
            CHECK(std::isnan(rows[(size_t)i]) == (i / 5 == 1), "id %lld: value %d is %g", (long long)bad, (int)i,
                  rows[(size_t)i]);
        CHECK(out.pads_are_zero(), "padding channels are not zero");
    }
}

void check_pooling(ps3c_dtype dtype, ps3c_text_pool pool, int64_t segments, int64_t tokens, int64_t channels)
{
    about what("%s, pool %d, %d x %d x %d", ps3c_dtype_name(dtype), (int)pool, (int)segments, (int)tokens,
               (int)channels);
    both run(dtype, segments * tokens, channels);
    twin x(run, segments, tokens, channels, random_values(run, segments * tokens * channels));
    twin out(run, 1, segments, channels);
    const array<int64_t> ids = random_ids((segments + 1) * tokens, 1 + tokens / 3); /* the greatest, several times */
    for (side s : SIDES) {
        const ps3c_tensor view = ids_over(s, ids, segments + 1, tokens, channels % 2);
        ps3c_pool_tokens_args args = {x.on(s), pool, pool == PS3C_POOL_ARGMAX ? &view : nullptr, 1, out.on(s)};
        run.call(s, &ps3c_backend::pool_tokens, args);
    }
    out.compare_exact();
    CHECK(x.is_unchanged(), "pool_tokens wrote its input");
}

TEST(pool_tokens)
{
    for (ps3c_dtype dtype : DTYPES)
        for (ps3c_text_pool pool : {PS3C_POOL_FIRST, PS3C_POOL_LAST, PS3C_POOL_ARGMAX}) {
            check_pooling(dtype, pool, 1, 1, 1);
            check_pooling(dtype, pool, 7, 9, 5);
            check_pooling(dtype, pool, 5, 32, 8);
            check_pooling(dtype, pool, 3, 77, 40);
            check_pooling(dtype, pool, 9, 70, 3);
        }
}

TEST(class_mask)
{
    for (int64_t length : {1, 5, 64, 130})
        for (bool columns : {false, true}) {
            about what("length %d, columns %d", (int)length, columns);
            both run(PS3C_FLOAT32, 1, 1);
            const array<int64_t> ids = random_ids(4 * length, 3);
            array<uint8_t> mask(3 * (length + 1));
            for (side s : SIDES) {
                const ps3c_tensor view = ids_over(s, ids, 4, length, columns);
                ps3c_class_mask_args args = {&view, 1, 3, 2, mask.on(s)};
                run.call(s, &ps3c_backend::class_mask, args);
            }
            mask.compare_exact();
        }
}

/* ---- vectors ----------------------------------------------------------------------------------------------------- */

TEST(l2_normalize)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t channels : channel_counts()) {
            about what("%s, %d channels", ps3c_dtype_name(dtype), (int)channels);
            both run(dtype, 10, channels);
            std::vector<float> values = random_values(run, 10 * channels, 3);
            for (int64_t c = 0; c < channels; c++)
                values[(size_t)(channels + c)] = 0;
            values[(size_t)(3 * channels)] = NOT_A_NUMBER; /* the whole row, but not its padding */
            twin x(run, 2, 5, channels, values), y(run, 2, 5, channels);
            for (side s : SIDES) {
                ps3c_l2_normalize_args args = {x.on(s), y.on(s)};
                run.call(s, &ps3c_backend::l2_normalize, args);
            }
            y.compare(2e-6, 0);
            const std::vector<float> apart = y.rows(CUDA);
            const ps3c_l2_normalize_args args = {x.on(CUDA), x.on(CUDA)};
            run.call(CUDA, &ps3c_backend::l2_normalize, args);
            const std::vector<float> in_place = x.rows(CUDA);
            CHECK(!memcmp(apart.data(), in_place.data(), apart.size() * 4), "in place differs");
            CHECK(x.pads_are_zero(), "padding channels are not zero");
        }
}

TEST(blend)
{
    for (ps3c_dtype dtype : DTYPES)
        for (int64_t channels : channel_counts()) {
            about what("%s, %d channels", ps3c_dtype_name(dtype), (int)channels);
            both run(dtype, 6, channels);
            std::vector<float> values = random_values(run, 6 * channels);
            values[0] = INFINITE;
            values[(size_t)channels] = NOT_A_NUMBER;
            twin low(run, 1, 6, channels, values);
            twin y(run, 1, 6, channels, random_values(run, 6 * channels));
            array<float> flags({7, 7, 7, 0, 7, 1, 7, 0.5f, 7, -2, 7, 0, 7, NOT_A_NUMBER});
            for (side s : SIDES) {
                ps3c_tensor flag = tensor_over(s, flags.on(s) + 1, PS3C_FLOAT32, {7, 1});
                flag.strides[0] = 2;
                ps3c_blend_args args = {&flag, 1, low.on(s), y.on(s)};
                run.call(s, &ps3c_backend::blend, args);
            }
            y.compare(3e-7);
        }
}

} // namespace
