#include "data/text_bounds.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "io/gguf.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const size_t CONFIG_MAX = (size_t)256 << 20;

/* The two sides of a text, and what they are called. */
typedef struct side {
    const char *id_key, *token_key;
    const char *const *names; /* of tokens, without what is no letter or digit, in lower case */
    const char *const *last;  /* tokens as they are written: the last resort */
} side;

static const char *const start_names[] = {"bos", "startoftext", "beginoftext", NULL};
static const char *const start_last[] = {"<s>", NULL};
static const char *const end_names[] = {"eos", "endoftext", "eot", NULL};
static const char *const end_last[] = {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", NULL};
static const side start_side = {"bos_token_id", "bos_token", start_names, start_last};
static const side end_side = {"eos_token_id", "eos_token", end_names, end_last};

typedef struct found {
    int32_t ids[CAB_ENDS_MAX];
    int count;
} found;

static cab_status add_id(const cab_json *json, const char *key, json_object *value, int64_t vocab_size, found *f)
{
    if (!json_object_is_type(value, json_type_int))
        return cab_fail(CAB_EFORMAT, "%s: \"%s\" is %.80s, expected a token's id or a list of them", json->name, key,
                        json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN));
    const int64_t id = json_object_get_int64(value);
    if (id < 0 || id >= vocab_size)
        return CAB_OK;
    if (f->count == CAB_ENDS_MAX)
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"%s\" lists more than %d tokens", json->name, key, (int)CAB_ENDS_MAX);
    f->ids[f->count++] = (int32_t)id;
    return CAB_OK;
}

static cab_status read_ids(const cab_json *json, const char *key, int64_t vocab_size, found *f)
{
    json_object *value = NULL;
    if (!json_object_object_get_ex(json->root, key, &value) || value == NULL)
        return CAB_OK;
    if (!json_object_is_type(value, json_type_array))
        return add_id(json, key, value, vocab_size, f);
    for (size_t i = 0; i < json_object_array_length(value); i++)
        CAB_TRY(add_id(json, key, json_object_array_get_idx(value, i), vocab_size, f));
    return CAB_OK;
}

/* "</s>", or {"content": "</s>", ...} */
static void read_token(const cab_json *json, const char *key, const cab_tokenizer *t, int64_t vocab_size, found *f)
{
    json_object *value = NULL;
    int32_t id = 0;
    if (json_object_object_get_ex(json->root, key, &value) && json_object_is_type(value, json_type_object))
        json_object_object_get_ex(value, "content", &value);
    if (json_object_is_type(value, json_type_string) && cab_tokenizer_find(t, json_object_get_string(value), &id) &&
        id < vocab_size)
        f->ids[f->count++] = id;
}

/* What a GGUF file says, as its config.json would. */
static cab_status load_gguf(const char *path, cab_json *json)
{
    static const char *const keys[][2] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                                          {"tokenizer.ggml.eos_token_id", "eos_token_id"},
                                          {"tokenizer.ggml.add_bos_token", "add_bos_token"},
                                          {"tokenizer.ggml.model", "tokenizer_model"}};
    cab_gguf *gguf = NULL;
    json_object *id = NULL;
    CAB_TRY(cab_gguf_open(path, &gguf));
    cab_status status = cab_strdup(&json->name, path);
    json->root = json_object_new_object();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (json_object_object_get_ex(cab_gguf_metadata(gguf)->root, keys[i][0], &id))
            json_object_object_add(json->root, keys[i][1], json_object_get(id));
    cab_gguf_close(gguf);
    return status;
}

/* A file of the directory; root NULL where it is absent. */
static cab_status load(const char *directory, const char *name, cab_json *json)
{
    char path[CAB_PATH_MAX];
    *json = (cab_json){0};
    if (cab_gguf_named(directory) && !cab_path_is_directory(directory))
        return strcmp(name, "config.json") == 0 ? load_gguf(directory, json) : CAB_OK;
    CAB_TRY(cab_path_join(path, directory, name));
    return cab_path_exists(path) ? cab_json_load(path, CONFIG_MAX, json) : CAB_OK;
}

static bool is_named(const cab_tokenizer *t, int32_t id, const char *const *names)
{
    size_t size = 0, used = 0;
    char plain[32];
    const char *piece = cab_tokenizer_is_special(t, id) ? cab_tokenizer_piece(t, id, &size) : NULL;
    for (size_t i = 0; piece != NULL && i < size && used < sizeof plain - 1; i++)
        if (isalnum((unsigned char)piece[i]))
            plain[used++] = (char)tolower((unsigned char)piece[i]);
    plain[used] = '\0';
    for (int i = 0; used > 0 && names[i] != NULL; i++)
        if (strcmp(plain, names[i]) == 0)
            return true;
    return false;
}

static void find_by_name(const cab_tokenizer *t, const side *s, int64_t vocab_size, found *f)
{
    int32_t id = 0;
    const int32_t count = cab_tokenizer_vocab_size(t) < vocab_size ? cab_tokenizer_vocab_size(t) : (int32_t)vocab_size;
    for (int i = 0; s->names[i] != NULL && f->count == 0; i++)
        for (int32_t k = 0; k < count && f->count == 0; k++)
            if (is_named(t, k, (const char *const[]){s->names[i], NULL}))
                f->ids[f->count++] = k;
    for (int i = 0; s->last[i] != NULL && f->count == 0; i++)
        if (cab_tokenizer_find(t, s->last[i], &id) && id < vocab_size)
            f->ids[f->count++] = id;
}

