#include "data/chat.h"

#include "base/checksum.h"
#include "base/file.h"
#include "base/memory.h"
#include "data/chat_templates.h"
#include "data/text_bounds.h"
#include "data/utf8.h"
#include "io/gguf.h"

#include <string.h>

static const size_t FILE_MAX = (size_t)16 << 20;

struct cab_chat {
    const cab_chat_template *template; /* NULL: none that is known */
    char *name;                        /* of where it was looked for */
    bool found;                        /* a template, known or not */
    char *bos, *eos;
    char *system; /* ChatML: the message of the system where a conversation has none; NULL: none */
    bool bos_first, eos_last, trim;
    char *stop;
};

/* ---- the model's ---------------------------------------------------------------------------------------------------- */

/* A literal of the template from `at` to its quote, its escapes resolved, in a buffer of the caller; false: another thing. */
static bool read_literal(const char *at, const char *end, cab_bytes *out)
{
    const char *stop = strstr(at, end), *quote = strpbrk(at, "'\"}");
    if (stop == NULL || (quote != NULL && quote < stop && *quote != '\'' && *quote != '"'))
        return false;
    for (; at < stop; at++) {
        if ((*at == '\'' || *at == '"'))
            return false;
        char c = *at;
        if (c == '\\' && at + 1 < stop) {
            at++;
            c = *at == 'n' ? '\n' : *at == 't' ? '\t' : *at;
        }
        if (cab_bytes_append(out, &c, 1) != CAB_OK)
            return false;
    }
    return out->count > 0;
}

/* "<|im_start|>system\nYou are ...<|im_end|>" in one literal: what ChatML says where nobody says anything. */
static cab_status find_default_system(cab_chat *chat, const char *text)
{
    static const char *const starts[] = {"<|im_start|>system\n", "<|im_start|>system\\n"};
    for (size_t i = 0; i < 2; i++)
        for (const char *at = strstr(text, starts[i]); at != NULL; at = strstr(at + 1, starts[i])) {
            cab_bytes words = {0};
            cab_status status = CAB_OK;
            if (chat->system == NULL && read_literal(at + strlen(starts[i]), "<|im_end|>", &words)) {
                status = cab_bytes_append(&words, "", 1);
                if (status == CAB_OK)
                    status = cab_strdup(&chat->system, words.data);
            }
            cab_bytes_free(&words);
            CAB_TRY(status);
        }
    return CAB_OK;
}

/* The string with \1 and \2 replaced. */
static cab_status put(const cab_chat *chat, const char *string, cab_bytes *out)
{
    for (; string != NULL && *string != '\0'; string++) {
        const char one[2] = {*string, '\0'}, *s = *string == '\1' ? chat->bos : *string == '\2' ? chat->eos : one;
        CAB_TRY(cab_bytes_append(out, s, strlen(s)));
    }
    return CAB_OK;
}

static cab_status recognise(cab_chat *chat, const char *text)
{
    cab_bytes stop = {0};
    chat->found = true;
    chat->template = cab_chat_template_find(text);
    if (chat->template == NULL)
        return CAB_OK;
    const bool plain = chat->template->first == NULL && chat->template->begin[CAB_CHAT_USER][0] != '\1';
    chat->bos_first = plain && strstr(text, "bos_token") != NULL;
    chat->eos_last = strstr(text, "{{ eos_token }}") != NULL || strstr(text, "{{- eos_token }}") != NULL;
    if (strcmp(chat->template->name, "ChatML") == 0) {
        chat->trim = strstr(text, "trim") != NULL || strstr(text, "strip()") != NULL;
        CAB_TRY(find_default_system(chat, text));
    }
    cab_status status = put(chat, chat->template->stop, &stop);
    if (status == CAB_OK)
        status = cab_bytes_append(&stop, "", 1);
    if (status == CAB_OK)
        status = cab_strdup(&chat->stop, stop.data);
    cab_bytes_free(&stop);
    return status;
}

