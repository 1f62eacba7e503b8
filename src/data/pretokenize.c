/* pretokenize.c - the "pre_tokenizer" of a tokenizer.json: where a text is cut into the words that BPE works on.
 *
 *   Split      at a pattern; the matches are kept apart (Isolated), dropped (Removed), joined to a neighbour
 *              (MergedWithPrevious, MergedWithNext) or to each other (Contiguous); invert swaps matches and the rest
 *   ByteLevel  optionally puts a space in front and cuts by GPT-2's expression; the model then sees bytes
 *   Metaspace  spaces become U+2581, one is put in front, and the text is cut before each
 *   Digits     numbers apart, one by one or as runs
 *   Sequence   one after another
 *
 * Words stream through the steps one at a time: nothing is stored but the text of a step that changes it. */
#include "base/memory.h"
#include "data/tokenizer_internal.h"

#include <stdio.h>
#include <string.h>

static const char gpt2_expression[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- reading -------------------------------------------------------------------------------------------------------- */

static cab_status add_step(cab_splitters *splitters, const cab_json *json, cab_split_kind kind, cab_splitter **step)
{
    if (splitters->count == CAB_SPLITTERS_MAX)
        return cab_fail(CAB_EUNSUPPORTED, "%s: pre_tokenizer: more than %d steps", json->name, CAB_SPLITTERS_MAX);
    *step = &splitters->items[splitters->count++];
    **step = (cab_splitter){.kind = kind};
    return CAB_OK;
}

static cab_status read_split(cab_splitters *splitters, const cab_json *json, json_object *object, const char *owner)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *behavior = NULL;
    cab_splitter *step = NULL;
    CAB_TRY(add_step(splitters, json, CAB_SPLIT_PATTERN, &step));
    CAB_TRY(cab_pattern_read(&step->pattern, json, object, owner));
    CAB_TRY(cab_json_bool_or(json, object, "invert", false, &step->invert));
    CAB_TRY(cab_json_string(json, object, "behavior", &behavior));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(behavior, names[i]) == 0) {
            step->behavior = (cab_behavior)i;
            return CAB_OK;
        }
    }
    return cab_fail(CAB_EUNSUPPORTED,
                    "%s: behavior \"%.80s\" is not supported; supported: Isolated, Removed, "
                    "MergedWithPrevious, MergedWithNext, Contiguous",
                    owner, behavior);
}

static cab_status read_byte_level(cab_splitters *splitters, const cab_json *json, json_object *object,
                                  const char *owner)
{
    bool prefix = false, regex = false;
    cab_splitter *step = NULL;
    CAB_TRY(cab_json_bool_or(json, object, "add_prefix_space", true, &prefix));
    CAB_TRY(cab_json_bool_or(json, object, "use_regex", true, &regex));
    if (prefix)
        CAB_TRY(add_step(splitters, json, CAB_SPLIT_PREFIX_SPACE, &step));
    if (regex) {
        CAB_TRY(add_step(splitters, json, CAB_SPLIT_PATTERN, &step));
        CAB_TRY(cab_pattern_regex(&step->pattern, gpt2_expression, sizeof gpt2_expression - 1, owner));
    }
    splitters->byte_level = true;
    return CAB_OK;
}

/* "prepend_scheme" replaced the older "add_prefix_space". */
static cab_status read_prepend(const cab_json *json, json_object *object, const char *owner, cab_prepend *prepend)
{
    const char *scheme = NULL;
    bool prefix = true;
    CAB_TRY(cab_json_bool_or(json, object, "add_prefix_space", true, &prefix));
    CAB_TRY(cab_json_string_or(json, object, "prepend_scheme", prefix ? "always" : "never", &scheme));
    if (strcmp(scheme, "always") == 0)
        *prepend = CAB_PREPEND_ALWAYS;
    else if (strcmp(scheme, "first") == 0)
        *prepend = CAB_PREPEND_FIRST;
    else if (strcmp(scheme, "never") == 0)
        *prepend = CAB_PREPEND_NEVER;
    else
        return cab_fail(CAB_EUNSUPPORTED,
                        "%s: prepend_scheme \"%.80s\" is not supported; supported: always, first, never", owner,
                        scheme);
    return CAB_OK;
}

