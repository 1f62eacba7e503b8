/* gguf_writer.h - writing of .gguf files, version 3.
 *
 * Collects metadata and what tensors there are, then writes them in that order. Values of tensors are asked for piece by piece while they
 * are written: no more than a few MiB are held at a time, whatever the model. */
#ifndef CAB_IO_GGUF_WRITER_H
#define CAB_IO_GGUF_WRITER_H

#include "base/error.h"
#include "tensor/dtype.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cab_gguf_writer cab_gguf_writer;

cab_status cab_gguf_writer_new(cab_gguf_writer **out);
void cab_gguf_writer_free(cab_gguf_writer *writer);

/* Metadata; key and value are copied. */
cab_status cab_gguf_writer_text(cab_gguf_writer *writer, const char *key, const char *value);
cab_status cab_gguf_writer_u32(cab_gguf_writer *writer, const char *key, uint32_t value);
cab_status cab_gguf_writer_f32(cab_gguf_writer *writer, const char *key, double value);
cab_status cab_gguf_writer_bool(cab_gguf_writer *writer, const char *key, bool value);
/* Arrays. */
cab_status cab_gguf_writer_texts(cab_gguf_writer *writer, const char *key, const char *const *values, size_t count);
cab_status cab_gguf_writer_i32s(cab_gguf_writer *writer, const char *key, const int32_t *values, size_t count);
cab_status cab_gguf_writer_f32s(cab_gguf_writer *writer, const char *key, const float *values, size_t count);
/* What gguf.h made of metadata, or an array: strings, whole numbers (as int32), numbers (as fp32) or booleans, all of one
 * kind. CAB_EFORMAT: an element of another kind than the first. */
cab_status cab_gguf_writer_json(cab_gguf_writer *writer, const char *key, json_object *value);

/* Gives `count` finite values of a tensor in row-major order from its element `first` on; both are whole rows, except of a vector. */
typedef cab_status (*cab_gguf_read)(void *user, const void *source, int64_t first, int64_t count, float *out);

/* shape as in safetensors, the innermost dimension last, of 1 to 4. dtype: F32, F16, BF16, Q8_0 or Q4_0; rows of the latter two are whole
 * blocks. The name is copied; `source` must live until the save. */
cab_status cab_gguf_writer_tensor(cab_gguf_writer *writer, const char *name, cab_dtype dtype, int n_dim,
                                  const int64_t *shape, cab_gguf_read read, void *user, const void *source);

size_t cab_gguf_writer_count(const cab_gguf_writer *writer);

/* Replaces `path` atomically; *bytes is its size. Nothing is left where it fails. CAB_ENUMERIC: a value that the tensor's type cannot hold;
 * the text names tensor and type. */
cab_status cab_gguf_writer_save(const cab_gguf_writer *writer, const char *path, uint64_t *bytes);

#endif
