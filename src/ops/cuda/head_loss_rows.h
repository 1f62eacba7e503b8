/* head_loss_rows.h - what the vocabulary losses do between their matrix products. All addresses are the device's. */
#ifndef CAB_OPS_CUDA_HEAD_LOSS_ROWS_H
#define CAB_OPS_CUDA_HEAD_LOSS_ROWS_H

#ifdef __cplusplus
extern "C" {
#endif

#include "tensor/backend.h"
#include "tensor/dtype.h"

#include <stdbool.h>

typedef struct cab_head_rows {
    int64_t rows, V;
    const int32_t *labels, *valid;  /* of every row; valid NULL: all */
    const float *targets;           /* (rows, V), or NULL: the labels alone */
    const float *ce_seed, *kl_seed; /* NULL: zero */
    float temperature;
    float cap; /* of the student's logits, which stand there capped; 0: none */
    bool gradient;
    float *count;   /* 2: rows with a label, valid rows */
    float *results; /* cross-entropy of every row, then their KL, then whether the arg max is the same */

    cab_dtype dtype;     /* of the logits of a chunk */
    int64_t ld;          /* a multiple of 16 bytes */
    void *student;       /* with `gradient`, replaced by the gradient of the loss, zero beyond V */
    const void *teacher; /* NULL: none */
} cab_head_rows;

/* Counts labels and valid rows; a label outside -1 .. V - 1 is a fault of the GPU's, and no label from there on. */
cab_status cab_head_count_cuda(cab_backend *backend, const cab_head_rows *h);
/* n rows of logits of h->dtype, V of h->ld columns, to cap tanh(s / cap), in place. */
cab_status cab_head_cap_cuda(cab_backend *backend, const cab_head_rows *h, void *logits, float cap, int64_t n);
/* The teacher's logits of rows first .. first + n, out of its k likeliest words per row (ids, top: of all rows) and the student's
 * logits, which stand capped. A word outside the vocabulary is a fault of the GPU's, and left out. */
cab_status cab_head_words_cuda(cab_backend *backend, const cab_head_rows *h, void *teacher, const int32_t *ids,
                               const float *top, int k, int64_t first, int64_t n);
/* Losses, and with `gradient` the gradients, of rows first .. first + n, whose logits stand in student and teacher. */
cab_status cab_head_rows_cuda(cab_backend *backend, const cab_head_rows *h, int64_t first, int64_t n);
/* Means over the rows; kl and agreement NULL without a teacher. */
cab_status cab_head_report_cuda(cab_backend *backend, const cab_head_rows *h, float *ce, float *kl, float *agreement);
/* n elements in another dtype. */
cab_status cab_head_convert_cuda(cab_backend *backend, const void *from, cab_dtype from_dtype, void *to,
                                 cab_dtype to_dtype, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
