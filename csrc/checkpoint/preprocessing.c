/* preprocessor_config.json: image size, mean, deviation and filter. Defaults are CLIP's, as in ps3-torch. */
#include "config.h"

#include "fields.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define FILE_NAME "preprocessor_config.json"
#define REFUSE(...) ps3c_fail(context, PS3C_ERROR_CHECKPOINT, FILE_NAME ": " __VA_ARGS__)

enum { SIDE = 1 << 14 };

typedef struct fields {
    int64_t size[2], num_sides;
    const char *interpolation, *resize_mode;
} fields;

#define AT(field) offsetof(fields, field)
static const ps3c_entry entries[] = {
    PS3C_LIST_ENTRY("image_size", AT(size), 1, SIDE, AT(num_sides), 2),
    PS3C_TEXT_ENTRY("interpolation", AT(interpolation)),
    PS3C_TEXT_ENTRY("resize_mode", AT(resize_mode)),
    {.name = NULL},
};

static double number_of(const ps3c_json *value)
{
    return value->kind == PS3C_JSON_INTEGER  ? (double)value->integer
           : value->kind == PS3C_JSON_NUMBER ? value->number
                                             : NAN;
}

/* One number for all channels, or three. Null, 0 and an empty list stand for the default, as in ps3-torch. */
static ps3c_status read_three(ps3c_context *context, const ps3c_json *object, const char *name, bool positive,
                              float three[3])
{
    const ps3c_json *value = ps3c_json_member(object, name);
    char shown[PS3C_JSON_SHOWN];
    if (value == NULL || value->kind == PS3C_JSON_NULL)
        return PS3C_OK;
    const bool list = value->kind == PS3C_JSON_ARRAY;
    if (list ? value->count != 3 : value->kind != PS3C_JSON_INTEGER && value->kind != PS3C_JSON_NUMBER)
        return REFUSE("%s: got %s, expected a number, or three", name, ps3c_json_show(value, shown));
    const ps3c_json *item = list ? ps3c_json_first(value) : value;
    for (int i = 0; i < 3; i++) {
        const double number = number_of(item);
        if (!(fabs(number) <= (double)FLT_MAX) || (positive && !((float)number > 0.0f)))
            return REFUSE("%s: got %s, expected a %s number", name, ps3c_json_show(item, shown),
                          positive ? "positive" : "finite");
        three[i] = (float)number;
        if (list)
            item = ps3c_json_next(value, item);
    }
    return PS3C_OK;
}

ps3c_status ps3c_read_preprocessing(ps3c_context *context, const ps3c_json *object, ps3c_preprocessing *preprocessing)
{
    fields f = {.interpolation = "bicubic", .resize_mode = "squash"};
    char shown[PS3C_JSON_SHOWN];
    *preprocessing = (ps3c_preprocessing){.mean = {0.48145466f, 0.4578275f, 0.40821073f},
                                          .std = {0.26862954f, 0.26130258f, 0.27577711f}};
    PS3C_TRY(ps3c_read_fields(context, FILE_NAME ": ", object, entries, &f));
    if (f.num_sides == 0)
        return REFUSE("image_size: got none, expected an integer, or [height, width]");
    preprocessing->height = f.size[0];
    preprocessing->width = f.size[f.num_sides - 1];
    if (strcmp(f.resize_mode, "squash") != 0)
        return REFUSE("resize_mode: got %s, expected 'squash'", ps3c_json_quote(f.resize_mode, shown));
    if (strcmp(f.interpolation, "bilinear") != 0 && strcmp(f.interpolation, "bicubic") != 0 &&
        strcmp(f.interpolation, "random") != 0) /* ps3-torch's word for bicubic outside of training */
        return REFUSE("interpolation: got %s, expected 'bicubic' or 'bilinear'",
                      ps3c_json_quote(f.interpolation, shown));
    preprocessing->filter = strcmp(f.interpolation, "bilinear") == 0 ? PS3C_BILINEAR : PS3C_BICUBIC;
    PS3C_TRY(read_three(context, object, "mean", false, preprocessing->mean));
    return read_three(context, object, "std", true, preprocessing->std);
}
