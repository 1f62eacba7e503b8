/* tokenizer_gguf.h - the tokenizer that a GGUF file holds, as a tokenizer.json, and the way back. */
#ifndef CAB_DATA_TOKENIZER_GGUF_H
#define CAB_DATA_TOKENIZER_GGUF_H

#include "io/gguf.h"
#include "io/gguf_writer.h"

/* The text of a tokenizer.json with the same ids, owned by the caller. CAB_EUNSUPPORTED: a model or a splitting pattern that is not known,
 * with those that are. */
cab_status cab_tokenizer_from_gguf(const cab_gguf *gguf, char **text, size_t *size);

/* Adds the metadata "tokenizer.*" of a model to a GGUF file: of its directory's tokenizer.json, with the ends of texts as text_bounds.h finds
 * them, and the chat template of chat_template.jinja or tokenizer_config.json; or what a .gguf file says. Ids of the vocabulary that have no
 * token get unused ones. CAB_EUNSUPPORTED: llama.cpp has no name for the way in which words are split, or would split them otherwise. */
cab_status cab_tokenizer_to_gguf(const char *model, int64_t vocab_size, cab_gguf_writer *out);
/* The same of a GGUF file that is open: everything under "tokenizer.", as it is. */
cab_status cab_tokenizer_copy_gguf(const cab_gguf *gguf, int64_t vocab_size, cab_gguf_writer *out);

#endif
