/* tokenizer_to_gguf.c - from a tokenizer.json to the metadata of a GGUF file; tokenizer_gguf.c opens with them.
 *
 * llama.cpp has no merges for the tokens of SentencePiece: it joins two neighbours whenever their joint piece is a token, the piece of the
 * highest score first. That is the same if every way to cut a token into two is among the merges, those of one token behind one another;
 * then a token's score is minus the place of its first merge. */
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/gguf_patterns.h"
#include "data/text_bounds.h"
#include "data/tokenizer_gguf.h"
#include "data/tokenizer_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const size_t JSON_MAX = (size_t)256 << 20;
enum { PIECE_MAX = 512 };

/* What is written, by id. */
typedef struct vocabulary {
    const char **texts; /* of the document, or of `names` */
    int32_t *types;
    float *scores;
    size_t count;
    char *names; /* of ids that have no token */
} vocabulary;

enum { NAME_BYTES = 32 };

/* ---- components as text --------------------------------------------------------------------------------------------- */

/* A component in one form, whatever its file leaves out: "Digits 1; ByteLevel 0 1". */
static void describe(json_object *component, char *out, size_t size);

static const char *text_of(json_object *object, const char *key, const char *fallback)
{
    json_object *value = NULL;
    return json_object_object_get_ex(object, key, &value) && value != NULL ? json_object_get_string(value) : fallback;
}

static bool flag_of(json_object *object, const char *key, bool fallback)
{
    json_object *value = NULL;
    return json_object_object_get_ex(object, key, &value) && value != NULL ? json_object_get_boolean(value) : fallback;
}

static void describe_sequence(json_object *items, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < json_object_array_length(items) && used + 3 < size; i++) {
        used += (size_t)snprintf(out + used, size - used, "%s", i > 0 ? "; " : "");
        describe(json_object_array_get_idx(items, i), out + used, size - used);
        used += strlen(out + used);
    }
}

static void describe(json_object *component, char *out, size_t size)
{
    json_object *items = NULL, *pattern = NULL;
    const char *type = component == NULL ? "" : text_of(component, "type", "?");
    if (json_object_object_get_ex(component, "pretokenizers", &items) ||
        json_object_object_get_ex(component, "normalizers", &items)) {
        describe_sequence(items, out, size);
        return;
    }
    json_object_object_get_ex(component, "pattern", &pattern);
    if (strcmp(type, "Split") == 0)
        snprintf(out, size, "Split %s%s %s %d", text_of(pattern, "String", ""), text_of(pattern, "Regex", ""),
                 text_of(component, "behavior", "?"), flag_of(component, "invert", false));
    else if (strcmp(type, "Digits") == 0)
        snprintf(out, size, "Digits %d", flag_of(component, "individual_digits", false));
    else if (strcmp(type, "ByteLevel") == 0)
        snprintf(out, size, "ByteLevel %d %d", flag_of(component, "add_prefix_space", true),
                 flag_of(component, "use_regex", true));
    else if (strcmp(type, "Replace") == 0)
        snprintf(out, size, "Replace %s %s", text_of(pattern, "String", "?"), text_of(component, "content", "?"));
    else if (strcmp(type, "Prepend") == 0)
        snprintf(out, size, "Prepend %s", text_of(component, "prepend", "?"));
    else if (strcmp(type, "Metaspace") == 0)
        snprintf(
            out, size, "Metaspace %s %d",
            text_of(component, "prepend_scheme", flag_of(component, "add_prefix_space", true) ? "always" : "never"),
            flag_of(component, "split", true));
    else
        snprintf(out, size, "%s", type);
}

/* The part of that name of a tokenizer.json, described. */
static void describe_part(const cab_json *json, const char *key, char *out, size_t size)
{
    json_object *part = NULL;
    json_object_object_get_ex(json->root, key, &part);
    describe(part, out, size);
}

/* ---- vocabulary ----------------------------------------------------------------------------------------------------- */

