/* text_bounds.h - the tokens at which a text begins and ends, as a model's directory says. */
#ifndef CAB_DATA_TEXT_BOUNDS_H
#define CAB_DATA_TEXT_BOUNDS_H

#include "base/json.h"
#include "data/tokenizer.h"

enum { CAB_ENDS_MAX = 64 };

typedef struct cab_text_bounds {
    int32_t start; /* what an empty prompt begins with; -1: none */
    int32_t ends[CAB_ENDS_MAX];
    int ends_count; /* generation stops at any; documents are separated by the first */
} cab_text_bounds;

/* The first of these that says it, for the beginning and for the end: "bos_token_id" and "eos_token_id" (a number, or a list of
 * them) in generation_config.json, then in config.json; "bos_token" and "eos_token" in tokenizer_config.json, then in
 * special_tokens_map.json; the tokenizer's special tokens by their names. Ids outside of the vocabulary say nothing, as in many
 * small models' files. Where only an end is found, texts begin with it too. */
cab_status cab_text_bounds_load(const char *directory, const cab_tokenizer *tokenizer, int64_t vocab_size,
                                cab_text_bounds *bounds);

bool cab_text_bounds_ends(const cab_text_bounds *bounds, int32_t id);
/* What stands between two documents: the first end; -1: none. */
int32_t cab_text_bounds_separator(const cab_text_bounds *bounds);

/* Whether the model's own tokenizer puts `start` before a text, as transformers' does: "add_bos_token" of tokenizer_config.json, else what
 * the post-processor of tokenizer.json does; of a .gguf file tokenizer.ggml.add_bos_token. */
cab_status cab_text_bounds_leads(const char *directory, bool *leads);
/* Whether a post-processor puts a special token at that end of a text. */
bool cab_text_bounds_puts(json_object *processor, bool at_end);

/* Writes generation_config.json into `to`, so that a model made from that of `from` begins and ends its texts alike: the file of
 * `from`, completed from its config.json. Nothing is written where neither says anything. */
cab_status cab_text_bounds_copy(const char *from, const char *to);

#endif
