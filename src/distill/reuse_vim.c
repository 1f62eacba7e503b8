/* reuse_vim.c - what of a Vision Transformer fits into Vision Mamba.
 *
 *   whole, where the sizes are the same     patches, positions (the class token's row to the middle), class token, final norm,
 *                                           rows of the head through the class map, the norm before the mixer
 *   V -> x                                  rows 0 .. D of in_proj, D the teacher's width
 *   K -> B, Q -> C                          B and C are read off x, not off the layer's input, and are N wide for all channels
 *                                           together. So the N features with the largest |row of Q| |row of K| over all heads
 *                                           become rows of in_proj, D .. D + N of K and D + N .. D + 2 N of Q, and x_proj, of both
 *                                           directions, picks them: B[n] = x[D + n], C[n] = scale x[D + N + n]
 *   output projection                       columns 0 .. D of out_proj; those of K's and Q's channels start at 0
 *
 * in_proj has no bias; with a convolution that passes the current token (init.conv_identity) its bias takes that of V, K and Q
 * and what W adds to the norm's bias. There is no place for the MLP, and the second norm goes with it. */
#include "base/log.h"
#include "base/memory.h"
#include "distill/account.h"
#include "distill/initialise_vim.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef enum row {
    ROW_PATCHES,
    ROW_POSITIONS,
    ROW_CLASS_TOKEN,
    ROW_HEAD,
    ROW_FINAL_NORM,
    ROW_NORM,
    ROW_V,
    ROW_QK,
    ROW_OUT,
    ROWS
} row;

typedef struct reuse {
    const cab_model *student, *teacher;
    const struct cab_recipe *recipe;
    const int32_t *class_map;
    cab_account accounts[ROWS];
} reuse;

/* The values of a parameter, to be changed and given to put(). */
static cab_status take(const reuse *r, const cab_tensor *t, float **values)
{
    *values = NULL;
    CAB_TRY(CAB_NEW(values, (size_t)cab_elements(t), t->name));
    return cab_params_read(r->student->params, t, *values);
}

static cab_status put(const reuse *r, cab_tensor *t, const float *values)
{
    return cab_params_write(r->student->params, t, values);
}

static cab_status part_of(const reuse *r, cab_part part, int layer, cab_part_values *out)
{
    *out = (cab_part_values){0};
    return cab_model_part(r->teacher, part, layer, out);
}

/* Copies a part that must have `rows` rows of `columns`. */
static cab_status copy(reuse *r, row account, cab_part part, int layer, cab_tensor *t, int64_t rows, int64_t columns)
{
    cab_part_values p;
    cab_status status = part_of(r, part, layer, &p);
    if (status == CAB_OK && cab_account_shape(&r->accounts[account], &p, rows, columns))
        status = put(r, t, p.values);
    cab_free(p.values);
    return status;
}

/* The teacher's rows are its class token, others, the patches; the student's the patches with the class token among them. */
static cab_status copy_positions(reuse *r, cab_tensor *t)
{
    const cab_config *s = &r->student->config, *c = &r->teacher->config;
    const int64_t D = s->d_model, patches = s->max_length - 1;
    cab_part_values p;
    float *values = NULL;
    cab_status status;
    CAB_GOTO(part_of(r, CAB_PART_POSITIONS, 0, &p));
    if (!cab_account_shape(&r->accounts[ROW_POSITIONS], &p, patches + c->n_special, D))
        goto done;
    CAB_GOTO(take(r, t, &values));
    for (int64_t l = 0; l <= patches; l++) {
        int64_t from = l == s->class_at ? 0 : c->n_special + (l < s->class_at ? l : l - 1);
        memcpy(values + l * D, p.values + from * D, (size_t)D * sizeof *values);
    }
    status = put(r, t, values);
done:
    cab_free(values);
    cab_free(p.values);
    return status;
}

