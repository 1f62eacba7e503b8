/* safetensors.c - the reader.
 *
 *   bytes 0..7      n, the header's length, little-endian
 *   bytes 8..8+n    JSON: {"__metadata__": {key: string}, name: {"dtype": "F32", "shape": [2, 3],
 *                   "data_offsets": [begin, end]}, ...}, trailing spaces allowed
 *   the rest        the body; begin and end count from its start; row-major, little-endian
 *
 * The header is read tensor by tensor, so that it takes little more memory than the table of tensors: as one JSON document,
 * the 20 MB of 300,000 empty tensors would take a gigabyte. The format's own library also refuses bodies with unused bytes; such files are accepted here, they are harmless. */
#include "base/file.h"
#include "base/memory.h"
#include "io/safetensors_internal.h"
#include "tensor/blocks.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are used as they lie in the file");

enum {
    LENGTH_BYTES = 8,
    DEPTH_MAX = 8,
    HEADER_MAX = 100000000, /* the limit of the format's own library */
    DIMS_TEXT_MAX = CAB_SAFETENSORS_DIMS * 22 + 4,
    CHUNK = 4096,              /* elements converted at a time, in the first-level cache */
    PARALLEL_MIN = 16 * CHUNK, /* below this, starting threads costs more than it saves */
    CHECKED_AT_ONCE = 1 << 24  /* bytes of a checksum, whose pages are then let go of */
};

struct cab_safetensors {
    cab_map map; /* empty when parsed from memory */
    char *name;
    json_object *metadata; /* NULL: none */
    cab_safetensors_entry *entries;
    const cab_safetensors_entry **by_name;
    size_t count, capacity;
};

static const struct {
    const char *name;
    size_t size;
    cab_dtype dtype;
} stored_types[] = {
    {"F32", 4, CAB_F32},        {"BF16", 2, CAB_BF16},  {"F16", 2, CAB_F16},         {"F64", 8, CAB_F64},
    {"I32", 4, CAB_I32},        {"I64", 8, CAB_I64},    {"U16", 2, CAB_U16},         {"U8", 1, CAB_U8},
    {"BOOL", 1, CAB_DTYPES},    {"I8", 1, CAB_DTYPES},  {"I16", 2, CAB_DTYPES},      {"U32", 4, CAB_DTYPES},
    {"U64", 8, CAB_DTYPES},     {"C64", 8, CAB_DTYPES}, {"F8_E4M3", 1, CAB_F8_E4M3}, {"F8_E5M2", 1, CAB_DTYPES},
    {"F8_E8M0", 1, CAB_DTYPES},
};

/* ---- header ----------------------------------------------------------------------------------------------------- */

static cab_status parse_dtype(cab_safetensors_entry *entry, json_object *value, size_t *element)
{
    const char *name = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "?";
    for (size_t i = 0; i < sizeof stored_types / sizeof *stored_types; i++) {
        if (strcmp(stored_types[i].name, name) == 0) {
            entry->dtype = stored_types[i].dtype;
            entry->dtype_name = stored_types[i].name;
            *element = stored_types[i].size;
            return CAB_OK;
        }
    }
    return cab_fail(CAB_EFORMAT,
                    "%s: tensor \"%s\": unknown dtype \"%.32s\", expected F32, BF16, F16, F64 or an integer type",
                    entry->file, entry->name, name);
}

/* A JSON integer in 0..INT64_MAX. */
static bool get_size(json_object *value, int64_t *out)
{
    if (!json_object_is_type(value, json_type_int))
        return false;
    *out = json_object_get_int64(value);
    return *out >= 0;
}

static cab_status parse_shape(cab_safetensors_entry *entry, json_object *value)
{
    if (!json_object_is_type(value, json_type_array))
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\": no \"shape\" array", entry->file, entry->name);
    size_t n_dim = json_object_array_length(value);
    if (n_dim > CAB_SAFETENSORS_DIMS)
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\": %zu dimensions, expected at most %d", entry->file, entry->name,
                        n_dim, CAB_SAFETENSORS_DIMS);
    entry->n_dim = (int)n_dim;
    for (size_t i = 0; i < n_dim; i++) {
        json_object *size = json_object_array_get_idx(value, i);
        if (!get_size(size, &entry->shape[i]))
            return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\": dimension %zu is %.32s, expected a whole number from 0",
                            entry->file, entry->name, i, json_object_to_json_string(size));
    }
    return CAB_OK;
}