cab_status cab_chat_parse(const char *text, const char *name, const char *bos, const char *eos, cab_chat **out)
{
    cab_chat *chat = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&chat, 1, "a chat template"));
    CAB_GOTO(cab_strdup(&chat->name, name));
    CAB_GOTO(cab_strdup(&chat->bos, bos));
    CAB_GOTO(cab_strdup(&chat->eos, eos));
    status = text != NULL ? recognise(chat, text) : CAB_OK;
done:
    if (status != CAB_OK)
        cab_chat_free(chat);
    else
        *out = chat;
    return status;
}

void cab_chat_free(cab_chat *chat)
{
    if (chat == NULL)
        return;
    cab_free(chat->name);
    cab_free(chat->bos);
    cab_free(chat->eos);
    cab_free(chat->system);
    cab_free(chat->stop);
    cab_free(chat);
}

/* A string, or that of `inner` within an object or within the entry "default" of a list; NULL: neither. */
static const char *string_of(json_object *root, const char *key, const char *inner)
{
    json_object *value = NULL, *name = NULL;
    if (!json_object_object_get_ex(root, key, &value))
        return NULL;
    for (size_t i = 0; json_object_is_type(value, json_type_array) && i < json_object_array_length(value); i++) {
        json_object *one = json_object_array_get_idx(value, i);
        if (json_object_object_get_ex(one, "name", &name) && json_object_is_type(name, json_type_string) &&
            strcmp(json_object_get_string(name), "default") == 0)
            value = one;
    }
    if (json_object_is_type(value, json_type_object) && !json_object_object_get_ex(value, inner, &value))
        return NULL;
    return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
}

/* The text of a token, in a buffer of the caller; "" where there is none. */
static cab_status piece_text(const cab_tokenizer *t, int32_t id, char **out)
{
    size_t size = 0;
    const char *piece = id >= 0 ? cab_tokenizer_piece(t, id, &size) : NULL;
    CAB_TRY(CAB_NEW(out, size + 1, "a token"));
    if (size > 0)
        memcpy(*out, piece, size);
    return CAB_OK;
}

/* Of a directory's tokenizer_config.json, or of what the bounds of texts are. */
static cab_status parse_with(const char *template, const char *model, const cab_json *config,
                             const cab_tokenizer *tokenizer, int64_t vocab_size, cab_chat **out)
{
    cab_text_bounds bounds;
    char *bos = NULL, *eos = NULL;
    cab_status status;
    CAB_TRY(cab_text_bounds_load(model, tokenizer, vocab_size, &bounds));
    const char *first = config->root != NULL ? string_of(config->root, "bos_token", "content") : NULL;
    const char *last = config->root != NULL ? string_of(config->root, "eos_token", "content") : NULL;
    CAB_GOTO(piece_text(tokenizer, bounds.start, &bos));
    CAB_GOTO(piece_text(tokenizer, bounds.ends_count > 0 ? bounds.ends[0] : -1, &eos));
    status = cab_chat_parse(template, model, first != NULL ? first : bos, last != NULL ? last : eos, out);
done:
    cab_free(bos);
    cab_free(eos);
    return status;
}

static cab_status open_gguf(const char *model, const cab_tokenizer *tokenizer, int64_t vocab_size, cab_chat **out)
{
    const cab_json none = {0};
    cab_gguf *gguf = NULL;
    CAB_TRY(cab_gguf_open(model, &gguf));
    const char *template = string_of(cab_gguf_metadata(gguf)->root, "tokenizer.chat_template", "");
    cab_status status = parse_with(template, model, &none, tokenizer, vocab_size, out);
    cab_gguf_close(gguf);
    return status;
}

