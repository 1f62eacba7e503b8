/* tokenizer.h - text to token ids and back, as a Hugging Face tokenizer.json says.
 *
 * Families: byte-level BPE (GPT-2, Phi, Llama 3, Qwen 2 ...) and Metaspace BPE with byte fallback (Llama 2, Mistral,
 * Gemma ...). Ids equal those of the `tokenizers` library with add_special_tokens=False: post-processors are not applied.
 * A component outside the supported set is CAB_EUNSUPPORTED at load, naming it and what is supported.
 *
 * A tokenizer is immutable after loading and may be shared by threads. An encoder holds one thread's scratch memory and
 * its cache of words already split. */
#ifndef CAB_DATA_TOKENIZER_H
#define CAB_DATA_TOKENIZER_H

#include "base/error.h"
#include "data/buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cab_tokenizer cab_tokenizer;
typedef struct cab_encoder cab_encoder;

/* The tokenizer of a model: tokenizer.json of a directory, or what a .gguf file holds. */
cab_status cab_tokenizer_open(const char *model, cab_tokenizer **out);
/* `path` is the tokenizer.json itself. */
cab_status cab_tokenizer_load(const char *path, cab_tokenizer **out);
/* The same from memory; `name` stands in error texts where the path would. */
cab_status cab_tokenizer_parse(const char *text, size_t size, const char *name, cab_tokenizer **out);
void cab_tokenizer_free(cab_tokenizer *tokenizer);

/* One more than the largest id, added tokens included. */
int32_t cab_tokenizer_vocab_size(const cab_tokenizer *tokenizer);
/* Fails when the tokenizer's own vocabulary has ids that a model with `model_vocab` rows does not have. A model with more rows
 * than the tokenizer has ids (padding) is well, and so are added tokens beyond the rows, such as "[PAD]", as long as they do not
 * occur. `model` is named in the error. */
cab_status cab_tokenizer_check_vocab(const cab_tokenizer *tokenizer, int64_t model_vocab, const char *model);
/* Whether an id that occurs is one of the model's rows; CAB_ESHAPE names `where`, the token and the id. */
cab_status cab_tokenizer_check_id(const cab_tokenizer *tokenizer, int32_t id, int64_t model_vocab, const char *where);
/* A hash of the tokenizer.json: part of the key of token caches. */
uint64_t cab_tokenizer_hash(const cab_tokenizer *tokenizer);

/* The id of exactly this token as the file writes it; false when there is none. */
bool cab_tokenizer_find(const cab_tokenizer *tokenizer, const char *token, int32_t *id);
/* An added token marked special, such as "<|endoftext|>". False for ids out of range. */
bool cab_tokenizer_is_special(const cab_tokenizer *tokenizer, int32_t id);
/* The raw bytes that `id` stands for in the middle of a text; they need not be whole UTF-8 characters. NULL and 0 for
 * ids without a token. Owned by the tokenizer. */
const char *cab_tokenizer_piece(const cab_tokenizer *tokenizer, int32_t id, size_t *size);

/* Appends the ids of text[0..size). Text that is not UTF-8 is CAB_EFORMAT with the offset. */
cab_status cab_tokenizer_encode(const cab_tokenizer *tokenizer, const char *text, size_t size, cab_ids *ids);
/* The same, for many texts: the encoder remembers words. The tokenizer must outlive it. One thread at a time. */
cab_status cab_encoder_new(const cab_tokenizer *tokenizer, cab_encoder **out);
cab_status cab_encoder_encode(cab_encoder *encoder, const char *text, size_t size, cab_ids *ids);
void cab_encoder_free(cab_encoder *encoder);

/* Appends the text of ids[0..count). Bytes that do not form UTF-8 become U+FFFD. Ids without a token are CAB_EARG. */
cab_status cab_tokenizer_decode(const cab_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                                cab_bytes *text);

/* Decoding as tokens arrive: bytes are held back until they are whole characters. */
typedef struct cab_decoder {
    const cab_tokenizer *tokenizer;
    char pending[4];
    unsigned pending_count;
    bool at_start;
} cab_decoder;

/* at_start: the next token opens a text, so the space that Metaspace tokenizers put before the first word is dropped;
 * false when the tokens continue a prompt. */
void cab_decoder_begin(cab_decoder *decoder, const cab_tokenizer *tokenizer, bool at_start);
cab_status cab_decoder_push(cab_decoder *decoder, int32_t id, cab_bytes *text);
/* What was held back is an unfinished character: U+FFFD. */
cab_status cab_decoder_finish(cab_decoder *decoder, cab_bytes *text);

#endif