/* Dimensions of 0 are looked for first: beside one, the product of the others may overflow and yet mean no data. */
static cab_status count_bytes(const cab_safetensors_entry *entry, size_t element, size_t *bytes)
{
    *bytes = 0;
    for (int i = 0; i < entry->n_dim; i++)
        if (entry->shape[i] == 0)
            return CAB_OK;
    size_t product = element;
    for (int i = 0; i < entry->n_dim; i++)
        if (__builtin_mul_overflow(product, (size_t)entry->shape[i], &product))
            return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\": its shape needs more than 2^64 bytes", entry->file,
                            entry->name);
    *bytes = product;
    return CAB_OK;
}

static cab_status parse_offsets(cab_safetensors_entry *entry, json_object *value, size_t expected, const uint8_t *body,
                                size_t body_size)
{
    int64_t begin = 0, end = 0;
    if (!json_object_is_type(value, json_type_array) || json_object_array_length(value) != 2 ||
        !get_size(json_object_array_get_idx(value, 0), &begin) || !get_size(json_object_array_get_idx(value, 1), &end))
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\": \"data_offsets\" is %.64s, expected [begin, end]", entry->file,
                        entry->name, json_object_to_json_string(value));
    if (begin > end || (uint64_t)end > body_size)
        return cab_fail(CAB_EFORMAT,
                        "%s: tensor \"%s\": data lies outside the file (%" PRId64 "..%" PRId64 " of %zu bytes)",
                        entry->file, entry->name, begin, end, body_size);
    entry->bytes = (size_t)(end - begin);
    if (entry->bytes != expected)
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\": %zu bytes of data, its shape needs %zu", entry->file,
                        entry->name, entry->bytes, expected);
    entry->data = entry->bytes == 0 ? NULL : body + begin;
    return CAB_OK;
}

static cab_status parse_entry(cab_safetensors_entry *entry, json_object *value, const uint8_t *body, size_t body_size)
{
    json_object *dtype = NULL, *shape = NULL, *offsets = NULL;
    size_t element = 0, bytes = 0;
    if (!json_object_is_type(value, json_type_object))
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\": a JSON %s, expected an object", entry->file, entry->name,
                        json_type_to_name(json_object_get_type(value)));
    json_object_object_get_ex(value, "dtype", &dtype);
    json_object_object_get_ex(value, "shape", &shape);
    json_object_object_get_ex(value, "data_offsets", &offsets);
    CAB_TRY(parse_dtype(entry, dtype, &element));
    CAB_TRY(parse_shape(entry, shape));
    CAB_TRY(count_bytes(entry, element, &bytes));
    return parse_offsets(entry, offsets, bytes, body, body_size);
}

/* Keys of all objects within `value`. The parser has bounded the depth. */
static size_t count_keys(json_object *value)
{
    size_t keys = 0;
    if (json_object_is_type(value, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(value); i++)
            keys += count_keys(json_object_array_get_idx(value, i));
    } else if (json_object_is_type(value, json_type_object)) {
        json_object_object_foreach(value, key, member)
        {
            (void)key;
            keys += 1 + count_keys(member);
        }
    }
    return keys;
}

/* The parser keeps the last of two equal keys, silently: more ':' outside strings than keys kept betrays them. */
static bool has_duplicates(json_object *value, const char *text, size_t size)
{
    size_t written = 0;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        if (in_string && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            in_string = !in_string;
        else if (text[i] == ':' && !in_string)
            written++;
    }
    return written != count_keys(value);
}

static cab_status check_metadata(const cab_safetensors *st, json_object *metadata)
{
    if (!json_object_is_type(metadata, json_type_object))
        return cab_fail(CAB_EFORMAT, "%s: \"__metadata__\" is a JSON %s, expected an object", st->name,
                        json_type_to_name(json_object_get_type(metadata)));
    json_object_object_foreach(metadata, key, value)
    {
        if (!json_object_is_type(value, json_type_string))
            return cab_fail(CAB_EFORMAT, "%s: \"__metadata__\": \"%.64s\" is a JSON %s, expected a string", st->name,
                            key, json_type_to_name(json_object_get_type(value)));
    }
    return CAB_OK;
}

static int compare_places(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)(*(const cab_safetensors_entry *const *)a)->data;
    uintptr_t y = (uintptr_t)(*(const cab_safetensors_entry *const *)b)->data;
    return (x > y) - (x < y);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const cab_safetensors_entry *const *)a)->name, (*(const cab_safetensors_entry *const *)b)->name);
}

