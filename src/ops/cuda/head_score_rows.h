/* head_score_rows.h - what head_score does behind its matrix product. All addresses are the device's. */
#ifndef CAB_OPS_CUDA_HEAD_SCORE_ROWS_H
#define CAB_OPS_CUDA_HEAD_SCORE_ROWS_H

#ifdef __cplusplus
extern "C" {
#endif

#include "tensor/backend.h"

typedef struct cab_score_rows {
    int64_t V, ld; /* of `logits` */
    int k;
    float cap;
    const float *logits; /* of the chunk */
    const int32_t *labels;
    float *label, *top; /* of all rows, as labels and ids */
    int32_t *ids;
} cab_score_rows;

/* Rows first .. first + n, whose logits stand in s->logits. */
cab_status cab_score_rows_cuda(cab_backend *backend, const cab_score_rows *s, int64_t first, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
