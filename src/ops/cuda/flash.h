/* flash.h - attention on tensor cores by our own kernels: of bf16, heads of up to 128, a scale above 0, any views. Rows of kernels.h. */
#ifndef CAB_OPS_CUDA_FLASH_H
#define CAB_OPS_CUDA_FLASH_H

#include "tensor/graph.h"

/* Writes or adds the gradients that are wanted. mean: (B, H, L), <dy, y> of every query and head. */
cab_status cab_flash_backward(const cab_node *node, cab_backend *backend, const float *mean);

#endif
