/* normalize.c - the "normalizer" of a tokenizer.json: changes to the text before it is split.
 *
 *   Prepend p       p + text, unless text is empty        NFC NFD NFKC NFKD   Unicode normal forms
 *   Replace a, b    each match of a becomes b             Lowercase           character by character
 *   Strip           white space at the ends goes          Sequence            one after another */
#include "base/memory.h"
#include "data/tokenizer_internal.h"
#include "data/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Bounds on the text that Replace may produce: a multiple of the original, but never less than the second, in bytes. */
enum { GROWTH_MAX = 64, GROWTH_ALWAYS = 1 << 16 };

static const struct {
    const char *name;
    cab_normalizer_kind kind;
} normalizer_names[] = {
    {"Prepend", CAB_NORMALIZE_PREPEND},
    {"Replace", CAB_NORMALIZE_REPLACE},
    {"NFC", CAB_NORMALIZE_NFC},
    {"NFD", CAB_NORMALIZE_NFD},
    {"NFKC", CAB_NORMALIZE_NFKC},
    {"NFKD", CAB_NORMALIZE_NFKD},
    {"Lowercase", CAB_NORMALIZE_LOWERCASE},
    {"Strip", CAB_NORMALIZE_STRIP},
};

static cab_status read_one(cab_normalizer *normalizer, const cab_json *json, json_object *object, const char *type)
{
    char owner[512];
    json_object *value = NULL;
    snprintf(owner, sizeof owner, "%s: normalizer %s", json->name, type);
    const char *key = normalizer->kind == CAB_NORMALIZE_PREPEND ? "prepend" : "content";
    switch (normalizer->kind) {
    case CAB_NORMALIZE_REPLACE:
        CAB_TRY(cab_pattern_read(&normalizer->pattern, json, object, owner));
        __attribute__((fallthrough));
    case CAB_NORMALIZE_PREPEND:
        if (!json_object_object_get_ex(object, key, &value) || !json_object_is_type(value, json_type_string))
            return cab_fail(CAB_EFORMAT, "%s: \"%s\" is missing, expected a string", owner, key);
        return cab_bytes_append(&normalizer->content, json_object_get_string(value),
                                (size_t)json_object_get_string_len(value));
    case CAB_NORMALIZE_STRIP:
        CAB_TRY(cab_json_bool_or(json, object, "strip_left", true, &normalizer->left));
        return cab_json_bool_or(json, object, "strip_right", true, &normalizer->right);
    default:
        return CAB_OK;
    }
}

static cab_status read_sequence(cab_normalizers *normalizers, const cab_json *json, json_object *object, int depth)
{
    json_object *items = NULL;
    if (depth == CAB_COMPONENT_DEPTH)
        return cab_fail(CAB_EUNSUPPORTED, "%s: normalizer: Sequences nested more than %d deep", json->name, depth);
    CAB_TRY(cab_json_array(json, object, "normalizers", &items));
    for (size_t i = 0; i < json_object_array_length(items); i++)
        CAB_TRY(cab_normalizers_read(normalizers, json, json_object_array_get_idx(items, i), depth + 1));
    return CAB_OK;
}

cab_status cab_normalizers_read(cab_normalizers *normalizers, const cab_json *json, json_object *object, int depth)
{
    const char *type = NULL;
    if (object == NULL)
        return CAB_OK;
    CAB_TRY(cab_json_string(json, object, "type", &type));
    if (strcmp(type, "Sequence") == 0)
        return read_sequence(normalizers, json, object, depth);
    for (size_t i = 0; i < sizeof normalizer_names / sizeof *normalizer_names; i++) {
        if (strcmp(type, normalizer_names[i].name) != 0)
            continue;
        CAB_TRY(CAB_GROW(&normalizers->items, &normalizers->capacity, normalizers->count + 1, "normalizers"));
        cab_normalizer *normalizer = &normalizers->items[normalizers->count++];
        normalizer->kind = normalizer_names[i].kind;
        return read_one(normalizer, json, object, type);
    }
    return cab_fail(CAB_EUNSUPPORTED,
                    "%s: normalizer \"%.80s\" is not supported; supported: Sequence, Prepend, Replace, NFC, NFD, NFKC, "
                    "NFKD, Lowercase, Strip",
                    json->name, type);
}

void cab_normalizers_free(cab_normalizers *normalizers)
{
    for (size_t i = 0; i < normalizers->count; i++) {
        cab_bytes_free(&normalizers->items[i].content);
        cab_pattern_free(&normalizers->items[i].pattern);
    }
    cab_free(normalizers->items);
    *normalizers = (cab_normalizers){0};
}

