/* text.c - documents out of .txt and .jsonl, plain or behind one gzip, xz or zstd filter of libarchive.
 *
 *   file -> [filter] -> buffer of lines -> document
 *
 * The buffer holds the document under way and what was read beyond it; `start` is where that begins, `scan` how far it was
 * searched for a line's end. Offsets in errors count bytes of the text, after decompression. */
#include "data/text.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/buffer.h"
#include "data/utf8.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { READ_SIZE = 256 << 10 };
static const size_t DOCUMENT_MAX = (size_t)1 << 30; /* a separator that never comes, an archive that never ends */

struct cab_text {
    char *path;
    const char *separator;
    const char *field; /* NULL for .txt */
    FILE *file;        /* plain files */
    struct archive *archive;
    uint64_t read;
    bool ended;
    cab_bytes buffer;
    size_t start, scan;
    uint64_t offset; /* of buffer.data[0] in the text */
    uint64_t document, line;
    struct json_tokener *tokener;
    json_object *object; /* owns the document lent out */
};

/* ---- names ------------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *suffix;
    const char *name;
    int (*support)(struct archive *);
    int code;
} filters[] = {
    {".gz", "gzip", archive_read_support_filter_gzip, ARCHIVE_FILTER_GZIP},
    {".xz", "xz", archive_read_support_filter_xz, ARCHIVE_FILTER_XZ},
    {".zst", "zstd", archive_read_support_filter_zstd, ARCHIVE_FILTER_ZSTD},
};
enum { FILTERS = sizeof filters / sizeof *filters };

/* Whether text[0..*size) ends in `suffix`; takes it off. */
static bool drop_suffix(const char *text, size_t *size, const char *suffix)
{
    size_t length = strlen(suffix);
    if (*size <= length || memcmp(text + *size - length, suffix, length) != 0)
        return false;
    *size -= length;
    return true;
}

/* Index into filters, -1 when plain; *jsonl tells the two kinds apart. False for other names. */
static bool classify(const char *path, int *filter, bool *jsonl)
{
    size_t size = strlen(path);
    *filter = -1;
    for (int i = 0; i < FILTERS && *filter < 0; i++)
        if (drop_suffix(path, &size, filters[i].suffix))
            *filter = i;
    *jsonl = drop_suffix(path, &size, ".jsonl");
    return *jsonl || drop_suffix(path, &size, ".txt");
}

bool cab_text_is_text(const char *path)
{
    int filter = -1;
    bool jsonl = false;
    return classify(path, &filter, &jsonl);
}

uint64_t cab_text_key(uint64_t hash, const char *path, const char *separator, const char *field)
{
    int kind[2] = {-1, 0};
    bool jsonl = false;
    classify(path, &kind[0], &jsonl);
    kind[1] = jsonl;
    const char *option = jsonl ? field : separator;
    return cab_hash(cab_hash(hash, kind, sizeof kind), option, strlen(option) + 1);
}

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

static cab_status archive_failed(const cab_text *t)
{
    const char *why = archive_error_string(t->archive);
    return cab_fail(CAB_EFORMAT, "%s: damaged or truncated after %" PRIu64 " bytes of text: %s", t->path,
                    t->offset + t->buffer.count, why == NULL ? "decompression failed" : why);
}

static cab_status open_archive(cab_text *t, int filter)
{
    struct archive_entry *entry = NULL;
    FILE *probe = fopen(t->path, "rb"); /* libarchive would not tell a missing file from a damaged one */
    if (probe == NULL)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot open", t->path);
    fclose(probe);
    t->archive = archive_read_new();
    if (t->archive == NULL)
        return cab_fail(CAB_ENOMEM, "out of memory: reading %s", t->path);
    if (filters[filter].support(t->archive) != ARCHIVE_OK)
        return cab_fail(CAB_EUNSUPPORTED, "%s: libarchive was built without %s", t->path, filters[filter].name);
    archive_read_support_format_raw(t->archive);
    archive_read_support_format_empty(t->archive);
    if (archive_read_open_filename(t->archive, t->path, READ_SIZE) != ARCHIVE_OK)
        return archive_failed(t);
    int result = archive_read_next_header(t->archive, &entry);
    if (archive_filter_code(t->archive, 0) != filters[filter].code)
        return cab_fail(CAB_EFORMAT, "%s: is not %s data, as its name says", t->path, filters[filter].name);
    if (result == ARCHIVE_EOF)
        t->ended = true;
    else if (result != ARCHIVE_OK)
        return archive_failed(t);
    return CAB_OK;
}

