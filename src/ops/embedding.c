/* embedding.c - rows of a table by token id, plus rows of a second one by position.
 *
 *   y[b, l] = table[ids[b, l]] + positions[first + l - starts[b, l]]
 *   dtable[v] += sum of dy[b, l] over ids[b, l] = v        without starts: dpositions[first + l] += sum over b of dy[b, l]
 *
 * ids: (B, L) I32   table: (V, D)   positions: (max, D) or NULL   first: I32 or NULL   y: (B, L, D) */
#include "ops/embedding.h"

#include "ops/record.h"

const cab_op cab_op_embedding = {
    .name = "embedding", /* in: ids table positions first starts   out: y */
    .saves = CAB_SAVE_IN(CAB_EMBEDDING_IDS) | CAB_SAVE_IN(CAB_EMBEDDING_FIRST),
};

static bool fits(cab_graph *g, const cab_tensor *ids, const cab_tensor *table, const cab_tensor *positions)
{
    char text[96];
    if (ids->dtype != CAB_I32 || ids->n_dim != 2) {
        cab_graph_fail(g, CAB_ESHAPE, "embedding: \"%s\" is %s, expected (B, L) I32", ids->name,
                       cab_shape_text(ids, text));
        return false;
    }
    if (!cab_dtype_is_blocks(table->dtype) && !cab_expect_dtype(g, "embedding", table, CAB_DTYPES))
        return false;
    if (!positions)
        return true;
    if (positions->n_dim == 2 && cab_columns(positions) == cab_columns(table) && positions->shape[0] >= ids->shape[1])
        return cab_expect_dtype(g, "embedding", positions, CAB_DTYPES);
    cab_graph_fail(g, CAB_ESHAPE, "embedding: \"%s\" is %s, expected at least %" PRId64 " rows of %" PRId64,
                   positions->name, cab_shape_text(positions, text), ids->shape[1], cab_columns(table));
    return false;
}

cab_tensor *cab_embedding(cab_graph *g, cab_tensor *ids, cab_tensor *table, cab_tensor *positions, cab_tensor *first,
                          cab_tensor *starts, cab_dtype dtype)
{
    if (cab_graph_failed(g) || !ids || !table || !fits(g, ids, table, positions) ||
        !cab_expect_index(g, "embedding", first) || !cab_expect_starts(g, "embedding", starts, ids))
        return NULL;
    if (starts && positions && positions->trainable)
        return cab_graph_fail(g, CAB_EUNSUPPORTED, "embedding: positions that are trained, within documents");
    int64_t shape[] = {ids->shape[0], ids->shape[1], cab_columns(table)};
    cab_tensor *y = cab_graph_activation(g, "embedding", dtype, 3, shape);
    cab_tensor *in[CAB_EMBEDDING_INPUTS] = {ids, table, positions, first, starts};
    if (y)
        cab_graph_append(g, &cab_op_embedding, CAB_EMBEDDING_INPUTS, in, 1, &y, NULL, 0);
    return cab_graph_failed(g) ? NULL : y;
}
