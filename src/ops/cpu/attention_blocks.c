/* attention_blocks.c - which products a block of attention takes, and where they work. Scores are made for CAB_ATTENTION_ROWS queries of
 * one head at a time against the keys that they can see. */
#include "ops/cpu/attention_blocks.h"

#include "ops/cpu/attention_bf16.h"
#include "ops/cpu/device.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/onednn.h"

static const cab_attention_shape *shape_of(const cab_node *node)
{
    return node->attributes;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t cab_attention_length(const cab_node *node)
{
    return node->in[0]->shape[1];
}

int64_t cab_attention_blocks(const cab_node *node)
{
    return (cab_attention_length(node) + CAB_ATTENTION_ROWS - 1) / CAB_ATTENTION_ROWS;
}

static cab_status get(const cab_backend *backend, cab_attention_block *block, cab_gemm_shape shape,
                      const cab_gemm **gemm)
{
    shape.serial = true;
    CAB_TRY(cab_gemm_get(backend, &shape, gemm));
    size_t scratch = cab_gemm_scratch(*gemm);
    block->scratch = scratch > block->scratch ? scratch : block->scratch;
    return CAB_OK;
}

static cab_status get_forward(const cab_node *node, const cab_backend *backend, cab_attention_block *b)
{
    const cab_tensor *q = node->in[0], *k = node->in[1], *v = node->in[2];
    int64_t width = shape_of(node)->head_dim;
    CAB_TRY(get(backend, b,
                (cab_gemm_shape){.m = b->rows,
                                 .n = b->keys,
                                 .k = width,
                                 .a = cab_side_of(q, false),
                                 .b = cab_side_of(k, true),
                                 .c = cab_side_dense(CAB_F32, b->keys, false)},
                &b->scores));
    return node->backward ? CAB_OK
                          : get(backend, b,
                                (cab_gemm_shape){.m = b->rows,
                                                 .n = width,
                                                 .k = b->keys,
                                                 .a = cab_side_dense(q->dtype, b->keys, false),
                                                 .b = cab_side_of(v, false),
                                                 .c = cab_side_of(node->out[0], false)},
                                &b->values);
}

static cab_status get_backward(const cab_node *node, const cab_backend *backend, cab_attention_block *b)
{
    const cab_tensor *q = node->in[0], *k = node->in[1], *v = node->in[2], *dy = node->gout[0];
    int64_t width = shape_of(node)->head_dim;
    cab_side p = cab_side_dense(q->dtype, b->keys, false), transposed = cab_side_dense(q->dtype, b->keys, true);
    cab_side sum = cab_side_dense(CAB_F32, width, false), dp = cab_side_dense(CAB_F32, b->keys, false);
    cab_gemm_shape to_keys = {
        .m = b->rows, .n = b->keys, .k = width, .a = cab_side_of(dy, false), .b = cab_side_of(v, true), .c = dp};
    cab_gemm_shape from_keys = {.m = b->keys, .n = width, .k = b->rows, .a = transposed, .c = sum, .accumulate = true};
    CAB_TRY(get(backend, b, to_keys, &b->dp));
    if (node->gin[0])
        CAB_TRY(get(backend, b,
                    (cab_gemm_shape){.m = b->rows,
                                     .n = width,
                                     .k = b->keys,
                                     .a = p,
                                     .b = cab_side_of(k, false),
                                     .c = cab_side_of(node->gin[0], false),
                                     .accumulate = node->accumulate & 1u},
                    &b->dq));
    from_keys.b = cab_side_of(q, false);
    CAB_TRY(get(backend, b, from_keys, &b->dk));
    from_keys.b = cab_side_of(dy, false);
    return get(backend, b, from_keys, &b->dv);
}

cab_status cab_attention_block_get(const cab_node *node, const cab_backend *backend, int64_t index,
                                   cab_attention_block *block)
{
    const cab_attention_shape *s = shape_of(node);
    int64_t length = cab_attention_length(node), first = index * CAB_ATTENTION_ROWS, unused, begin, end;
    int64_t rows = min64(CAB_ATTENTION_ROWS, length - first);
    cab_attention_range(s, length, first, &begin, &unused);
    cab_attention_range(s, length, first + rows - 1, &unused, &end);
    begin -= begin % CAB_ATTENTION_ROWS; /* so that few different sizes occur */
    *block = (cab_attention_block){.first = first, .rows = rows, .first_key = begin, .keys = end - begin};
    CAB_TRY(get_forward(node, backend, block));
    return node->backward ? get_backward(node, backend, block) : CAB_OK;
}

static size_t place(size_t *end, size_t bytes)
{
    size_t offset = *end;
    *end += (bytes + 63) / 64 * 64;
    return offset;
}

cab_attention_memory cab_attention_memory_of(const cab_node *node, size_t gemm_scratch)
{
    size_t length = (size_t)cab_attention_length(node), width = (size_t)shape_of(node)->head_dim;
    size_t block = (size_t)min64(CAB_ATTENTION_ROWS, (int64_t)length) * length;
    bool low = node->in[0]->dtype == CAB_BF16;
    cab_attention_memory m = {0};
    m.scores = place(&m.size, block * sizeof(float));
    m.p = low ? place(&m.size, block * sizeof(cab_bf16)) : m.scores;
    if (node->backward) {
        m.dp = place(&m.size, block * sizeof(float));
        m.ds = low ? place(&m.size, block * sizeof(cab_bf16)) : m.dp;
        m.dk = place(&m.size, length * width * sizeof(float));
        m.dv = place(&m.size, length * width * sizeof(float));
        m.slope = place(&m.size, shape_of(node)->cap > 0 ? length * sizeof(float) : 0);
    }
    m.gemm = place(&m.size, gemm_scratch);
    place(&m.table, (size_t)cab_attention_blocks(node) * sizeof(cab_attention_block));
    return m;
}

size_t cab_attention_scratch(const cab_node *node, const cab_backend *backend)
{
    size_t most = 0;
    for (int64_t i = 0; i < cab_attention_blocks(node); i++) {
        cab_attention_block block;
        if (cab_attention_block_get(node, backend, i, &block) != CAB_OK)
            return 0;
        most = block.scratch > most ? block.scratch : most;
    }
    cab_attention_memory m = cab_attention_memory_of(node, most);
    return m.table + m.size * (size_t)backend->threads;
}

/* ---- with bf16 instructions ----------------------------------------------------------------------------------------- */

static int64_t whole_lines(int64_t n)
{
    return (n + CAB_ATTENTION_LINE - 1) / CAB_ATTENTION_LINE * CAB_ATTENTION_LINE;
}

cab_attention_packing cab_attention_packing_of(const cab_node *node)
{
    enum { APART = 16 }; /* rows of 2^n floats would meet in the same places of the first-level cache */
    const int64_t length = cab_attention_length(node), groups = node->in[0]->shape[0] * shape_of(node)->n_kv_head;
    cab_attention_packing m = {
        .length = length, .padded = whole_lines(length), .depth = whole_lines(shape_of(node)->head_dim)};
    const size_t packed = (size_t)(groups * m.padded * m.depth) * sizeof(cab_bf16);
    m.score_ld = m.padded + APART;
    place(&m.shared, packed);
    m.values = place(&m.shared, packed);
    place(&m.own, (size_t)(CAB_ATTENTION_TILE * m.depth) * sizeof(cab_bf16));
    m.p = place(&m.own, (size_t)(CAB_ATTENTION_TILE * m.padded) * sizeof(cab_bf16));
    m.s = place(&m.own, (size_t)(CAB_ATTENTION_TILE * m.score_ld) * sizeof(float));
    return m;
}

size_t cab_attention_bf16_scratch(const cab_node *node, const cab_backend *backend)
{
    const cab_attention_packing m = cab_attention_packing_of(node);
    return m.shared + m.own * (size_t)backend->threads;
}

bool cab_attention_bf16_fits(const cab_node *node, const cab_backend *backend)
{
    return node->in[0]->dtype == CAB_BF16 && cab_cpu_isa(backend) == CAB_ISA_V4 &&
           __builtin_cpu_supports("avx512bf16") && !cab_onednn_has_amx();
}

/* ---- the others ----------------------------------------------------------------------------------------------------- */

/* Per thread: the scores of all positions, and one row of q, k or v. */
size_t cab_attention_step_scratch(const cab_node *node, const cab_backend *backend)
{
    size_t row = (size_t)node->in[3]->shape[1] + 2 * (size_t)shape_of(node)->head_dim;
    return row * sizeof(float) * (size_t)backend->threads;
}

/* cos and sin of every position and frequency. */
size_t cab_rotary_scratch(const cab_node *node, const cab_backend *backend)
{
    (void)backend;
    const cab_tensor *x = node->backward ? node->gout[0] : node->in[0];
    return (size_t)x->shape[1] * (size_t)cab_elements(node->in[1]) * 2 * sizeof(float);
}
