#include "models/part.h"

#include "base/memory.h"

/* Where a part lies: rows first .. first + rows of a parameter, or its columns where it is stored (in, out). */
typedef struct place {
    const cab_tensor *t; /* NULL: the model has no such part */
    cab_layout layout;
    int64_t first, rows; /* rows 0: all */
} place;

static place weight(const cab_dense *dense)
{
    return (place){dense->w, dense->layout, 0, 0};
}

static place vector(const cab_tensor *t)
{
    return (place){t, CAB_OUT_IN, 0, 0};
}

/* The weight or the bias of Q, K or V. */
static place projection(const cab_block *block, cab_tap which, bool bias)
{
    const cab_attention_mixer *a = &block->attention;
    if (!cab_block_attends(block))
        return (place){0};
    const cab_dense *own = which == CAB_TAP_QUERY ? &a->q : which == CAB_TAP_KEY ? &a->k : &a->v;
    const cab_dense *dense = a->qkv.w != NULL ? &a->qkv : own;
    const int64_t q = cab_block_width(block, CAB_TAP_QUERY), k = cab_block_width(block, CAB_TAP_KEY);
    const int64_t first = a->qkv.w == NULL || which == CAB_TAP_QUERY ? 0 : which == CAB_TAP_KEY ? q : q + k;
    return (place){bias ? dense->b : dense->w, dense->layout, first, cab_block_width(block, which)};
}

/* The weight or the bias of the gate, or of what it is multiplied with. */
static place gated(const cab_mlp *mlp, bool gate, bool bias)
{
    const cab_dense *own = gate ? &mlp->gate : &mlp->up, *dense = mlp->gate_up.w != NULL ? &mlp->gate_up : own;
    if (!cab_mlp_gated(mlp))
        return (place){0};
    if (mlp->gate_up.w == NULL)
        return (place){bias ? dense->b : dense->w, dense->layout, 0, 0};
    const int64_t rows = dense->w->shape[dense->layout == CAB_IN_OUT ? 1 : 0] / 2;
    return (place){bias ? dense->b : dense->w, dense->layout, gate ? 0 : rows, rows};
}

static place place_in_layer(const cab_block *block, cab_part part)
{
    const cab_mlp *mlp = &block->mlp;
    const bool attends = cab_block_attends(block), plain = !cab_mlp_gated(mlp);
    switch (part) {
    case CAB_PART_NORM_W:
        return vector(block->norm.w);
    case CAB_PART_NORM_B:
        return vector(block->norm.b);
    case CAB_PART_MLP_NORM_W:
        return vector(block->mlp_norm.w);
    case CAB_PART_MLP_NORM_B:
        return vector(block->mlp_norm.b);
    case CAB_PART_Q_W:
    case CAB_PART_Q_B:
        return projection(block, CAB_TAP_QUERY, part == CAB_PART_Q_B);
    case CAB_PART_K_W:
    case CAB_PART_K_B:
        return projection(block, CAB_TAP_KEY, part == CAB_PART_K_B);
    case CAB_PART_V_W:
    case CAB_PART_V_B:
        return projection(block, CAB_TAP_VALUE, part == CAB_PART_V_B);
    case CAB_PART_OUT_W:
        return attends ? weight(&block->attention.out) : (place){0};
    case CAB_PART_OUT_B:
        return attends ? vector(block->attention.out.b) : (place){0};
    case CAB_PART_FC1_W:
        return plain ? weight(&mlp->up) : (place){0};
    case CAB_PART_FC1_B:
        return plain ? vector(mlp->up.b) : (place){0};
    case CAB_PART_GATE_W:
    case CAB_PART_GATE_B:
        return gated(mlp, true, part == CAB_PART_GATE_B);
    case CAB_PART_UP_W:
    case CAB_PART_UP_B:
        return gated(mlp, false, part == CAB_PART_UP_B);
    case CAB_PART_Q_NORM:
        return vector(attends ? block->attention.q_norm.w : NULL);
    case CAB_PART_K_NORM:
        return vector(attends ? block->attention.k_norm.w : NULL);
    case CAB_PART_FC2_W:
        return weight(&mlp->down);
    case CAB_PART_FC2_B:
        return vector(mlp->down.b);
    default:
        return (place){0};
    }
}

static place place_of(const cab_network *n, cab_part part, int layer)
{
    switch (part) {
    case CAB_PART_EMBEDDING:
        return n->embedding != NULL ? vector(n->embedding) : weight(&n->patches);
    case CAB_PART_EMBEDDING_B:
        return vector(n->patches.b);
    case CAB_PART_CLASS_TOKEN:
        return vector(n->special[0]);
    case CAB_PART_POSITIONS:
        return vector(n->positions);
    case CAB_PART_HEAD_W:
        return weight(&n->head);
    case CAB_PART_HEAD_B:
        return vector(n->head.b);
    case CAB_PART_FINAL_NORM_W:
        return vector(n->final_norm.w);
    case CAB_PART_FINAL_NORM_B:
        return vector(n->final_norm.b);
    default:
        return place_in_layer(&n->blocks[layer], part);
    }
}

static cab_status copy(const cab_params *params, const place *p, cab_part_values *out)
{
    const cab_tensor *t = p->t;
    const bool matrix = t->n_dim == 2, transposed = matrix && p->layout == CAB_IN_OUT;
    const int64_t all_rows = !matrix ? cab_elements(t) : transposed ? t->shape[1] : t->shape[0];
    const int64_t rows = p->rows > 0 ? p->rows : all_rows;
    const int64_t columns = !matrix ? 1 : transposed ? t->shape[0] : t->shape[1];
    float *all = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&all, (size_t)cab_elements(t), t->name));
    CAB_GOTO(cab_params_read(params, t, all));
    CAB_GOTO(CAB_NEW(&out->values, (size_t)(rows * columns), t->name));
    out->rows = rows;
    out->columns = columns;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            out->values[r * columns + c] =
                transposed ? all[c * t->shape[1] + p->first + r] : all[(p->first + r) * columns + c];
done:
    cab_free(all);
    return status;
}

/* (rows, n D) -> (rows, D): the sum of the n. */
static void sum_tokens(cab_part_values *p, int64_t n)
{
    const int64_t D = p->columns / n;
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t d = 0; d < D; d++) {
            float sum = p->values[r * n * D + d];
            for (int64_t i = 1; i < n; i++)
                sum += p->values[(r * n + i) * D + d];
            p->values[r * D + d] = sum;
        }
    p->columns = D;
}

cab_status cab_model_part(const cab_model *model, cab_part part, int layer, cab_part_values *out)
{
    const cab_network *n = &model->network;
    const place p = place_of(n, part, layer);
    *out = (cab_part_values){0};
    if (p.t == NULL)
        return CAB_OK;
    CAB_TRY(copy(model->params, &p, out));
    if (part == CAB_PART_POSITIONS) {
        out->columns = model->config.d_model;
        out->rows = cab_elements(p.t) / out->columns;
    }
    if (part == CAB_PART_HEAD_W && n->read_count > 1)
        sum_tokens(out, n->read_count);
    return CAB_OK;
}
