/* safetensors.h - reading and writing of .safetensors files (https://github.com/huggingface/safetensors).
 *
 * A file is mapped, its header checked in full before anything is believed, and its tensors are used where they lie. */
#ifndef CAB_IO_SAFETENSORS_H
#define CAB_IO_SAFETENSORS_H

#include "base/error.h"
#include "tensor/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CAB_SAFETENSORS_DIMS = 8 };

typedef struct cab_safetensors cab_safetensors;

/* One tensor. Everything pointed to belongs to the file and lives until it is closed. */
typedef struct cab_safetensors_entry {
    const char *file; /* for error texts */
    const char *name;
    cab_dtype dtype;        /* CAB_DTYPES: a type of the format that cab does not compute with (BOOL, F8_E4M3 ...) */
    const char *dtype_name; /* as the file says */
    int n_dim;              /* 0: a scalar */
    int64_t shape[CAB_SAFETENSORS_DIMS];
    const void *data; /* not necessarily aligned: the format does not promise it; NULL when bytes is 0 */
    size_t bytes;
} cab_safetensors_entry;

/* Maps and checks a file. CAB_EIO: cannot be read. CAB_EFORMAT: the header does not parse, names a tensor twice, a type
 * that is not in the format, more than CAB_SAFETENSORS_DIMS dimensions, or data that lies outside the file, overlaps
 * another tensor's or has not the size of its shape; or the file has a checksum of cab's writer ("cab_checksum" in its metadata), and
 * another content. The text names the file, the tensor and the numbers. */
cab_status cab_safetensors_open(const char *path, cab_safetensors **out);
/* The same over memory, which must outlive *out; `name` stands for the file in error texts. */
cab_status cab_safetensors_parse(const void *data, size_t size, const char *name, cab_safetensors **out);
void cab_safetensors_close(cab_safetensors *st);

/* In the order of the header. */
size_t cab_safetensors_count(const cab_safetensors *st);
const cab_safetensors_entry *cab_safetensors_at(const cab_safetensors *st, size_t index);
/* NULL when absent. */
const cab_safetensors_entry *cab_safetensors_find(const cab_safetensors *st, const char *name);
/* The value of a key of __metadata__; NULL when absent. */
const char *cab_safetensors_metadata(const cab_safetensors *st, const char *key);

/* Copies a tensor as fp32 to out[product of shape]. CAB_EFORMAT: absent, or not F32, BF16, F16 or F64. CAB_ESHAPE: not
 * of exactly this shape. CAB_ENUMERIC: NaN, infinite or beyond fp32; the text gives the first such element. */
cab_status cab_safetensors_read_f32(const cab_safetensors *st, const char *name, int n_dim, const int64_t *shape,
                                    float *out);
/* The same for an entry at hand, and its shape check alone. */
cab_status cab_safetensors_entry_read_f32(const cab_safetensors_entry *entry, int n_dim, const int64_t *shape,
                                          float *out);
cab_status cab_safetensors_entry_check_shape(const cab_safetensors_entry *entry, int n_dim, const int64_t *shape);

/* Collects what tensors there are, then writes them one after another. Tensors lie sorted by element size, largest first, then by name: without
 * holes, which other readers refuse, and each aligned to its element size. The same tensors give the same bytes. */
typedef struct cab_safetensors_writer cab_safetensors_writer;

cab_status cab_safetensors_writer_new(cab_safetensors_writer **out);
/* `name` is copied; `data` is borrowed until the save. A shape of n_dim 0 is a scalar. */
cab_status cab_safetensors_writer_add(cab_safetensors_writer *writer, const char *name, cab_dtype dtype, int n_dim,
                                      const int64_t *shape, const void *data);
/* The same of values that are not in the host's memory, or not as the file has them: read(user, source, out, bytes) copies the
 * tensor's bytes to `out` when they are written. It may be called more than once and must give the same every time. No more than one
 * tensor is held at a time. */
typedef cab_status (*cab_safetensors_read)(void *user, const void *source, void *out, size_t bytes);
cab_status cab_safetensors_writer_add_from(cab_safetensors_writer *writer, const char *name, cab_dtype dtype, int n_dim,
                                           const int64_t *shape, cab_safetensors_read read, void *user,
                                           const void *source);
/* The same, read in parts: read(user, source, first, count, out) gives `count` elements from element `first` on, whole rows of the first
 * dimension, in the tensor's dtype. No more than a part, or one row, is held at a time. */
typedef cab_status (*cab_safetensors_read_part)(void *user, const void *source, int64_t first, int64_t count,
                                                void *out);
cab_status cab_safetensors_writer_add_parts(cab_safetensors_writer *writer, const char *name, cab_dtype dtype,
                                            int n_dim, const int64_t *shape, cab_safetensors_read_part read, void *user,
                                            const void *source);
/* Bytes of all tensors so far. */
size_t cab_safetensors_writer_bytes(const cab_safetensors_writer *writer);
/* Copies all tensors so far into memory of the writer's own: their sources may change from here on. CAB_ENOMEM: nothing is held. */
cab_status cab_safetensors_writer_hold(cab_safetensors_writer *writer);
/* Both are copied; a later value of the same key replaces the earlier one. */
cab_status cab_safetensors_writer_metadata(cab_safetensors_writer *writer, const char *key, const char *value);
/* Replaces `path` atomically, and adds the checksum to the metadata. CAB_EARG: two tensors of one name. */
cab_status cab_safetensors_writer_save(cab_safetensors_writer *writer, const char *path);
void cab_safetensors_writer_free(cab_safetensors_writer *writer);

#endif
