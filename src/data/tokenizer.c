/* tokenizer.c - reads a Hugging Face tokenizer.json:
 *
 *   { "added_tokens": [{"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}],
 *     "normalizer", "pre_tokenizer", "decoder": a component each, or null,
 *     "model": {"type": "BPE", "vocab": {token: id}, "merges": [["a", "b"] or "a b"], "unk_token", "fuse_unk",
 *               "byte_fallback", "ignore_merges", ...} }
 *
 * "post_processor", "truncation" and "padding" do not concern us: nothing is added around a text. */
#include "data/tokenizer.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/tokenizer_gguf.h"
#include "data/tokenizer_internal.h"
#include "data/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const size_t FILE_MAX = (size_t)256 << 20;

/* One more than the largest id anywhere in the file. */
static cab_status load_vocab_size(const cab_json *json, json_object *vocab, json_object *added, int32_t *size)
{
    int64_t top = -1;
    json_object_object_foreach(vocab, key, value)
    {
        int64_t id = json_object_get_int64(value);
        if (!json_object_is_type(value, json_type_int) || id < 0 || id >= CAB_TOKEN_ID_LIMIT)
            return cab_fail(CAB_EFORMAT, "%s: the id of token \"%.80s\" is %.40s, expected 0 to %d", json->name, key,
                            json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN), CAB_TOKEN_ID_LIMIT - 1);
        top = id > top ? id : top;
    }
    for (size_t i = 0; added != NULL && i < json_object_array_length(added); i++) {
        int64_t id = 0;
        CAB_TRY(cab_json_int(json, json_object_array_get_idx(added, i), "id", 0, CAB_TOKEN_ID_LIMIT - 1, &id));
        top = id > top ? id : top;
    }
    if (top < 0)
        return cab_fail(CAB_EFORMAT, "%s: the vocabulary is empty", json->name);
    *size = (int32_t)top + 1;
    return CAB_OK;
}

static cab_status load_vocab(cab_tokenizer *t, const cab_json *json, json_object *model, json_object *added)
{
    json_object *vocab = NULL;
    int32_t size = 0;
    CAB_TRY(cab_json_object(json, model, "vocab", &vocab));
    CAB_TRY(load_vocab_size(json, vocab, added, &size));
    uint64_t strings = (uint64_t)json_object_object_length(vocab) + (added ? json_object_array_length(added) : 0);
    CAB_TRY(cab_vocab_init(&t->vocab, size, strings));
    json_object_object_foreach(vocab, key, value)
        CAB_TRY(cab_vocab_add(&t->vocab, key, strlen(key), (int32_t)json_object_get_int64(value)));
    return CAB_OK;
}

/* ---- merges --------------------------------------------------------------------------------------------------------- */

typedef struct merge_texts {
    const char *left, *right;
    size_t left_size, right_size;
} merge_texts;

static bool split_merge(json_object *merge, merge_texts *out)
{
    if (json_object_is_type(merge, json_type_string)) {
        size_t size = (size_t)json_object_get_string_len(merge);
        out->left = json_object_get_string(merge);
        const char *space = memchr(out->left, ' ', size);
        if (space == NULL)
            return false;
        out->left_size = (size_t)(space - out->left);
        out->right = space + 1;
        out->right_size = size - out->left_size - 1;
        return memchr(out->right, ' ', out->right_size) == NULL;
    }
    if (!json_object_is_type(merge, json_type_array) || json_object_array_length(merge) != 2)
        return false;
    json_object *left = json_object_array_get_idx(merge, 0), *right = json_object_array_get_idx(merge, 1);
    if (!json_object_is_type(left, json_type_string) || !json_object_is_type(right, json_type_string))
        return false;
    *out = (merge_texts){json_object_get_string(left), json_object_get_string(right),
                         (size_t)json_object_get_string_len(left), (size_t)json_object_get_string_len(right)};
    return true;
}

