/* fp8.h - linear layers of frozen bf16 weights as products of 8-bit floats (e4m3: 3 bits of mantissa, up to 448), on GPUs that
 * multiply them, from compute capability 8.9 on. Both operands have one scale per tensor, largest magnitude / 448: the weight's
 * is taken once, the activation's in every run. Sums are fp32, results bf16.
 *
 * A model asks for it by setting cab_tensor.fp8 of its matrices; cab_linear() does the rest. */
#ifndef CAB_OPS_FP8_H
#define CAB_OPS_FP8_H

#include "ops/ops.h"

/* CAB_EUNSUPPORTED, in a line, where the device does not multiply 8-bit floats. */
cab_status cab_fp8_check(cab_backend *backend);
/* Whether a matrix can be for them: bf16, both sides multiples of 16. */
bool cab_fp8_fits(const cab_tensor *w);

#ifdef CAB_WITH_CUDA
/* For cab_linear(): its result, or NULL where cuBLASLt has no such product or the graph has failed. */
cab_tensor *cab_fp8_linear(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, cab_layout layout);
#endif

#endif