cab_status cab_chat_open(const char *model, const cab_tokenizer *tokenizer, int64_t vocab_size, cab_chat **out)
{
    char path[CAB_PATH_MAX], *file = NULL;
    size_t size = 0;
    cab_json config = {0};
    cab_status status;
    if (cab_gguf_named(model) && !cab_path_is_directory(model))
        return open_gguf(model, tokenizer, vocab_size, out);
    CAB_TRY(cab_path_join(path, model, "tokenizer_config.json"));
    if (cab_path_exists(path))
        CAB_TRY(cab_json_load(path, FILE_MAX, &config));
    CAB_GOTO(cab_path_join(path, model, "chat_template.jinja"));
    if (cab_path_exists(path))
        CAB_GOTO(cab_file_read_text(path, FILE_MAX, &file, &size));
    const char *template = config.root != NULL ? string_of(config.root, "chat_template", "template") : NULL;
    status = parse_with(file != NULL ? file : template, model, &config, tokenizer, vocab_size, out);
done:
    cab_free(file);
    cab_json_close(&config);
    return status;
}

static uint64_t hash_text(uint64_t hash, const char *text)
{
    return text == NULL ? hash : cab_hash(hash, text, strlen(text) + 1);
}

uint64_t cab_chat_key(uint64_t hash, const cab_chat *chat)
{
    if (chat->template == NULL)
        return hash;
    const bool flags[3] = {chat->bos_first, chat->eos_last, chat->trim};
    hash = hash_text(hash_text(hash_text(hash_text(hash, chat->template->name), chat->bos), chat->eos), chat->system);
    return cab_hash(hash, flags, sizeof flags);
}

const char *cab_chat_end(const cab_chat *chat)
{
    return chat->stop != NULL ? chat->stop : "";
}

/* ---- rendering ------------------------------------------------------------------------------------------------------ */

void cab_conversation_free(cab_conversation *c)
{
    cab_bytes_free(&c->text);
    cab_free(c->spans);
    *c = (cab_conversation){0};
}

/* As Python's strip() and Jinja's trim. */
static bool is_blank(uint32_t code)
{
    return cab_unicode_is_space(code) || (code >= 0x1C && code <= 0x1F);
}

static void trim(bool front, const char **text, size_t *size)
{
    unsigned length = 0;
    while (front && *size > 0 && is_blank(cab_utf8_decode(*text, &length))) {
        *text += length;
        *size -= length;
    }
    while (*size > 0) {
        const size_t last = cab_utf8_previous(*text, *size);
        if (!is_blank(cab_utf8_decode(*text + last, &length)))
            break;
        *size = last;
    }
}

static cab_status check(const cab_chat *chat, const cab_message *messages, size_t count)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    const cab_chat_template *t = chat->template;
    if (t == NULL)
        return cab_fail(CAB_EUNSUPPORTED,
                        "%s: %s; known are those of " CAB_CHAT_KNOWN
                        ". Put one of these into chat_template.jinja beside the model, or render the conversations to "
                        "a field \"text\" yourself",
                        chat->name, chat->found ? "its chat template is not known" : "it has no chat template");
    if (count == 0)
        return cab_fail(CAB_EFORMAT, "the conversation is empty");
    const size_t systems = messages[0].role == CAB_CHAT_SYSTEM;
    if (systems > 0 && t->system == CAB_CHAT_SYSTEM_REFUSED)
        return cab_fail(CAB_EFORMAT, "a message of the system, which the template (%s) does not take", t->name);
    for (size_t i = systems; i < count; i++) {
        const cab_chat_role expected = (i - systems) % 2 == 0 ? CAB_CHAT_USER : CAB_CHAT_ASSISTANT;
        if (t->alternate && messages[i].role != expected)
            return cab_fail(CAB_EFORMAT,
                            "message %zu is the %s's, expected the %s's: the template (%s) takes turns of user and "
                            "assistant",
                            i + 1, roles[messages[i].role], roles[expected], t->name);
    }
    return CAB_OK;
}

