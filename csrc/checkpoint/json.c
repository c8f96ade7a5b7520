/* A reader of JSON text: one pass, values in an array that grows with what was read. */
#define _GNU_SOURCE /* uselocale */
#include "json.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    ps3c_context *context;
    const char *name;
    char *start, *at, *end; /* of the text, which ends with a zero; strings are decoded in place */
    ps3c_json *values;
    size_t count, room;
    int depth;
} reader;

static ps3c_status refuse(reader *r, const char *why)
{
    return ps3c_fail(r->context, PS3C_ERROR_CHECKPOINT, "%s cannot be read: no valid JSON at byte %zu: %s", r->name,
                     (size_t)(r->at - r->start), why);
}

static void skip_space(reader *r)
{
    while (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r')
        r->at++;
}

/* Appends a value. Its address is valid until the next call. */
static ps3c_status append(reader *r, const char *key, size_t *index)
{
    if (r->count == PS3C_JSON_VALUES)
        return ps3c_fail(r->context, PS3C_ERROR_CHECKPOINT, "%s: got more than %d JSON values", r->name,
                         PS3C_JSON_VALUES);
    if (r->count == r->room) {
        size_t room = r->room > 0 ? 2 * r->room : 64;
        ps3c_json *values = realloc(r->values, room * sizeof *values);
        if (values == NULL)
            return ps3c_fail(r->context, PS3C_ERROR_MEMORY, "no memory for the values of %s", r->name);
        r->values = values;
        r->room = room;
    }
    r->values[r->count] = (ps3c_json){.key = key, .span = 1};
    *index = r->count++;
    return PS3C_OK;
}

/* ---- strings ----------------------------------------------------------------------------------------------------- */

/* Four hexadecimal digits, or -1. */
static int read_hex(const char *text)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        const char c = text[i];
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static char *write_utf8(char *out, uint32_t code)
{
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | code >> 6);
        *out++ = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        *out++ = (char)(0xE0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 63));
        *out++ = (char)(0x80 | (code & 63));
    } else {
        *out++ = (char)(0xF0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 63));
        *out++ = (char)(0x80 | (code >> 6 & 63));
        *out++ = (char)(0x80 | (code & 63));
    }
    return out;
}