/* Leaves by_name sorted. Tensors without data (NULL) come first by place and overlap nothing. */
static cab_status check_overlaps(cab_safetensors *st)
{
    qsort(st->by_name, st->count, sizeof *st->by_name, compare_places);
    for (size_t i = 1; i < st->count; i++) {
        const cab_safetensors_entry *a = st->by_name[i - 1], *b = st->by_name[i];
        if (a->data != NULL && (const uint8_t *)b->data < (const uint8_t *)a->data + a->bytes)
            return cab_fail(CAB_EFORMAT, "%s: tensors \"%s\" and \"%s\" overlap", st->name, a->name, b->name);
    }
    qsort(st->by_name, st->count, sizeof *st->by_name, compare_names);
    for (size_t i = 1; i < st->count; i++)
        if (strcmp(st->by_name[i - 1]->name, st->by_name[i]->name) == 0)
            return cab_fail(CAB_EFORMAT, "%s: a name appears twice in the header: \"%s\"", st->name,
                            st->by_name[i]->name);
    return CAB_OK;
}

/* What is left of the header's JSON. */
typedef struct cursor {
    const char *file, *text;
    size_t size, at;
    struct json_tokener *tokener;
} cursor;

static void skip_blanks(cursor *c)
{
    while (c->at < c->size && c->text[c->at] != '\0' && strchr(" \t\r\n", c->text[c->at]) != NULL)
        c->at++;
}

/* The next character that is not blank, passed over; '\0' at the end. */
static char take(cursor *c)
{
    skip_blanks(c);
    return c->at < c->size ? c->text[c->at++] : '\0';
}

/* The next value, which the caller puts. */
static cab_status take_value(cursor *c, json_object **value)
{
    const size_t left = c->size - c->at;
    json_tokener_reset(c->tokener);
    *value = json_tokener_parse_ex(c->tokener, c->text + c->at, (int)left); /* HEADER_MAX fits */
    enum json_tokener_error error = json_tokener_get_error(c->tokener);
    const size_t used = json_tokener_get_parse_end(c->tokener);
    if (error == json_tokener_continue)
        return cab_fail(CAB_EFORMAT, "%s: JSON ends unfinished after %zu bytes", c->file, c->size);
    if (error != json_tokener_success)
        return cab_fail(CAB_EFORMAT, "%s: not valid JSON at byte %zu: %s", c->file, c->at + used,
                        json_tokener_error_desc(error));
    c->at += used;
    return CAB_OK;
}

static cab_status unexpected(const cursor *c, char found, const char *expected)
{
    if (found == '\0' && c->at >= c->size)
        return cab_fail(CAB_EFORMAT, "%s: JSON ends unfinished after %zu bytes", c->file, c->size);
    return cab_fail(CAB_EFORMAT, "%s: not valid JSON at byte %zu: found '%c', expected %s", c->file, c->at - 1, found,
                    expected);
}

/* A name, of a tensor or of the metadata; owned by the caller. */
static cab_status take_name(cursor *c, char **name)
{
    json_object *key = NULL;
    char found = take(c);
    if (found != '"')
        return unexpected(c, found, "a name");
    c->at--;
    CAB_TRY(take_value(c, &key));
    cab_status status = CAB_OK;
    if (strlen(json_object_get_string(key)) != (size_t)json_object_get_string_len(key))
        status = cab_fail(CAB_EFORMAT, "%s: a name holds a zero byte: \"%s\"", c->file, json_object_get_string(key));
    else
        status = cab_strdup(name, json_object_get_string(key));
    json_object_put(key);
    if (status == CAB_OK && (found = take(c)) != ':')
        status = unexpected(c, found, "':'");
    return status;
}

static cab_status add_member(cab_safetensors *st, cursor *c, char **name, const uint8_t *body, size_t body_size)
{
    json_object *value = NULL;
    cab_status status = CAB_OK;
    skip_blanks(c);
    const char *text = c->text + c->at;
    CAB_GOTO(take_value(c, &value));
    if (has_duplicates(value, text, (size_t)(c->text + c->at - text)))
        CAB_GOTO(cab_fail(CAB_EFORMAT, "%s: \"%s\": a name appears twice", st->name, *name));
    if (strcmp(*name, "__metadata__") == 0) {
        if (st->metadata != NULL)
            CAB_GOTO(cab_fail(CAB_EFORMAT, "%s: a name appears twice in the header: \"%s\"", st->name, *name));
        CAB_GOTO(check_metadata(st, value));
        st->metadata = value;
        return CAB_OK;
    }
    CAB_GOTO(CAB_GROW(&st->entries, &st->capacity, st->count + 1, "the tensors of a file"));
    cab_safetensors_entry *entry = &st->entries[st->count++];
    *entry = (cab_safetensors_entry){.file = st->name, .name = *name};
    *name = NULL; /* the entry's from here on */
    CAB_GOTO(parse_entry(entry, value, body, body_size));
done:
    json_object_put(value);
    return status;
}

