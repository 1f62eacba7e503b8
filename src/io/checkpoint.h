/* checkpoint.h - a model: a directory in Hugging Face layout, config.json and model.safetensors, whole or in shards; or a .gguf file,
 * which looks like such a directory from here on. Of a model of several parts (composite.h) it is the language model. */
#ifndef CAB_IO_CHECKPOINT_H
#define CAB_IO_CHECKPOINT_H

#include "base/json.h"
#include "io/gguf.h"
#include "io/safetensors.h"

typedef struct cab_checkpoint cab_checkpoint;

/* Reads config.json and maps model.safetensors, or every file that model.safetensors.index.json names; each tensor the
 * index lists must be in the file it gives. A path that ends in .gguf is such a file. CAB_EUNSUPPORTED: only PyTorch's pickled weights are there. */
cab_status cab_checkpoint_open(const char *directory, cab_checkpoint **out);
void cab_checkpoint_close(cab_checkpoint *ck);

const char *cab_checkpoint_directory(const cab_checkpoint *ck);
const cab_json *cab_checkpoint_config(const cab_checkpoint *ck);
/* Tensors of other parts than the language model. */
size_t cab_checkpoint_left_out(const cab_checkpoint *ck);
/* The .gguf file that it is; NULL: a directory. */
const cab_gguf *cab_checkpoint_gguf(const cab_checkpoint *ck);

/* All tensors, sorted by name. */
size_t cab_checkpoint_count(const cab_checkpoint *ck);
const cab_safetensors_entry *cab_checkpoint_at(const cab_checkpoint *ck, size_t index);
/* Its index, or cab_checkpoint_count() when absent. */
size_t cab_checkpoint_index(const cab_checkpoint *ck, const char *name);
/* NULL when absent. */
const cab_safetensors_entry *cab_checkpoint_find(const cab_checkpoint *ck, const char *name);
bool cab_checkpoint_has(const cab_checkpoint *ck, const char *name);

/* A tensor whose shape gives sizes: it must be there with that many dimensions, each of 1 to 2^24. */
cab_status cab_checkpoint_need(const cab_checkpoint *ck, const char *name, int n_dim,
                               const cab_safetensors_entry **entry);
/* As cab_safetensors_read_f32(). */
cab_status cab_checkpoint_read_f32(const cab_checkpoint *ck, const char *name, int n_dim, const int64_t *shape,
                                   float *out);
/* `count` elements of a tensor in row-major order, from its element `first` on, as cab_checkpoint_read_f32() gives them: whole rows of the first
 * dimension. The pages of the file that they fill are let go of, so that a model of any size can be read piece by piece. */
cab_status cab_checkpoint_read_part(const cab_checkpoint *ck, const cab_safetensors_entry *entry, int64_t first,
                                    int64_t count, float *out);
/* The tensor where it lies in the mapped file, valid until the close, if it is stored as `dtype` and aligned for it;
 * else *data is NULL and the caller reads a copy. Absence and another shape are errors as above. The values are not
 * looked at: they may be NaN. */
cab_status cab_checkpoint_view(const cab_checkpoint *ck, const char *name, int n_dim, const int64_t *shape,
                               cab_dtype dtype, const void **data);

/* A matrix in blocks of few bits (tensor/blocks.h), whose values are those of the file: *dtype is their type, and *data where they lie in the mapped
 * file, valid until the close; NULL where rows stand there in another order, or in two tensors: cab_checkpoint_read_blocks() copies them in
 * their order. *dtype is CAB_DTYPES of any other tensor. Absence and another shape are errors as above. The values are not looked at. */
cab_status cab_checkpoint_blocks(const cab_checkpoint *ck, const char *name, const int64_t shape[2], cab_dtype *dtype,
                                 const void **data);
/* Such a matrix, as it is stored, row by row. */
void cab_checkpoint_read_blocks(const cab_checkpoint *ck, const char *name, void *out);

#endif