static cab_status new_vocabulary(size_t count, vocabulary *v)
{
    v->count = count;
    CAB_TRY(CAB_NEW(&v->texts, count, "a vocabulary"));
    CAB_TRY(CAB_NEW(&v->types, count, "a vocabulary"));
    CAB_TRY(CAB_NEW(&v->scores, count, "a vocabulary"));
    return CAB_NEW(&v->names, count * NAME_BYTES, "a vocabulary");
}

static void free_vocabulary(vocabulary *v)
{
    cab_free(v->texts);
    cab_free(v->types);
    cab_free(v->scores);
    cab_free(v->names);
}

static void add_token(vocabulary *v, int64_t id, const char *text, int32_t type)
{
    if (id < 0 || (size_t)id >= v->count)
        return; /* beyond the model's rows: it cannot occur */
    v->texts[id] = text;
    v->types[id] = type;
}

static bool is_byte(const char *text)
{
    unsigned byte;
    int end = 0;
    return strlen(text) == 6 && sscanf(text, "<0x%2X>%n", &byte, &end) == 1 && end == 6;
}

static void fill_gaps(vocabulary *v)
{
    for (size_t i = 0; i < v->count; i++)
        if (v->texts[i] == NULL) {
            char *name = v->names + i * NAME_BYTES;
            snprintf(name, NAME_BYTES, "[PAD%zu]", i);
            add_token(v, (int64_t)i, name, CAB_TOKEN_UNUSED);
        }
}

/* bytes: "<0x41>" is a byte. The parsed tokenizer has seen that all is of the right type. */
static cab_status collect(const cab_json *json, json_object *model, bool bytes, vocabulary *v)
{
    json_object *vocab = NULL, *added = NULL;
    CAB_TRY(cab_json_object(json, model, "vocab", &vocab));
    json_object_object_foreach(vocab, text, id)
    {
        add_token(v, json_object_get_int64(id), text, bytes && is_byte(text) ? CAB_TOKEN_BYTE : CAB_TOKEN_NORMAL);
    }
    if (!json_object_object_get_ex(json->root, "added_tokens", &added))
        added = NULL;
    for (size_t i = 0; added != NULL && i < json_object_array_length(added); i++) {
        json_object *token = json_object_array_get_idx(added, i), *number = NULL;
        const char *content = text_of(token, "content", "");
        if (!json_object_object_get_ex(vocab, content, &number))
            json_object_object_get_ex(token, "id", &number);
        add_token(v, json_object_get_int64(number), content,
                  flag_of(token, "special", false) ? CAB_TOKEN_CONTROL : CAB_TOKEN_USER_DEFINED);
        if (flag_of(token, "lstrip", false) || flag_of(token, "rstrip", false))
            cab_log_warn("%s: token \"%.40s\" takes the spaces beside it, which a GGUF file cannot say", json->name,
                         content);
    }
    fill_gaps(v);
    return CAB_OK;
}

/* ---- byte-level BPE ------------------------------------------------------------------------------------------------- */

/* The merges as "left right". */
static cab_status write_merges(const cab_json *json, json_object *merges, cab_gguf_writer *out)
{
    const size_t count = json_object_array_length(merges);
    const char **texts = NULL;
    size_t *begins = NULL;
    cab_bytes joined = {0};
    cab_status status;
    CAB_GOTO(CAB_NEW(&texts, count, "merges"));
    CAB_GOTO(CAB_NEW(&begins, count, "merges"));
    for (size_t i = 0; i < count; i++) {
        json_object *merge = json_object_array_get_idx(merges, i);
        if (json_object_is_type(merge, json_type_string)) {
            texts[i] = json_object_get_string(merge);
            continue;
        }
        const char *left = json_object_get_string(json_object_array_get_idx(merge, 0));
        const char *right = json_object_get_string(json_object_array_get_idx(merge, 1));
        if (strchr(left, ' ') != NULL || strchr(right, ' ') != NULL) {
            status = cab_fail(CAB_EUNSUPPORTED, "%s: merge %zu has a space in it, which a GGUF file cannot say",
                              json->name, i);
            goto done;
        }
        begins[i] = joined.count;
        CAB_GOTO(cab_bytes_append(&joined, left, strlen(left)));
        CAB_GOTO(cab_bytes_append(&joined, " ", 1));
        CAB_GOTO(cab_bytes_append(&joined, right, strlen(right) + 1));
    }
    for (size_t i = 0; i < count; i++)
        texts[i] = texts[i] != NULL ? texts[i] : joined.data + begins[i];
    status = cab_gguf_writer_texts(out, "tokenizer.ggml.merges", texts, count);
done:
    cab_bytes_free(&joined);
    cab_free(begins);
    cab_free(texts);
    return status;
}