/* {"name": value, ...}, and blanks up to the header's end. */
static cab_status parse_members(cab_safetensors *st, cursor *c, const uint8_t *body, size_t body_size)
{
    char found = take(c); /* find_header() saw the brace */
    found = take(c);
    if (found == '\0')
        return unexpected(c, found, "a name");
    if (found != '}') {
        c->at--;
        do {
            char *name = NULL;
            cab_status status = take_name(c, &name);
            if (status == CAB_OK)
                status = add_member(st, c, &name, body, body_size);
            cab_free(name);
            CAB_TRY(status);
            found = take(c);
        } while (found == ',');
    }
    if (found != '}')
        return unexpected(c, found, "',' or '}'");
    found = take(c);
    return found == '\0' && c->at >= c->size ? CAB_OK : unexpected(c, found, "the header's end");
}

static cab_status parse_entries(cab_safetensors *st, const char *text, size_t length, const uint8_t *body,
                                size_t body_size)
{
    cursor c = {.file = st->name, .text = text, .size = length, .tokener = json_tokener_new_ex(DEPTH_MAX)};
    if (c.tokener == NULL)
        return cab_fail(CAB_ENOMEM, "out of memory: parsing %s", st->name);
    json_tokener_set_flags(c.tokener,
                           JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8 | JSON_TOKENER_ALLOW_TRAILING_CHARS);
    cab_status status = parse_members(st, &c, body, body_size);
    json_tokener_free(c.tokener);
    CAB_TRY(status);
    CAB_TRY(CAB_NEW(&st->by_name, st->count, "the tensors of a file"));
    for (size_t i = 0; i < st->count; i++)
        st->by_name[i] = &st->entries[i];
    return check_overlaps(st);
}

/* The header's span; text[0] must be '{' so that nothing but padding can hide before the object. */
static cab_status find_header(const uint8_t *data, size_t size, const char *name, size_t *length)
{
    uint64_t n = 0;
    if (size < LENGTH_BYTES)
        return cab_fail(CAB_EFORMAT, "%s: %zu bytes, too short for a safetensors file", name, size);
    memcpy(&n, data, sizeof n);
    if (n > size - LENGTH_BYTES)
        return cab_fail(CAB_EFORMAT, "%s: header of %" PRIu64 " bytes in a file of %zu: truncated or not safetensors",
                        name, n, size);
    if (n > HEADER_MAX)
        return cab_fail(CAB_EFORMAT, "%s: header of %" PRIu64 " bytes, at most %d are allowed", name, n, HEADER_MAX);
    if (n == 0 || data[LENGTH_BYTES] != '{')
        return cab_fail(CAB_EFORMAT, "%s: the header does not begin with '{': not a safetensors file", name);
    *length = (size_t)n;
    return CAB_OK;
}

size_t cab_safetensors_find_digits(const char *header, size_t size)
{
    static const char before[] = "\"" CAB_SAFETENSORS_CHECKSUM "\":\"" CAB_SAFETENSORS_ALGORITHM;
    const size_t length = sizeof before - 1, needed = length + CAB_SAFETENSORS_DIGITS;
    for (size_t at = 0; at + needed <= size; at++) {
        const char *quote = memchr(header + at, '"', size - needed - at + 1);
        if (quote == NULL)
            return SIZE_MAX;
        at = (size_t)(quote - header);
        if (memcmp(quote, before, length) == 0)
            return at + length;
    }
    return SIZE_MAX;
}

/* XXH64 of the file with zeros for the digits at data[at ...]. A mapped file is read without being kept in memory. */
static uint64_t checksum_without(const cab_safetensors *st, const uint8_t *data, size_t size, size_t at)
{
    cab_checksum checksum = cab_checksum_begin();
    cab_checksum_add(&checksum, data, at);
    cab_checksum_add(&checksum, "0000000000000000", CAB_SAFETENSORS_DIGITS);
    for (size_t i = at + CAB_SAFETENSORS_DIGITS; i < size; i += CHECKED_AT_ONCE) {
        const size_t piece = size - i < CHECKED_AT_ONCE ? size - i : CHECKED_AT_ONCE;
        cab_checksum_add(&checksum, data + i, piece);
        if (st->map.data != NULL)
            cab_pages_forget(data + i, piece);
    }
    return cab_checksum_end(&checksum);
}

