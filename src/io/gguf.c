/* gguf.c - the reader.
 *
 *   "GGUF", version (u32), tensors (u64), pairs (u64)
 *   pairs     key (string), type (u32), value; a string is its length (u64) and its bytes, an array the type of its elements (u32), their
 *             number (u64) and they themselves
 *   tensors   name (string), dimensions (u32), each of them (u64, innermost first), type (u32), offset (u64) from the body
 *   the body  after padding to general.alignment (32 unless it is stated); each tensor begins at a multiple of that */
#include "base/file.h"
#include "base/memory.h"
#include "base/options.h"
#include "io/gguf_internal.h"
#include "tensor/blocks.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_MAX = 1 << 16,      /* bytes of a key or a tensor's name, as in ggml */
    PAIRS_MAX = 1 << 16,    /* that many keys, */
    TENSORS_MAX = 1 << 16,  /* tensors, */
    ELEMENTS_MAX = 1 << 21, /* and elements of an array: eight times the largest vocabulary known */
    ALIGNMENT_MAX = 1 << 16
};

static const size_t type_bytes[CAB_GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* ggml's types of tensors, by their number. */
static const struct {
    const char *name;
    cab_dtype dtype;
} stored_types[] = {
    [0] = {"F32", CAB_F32},        [1] = {"F16", CAB_F16},         [2] = {"Q4_0", CAB_Q4_0},
    [3] = {"Q4_1", CAB_Q4_1},      [6] = {"Q5_0", CAB_Q5_0},       [7] = {"Q5_1", CAB_Q5_1},
    [8] = {"Q8_0", CAB_Q8_0},      [9] = {"Q8_1", CAB_DTYPES},     [10] = {"Q2_K", CAB_DTYPES},
    [11] = {"Q3_K", CAB_DTYPES},   [12] = {"Q4_K", CAB_Q4_K},      [13] = {"Q5_K", CAB_Q5_K},
    [14] = {"Q6_K", CAB_Q6_K},     [15] = {"Q8_K", CAB_DTYPES},    [16] = {"IQ2_XXS", CAB_DTYPES},
    [17] = {"IQ2_XS", CAB_DTYPES}, [18] = {"IQ3_XXS", CAB_DTYPES}, [19] = {"IQ1_S", CAB_DTYPES},
    [20] = {"IQ4_NL", CAB_DTYPES}, [21] = {"IQ3_S", CAB_DTYPES},   [22] = {"IQ2_S", CAB_DTYPES},
    [23] = {"IQ4_XS", CAB_DTYPES}, [24] = {"I8", CAB_DTYPES},      [25] = {"I16", CAB_DTYPES},
    [26] = {"I32", CAB_I32},       [27] = {"I64", CAB_I64},        [28] = {"F64", CAB_F64},
    [29] = {"IQ1_M", CAB_DTYPES},  [30] = {"BF16", CAB_BF16},      [34] = {"TQ1_0", CAB_DTYPES},
    [35] = {"TQ2_0", CAB_DTYPES},  [39] = {"MXFP4", CAB_DTYPES},
};

uint32_t cab_gguf_tensor_type(cab_dtype dtype)
{
    uint32_t type = 0;
    while (stored_types[type].name == NULL || stored_types[type].dtype != dtype)
        type++;
    return type;
}

struct cab_gguf {
    cab_map map; /* empty when parsed from memory */
    cab_json metadata;
    cab_safetensors_entry *entries;
    const cab_safetensors_entry **by_name;
    char **names; /* of the tensors */
    size_t count, capacity;
};

/* Where the reading stands. */
typedef struct cursor {
    const char *file;
    const uint8_t *data;
    size_t size, at;
} cursor;

static cab_status cut_short(const cursor *c, const char *what)
{
    return cab_fail(CAB_EFORMAT, "%s: the file ends at byte %zu, within %s", c->file, c->size, what);
}

static cab_status take(cursor *c, void *out, size_t bytes, const char *what)
{
    if (bytes > c->size - c->at)
        return cut_short(c, what);
    memcpy(out, c->data + c->at, bytes);
    c->at += bytes;
    return CAB_OK;
}

/* *text points into the file and has no NUL behind it. */
static cab_status take_string(cursor *c, uint64_t most, const char **text, size_t *length, const char *what)
{
    uint64_t n = 0;
    CAB_TRY(take(c, &n, sizeof n, what));
    if (n > most)
        return cab_fail(CAB_EFORMAT, "%s: %s of %" PRIu64 " bytes at byte %zu, at most %" PRIu64 " are allowed",
                        c->file, what, n, c->at, most);
    if (n > c->size - c->at)
        return cut_short(c, what);
    *text = (const char *)c->data + c->at;
    *length = (size_t)n;
    c->at += (size_t)n;
    return CAB_OK;
}

/* ---- metadata ----------------------------------------------------------------------------------------------------- */

static json_object *whole_number(const uint8_t *bytes, uint32_t type)
{
    switch (type) {
    case CAB_GGUF_U8:
        return json_object_new_int64(bytes[0]);
    case CAB_GGUF_I8:
        return json_object_new_int64((int8_t)bytes[0]);
    case CAB_GGUF_BOOL:
        return json_object_new_boolean(bytes[0] != 0);
    case CAB_GGUF_U16:
    case CAB_GGUF_I16: {
        uint16_t v;
        memcpy(&v, bytes, sizeof v);
        return json_object_new_int64(type == CAB_GGUF_U16 ? (int64_t)v : (int16_t)v);
    }
    case CAB_GGUF_U32:
    case CAB_GGUF_I32: {
        uint32_t v;
        memcpy(&v, bytes, sizeof v);
        return json_object_new_int64(type == CAB_GGUF_U32 ? (int64_t)v : (int32_t)v);
    }
    default: { /* 64 bits */
        uint64_t v;
        memcpy(&v, bytes, sizeof v);
        return type == CAB_GGUF_U64 ? json_object_new_uint64(v) : json_object_new_int64((int64_t)v);
    }
    }
}

static json_object *number(const uint8_t *bytes, uint32_t type)
{
    float single;
    double value;
    if (type != CAB_GGUF_F32 && type != CAB_GGUF_F64)
        return whole_number(bytes, type);
    memcpy(&single, bytes, sizeof single);
    if (type == CAB_GGUF_F64)
        memcpy(&value, bytes, sizeof value);
    else
        value = (double)single;
    return isfinite(value) ? json_object_new_double(value) : NULL;
}

/* A number or a string; *out may stay NULL, which is a number that is not finite. */
static cab_status take_scalar(cursor *c, uint32_t type, const char *what, json_object **out)
{
    uint8_t bytes[8];
    const char *text = NULL;
    size_t length = 0;
    *out = NULL;
    if (type == CAB_GGUF_STRING) {
        CAB_TRY(take_string(c, INT32_MAX, &text, &length, what));
        *out = json_object_new_string_len(text, (int)length);
        return *out != NULL ? CAB_OK : cab_fail(CAB_ENOMEM, "%s: no memory for its metadata", c->file);
    }
    CAB_TRY(take(c, bytes, type_bytes[type], what));
    *out = number(bytes, type);
    return CAB_OK;
}

static cab_status take_array(cursor *c, const char *what, json_object **out)
{
    uint32_t type = 0;
    uint64_t count = 0;
    CAB_TRY(take(c, &type, sizeof type, what));
    CAB_TRY(take(c, &count, sizeof count, what));
    if (type >= CAB_GGUF_TYPES || type == CAB_GGUF_ARRAY)
        return cab_fail(CAB_EFORMAT, "%s: %s is an array of type %" PRIu32 ", expected numbers or strings", c->file,
                        what, type);
    if (count > ELEMENTS_MAX)
        return cab_fail(CAB_EFORMAT, "%s: %s has %" PRIu64 " elements, at most %d are allowed", c->file, what, count,
                        ELEMENTS_MAX);
    *out = json_object_new_array();
    for (uint64_t i = 0; *out != NULL && i < count; i++) {
        json_object *element = NULL;
        CAB_TRY(take_scalar(c, type, what, &element));
        if (json_object_array_add(*out, element) != 0) {
            json_object_put(element);
            return cab_fail(CAB_ENOMEM, "%s: no memory for its metadata", c->file);
        }
    }
    return *out != NULL ? CAB_OK : cab_fail(CAB_ENOMEM, "%s: no memory for its metadata", c->file);
}

static cab_status take_pair(cursor *c, json_object *root)
{
    char key[128], what[160];
    const char *text = NULL;
    size_t length = 0;
    uint32_t type = 0;
    json_object *value = NULL;
    CAB_TRY(take_string(c, KEY_MAX, &text, &length, "a key"));
    if (length == 0 || length >= sizeof key || memchr(text, '\0', length) != NULL)
        return cab_fail(CAB_EFORMAT, "%s: a key of %zu bytes before byte %zu, expected a name of 1 to %zu", c->file,
                        length, c->at, sizeof key - 1);
    memcpy(key, text, length);
    key[length] = '\0';
    cab_printable(key, what, sizeof what);
    if (json_object_object_get_ex(root, key, NULL))
        return cab_fail(CAB_EFORMAT, "%s: the key \"%s\" stands there twice", c->file, what);
    CAB_TRY(take(c, &type, sizeof type, what));
    if (type >= CAB_GGUF_TYPES)
        return cab_fail(CAB_EFORMAT, "%s: \"%s\" is of type %" PRIu32 ", expected 0 to %d", c->file, what, type,
                        CAB_GGUF_TYPES - 1);
    cab_status status = type == CAB_GGUF_ARRAY ? take_array(c, what, &value) : take_scalar(c, type, what, &value);
    if (status != CAB_OK || value == NULL) {
        json_object_put(value);
        return status;
    }
    return json_object_object_add(root, key, value) == 0
               ? CAB_OK
               : cab_fail(CAB_ENOMEM, "%s: no memory for its metadata", c->file);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

static cab_status take_shape(cursor *c, cab_safetensors_entry *entry)
{
    uint32_t n_dim = 0;
    uint64_t size = 0;
    CAB_TRY(take(c, &n_dim, sizeof n_dim, "a tensor's shape"));
    if (n_dim > CAB_GGUF_DIMS)
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\": %" PRIu32 " dimensions, expected at most %d", c->file,
                        entry->name, n_dim, CAB_GGUF_DIMS);
    entry->n_dim = (int)n_dim;
    for (int i = 0; i < entry->n_dim; i++) {
        CAB_TRY(take(c, &size, sizeof size, "a tensor's shape"));
        if (size > INT64_MAX)
            return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\": a dimension of %" PRIu64, c->file, entry->name, size);
        entry->shape[entry->n_dim - 1 - i] = (int64_t)size;
    }
    return CAB_OK;
}