/* The name of the way in which words are split. */
static cab_status find_pattern(const cab_json *json, json_object *model, const cab_gguf_pattern **out)
{
    char steps[1024], normalizer[256], known[256], candidate[1024];
    const bool whole_words = flag_of(model, "ignore_merges", false);
    describe_part(json, "pre_tokenizer", steps, sizeof steps);
    describe_part(json, "normalizer", normalizer, sizeof normalizer);
    const bool composes = strcmp(normalizer, "NFC") == 0;
    for (int strict = 1; strict >= 0 && (composes || normalizer[0] == '\0'); strict--)
        for (const cab_gguf_pattern *p = cab_gguf_patterns; p->name != NULL; p++) {
            json_object *parsed = json_tokener_parse(p->pre_tokenizer);
            describe(parsed, candidate, sizeof candidate);
            json_object_put(parsed);
            if (strcmp(candidate, steps) != 0 || p->whole_words != whole_words ||
                (strict && composes != (p->normalizer != NULL)) || (!strict && !composes))
                continue;
            if (composes)
                cab_log_warn(
                    "%s: llama.cpp does not compose characters (NFC): text that is not composed gets other ids",
                    json->name);
            *out = p;
            return CAB_OK;
        }
    return cab_fail(CAB_EUNSUPPORTED,
                    "%s: words are split by \"%.200s\"%s, normalizer \"%.80s\": no way that has a name in GGUF files; "
                    "known are %s",
                    json->name, steps, whole_words ? " and whole words are tokens" : "", normalizer,
                    cab_gguf_pattern_names(known));
}

static cab_status write_byte_level(const cab_json *json, json_object *model, vocabulary *v, cab_gguf_writer *out)
{
    const cab_gguf_pattern *pattern = NULL;
    json_object *merges = NULL;
    CAB_TRY(find_pattern(json, model, &pattern));
    CAB_TRY(cab_json_array(json, model, "merges", &merges));
    CAB_TRY(collect(json, model, false, v));
    CAB_TRY(cab_gguf_writer_text(out, "tokenizer.ggml.model", "gpt2"));
    CAB_TRY(cab_gguf_writer_text(out, "tokenizer.ggml.pre", pattern->name));
    CAB_TRY(cab_gguf_writer_texts(out, "tokenizer.ggml.tokens", v->texts, v->count));
    CAB_TRY(cab_gguf_writer_i32s(out, "tokenizer.ggml.token_type", v->types, v->count));
    return write_merges(json, merges, out);
}

/* ---- pieces of SentencePiece ---------------------------------------------------------------------------------------- */

#define MARK CAB_METASPACE

/* Whether a space is put before the text, or a refusal. */
static cab_status find_spaces(const cab_json *json, bool *first)
{
    static const struct {
        const char *normalizer, *pre_tokenizer;
        bool first;
    } known[] = {{"Prepend " MARK "; Replace   " MARK, "", true},
                 {"Replace   " MARK, "", false},
                 {"Replace   " MARK, "Split   MergedWithPrevious 0", false},
                 {"", "Metaspace always 0", true},
                 {"", "Metaspace first 0", true},
                 {"", "Metaspace never 0", false}};
    char normalizer[256], steps[256];
    describe_part(json, "normalizer", normalizer, sizeof normalizer);
    describe_part(json, "pre_tokenizer", steps, sizeof steps);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].normalizer, normalizer) == 0 && strcmp(known[i].pre_tokenizer, steps) == 0) {
            *first = known[i].first;
            return CAB_OK;
        }
    return cab_fail(
        CAB_EUNSUPPORTED,
        "%s: normalizer \"%.80s\" and pre_tokenizer \"%.80s\" of a tokenizer with pieces cannot be said in a "
        "GGUF file",
        json->name, normalizer, steps);
}

