/* pattern.c - what pre-tokenizers split at and normalizers replace: a literal, or an expression matched by PCRE2.
 *
 * Hugging Face's library matches with Oniguruma (Ruby syntax). PCRE2 in UTF and UCP mode agrees on what tokenizers use,
 * with two differences that are bridged here. White space: PCRE2's \s also takes U+180E, so \s is spelled out as the
 * White_Space property. Classes: Oniguruma nests them and intersects with &&, which PCRE2 would silently read as
 * something else; such expressions are refused. Characters newer than the Unicode of the PCRE2 at hand (10.42: Unicode 14;
 * the library's Oniguruma: 16) belong to no class yet and may be cut differently. */
#include "base/memory.h"
#include "data/tokenizer_internal.h"
#include "data/utf8.h"

#include <string.h>

#define WHITE_SPACE                                                                                                    \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

enum { PATTERN_MAX = 1 << 16, JIT_STACK_START = 32 << 10, JIT_STACK_MAX = 8 << 20, MATCH_LIMIT = 10000000 };

cab_status cab_pattern_literal(cab_pattern *pattern, const char *text, size_t size, const char *owner)
{
    if (size == 0)
        return cab_fail(CAB_EUNSUPPORTED, "%s: an empty pattern", owner);
    return cab_bytes_append(&pattern->literal, text, size);
}

static cab_status append(cab_bytes *out, const char *text)
{
    return cab_bytes_append(out, text, strlen(text));
}

/* Copies one escape, text[0] == '\\', spelling out white space. *used: bytes read. */
static cab_status translate_escape(const char *text, size_t size, bool in_class, const char *owner, cab_bytes *out,
                                   size_t *used)
{
    *used = size < 2 ? 1 : 2;
    if (size >= 2 && text[1] == 's')
        return append(out, in_class ? WHITE_SPACE : "[" WHITE_SPACE "]");
    if (size >= 2 && text[1] == 'S') {
        if (in_class)
            return cab_fail(CAB_EUNSUPPORTED, "%s: \\S inside a character class", owner);
        return append(out, "[^" WHITE_SPACE "]");
    }
    return cab_bytes_append(out, text, *used);
}

/* Rewrites an Oniguruma expression for PCRE2. */
static cab_status translate(const char *text, size_t size, const char *owner, cab_bytes *out)
{
    bool in_class = false;
    size_t class_start = 0;
    for (size_t i = 0; i < size;) {
        size_t used = 1;
        if (text[i] == '\\') {
            CAB_TRY(translate_escape(text + i, size - i, in_class, owner, out, &used));
            i += used;
            continue;
        }
        if (in_class && ((text[i] == '[' && (i + 1 == size || text[i + 1] != ':')) ||
                         (text[i] == '&' && i + 1 < size && text[i + 1] == '&')))
            return cab_fail(CAB_EUNSUPPORTED, "%s: nested or intersected character classes in \"%.*s\"", owner,
                            (int)(size < 200 ? size : 200), text);
        if (!in_class && text[i] == '[') {
            in_class = true;
            class_start = i + 1;
            if (class_start < size && text[class_start] == '^')
                class_start++;
        } else if (in_class && text[i] == '[') { /* [:name:] goes to its end */
            while (i + used < size && text[i + used] != ']')
                used++;
            used += i + used < size;
        } else if (in_class && text[i] == ']' && i != class_start) {
            in_class = false;
        }
        CAB_TRY(cab_bytes_append(out, text + i, used));
        i += used;
    }
    return CAB_OK;
}

cab_status cab_pattern_regex(cab_pattern *pattern, const char *text, size_t size, const char *owner)
{
    cab_status status = CAB_OK;
    cab_bytes translated = {0};
    int error = 0;
    PCRE2_SIZE offset = 0;
    if (size == 0 || size > PATTERN_MAX)
        return cab_fail(CAB_EUNSUPPORTED, "%s: a pattern of %zu bytes, expected 1 to %d", owner, size, PATTERN_MAX);
    CAB_GOTO(translate(text, size, owner, &translated));
    pattern->code =
        pcre2_compile((PCRE2_SPTR)translated.data, translated.count,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, NULL);
    if (pattern->code == NULL) {
        PCRE2_UCHAR message[160];
        pcre2_get_error_message(error, message, sizeof message);
        status = cab_fail(CAB_EUNSUPPORTED, "%s: pattern \"%.*s\": %s", owner, (int)(size < 200 ? size : 200), text,
                          (const char *)message);
        goto done;
    }
    pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE); /* without it pcre2_match() interprets */
