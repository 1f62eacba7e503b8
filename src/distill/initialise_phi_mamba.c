/* initialise_phi_mamba.c - the first parameters of the student of text.
 *
 * Fresh: matrices uniform in +-1/sqrt(fan in), embedding normal 0.02, norms 1 and 0, convolution uniform, D = skip.
 *
 * Reused: embedding, head, final norm; per layer V, K, Q -> the x, B, C rows of in_proj, the output projection, the MLP, and
 * the norm before the mixer. A Transformer layer has biases, a second norm and a softmax that the Mamba block has not:
 *
 *   fold       the block's norm becomes LN(x) + b0 (weight 1, bias b0), and each matrix W that followed a norm (g, b) becomes
 *              W diag(g), with the constant  c + W b - W diag(g) b0  in its bias: of the convolution for V, K and Q (it
 *              passes the current token), of fc1 for the MLP. The output projection's bias joins fc2's: the branches add.
 *   decay      in_proj has no bias, but LN's output sums to zero, so b0 in every column adds a constant to a row of in_proj:
 *              a_log = -logit(decay), the same for every token, until training moves it. */
#include "distill/initialise_phi_mamba.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/thread.h"
#include "distill/account.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double embedding_std = 0.02;
static const float norm_bias = 0.1f;               /* b0 */
static const float gate_one = 1.2784645427610738f; /* silu(gate_one) = 1 */

typedef enum account_row {
    ROW_EMBEDDING,
    ROW_HEAD,
    ROW_FINAL_NORM,
    ROW_NORM,
    ROW_V,
    ROW_K,
    ROW_Q,
    ROW_OUT,
    ROW_MLP,
    ROWS
} account_row;

typedef struct start {
    cab_model *student;
    const cab_model *teacher;
    const struct cab_recipe *recipe;
    const int *layer_map;
    float **values; /* by parameter of the student */
    cab_account accounts[ROWS];
} start;

/* The values of one parameter: every tensor of the student's network is one, because its builder made it. */
static float *of(start *s, const cab_tensor *t)
{
    for (size_t i = 0; i < cab_params_count(s->student->params); i++)
        if (cab_params_at(s->student->params, i) == t)
            return s->values[i];
    return NULL;
}

static cab_random stream_of(const start *s, const cab_tensor *t)
{
    return (cab_random){.seed = (uint64_t)s->recipe->seed,
                        .stream = CAB_STREAM_INIT,
                        .sub = (uint32_t)cab_hash(CAB_HASH_START, t->name, strlen(t->name))};
}

static void fill(start *s, const cab_tensor *t, float value)
{
    float *v = of(s, t);
    for (int64_t i = 0; i < cab_elements(t); i++)
        v[i] = value;
}

static void draw_normal(start *s, const cab_tensor *t, double std)
{
    float *v = of(s, t);
    const cab_random random = stream_of(s, t);
    const int64_t n = cab_elements(t);
#pragma omp parallel for num_threads(cab_thread_count()) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        cab_random own = cab_random_at(random, (uint64_t)i);
        v[i] = (float)(std * cab_random_normal(&own));
    }
}

static void draw_uniform(start *s, const cab_tensor *t, int64_t fan_in)
{
    float *v = of(s, t);
    double bound = 1.0 / sqrt((double)fan_in);
    const cab_random random = stream_of(s, t);
    const int64_t n = cab_elements(t);
#pragma omp parallel for num_threads(cab_thread_count()) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        cab_random own = cab_random_at(random, (uint64_t)i);
        v[i] = (float)((2.0 * cab_random_uniform(&own) - 1.0) * bound);
    }
}

static void draw_matrix(start *s, const cab_tensor *t)
{
    if (s->recipe->init.std > 0)
        draw_normal(s, t, s->recipe->init.std);
    else
        draw_uniform(s, t, cab_columns(t));
}

static void fresh_convolution(start *s, const cab_discrete_mamba2 *m)
{
    float *w = of(s, m->conv_w);
    draw_uniform(s, m->conv_w, m->d_conv);
    if (!s->recipe->init.conv_identity)
        return;
    for (int64_t i = 0; i < cab_elements(m->conv_w); i++)
        w[i] = i % m->d_conv == m->d_conv - 1; /* the last tap is the current token */
}

