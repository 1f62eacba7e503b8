/* tokenizer_gguf.c - from the metadata of a GGUF file to a tokenizer.json:
 *
 *   tokenizer.ggml.model gpt2    byte-level BPE: tokens, merges ("left right"); "pre" names the pattern that splits words
 *                        llama   BPE of SentencePiece: tokens and scores, bytes where nothing else fits
 *
 * SentencePiece joins the two neighbours whose joint piece has the highest score. Written as merges: every way to cut a piece into two
 * pieces, those of higher scores first. */
#include "data/tokenizer_gguf.h"

#include "base/memory.h"
#include "data/gguf_patterns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_MAX = 512 };

static const char byte_decoder[] =
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}";

/* What is read of a file. */
typedef struct source {
    const cab_json *metadata;
    json_object *tokens, *types, *scores, *merges; /* scores, merges: NULL where the model has none */
    int64_t unknown;                               /* -1: none */
    bool space_first;                              /* a space is put before the text */
} source;

static cab_status read_source(const cab_json *m, bool pieces, source *s)
{
    *s = (source){.metadata = m};
    CAB_TRY(cab_json_array(m, NULL, "tokenizer.ggml.tokens", &s->tokens));
    CAB_TRY(cab_json_array(m, NULL, "tokenizer.ggml.token_type", &s->types));
    CAB_TRY(cab_json_array(m, NULL, pieces ? "tokenizer.ggml.scores" : "tokenizer.ggml.merges",
                           pieces ? &s->scores : &s->merges));
    CAB_TRY(cab_json_int_or(m, NULL, "tokenizer.ggml.unknown_token_id", 0, INT32_MAX, -1, &s->unknown));
    CAB_TRY(cab_json_bool_or(m, NULL, "tokenizer.ggml.add_space_prefix", true, &s->space_first));
    const size_t n = json_object_array_length(s->tokens);
    if (json_object_array_length(s->types) != n || (pieces && json_object_array_length(s->scores) != n))
        return cab_fail(CAB_EFORMAT, "%s: %zu tokens, but another number of their types or scores", m->name, n);
    return CAB_OK;
}

static const char *token_at(const source *s, size_t i)
{
    return json_object_get_string(json_object_array_get_idx(s->tokens, i));
}

static int type_at(const source *s, size_t i)
{
    return json_object_get_int(json_object_array_get_idx(s->types, i));
}

/* ---- vocabulary ----------------------------------------------------------------------------------------------------- */

static json_object *make_vocabulary(const source *s)
{
    json_object *vocab = json_object_new_object();
    for (size_t i = 0; i < json_object_array_length(s->tokens); i++)
        if (token_at(s, i) != NULL && !json_object_object_get_ex(vocab, token_at(s, i), NULL))
            json_object_object_add(vocab, token_at(s, i), json_object_new_int64((int64_t)i));
    return vocab;
}

/* Tokens that are looked for in a text before anything else is done to it. */
static json_object *make_added(const source *s)
{
    static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized"};
    json_object *list = json_object_new_array();
    for (size_t i = 0; i < json_object_array_length(s->tokens); i++) {
        const int type = type_at(s, i);
        if ((type != CAB_TOKEN_UNKNOWN && type != CAB_TOKEN_CONTROL && type != CAB_TOKEN_USER_DEFINED) ||
            token_at(s, i) == NULL)
            continue;
        json_object *token = json_object_new_object();
        json_object_object_add(token, "id", json_object_new_int64((int64_t)i));
        json_object_object_add(token, "content", json_object_new_string(token_at(s, i)));
        for (size_t k = 0; k < sizeof flags / sizeof *flags; k++)
            json_object_object_add(token, flags[k], json_object_new_boolean(false));
        json_object_object_add(token, "special", json_object_new_boolean(type != CAB_TOKEN_USER_DEFINED));
        json_object_array_add(list, token);
    }
    return list;
}

/* ---- merges of pieces with scores ----------------------------------------------------------------------------------- */

