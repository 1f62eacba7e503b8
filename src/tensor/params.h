/* params.h - the parameters of one model (or bridge): they outlive graphs, own their gradients and bf16 copies. */
#ifndef CAB_TENSOR_PARAMS_H
#define CAB_TENSOR_PARAMS_H

#include "tensor/backend.h"
#include "tensor/tensor.h"

#include <stdio.h>

typedef struct cab_params cab_params;

/* How the optimizer treats one. */
typedef enum cab_decay { CAB_DECAY, CAB_NO_DECAY } cab_decay;

cab_status cab_params_new(cab_backend *backend, cab_params **params);
void cab_params_free(cab_params *params);

/* Adds a parameter under its public name ("backbone.layers.0.mixer.D"). Values are zero until written. dtype is F32 for
 * anything that may be trained. The tensor belongs to the store. */
cab_status cab_params_add(cab_params *params, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape,
                          cab_decay decay, cab_tensor **out);
/* The same over memory that outlives the store (a mapped file); never trainable. CPU only. */
cab_status cab_params_add_mapped(cab_params *params, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape,
                                 const void *data, cab_tensor **out);

size_t cab_params_count(const cab_params *params);
cab_tensor *cab_params_at(const cab_params *params, size_t index);
cab_decay cab_params_decay(const cab_params *params, size_t index);
/* NULL when absent. */
cab_tensor *cab_params_find(const cab_params *params, const char *name);
/* A parameter may be stored in files under another shape of as many elements than the one it is computed with: a
 * convolution's filter (out, in, k, k) is a matrix (out, in k k) to us. n_dim <= CAB_MAX_DIMS. */
void cab_params_store_as(cab_tensor *parameter, int n_dim, const int64_t *shape);
const int64_t *cab_params_stored_shape(const cab_params *params, size_t index, int *n_dim);
uint64_t cab_params_elements(const cab_params *params);
/* Bytes of values, gradients and copies now allocated. */
size_t cab_params_bytes(const cab_params *params);

/* Makes parameters whose name matches `pattern` (shell wildcards, fnmatch) trainable or frozen, and allocates gradients
 * for the trainable ones: one block for all that have none yet. Returns the number matched in *matched (may be NULL). */
cab_status cab_params_set_trainable(cab_params *params, const char *pattern, bool trainable, size_t *matched);

/* Host access: fp32 values in, whatever the parameter's dtype; bumps the version and refreshes the bf16 copy. Mapped
 * parameters cannot be written. */
cab_status cab_params_write(cab_params *params, cab_tensor *parameter, const float *values);
/* Of a parameter in blocks (blocks.h), added and not mapped: its cab_tensor_bytes() as they are. */
cab_status cab_params_write_blocks(cab_params *params, cab_tensor *parameter, const void *blocks);
cab_status cab_params_read(const cab_params *params, const cab_tensor *parameter, float *values);
cab_status cab_params_read_grad(const cab_params *params, const cab_tensor *parameter, float *values);
cab_status cab_params_zero_grad(cab_params *params);

/* The blocks of gradients, cut into buckets: what ranks add up at once. The last parameter's gradient comes first, as in
 * a backward pass. A bucket divides into equal pieces of whole cache lines, one of each rank, and has room in between
 * that belongs to no gradient and is zero. */
typedef struct cab_bucket {
    float *data;
    size_t count; /* elements */
} cab_bucket;
/* Only gradients of the chosen parameters, by index, lie in buckets from here on; others get other places. Gradients are
 * zero when this is called. */
void cab_params_choose_gradients(cab_params *params, const bool *chosen);
size_t cab_params_buckets(const cab_params *params);
cab_bucket cab_params_bucket(const cab_params *params, size_t index);

/* The bf16 copy of a matrix, made on first demand (cab_graph_weight). */
cab_status cab_params_low(cab_params *params, cab_tensor *parameter, cab_tensor **low);
/* An 8-bit copy: values times scale, one fp32, is the tensor. */
typedef struct cab_quantised {
    cab_tensor *values, *scale;
} cab_quantised;
/* Room for the 8-bit copy of a frozen matrix, rows x columns of U8, made on first demand: *fresh says that the caller
 * has to fill it. */
cab_status cab_params_quantised(cab_params *params, cab_tensor *parameter, int64_t rows, int64_t columns,
                                cab_quantised *quantised, bool *fresh);
/* Refreshes every bf16 copy from its master: after an optimizer step or a load. */
cab_status cab_params_refresh(cab_params *params);

#endif
