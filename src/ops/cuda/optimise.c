/* optimise.c - what the GPU changes in a recorded list before the list runs (src/tensor/rewrite.h).
 *
 *   linear_gelu        a linear layer and the GELU that follows: GELU is applied while the product is in registers
 *   layer_norm_of_sum, rms_norm_of_sum   a sum and the norm of it: the norm need not read the sum again
 *   saved states       a scan with one decay per channel saves its states for its backward node
 *   scan_of_product    such a scan computes dt itself from the inputs of the linear layer that gives dt, if these are
 *                      few: the layer would write 32 times as much as it reads
 *
 * Before that, as nodes are recorded, a linear layer's bias is exchanged for its copy in the product's dtype: cuBLASLt adds no other.
 *
 * The arithmetic is that of the ops; their values stay what they were. The kernels say how they hold their data. */
#include "ops/cuda/optimise.h"

#include "ops/elementwise.h"
#include "ops/matrix.h"
#include "ops/norm.h"
#include "ops/scan.h"

static double linear_flops(const cab_node *node)
{
    return cab_op_linear.flops(node);
}

const cab_op cab_op_linear_gelu = {.name = "linear_gelu", .flops = linear_flops};
const cab_op cab_op_layer_norm_of_sum = {.name = "layer_norm_of_sum"};
const cab_op cab_op_rms_norm_of_sum = {.name = "rms_norm_of_sum"};
const cab_op cab_op_scan_of_product = {.name = "scan_of_product"};

void cab_cuda_adapt(cab_graph *g, cab_node *node)
{
    const cab_tensor *bias = node->op == &cab_op_linear ? node->in[2] : NULL;
    if (bias != NULL && bias->kind == CAB_PARAMETER && bias->dtype != node->out[0]->dtype)
        node->in[2] = cab_graph_weight(g, node->in[2], node->out[0]->dtype);
}

static bool multiplies_dt(const cab_node *node, int i, const cab_node *writer, const cab_backend *backend)
{
    return node->op == &cab_op_scan && writer->op == &cab_op_linear &&
           cab_scan_multiplies_cuda(node, i, writer, backend);
}

static void multiply_dt(cab_node *node, int i, const cab_node *product)
{
    node->op = &cab_op_scan_of_product;
    node->in[i] = product->in[0];
    node->in[CAB_SCAN_BOTH + i / CAB_SCAN_INPUTS] = product->in[1];
    node->n_in = CAB_SCAN_BOTH + 2;
}

cab_status cab_cuda_optimise(cab_graph *g)
{
    static const cab_fusion fusions[] = {{.first = &cab_op_linear,
                                          .second = &cab_op_activate,
                                          .fused = &cab_op_linear_gelu,
                                          .fits = cab_linear_gelu_fits_cuda},
                                         {.first = &cab_op_add,
                                          .second = &cab_op_layer_norm,
                                          .fused = &cab_op_layer_norm_of_sum,
                                          .fits = cab_norm_of_sum_fits_cuda,
                                          .attributes_of_second = true},
                                         {.first = &cab_op_add,
                                          .second = &cab_op_rms_norm,
                                          .fused = &cab_op_rms_norm_of_sum,
                                          .fits = cab_norm_of_sum_fits_cuda,
                                          .attributes_of_second = true}};
    CAB_TRY(cab_rewrite_save_for_backward(g, &cab_op_scan, cab_scan_saved_cuda));
    CAB_TRY(cab_rewrite_recompute_in_readers(g, multiplies_dt, multiply_dt));
    return cab_rewrite_fuse(g, fusions, sizeof fusions / sizeof *fusions);
}