/* A way to cut token `whole`: its first `left` bytes, and the rest. */
typedef struct cut {
    int32_t whole, first, second; /* ids */
    uint16_t left, right;         /* characters of either */
    double score;
} cut;

static int compare(double a, double b)
{
    return (a > b) - (a < b);
}

/* Those of higher scores first; of equal ones longer beginnings, longer ends, then as they were found. */
static int compare_cuts(const void *pa, const void *pb)
{
    const cut *a = pa, *b = pb;
    const double ranks[][2] = {{b->score, a->score}, {b->left, a->left},   {b->right, a->right},
                               {a->whole, b->whole}, {a->first, b->first}, {a->second, b->second}};
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++)
        if (ranks[i][0] != ranks[i][1])
            return compare(ranks[i][0], ranks[i][1]);
    return 0;
}

static bool starts_character(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

static bool find_id(json_object *vocab, const char *text, int32_t *id)
{
    json_object *value = NULL;
    if (!json_object_object_get_ex(vocab, text, &value))
        return false;
    *id = json_object_get_int(value);
    return true;
}

typedef struct cut_list {
    cut *items;
    size_t count, capacity;
} cut_list;

static cab_status cut_token(const source *s, json_object *vocab, size_t i, cut_list *list)
{
    const char *text = token_at(s, i);
    const size_t n = text != NULL ? strlen(text) : 0;
    char first[PIECE_MAX];
    cut found = {
        .whole = (int32_t)i, .left = 0, .score = json_object_get_double(json_object_array_get_idx(s->scores, i))};
    uint16_t characters = 0;
    if (n < 2 || n >= sizeof first)
        return CAB_OK;
    for (size_t at = 0; at < n; at++)
        characters = (uint16_t)(characters + starts_character(text[at]));
    for (size_t at = 1; at < n; at++) {
        first[at - 1] = text[at - 1];
        if (!starts_character(text[at]))
            continue;
        first[at] = '\0';
        found.left++;
        found.right = (uint16_t)(characters - found.left);
        if (!find_id(vocab, first, &found.first) || !find_id(vocab, text + at, &found.second))
            continue;
        CAB_TRY(CAB_GROW(&list->items, &list->capacity, list->count + 1, "merges"));
        list->items[list->count++] = found;
    }
    return CAB_OK;
}

static cab_status make_merges(const source *s, json_object *vocab, json_object **out)
{
    cut_list cuts = {0};
    cab_status status = CAB_OK;
    for (size_t i = 0; i < json_object_array_length(s->tokens); i++)
        CAB_GOTO(cut_token(s, vocab, i, &cuts));
    if (cuts.count > 0)
        qsort(cuts.items, cuts.count, sizeof *cuts.items, compare_cuts);
    *out = json_object_new_array_ext((int)cuts.count + 1);
    for (size_t i = 0; i < cuts.count; i++) {
        json_object *merge = json_object_new_array_ext(2);
        json_object_array_add(merge,
                              json_object_get(json_object_array_get_idx(s->tokens, (size_t)cuts.items[i].first)));
        json_object_array_add(merge,
                              json_object_get(json_object_array_get_idx(s->tokens, (size_t)cuts.items[i].second)));
        json_object_array_add(*out, merge);
    }
done:
    cab_free(cuts.items);
    return status;
}

/* ---- the two models ------------------------------------------------------------------------------------------------- */

static json_object *parsed(const char *text)
{
    return text != NULL ? json_tokener_parse(text) : NULL;
}

static cab_status byte_level(const cab_json *m, json_object *root)
{
    const char *pre = NULL;
    const cab_gguf_pattern *pattern = cab_gguf_patterns;
    char known[256];
    source s;
    CAB_TRY(read_source(m, false, &s));
    CAB_TRY(cab_json_string_or(m, NULL, "tokenizer.ggml.pre", "gpt-2", &pre));
    while (pattern->name != NULL && strcmp(pattern->name, pre) != 0)
        pattern++;
    if (pattern->name == NULL)
        return cab_fail(CAB_EUNSUPPORTED,
                        "%s: words are split by the pattern \"%.64s\" (tokenizer.ggml.pre); supported are %s", m->name,
                        pre, cab_gguf_pattern_names(known));
    json_object *model = json_object_new_object();
    json_object_object_add(root, "added_tokens", make_added(&s));
    json_object_object_add(root, "normalizer", parsed(pattern->normalizer));
    json_object_object_add(root, "pre_tokenizer", parsed(pattern->pre_tokenizer));
    json_object_object_add(root, "decoder", parsed(byte_decoder));
    json_object_object_add(root, "model", model);
    json_object_object_add(model, "type", json_object_new_string("BPE"));
    json_object_object_add(model, "ignore_merges", json_object_new_boolean(pattern->whole_words));
    json_object_object_add(model, "vocab", make_vocabulary(&s));
    json_object_object_add(model, "merges", json_object_get(s.merges));
    return CAB_OK;
}

static cab_status sentence_pieces(const cab_json *m, json_object *root)
{
    static const char *const normalizers[] = {
        "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\u2581\"}",
        "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"\u2581\"}, {\"type\": "
        "\"Replace\", "
        "\"pattern\": {\"String\": \" \"}, \"content\": \"\u2581\"}]}"};
    static const char *const decoders[] = {"{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", "
                                           "\"pattern\": {\"String\": \"\u2581\"}, \"content\": \" \"}, "
                                           "{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]}",
                                           "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", "
                                           "\"pattern\": {\"String\": \"\u2581\"}, \"content\": \" \"}, "
                                           "{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, {\"type\": \"Strip\", "
                                           "\"content\": \" \", \"start\": 1, \"stop\": 0}]}"};
    json_object *merges = NULL;
    source s;
    CAB_TRY(read_source(m, true, &s));
    json_object *model = json_object_new_object(), *vocab = make_vocabulary(&s);
    json_object_object_add(root, "added_tokens", make_added(&s));
    json_object_object_add(root, "normalizer", parsed(normalizers[s.space_first]));
    json_object_object_add(root, "pre_tokenizer", NULL);
    json_object_object_add(root, "decoder", parsed(decoders[s.space_first]));
    json_object_object_add(root, "model", model);
    json_object_object_add(model, "type", json_object_new_string("BPE"));
    json_object_object_add(model, "fuse_unk", json_object_new_boolean(true));
    json_object_object_add(model, "byte_fallback", json_object_new_boolean(true));
    json_object_object_add(model, "vocab", vocab);
    if (s.unknown >= 0 && (size_t)s.unknown < json_object_array_length(s.tokens))
        json_object_object_add(model, "unk_token", json_object_new_string(token_at(&s, (size_t)s.unknown)));
    CAB_TRY(make_merges(&s, vocab, &merges));
    json_object_object_add(model, "merges", merges);
    return CAB_OK;
}

cab_status cab_tokenizer_from_gguf(const cab_gguf *gguf, char **text, size_t *size)
{
    const cab_json *m = cab_gguf_metadata(gguf);
    const char *kind = NULL, *printed = NULL;
    cab_status status;
    CAB_TRY(cab_json_string(m, NULL, "tokenizer.ggml.model", &kind));
    json_object *root = json_object_new_object();
    json_object_object_add(root, "version", json_object_new_string("1.0"));
    if (strcmp(kind, "gpt2") == 0)
        status = byte_level(m, root);
    else if (strcmp(kind, "llama") == 0)
        status = sentence_pieces(m, root);
    else
        status = cab_fail(CAB_EUNSUPPORTED, "%s: the tokenizer is of the kind \"%.64s\"; supported are gpt2 and llama",
                          m->name, kind);
    if (status == CAB_OK) {
        printed =
            json_object_to_json_string_length(root, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, size);
        status = printed != NULL ? cab_strdup(text, printed)
                                 : cab_fail(CAB_ENOMEM, "%s: no memory for its tokenizer", m->name);
    }
    json_object_put(root);
    return status;
}