cab_status cab_text_open(const char *path, const char *separator, const char *field, cab_text **out)
{
    cab_status status = CAB_OK;
    cab_text *t = NULL;
    int filter = -1;
    bool jsonl = false;
    *out = NULL;
    if (!classify(path, &filter, &jsonl))
        return cab_fail(CAB_EUNSUPPORTED,
                        "%s: not a kind of text file; expected .txt or .jsonl, or either with .gz, .xz "
                        "or .zst",
                        path);
    CAB_TRY(CAB_NEW(&t, 1, "a text reader"));
    t->separator = separator;
    t->field = jsonl ? field : NULL;
    CAB_GOTO(cab_strdup(&t->path, path));
    if (jsonl && (t->tokener = json_tokener_new()) == NULL)
        CAB_GOTO(cab_fail(CAB_ENOMEM, "out of memory: reading %s", path));
    if (jsonl)
        json_tokener_set_flags(t->tokener, JSON_TOKENER_STRICT);
    if (filter >= 0)
        CAB_GOTO(open_archive(t, filter));
    else if ((t->file = fopen(path, "rb")) == NULL)
        CAB_GOTO(cab_fail_errno(CAB_EIO, errno, "%s: cannot open", path));
    *out = t;
    t = NULL;
done:
    cab_text_close(t);
    return status;
}

void cab_text_close(cab_text *t)
{
    if (t == NULL)
        return;
    if (t->file != NULL)
        fclose(t->file);
    archive_read_free(t->archive);
    json_object_put(t->object);
    if (t->tokener != NULL)
        json_tokener_free(t->tokener);
    cab_bytes_free(&t->buffer);
    cab_free(t->path);
    cab_free(t);
}

uint64_t cab_text_position(const cab_text *t)
{
    return t->archive != NULL ? (uint64_t)archive_filter_bytes(t->archive, -1) : t->read;
}

/* Appends what comes next to the buffer; sets `ended` at the end of the file. */
static cab_status read_more(cab_text *t)
{
    if (t->start > 0) { /* what was lent out is no longer needed */
        memmove(t->buffer.data, t->buffer.data + t->start, t->buffer.count - t->start);
        t->buffer.count -= t->start;
        t->scan -= t->start;
        t->offset += t->start;
        t->start = 0;
    }
    if (t->buffer.count > DOCUMENT_MAX)
        return cab_fail(CAB_EFORMAT, "%s: document %" PRIu64 " is longer than %zu MiB; is the separator \"%s\" right?",
                        t->path, t->document + 1, DOCUMENT_MAX >> 20, t->separator);
    CAB_TRY(CAB_GROW(&t->buffer.data, &t->buffer.capacity, t->buffer.count + READ_SIZE, "a document"));
    char *end = t->buffer.data + t->buffer.count;
    if (t->archive != NULL) {
        la_ssize_t got = archive_read_data(t->archive, end, READ_SIZE);
        if (got < 0)
            return archive_failed(t);
        t->buffer.count += (size_t)got;
        t->ended = got == 0;
        return CAB_OK;
    }
    size_t got = fread(end, 1, READ_SIZE, t->file);
    if (ferror(t->file))
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot read after %" PRIu64 " bytes", t->path, t->read);
    t->read += got;
    t->buffer.count += got;
    t->ended = got == 0;
    return CAB_OK;
}

/* The next line as [*begin, *end) of the buffer, without its newline; *found is false at the end of the file. `start` is
 * not moved, so the lines of a document stay. */