/* One message, with the system's before its content where that stands there. */
static cab_status render_message(const cab_chat *chat, const cab_message *m, const cab_message *system,
                                 cab_conversation *out)
{
    const cab_chat_template *t = chat->template;
    const char *text = m->text;
    size_t size = m->size;
    const bool trims = t->trim[m->role] || chat->trim, answer = m->role == CAB_CHAT_ASSISTANT;
    CAB_TRY(put(chat, t->begin[m->role], &out->text));
    const size_t begin = out->text.count;
    if (system != NULL) {
        CAB_TRY(put(chat, t->system_begin, &out->text));
        CAB_TRY(cab_bytes_append(&out->text, system->text, system->size));
        CAB_TRY(put(chat, t->system_end, &out->text));
    }
    /* Llama-2 strips the whole, of which the beginning is never blank: but for what follows it, the same. */
    if (trims)
        trim(system == NULL || strcmp(t->name, "Llama-2") != 0, &text, &size);
    CAB_TRY(cab_bytes_append(&out->text, text, size));
    CAB_TRY(put(chat, t->end[m->role], &out->text));
    if (!answer)
        return CAB_OK;
    CAB_TRY(CAB_GROW(&out->spans, &out->capacity, out->count + 1, "a conversation"));
    out->spans[out->count++] = (cab_chat_span){begin, out->text.count};
    return put(chat, t->after, &out->text);
}

static cab_status render_opening(const cab_chat *chat, bool system, cab_conversation *out)
{
    const cab_chat_template *t = chat->template;
    CAB_TRY(put(chat, chat->bos_first ? "\1" : t->first, &out->text));
    if (system || (chat->system == NULL && t->no_system == NULL))
        return CAB_OK;
    if (chat->system == NULL)
        return put(chat, t->no_system, &out->text);
    const cab_message own = {CAB_CHAT_SYSTEM, chat->system, strlen(chat->system)};
    return render_message(chat, &own, NULL, out);
}

cab_status cab_chat_render(const cab_chat *chat, const cab_message *messages, size_t count, bool prompt,
                           cab_conversation *out)
{
    const cab_chat_template *t = chat->template;
    out->text.count = out->count = 0;
    CAB_TRY(check(chat, messages, count));
    const bool apart = messages[0].role == CAB_CHAT_SYSTEM && t->system != CAB_CHAT_SYSTEM_TURN;
    CAB_TRY(render_opening(chat, messages[0].role == CAB_CHAT_SYSTEM, out));
    for (size_t i = apart; i < count; i++) {
        const bool here =
            t->system == CAB_CHAT_SYSTEM_LAST ? i + 1 == count && messages[i].role == CAB_CHAT_USER : i == 1;
        CAB_TRY(render_message(chat, &messages[i], apart && here ? &messages[0] : NULL, out));
    }
    if (prompt)
        return put(chat, t->prompt, &out->text);
    return chat->eos_last ? put(chat, t->last, &out->text) : CAB_OK;
}

/* ---- tokens --------------------------------------------------------------------------------------------------------- */

/* How many bytes of text[0..size) a token's piece stands for; 0: others than it says. A tokenizer may have put a space before the first
 * word. */
static size_t covered(const char *piece, size_t length, const char *text, size_t size)
{
    if (length <= size && memcmp(piece, text, length) == 0)
        return length;
    if (length > 0 && piece[0] == ' ' && length - 1 <= size && memcmp(piece + 1, text, length - 1) == 0)
        return length - 1;
    return 0;
}

/* The next place of a special token's text, from where tokens and text agree again. */
static size_t find_piece(const char *piece, size_t length, const char *text, size_t at, size_t size)
{
    for (; at + length <= size; at++)
        if (memcmp(text + at, piece, length) == 0)
            return at;
    return size;
}

void cab_chat_mark(const cab_tokenizer *tokenizer, const char *text, size_t size, const cab_chat_span *spans,
                   size_t count, const cab_ids *ids, uint8_t *marks)
{
    size_t at = 0, span = 0;
    for (size_t i = 0; i < ids->count; i++) {
        size_t length = 0;
        const char *piece = cab_tokenizer_piece(tokenizer, ids->data[i], &length);
        /* A normaliser may have changed the text: then tokens are where the last was, until a special one tells the place. */
        if (piece != NULL && cab_tokenizer_is_special(tokenizer, ids->data[i]))
            at = find_piece(piece, length, text, at, size);
        while (span < count && at >= spans[span].end)
            span++;
        marks[i] = span < count && at >= spans[span].begin;
        at += piece != NULL ? covered(piece, length, text + at, size - at) : 0;
    }
}
