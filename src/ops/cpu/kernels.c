/* kernels.c - three rows per line of kernels.h, one for each instruction set. */
#include "ops/cpu/kernels.h"

#include "ops/attention.h"
#include "ops/collective.h"
#include "ops/conv1d.h"
#include "ops/conv2d.h"
#include "ops/cpu/attention_bf16.h"
#include "ops/cpu/device.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/feature.h"
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

#define DECLARE(op, direction, kernel, scratch)                                                                        \
    cab_status kernel##_v1(const cab_node *node, cab_backend *backend);                                                \
    cab_status kernel##_v3(const cab_node *node, cab_backend *backend);                                                \
    cab_status kernel##_v4(const cab_node *node, cab_backend *backend);
CAB_CPU_KERNELS(DECLARE)

static bool has_v4(const cab_node *node, const cab_backend *backend)
{
    (void)node;
    return cab_cpu_isa(backend) >= CAB_ISA_V4;
}

static bool has_v3(const cab_node *node, const cab_backend *backend)
{
    (void)node;
    return cab_cpu_isa(backend) >= CAB_ISA_V3;
}

#define ROWS(name, way, kernel, bytes)                                                                                 \
    {.op = &cab_op_##name, .direction = CAB_##way, .run = kernel##_v4, .fits = has_v4, .scratch = bytes},              \
        {.op = &cab_op_##name, .direction = CAB_##way, .run = kernel##_v3, .fits = has_v3, .scratch = bytes},          \
        {.op = &cab_op_##name, .direction = CAB_##way, .run = kernel##_v1, .scratch = bytes},

/* Between ranks no arithmetic differs by instruction set. */
static const cab_kernel_row rows[] = {
    {.op = &cab_op_attention,
     .direction = CAB_FORWARD,
     .run = cab_attention_bf16_forward,
     .fits = cab_attention_bf16_fits,
     .scratch = cab_attention_bf16_scratch},
    CAB_CPU_KERNELS(ROWS){.op = &cab_op_reduce, .direction = CAB_FORWARD, .run = cab_cpu_reduce},
    {.op = &cab_op_gather, .direction = CAB_FORWARD, .run = cab_cpu_gather},
    {.op = &cab_op_collect, .direction = CAB_FORWARD, .run = cab_cpu_collect}};

const cab_kernel_table cab_cpu_kernels = {.rows = rows, .n_row = sizeof rows / sizeof *rows};
