/* tokenizer_gguf.h - the tokenizer that a GGUF file holds, as a tokenizer.json. */
#ifndef CAB_DATA_TOKENIZER_GGUF_H
#define CAB_DATA_TOKENIZER_GGUF_H

#include "io/gguf.h"

/* The text of a tokenizer.json with the same ids, owned by the caller. CAB_EUNSUPPORTED: a model or a splitting pattern that is not known,
 * with those that are. */
cab_status cab_tokenizer_from_gguf(const cab_gguf *gguf, char **text, size_t *size);

#endif
