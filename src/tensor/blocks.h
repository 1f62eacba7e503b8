/* blocks.h - matrices of few bits an element, as GGUF files hold them: blocks of 32 or 256 elements of a row, each
 * block with its own scale, some with an offset. Nothing is computed in these types: a row, or a part of one, is
 * expanded where it is read.
 *
 * d and m are fp16 scale and offset of a block, q the stored integers:
 *   Q8_0   32 elements, 34 bytes    x = d q                q of 8 bits, signed
 *   Q4_0   32 elements, 18 bytes    x = d (q - 8)          q of 4 bits
 *   Q4_1   32 elements, 20 bytes    x = d q + m
 *   Q5_0   32 elements, 22 bytes    x = d (q - 16)         q of 5 bits: the fifth ones stand together
 *   Q5_1   32 elements, 24 bytes    x = d q + m
 *   Q4_K  256 elements, 144 bytes   x = d s q - m o        s, o of 6 bits for each 32 elements
 *   Q5_K  256 elements, 176 bytes   x = d s q - m o
 *   Q6_K  256 elements, 210 bytes   x = d s (q - 32)       s of 8 bits for each 16 elements */
#ifndef CAB_TENSOR_BLOCKS_H
#define CAB_TENSOR_BLOCKS_H

#include "tensor/dtype.h"

#include <stdbool.h>

/* Whether the type is one of those above. */
bool cab_dtype_is_blocks(cab_dtype dtype);
/* Elements of a block: rows are a multiple of this long. 1 for plain types. */
int64_t cab_dtype_block(cab_dtype dtype);
/* Bytes of n elements; n is a multiple of cab_dtype_block(). */
size_t cab_dtype_bytes(cab_dtype dtype, int64_t n);

/* Expands n elements, a multiple of the type's block, to fp32. `from` needs no alignment. */
void cab_blocks_expand(cab_dtype dtype, const void *from, float *to, int64_t n);

/* Rounds n finite numbers, a multiple of the type's block, to F32, F16, BF16, Q8_0 (d = max |x| / 127, q = round(x / d)) or Q4_0
 * (d = -x* / 8 of the x* of the largest magnitude, q = floor(x / d + 8.5), at most 15). Returns -1, or an index: from there on something is
 * too large for the type, and what is left in `to` is of no use. `to` needs the alignment of its elements, none for blocks. */
int64_t cab_blocks_pack(cab_dtype dtype, const float *from, void *to, int64_t n);

#endif