static cab_status count_bytes(const cursor *c, cab_safetensors_entry *entry)
{
    const int64_t block = cab_dtype_block(entry->dtype);
    int64_t elements = 1;
    size_t bytes = 0;
    for (int i = 0; i < entry->n_dim; i++)
        if (__builtin_mul_overflow(elements, entry->shape[i], &elements))
            return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\": its shape has more than 2^63 elements", c->file,
                            entry->name);
    if (cab_dtype_is_blocks(entry->dtype) && (entry->n_dim == 0 || entry->shape[entry->n_dim - 1] % block != 0))
        return cab_fail(
            CAB_EFORMAT, "%s: tensor \"%s\": rows of %" PRId64 " elements, expected a multiple of %" PRId64 " for %s",
            c->file, entry->name, entry->n_dim == 0 ? 1 : entry->shape[entry->n_dim - 1], block, entry->dtype_name);
    if (__builtin_mul_overflow((size_t)(elements / block), cab_dtype_bytes(entry->dtype, block), &bytes))
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\": its shape needs more than 2^64 bytes", c->file, entry->name);
    entry->bytes = bytes;
    return CAB_OK;
}

/* Leaves the offset from the body in *offset. */
static cab_status take_tensor(cursor *c, cab_safetensors_entry *entry, char **name, uint64_t *offset)
{
    const char *text = NULL;
    size_t length = 0;
    uint32_t type = 0;
    CAB_TRY(take_string(c, KEY_MAX, &text, &length, "a tensor's name"));
    if (length == 0 || memchr(text, '\0', length) != NULL)
        return cab_fail(CAB_EFORMAT, "%s: a tensor's name of %zu bytes before byte %zu is empty or has a NUL", c->file,
                        length, c->at);
    CAB_TRY(CAB_NEW(name, length + 1, "the name of a tensor"));
    entry->name = memcpy(*name, text, length);
    entry->file = c->file;
    CAB_TRY(take_shape(c, entry));
    CAB_TRY(take(c, &type, sizeof type, "a tensor's type"));
    CAB_TRY(take(c, offset, sizeof *offset, "a tensor's offset"));
    if (type >= sizeof stored_types / sizeof *stored_types || stored_types[type].name == NULL)
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\": unknown type %" PRIu32, c->file, entry->name, type);
    entry->dtype = stored_types[type].dtype;
    entry->dtype_name = stored_types[type].name;
    return entry->dtype == CAB_DTYPES ? CAB_OK : count_bytes(c, entry);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const cab_safetensors_entry *const *)a)->name, (*(const cab_safetensors_entry *const *)b)->name);
}