/* In how many ways a token can be cut into two tokens. */
static size_t count_cuts(json_object *vocab, const char *text)
{
    char first[PIECE_MAX];
    const size_t n = strlen(text);
    size_t cuts = 0;
    for (size_t at = 1; n < sizeof first && at < n; at++) {
        first[at - 1] = text[at - 1];
        first[at] = '\0';
        if (((unsigned char)text[at] & 0xc0) != 0x80)
            cuts += json_object_object_get_ex(vocab, first, NULL) && json_object_object_get_ex(vocab, text + at, NULL);
    }
    return cuts;
}

/* The id of what a merge makes; the parsed tokenizer has seen that there is one. */
static int64_t merged_id(json_object *vocab, json_object *merge)
{
    char whole[2 * PIECE_MAX] = "";
    json_object *id = NULL;
    const char *text = json_object_get_string(merge), *space;
    if (json_object_is_type(merge, json_type_array))
        snprintf(whole, sizeof whole, "%s%s", json_object_get_string(json_object_array_get_idx(merge, 0)),
                 json_object_get_string(json_object_array_get_idx(merge, 1)));
    else if ((space = strchr(text, ' ')) != NULL)
        snprintf(whole, sizeof whole, "%.*s%s", (int)(space - text), text, space + 1);
    return json_object_object_get_ex(vocab, whole, &id) ? json_object_get_int64(id) : -1;
}

static cab_status score_pieces(const cab_json *json, json_object *model, vocabulary *v)
{
    json_object *vocab = NULL, *merges = NULL;
    size_t cuts = 0;
    int64_t last = -1;
    CAB_TRY(cab_json_object(json, model, "vocab", &vocab));
    CAB_TRY(cab_json_array(json, model, "merges", &merges));
    const size_t count = json_object_array_length(merges);
    for (size_t i = 0; i < count; i++) {
        const int64_t id = merged_id(vocab, json_object_array_get_idx(merges, i));
        const bool seen = id >= 0 && (size_t)id < v->count && v->scores[id] != 0;
        if (id < 0 || (size_t)id >= v->count || (seen && id != last))
            return cab_fail(CAB_EUNSUPPORTED,
                            "%s: merge %zu stands apart from the others of its token: these are not the merges of "
                            "SentencePiece, and llama.cpp would split words otherwise",
                            json->name, i);
        if (!seen)
            v->scores[id] = -(float)(i + 1);
        last = id;
    }
    json_object_object_foreach(vocab, text, unused)
    {
        (void)unused;
        cuts += count_cuts(vocab, text);
    }
    if (cuts != count)
        return cab_fail(CAB_EUNSUPPORTED,
                        "%s: %zu merges, but tokens can be cut in %zu ways: these are not the merges of SentencePiece, "
                        "and llama.cpp would split words otherwise",
                        json->name, count, cuts);
    return CAB_OK;
}

static cab_status check_bytes(const cab_json *json, json_object *model, const vocabulary *v)
{
    size_t bytes = 0;
    for (size_t i = 0; i < v->count; i++)
        bytes += v->types[i] == CAB_TOKEN_BYTE;
    if (bytes == 256 && flag_of(model, "byte_fallback", false))
        return CAB_OK;
    return cab_fail(CAB_EUNSUPPORTED, "%s: %zu tokens for bytes%s; llama.cpp needs all 256 in a tokenizer with pieces",
                    json->name, bytes, flag_of(model, "byte_fallback", false) ? "" : ", byte_fallback off");
}

