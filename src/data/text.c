/* text.c - documents out of text files, plain or behind a filter:
 *
 *   file -> [expander] -> buffer of lines -> document
 *
 * Offsets in errors count bytes of the text, after decompression. */
#include "base/encoding.h"
#include "base/memory.h"
#include "data/text_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { READ_SIZE = 256 << 10, LOOKED_AT = 32 /* bytes that tell the encoding */ };

/* ---- names ------------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *suffix;
    cab_packing packing;
} filters[] = {{".gz", CAB_GZIP}, {".xz", CAB_XZ}, {".zst", CAB_ZSTD}};

typedef struct kind {
    const char *suffix;
    cab_text_reader *next;
    bool field; /* the documents are fields, not lines up to a separator */
    char comma;
} kind;

static const kind kinds[] = {
    {".txt", cab_text_next_lines, false, 0},  {".md", cab_text_next_lines, false, 0},
    {".jsonl", cab_text_next_jsonl, true, 0}, {".json", cab_text_next_json, true, 0},
    {".csv", cab_text_next_csv, true, ','},   {".tsv", cab_text_next_csv, true, '\t'},
};

/* Whether text[0..*size) ends in `suffix`; takes it off. */
static bool drop_suffix(const char *text, size_t *size, const char *suffix)
{
    size_t length = strlen(suffix);
    if (*size <= length || memcmp(text + *size - length, suffix, length) != 0)
        return false;
    *size -= length;
    return true;
}

/* What the name says; NULL for other names. */
static const kind *classify(const char *path, cab_packing *packing)
{
    size_t size = strlen(path);
    *packing = CAB_UNPACKED;
    for (size_t i = 0; i < sizeof filters / sizeof *filters && *packing == CAB_UNPACKED; i++)
        if (drop_suffix(path, &size, filters[i].suffix))
            *packing = filters[i].packing;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (drop_suffix(path, &size, kinds[i].suffix))
            return &kinds[i];
    return NULL;
}

bool cab_text_is_text(const char *path)
{
    cab_packing packing;
    return classify(path, &packing) != NULL;
}

uint64_t cab_text_key(uint64_t hash, const char *path, const cab_text_options *options)
{
    cab_packing packing;
    const kind *k = classify(path, &packing);
    const int packed = (int)packing;
    const char *option = k != NULL && k->field ? options->field : options->separator;
    hash = cab_hash(hash, &packed, sizeof packed);
    hash = k == NULL ? hash : cab_hash(hash, k->suffix, strlen(k->suffix) + 1);
    if (k != NULL && k->field && k->comma == 0 && options->chat != NULL)
        hash = cab_chat_key(hash, options->chat);
    return cab_hash(hash, option, strlen(option) + 1);
}

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

/* Appends what comes next to the buffer; sets `ended` at the end of the file. */
static cab_status read_more(cab_text *t)
{
    const void *block = t->data + t->read;
    size_t size = t->size - t->read < READ_SIZE ? t->size - t->read : READ_SIZE;
    if (t->start > 0) { /* what was lent out is no longer needed */
        memmove(t->buffer.data, t->buffer.data + t->start, t->buffer.count - t->start);
        t->buffer.count -= t->start;
        t->scan -= t->start;
        t->offset += t->start;
        t->start = 0;
    }
    if (t->expander != NULL)
        CAB_TRY(cab_expander_next(t->expander, &block, &size));
    else
        t->read += size;
    t->ended = size == 0;
    if (size > t->options.limits.member -
                   (t->buffer.count < t->options.limits.member ? t->buffer.count : t->options.limits.member))
        return cab_fail(CAB_EFORMAT,
                        "%s: document %" PRIu64 " is longer than the %" PRIu64
                        " MiB that max_member allows; is the separator \"%s\" right?",
                        t->name, t->document + 1, t->options.limits.member >> 20, t->options.separator);
    return size == 0 ? CAB_OK : cab_bytes_append(&t->buffer, block, size);
}

cab_status cab_text_want(cab_text *t, size_t ahead, bool *there)
{
    while (ahead >= t->buffer.count - t->scan && !t->ended)
        CAB_TRY(read_more(t));
    *there = ahead < t->buffer.count - t->scan;
    return CAB_OK;
}

