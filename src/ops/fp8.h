/* fp8.h - linear layers of frozen bf16 weights as products of 8-bit floats (e4m3: 3 bits of mantissa, up to 448), on devices that
 * multiply them, which on NVIDIA's GPUs begins with compute capability 8.9. Both operands have one scale per tensor, largest magnitude
 * / 448: the weight's is taken once, the activation's in every run. Sums are fp32, results bf16.
 *
 * A model asks for it by setting cab_tensor.fp8 of its matrices; cab_linear() does the rest. */
#ifndef CAB_OPS_FP8_H
#define CAB_OPS_FP8_H

#include "ops/ops.h"

extern const cab_op cab_op_quantise, cab_op_linear_fp8;

enum { CAB_FP8_X, CAB_FP8_X_SCALE, CAB_FP8_W, CAB_FP8_W_SCALE, CAB_FP8_B, CAB_FP8_INPUTS };

typedef struct cab_quantise_attributes {
    bool transposed; /* x is a matrix, of which the transpose is written */
} cab_quantise_attributes;

/* CAB_EUNSUPPORTED, in a line, where the device does not multiply 8-bit floats. */
cab_status cab_fp8_check(cab_backend *backend);
/* Whether a matrix can be for them: bf16, both sides multiples of 16. */
bool cab_fp8_fits(const cab_tensor *w);

/* For cab_linear(): its result, or NULL where the backend has no such product or the graph has failed. */
cab_tensor *cab_fp8_linear(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, cab_layout layout);

#endif