static cab_status find_side(const char *directory, const cab_tokenizer *t, int64_t vocab_size, const side *s, found *f)
{
    static const struct {
        const char *file;
        bool ids;
    } sources[] = {{"generation_config.json", true},
                   {"config.json", true},
                   {"tokenizer_config.json", false},
                   {"special_tokens_map.json", false}};
    *f = (found){0};
    for (size_t i = 0; i < sizeof sources / sizeof *sources && f->count == 0; i++) {
        cab_json json;
        cab_status status = load(directory, sources[i].file, &json);
        if (status == CAB_OK && json.root != NULL) {
            if (sources[i].ids)
                status = read_ids(&json, s->id_key, vocab_size, f);
            else
                read_token(&json, s->token_key, t, vocab_size, f);
        }
        cab_json_close(&json);
        CAB_TRY(status);
    }
    if (f->count == 0)
        find_by_name(t, s, vocab_size, f);
    return CAB_OK;
}

cab_status cab_text_bounds_load(const char *directory, const cab_tokenizer *tokenizer, int64_t vocab_size,
                                cab_text_bounds *bounds)
{
    found start, end;
    CAB_TRY(find_side(directory, tokenizer, vocab_size, &start_side, &start));
    CAB_TRY(find_side(directory, tokenizer, vocab_size, &end_side, &end));
    bounds->start = start.count > 0 ? start.ids[0] : end.count > 0 ? end.ids[0] : -1;
    bounds->ends_count = end.count;
    memcpy(bounds->ends, end.ids, sizeof bounds->ends);
    return CAB_OK;
}

/* Whether the post-processor of a tokenizer.json, or one of several, puts a special token there. */
bool cab_text_bounds_puts(json_object *processor, bool at_end)
{
    json_object *items = NULL, *special = NULL;
    if (json_object_object_get_ex(processor, "processors", &items) && json_object_is_type(items, json_type_array))
        for (size_t i = 0; i < json_object_array_length(items); i++)
            if (cab_text_bounds_puts(json_object_array_get_idx(items, i), at_end))
                return true;
    if (!json_object_object_get_ex(processor, "single", &items) || !json_object_is_type(items, json_type_array) ||
        json_object_array_length(items) == 0)
        return false;
    json_object *outer = json_object_array_get_idx(items, at_end ? json_object_array_length(items) - 1 : 0);
    return json_object_object_get_ex(outer, "SpecialToken", &special);
}

/* llama.cpp puts it before pieces where the file is silent. */
static cab_status gguf_leads(const char *path, bool *leads)
{
    cab_json json = {0};
    const char *model = "";
    cab_status status;
    CAB_GOTO(load(path, "config.json", &json));
    CAB_GOTO(cab_json_string_or(&json, NULL, "tokenizer_model", "", &model));
    status = cab_json_bool_or(&json, NULL, "add_bos_token", strcmp(model, "llama") == 0, leads);
done:
    cab_json_close(&json);
    return status;
}

cab_status cab_text_bounds_leads(const char *directory, bool *leads)
{
    cab_json config = {0}, tokenizer = {0};
    json_object *processor = NULL;
    cab_status status;
    if (cab_gguf_named(directory) && !cab_path_is_directory(directory))
        return gguf_leads(directory, leads);
    CAB_GOTO(load(directory, "tokenizer_config.json", &config));
    CAB_GOTO(load(directory, "tokenizer.json", &tokenizer));
    if (tokenizer.root != NULL)
        json_object_object_get_ex(tokenizer.root, "post_processor", &processor);
    *leads = cab_text_bounds_puts(processor, false);
    if (config.root != NULL)
        status = cab_json_bool_or(&config, NULL, "add_bos_token", *leads, leads);
done:
    cab_json_close(&config);
    cab_json_close(&tokenizer);
    return status;
}

bool cab_text_bounds_ends(const cab_text_bounds *bounds, int32_t id)
{
    for (int i = 0; i < bounds->ends_count; i++)
        if (bounds->ends[i] == id)
            return true;
    return false;
}

int32_t cab_text_bounds_separator(const cab_text_bounds *bounds)
{
    return bounds->ends_count > 0 ? bounds->ends[0] : -1;
}

cab_status cab_text_bounds_copy(const char *from, const char *to)
{
    static const char *const keys[] = {"bos_token_id", "eos_token_id"};
    cab_json generation = {0}, config = {0};
    json_object *merged = NULL, *value = NULL;
    char path[CAB_PATH_MAX];
    cab_status status;
    CAB_GOTO(load(from, "generation_config.json", &generation));
    CAB_GOTO(load(from, "config.json", &config));
    merged = generation.root != NULL ? json_object_get(generation.root) : json_object_new_object();
    for (size_t i = 0; i < sizeof keys / sizeof *keys && config.root != NULL; i++)
        if ((!json_object_object_get_ex(merged, keys[i], &value) || value == NULL) &&
            json_object_object_get_ex(config.root, keys[i], &value) && value != NULL)
            json_object_object_add(merged, keys[i], json_object_get(value));
    if (json_object_object_length(merged) == 0)
        goto done;
    CAB_GOTO(cab_path_join(path, to, "generation_config.json"));
    status = cab_json_save(merged, path);
done:
    json_object_put(merged);
    cab_json_close(&generation);
    cab_json_close(&config);
    return status;
}
