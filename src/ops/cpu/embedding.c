/* embedding.c - gathering rows, and adding gradients back without atomics.
 *
 * Backward: threads share out the columns, and each goes through all tokens in order, so that rows that occur twice need
 * no lock and every sum has the order of the tokens, whatever the number of threads. */
#include "ops/embedding.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/expand.h"

#include <inttypes.h>

static int64_t first_of(const cab_node *node)
{
    const cab_tensor *first = node->in[CAB_EMBEDDING_FIRST];
    return first ? *(const int32_t *)first->data : 0;
}

static cab_status check_ids(const cab_node *node, int64_t first)
{
    const cab_tensor *ids = node->in[CAB_EMBEDDING_IDS], *table = node->in[CAB_EMBEDDING_TABLE];
    const cab_tensor *positions = node->in[CAB_EMBEDDING_POSITIONS];
    const int32_t *id = ids->data;
    int64_t n = cab_elements(ids), rows = cab_rows(table), length = cab_columns(ids);
    bool inside = true;
    for (int64_t i = 0; i < n; i++)
        inside &= id[i] >= 0 && id[i] < rows;
    for (int64_t i = 0; i < n && !inside; i++)
        if (id[i] < 0 || id[i] >= rows)
            return cab_fail(CAB_EARG, "embedding: token %" PRId64 " has id %" PRId32 ", expected 0 to %" PRId64, i,
                            id[i], rows - 1);
    if (positions && (first < 0 || first + length > cab_rows(positions)))
        return cab_fail(CAB_EARG, "embedding: positions %" PRId64 " to %" PRId64 ", expected 0 to %" PRId64, first,
                        first + length - 1, cab_rows(positions) - 1);
    return CAB_OK;
}

/* n columns of a row of the table, which may be in blocks. CAB_PIECE is a multiple of every block. */
static const float *row_of(const cab_tensor *table, int64_t row, int64_t column, int64_t n, float *buffer)
{
    if (!cab_dtype_is_blocks(table->dtype))
        return cab_row_in(table, row, column, n, buffer);
    cab_expand(table->dtype, (const char *)table->data + cab_dtype_bytes(table->dtype, row * table->ld + column),
               buffer, n);
    return buffer;
}

cab_status CAB_ISA(cab_embedding_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *ids = node->in[CAB_EMBEDDING_IDS], *table = node->in[CAB_EMBEDDING_TABLE];
    const cab_tensor *positions = node->in[CAB_EMBEDDING_POSITIONS], *y = node->out[0];
    const cab_tensor *starts = node->in[CAB_EMBEDDING_STARTS];
    const int32_t *id = ids->data, *start = starts ? starts->data : NULL;
    int64_t n = cab_elements(ids), length = cab_columns(ids), columns = cab_columns(y), first = first_of(node);
    CAB_TRY(check_ids(node, first));
#pragma omp parallel for num_threads(cab_threads_for(backend, n *columns)) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float a[CAB_PIECE], b[CAB_PIECE], sum[CAB_PIECE];
        for (int64_t c = 0; c < columns; c += CAB_PIECE) {
            int64_t width = columns - c < CAB_PIECE ? columns - c : CAB_PIECE;
            const float *row = row_of(table, id[i], c, width, a);
            float *out = cab_row_out(y, i, c, sum);
            memcpy(out, row, (size_t)width * sizeof *out);
            if (positions)
                cab_axpy(out, 1.0f, cab_row_in(positions, first + i % length - (start ? start[i] : 0), c, width, b),
                         width);
            cab_row_done(y, i, c, width, out);
        }
    }
    return CAB_OK;
}

cab_status CAB_ISA(cab_embedding_backward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *ids = node->in[CAB_EMBEDDING_IDS], *dy = node->gout[0];
    const cab_tensor *dtable = node->gin[CAB_EMBEDDING_TABLE], *dpositions = node->gin[CAB_EMBEDDING_POSITIONS];
    const int32_t *id = ids->data;
    int64_t n = cab_elements(ids), length = cab_columns(ids), columns = cab_columns(dy), first = first_of(node);
    int threads = cab_threads_for(backend, n * columns);
    int64_t width = (columns + threads - 1) / threads;
    width = (width + 15) / 16 * 16;
    width = width < CAB_PIECE ? width : CAB_PIECE;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t c = 0; c < columns; c += width) {
        float buffer[CAB_PIECE];
        int64_t count = columns - c < width ? columns - c : width;
        for (int64_t i = 0; i < n; i++) {
            const float *row = cab_row_in(dy, i, c, count, buffer);
            if (dtable)
                cab_axpy(cab_at(dtable, id[i], c), 1.0f, row, count);
            if (dpositions)
                cab_axpy(cab_at(dpositions, first + i % length, c), 1.0f, row, count);
        }
    }
    return CAB_OK;
}