static cab_status place_tensors(cab_gguf *g, const cursor *c, const uint64_t *offsets, uint64_t alignment)
{
    const uint64_t body = (c->at + alignment - 1) / alignment * alignment;
    const uint64_t room = body > c->size ? 0 : c->size - body;
    for (size_t i = 0; i < g->count; i++) {
        cab_safetensors_entry *e = &g->entries[i];
        g->by_name[i] = e;
        if (e->dtype == CAB_DTYPES || e->bytes == 0)
            continue;
        if (offsets[i] > room || e->bytes > room - offsets[i])
            return cab_fail(CAB_EFORMAT,
                            "%s: tensor \"%s\": %zu bytes at %" PRIu64 " of a body of %" PRIu64
                            ": the file is truncated",
                            c->file, e->name, e->bytes, offsets[i], room);
        e->data = c->data + body + offsets[i];
    }
    qsort(g->by_name, g->count, sizeof *g->by_name, compare_names);
    for (size_t i = 1; i < g->count; i++)
        if (strcmp(g->by_name[i - 1]->name, g->by_name[i]->name) == 0)
            return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\" stands there twice", c->file, g->by_name[i]->name);
    return CAB_OK;
}

/* ---- the file ----------------------------------------------------------------------------------------------------- */

static cab_status take_tensors(cab_gguf *g, cursor *c, uint64_t count)
{
    cab_status status;
    uint64_t *offsets = NULL;
    int64_t alignment = CAB_GGUF_ALIGNMENT;
    /* A tensor is described by 24 bytes at least. */
    if (count > TENSORS_MAX || count > (c->size - c->at) / 24)
        return cab_fail(CAB_EFORMAT, "%s: %" PRIu64 " tensors in the %zu bytes left, at most %d are allowed", c->file,
                        count, c->size - c->at, TENSORS_MAX);
    CAB_TRY(cab_json_int_or(&g->metadata, NULL, "general.alignment", 1, ALIGNMENT_MAX, CAB_GGUF_ALIGNMENT, &alignment));
    g->capacity = (size_t)count;
    CAB_GOTO(CAB_NEW(&offsets, (size_t)count, "the tensors of a file"));
    CAB_GOTO(CAB_NEW(&g->entries, (size_t)count, "the tensors of a file"));
    CAB_GOTO(CAB_NEW(&g->by_name, (size_t)count, "the tensors of a file"));
    CAB_GOTO(CAB_NEW(&g->names, (size_t)count, "the tensors of a file"));
    for (; g->count < count; g->count++)
        CAB_GOTO(take_tensor(c, &g->entries[g->count], &g->names[g->count], &offsets[g->count]));
    status = place_tensors(g, c, offsets, (uint64_t)alignment);
done:
    cab_free(offsets);
    return status;
}

