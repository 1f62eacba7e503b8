/* tensor.h - a shape, a dtype, a place.
 *
 * A tensor is (rows, columns) to most kernels: columns is the last dimension, rows the product of the others.
 * Consecutive rows are `ld` elements apart, which is how a view on some columns of a wider tensor is expressed
 * (cab_split), and rows padded to an alignment. The last dimension itself is always dense. */
#ifndef CAB_TENSOR_TENSOR_H
#define CAB_TENSOR_TENSOR_H

#include "base/error.h"
#include "tensor/dtype.h"

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
    int64_t ld;       /* elements from one row to the next; shape[n_dim - 1] unless a view or padded */
    bool trainable;   /* parameters: a gradient is wanted */
    bool tied;        /* parameters: a row's elements are one number, and so are the gradients that ops give them */
    bool keep;        /* read by the host after a run: lives to the end of the list */
    void *data;       /* NULL until planned (activations) */
    cab_tensor *base; /* views: the tensor whose memory this is, else NULL */
    int64_t offset;   /* views: elements from the base's first */

    /* Parameters. `grad` is fp32, of the parameter's shape, accumulated into (+=) by every backward pass and cleared by
     * the optimizer. `low` is the bf16 copy that matrix products read; its own `master` points back here. */
    cab_tensor *grad;
    cab_tensor *low;
    cab_tensor *master;
    struct cab_params *owner; /* parameters: the store they belong to */

    bool fp8; /* parameters: a frozen matrix that linear layers multiply in 8 bits where the device can (ops/fp8.h) */

    uint64_t version; /* parameters: bumped whenever the values change, so that packed copies know */

    /* The graph's bookkeeping. */
    int id;       /* index in the graph's tensor list, -1 for parameters */
    int producer; /* index of the node that writes it first, -1 for none */
    bool split;   /* has been split: its parts stand for it from here on */
};

/* Whether rows begin at multiples of so many elements, if those of what the tensor is a view of do. */
bool cab_rows_begin_at(const cab_tensor *t, int64_t multiple);

static inline int64_t cab_columns(const cab_tensor *t)
{
    return t->shape[t->n_dim - 1];
}

static inline int64_t cab_elements(const cab_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dim; i++)
        n *= t->shape[i];
    return n;
}

static inline int64_t cab_rows(const cab_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i + 1 < t->n_dim; i++)
        n *= t->shape[i];
    return n;
}

/* Bytes of a tensor that is no view on columns, with the padding of its rows. */
static inline size_t cab_tensor_bytes(const cab_tensor *t)
{
    return (size_t)(cab_rows(t) * t->ld) * cab_dtype_size(t->dtype);
}

/* "(8, 256, 128) BF16" in a buffer of at least 96 bytes; returns it. */
const char *cab_shape_text(const cab_tensor *t, char *buffer);

#endif