static bool ends_with_metaspace(const char *text, size_t size)
{
    return size >= CAB_METASPACE_SIZE &&
           memcmp(text + size - CAB_METASPACE_SIZE, CAB_METASPACE, CAB_METASPACE_SIZE) == 0;
}

static cab_status load_merge(cab_tokenizer *t, const cab_json *json, json_object *merge, uint32_t rank,
                             cab_bytes *joined)
{
    merge_texts m;
    if (!split_merge(merge, &m))
        return cab_fail(CAB_EFORMAT, "%s: merge %" PRIu32 " is %.80s, expected [\"a\", \"b\"] or \"a b\"", json->name,
                        rank, json_object_to_json_string_ext(merge, JSON_C_TO_STRING_PLAIN));
    joined->count = 0;
    CAB_TRY(cab_bytes_append(joined, m.left, m.left_size));
    CAB_TRY(cab_bytes_append(joined, m.right, m.right_size));
    int32_t left = cab_vocab_find(&t->vocab, m.left, m.left_size);
    int32_t right = cab_vocab_find(&t->vocab, m.right, m.right_size);
    int32_t id = cab_vocab_find(&t->vocab, joined->data, joined->count);
    if (left < 0 || right < 0 || id < 0)
        return cab_fail(CAB_EFORMAT, "%s: merge %" PRIu32 ": \"%.*s\" is not in the vocabulary", json->name, rank,
                        left < 0    ? (int)m.left_size
                        : right < 0 ? (int)m.right_size
                                    : (int)joined->count,
                        left < 0    ? m.left
                        : right < 0 ? m.right
                                    : joined->data);
    cab_merges_add(&t->bpe.merges, left, right, rank, id);
    if (m.right_size >= CAB_METASPACE_SIZE && memcmp(m.right, CAB_METASPACE, CAB_METASPACE_SIZE) == 0 &&
        !ends_with_metaspace(m.left, m.left_size))
        t->bpe.cut_at_metaspace = false;
    return CAB_OK;
}

static cab_status load_merges(cab_tokenizer *t, const cab_json *json, json_object *model)
{
    cab_status status = CAB_OK;
    json_object *merges = NULL;
    cab_bytes joined = {0};
    CAB_TRY(cab_json_array(json, model, "merges", &merges));
    size_t count = json_object_array_length(merges);
    CAB_TRY(cab_merges_init(&t->bpe.merges, count));
    t->bpe.cut_at_metaspace = !t->bpe.byte_level && !t->bpe.ignore_merges &&
                              cab_vocab_find(&t->vocab, CAB_METASPACE, CAB_METASPACE_SIZE) >= 0;
    for (size_t i = 0; i < count; i++)
        CAB_GOTO(load_merge(t, json, json_object_array_get_idx(merges, i), (uint32_t)i, &joined));
done:
    cab_bytes_free(&joined);
    return status;
}

/* ---- model ---------------------------------------------------------------------------------------------------------- */

static void find_byte_ids(cab_tokenizer *t)
{
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        unsigned size = t->bpe.byte_level ? cab_utf8_encode(cab_byte_level_char((uint8_t)byte), text)
                                          : (unsigned)snprintf(text, sizeof text, "<0x%02X>", (unsigned)byte);
        t->bpe.byte_ids[byte] = cab_vocab_find(&t->vocab, text, size);
    }
}

/* Options of BPE that other families use. */
static cab_status check_model(const cab_json *json, json_object *model)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *type = NULL, *affix = NULL;
    double dropout = 0;
    CAB_TRY(cab_json_string_or(json, model, "type", "BPE", &type));
    if (strcmp(type, "BPE") != 0)
        return cab_fail(CAB_EUNSUPPORTED, "%s: model \"%.80s\" is not supported; supported: BPE", json->name, type);
    for (size_t i = 0; i < sizeof affixes / sizeof *affixes; i++) {
        CAB_TRY(cab_json_string_or(json, model, affixes[i], "", &affix));
        if (affix[0] != '\0')
            return cab_fail(CAB_EUNSUPPORTED, "%s: model BPE: %s \"%.80s\" is not supported, only none", json->name,
                            affixes[i], affix);
    }
    CAB_TRY(cab_json_number_or(json, model, "dropout", 0, &dropout));
    if (dropout != 0)
        return cab_fail(CAB_EUNSUPPORTED, "%s: model BPE: dropout %g is not supported, only none", json->name, dropout);
    return CAB_OK;
}

