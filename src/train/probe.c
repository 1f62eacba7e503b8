/* probe.c - all layers' taps of one sequence are kept; a matrix is made of them when it is asked for. */
#include "train/probe.h"

#include "base/memory.h"
#include "train/mixing.h"

#include <string.h>

/* What a layer's matrix comes of: three taps, Q and K, or C, B and what the decay comes from; and two parameters. */
enum { PARTS = 5 };

struct cab_probe {
    const cab_model *model;
    cab_graph *g;
    cab_tensor *input;
    cab_tensor **taps[CAB_TAPS]; /* n_layer each; in one block, that of taps[0] */
    int64_t length, tokens;      /* of the model, and compared */
    unsigned char *raw;          /* a tap as the graph holds it, with what it is a view of */
    size_t raw_size;
    float *values[PARTS];
    size_t values_size[PARTS];
    float *matrix; /* (length, length) */
};

/* ---- recording ------------------------------------------------------------------------------------------------------- */

static void probe_record(cab_probe *p)
{
    const cab_config *c = &p->model->config;
    const cab_taps taps = {.query = p->taps[CAB_TAP_QUERY],
                           .key = p->taps[CAB_TAP_KEY],
                           .C = p->taps[CAB_TAP_C],
                           .B = p->taps[CAB_TAP_B],
                           .query_back = p->taps[CAB_TAP_QUERY_BACK],
                           .key_back = p->taps[CAB_TAP_KEY_BACK],
                           .decay = p->taps[CAB_TAP_DECAY],
                           .decay_back = p->taps[CAB_TAP_DECAY_BACK]};
    p->input = cab_model_input(p->g, p->model, 1, p->length);
    cab_model_record(p->g, p->model, p->input, false, &taps);
    for (int i = 0; i < CAB_TAPS; i++)
        for (int l = 0; l < c->n_layer; l++)
            cab_graph_keep(p->g, p->taps[i][l]);
}

cab_status cab_probe_new(const cab_model *model, int64_t length, cab_probe **out)
{
    const cab_config *c = &model->config;
    const size_t n = (size_t)c->n_layer;
    cab_probe *p = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&p, 1, "a probe"));
    p->model = model;
    p->length = cab_model_tokens(model, length);
    p->tokens = p->length - (c->n_special > 1 ? c->n_special - 1 : 0);
    CAB_GOTO(CAB_NEW(&p->taps[0], n * CAB_TAPS, "taps"));
    for (int i = 1; i < CAB_TAPS; i++)
        p->taps[i] = p->taps[0] + (size_t)i * n;
    CAB_GOTO(CAB_NEW(&p->matrix, (size_t)(p->length * p->length), "a matrix of tokens by tokens"));
    CAB_GOTO(cab_graph_new(model->backend, &p->g));
    probe_record(p);
    status = cab_graph_plan(p->g, NULL);
done:
    if (status != CAB_OK)
        cab_probe_free(p);
    else
        *out = p;
    return status;
}

void cab_probe_free(cab_probe *p)
{
    if (p == NULL)
        return;
    cab_graph_free(p->g);
    cab_free(p->taps[0]);
    cab_free(p->raw);
    for (int i = 0; i < PARTS; i++)
        cab_free(p->values[i]);
    cab_free(p->matrix);
    cab_free(p);
}

int64_t cab_probe_tokens(const cab_probe *p)
{
    return p->tokens;
}

cab_status cab_probe_run(cab_probe *p, const void *input)
{
    CAB_TRY(cab_tensor_write(p->g, p->input, input));
    return cab_graph_run(p->g);
}

/* ---- matrices -------------------------------------------------------------------------------------------------------- */

/* A tap in fp32 and dense, in p->values[part]. A view is read with the tensor that it is a part of. */
static cab_status read_tap(cab_probe *p, int part, cab_tap tap, int layer)
{
    const cab_tensor *t = p->taps[tap][layer], *whole = t;
    int64_t first = 0;
    if (t == NULL)
        return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" does not show its layers' queries and keys",
                        p->model->directory != NULL ? p->model->directory : "model", p->model->arch->name);
    for (; whole->base != NULL; whole = whole->base)
        first += whole->offset;
    const size_t size = cab_dtype_size(whole->dtype);
    const int64_t rows = cab_rows(t), columns = cab_columns(t);
    CAB_TRY(CAB_GROW(&p->raw, &p->raw_size, cab_tensor_bytes(whole), "a tap"));
    CAB_TRY(CAB_GROW(&p->values[part], &p->values_size[part], (size_t)cab_elements(t), "a tap"));
    CAB_TRY(cab_tensor_read(p->g, whole, p->raw));
    for (int64_t r = 0; r < rows; r++)
        cab_convert(p->values[part] + r * columns, CAB_F32, p->raw + (size_t)(first + r * t->ld) * size, whole->dtype,
                    (size_t)columns);
    return CAB_OK;
}

/* Where the class token and the patches stand in the model's own order. */
static int64_t own_row(const cab_config *c, int64_t row)
{
    if (c->image_size == 0)
        return row;
    if (row == 0)
        return c->class_at;
    return row - 1 < c->class_at ? row - 1 : row - 1 + c->n_special;
}

/* Adds p->matrix times `share`, its tokens in the common order, to `out`. */
static void add_reordered(const cab_probe *p, float share, float *out)
{
    const cab_config *c = &p->model->config;
    for (int64_t i = 0; i < p->tokens; i++)
        for (int64_t j = 0; j < p->tokens; j++)
            out[i * p->tokens + j] += share * p->matrix[own_row(c, i) * p->length + own_row(c, j)];
}