static void fresh_mixer(start *s, const cab_discrete_mamba2 *m)
{
    const struct cab_recipe_init *init = &s->recipe->init;
    draw_matrix(s, m->in_proj.w);
    draw_matrix(s, m->out_proj.w);
    fresh_convolution(s, m);
    fill(s, m->D, (float)init->skip);
    if (!init->gate_open)
        return;
    fill(s, m->z_bias, gate_one);
    int64_t first = (int64_t)m->d_inner + 2 * (int64_t)m->n_group * m->d_state, width = cab_columns(m->in_proj.w);
    float *z = of(s, m->in_proj.w) + first * width;
    memset(z, 0, (size_t)(m->d_inner * width) * sizeof *z);
}

static void fresh(start *s)
{
    const cab_network *m = &s->student->network;
    bool biased = s->recipe->init.weights == CAB_INIT_TEACHER ? s->recipe->init.fold : s->recipe->init.near_identity;
    draw_normal(s, m->embedding, s->recipe->init.std > 0 ? s->recipe->init.std : embedding_std);
    draw_matrix(s, m->head.w);
    fill(s, m->final_norm.w, 1);
    for (int l = 0; l < s->student->config.n_layer; l++) {
        const cab_block *y = &m->blocks[l];
        fill(s, y->norm.w, 1);
        fill(s, y->norm.b, biased ? norm_bias : 0);
        fresh_mixer(s, &y->discrete);
        draw_matrix(s, y->mlp.up.w);
        draw_matrix(s, y->mlp.down.w);
    }
}

static cab_status take(const start *s, cab_part part, int layer, cab_part_values *out)
{
    return cab_model_part(s->teacher, part, layer, out);
}

/* Copies a part that must have the parameter's shape. A missing vector (a bias) is zero. */
static cab_status copy_whole(start *s, account_row row, cab_part part, int layer, const cab_tensor *t)
{
    cab_part_values p;
    CAB_TRY(take(s, part, layer, &p));
    int64_t rows = t->shape[0], columns = t->n_dim == 2 ? t->shape[1] : 1;
    if (p.values == NULL && t->n_dim == 1)
        fill(s, t, 0);
    else if (cab_account_shape(&s->accounts[row], &p, rows, columns) && p.values != NULL)
        memcpy(of(s, t), p.values, (size_t)cab_elements(t) * sizeof(float));
    cab_free(p.values);
    return CAB_OK;
}

/* The teacher multiplies by `factor` (0: 1) what the student has no factor for. */
static void multiply(start *s, account_row row, const cab_tensor *t, float factor)
{
    float *v = of(s, t);
    for (int64_t i = 0; s->accounts[row].copied > 0 && factor > 0 && i < cab_elements(t); i++)
        v[i] *= factor;
}

static cab_status reuse_ends(start *s)
{
    const cab_network *m = &s->student->network;
    CAB_TRY(copy_whole(s, ROW_EMBEDDING, CAB_PART_EMBEDDING, 0, m->embedding));
    multiply(s, ROW_EMBEDDING, m->embedding, s->teacher->network.embedding_scale);
    CAB_TRY(copy_whole(s, ROW_HEAD, CAB_PART_HEAD_W, 0, m->head.w));
    multiply(s, ROW_HEAD, m->head.w, s->teacher->network.head_scale);
    CAB_TRY(copy_whole(s, ROW_HEAD, CAB_PART_HEAD_B, 0, m->head.b));
    CAB_TRY(copy_whole(s, ROW_FINAL_NORM, CAB_PART_FINAL_NORM_W, 0, m->final_norm.w));
    return copy_whole(s, ROW_FINAL_NORM, CAB_PART_FINAL_NORM_B, 0, m->final_norm.b);
}

/* A matrix of the teacher with its bias, and the norm before it. */
typedef struct projection {
    cab_part_values w, b, g, c; /* weight, bias, norm weight, norm bias */
} projection;

