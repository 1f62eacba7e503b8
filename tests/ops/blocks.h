/* blocks.h - matrices in blocks of few bits (tensor/blocks.h) for tests, on the device of CAB_TEST_DEVICE. */
#ifndef BLOCKS_H
#define BLOCKS_H

#include "ops/check.h"
#include "tensor/blocks.h"

static const cab_dtype blocks_types[] = {CAB_Q8_0, CAB_Q4_0, CAB_Q4_1, CAB_Q5_0,
                                         CAB_Q5_1, CAB_Q4_K, CAB_Q5_K, CAB_Q6_K};
enum { BLOCKS_TYPES = sizeof blocks_types / sizeof *blocks_types };

static inline bool blocks_on_gpu(void)
{
    return strcmp(check_device(), "cpu") != 0;
}

/* Where a block has its fp16 numbers; -1: no second one. */
static inline void blocks_halves(cab_dtype dtype, int at[2])
{
    at[0] = dtype == CAB_Q6_K ? 208 : 0;
    at[1] = dtype == CAB_Q4_1 || dtype == CAB_Q5_1 || dtype == CAB_Q4_K || dtype == CAB_Q5_K ? 2 : -1;
}

/* Any bytes are a block, as long as its fp16 numbers are: 0.001 to 0.3, some negative, some subnormal. */
static inline uint8_t *blocks_make(cab_dtype dtype, int64_t n)
{
    static const uint16_t scales[] = {0x1419, 0x2e66, 0xb0cd, 0x34cd, 0x0123, 0x9419};
    const size_t bytes = cab_dtype_bytes(dtype, n), block = cab_dtype_bytes(dtype, cab_dtype_block(dtype));
    uint8_t *data = malloc(bytes);
    uint32_t seed = 1 + (uint32_t)dtype;
    int at[2];
    assert_non_null(data);
    blocks_halves(dtype, at);
    for (size_t i = 0; i < bytes; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (uint8_t)(seed >> 24);
    }
    for (size_t b = 0; b < bytes; b += block)
        for (int i = 0; i < 2 && at[i] >= 0; i++)
            memcpy(data + b + at[i], &scales[(b / block * 5 + (size_t)i) % 6], 2);
    return data;
}

/* A matrix of such blocks: on the processor where they lie, on a device a copy. */
static inline cab_tensor *blocks_add(cab_params *params, const char *name, cab_dtype dtype, const int64_t shape[2],
                                     const uint8_t *blocks)
{
    cab_tensor *w = NULL;
    if (!blocks_on_gpu()) {
        check_ok(cab_params_add_mapped(params, name, dtype, 2, shape, blocks, &w));
        return w;
    }
    check_ok(cab_params_add(params, name, dtype, 2, shape, CAB_NO_DECAY, &w));
    check_ok(cab_params_write_blocks(params, w, blocks));
    return w;
}

/* The same expanded first, in F32 or BF16. */
static inline cab_tensor *blocks_add_expanded(cab_params *params, const char *name, cab_dtype stored, cab_dtype dtype,
                                              const int64_t shape[2], const uint8_t *blocks)
{
    cab_tensor *w = NULL;
    float *values = malloc((size_t)(shape[0] * shape[1]) * sizeof *values);
    assert_non_null(values);
    cab_blocks_expand(stored, blocks, values, shape[0] * shape[1]);
    check_ok(cab_params_add(params, name, dtype, 2, shape, CAB_DECAY, &w));
    check_ok(cab_params_write(params, w, values));
    free(values);
    return w;
}

/* n numbers of bf16 between -1 and 1. */
static inline void blocks_fill(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((i * 37 + i / 11) % 65 - 32) / 32.0f;
}

/* Writes fp32 numbers to an input of F32 or BF16, and reads such a tensor. */
static inline void blocks_write(cab_graph *g, cab_tensor *t, const float *values)
{
    void *raw = malloc(cab_tensor_bytes(t));
    assert_non_null(raw);
    cab_convert(raw, t->dtype, values, CAB_F32, (size_t)cab_elements(t));
    check_ok(cab_tensor_write(g, t, raw));
    free(raw);
}

static inline void blocks_read(cab_graph *g, const cab_tensor *t, float *values)
{
    void *raw = malloc(cab_tensor_bytes(t));
    assert_non_null(raw);
    check_ok(cab_tensor_read(g, t, raw));
    cab_convert(values, CAB_F32, raw, t->dtype, (size_t)cab_elements(t));
    free(raw);
}

#endif