static cab_status load_model(cab_tokenizer *t, const cab_json *json, json_object *added)
{
    json_object *model = NULL;
    const char *unk = NULL;
    CAB_TRY(cab_json_object(json, NULL, "model", &model));
    CAB_TRY(check_model(json, model));
    CAB_TRY(load_vocab(t, json, model, added));
    CAB_TRY(cab_json_bool_or(json, model, "byte_fallback", false, &t->bpe.byte_fallback));
    CAB_TRY(cab_json_bool_or(json, model, "fuse_unk", false, &t->bpe.fuse_unk));
    CAB_TRY(cab_json_bool_or(json, model, "ignore_merges", false, &t->bpe.ignore_merges));
    CAB_TRY(cab_json_string_or(json, model, "unk_token", NULL, &unk));
    t->bpe.unk = unk == NULL ? -1 : cab_vocab_find(&t->vocab, unk, strlen(unk));
    if (unk != NULL && t->bpe.unk < 0)
        return cab_fail(CAB_EFORMAT, "%s: unk_token \"%.80s\" is not in the vocabulary", json->name, unk);
    t->bpe.byte_level = t->splitters.byte_level;
    find_byte_ids(t);
    return load_merges(t, json, model);
}

/* ---- added tokens --------------------------------------------------------------------------------------------------- */

static cab_status load_added_token(cab_tokenizer *t, const cab_json *json, json_object *object, cab_matcher *matcher,
                                   cab_bytes *text, cab_bytes *spare)
{
    cab_added added = {0};
    const char *content = NULL;
    int64_t id = 0;
    bool special = false, normalized = false;
    CAB_TRY(cab_json_int(json, object, "id", 0, CAB_TOKEN_ID_LIMIT - 1, &id));
    CAB_TRY(cab_json_string(json, object, "content", &content));
    CAB_TRY(cab_json_bool_or(json, object, "special", false, &special));
    CAB_TRY(cab_json_bool_or(json, object, "normalized", !special, &normalized));
    CAB_TRY(cab_json_bool_or(json, object, "single_word", false, &added.single_word));
    CAB_TRY(cab_json_bool_or(json, object, "lstrip", false, &added.lstrip));
    CAB_TRY(cab_json_bool_or(json, object, "rstrip", false, &added.rstrip));
    size_t size = strlen(content);
    if (size == 0)
        return CAB_OK;
    added.id = cab_vocab_find(&t->vocab, content, size); /* the model's id for it wins, as in the reference */
    if (added.id < 0) {
        added.id = (int32_t)id;
        CAB_TRY(cab_vocab_add(&t->vocab, content, size, added.id));
        t->vocab.tokens[added.id].added = true;
    }
    t->vocab.tokens[added.id].special = special;
    if (!normalized)
        return cab_trie_add(&t->raw, content, size, &added);
    text->count = 0;
    CAB_TRY(cab_bytes_append(text, content, size));
    CAB_TRY(cab_normalize(&t->normalizers, matcher, text, spare));
    return cab_trie_add(&t->normalized, text->data, text->count, &added);
}

