/* flash.h - attention of bf16 on tensor cores by our own kernels. */
#ifndef CAB_OPS_CUDA_FLASH_H
#define CAB_OPS_CUDA_FLASH_H

#include "tensor/graph.h"

/* Whether a node of attention, forward or backward, runs here: bf16, heads of up to 128, a scale above 0. Any views. */
bool cab_flash_takes(const cab_node *node);
/* Writes y and the log-sum-exp; needs no scratch. */
cab_status cab_flash_forward(const cab_node *node, cab_backend *backend);
/* Writes or adds the gradients that are wanted. mean: (B, H, L), <dy, y> of every query and head. */
cab_status cab_flash_backward(const cab_node *node, cab_backend *backend, const float *mean);

#endif