static cab_status read_metaspace(cab_splitters *splitters, const cab_json *json, json_object *object, const char *owner)
{
    const char *replacement = NULL;
    bool split = true;
    cab_splitter *step = NULL;
    CAB_TRY(cab_json_string_or(json, object, "replacement", CAB_METASPACE, &replacement));
    if (strcmp(replacement, CAB_METASPACE) != 0)
        return cab_fail(CAB_EUNSUPPORTED, "%s: replacement \"%.80s\" is not supported; supported: U+2581", owner,
                        replacement);
    CAB_TRY(add_step(splitters, json, CAB_SPLIT_METASPACE, &step));
    CAB_TRY(read_prepend(json, object, owner, &step->prepend));
    CAB_TRY(cab_json_bool_or(json, object, "split", true, &split));
    if (!split)
        return CAB_OK;
    CAB_TRY(add_step(splitters, json, CAB_SPLIT_PATTERN, &step));
    step->behavior = CAB_BEHAVIOR_MERGED_WITH_NEXT;
    return cab_pattern_literal(&step->pattern, CAB_METASPACE, CAB_METASPACE_SIZE, owner);
}

static cab_status read_digits(cab_splitters *splitters, const cab_json *json, json_object *object, const char *owner)
{
    bool individual = false;
    cab_splitter *step = NULL;
    CAB_TRY(cab_json_bool_or(json, object, "individual_digits", false, &individual));
    CAB_TRY(add_step(splitters, json, CAB_SPLIT_PATTERN, &step));
    step->behavior = individual ? CAB_BEHAVIOR_ISOLATED : CAB_BEHAVIOR_CONTIGUOUS;
    return cab_pattern_regex(&step->pattern, "\\p{N}", 5, owner);
}

static cab_status read_sequence(cab_splitters *splitters, const cab_json *json, json_object *object, int depth)
{
    json_object *items = NULL;
    if (depth == CAB_COMPONENT_DEPTH)
        return cab_fail(CAB_EUNSUPPORTED, "%s: pre_tokenizer: Sequences nested more than %d deep", json->name, depth);
    CAB_TRY(cab_json_array(json, object, "pretokenizers", &items));
    for (size_t i = 0; i < json_object_array_length(items); i++)
        CAB_TRY(cab_splitters_read(splitters, json, json_object_array_get_idx(items, i), depth + 1));
    return CAB_OK;
}

cab_status cab_splitters_read(cab_splitters *splitters, const cab_json *json, json_object *object, int depth)
{
    const char *type = NULL;
    char owner[512];
    if (object == NULL)
        return CAB_OK;
    CAB_TRY(cab_json_string(json, object, "type", &type));
    snprintf(owner, sizeof owner, "%s: pre_tokenizer %.80s", json->name, type);
    if (strcmp(type, "Sequence") == 0)
        return read_sequence(splitters, json, object, depth);
    if (splitters->byte_level) /* it would see GPT-2's alphabet instead of the text */
        return cab_fail(CAB_EUNSUPPORTED, "%s after ByteLevel is not supported; ByteLevel must come last", owner);
    if (strcmp(type, "ByteLevel") == 0)
        return read_byte_level(splitters, json, object, owner);
    if (strcmp(type, "Split") == 0)
        return read_split(splitters, json, object, owner);
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(splitters, json, object, owner);
    if (strcmp(type, "Digits") == 0)
        return read_digits(splitters, json, object, owner);
    return cab_fail(CAB_EUNSUPPORTED, "%s is not supported; supported: Sequence, ByteLevel, Split, Metaspace, Digits",
                    owner);
}

void cab_splitters_free(cab_splitters *splitters)
{
    for (int i = 0; i < splitters->count; i++)
        cab_pattern_free(&splitters->items[i].pattern);
    *splitters = (cab_splitters){0};
}

/* ---- splitting ------------------------------------------------------------------------------------------------------ */

typedef struct splitting {
    const cab_splitters *splitters;
    cab_matcher *matcher;
    cab_bytes *scratch;
    cab_word_sink sink;
    void *user;
} splitting;

/* A stretch of a step's text: a match of its pattern or what lies between matches. */
typedef struct span {
    size_t begin, end;
    bool match;
} span;

static cab_status run_step(const splitting *s, int step, const char *text, size_t size, bool first);

static cab_status pass_on(const splitting *s, int step, const char *text, const span *piece, bool first)
{
    if (piece->begin == piece->end)
        return CAB_OK;
    return run_step(s, step + 1, text + piece->begin, piece->end - piece->begin, first && piece->begin == 0);
}