static cab_status load_added(cab_tokenizer *t, const cab_json *json, json_object *tokens)
{
    cab_status status = CAB_OK;
    cab_matcher matcher = {0};
    cab_bytes text = {0}, spare = {0};
    uint64_t bytes = 0, count = tokens == NULL ? 0 : json_object_array_length(tokens);
    for (size_t i = 0; i < count; i++) {
        const char *content = NULL;
        CAB_GOTO(cab_json_string(json, json_object_array_get_idx(tokens, i), "content", &content));
        text.count = 0;
        CAB_GOTO(cab_bytes_append(&text, content, strlen(content)));
        if (matcher.data == NULL)
            CAB_GOTO(cab_matcher_init(&matcher, json->name));
        CAB_GOTO(cab_normalize(&t->normalizers, &matcher, &text, &spare));
        bytes += strlen(content) + text.count;
    }
    CAB_GOTO(cab_trie_init(&t->raw, bytes));
    CAB_GOTO(cab_trie_init(&t->normalized, bytes));
    for (size_t i = 0; i < count; i++)
        CAB_GOTO(load_added_token(t, json, json_object_array_get_idx(tokens, i), &matcher, &text, &spare));
done:
    cab_matcher_free(&matcher);
    cab_bytes_free(&text);
    cab_bytes_free(&spare);
    return status;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------ */

static cab_status load_parts(cab_tokenizer *t, const cab_json *json)
{
    json_object *part = NULL, *added = NULL;
    if (json_object_object_get_ex(json->root, "added_tokens", &part) && part != NULL)
        CAB_TRY(cab_json_array(json, NULL, "added_tokens", &added));
    part = NULL;
    json_object_object_get_ex(json->root, "normalizer", &part);
    CAB_TRY(cab_normalizers_read(&t->normalizers, json, part, 0));
    part = NULL;
    json_object_object_get_ex(json->root, "pre_tokenizer", &part);
    CAB_TRY(cab_splitters_read(&t->splitters, json, part, 0));
    part = NULL;
    json_object_object_get_ex(json->root, "decoder", &part);
    CAB_TRY(cab_decode_read(&t->decode, json, part, 0));
    CAB_TRY(load_model(t, json, added));
    CAB_TRY(load_added(t, json, added));
    return cab_decode_build(&t->decode, &t->vocab);
}

/* The text is changed on the way. */
static cab_status parse_owned(char *text, size_t size, const char *name, cab_tokenizer **out)
{
    cab_status status = CAB_OK;
    cab_tokenizer *t = NULL;
    cab_json json = {0};
    size_t valid = cab_utf8_valid(text, size); /* what follows relies on it */
    *out = NULL;
    if (valid < size)
        return cab_fail(CAB_EFORMAT, "%s: not UTF-8 at byte %zu", name, valid);
    CAB_TRY(CAB_NEW(&t, 1, "a tokenizer"));
    CAB_GOTO(cab_strdup(&t->name, name));
    t->hash = cab_hash(CAB_HASH_START, text, size);
    cab_merges_shorten(text, size);
    CAB_GOTO(cab_json_parse(text, size, name, &json));
    CAB_GOTO(load_parts(t, &json));
    *out = t;
    t = NULL;
done:
    cab_json_close(&json);
    cab_tokenizer_free(t);
    return status;
}

cab_status cab_tokenizer_parse(const char *text, size_t size, const char *name, cab_tokenizer **out)
{
    char *copy = NULL;
    *out = NULL;
    CAB_TRY(cab_alloc((void **)&copy, 1, size, "a tokenizer"));
    if (size > 0)
        memcpy(copy, text, size);
    const cab_status status = parse_owned(copy, size, name, out);
    cab_free(copy);
    return status;
}

/* Other forms of a tokenizer beside the file that is missing: transformers makes it from them. */
static cab_status check_present(const char *path)
{
    static const char *const others[] = {"vocab.json", "merges.txt", "tokenizer.model", "vocab.txt", "spiece.model"};
    char directory[CAB_PATH_MAX], other[CAB_PATH_MAX];
    const size_t length = (size_t)(cab_path_name(path) - path);
    if (cab_path_exists(path) || length >= sizeof directory)
        return CAB_OK;
    snprintf(directory, sizeof directory, "%.*s", (int)(length > 1 ? length - 1 : length), path);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        CAB_TRY(cab_path_join(other, length == 0 ? "." : directory, others[i]));
        if (cab_path_exists(other))
            return cab_fail(CAB_EUNSUPPORTED,
                            "%s: is missing, but %s is there; make it by: python3 -c \"from transformers import "
                            "AutoTokenizer as T; d = '%s'; T.from_pretrained(d).save_pretrained(d)\"",
                            path, others[i], length == 0 ? "." : directory);
    }
    return CAB_OK;
}