/* Files of ours know their own damage. */
static cab_status check_checksum(const cab_safetensors *st, const uint8_t *data, size_t size, size_t header)
{
    char computed[64];
    const char *stated = cab_safetensors_metadata(st, CAB_SAFETENSORS_CHECKSUM);
    if (stated == NULL)
        return CAB_OK;
    const size_t at = cab_safetensors_find_digits((const char *)data, LENGTH_BYTES + header);
    if (at == SIZE_MAX)
        return cab_fail(CAB_EFORMAT, "%s: \"" CAB_SAFETENSORS_CHECKSUM "\" is \"%.40s\", which cab has not written",
                        st->name, stated);
    snprintf(computed, sizeof computed, CAB_SAFETENSORS_ALGORITHM "%016" PRIx64, checksum_without(st, data, size, at));
    if (strcmp(computed, stated) != 0)
        return cab_fail(CAB_EFORMAT,
                        "%s: damaged, or changed by a program that kept \"" CAB_SAFETENSORS_CHECKSUM
                        "\": found %s, expected %.40s",
                        st->name, computed, stated);
    return CAB_OK;
}

static cab_status parse(cab_safetensors *st, const uint8_t *data, size_t size, const char *name)
{
    size_t length = 0;
    CAB_TRY(find_header(data, size, name, &length));
    const char *text = (const char *)data + LENGTH_BYTES;
    CAB_TRY(cab_strdup(&st->name, name));
    CAB_TRY(parse_entries(st, text, length, data + LENGTH_BYTES + length, size - LENGTH_BYTES - length));
    return check_checksum(st, data, size, length);
}

/* ---- public ----------------------------------------------------------------------------------------------------- */

/* Owns the map, if there is one, also where it fails. */
static cab_status open_over(const void *data, size_t size, const char *name, cab_map map, cab_safetensors **out)
{
    cab_safetensors *st = NULL;
    *out = NULL;
    cab_status status = CAB_NEW(&st, 1, "a safetensors file");
    if (status != CAB_OK) {
        cab_map_close(&map);
        return status;
    }
    st->map = map;
    status = parse(st, data, size, name);
    if (status == CAB_OK)
        *out = st;
    else
        cab_safetensors_close(st);
    return status;
}

cab_status cab_safetensors_parse(const void *data, size_t size, const char *name, cab_safetensors **out)
{
    return open_over(data, size, name, (cab_map){0}, out);
}

cab_status cab_safetensors_open(const char *path, cab_safetensors **out)
{
    cab_map map;
    *out = NULL;
    CAB_TRY(cab_map_open(path, &map));
    return open_over(map.data, map.size, path, map, out);
}

void cab_safetensors_close(cab_safetensors *st)
{
    if (st == NULL)
        return;
    for (size_t i = 0; i < st->count; i++)
        cab_free((char *)st->entries[i].name);
    cab_free(st->entries);
    cab_free(st->by_name);
    json_object_put(st->metadata);
    cab_free(st->name);
    cab_map_close(&st->map);
    cab_free(st);
}

size_t cab_safetensors_count(const cab_safetensors *st)
{
    return st->count;
}

const cab_safetensors_entry *cab_safetensors_at(const cab_safetensors *st, size_t index)
{
    return &st->entries[index];
}

const cab_safetensors_entry *cab_safetensors_find(const cab_safetensors *st, const char *name)
{
    const cab_safetensors_entry wanted = {.name = name}, *key = &wanted;
    const cab_safetensors_entry **found = bsearch(&key, st->by_name, st->count, sizeof *st->by_name, compare_names);
    return found == NULL ? NULL : *found;
}

const char *cab_safetensors_metadata(const cab_safetensors *st, const char *key)
{
    json_object *value = NULL;
    if (st->metadata == NULL || !json_object_object_get_ex(st->metadata, key, &value))
        return NULL;
    return json_object_get_string(value);
}

/* ---- values ----------------------------------------------------------------------------------------------------- */

