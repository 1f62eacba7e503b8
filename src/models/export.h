/* export.h - a model as a file that llama.cpp opens, or as a directory that transformers does.
 *
 * The model is read as files, tensor by tensor; nothing of it is computed. */
#ifndef CAB_MODELS_EXPORT_H
#define CAB_MODELS_EXPORT_H

#include "base/error.h"
#include "tensor/dtype.h"

#include <stddef.h>
#include <stdint.h>

typedef struct cab_export {
    const char *model;     /* a directory in Hugging Face's layout, or a .gguf file */
    const char *tokenizer; /* the same, for its tokenizer alone; NULL: the model's */
    cab_dtype dtype; /* of matrices: F32, F16, BF16, Q8_0 or Q4_0; with Q4_0 the embedding and the head are Q8_0 */
} cab_export;

typedef struct cab_exported {
    size_t tensors;
    uint64_t bytes;
    size_t wider; /* matrices in F16 because their rows are no whole blocks */
} cab_exported;

/* Writes `path`, atomically, in a few MiB of memory beside the tokenizer. CAB_EUNSUPPORTED: a model_type that has no exporter, with those that
 * have; or a setting or a tensor that llama.cpp would compute otherwise, by name. */
cab_status cab_export_gguf(const cab_export *what, const char *path, cab_exported *out);

/* Writes the directory, file by file, each atomically: model.safetensors, with matrices of `dtype` (F32, F16 or BF16) and all else F32; config.json
 * and the tokenizer, of a GGUF file what it says of both. One tensor is held at a time. CAB_EARG: another dtype, or the model's own directory. */
cab_status cab_export_directory(const cab_export *what, const char *directory, cab_exported *out);

#endif