/* Whether `next` joins the pending piece, whose last stretch was `previous`. At the start nothing is pending. */
static bool joins(cab_behavior behavior, const span *previous, const span *next)
{
    switch (behavior) {
    case CAB_BEHAVIOR_MERGED_WITH_PREVIOUS:
        return next->match && !previous->match;
    case CAB_BEHAVIOR_MERGED_WITH_NEXT:
        return previous->match && !next->match;
    case CAB_BEHAVIOR_CONTIGUOUS:
        return previous->match == next->match;
    default:
        return false;
    }
}

/* The piece that grows until a stretch comes that does not join it. */
typedef struct pending {
    span piece;
    span last;
    bool any;
} pending;

static cab_status add_span(const splitting *s, int step, const char *text, span next, pending *p, bool first)
{
    const cab_splitter *splitter = &s->splitters->items[step];
    if (splitter->invert)
        next.match = !next.match;
    if (p->any && joins(splitter->behavior, &p->last, &next)) {
        p->piece.end = next.end;
    } else {
        if (p->any)
            CAB_TRY(pass_on(s, step, text, &p->piece, first));
        p->piece = next;
        p->any = !(splitter->behavior == CAB_BEHAVIOR_REMOVED && next.match);
    }
    p->last = next;
    return CAB_OK;
}

static cab_status split_pattern(const splitting *s, int step, const char *text, size_t size, bool first)
{
    const cab_splitter *splitter = &s->splitters->items[step];
    cab_search search = CAB_SEARCH_START;
    pending p = {0};
    size_t done = 0;
    for (;;) {
        size_t begin = 0, end = 0;
        bool found = false;
        CAB_TRY(cab_pattern_next(&splitter->pattern, s->matcher, text, size, &search, &begin, &end, &found));
        if (!found)
            break;
        if (done < begin)
            CAB_TRY(add_span(s, step, text, (span){done, begin, false}, &p, first));
        CAB_TRY(add_span(s, step, text, (span){begin, end, true}, &p, first));
        done = end;
    }
    if (done < size)
        CAB_TRY(add_span(s, step, text, (span){done, size, false}, &p, first));
    return p.any ? pass_on(s, step, text, &p.piece, first) : CAB_OK;
}

static cab_status metaspace(const splitting *s, int step, const char *text, size_t size, bool first)
{
    const cab_splitter *splitter = &s->splitters->items[step];
    cab_bytes *out = &s->scratch[step];
    bool opens = text[0] == ' ' || (size >= CAB_METASPACE_SIZE && memcmp(text, CAB_METASPACE, CAB_METASPACE_SIZE) == 0);
    bool wanted = splitter->prepend == CAB_PREPEND_ALWAYS || (splitter->prepend == CAB_PREPEND_FIRST && first);
    out->count = 0;
    if (wanted && !opens)
        CAB_TRY(cab_bytes_append(out, CAB_METASPACE, CAB_METASPACE_SIZE));
    for (size_t i = 0; i < size;) {
        const char *space = memchr(text + i, ' ', size - i);
        size_t until = space == NULL ? size : (size_t)(space - text);
        CAB_TRY(cab_bytes_append(out, text + i, until - i));
        if (space != NULL)
            CAB_TRY(cab_bytes_append(out, CAB_METASPACE, CAB_METASPACE_SIZE));
        i = until + 1;
    }
    return run_step(s, step + 1, out->data, out->count, first);
}

static cab_status prefix_space(const splitting *s, int step, const char *text, size_t size, bool first)
{
    cab_bytes *out = &s->scratch[step];
    if (text[0] == ' ')
        return run_step(s, step + 1, text, size, first);
    out->count = 0;
    CAB_TRY(cab_bytes_append(out, " ", 1));
    CAB_TRY(cab_bytes_append(out, text, size));
    return run_step(s, step + 1, out->data, out->count, first);
}

/* text is not empty. */
static cab_status run_step(const splitting *s, int step, const char *text, size_t size, bool first)
{
    if (step == s->splitters->count)
        return s->sink(s->user, text, size);
    switch (s->splitters->items[step].kind) {
    case CAB_SPLIT_METASPACE:
        return metaspace(s, step, text, size, first);
    case CAB_SPLIT_PREFIX_SPACE:
        return prefix_space(s, step, text, size, first);
    default:
        return split_pattern(s, step, text, size, first);
    }
}

cab_status cab_splitters_apply(const cab_splitters *splitters, cab_matcher *matcher, cab_bytes *scratch,
                               const char *text, size_t size, bool first, cab_word_sink sink, void *user)
{
    splitting s = {splitters, matcher, scratch, sink, user};
    return size == 0 ? CAB_OK : run_step(&s, 0, text, size, first);
}