/* "(2, 3)"; "()" is a scalar. */
static const char *dims_text(int n_dim, const int64_t *shape, char *buffer)
{
    int at = snprintf(buffer, DIMS_TEXT_MAX, "(");
    for (int i = 0; i < n_dim && i < CAB_SAFETENSORS_DIMS; i++)
        at += snprintf(buffer + at, (size_t)(DIMS_TEXT_MAX - at), "%s%" PRId64, i > 0 ? ", " : "", shape[i]);
    snprintf(buffer + at, (size_t)(DIMS_TEXT_MAX - at), ")");
    return buffer;
}

cab_status cab_safetensors_entry_check_shape(const cab_safetensors_entry *entry, int n_dim, const int64_t *shape)
{
    char found[DIMS_TEXT_MAX], expected[DIMS_TEXT_MAX];
    bool same = entry->n_dim == n_dim;
    for (int i = 0; same && i < n_dim; i++)
        same = entry->shape[i] == shape[i];
    if (!same)
        return cab_fail(CAB_ESHAPE, "%s: tensor \"%s\": shape %s, expected %s", entry->file, entry->name,
                        dims_text(entry->n_dim, entry->shape, found), dims_text(n_dim, shape, expected));
    return CAB_OK;
}

/* Converts elements begin..end to out and returns the index of the first that is not finite, or SIZE_MAX. An fp32 is
 * not finite when all its exponent bits are set: an integer test, so the loop vectorises. */
static size_t convert_chunk(const cab_safetensors_entry *entry, size_t begin, size_t end, float *out)
{
    uint64_t aligned[CHUNK]; /* the mapped bytes may lie at any address; room for CHUNK doubles */
    const uint8_t *from = (const uint8_t *)entry->data + cab_dtype_bytes(entry->dtype, (int64_t)begin);
    const size_t count = end - begin;
    uint32_t worst = 0;
    if (cab_dtype_is_blocks(entry->dtype)) {
        cab_blocks_expand(entry->dtype, from, out + begin, (int64_t)count);
    } else {
        memcpy(aligned, from, count * cab_dtype_size(entry->dtype));
        cab_convert(out + begin, CAB_F32, aligned, entry->dtype, count);
    }
    for (size_t i = begin; i < end; i++) {
        uint32_t bits;
        memcpy(&bits, &out[i], sizeof bits);
        bits &= 0x7f800000u;
        worst = bits > worst ? bits : worst;
    }
    if (worst < 0x7f800000u)
        return SIZE_MAX;
    while (isfinite(out[begin]))
        begin++;
    return begin;
}

cab_status cab_safetensors_entry_read_f32(const cab_safetensors_entry *entry, int n_dim, const int64_t *shape,
                                          float *out)
{
    if (entry->dtype != CAB_F32 && entry->dtype != CAB_BF16 && entry->dtype != CAB_F16 && entry->dtype != CAB_F64 &&
        entry->dtype != CAB_F8_E4M3 && !(entry->dtype < CAB_DTYPES && cab_dtype_is_blocks(entry->dtype)))
        return cab_fail(CAB_EFORMAT,
                        "%s: tensor \"%s\": stored as %s, expected F32, BF16, F16 or F64, or blocks of Q8_0, Q4_0 "
                        "to Q5_1 or Q4_K to Q6_K",
                        entry->file, entry->name, entry->dtype_name);
    CAB_TRY(cab_safetensors_entry_check_shape(entry, n_dim, shape));
    size_t count = 1;
    for (int i = 0; i < n_dim; i++)
        count *= (size_t)shape[i];
    size_t chunks = count / CHUNK + (count % CHUNK != 0);
    size_t bad = SIZE_MAX;
#pragma omp parallel for reduction(min : bad) if (count >= PARALLEL_MIN)
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        size_t begin = chunk * CHUNK, end = begin + CHUNK < count ? begin + CHUNK : count;
        size_t first = convert_chunk(entry, begin, end, out);
        bad = first < bad ? first : bad;
    }
    if (bad != SIZE_MAX)
        return cab_fail(CAB_ENUMERIC, "%s: tensor \"%s\": element %zu is %f, expected a finite fp32 value", entry->file,
                        entry->name, bad, (double)out[bad]);
    return CAB_OK;
}

cab_status cab_safetensors_read_f32(const cab_safetensors *st, const char *name, int n_dim, const int64_t *shape,
                                    float *out)
{
    const cab_safetensors_entry *entry = cab_safetensors_find(st, name);
    if (entry == NULL)
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\" is missing", st->name, name);
    return cab_safetensors_entry_read_f32(entry, n_dim, shape, out);
}
