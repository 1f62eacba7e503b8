/* flash.h - attention of bf16 on tensor cores by our own kernels. */
#ifndef CAB_OPS_CUDA_FLASH_H
#define CAB_OPS_CUDA_FLASH_H

#include "tensor/graph.h"

/* Whether a forward node of attention runs here: bf16, heads of up to 128, a scale above 0. Any views. */
bool cab_flash_takes(const cab_node *node);
/* Writes y and the log-sum-exp; needs no scratch. */
cab_status cab_flash_forward(const cab_node *node, cab_backend *backend);

#endif
