/* dtype.h - element types and the bf16 conversions. */
#ifndef CAB_TENSOR_DTYPE_H
#define CAB_TENSOR_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum cab_dtype {
    CAB_F32,
    CAB_BF16,
    CAB_F16,
    CAB_F64,
    CAB_I32,
    CAB_I64,
    CAB_U16,
    CAB_U8,
    CAB_F8_E4M3, /* 4 exponent bits, 3 of mantissa, no infinity: read from files, computed with nowhere */
    CAB_Q8_0,    /* from here on blocks of a few bits an element (blocks.h) */
    CAB_Q4_0,
    CAB_Q4_1,
    CAB_Q5_0,
    CAB_Q5_1,
    CAB_Q4_K,
    CAB_Q5_K,
    CAB_Q6_K,
    CAB_DTYPES
} cab_dtype;

/* The upper half of an IEEE fp32: 8 exponent bits, 7 of mantissa. */
typedef uint16_t cab_bf16;

/* Bytes of an element; 0 of blocks. */
size_t cab_dtype_size(cab_dtype dtype);
/* "F32", "BF16" ...: the names safetensors uses, and GGUF for blocks. */
const char *cab_dtype_name(cab_dtype dtype);

static inline float cab_bf16_to_f32(cab_bf16 value)
{
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* Round to nearest even; NaN stays NaN. Branch-free so that loops over it vectorise. */
static inline cab_bf16 cab_bf16_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t nan = (bits >> 16) | 0x40u;
    return (cab_bf16)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

/* Converts `count` elements; from any floating type to F32, BF16 or F16. Used where files are read and written and in tests,
 * not in kernels. */
void cab_convert(void *to, cab_dtype to_dtype, const void *from, cab_dtype from_dtype, size_t count);

#endif
