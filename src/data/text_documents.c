/* text_documents.c - the next document of each kind of text file. */
#include "base/memory.h"
#include "data/csv.h"
#include "data/text_internal.h"
#include "data/utf8.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { FIELDS_TEXT_MAX = 256 };

static cab_status check_utf8(const cab_text *t, size_t begin, size_t end)
{
    size_t valid = end > begin ? cab_utf8_valid(t->buffer.data + begin, end - begin) : 0;
    if (valid == end - begin)
        return CAB_OK;
    return cab_fail(CAB_EFORMAT, "%s: document %" PRIu64 " is not UTF-8: byte 0x%02X at offset %" PRIu64, t->name,
                    t->document + 1, (unsigned)(uint8_t)t->buffer.data[begin + valid], t->offset + begin + valid);
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* CRLF becomes LF, in place; returns the new size. */
static size_t join_line_ends(char *text, size_t size)
{
    const char *first = memchr(text, '\r', size);
    size_t used = first == NULL ? size : (size_t)(first - text);
    for (size_t i = used; i < size; i++)
        if (text[i] != '\r' || i + 1 == size || text[i + 1] != '\n')
            text[used++] = text[i];
    return used;
}

/* ---- lines ------------------------------------------------------------------------------------------------------------ */

cab_status cab_text_next_lines(cab_text *t, const char **document, size_t *size)
{
    const size_t separator = strlen(t->options.separator);
    for (bool found = true; found;) {
        size_t begin = 0, end = 0;
        CAB_TRY(cab_text_line(t, &begin, &end, &found));
        if (found && (end - begin != separator || memcmp(t->buffer.data + begin, t->options.separator, separator) != 0))
            continue;
        size_t first = t->start, last = found ? begin : t->buffer.count;
        t->start = t->scan;
        while (first < last && is_blank(t->buffer.data[first]))
            first++;
        while (last > first && is_blank(t->buffer.data[last - 1]))
            last--;
        if (first == last)
            continue;
        CAB_TRY(check_utf8(t, first, last));
        *document = t->buffer.data + first;
        *size = join_line_ends(t->buffer.data + first, last - first);
        t->document++;
        return CAB_OK;
    }
    return CAB_OK;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------- */

/* The value of four hexadecimal digits after "\\u" at text; -1 when it is something else. */
static int32_t escaped_unit(const char *text, const char *end)
{
    int32_t unit = 0;
    if (end - text < 6 || text[0] != '\\' || text[1] != 'u')
        return -1;
    for (int i = 2; i < 6; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

/* Writes escaped surrogate pairs out as UTF-8, in place; returns the new size. json-c 0.16 takes the pairs of U+1D800 to
 * U+1DFFF, and of the same range in every plane, for halves and replaces them. */
static size_t join_surrogates(char *text, size_t size)
{
    const char *at = text, *end = text + size;
    char *out = text;
    while (at < end) {
        int32_t high = escaped_unit(at, end);
        int32_t low = high >= 0xD800 && high <= 0xDBFF ? escaped_unit(at + 6, end) : -1;
        if (low >= 0xDC00 && low <= 0xDFFF) {
            char character[4];
            unsigned length =
                cab_utf8_encode(0x10000u + ((uint32_t)(high & 0x3FF) << 10) + (uint32_t)(low & 0x3FF), character);
            memcpy(out, character, length);
            out += length;
            at += 12;
            continue;
        }
        bool escape = *at == '\\' && at + 1 < end;
        *out++ = *at++;
        if (escape) /* a backslash may be what is escaped */
            *out++ = *at++;
    }
    return (size_t)(out - text);
}

/* The keys of an object with the types of those that are no strings: "id (int), content". */
static const char *list_fields(json_object *object, char *out)
{
    size_t used = 0;
    out[0] = '\0';
    json_object_object_foreach(object, key, value)
    {
        const bool text = json_object_is_type(value, json_type_string);
        int n = snprintf(out + used, FIELDS_TEXT_MAX - used, "%s%.64s%s%s%s", used == 0 ? "" : ", ", key,
                         text ? "" : " (", text ? "" : json_type_to_name(json_object_get_type(value)), text ? "" : ")");
        if (n < 0 || (size_t)n >= FIELDS_TEXT_MAX - used)
            break;
        used += (size_t)n;
    }
    return used == 0 ? "none" : out;
}

/* "line 3" of .jsonl, "object 3" of .json. */
static const char *unit(const cab_text *t)
{
    return t->next == cab_text_next_json ? "object" : "line";
}

/* The object's conversation, rendered. */
static cab_status render(cab_text *t, const char **document, size_t *size)
{
    cab_status status = cab_chat_render_json(t->options.chat, t->object, &t->conversation);
    if (status != CAB_OK) {
        char why[512];
        snprintf(why, sizeof why, "%s", cab_error_text());
        return cab_fail(status, "%s: %s %" PRIu64 ": %s", t->name, unit(t), t->line, why);
    }
    *document = t->conversation.text.data;
    *size = t->conversation.text.count;
    t->chatted = true;
    t->document += *size > 0;
    return CAB_OK;
}

static cab_status parse_object(cab_text *t, size_t begin, size_t end, const char **document, size_t *size)
{
    char fields[FIELDS_TEXT_MAX];
    json_object *value = NULL;
    t->chatted = false;
    CAB_TRY(check_utf8(t, begin, end));
    size_t length = join_surrogates(t->buffer.data + begin, end - begin);
    if (length >= INT_MAX)
        return cab_fail(CAB_EFORMAT, "%s: %s %" PRIu64 ": %zu bytes of JSON", t->name, unit(t), t->line, length);
    json_object_put(t->object);
    json_tokener_reset(t->tokener);
    t->object = json_tokener_parse_ex(t->tokener, t->buffer.data + begin, (int)length);
    enum json_tokener_error error = json_tokener_get_error(t->tokener);
    if (error != json_tokener_success)
        return cab_fail(CAB_EFORMAT, "%s: %s %" PRIu64 ": not valid JSON: %s", t->name, unit(t), t->line,
                        error == json_tokener_continue ? "ends unfinished" : json_tokener_error_desc(error));
    if (!json_object_is_type(t->object, json_type_object))
        return cab_fail(CAB_EFORMAT, "%s: %s %" PRIu64 ": a JSON %s, expected an object with a string field \"%s\"",
                        t->name, unit(t), t->line, json_type_to_name(json_object_get_type(t->object)),
                        t->options.field);
    const bool text =
        json_object_object_get_ex(t->object, t->options.field, &value) && json_object_is_type(value, json_type_string);
    if (!text && t->options.chat != NULL && cab_chat_holds(t->object))
        return render(t, document, size);
    if (!text)
        return cab_fail(CAB_EFORMAT,
                        "%s: %s %" PRIu64 ": expected an object with a string field \"%s\" (text_field chooses it); "
                        "its fields: %s",
                        t->name, unit(t), t->line, t->options.field, list_fields(t->object, fields));
    *document = json_object_get_string(value);
    *size = (size_t)json_object_get_string_len(value);
    t->document += *size > 0;
    return CAB_OK;
}

cab_status cab_text_next_jsonl(cab_text *t, const char **document, size_t *size)
{
    for (bool found = true; found && *size == 0;) {
        size_t begin = 0, end = 0;
        CAB_TRY(cab_text_line(t, &begin, &end, &found));
        t->start = t->scan;
        while (begin < end && is_blank(t->buffer.data[begin]))
            begin++;
        while (end > begin && is_blank(t->buffer.data[end - 1]))
            end--;
        if (begin < end)
            CAB_TRY(parse_object(t, begin, end, document, size));
    }
    return CAB_OK;
}

/* The next character that is not blank, which stays where it is; 0 at the end. */
static cab_status peek(cab_text *t, char *c)
{
    for (;; t->scan++) {
        bool there = false;
        t->start = t->scan;
        CAB_TRY(cab_text_want(t, 0, &there));
        *c = there ? t->buffer.data[t->scan] : '\0';
        if (!there || !is_blank(*c))
            return CAB_OK;
    }
}

static cab_status unexpected(const cab_text *t, char found, const char *expected)
{
    const char text[] = {'\'', found, '\'', '\0'};
    return cab_fail(CAB_EFORMAT, "%s: after %" PRIu64 " objects, at byte %" PRIu64 ": found %s, expected %s", t->name,
                    t->line, t->offset + t->scan, found == '\0' ? "the end" : text, expected);
}

/* Bytes of the object that begins at `scan`: to the brace that closes it. */
static cab_status object_size(cab_text *t, size_t *size)
{
    bool in_string = false, there = true;
    size_t depth = 0, n = 0;
    do {
        CAB_TRY(cab_text_want(t, n, &there));
        if (!there)
            return cab_fail(CAB_EFORMAT, "%s: object %" PRIu64 " ends unfinished", t->name, t->line + 1);
        const char c = t->buffer.data[t->scan + n++];
        if (in_string && c == '\\')
            n++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string)
            depth += (size_t)(c == '{') - (size_t)(c == '}');
    } while (depth > 0);
    *size = n;
    return CAB_OK;
}

/* To the next object of the file: past the bracket or comma before it. *found is false at the end. */
static cab_status find_object(cab_text *t, bool *found)
{
    char c = '\0';
    CAB_TRY(peek(t, &c));
    if (t->place == CAB_JSON_START) {
        t->place = c == '[' ? CAB_JSON_FIRST : CAB_JSON_BARE;
        t->scan += c == '[';
        return find_object(t, found);
    }
    if (t->place == CAB_JSON_NEXT && c != ',' && c != ']')
        return unexpected(t, c, "',' or ']'");
    if (t->place == CAB_JSON_NEXT && c == ',') {
        t->scan++;
        CAB_TRY(peek(t, &c));
    } else if (c == ']' && (t->place == CAB_JSON_FIRST || t->place == CAB_JSON_NEXT)) {
        t->scan++;
        CAB_TRY(peek(t, &c));
        t->place = CAB_JSON_END;
    }
    *found = t->place != CAB_JSON_END && !(t->place == CAB_JSON_BARE && c == '\0');
    if (*found && c != '{')
        return unexpected(t, c, "an object");
    if (!*found && c != '\0')
        return unexpected(t, c, "the end of the file");
    if (t->place == CAB_JSON_FIRST)
        t->place = CAB_JSON_NEXT;
    return CAB_OK;
}

cab_status cab_text_next_json(cab_text *t, const char **document, size_t *size)
{
    while (*size == 0) {
        bool found = false;
        size_t length = 0;
        CAB_TRY(find_object(t, &found));
        if (!found)
            return CAB_OK;
        CAB_TRY(object_size(t, &length));
        const size_t begin = t->scan;
        t->scan += length;
        t->start = t->scan;
        t->line++;
        CAB_TRY(parse_object(t, begin, begin + length, document, size));
    }
    return CAB_OK;
}

/* ---- comma-separated values ------------------------------------------------------------------------------------------- */

/* The next record as [*begin, *end) of the buffer; a line's end in quotes belongs to it. */
static cab_status next_record(cab_text *t, size_t *begin, size_t *end, bool *found)
{
    bool quoted = false;
    size_t n = 0, lines = 0;
    t->start = t->scan;
    CAB_TRY(cab_text_want(t, 0, found));
    for (bool there = *found; there; n++) {
        CAB_TRY(cab_text_want(t, n, &there));
        const char c = there ? t->buffer.data[t->scan + n] : '\n';
        quoted = c == '"' ? !quoted : quoted;
        lines += there && c == '\n';
        if (!there && quoted)
            return cab_fail(CAB_EFORMAT, "%s: line %" PRIu64 ": a double quote without its end", t->name, t->line + 1);
        if (c == '\n' && !quoted)
            break;
    }
    *begin = t->scan;
    *end = t->scan + n;
    t->scan = *end + (*end < t->buffer.count);
    t->start = t->scan;
    if (*end > *begin && t->buffer.data[*end - 1] == '\r')
        --*end;
    t->line += lines == 0 ? *found : lines;
    return CAB_OK;
}

/* The names of the columns, and which of them holds the documents. */
static cab_status read_names(cab_text *t, size_t begin, size_t end)
{
    char *at = t->buffer.data + begin;
    t->column = SIZE_MAX;
    for (; at != NULL; t->columns++) {
        char *name = NULL;
        size_t size = 0;
        if (!cab_csv_field(&at, t->buffer.data + end, t->comma, &name, &size))
            return cab_fail(CAB_EFORMAT, "%s: line 1: a double quote without its end", t->name);
        if (size == strlen(t->options.field) && memcmp(name, t->options.field, size) == 0)
            t->column = t->columns;
        CAB_TRY(cab_bytes_append(&t->names, ", ", t->columns == 0 ? 0 : 2));
        CAB_TRY(cab_bytes_append(&t->names, name, size));
    }
    if (t->column != SIZE_MAX)
        return CAB_OK;
    return cab_fail(CAB_EFORMAT, "%s: no column \"%s\" (text_field chooses it); its columns: %.*s", t->name,
                    t->options.field, (int)(t->names.count < FIELDS_TEXT_MAX ? t->names.count : FIELDS_TEXT_MAX),
                    t->names.count == 0 ? "" : t->names.data);
}

static cab_status read_record(cab_text *t, size_t begin, size_t end, const char **document, size_t *size)
{
    char *at = t->buffer.data + begin, *found = NULL;
    size_t columns = 0, length = 0;
    for (; at != NULL; columns++) {
        char *field = NULL;
        size_t bytes = 0;
        if (!cab_csv_field(&at, t->buffer.data + end, t->comma, &field, &bytes))
            return cab_fail(CAB_EFORMAT, "%s: line %" PRIu64 ": a double quote without its end, or before it", t->name,
                            t->line);
        if (columns == t->column) {
            found = field;
            length = bytes;
        }
    }
    if (columns != t->columns)
        return cab_fail(CAB_EFORMAT, "%s: line %" PRIu64 ": %zu fields, expected %zu as in the first line", t->name,
                        t->line, columns, t->columns);
    const size_t first = (size_t)(found - t->buffer.data);
    CAB_TRY(check_utf8(t, first, first + length));
    *document = found;
    *size = join_line_ends(found, length);
    t->document += *size > 0;
    return CAB_OK;
}

cab_status cab_text_next_csv(cab_text *t, const char **document, size_t *size)
{
    for (bool found = true; *size == 0;) {
        size_t begin = 0, end = 0;
        CAB_TRY(next_record(t, &begin, &end, &found));
        if (!found)
            return CAB_OK;
        if (begin == end)
            continue;
        CAB_TRY(t->columns == 0 ? read_names(t, begin, end) : read_record(t, begin, end, document, size));
    }
    return CAB_OK;
}
