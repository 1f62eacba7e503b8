/* optimise.h - what the GPU makes of a recorded list, and the ops that only such lists have. */
#ifndef CAB_OPS_CUDA_OPTIMISE_H
#define CAB_OPS_CUDA_OPTIMISE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "tensor/rewrite.h"

/* gelu(x W^T + b), by the formula with tanh   in: x W b   out: y, what GELU is of or NULL   attributes: cab_linear_attributes */
extern const cab_op cab_op_linear_gelu;
/* the norm of a sum   in: x_0 ... x_(n-1) w b, RMS without b   out: y, the sum or NULL   attributes: cab_norm_attributes */
extern const cab_op cab_op_layer_norm_of_sum, cab_op_rms_norm_of_sum;
/* A scan with dt = x W^T. in: as of cab_op_scan, but where in[CAB_SCAN_BOTH + d] is W, not NULL, x stands for dt of direction d; gradients
 * are still those of dt. */
extern const cab_op cab_op_scan_of_product;

cab_status cab_cuda_optimise(cab_graph *g);
/* The table's adapt(). */
void cab_cuda_adapt(cab_graph *g, cab_node *node);

/* Whether the product applies `next`, an activation, itself: matrix.c. */
bool cab_linear_gelu_fits_cuda(const cab_node *node, const cab_node *next, const cab_backend *backend);
/* Whether the sum is normalised by `next`, a norm, in registers: norm.cu. */
bool cab_norm_of_sum_fits_cuda(const cab_node *node, const cab_node *next, const cab_backend *backend);
/* Whether a scan multiplies its in[i], a dt, from what `product`, a linear layer, reads: scan_backward.cu. */
bool cab_scan_multiplies_cuda(const cab_node *node, int i, const cab_node *product, const cab_backend *backend);
/* Bytes of the states that the way back of channels with one decay begins its chunks with: scan.cu. */
size_t cab_scan_saved_cuda(const cab_node *node, const cab_backend *backend);

#ifdef __cplusplus
}
#endif
#endif