/* Rows of the teacher's head, or of its bias, for the student's classes. */
static cab_status copy_head(reuse *r, cab_part part, cab_tensor *t)
{
    const int64_t n = t->shape[0], D = t->n_dim == 2 ? t->shape[1] : 1;
    cab_part_values p;
    float *values = NULL;
    cab_status status;
    CAB_GOTO(part_of(r, part, 0, &p));
    if (!cab_account_note(&r->accounts[ROW_HEAD], p.columns == D && (r->class_map != NULL ? p.rows > 0 : p.rows == n),
                          "the teacher's is %" PRId64 " x %" PRId64 ", the student's %" PRId64 " x %" PRId64, p.rows,
                          p.columns, n, D))
        goto done;
    CAB_GOTO(take(r, t, &values));
    for (int64_t v = 0; v < n; v++)
        memcpy(values + v * D, p.values + (r->class_map != NULL ? r->class_map[v] : v) * D, (size_t)D * sizeof *values);
    status = put(r, t, values);
done:
    cab_free(values);
    cab_free(p.values);
    return status;
}

static cab_status reuse_ends(reuse *r)
{
    const cab_network *m = &r->student->network;
    const int64_t D = r->student->config.d_model;
    CAB_TRY(copy(r, ROW_PATCHES, CAB_PART_EMBEDDING, 0, m->patches.w, D, cab_columns(m->patches.w)));
    CAB_TRY(copy(r, ROW_PATCHES, CAB_PART_EMBEDDING_B, 0, m->patches.b, D, 1));
    CAB_TRY(copy(r, ROW_CLASS_TOKEN, CAB_PART_CLASS_TOKEN, 0, m->special[0], D, 1));
    CAB_TRY(copy_positions(r, m->positions));
    CAB_TRY(copy(r, ROW_FINAL_NORM, CAB_PART_FINAL_NORM_W, 0, m->final_norm.w, D, 1));
    CAB_TRY(copy_head(r, CAB_PART_HEAD_W, m->head.w));
    return copy_head(r, CAB_PART_HEAD_B, m->head.b);
}

/* ---- the mixer ---------------------------------------------------------------------------------------------------- */

/* One of Q, K and V of a teacher layer, and the bias of the norm before it. */
typedef struct projection {
    cab_part_values w, b, c;
} projection;

static void projection_free(projection *p)
{
    cab_free(p->w.values);
    cab_free(p->b.values);
    cab_free(p->c.values);
}

static cab_status projection_take(const reuse *r, int layer, cab_part w, cab_part b, projection *p)
{
    CAB_TRY(part_of(r, w, layer, &p->w));
    CAB_TRY(part_of(r, b, layer, &p->b));
    return part_of(r, CAB_PART_NORM_B, layer, &p->c);
}

/* Row i of a projection to channel `at` of x: its row of in_proj, and the constant that its convolutions' biases take. */
static void place(const projection *p, int64_t i, int64_t at, float *in_proj, float *constants)
{
    const int64_t D = p->w.columns;
    const float *w = p->w.values + i * D;
    double constant = p->b.values != NULL ? (double)p->b.values[i] : 0.0;
    for (int64_t d = 0; d < D && p->c.values != NULL; d++)
        constant += (double)w[d] * (double)p->c.values[d];
    memcpy(in_proj + at * D, w, (size_t)D * sizeof *w);
    constants[at] = (float)constant;
}

static double row_norm(const cab_part_values *w, int64_t i)
{
    double sum = 0;
    for (int64_t d = 0; d < w->columns; d++)
        sum += (double)w->values[i * w->columns + d] * (double)w->values[i * w->columns + d];
    return sqrt(sum);
}

/* The n features with the largest product of norms, the largest first. */
static cab_status strongest(const projection *q, const projection *k, int64_t n, int64_t *chosen)
{
    double *strength = NULL;
    CAB_TRY(CAB_NEW(&strength, (size_t)q->w.rows, "features of a teacher's layer"));
    for (int64_t i = 0; i < q->w.rows; i++)
        strength[i] = row_norm(&q->w, i) * row_norm(&k->w, i);
    for (int64_t j = 0; j < n; j++) {
        chosen[j] = 0;
        for (int64_t i = 1; i < q->w.rows; i++)
            if (strength[i] > strength[chosen[j]])
                chosen[j] = i;
        strength[chosen[j]] = -1;
    }
    cab_free(strength);
    return CAB_OK;
}