/* After "\u": one code point of four digits, or of two surrogates. */
static ps3c_status read_unicode(reader *r, char **out)
{
    int high = read_hex(r->at); /* the text ends with a zero, so that no digit is read past it */
    if (high <= 0)
        return refuse(r, high == 0 ? "a string has a zero character" : "expected four hexadecimal digits after \\u");
    r->at += 4;
    uint32_t code = (uint32_t)high;
    if (high >= 0xD800 && high < 0xE000) {
        int low = r->at[0] == '\\' && r->at[1] == 'u' ? read_hex(r->at + 2) : -1;
        if (high >= 0xDC00 || low < 0xDC00 || low >= 0xE000)
            return refuse(r, "a string has half of a surrogate pair");
        code = 0x10000 + ((uint32_t)(high - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
        r->at += 6;
    }
    *out = write_utf8(*out, code);
    return PS3C_OK;
}

/* At a quotation mark. *text: the decoded string, which ends with a zero, in the memory of the text. */
static ps3c_status read_string(reader *r, const char **text)
{
    char *out = ++r->at;
    *text = out;
    while (*r->at != '"') {
        const unsigned char c = (unsigned char)*r->at;
        if (c < 0x20)
            return refuse(r, r->at == r->end ? "a string has no end" : "a string has a control character");
        if (c != '\\') {
            *out++ = *r->at++;
            continue;
        }
        static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
        const char *found = r->at[1] != 0 ? strchr(escapes, r->at[1]) : NULL;
        if (found != NULL) {
            *out++ = meanings[found - escapes];
            r->at += 2;
        } else if (r->at[1] == 'u') {
            r->at += 2;
            PS3C_TRY(read_unicode(r, &out));
        } else {
            return refuse(r, "a string has an unknown escape");
        }
    }
    r->at++;
    *out = 0;
    return PS3C_OK;
}

/* Checks that the text is UTF-8: shortest forms, no surrogates (Unicode 15, table 3-7), and without zeros. */
static ps3c_status check_utf8(reader *r)
{
    const unsigned char *p = (const unsigned char *)r->start, *end = (const unsigned char *)r->end;
    while (p < end) {
        int more = *p == 0 ? -1 : *p < 0x80 ? 0 : *p >= 0xC2 && *p < 0xE0 ? 1 : *p >= 0xE0 && *p < 0xF0 ? 2 : -1;
        if (*p >= 0xF0 && *p < 0xF5)
            more = 3;
        bool valid = more >= 0 && end - p > more;
        for (int i = 1; valid && i <= more; i++)
            valid = (p[i] & 0xC0) == 0x80;
        if (valid && more >= 2)
            valid = !(p[0] == 0xE0 && p[1] < 0xA0) && !(p[0] == 0xED && p[1] > 0x9F) &&
                    !(p[0] == 0xF0 && p[1] < 0x90) && !(p[0] == 0xF4 && p[1] > 0x8F);
        if (!valid) {
            r->at = (char *)p;
            return refuse(r, *p == 0 ? "a zero byte" : "the text is not UTF-8");
        }
        p += more + 1;
    }
    return PS3C_OK;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static const char *skip_digits(const char *p)
{
    while (*p >= '0' && *p <= '9')
        p++;
    return p;
}

static ps3c_status read_number(reader *r, ps3c_json *value)
{
    const char *p = r->at + (*r->at == '-'), *digits = p;
    p = skip_digits(p);
    bool valid = p > digits && (*digits != '0' || p == digits + 1), whole = true;
    if (valid && *p == '.') {
        whole = false;
        digits = p + 1;
        p = skip_digits(digits);
        valid = p > digits;
    }
    if (valid && (*p == 'e' || *p == 'E')) {
        whole = false;
        p++;
        p += *p == '+' || *p == '-';
        digits = p;
        p = skip_digits(digits);
        valid = p > digits;
    }
    if (!valid)
        return refuse(r, "expected a value");
    errno = 0;
    value->kind = PS3C_JSON_INTEGER;
    value->integer = whole ? strtoll(r->at, NULL, 10) : 0;
    if (!whole || errno == ERANGE) {
        value->kind = PS3C_JSON_NUMBER;
        value->number = strtod(r->at, NULL);
    }
    r->at += p - r->at;
    return PS3C_OK;
}

static bool take_word(reader *r, const char *word)
{
    const size_t length = strlen(word);
    if (strncmp(r->at, word, length) != 0)
        return false;
    r->at += length;
    return true;
}

static ps3c_status read_value(reader *r, const char *key);

/* At the opening bracket. The container is values[index]. */
static ps3c_status read_items(reader *r, size_t index, bool object)
{
    const char closing = object ? '}' : ']';
    if (r->depth == PS3C_JSON_DEPTH)
        return ps3c_fail(r->context, PS3C_ERROR_CHECKPOINT, "%s: its JSON is nested too deeply, more than %d levels",
                         r->name, PS3C_JSON_DEPTH);
    r->depth++;
    r->at++;
    skip_space(r);
    uint32_t count = 0;
    while (*r->at != closing || count > 0) {
        const char *key = NULL;
        if (object) {
            if (*r->at != '"')
                return refuse(r, "expected a name in quotation marks");
            PS3C_TRY(read_string(r, &key));
            skip_space(r);
            if (*r->at++ != ':')
                return r->at--, refuse(r, "expected a colon");
        }
        PS3C_TRY(read_value(r, key));
        count++;
        skip_space(r);
        if (*r->at == closing)
            break;
        if (*r->at != ',')
            return refuse(r, object ? "expected a comma or }" : "expected a comma or ]");
        r->at++;
        skip_space(r);
    }
    r->at++;
    r->depth--;
    r->values[index].count = count;
    r->values[index].span = (uint32_t)(r->count - index);
    return PS3C_OK;
}

static ps3c_status read_value(reader *r, const char *key)
{
    size_t index = 0;
    PS3C_TRY(append(r, key, &index));
    ps3c_json *value = &r->values[index];
    skip_space(r);
    switch (*r->at) {
    case '{':
    case '[':
        value->kind = *r->at == '{' ? PS3C_JSON_OBJECT : PS3C_JSON_ARRAY;
        return read_items(r, index, *r->at == '{');
    case '"':
        value->kind = PS3C_JSON_STRING;
        return read_string(r, &value->text);
    case 't':
    case 'f':
        value->kind = PS3C_JSON_BOOL;
        value->truth = *r->at == 't';
        return take_word(r, value->truth ? "true" : "false") ? PS3C_OK : refuse(r, "expected a value");
    case 'n':
        return take_word(r, "null") ? PS3C_OK : refuse(r, "expected a value");
    default:
        return read_number(r, value);
    }
}

static ps3c_status read_document(reader *r)
{
    PS3C_TRY(check_utf8(r));
    PS3C_TRY(read_value(r, NULL));
    skip_space(r);
    return r->at == r->end ? PS3C_OK : refuse(r, "expected the end of the file");
}

ps3c_status ps3c_json_read(ps3c_context *context, const char *name, const char *text, size_t size,
                           ps3c_json_document *document)
{
    *document = (ps3c_json_document){0};
    if (size > PS3C_JSON_BYTES)
        return ps3c_fail(context, PS3C_ERROR_CHECKPOINT, "%s: got %zu bytes of JSON, expected at most %zu", name, size,
                         PS3C_JSON_BYTES);
    char *copy = malloc(size + 1);
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* strtod: the program's may have a decimal comma */
    ps3c_status status = PS3C_ERROR_MEMORY;
    if (copy == NULL || plain == (locale_t)0) {
        ps3c_fail(context, status, "no memory for the %zu bytes of %s", size, name);
    } else {
        if (size > 0) /* text may be NULL for an empty file */
            memcpy(copy, text, size);
        copy[size] = 0;
        reader r = {.context = context, .name = name, .start = copy, .at = copy, .end = copy + size};
        const locale_t before = uselocale(plain);
        status = read_document(&r);
        uselocale(before);
        if (status == PS3C_OK)
            *document = (ps3c_json_document){copy, r.values};
        else
            free(r.values);
    }
    if (plain != (locale_t)0)
        freelocale(plain);
    if (status != PS3C_OK)
        free(copy);
    return status;
}

void ps3c_json_free(ps3c_json_document *document)
{
    free(document->text);
    free(document->values);
    *document = (ps3c_json_document){0};
}

const ps3c_json *ps3c_json_member(const ps3c_json *object, const char *key)
{
    const ps3c_json *found = NULL;
    if (object == NULL || object->kind != PS3C_JSON_OBJECT)
        return NULL;
    for (const ps3c_json *item = ps3c_json_first(object); item != NULL; item = ps3c_json_next(object, item))
        if (strcmp(item->key, key) == 0)
            found = item;
    return found;
}

const char *ps3c_json_kind_name(const ps3c_json *value)
{
    static const char *const names[] = {"null", "bool", "integer", "number", "string", "list", "object"};
    return names[value->kind];
}

const char *ps3c_json_quote(const char *string, char text[PS3C_JSON_SHOWN])
{
    enum { MOST = PS3C_JSON_SHOWN - 8 };
    size_t used = 0, length = strnlen(string, MOST + 1);
    const bool cut = length > MOST;
    if (cut)
        for (length = MOST; ((unsigned char)string[length] & 0xC0) == 0x80;)
            length--; /* not inside a character */
    text[used++] = '\'';
    for (size_t i = 0; i < length; i++) {
        const unsigned char c = (unsigned char)string[i];
        text[used++] = c < 0x20 || c == 0x7F ? '?' : string[i]; /* a terminal could obey control characters */
    }
    memcpy(text + used, cut ? "...'" : "'", cut ? 5 : 2);
    return text;
}

const char *ps3c_json_show(const ps3c_json *value, char text[PS3C_JSON_SHOWN])
{
    const size_t size = PS3C_JSON_SHOWN;
    switch (value->kind) {
    case PS3C_JSON_NULL:
        return "null";
    case PS3C_JSON_BOOL:
        return value->truth ? "true" : "false";
    case PS3C_JSON_INTEGER:
        snprintf(text, size, "%lld", (long long)value->integer);
        break;
    case PS3C_JSON_NUMBER:
        snprintf(text, size, "%.9g", value->number);
        break;
    case PS3C_JSON_STRING:
        return ps3c_json_quote(value->text, text);
    case PS3C_JSON_ARRAY:
        snprintf(text, size, "a list of %u values", value->count);
        break;
    case PS3C_JSON_OBJECT:
        snprintf(text, size, "an object of %u values", value->count);
        break;
    }
    return text;
}