/* Fails once the text grew beyond `limit`: Replace upon Replace could grow it without bound. */
static cab_status replace(const cab_normalizer *normalizer, cab_matcher *matcher, const cab_bytes *in, cab_bytes *out,
                          size_t limit)
{
    cab_search search = CAB_SEARCH_START;
    size_t copied = 0;
    for (;;) {
        size_t begin = 0, end = 0;
        bool found = false;
        CAB_TRY(cab_pattern_next(&normalizer->pattern, matcher, in->data, in->count, &search, &begin, &end, &found));
        if (!found)
            break;
        CAB_TRY(cab_bytes_append(out, in->data + copied, begin - copied));
        CAB_TRY(cab_bytes_append(out, normalizer->content.data, normalizer->content.count));
        copied = end;
        if (out->count > limit)
            return cab_fail(CAB_EUNSUPPORTED, "%s: normalizers make a text more than %d times as long", matcher->owner,
                            GROWTH_MAX);
    }
    return cab_bytes_append(out, in->data + copied, in->count - copied);
}

static cab_status normal_form(cab_normalizer_kind kind, const cab_bytes *in, cab_bytes *out)
{
    bool compose = kind == CAB_NORMALIZE_NFC || kind == CAB_NORMALIZE_NFKC;
    bool compatible = kind == CAB_NORMALIZE_NFKC || kind == CAB_NORMALIZE_NFKD;
    int options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
    utf8proc_uint8_t *mapped = NULL;
    if (compatible)
        options |= UTF8PROC_COMPAT;
    utf8proc_ssize_t size = utf8proc_map((const utf8proc_uint8_t *)in->data, (utf8proc_ssize_t)in->count, &mapped,
                                         (utf8proc_option_t)options);
    if (size < 0)
        return cab_fail(CAB_ENOMEM, "normalising %zu bytes of text: %s", in->count, utf8proc_errmsg(size));
    cab_status status = cab_bytes_append(out, mapped, (size_t)size);
    free(mapped);
    return status;
}

static cab_status lowercase(const cab_bytes *in, cab_bytes *out)
{
    for (size_t i = 0; i < in->count;) {
        char lower[4];
        unsigned length = 0;
        uint32_t code = cab_utf8_decode(in->data + i, &length);
        i += length;
        if (code == 0x130) { /* the one character whose lower case is two: i and a dot above */
            CAB_TRY(cab_bytes_append(out, "i\xCC\x87", 3));
            continue;
        }
        CAB_TRY(
            cab_bytes_append(out, lower, cab_utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)code), lower)));
    }
    return CAB_OK;
}

static cab_status strip(const cab_normalizer *normalizer, const cab_bytes *in, cab_bytes *out)
{
    size_t begin = 0, end = in->count;
    unsigned length = 0;
    while (normalizer->left && begin < end && cab_unicode_is_space(cab_utf8_decode(in->data + begin, &length)))
        begin += length;
    while (normalizer->right && end > begin) {
        size_t last = cab_utf8_previous(in->data, end);
        if (!cab_unicode_is_space(cab_utf8_decode(in->data + last, &length)))
            break;
        end = last;
    }
    return cab_bytes_append(out, in->data + begin, end - begin);
}

static cab_status apply(const cab_normalizer *normalizer, cab_matcher *matcher, const cab_bytes *in, cab_bytes *out,
                        size_t limit)
{
    switch (normalizer->kind) {
    case CAB_NORMALIZE_PREPEND:
        CAB_TRY(cab_bytes_append(out, normalizer->content.data, normalizer->content.count));
        return cab_bytes_append(out, in->data, in->count);
    case CAB_NORMALIZE_REPLACE:
        return replace(normalizer, matcher, in, out, limit);
    case CAB_NORMALIZE_LOWERCASE:
        return lowercase(in, out);
    case CAB_NORMALIZE_STRIP:
        return strip(normalizer, in, out);
    default:
        return normal_form(normalizer->kind, in, out);
    }
}

cab_status cab_normalize(const cab_normalizers *normalizers, cab_matcher *matcher, cab_bytes *text, cab_bytes *spare)
{
    size_t limit = 0;
    if (__builtin_mul_overflow(text->count, (size_t)GROWTH_MAX, &limit) || limit < GROWTH_ALWAYS)
        limit = GROWTH_ALWAYS;
    for (size_t i = 0; i < normalizers->count && text->count > 0; i++) {
        spare->count = 0;
        CAB_TRY(apply(&normalizers->items[i], matcher, text, spare, limit));
        cab_bytes swap = *text;
        *text = *spare;
        *spare = swap;
    }
    return CAB_OK;
}
