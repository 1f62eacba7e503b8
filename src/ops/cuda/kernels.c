/* kernels.c - the rows of kernels.h as the table of kernels that this backend hands to the graph
 * (src/tensor/kernel.h).
 *
 * It holds constants only: no layout, no arithmetic. The optimizer has its rows here, because it alone has a `prepare`, and so has
 * what goes between ranks. */
#include "ops/cuda/kernels.h"

#include "ops/attention.h"
#include "ops/bridge_loss.h"
#include "ops/collective.h"
#include "ops/conv1d.h"
#include "ops/conv2d.h"
#include "ops/cuda/collective.h"
#include "ops/cuda/optimise.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/feature.h"
#include "ops/fp8.h"
#include "ops/head_loss.h"
#include "ops/head_score.h"
#include "ops/matrix.h"
#include "ops/mixer_matrix.h"
#include "ops/next_token.h"
#include "ops/norm.h"
#include "ops/optimizer.h"
#include "ops/pixels.h"
#include "ops/scan.h"
#include "ops/ssd.h"
#include "ops/tokens.h"
#include "tensor/reduce.h"

#define ROW(name, way, kernel, suits, bytes)                                                                           \
    {.op = &cab_op_##name, .direction = CAB_##way, .run = kernel, .fits = suits, .scratch = bytes},

static const cab_kernel_row rows[] = {CAB_CUDA_KERNELS(ROW){.op = &cab_op_adamw,
                                                            .direction = CAB_FORWARD,
                                                            .run = cab_adamw_forward_cuda,
                                                            .scratch = cab_adamw_scratch_cuda,
                                                            .prepare = cab_adamw_prepare_cuda,
                                                            .prepared = cab_adamw_prepared_cuda},
                                      {.op = &cab_op_gradient_norm,
                                       .direction = CAB_FORWARD,
                                       .run = cab_gradient_norm_forward_cuda,
                                       .scratch = cab_adamw_scratch_cuda,
                                       .prepare = cab_adamw_prepare_cuda,
                                       .prepared = cab_adamw_prepared_cuda},
                                      {.op = &cab_op_adopt,
                                       .direction = CAB_FORWARD,
                                       .run = cab_adopt_forward_cuda,
                                       .prepare = cab_adamw_prepare_cuda,
                                       .prepared = cab_adamw_prepared_cuda},
                                      {.op = &cab_op_reduce, .direction = CAB_FORWARD, .run = cab_reduce_cuda},
                                      {.op = &cab_op_gather, .direction = CAB_FORWARD, .run = cab_gather_cuda},
                                      {.op = &cab_op_collect, .direction = CAB_FORWARD, .run = cab_collect_cuda}};

const cab_kernel_table cab_cuda_kernels = {
    .rows = rows, .n_row = sizeof rows / sizeof *rows, .adapt = cab_cuda_adapt, .optimise = cab_cuda_optimise};
