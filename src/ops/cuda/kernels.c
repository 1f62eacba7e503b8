/* kernels.c - the rows of kernels.h as the table of kernels that this backend hands to the graph
 * (src/tensor/kernel.h).
 *
 * It holds constants only: no layout, no arithmetic. AdamW has its row here, because it alone has a `prepare`. */
#include "ops/cuda/kernels.h"

#include "ops/attention.h"
#include "ops/bridge_loss.h"
#include "ops/conv1d.h"
#include "ops/cuda/optimise.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/feature.h"
#include "ops/fp8.h"
#include "ops/head_loss.h"
#include "ops/head_score.h"
#include "ops/matrix.h"
#include "ops/next_token.h"
#include "ops/norm.h"
#include "ops/optimizer.h"
#include "ops/pixels.h"
#include "ops/scan.h"
#include "ops/ssd.h"
#include "ops/tokens.h"

#define ROW(name, way, kernel, suits, bytes)                                                                           \
    {.op = &cab_op_##name, .direction = CAB_##way, .run = kernel, .fits = suits, .scratch = bytes},

static const cab_kernel_row rows[] = {CAB_CUDA_KERNELS(ROW){.op = &cab_op_adamw,
                                                            .direction = CAB_FORWARD,
                                                            .run = cab_adamw_forward_cuda,
                                                            .scratch = cab_adamw_scratch_cuda,
                                                            .prepare = cab_adamw_prepare_cuda,
                                                            .prepared = cab_adamw_prepared_cuda}};

const cab_kernel_table cab_cuda_kernels = {
    .rows = rows, .n_row = sizeof rows / sizeof *rows, .adapt = cab_cuda_adapt, .optimise = cab_cuda_optimise};