static cab_status read_parameter(cab_probe *p, int part, const cab_tensor *t)
{
    CAB_TRY(CAB_GROW(&p->values[part], &p->values_size[part], (size_t)cab_elements(t), t->name));
    return cab_params_read(p->model->params, t, p->values[part]);
}

static cab_status attention(cab_probe *p, const cab_attention_shape *shape, int layer)
{
    CAB_TRY(read_tap(p, 0, CAB_TAP_QUERY, layer));
    CAB_TRY(read_tap(p, 1, CAB_TAP_KEY, layer));
    return cab_mixing_attention(p->values[0], p->values[1], p->length, shape, 0, shape->n_head, p->matrix);
}

static cab_status discrete_mamba2(cab_probe *p, const cab_discrete_mamba2 *m, int layer)
{
    CAB_TRY(read_tap(p, 0, CAB_TAP_C, layer));
    CAB_TRY(read_tap(p, 1, CAB_TAP_B, layer));
    CAB_TRY(read_tap(p, 2, CAB_TAP_DECAY, layer));
    const cab_mixing_ssd_inputs in = {.C = p->values[0],
                                      .B = p->values[1],
                                      .dt = p->values[2],
                                      .L = p->length,
                                      .H = m->n_head,
                                      .G = m->n_group,
                                      .N = m->d_state};
    return cab_mixing_ssd(&in, 0, m->n_head, p->matrix);
}

static cab_status mamba2(cab_probe *p, const cab_mamba2 *m, int layer)
{
    CAB_TRY(read_tap(p, 0, CAB_TAP_C, layer));
    CAB_TRY(read_tap(p, 1, CAB_TAP_B, layer));
    CAB_TRY(read_tap(p, 2, CAB_TAP_DECAY, layer));
    CAB_TRY(read_parameter(p, 3, m->dt_bias));
    CAB_TRY(read_parameter(p, 4, m->A_log));
    const cab_mixing_ssd_inputs in = {.C = p->values[0],
                                      .B = p->values[1],
                                      .dt = p->values[2],
                                      .dt_bias = p->values[3],
                                      .A_log = p->values[4],
                                      .L = p->length,
                                      .H = m->n_head,
                                      .G = m->n_group,
                                      .N = m->d_state,
                                      .both = m->both,
                                      .shared_decay = m->shared_decay};
    return cab_mixing_ssd(&in, 0, m->n_head, p->matrix);
}

static cab_status mamba1(cab_probe *p, const cab_mamba1 *direction, int64_t d_inner, int layer, bool reverse)
{
    CAB_TRY(read_tap(p, 0, reverse ? CAB_TAP_QUERY_BACK : CAB_TAP_C, layer));
    CAB_TRY(read_tap(p, 1, reverse ? CAB_TAP_KEY_BACK : CAB_TAP_B, layer));
    CAB_TRY(read_tap(p, 2, reverse ? CAB_TAP_DECAY_BACK : CAB_TAP_DECAY, layer));
    CAB_TRY(read_parameter(p, 3, direction->A_log));
    CAB_TRY(read_parameter(p, 4, direction->dt_bias));
    const cab_mixing_scan_inputs in = {.C = p->values[0],
                                       .B = p->values[1],
                                       .dt = p->values[2],
                                       .dt_bias = p->values[4],
                                       .A_log = p->values[3],
                                       .L = p->length,
                                       .E = d_inner,
                                       .N = direction->d_state,
                                       .reverse = reverse};
    return cab_mixing_scan(&in, 0, in.E, p->matrix);
}

/* Attention and a Mamba-2 mixer, each of which may be absent: the mean over the heads of both. */
static cab_status add_heads(cab_probe *p, const cab_block *block, int layer, float *out)
{
    const int attending = cab_block_attends(block) ? block->attention.shape.n_head : 0;
    const int states = block->mamba2.out_proj.w != NULL ? block->mamba2.n_head : 0;
    if (attending > 0) {
        CAB_TRY(attention(p, &block->attention.shape, layer));
        add_reordered(p, (float)attending / (float)(attending + states), out);
    }
    if (states > 0) {
        CAB_TRY(mamba2(p, &block->mamba2, layer));
        add_reordered(p, (float)states / (float)(attending + states), out);
    }
    return CAB_OK;
}

cab_status cab_probe_matrix(cab_probe *p, int layer, float *out)
{
    const cab_block *block = &p->model->network.blocks[layer];
    memset(out, 0, (size_t)(p->tokens * p->tokens) * sizeof *out);
    CAB_TRY(add_heads(p, block, layer, out));
    if (block->discrete.out_proj.w != NULL) {
        CAB_TRY(discrete_mamba2(p, &block->discrete, layer));
        add_reordered(p, 1, out);
    }
    if (block->mamba1.out_proj.w != NULL) {
        CAB_TRY(mamba1(p, &block->mamba1.inner, block->mamba1.d_inner, layer, false));
        add_reordered(p, 1, out);
    }
    if (block->vim.out_proj.w != NULL) {
        CAB_TRY(mamba1(p, &block->vim.forward, block->vim.d_inner, layer, false));
        add_reordered(p, 1, out);
        CAB_TRY(mamba1(p, &block->vim.backward, block->vim.d_inner, layer, true));
        add_reordered(p, 1, out);
    }
    return CAB_OK;
}