static cab_status parse(cab_gguf *g, const uint8_t *data, size_t size, const char *name)
{
    cursor c = {.file = name, .data = data, .size = size};
    char magic[4] = "";
    uint32_t version = 0;
    uint64_t tensors = 0, pairs = 0;
    CAB_TRY(cab_strdup(&g->metadata.name, name));
    c.file = g->metadata.name;
    g->metadata.root = json_object_new_object();
    if (g->metadata.root == NULL)
        return cab_fail(CAB_ENOMEM, "%s: no memory for its metadata", name);
    CAB_TRY(take(&c, magic, sizeof magic, "the first four bytes"));
    if (memcmp(magic, "GGUF", 4) != 0)
        return cab_fail(CAB_EFORMAT, "%s: does not begin with \"GGUF\": not a GGUF file", name);
    CAB_TRY(take(&c, &version, sizeof version, "the version"));
    if (version != 2 && version != 3)
        return cab_fail(CAB_EUNSUPPORTED, "%s: GGUF version %" PRIu32 "%s; supported are 2 and 3", name, version,
                        (version & 0xffff) == 0 ? " (big-endian?)" : "");
    CAB_TRY(take(&c, &tensors, sizeof tensors, "the number of tensors"));
    CAB_TRY(take(&c, &pairs, sizeof pairs, "the number of keys"));
    if (pairs > PAIRS_MAX)
        return cab_fail(CAB_EFORMAT, "%s: %" PRIu64 " keys, at most %d are allowed", name, pairs, PAIRS_MAX);
    for (uint64_t i = 0; i < pairs; i++)
        CAB_TRY(take_pair(&c, g->metadata.root));
    return take_tensors(g, &c, tensors);
}