static cab_status next_line(cab_text *t, size_t *begin, size_t *end, bool *found)
{
    size_t seen = t->scan;
    for (;;) {
        const char *newline =
            seen < t->buffer.count ? memchr(t->buffer.data + seen, '\n', t->buffer.count - seen) : NULL;
        if (newline == NULL && !t->ended) {
            size_t searched = t->buffer.count - t->scan;
            CAB_TRY(read_more(t)); /* moves scan with the buffer */
            seen = t->scan + searched;
            continue;
        }
        *found = newline != NULL || t->scan < t->buffer.count;
        *begin = t->scan;
        *end = newline == NULL ? t->buffer.count : (size_t)(newline - t->buffer.data);
        t->scan = newline == NULL ? t->buffer.count : *end + 1;
        t->line += *found;
        return CAB_OK;
    }
}

static cab_status check_utf8(const cab_text *t, size_t begin, size_t end)
{
    size_t valid = end > begin ? cab_utf8_valid(t->buffer.data + begin, end - begin) : 0;
    if (valid == end - begin)
        return CAB_OK;
    return cab_fail(CAB_EFORMAT, "%s: document %" PRIu64 " is not UTF-8: byte 0x%02X at offset %" PRIu64, t->path,
                    t->document + 1, (unsigned)(uint8_t)t->buffer.data[begin + valid], t->offset + begin + valid);
}

/* ---- documents -------------------------------------------------------------------------------------------------------- */

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static cab_status next_txt(cab_text *t, const char **document, size_t *size)
{
    size_t separator = strlen(t->separator);
    for (bool found = true; found;) {
        size_t begin = 0, end = 0;
        CAB_TRY(next_line(t, &begin, &end, &found));
        size_t length = end - begin;
        if (found && length > 0 && t->buffer.data[end - 1] == '\r')
            length--;
        if (found && (length != separator || memcmp(t->buffer.data + begin, t->separator, separator) != 0))
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
        *size = last - first;
        t->document++;
        return CAB_OK;
    }
    return CAB_OK;
}

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

static cab_status parse_line(cab_text *t, size_t begin, size_t end, const char **document, size_t *size)
{
    json_object *value = NULL;
    CAB_TRY(check_utf8(t, begin, end));
    size_t length = join_surrogates(t->buffer.data + begin, end - begin);
    if (length >= INT_MAX)
        return cab_fail(CAB_EFORMAT, "%s: line %" PRIu64 ": %zu bytes of JSON", t->path, t->line, length);
    json_object_put(t->object);
    json_tokener_reset(t->tokener);
    t->object = json_tokener_parse_ex(t->tokener, t->buffer.data + begin, (int)length);
    enum json_tokener_error error = json_tokener_get_error(t->tokener);
    if (error != json_tokener_success)
        return cab_fail(CAB_EFORMAT, "%s: line %" PRIu64 ": not valid JSON: %s", t->path, t->line,
                        error == json_tokener_continue ? "ends unfinished" : json_tokener_error_desc(error));
    if (!json_object_is_type(t->object, json_type_object) || !json_object_object_get_ex(t->object, t->field, &value) ||
        !json_object_is_type(value, json_type_string))
        return cab_fail(CAB_EFORMAT, "%s: line %" PRIu64 ": expected an object with a string field \"%s\"", t->path,
                        t->line, t->field);
    *document = json_object_get_string(value);
    *size = (size_t)json_object_get_string_len(value);
    return CAB_OK;
}

static cab_status next_jsonl(cab_text *t, const char **document, size_t *size)
{
    for (bool found = true; found;) {
        size_t begin = 0, end = 0;
        CAB_TRY(next_line(t, &begin, &end, &found));
        t->start = t->scan;
        while (begin < end && is_blank(t->buffer.data[begin]))
            begin++;
        while (end > begin && is_blank(t->buffer.data[end - 1]))
            end--;
        if (begin == end)
            continue;
        CAB_TRY(parse_line(t, begin, end, document, size));
        if (*size == 0)
            continue;
        t->document++;
        return CAB_OK;
    }
    *document = NULL;
    return CAB_OK;
}

cab_status cab_text_next(cab_text *t, const char **document, size_t *size)
{
    *document = NULL;
    *size = 0;
    return t->field == NULL ? next_txt(t, document, size) : next_jsonl(t, document, size);
}
