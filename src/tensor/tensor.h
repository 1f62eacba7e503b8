/* tensor.h - a tensor: a shape, a dtype, a place in memory.
 *
 * To most kernels a tensor is (rows, columns): columns is the last dimension, rows the product of the others. A row
 * begins `ld` elements behind the one before it. That describes a view on some columns of a wider tensor (cab_split()),
 * and rows that are padded to an alignment. The elements of a row are always neighbours in memory.
 *
 * Graphs own activations, inputs and states; a cab_params store owns parameters. */
#ifndef CAB_TENSOR_TENSOR_H
#define CAB_TENSOR_TENSOR_H

#include "base/error.h"
#include "tensor/blocks.h"

#include <stdbool.h>

enum { CAB_MAX_DIMS = 4, CAB_NAME_MAX = 96 };

typedef enum cab_tensor_kind {
    CAB_ACTIVATION, /* lives in the graph's arena between its first write and its last read */
    CAB_INPUT,      /* written by the host before a run: token ids, learning rate ...; own memory */
    CAB_PARAMETER,  /* belongs to a cab_params store, outlives graphs */
    CAB_STATE       /* recurrent state or cache: own memory, zero at the start, read and written by every run */
} cab_tensor_kind;

typedef struct cab_tensor cab_tensor;
struct cab_params;
struct cab_tensor {
    char name[CAB_NAME_MAX];
    cab_tensor_kind kind;
    cab_dtype dtype;
    int n_dim;
    int64_t shape[CAB_MAX_DIMS];
    int64_t ld;       /* elements from one row to the next: shape[n_dim - 1], more in a view or with padding */
    bool trainable;   /* parameters: a gradient is wanted */
    bool tied;        /* parameters: all elements of a row are one number, and get one gradient */
    bool keep;        /* read by the host after a run: lives to the end of the list */
    void *data;       /* NULL of an activation that the plan has not placed yet */
    cab_tensor *base; /* views: the tensor whose memory they use; else NULL */
    int64_t offset;   /* views: elements from the base's first */

    /* Parameters. `grad` is F32, of the parameter's shape. Every backward pass adds to it, and the optimizer clears it.
     * `low` is the bf16 copy that matrix products read; the copy's `master` points back to the parameter. */
    cab_tensor *grad;
    cab_tensor *low;
    cab_tensor *master;
    struct cab_params *owner; /* parameters: the store they belong to */

    bool fp8; /* parameters: a frozen matrix that linear layers multiply in 8 bits where the device can (ops/fp8.h) */

    uint64_t version; /* parameters: bumped whenever the values change, so that packed copies know */

    /* The graph's bookkeeping. */
    int id;       /* index in the graph's tensor list, -1 for parameters */
    int producer; /* index of the node that writes it first, -1 for none */
    bool split;   /* cab_split() has split it: its parts are used in its place */
};

/* Whether every row begins at a multiple of `multiple` elements. Of a view: if the rows of its base do. */
bool cab_rows_begin_at(const cab_tensor *t, int64_t multiple);

/* Elements of the last dimension. */
static inline int64_t cab_columns(const cab_tensor *t)
{
    return t->shape[t->n_dim - 1];
}

/* Elements of the tensor, without padding. */
static inline int64_t cab_elements(const cab_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dim; i++)
        n *= t->shape[i];
    return n;
}

/* The product of all dimensions but the last. */
static inline int64_t cab_rows(const cab_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i + 1 < t->n_dim; i++)
        n *= t->shape[i];
    return n;
}

/* Bytes of a tensor, the padding of its rows included. Not for views on columns. */
static inline size_t cab_tensor_bytes(const cab_tensor *t)
{
    return cab_dtype_bytes(t->dtype, cab_rows(t) * t->ld);
}

/* Writes "(8, 256, 128) BF16" to a buffer of at least 96 bytes, and returns the buffer. */
const char *cab_shape_text(const cab_tensor *t, char *buffer);

#endif