static cab_status write_pieces(const cab_json *json, json_object *model, vocabulary *v, cab_gguf_writer *out)
{
    const char *unknown = text_of(model, "unk_token", NULL);
    bool space_first = false;
    size_t id = 0;
    CAB_TRY(find_spaces(json, &space_first));
    CAB_TRY(collect(json, model, true, v));
    CAB_TRY(check_bytes(json, model, v));
    CAB_TRY(score_pieces(json, model, v));
    while (unknown != NULL && id < v->count && strcmp(v->texts[id], unknown) != 0)
        id++;
    if (unknown != NULL && id < v->count) {
        v->types[id] = CAB_TOKEN_UNKNOWN;
        CAB_TRY(cab_gguf_writer_u32(out, "tokenizer.ggml.unknown_token_id", (uint32_t)id));
    }
    CAB_TRY(cab_gguf_writer_text(out, "tokenizer.ggml.model", "llama"));
    CAB_TRY(cab_gguf_writer_text(out, "tokenizer.ggml.pre", "default"));
    CAB_TRY(cab_gguf_writer_bool(out, "tokenizer.ggml.add_space_prefix", space_first));
    CAB_TRY(cab_gguf_writer_texts(out, "tokenizer.ggml.tokens", v->texts, v->count));
    CAB_TRY(cab_gguf_writer_f32s(out, "tokenizer.ggml.scores", v->scores, v->count));
    return cab_gguf_writer_i32s(out, "tokenizer.ggml.token_type", v->types, v->count);
}

/* ---- beginnings, ends, chats ---------------------------------------------------------------------------------------- */

static cab_status write_bounds(const cab_json *json, const cab_json *config, const cab_text_bounds *bounds,
                               cab_gguf_writer *out)
{
    json_object *processor = NULL;
    bool first, last;
    json_object_object_get_ex(json->root, "post_processor", &processor);
    CAB_TRY(cab_json_bool_or(config, NULL, "add_bos_token", cab_text_bounds_puts(processor, false), &first));
    CAB_TRY(cab_json_bool_or(config, NULL, "add_eos_token", cab_text_bounds_puts(processor, true), &last));
    if (bounds->start >= 0)
        CAB_TRY(cab_gguf_writer_u32(out, "tokenizer.ggml.bos_token_id", (uint32_t)bounds->start));
    if (bounds->ends_count > 0)
        CAB_TRY(cab_gguf_writer_u32(out, "tokenizer.ggml.eos_token_id", (uint32_t)bounds->ends[0]));
    else
        cab_log_warn("%s: no token ends a text; llama.cpp takes one by its number", json->name);
    if (bounds->ends_count > 1)
        CAB_TRY(cab_gguf_writer_u32(out, "tokenizer.ggml.eot_token_id", (uint32_t)bounds->ends[1]));
    CAB_TRY(cab_gguf_writer_bool(out, "tokenizer.ggml.add_bos_token", first));
    return cab_gguf_writer_bool(out, "tokenizer.ggml.add_eos_token", last);
}

/* "chat_template" of tokenizer_config.json: a text, or a list of them by name. */
static const char *find_template(const cab_json *config)
{
    json_object *value = NULL;
    if (!json_object_object_get_ex(config->root, "chat_template", &value))
        return NULL;
    if (json_object_is_type(value, json_type_string))
        return json_object_get_string(value);
    for (size_t i = 0; json_object_is_type(value, json_type_array) && i < json_object_array_length(value); i++) {
        json_object *one = json_object_array_get_idx(value, i);
        if (strcmp(text_of(one, "name", ""), "default") == 0)
            return text_of(one, "template", NULL);
    }
    return NULL;
}

