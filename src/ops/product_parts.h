/* product_parts.h - a bf16 product cut where sizes are multiples of 8.
 *
 * A side of a matrix that is no multiple of 16 bytes keeps a GPU's library from its fast kernels, wherever the rows begin: products
 * with GPT-2's 50,257 words run at an eighth of the speed of 50,256, those with 3,084 channels at a third. Two products,
 * of the largest multiple of 8 and of the rest, take little more than the first alone. */
#ifndef CAB_OPS_PRODUCT_PARTS_H
#define CAB_OPS_PRODUCT_PARTS_H

#include "ops/product.h"

enum { CAB_PRODUCT_STEP = 8, CAB_PRODUCT_PARTS = 8 };

/* To be run in order: `shape` with the operands that many elements further. */
typedef struct cab_product_part {
    cab_gemm_shape shape;
    int64_t a, b, c, bias;
} cab_product_part;

/* Cuts `shape` (one product, batch is not read) into 1 to CAB_PRODUCT_PARTS parts and returns how many. A size is cut where it runs
 * along the rows of a matrix, all rows begin at multiples of 8 elements, and the product is large enough to gain by it.
 * Along k the rest comes first, so that the one more rounding of a bf16 C is that of a small sum. */
int cab_product_cut(const cab_gemm_shape *shape, cab_product_part parts[CAB_PRODUCT_PARTS]);

#endif