static void projection_free(projection *p)
{
    cab_free(p->w.values);
    cab_free(p->b.values);
    cab_free(p->g.values);
    cab_free(p->c.values);
}

static cab_status projection_take(const start *s, int layer, cab_part w, cab_part b, bool mlp, projection *p)
{
    *p = (projection){0};
    CAB_TRY(take(s, w, layer, &p->w));
    CAB_TRY(take(s, b, layer, &p->b));
    CAB_TRY(take(s, mlp ? CAB_PART_MLP_NORM_W : CAB_PART_NORM_W, layer, &p->g));
    if (p->g.values == NULL) /* parallel blocks have one norm */
        CAB_TRY(take(s, CAB_PART_NORM_W, layer, &p->g));
    CAB_TRY(take(s, mlp ? CAB_PART_MLP_NORM_B : CAB_PART_NORM_B, layer, &p->c));
    if (p->c.values == NULL)
        CAB_TRY(take(s, CAB_PART_NORM_B, layer, &p->c));
    return CAB_OK;
}

/* One row, times `scale`, into `out`; returns the constant that goes with it. */
static float fold_row(const start *s, const projection *p, int64_t row, float scale, float *out)
{
    const float *w = p->w.values + row * p->w.columns;
    double constant = p->b.values != NULL ? p->b.values[row] : 0;
    for (int64_t i = 0; i < p->w.columns; i++) {
        float folded = s->recipe->init.fold && p->g.values != NULL ? w[i] * p->g.values[i] : w[i];
        if (s->recipe->init.fold)
            constant += (double)w[i] * (p->c.values != NULL ? p->c.values[i] : 0) - (double)folded * norm_bias;
        out[i] = folded * scale;
    }
    return (float)(constant * scale);
}

/* V, K or Q into the rows of in_proj from `first` on: `heads` heads of `width` rows, from teacher heads of head_dim rows.
 * What a wider student head has beyond the teacher's stays as drawn, or is zeroed. */
typedef struct target {
    account_row row;
    cab_part w, b;
    int64_t first, heads, width, source_heads;
    float scale;
    bool zero_rest;
} target;

static bool target_fits(start *s, const target *t, const projection *p, int64_t width)
{
    int64_t head_dim = s->teacher->config.head_dim;
    if (!cab_account_note(&s->accounts[t->row], p->w.columns == width,
                          "the teacher's width is %lld, the student's %lld", (long long)p->w.columns, (long long)width))
        return false;
    if (t->width < head_dim && s->accounts[t->row].reason[0] == '\0')
        snprintf(s->accounts[t->row].reason, CAB_REASON_MAX, "heads of %lld keep the first %lld features",
                 (long long)head_dim, (long long)t->width);
    return true;
}

static cab_status reuse_rows(start *s, const cab_discrete_mamba2 *m, int layer, const target *t)
{
    projection p;
    cab_status status;
    const int64_t columns = cab_columns(m->in_proj.w), head_dim = s->teacher->config.head_dim;
    const int64_t copied = t->width < head_dim ? t->width : head_dim;
    float *rows = of(s, m->in_proj.w) + t->first * columns, *bias = of(s, m->conv_b) + t->first;
    CAB_GOTO(projection_take(s, layer, t->w, t->b, false, &p));
    if (!target_fits(s, t, &p, columns))
        goto done;
    for (int64_t h = 0; h < t->heads; h++) {
        int64_t source = h * t->source_heads / t->heads;
        for (int64_t i = 0; i < t->width; i++) {
            float *row = rows + (h * t->width + i) * columns, constant = 0;
            if (i < copied)
                constant = fold_row(s, &p, source * head_dim + i, t->scale, row);
            else if (t->zero_rest)
                memset(row, 0, (size_t)columns * sizeof *row);
            if (s->recipe->init.fold)
                bias[h * t->width + i] = constant;
        }
    }
done:
    projection_free(&p);
    return status;
}