static cab_status write_template(const char *directory, const cab_json *config, cab_gguf_writer *out)
{
    char path[CAB_PATH_MAX], *text = NULL;
    const char *found = find_template(config);
    size_t size = 0;
    CAB_TRY(cab_path_join(path, directory, "chat_template.jinja"));
    if (cab_path_exists(path))
        CAB_TRY(cab_file_read_text(path, JSON_MAX, &text, &size));
    const char *chosen = text != NULL ? text : found;
    const cab_status status = chosen == NULL ? CAB_OK : cab_gguf_writer_text(out, "tokenizer.chat_template", chosen);
    cab_free(text);
    return status;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------ */

/* What the parsed tokenizer says. It is not needed beside the document, and both are large. */
typedef struct summary {
    bool byte_level;
    cab_text_bounds bounds;
} summary;

static cab_status summarise(const char *directory, const char *path, int64_t vocab_size, summary *s)
{
    cab_tokenizer *tokenizer = NULL;
    cab_status status;
    CAB_TRY(cab_tokenizer_load(path, &tokenizer));
    s->byte_level = tokenizer->splitters.byte_level;
    CAB_GOTO(cab_tokenizer_check_vocab(tokenizer, vocab_size, "the model"));
    status = cab_text_bounds_load(directory, tokenizer, vocab_size, &s->bounds);
done:
    cab_tokenizer_free(tokenizer);
    return status;
}

static cab_status write_document(const cab_json *json, const summary *s, int64_t vocab_size, cab_gguf_writer *out)
{
    json_object *model = NULL;
    vocabulary v = {0};
    cab_status status;
    CAB_GOTO(cab_json_object(json, NULL, "model", &model));
    CAB_GOTO(new_vocabulary((size_t)vocab_size, &v));
    status = s->byte_level ? write_byte_level(json, model, &v, out) : write_pieces(json, model, &v, out);
done:
    free_vocabulary(&v);
    return status;
}

static cab_status load_document(const char *path, cab_json *json)
{
    char *text = NULL;
    size_t size = 0;
    CAB_TRY(cab_file_read_text(path, JSON_MAX, &text, &size));
    cab_merges_shorten(text, size);
    const cab_status status = cab_json_parse(text, size, path, json);
    cab_free(text);
    return status;
}

static cab_status from_directory(const char *directory, int64_t vocab_size, cab_gguf_writer *out)
{
    char path[CAB_PATH_MAX], config_path[CAB_PATH_MAX];
    cab_json json = {0}, config = {0};
    summary s = {0};
    cab_status status;
    CAB_TRY(cab_path_join(path, directory, "tokenizer.json"));
    CAB_TRY(cab_path_join(config_path, directory, "tokenizer_config.json"));
    CAB_TRY(summarise(directory, path, vocab_size, &s));
    CAB_GOTO(load_document(path, &json));
    if (cab_path_exists(config_path))
        CAB_GOTO(cab_json_load(config_path, JSON_MAX, &config));
    else
        CAB_GOTO(cab_json_parse("{}", 2, config_path, &config));
    CAB_GOTO(write_document(&json, &s, vocab_size, out));
    CAB_GOTO(write_bounds(&json, &config, &s.bounds, out));
    status = write_template(directory, &config, out);
done:
    cab_json_close(&config);
    cab_json_close(&json);
    return status;
}

cab_status cab_tokenizer_copy_gguf(const cab_gguf *gguf, int64_t vocab_size, cab_gguf_writer *out)
{
    const cab_json *metadata = cab_gguf_metadata(gguf);
    json_object *tokens = NULL;
    if (json_object_object_get_ex(metadata->root, "tokenizer.ggml.tokens", &tokens))
        CAB_TRY(cab_json_array(metadata, NULL, "tokenizer.ggml.tokens", &tokens));
    if (tokens != NULL && json_object_array_length(tokens) != (size_t)vocab_size)
        return cab_fail(CAB_ESHAPE, "%s: %zu tokens, but the model has a vocabulary of %" PRId64, metadata->name,
                        json_object_array_length(tokens), vocab_size);
    json_object_object_foreach(metadata->root, key, value)
    {
        if (strncmp(key, "tokenizer.", 10) == 0)
            CAB_TRY(cab_gguf_writer_json(out, key, value));
    }
    return CAB_OK;
}

cab_status cab_tokenizer_to_gguf(const char *model, int64_t vocab_size, cab_gguf_writer *out)
{
    cab_gguf *gguf = NULL;
    if (!cab_gguf_named(model) || cab_path_is_directory(model))
        return from_directory(model, vocab_size, out);
    CAB_TRY(cab_gguf_open(model, &gguf));
    const cab_status status = cab_tokenizer_copy_gguf(gguf, vocab_size, out);
    cab_gguf_close(gguf);
    return status;
}
