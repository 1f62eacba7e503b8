/* composite.h - models of several parts, such as a vision encoder and a language model: config.json has "text_config" for the one that
 * is read here, and the tensors' names say whose they are. From here on it looks as if the language model stood alone. */
#ifndef CAB_IO_COMPOSITE_H
#define CAB_IO_COMPOSITE_H

#include "base/json.h"

/* Whether a configuration is of such a model, and of a kind whose language model computes of text alone what it would compute by
 * itself. */
bool cab_composite_is(const cab_json *config);

/* The configuration of the language model in the place of the whole: text_config, and what transformers takes for keys that neither
 * text_config nor, of the ends of text, the whole states. */
cab_status cab_composite_config(cab_json *config);

/* The name that a tensor of the language model has where that stands alone, in `name` or a literal; NULL: of another part. */
const char *cab_composite_name(const char *name);

#endif