static cab_status reuse_output(start *s, const cab_block *y, int layer)
{
    const cab_config *c = &s->student->config, *t = &s->teacher->config;
    cab_part_values w;
    float *out = of(s, y->discrete.out_proj.w);
    CAB_TRY(take(s, CAB_PART_OUT_W, layer, &w));
    if (cab_account_note(&s->accounts[ROW_OUT], w.rows == c->d_model && c->head_dim == t->head_dim,
                         "heads of %d by width %lld, the student's are %d by %d", t->head_dim, (long long)w.rows,
                         c->head_dim, c->d_model))
        for (int64_t r = 0; r < w.rows; r++)
            for (int64_t h = 0; h < c->n_head; h++)
                memcpy(out + r * c->d_model + h * c->head_dim,
                       w.values + r * w.columns + h * t->n_head / c->n_head * t->head_dim,
                       (size_t)c->head_dim * sizeof *out);
    cab_free(w.values);
    return CAB_OK;
}

static cab_status reuse_mlp(start *s, const cab_block *y, int layer)
{
    projection p;
    cab_part_values w2 = {0}, b2 = {0}, out_bias = {0};
    cab_status status;
    const cab_config *c = &s->student->config;
    CAB_GOTO(projection_take(s, layer, CAB_PART_FC1_W, CAB_PART_FC1_B, true, &p));
    CAB_GOTO(take(s, CAB_PART_FC2_W, layer, &w2));
    CAB_GOTO(take(s, CAB_PART_FC2_B, layer, &b2));
    CAB_GOTO(take(s, CAB_PART_OUT_B, layer, &out_bias));
    if (cab_mlp_gated(&s->teacher->network.blocks[layer].mlp)) {
        cab_account_note(&s->accounts[ROW_MLP], false, "the teacher's has a gate, the student's none");
        goto done;
    }
    if (!cab_account_shape(&s->accounts[ROW_MLP], &p.w, c->d_mlp, c->d_model))
        goto done;
    for (int64_t r = 0; r < c->d_mlp; r++)
        of(s, y->mlp.up.b)[r] = fold_row(s, &p, r, 1, of(s, y->mlp.up.w) + r * c->d_model);
    memcpy(of(s, y->mlp.down.w), w2.values, (size_t)c->d_model * (size_t)c->d_mlp * sizeof(float));
    for (int64_t i = 0; i < c->d_model; i++) {
        float bias = b2.values != NULL ? b2.values[i] : 0;
        if (s->recipe->init.fold && out_bias.values != NULL)
            bias += out_bias.values[i];
        of(s, y->mlp.down.b)[i] = bias;
    }
done:
    projection_free(&p);
    cab_free(w2.values);
    cab_free(b2.values);
    cab_free(out_bias.values);
    return status;
}

static cab_status reuse_layer(start *s, int l, int layer)
{
    const cab_network *m = &s->student->network;
    const cab_block *y = &m->blocks[l];
    const cab_config *c = &s->student->config, *t = &s->teacher->config;
    const int64_t states = (int64_t)c->n_group * c->d_state;
    const float scale = (float)s->recipe->init.qk_scale;
    const target targets[] = {
        {ROW_V, CAB_PART_V_W, CAB_PART_V_B, 0, c->n_head, c->head_dim, t->n_kv_head, 1, false},
        {ROW_K, CAB_PART_K_W, CAB_PART_K_B, c->d_model, c->n_group, c->d_state, t->n_kv_head, scale, false},
        {ROW_Q, CAB_PART_Q_W, CAB_PART_Q_B, c->d_model + states, c->n_group, c->d_state, t->n_head, scale, true},
    };
    if (!s->recipe->init.fold) {
        CAB_TRY(copy_whole(s, ROW_NORM, CAB_PART_NORM_W, layer, y->norm.w));
        CAB_TRY(copy_whole(s, ROW_NORM, CAB_PART_NORM_B, layer, y->norm.b));
    }
    for (int i = 0; i < 3; i++)
        CAB_TRY(reuse_rows(s, &y->discrete, layer, &targets[i]));
    CAB_TRY(reuse_output(s, y, layer));
    return reuse_mlp(s, y, layer);
}