/* B and C of one direction are channels first .. first + N and first + N .. first + 2 N of x. */
static cab_status pick(const reuse *r, const cab_mamba1 *m, int64_t first, float scale)
{
    const int64_t E = cab_columns(m->x_proj.w), N = m->d_state;
    float *values = NULL;
    cab_status status;
    CAB_GOTO(take(r, m->x_proj.w, &values));
    for (int64_t n = 0; n < 2 * N; n++) {
        float *to = values + (m->dt_rank + n) * E;
        memset(to, 0, (size_t)E * sizeof *to);
        to[first + n] = n < N ? 1.0f : scale;
    }
    status = put(r, m->x_proj.w, values);
done:
    cab_free(values);
    return status;
}

static cab_status add_constants(const reuse *r, const cab_mamba1 *m, const float *constants)
{
    float *values = NULL;
    cab_status status;
    CAB_GOTO(take(r, m->conv_b, &values));
    for (int64_t e = 0; e < cab_elements(m->conv_b); e++)
        values[e] += constants[e];
    status = put(r, m->conv_b, values);
done:
    cab_free(values);
    return status;
}

/* Queries and keys of the teacher into channels from `first` on. */
static cab_status reuse_qk(reuse *r, const cab_vim_mixer *m, int layer, int64_t first, float *in_proj, float *constants,
                           bool *fits)
{
    const int64_t N = m->forward.d_state, E = m->d_inner, D = r->student->config.d_model;
    projection q = {0}, k = {0};
    int64_t *chosen = NULL;
    cab_status status;
    CAB_GOTO(projection_take(r, layer, CAB_PART_Q_W, CAB_PART_Q_B, &q));
    CAB_GOTO(projection_take(r, layer, CAB_PART_K_W, CAB_PART_K_B, &k));
    *fits = cab_account_note(&r->accounts[ROW_QK], q.w.columns == D && N <= q.w.rows && first + 2 * N <= E,
                             "the teacher's width is %" PRId64 ", the student's %" PRId64 ", of %" PRId64
                             " inner channels %" PRId64 " are V's",
                             q.w.columns, D, E, first);
    if (!*fits)
        goto done;
    CAB_GOTO(CAB_NEW(&chosen, (size_t)N, "features of a teacher's layer"));
    CAB_GOTO(strongest(&q, &k, N, chosen));
    for (int64_t n = 0; n < N; n++) {
        place(&k, chosen[n], first + n, in_proj, constants);
        place(&q, chosen[n], first + N + n, in_proj, constants);
    }
    CAB_GOTO(pick(r, &m->forward, first, (float)r->recipe->init.qk_scale));
    status = pick(r, &m->backward, first, (float)r->recipe->init.qk_scale);
done:
    cab_free(chosen);
    projection_free(&q);
    projection_free(&k);
    return status;
}

/* Columns 0 .. D of out_proj; the next `silent` are 0. */
static cab_status reuse_output(reuse *r, const cab_vim_mixer *m, int layer, int64_t silent)
{
    const int64_t D = r->student->config.d_model, E = m->d_inner;
    cab_part_values p;
    float *values = NULL;
    cab_status status;
    CAB_GOTO(part_of(r, CAB_PART_OUT_W, layer, &p));
    if (!cab_account_note(&r->accounts[ROW_OUT], p.rows == D && p.columns <= E,
                          "the teacher's is %" PRId64 " x %" PRId64 ", the student's %" PRId64 " x %" PRId64, p.rows,
                          p.columns, D, E))
        goto done;
    CAB_GOTO(take(r, m->out_proj.w, &values));
    for (int64_t i = 0; i < D; i++) {
        memcpy(values + i * E, p.values + i * p.columns, (size_t)p.columns * sizeof *values);
        memset(values + i * E + p.columns, 0, (size_t)silent * sizeof *values);
    }
    status = put(r, m->out_proj.w, values);
done:
    cab_free(values);
    cab_free(p.values);
    return status;
}