cab_status cab_text_line(cab_text *t, size_t *begin, size_t *end, bool *found)
{
    const char *newline = NULL;
    for (size_t searched = 0; newline == NULL;) {
        bool more = false;
        CAB_TRY(cab_text_want(t, searched, &more)); /* may move scan with the buffer */
        if (!more)
            break;
        newline = memchr(t->buffer.data + t->scan + searched, '\n', t->buffer.count - t->scan - searched);
        searched = t->buffer.count - t->scan;
    }
    *found = newline != NULL || t->scan < t->buffer.count;
    *begin = t->scan;
    *end = newline == NULL ? t->buffer.count : (size_t)(newline - t->buffer.data);
    t->scan = newline == NULL ? t->buffer.count : *end + 1;
    if (*end > *begin && t->buffer.data[*end - 1] == '\r')
        --*end;
    t->line += *found;
    return CAB_OK;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

/* Past the mark of the encoding. */
static cab_status begin_text(cab_text *t)
{
    bool there = false;
    CAB_TRY(cab_text_want(t, LOOKED_AT, &there));
    if (t->buffer.count == 0)
        return CAB_OK;
    CAB_TRY(cab_encoding_check(t->name, t->buffer.data, t->buffer.count, &t->scan));
    t->start = t->scan;
    return CAB_OK;
}

static cab_status open_packed(cab_text *t, cab_packing packing)
{
    const cab_packing found = cab_packing_of(t->data, t->size);
    if (packing == CAB_UNPACKED && found != CAB_UNPACKED && found != CAB_BZIP2)
        return cab_fail(CAB_EFORMAT, "%s: is %s data, though its name does not end so", t->name,
                        cab_packing_name(found));
    if (packing == CAB_UNPACKED)
        return CAB_OK;
    if (found != packing)
        return cab_fail(CAB_EFORMAT, "%s: is not %s data, as its name says", t->name, cab_packing_name(packing));
    return cab_expander_open(t->data, t->size, t->name, t->options.limits.total, &t->expander);
}

cab_status cab_text_parse(const void *data, size_t size, const char *name, const cab_text_options *options,
                          cab_text **out)
{
    cab_status status = CAB_OK;
    cab_text *t = NULL;
    cab_packing packing;
    const kind *k = classify(name, &packing);
    *out = NULL;
    if (k == NULL)
        return cab_fail(CAB_EUNSUPPORTED, "%s: not a kind of text file; expected " CAB_TEXT_KINDS, name);
    CAB_TRY(CAB_NEW(&t, 1, "a text reader"));
    t->options = *options;
    t->options.limits = cab_expand_limits_of(&options->limits, size);
    t->next = k->next;
    t->comma = k->comma;
    t->data = data;
    t->size = size;
    CAB_GOTO(cab_strdup(&t->name, name));
    if (k->field && (t->tokener = json_tokener_new()) == NULL)
        CAB_GOTO(cab_fail(CAB_ENOMEM, "out of memory: reading %s", name));
    if (k->field)
        json_tokener_set_flags(t->tokener, JSON_TOKENER_STRICT);
    CAB_GOTO(open_packed(t, packing));
    CAB_GOTO(begin_text(t));
    *out = t;
    t = NULL;
done:
    cab_text_close(t);
    return status;
}

cab_status cab_text_open(const char *path, const cab_text_options *options, cab_text **out)
{
    cab_map map = {0};
    *out = NULL;
    CAB_TRY(cab_map_open(path, &map));
    cab_status status = cab_text_parse(map.data, map.size, path, options, out);
    if (status == CAB_OK)
        (*out)->map = map;
    else
        cab_map_close(&map);
    return status;
}

void cab_text_close(cab_text *t)
{
    if (t == NULL)
        return;
    cab_expander_close(t->expander);
    json_object_put(t->object);
    if (t->tokener != NULL)
        json_tokener_free(t->tokener);
    cab_bytes_free(&t->buffer);
    cab_bytes_free(&t->names);
    cab_conversation_free(&t->conversation);
    cab_map_close(&t->map);
    cab_free(t->name);
    cab_free(t);
}

const cab_chat_span *cab_text_spans(const cab_text *t, size_t *count)
{
    *count = t->chatted ? t->conversation.count : 0;
    return t->chatted ? t->conversation.spans : NULL;
}

uint64_t cab_text_position(const cab_text *t)
{
    return t->expander != NULL ? cab_expander_position(t->expander) : t->read;
}

cab_status cab_text_next(cab_text *t, const char **document, size_t *size)
{
    *document = NULL;
    *size = 0;
    CAB_TRY(t->next(t, document, size));
    if (*size == 0)
        *document = NULL;
    return CAB_OK;
}