cab_status cab_tokenizer_load(const char *path, cab_tokenizer **out)
{
    char *text = NULL;
    size_t size = 0;
    *out = NULL;
    CAB_TRY(check_present(path));
    CAB_TRY(cab_file_read_text(path, FILE_MAX, &text, &size));
    cab_status status = parse_owned(text, size, path, out);
    cab_free(text);
    return status;
}

static cab_status open_gguf(const char *path, cab_tokenizer **out)
{
    cab_gguf *gguf = NULL;
    char *text = NULL;
    size_t size = 0;
    cab_status status;
    CAB_TRY(cab_gguf_open(path, &gguf));
    CAB_GOTO(cab_tokenizer_from_gguf(gguf, &text, &size));
    status = cab_tokenizer_parse(text, size, path, out);
done:
    cab_free(text);
    cab_gguf_close(gguf);
    return status;
}

cab_status cab_tokenizer_open(const char *model, cab_tokenizer **out)
{
    char path[CAB_PATH_MAX];
    *out = NULL;
    if (cab_gguf_named(model) && !cab_path_is_directory(model))
        return open_gguf(model, out);
    CAB_TRY(cab_path_join(path, model, "tokenizer.json"));
    return cab_tokenizer_load(path, out);
}

void cab_tokenizer_free(cab_tokenizer *t)
{
    if (t == NULL)
        return;
    cab_vocab_free(&t->vocab);
    cab_merges_free(&t->bpe.merges);
    cab_trie_free(&t->raw);
    cab_trie_free(&t->normalized);
    cab_normalizers_free(&t->normalizers);
    cab_splitters_free(&t->splitters);
    cab_decode_clear(&t->decode);
    cab_free(t->name);
    cab_free(t);
}

int32_t cab_tokenizer_vocab_size(const cab_tokenizer *t)
{
    return t->vocab.size;
}

cab_status cab_tokenizer_check_vocab(const cab_tokenizer *t, int64_t model_vocab, const char *model)
{
    for (int64_t id = model_vocab; id < t->vocab.size; id++)
        if (t->vocab.tokens[id].present && !t->vocab.tokens[id].added)
            return cab_fail(CAB_ESHAPE,
                            "%s: the tokenizer has ids up to %d, but %s has a vocabulary of %" PRId64
                            ": they do not belong together",
                            t->name, t->vocab.size - 1, model, model_vocab);
    return CAB_OK;
}

cab_status cab_tokenizer_check_id(const cab_tokenizer *t, int32_t id, int64_t model_vocab, const char *where)
{
    size_t size = 0;
    const char *piece = cab_tokenizer_piece(t, id, &size);
    if (id < model_vocab)
        return CAB_OK;
    return cab_fail(CAB_ESHAPE, "%s: token \"%.*s\" has the id %d, but the model has a vocabulary of %" PRId64, where,
                    (int)(size < 80 ? size : 80), piece == NULL ? "" : piece, (int)id, model_vocab);
}

uint64_t cab_tokenizer_hash(const cab_tokenizer *t)
{
    return t->hash;
}

bool cab_tokenizer_find(const cab_tokenizer *t, const char *token, int32_t *id)
{
    int32_t found = cab_vocab_find(&t->vocab, token, strlen(token));
    if (found >= 0)
        *id = found;
    return found >= 0;
}

bool cab_tokenizer_is_special(const cab_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab.size && t->vocab.tokens[id].special;
}
