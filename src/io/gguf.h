/* gguf.h - reading of .gguf files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3.
 *
 * A file is mapped, its header checked in full before anything is believed, and its tensors are used where they lie. */
#ifndef CAB_IO_GGUF_H
#define CAB_IO_GGUF_H

#include "base/json.h"
#include "io/safetensors.h"

typedef struct cab_gguf cab_gguf;

/* Maps and checks a file. CAB_EIO: cannot be read. CAB_EFORMAT: the header does not parse, names something twice, or data lies outside
 * the file. Tensors of a type that cab does not read have dtype CAB_DTYPES; their data is NULL. */
cab_status cab_gguf_open(const char *path, cab_gguf **out);
/* The same over memory, which must outlive *out; `name` stands for the file in error texts. */
cab_status cab_gguf_parse(const void *data, size_t size, const char *name, cab_gguf **out);
void cab_gguf_close(cab_gguf *gguf);

/* The metadata as one JSON object of flat keys, "general.architecture": read it by the getters of json.h. Numbers that are not finite are
 * left out. */
const cab_json *cab_gguf_metadata(const cab_gguf *gguf);

/* In the order of the file; shapes as in safetensors, the innermost dimension last. */
size_t cab_gguf_count(const cab_gguf *gguf);
const cab_safetensors_entry *cab_gguf_at(const cab_gguf *gguf, size_t index);
/* NULL when absent. */
const cab_safetensors_entry *cab_gguf_find(const cab_gguf *gguf, const char *name);

/* Whether the name ends as a GGUF file's. */
bool cab_gguf_named(const char *path);

#endif
