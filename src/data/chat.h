/* chat.h - conversations as a model was trained to see them: rendered by its own chat template, where that is one of those that are
 * known. A template is a program (Jinja), which cab does not run: it knows the usual ones by their text, and refuses others.
 *
 *   chat.c            a model's template        chat_templates.c   the known ones        chat_messages.c   conversations in JSON */
#ifndef CAB_DATA_CHAT_H
#define CAB_DATA_CHAT_H

#include "base/json.h"
#include "data/tokenizer.h"

/* Names of the known templates, for messages. */
#define CAB_CHAT_KNOWN "ChatML, Llama-2, Llama-3, Gemma, Mistral, Phi-3 and Zephyr"

typedef enum cab_chat_role { CAB_CHAT_SYSTEM, CAB_CHAT_USER, CAB_CHAT_ASSISTANT, CAB_CHAT_ROLES } cab_chat_role;

typedef struct cab_message {
    cab_chat_role role;
    const char *text; /* borrowed */
    size_t size;
} cab_message;

/* Bytes of a text, of an assistant's answer with the token that ends it. */
typedef struct cab_chat_span {
    size_t begin, end;
} cab_chat_span;

/* A conversation as text. Zero-initialise, free; rendering again overwrites. */
typedef struct cab_conversation {
    cab_bytes text;
    cab_chat_span *spans; /* rising */
    size_t count, capacity;
} cab_conversation;

void cab_conversation_free(cab_conversation *conversation);

typedef struct cab_chat cab_chat;

/* The template of a model: chat_template.jinja, else "chat_template" of tokenizer_config.json; of a .gguf file
 * "tokenizer.chat_template". That there is none, or one that is not known, is an error only when something is to be rendered. */
cab_status cab_chat_open(const char *model, const cab_tokenizer *tokenizer, int64_t vocab_size, cab_chat **out);
/* The same of a template's text. bos, eos: the tokens' texts that it may write. `name` stands in error texts. */
cab_status cab_chat_parse(const char *text, const char *name, const char *bos, const char *eos, cab_chat **out);
void cab_chat_free(cab_chat *chat);

/* Continues a hash over what decides how conversations are rendered. */
uint64_t cab_chat_key(uint64_t hash, const cab_chat *chat);
/* The token that ends an answer; "" where the template is not known. */
const char *cab_chat_end(const cab_chat *chat);

/* What transformers' apply_chat_template(tokenize=False) gives; with `prompt` add_generation_prompt=True, for the model to answer.
 * CAB_EUNSUPPORTED: an unknown template. CAB_EFORMAT: messages that the template does not take. */
cab_status cab_chat_render(const cab_chat *chat, const cab_message *messages, size_t count, bool prompt,
                           cab_conversation *out);

/* Whether the object holds a conversation: "messages" of "role" and "content", or "conversations" of "from" and "value". */
bool cab_chat_holds(json_object *object);
/* Renders it. Errors do not name the place: the caller does. */
cab_status cab_chat_render_json(const cab_chat *chat, json_object *object, cab_conversation *out);

/* marks[i] = whether token i of the text lies in one of its spans, mostly. */
void cab_chat_mark(const cab_tokenizer *tokenizer, const char *text, size_t size, const cab_chat_span *spans,
                   size_t count, const cab_ids *ids, uint8_t *marks);

#endif
