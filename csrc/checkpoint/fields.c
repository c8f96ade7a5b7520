/* Reads the fields of a JSON object into a struct, by a table. */
#include "fields.h"

static ps3c_status refuse(ps3c_context *context, const char *prefix, const char *name, const ps3c_json *value,
                          const char *expected)
{
    char shown[PS3C_JSON_SHOWN];
    return ps3c_fail(context, PS3C_ERROR_CHECKPOINT, "%s%s: got %s, expected %s", prefix, name,
                     ps3c_json_show(value, shown), expected);
}

static ps3c_status read_integer(ps3c_context *context, const char *prefix, const ps3c_entry *entry,
                                const ps3c_json *value, int64_t *number)
{
    char shown[PS3C_JSON_SHOWN];
    if (value->kind != PS3C_JSON_INTEGER && value->kind != PS3C_JSON_NUMBER)
        return refuse(context, prefix, entry->name, value, "an integer");
    if (value->kind != PS3C_JSON_INTEGER || value->integer < entry->least || value->integer > entry->most)
        return ps3c_fail(context, PS3C_ERROR_CHECKPOINT, "%s%s: got %s, expected an integer from %lld to %lld", prefix,
                         entry->name, ps3c_json_show(value, shown), (long long)entry->least, (long long)entry->most);
    *number = value->integer;
    return PS3C_OK;
}

static ps3c_status read_list(ps3c_context *context, const char *prefix, const ps3c_entry *entry, const ps3c_json *value,
                             char *target)
{
    int64_t *numbers = (int64_t *)(void *)(target + entry->offset), *count = (int64_t *)(void *)(target + entry->count);
    if (value->kind == PS3C_JSON_INTEGER) {
        *count = 1;
        return read_integer(context, prefix, entry, value, numbers);
    }
    if (value->kind != PS3C_JSON_ARRAY)
        return refuse(context, prefix, entry->name, value, "a list of integers");
    if (value->count > (uint32_t)entry->room)
        return ps3c_fail(context, PS3C_ERROR_CHECKPOINT, "%s%s: got a list of %u numbers, expected at most %d", prefix,
                         entry->name, value->count, entry->room);
    *count = 0;
    for (const ps3c_json *item = ps3c_json_first(value); item != NULL; item = ps3c_json_next(value, item))
        PS3C_TRY(read_integer(context, prefix, entry, item, &numbers[(*count)++]));
    return PS3C_OK;
}

static ps3c_status read_number(ps3c_context *context, const char *prefix, const ps3c_entry *entry,
                               const ps3c_json *value, double *number)
{
    char shown[PS3C_JSON_SHOWN];
    if (value->kind != PS3C_JSON_INTEGER && value->kind != PS3C_JSON_NUMBER)
        return refuse(context, prefix, entry->name, value, "a number");
    *number = value->kind == PS3C_JSON_INTEGER ? (double)value->integer : value->number;
    if (*number >= (double)entry->least && *number <= (double)entry->most)
        return PS3C_OK;
    return ps3c_fail(context, PS3C_ERROR_CHECKPOINT, "%s%s: got %s, expected a number from %lld to %lld", prefix,
                     entry->name, ps3c_json_show(value, shown), (long long)entry->least, (long long)entry->most);
}

static ps3c_status read_field(ps3c_context *context, const char *prefix, const ps3c_entry *entry,
                              const ps3c_json *value, char *target)
{
    void *field = target + entry->offset;
    switch (entry->kind) {
    case PS3C_ENTRY_INTEGER:
        return read_integer(context, prefix, entry, value, field);
    case PS3C_ENTRY_BOOL:
        if (value->kind != PS3C_JSON_BOOL && value->kind != PS3C_JSON_INTEGER)
            return refuse(context, prefix, entry->name, value, "true or false");
        *(bool *)field = value->kind == PS3C_JSON_BOOL ? value->truth : value->integer != 0;
        return PS3C_OK;
    case PS3C_ENTRY_NUMBER:
        return read_number(context, prefix, entry, value, field);
    case PS3C_ENTRY_TEXT:
        if (value->kind != PS3C_JSON_STRING)
            return refuse(context, prefix, entry->name, value, "a string");
        *(const char **)field = value->text;
        return PS3C_OK;
    case PS3C_ENTRY_LIST:
        return read_list(context, prefix, entry, value, target);
    }
    return PS3C_OK;
}

ps3c_status ps3c_read_fields(ps3c_context *context, const char *prefix, const ps3c_json *object,
                             const ps3c_entry *entries, void *target)
{
    for (const ps3c_entry *entry = entries; entry->name != NULL; entry++) {
        const ps3c_json *value = ps3c_json_member(object, entry->name);
        if (value != NULL && value->kind != PS3C_JSON_NULL)
            PS3C_TRY(read_field(context, prefix, entry, value, target));
    }
    return PS3C_OK;
}
