#include "tensor/dtype.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[CAB_DTYPES] = {
    [CAB_F32] = {"F32", 4},         [CAB_BF16] = {"BF16", 2}, [CAB_F16] = {"F16", 2},   [CAB_F64] = {"F64", 8},
    [CAB_I32] = {"I32", 4},         [CAB_I64] = {"I64", 8},   [CAB_U16] = {"U16", 2},   [CAB_U8] = {"U8", 1},
    [CAB_F8_E4M3] = {"F8_E4M3", 1}, [CAB_Q8_0] = {"Q8_0", 0}, [CAB_Q4_0] = {"Q4_0", 0}, [CAB_Q4_1] = {"Q4_1", 0},
    [CAB_Q5_0] = {"Q5_0", 0},       [CAB_Q5_1] = {"Q5_1", 0}, [CAB_Q4_K] = {"Q4_K", 0}, [CAB_Q5_K] = {"Q5_K", 0},
    [CAB_Q6_K] = {"Q6_K", 0},
};

size_t cab_dtype_size(cab_dtype dtype)
{
    return dtypes[dtype].size;
}

const char *cab_dtype_name(cab_dtype dtype)
{
    return dtypes[dtype].name;
}

/* IEEE half: 5 exponent bits, 10 of mantissa. Multiplying by 2^112 moves the exponent bias from 15 to 127 and
 * normalises subnormals on the way. */
static float f16_to_f32(uint16_t value)
{
    uint32_t magnitude = (uint32_t)(value & 0x7fffu) << 13;
    uint32_t sign = (uint32_t)(value & 0x8000u) << 16;
    float result;
    if ((value & 0x7c00u) == 0x7c00u) { /* infinity and NaN */
        magnitude |= 0x7f800000u;
        memcpy(&result, &magnitude, sizeof result);
    } else {
        memcpy(&result, &magnitude, sizeof result);
        result *= 0x1p112f;
    }
    uint32_t bits;
    memcpy(&bits, &result, sizeof bits);
    bits |= sign;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* Round to nearest even; too large becomes infinity, NaN stays NaN. */
static uint16_t f16_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x47800000u) /* 2^16: beyond the largest half whatever the rounding */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* 2^-14: a subnormal half, in steps of 2^-24; adding 0.5 rounds to them */
        float shifted = 0;
        memcpy(&shifted, &magnitude, sizeof shifted);
        shifted += 0.5f;
        uint32_t rounded;
        memcpy(&rounded, &shifted, sizeof rounded);
        return (uint16_t)(sign | (rounded - 0x3f000000u));
    }
    const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

/* As f16_to_f32; the bias is 7. */
static float f8_to_f32(uint8_t value)
{
    uint32_t bits = (value & 0x7fu) == 0x7fu ? 0x7fc00000u : (uint32_t)(value & 0x7fu) << 20;
    float result;
    memcpy(&result, &bits, sizeof result);
    result *= 0x1p120f;
    return value & 0x80u ? -result : result;
}

static float load(const void *from, cab_dtype dtype, size_t i)
{
    switch (dtype) {
    case CAB_F32:
        return ((const float *)from)[i];
    case CAB_BF16:
        return cab_bf16_to_f32(((const cab_bf16 *)from)[i]);
    case CAB_F16:
        return f16_to_f32(((const uint16_t *)from)[i]);
    case CAB_F64:
        return (float)((const double *)from)[i];
    case CAB_I32:
        return (float)((const int32_t *)from)[i];
    case CAB_I64:
        return (float)((const int64_t *)from)[i];
    case CAB_F8_E4M3:
        return f8_to_f32(((const uint8_t *)from)[i]);
    case CAB_U16:
        return (float)((const uint16_t *)from)[i];
    default:
        return (float)((const uint8_t *)from)[i];
    }
}

void cab_convert(void *to, cab_dtype to_dtype, const void *from, cab_dtype from_dtype, size_t count)
{
    if (to_dtype == from_dtype) {
        memcpy(to, from, count * cab_dtype_size(to_dtype));
    } else if (to_dtype == CAB_F32) {
        for (size_t i = 0; i < count; i++)
            ((float *)to)[i] = load(from, from_dtype, i);
    } else if (to_dtype == CAB_F16) {
        for (size_t i = 0; i < count; i++)
            ((uint16_t *)to)[i] = f16_from_f32(load(from, from_dtype, i));
    } else {
        for (size_t i = 0; i < count; i++)
            ((cab_bf16 *)to)[i] = cab_bf16_from_f32(load(from, from_dtype, i));
    }
}