cab_status cab_gguf_parse(const void *data, size_t size, const char *name, cab_gguf **out)
{
    cab_gguf *g = NULL;
    *out = NULL;
    CAB_TRY(CAB_NEW(&g, 1, "a GGUF file"));
    cab_status status = parse(g, data, size, name);
    if (status != CAB_OK) {
        cab_gguf_close(g);
        return status;
    }
    *out = g;
    return CAB_OK;
}

cab_status cab_gguf_open(const char *path, cab_gguf **out)
{
    cab_map map;
    *out = NULL;
    CAB_TRY(cab_map_open(path, &map));
    cab_status status = cab_gguf_parse(map.data, map.size, path, out);
    if (status == CAB_OK)
        (*out)->map = map;
    else
        cab_map_close(&map);
    return status;
}

void cab_gguf_close(cab_gguf *g)
{
    if (g == NULL)
        return;
    for (size_t i = 0; g->names != NULL && i < g->capacity; i++)
        cab_free(g->names[i]);
    cab_free(g->names);
    cab_free(g->entries);
    cab_free(g->by_name);
    cab_json_close(&g->metadata);
    cab_map_close(&g->map);
    cab_free(g);
}

const cab_json *cab_gguf_metadata(const cab_gguf *g)
{
    return &g->metadata;
}

size_t cab_gguf_count(const cab_gguf *g)
{
    return g->count;
}

const cab_safetensors_entry *cab_gguf_at(const cab_gguf *g, size_t index)
{
    return &g->entries[index];
}

const cab_safetensors_entry *cab_gguf_find(const cab_gguf *g, const char *name)
{
    const cab_safetensors_entry wanted = {.name = name}, *key = &wanted;
    const cab_safetensors_entry **found = bsearch(&key, g->by_name, g->count, sizeof *g->by_name, compare_names);
    return found == NULL ? NULL : *found;
}

bool cab_gguf_named(const char *path)
{
    const size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".gguf") == 0;
}
