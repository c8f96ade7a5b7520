/* Fuzz target: sizes, strides and filters of the image functions. Every level must give the bytes of the plain one. */
#include "fuzz.h"

typedef struct picture {
    int64_t height, width, channels, row_bytes, out;
    ps3c_image_filter filter;
    uint8_t *memory; /* of the rows, the last of which has no gap behind it */
    float mean[3], std[3];
} picture;

static const int64_t LIMIT = (int64_t)1 << 30;

static bool valid_side(int64_t side) { return side >= 1 && side <= LIMIT; }

/* False: valid, but too large for this target. */
static bool read_picture(fuzz *f, picture *p)
{
    p->height = fuzz_integer(f, 1, 60, 1, LIMIT);
    p->width = fuzz_integer(f, 1, 60, 1, LIMIT);
    p->out = fuzz_integer(f, 1, 60, 1, LIMIT);
    p->channels = fuzz_integer(f, 3, 4, 3, 4);
    p->filter = (ps3c_image_filter)fuzz_integer(f, 0, 1, 0, 1);
    const int64_t gap = fuzz_integer(f, 0, 3, 0, 100);
    for (int c = 0; c < 3; c++) {
        p->mean[c] = fuzz_float(f, 0.5f);
        p->std[c] = fuzz_float(f, 0.25f);
    }
    p->memory = fuzz_memory(f, 1);
    if (!valid_side(p->height) || !valid_side(p->width) || !valid_side(p->out))
        return true; /* refused before a pixel is read */
    const int64_t row = p->width * (p->channels == 3 || p->channels == 4 ? p->channels : 1);
    if (gap < 0 || gap > 1000 || row > 1 << 22 || p->height > 1 << 16 || p->out > 1 << 20 ||
        (p->height > p->width ? p->height : p->width) * p->out > 1 << 22)
        return false;
    p->row_bytes = row + gap;
    const size_t bytes = (size_t)(p->row_bytes * (p->height - 1) + row);
    p->memory = fuzz_memory(f, bytes);
    if (!p->memory)
        return false;
    uint32_t random = fuzz_byte(f);
    for (size_t i = 0; i < bytes; i++) {
        random = random * 1664525 + 1013904223;
        p->memory[i] = (uint8_t)(random >> 24);
    }
    return true;
}

static bool valid(const picture *p)
{
    return valid_side(p->height) && valid_side(p->width) && valid_side(p->out) && (p->filter == 0 || p->filter == 1);
}

static bool has_zero(const float std[3]) { return std[0] == 0.0f || std[1] == 0.0f || std[2] == 0.0f; }

static void *output(fuzz *f, const picture *p, int64_t rows, int64_t columns, size_t item)
{
    return valid(p) ? fuzz_memory(f, (size_t)rows * (size_t)columns * item) : fuzz_memory(f, 1);
}

static void check_status(const ps3c_context *context, ps3c_status status, bool expected)
{
    if (status != PS3C_OK)
        fuzz_check_failure(context, status);
    FUZZ_CHECK((status == PS3C_OK) == expected, "status %d: %s", (int)status, ps3c_context_message(context));
}

static void resize(fuzz *f, const picture *p, ps3c_context *fast, ps3c_context *plain)
{
    const bool columns_valid = valid(p) && (p->channels == 3 || p->channels == 4),
               rows_valid = valid(p) && !has_zero(p->std);
    uint8_t *columns[2];
    float *planes[2];
    for (int k = 0; k < 2; k++) {
        ps3c_context *context = k ? plain : fast;
        columns[k] = output(f, p, p->height, p->out, 4);
        planes[k] = output(f, p, p->out, p->out, 12);
        if (!columns[k] || !planes[k])
            return;
        check_status(context,
                     ps3c_image_resize_columns(context, p->memory, p->height, p->width, p->row_bytes, p->channels,
                                               p->filter, p->out, columns[k]),
                     columns_valid);
        if (columns_valid)
            for (int64_t i = 0; i < p->height * p->out; i++)
                columns[k][4 * i + 3] = 0; /* undefined */
        check_status(context,
                     ps3c_image_resize_rows(context, columns_valid ? columns[k] : p->memory, p->height,
                                            columns_valid ? p->out : 0, p->filter, p->out, p->mean, p->std, planes[k]),
                     rows_valid && columns_valid);
    }
    if (columns_valid)
        FUZZ_CHECK(!memcmp(columns[0], columns[1], (size_t)(4 * p->height * p->out)), "columns differ");
    if (rows_valid && columns_valid)
        for (int64_t i = 0; i < 3 * p->out * p->out; i++)
            FUZZ_CHECK(planes[0][i] == planes[1][i] || (planes[0][i] != planes[0][i] && planes[1][i] != planes[1][i]),
                       "rows differ at %lld: %g, %g", (long long)i, planes[0][i], planes[1][i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = fuzz_begin(data, size);
    ps3c_context *fast = fuzz_context(&f), *plain = ps3c_context_create();
    picture p = {0};
    ps3c_context_set_threads(plain, 1);
    ps3c_context_set_cpu_level(plain, "naive");
    if (read_picture(&f, &p)) {
        const bool sides = p.height >= 1 && p.width >= 1, small = valid(&p) || !sides;
        float *out = output(&f, &p, p.height, p.width, 12);
        if (out && small)
            check_status(
                plain,
                ps3c_image_normalize(plain, p.memory, p.height, p.width, p.row_bytes, p.channels, p.mean, p.std, out),
                valid(&p) && sides && (p.channels == 3 || p.channels == 4) && !has_zero(p.std));
        resize(&f, &p, fast, plain);
    }
    ps3c_context_free(fast);
    ps3c_context_free(plain);
    fuzz_end(&f);
    return 0;
}