static void note_lost(bool there, const char *name, const char *why)
{
    if (there)
        cab_log_info("reuse    %-28s not taken: %s", name, why);
}

/* What was copied, and what the student has no place for. */
static void report(const start *s)
{
    const cab_network *n = &s->teacher->network;
    const cab_block *b = &n->blocks[0];
    const cab_attention_mixer *a = &b->attention;
    const double scale =
        (double)a->shape.scale * (a->query_scale > 0 ? (double)a->query_scale : 1) * sqrt(a->shape.head_dim);
    cab_account_print(s->accounts, ROWS);
    note_lost(n->positions != NULL, "position embedding", "the student has no positions");
    note_lost(a->rope.dim > 0, "rotary positions", "the student has no positions");
    note_lost(a->q_norm.w != NULL || a->k_norm.w != NULL, "norms of Q and K", "the student has none");
    note_lost(fabs(scale - 1) > 1e-6, "scale of attention's logits", "init.qk_scale stands for it");
    note_lost(b->mixed_norm.w != NULL || b->fed_norm.w != NULL, "norms behind the branches", "the student has none");
    note_lost(b->branch_scale > 0 && b->branch_scale != 1, "factor on the branches", "the student has none");
}

/* a_log = -logit(decay) at the start, by the norm's bias direction. */
static cab_status set_decay(start *s)
{
    const cab_network *m = &s->student->network;
    const double wanted = -log(s->recipe->init.decay / (1.0 - s->recipe->init.decay));
    for (int l = 0; l < s->student->config.n_layer; l++) {
        const cab_discrete_mamba2 *x = &m->blocks[l].discrete;
        const float *bias = of(s, m->blocks[l].norm.b);
        int64_t width = cab_columns(x->in_proj.w);
        float *rows = of(s, x->in_proj.w) + (x->in_proj.w->shape[0] - x->n_head) * width;
        double square = 0;
        for (int64_t i = 0; i < width; i++)
            square += (double)bias[i] * bias[i];
        if (square == 0)
            return cab_fail(
                CAB_EARG, "init.near_identity: the norm of layer %d has no bias to carry a constant; set init.fold", l);
        for (int h = 0; h < x->n_head; h++) {
            for (int64_t i = 0; i < width; i++)
                rows[h * width + i] = (float)(wanted / square * bias[i]);
        }
    }
    return CAB_OK;
}

static cab_status write_all(start *s)
{
    for (size_t i = 0; i < cab_params_count(s->student->params); i++)
        CAB_TRY(cab_params_write(s->student->params, cab_params_at(s->student->params, i), s->values[i]));
    return CAB_OK;
}

cab_status cab_initialise_phi_mamba(cab_model *student, const cab_model *teacher, const struct cab_recipe *recipe,
                                    const int *layer_map)
{
    start s = {.student = student, .teacher = teacher, .recipe = recipe, .layer_map = layer_map};
    static const char *const names[ROWS] = {"embedding", "head",   "final norm", "norm before the mixer",
                                            "V -> x",    "K -> B", "Q -> C",     "output projection",
                                            "MLP"};
    size_t n = cab_params_count(student->params);
    cab_status status;
    for (int i = 0; i < ROWS; i++)
        s.accounts[i].name = names[i];
    CAB_TRY(CAB_NEW(&s.values, n, "initial parameters"));
    for (size_t i = 0; i < n; i++)
        CAB_GOTO(CAB_NEW(&s.values[i], (size_t)cab_elements(cab_params_at(student->params, i)), "initial parameters"));
    fresh(&s);
    if (recipe->init.weights == CAB_INIT_TEACHER) {
        CAB_GOTO(reuse_ends(&s));
        for (int l = 0; l < student->config.n_layer; l++)
            if (layer_map[l] >= 0)
                CAB_GOTO(reuse_layer(&s, l, layer_map[l]));
        report(&s);
    }
    if (recipe->init.near_identity)
        CAB_GOTO(set_decay(&s));
    status = write_all(&s);
done:
    for (size_t i = 0; i < n; i++)
        cab_free(s.values[i]);
    cab_free(s.values);
    return status;
}