static cab_status reuse_mixer(reuse *r, const cab_vim_mixer *m, int layer)
{
    const int64_t D = r->student->config.d_model, E = m->d_inner;
    projection v = {0};
    float *in_proj = NULL, *constants = NULL;
    bool qk = false;
    cab_status status;
    CAB_GOTO(projection_take(r, layer, CAB_PART_V_W, CAB_PART_V_B, &v));
    if (!cab_account_note(&r->accounts[ROW_V], v.w.columns == D && v.w.rows <= E,
                          "the teacher's is %" PRId64 " x %" PRId64 ", the student's %" PRId64 " x %" PRId64, v.w.rows,
                          v.w.columns, E, D))
        goto done;
    CAB_GOTO(take(r, m->in_proj.w, &in_proj));
    CAB_GOTO(CAB_NEW(&constants, (size_t)E, "biases"));
    for (int64_t i = 0; i < v.w.rows; i++)
        place(&v, i, i, in_proj, constants);
    CAB_GOTO(reuse_qk(r, m, layer, v.w.rows, in_proj, constants, &qk));
    CAB_GOTO(put(r, m->in_proj.w, in_proj));
    if (r->recipe->init.conv_identity) {
        CAB_GOTO(add_constants(r, &m->forward, constants));
        CAB_GOTO(add_constants(r, &m->backward, constants));
    }
    status = reuse_output(r, m, layer, qk ? 2 * (int64_t)m->forward.d_state : 0);
done:
    projection_free(&v);
    cab_free(in_proj);
    cab_free(constants);
    return status;
}

/* ---- convolution -------------------------------------------------------------------------------------------------- */

/* The last tap is the current token, in both directions. */
static cab_status pass_current(const cab_model *student, const cab_mamba1 *m)
{
    const int64_t taps = cab_columns(m->conv_w), n = cab_elements(m->conv_w);
    float *values = NULL;
    cab_status status;
    CAB_GOTO(CAB_NEW(&values, (size_t)n, "a convolution"));
    CAB_GOTO(cab_params_write(student->params, m->conv_b, values));
    for (int64_t i = taps - 1; i < n; i += taps)
        values[i] = 1;
    status = cab_params_write(student->params, m->conv_w, values);
done:
    cab_free(values);
    return status;
}

cab_status cab_initialise_images(cab_model *student, const cab_model *teacher, const struct cab_recipe *recipe,
                                 const int *layer_map, const int32_t *class_map)
{
    static const char *const names[ROWS] = {"patches", "positions",    "class token",
                                            "head",    "final norm",   "norm before the mixer",
                                            "V -> x",  "K, Q -> B, C", "output projection"};
    const cab_network *m = &student->network;
    reuse r = {.student = student, .teacher = teacher, .recipe = recipe, .class_map = class_map};
    for (int i = 0; i < ROWS; i++)
        r.accounts[i].name = names[i];
    CAB_TRY(cab_initialise_vim(student, (uint64_t)recipe->seed, recipe->init.near_identity));
    for (int l = 0; l < student->config.n_layer && recipe->init.conv_identity; l++) {
        CAB_TRY(pass_current(student, &m->blocks[l].vim.forward));
        CAB_TRY(pass_current(student, &m->blocks[l].vim.backward));
    }
    if (recipe->init.weights != CAB_INIT_TEACHER)
        return CAB_OK;
    CAB_TRY(reuse_ends(&r));
    for (int l = 0; l < student->config.n_layer; l++) {
        if (layer_map[l] < 0)
            continue;
        CAB_TRY(copy(&r, ROW_NORM, CAB_PART_NORM_W, layer_map[l], m->blocks[l].norm.w, student->config.d_model, 1));
        CAB_TRY(reuse_mixer(&r, &m->blocks[l].vim, layer_map[l]));
    }
    cab_account_print(r.accounts, ROWS);
    cab_log_info("reuse    %-28s not taken: the student has none", "MLP");
    return CAB_OK;
}