done:
    cab_bytes_free(&translated);
    return status;
}

cab_status cab_pattern_read(cab_pattern *pattern, const cab_json *json, json_object *object, const char *owner)
{
    json_object *node = NULL, *value = NULL;
    CAB_TRY(cab_json_object(json, object, "pattern", &node));
    bool regex = json_object_object_get_ex(node, "Regex", &value);
    if ((!regex && !json_object_object_get_ex(node, "String", &value)) || !json_object_is_type(value, json_type_string))
        return cab_fail(CAB_EUNSUPPORTED, "%s: pattern is %.80s, expected {\"String\": ...} or {\"Regex\": ...}", owner,
                        json_object_to_json_string_ext(node, JSON_C_TO_STRING_PLAIN));
    const char *text = json_object_get_string(value);
    size_t size = (size_t)json_object_get_string_len(value);
    return regex ? cab_pattern_regex(pattern, text, size, owner) : cab_pattern_literal(pattern, text, size, owner);
}

void cab_pattern_free(cab_pattern *pattern)
{
    cab_bytes_free(&pattern->literal);
    pcre2_code_free(pattern->code);
    *pattern = (cab_pattern){0};
}

cab_status cab_matcher_init(cab_matcher *matcher, const char *owner)
{
    matcher->owner = owner;
    matcher->data = pcre2_match_data_create(1, NULL);
    matcher->context = pcre2_match_context_create(NULL);
    matcher->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, NULL);
    if (matcher->data == NULL || matcher->context == NULL)
        return cab_fail(CAB_ENOMEM, "out of memory: a pattern matcher");
    if (matcher->stack != NULL)
        pcre2_jit_stack_assign(matcher->context, NULL, matcher->stack);
    pcre2_set_match_limit(matcher->context, MATCH_LIMIT);
    return CAB_OK;
}

void cab_matcher_free(cab_matcher *matcher)
{
    pcre2_match_data_free(matcher->data);
    pcre2_match_context_free(matcher->context);
    pcre2_jit_stack_free(matcher->stack);
    *matcher = (cab_matcher){0};
}

static bool find_literal(const cab_bytes *literal, const char *text, size_t size, size_t from, size_t *begin)
{
    while (size - from >= literal->count) {
        const char *hit = memchr(text + from, literal->data[0], size - from - literal->count + 1);
        if (hit == NULL)
            return false;
        from = (size_t)(hit - text);
        if (memcmp(hit, literal->data, literal->count) == 0) {
            *begin = from;
            return true;
        }
        from++;
    }
    return false;
}

static cab_status find_regex(const pcre2_code *code, cab_matcher *matcher, const char *text, size_t size, size_t from,
                             size_t *begin, size_t *end, bool *found)
{
    int count = pcre2_match(code, (PCRE2_SPTR)text, size, from, PCRE2_NO_UTF_CHECK, matcher->data, matcher->context);
    *found = count >= 0;
    if (count == PCRE2_ERROR_NOMATCH)
        return CAB_OK;
    if (count < 0) {
        PCRE2_UCHAR message[160];
        pcre2_get_error_message(count, message, sizeof message);
        return cab_fail(CAB_EUNSUPPORTED, "%s: a pattern failed at byte %zu of a text: %s", matcher->owner, from,
                        (const char *)message);
    }
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(matcher->data);
    *begin = place[0];
    *end = place[1];
    if (*begin > *end) /* \K inside a lookaround */
        return cab_fail(CAB_EUNSUPPORTED, "%s: a pattern matched backwards at byte %zu of a text", matcher->owner,
                        from);
    return CAB_OK;
}

cab_status cab_pattern_next(const cab_pattern *pattern, cab_matcher *matcher, const char *text, size_t size,
                            cab_search *search, size_t *begin, size_t *end, bool *found)
{
    for (*found = false; search->next <= size;) {
        if (pattern->code == NULL) {
            *found = find_literal(&pattern->literal, text, size, search->next, begin);
            *end = *found ? *begin + pattern->literal.count : 0;
        } else {
            CAB_TRY(find_regex(pattern->code, matcher, text, size, search->next, begin, end, found));
        }
        if (!*found)
            return CAB_OK;
        search->next = *end;
        if (*begin < *end || *end != search->last_end) {
            search->last_end = *end;
            return CAB_OK;
        }
        unsigned length = 1; /* an empty match where the last one ended */
        if (search->next < size)
            cab_utf8_decode(text + search->next, &length);
        search->next += length;
        *found = false;
    }
    return CAB_OK;
}
