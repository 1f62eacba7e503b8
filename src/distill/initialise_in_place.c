/* initialise_in_place.c - the first parameters of an in-place student.
 *
 * Copied: embedding, norms, MLP, head, and the attention that is kept, heads picked out of their projections. The mixer begins as
 * what an initialisation can know of attention, with P-wide heads in pairs, N = 2 head widths, s = init.qk_scale:
 *
 *   x = silu((V, -V)), out = (O, -O)     silu(v) - silu(-v) = v: the way of the values is linear. Columns of O of kept heads are 0
 *   B = silu((s k, -s k))                k, q: the mean over the heads of the group, before rotation; where they are normed, scaled as the
 *                                        norm does on average
 *   C = silu((s q, -s q))                <silu(q), silu(k)> + <silu(-q), silu(-k)> leans to what softmax favours
 *   delta = 1, exp(-delta exp(A_log)) = init.decay, D = init.skip, the convolution passes the current token; z is random
 *
 * Biases of Q, K and V become those of the convolution. With init.weights: scratch the mixer is random. */
#include "distill/initialise_in_place.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "models/architectures.h"
#include "models/part.h"

#include <math.h>
#include <string.h>

static const double token_bound = 0.03;               /* of tokens and positions that nothing is known of */
static const double step_of_one = 0.5413248546129181; /* softplus of it is 1 */
static const float open_gate = 1.2784645427610738f;   /* silu of it is 1 */

typedef struct start {
    cab_model *student;
    const cab_model *teacher;
    const cab_recipe *recipe;
    const cab_kept *kept;
    const int *layer_map;     /* of images: which of the teacher's layers each is; NULL: the same */
    const int32_t *class_map; /* of images: which of the teacher's classes each is; NULL: the same */
} start;

static int source_layer(const start *s, int layer)
{
    return s->layer_map != NULL ? s->layer_map[layer] : layer;
}

/* layer: the student's. */
static cab_status take(const start *s, cab_part part, int layer, cab_part_values *p)
{
    return cab_model_part(s->teacher, part, source_layer(s, layer), p);
}

static cab_status put(const start *s, cab_tensor *t, const float *values)
{
    return cab_params_write(s->student->params, t, values);
}

/* ---- values that are not the teacher's --------------------------------------------------------------------------------- */

static cab_status fill(const start *s, cab_tensor *t, double value)
{
    float *values = NULL;
    if (t == NULL)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&values, (size_t)cab_elements(t), t->name));
    for (int64_t i = 0; i < cab_elements(t); i++)
        values[i] = (float)value;
    const cab_status status = put(s, t, values);
    cab_free(values);
    return status;
}

static void draw(const start *s, const cab_tensor *t, float *values, int64_t first, int64_t n, double bound)
{
    cab_random random = {.seed = (uint64_t)s->recipe->seed,
                         .stream = CAB_STREAM_INIT,
                         .sub = (uint32_t)cab_hash(CAB_HASH_START, t->name, strlen(t->name))};
    for (int64_t i = 0; i < n; i++)
        values[first + i] = (float)(bound * (2.0 * cab_random_uniform(&random) - 1.0));
}

static cab_status draw_all(const start *s, cab_tensor *t, double bound)
{
    float *values = NULL;
    if (t == NULL)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&values, (size_t)cab_elements(t), t->name));
    draw(s, t, values, 0, cab_elements(t), bound);
    const cab_status status = put(s, t, values);
    cab_free(values);
    return status;
}

/* ---- copies ----------------------------------------------------------------------------------------------------------- */

/* A part of the teacher as rows first .. of t. A vector that the teacher has not, a bias, is zeros. */
static cab_status copy_rows(const start *s, cab_part part, int layer, cab_tensor *t, int64_t first, float *into)
{
    cab_part_values p;
    CAB_TRY(take(s, part, layer, &p));
    const int64_t columns = t->n_dim == 2 ? t->shape[1] : 1;
    const bool fits = p.values == NULL ? t->n_dim == 1 : p.columns == columns && first + p.rows <= t->shape[0];
    if (fits && p.values != NULL)
        memcpy(into + first * columns, p.values, (size_t)(p.rows * columns) * sizeof *into);
    cab_free(p.values);
    return fits ? CAB_OK : cab_fail(CAB_ESHAPE, "\"%s\" does not fit the teacher's", t->name);
}

/* Parts, one above the other, are t. */
static cab_status copy(const start *s, int n, const cab_part *parts, int layer, cab_tensor *t)
{
    float *values = NULL;
    cab_status status = CAB_OK;
    if (t == NULL)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&values, (size_t)cab_elements(t), t->name));
    for (int i = 0; i < n; i++)
        CAB_GOTO(copy_rows(s, parts[i], layer, t, i * t->shape[0] / n, values));
    status = put(s, t, values);
done:
    cab_free(values);
    return status;
}

static cab_status copy_one(const start *s, cab_part part, int layer, cab_tensor *t)
{
    return copy(s, 1, &part, layer, t);
}

static cab_status copy_ends(const start *s)
{
    const cab_network *n = &s->student->network;
    CAB_TRY(copy_one(s, CAB_PART_EMBEDDING, 0, n->embedding));
    CAB_TRY(copy_one(s, CAB_PART_FINAL_NORM_W, 0, n->final_norm.w));
    return n->head.w == n->embedding ? CAB_OK : copy_one(s, CAB_PART_HEAD_W, 0, n->head.w);
}

static cab_status copy_block(const start *s, int l, const cab_block *b)
{
    static const cab_part both_w[] = {CAB_PART_GATE_W, CAB_PART_UP_W}, both_b[] = {CAB_PART_GATE_B, CAB_PART_UP_B};
    CAB_TRY(copy_one(s, CAB_PART_NORM_W, l, b->norm.w));
    CAB_TRY(copy_one(s, CAB_PART_MLP_NORM_W, l, b->mlp_norm.w));
    CAB_TRY(copy(s, 2, both_w, l, b->mlp.gate_up.w));
    CAB_TRY(copy(s, 2, both_b, l, b->mlp.gate_up.b));
    CAB_TRY(copy_one(s, CAB_PART_GATE_W, l, b->mlp.gate.w));
    CAB_TRY(copy_one(s, CAB_PART_GATE_B, l, b->mlp.gate.b));
    CAB_TRY(copy_one(s, CAB_PART_UP_W, l, b->mlp.up.w));
    CAB_TRY(copy_one(s, CAB_PART_UP_B, l, b->mlp.up.b));
    CAB_TRY(copy_one(s, CAB_PART_FC2_W, l, b->mlp.down.w));
    return copy_one(s, CAB_PART_FC2_B, l, b->mlp.down.b);
}

/* Places of the parameters of a part of a network. */
enum { PLACES_MAX = 160 };

typedef struct places {
    cab_tensor *found[PLACES_MAX];
    int count;
} places;

static cab_status note_place(void *user, cab_tensor **place)
{
    places *p = user;
    if (p->count == PLACES_MAX)
        return cab_fail(CAB_ESHAPE, "a block has more than %d parameters", PLACES_MAX);
    p->found[p->count++] = *place;
    return CAB_OK;
}

/* Whether the student's classes are known to be the teacher's: all of them, or those of a class map. */
static bool knows_classes(const start *s)
{
    return s->class_map != NULL || s->student->config.n_classes == s->teacher->config.n_classes;
}

/* The rows of the classes that the student tells apart. */
static cab_status copy_classes(const start *s, cab_tensor *t, const cab_tensor *from)
{
    const int64_t columns = t->n_dim == 2 ? t->shape[1] : 1;
    float *values = NULL, *rows = NULL;
    cab_status status;
    if (t->shape[0] > from->shape[0] || columns * from->shape[0] != cab_elements(from))
        return cab_fail(CAB_ESHAPE, "\"%s\" does not fit the teacher's", t->name);
    CAB_GOTO(CAB_NEW(&values, (size_t)cab_elements(from), t->name));
    CAB_GOTO(CAB_NEW(&rows, (size_t)cab_elements(t), t->name));
    CAB_GOTO(cab_params_read(s->teacher->params, from, values));
    for (int64_t v = 0; v < t->shape[0]; v++)
        memcpy(rows + v * columns, values + (s->class_map != NULL ? s->class_map[v] : v) * columns,
               (size_t)columns * sizeof *rows);
    status = put(s, t, rows);
done:
    cab_free(values);
    cab_free(rows);
    return status;
}

/* Parameters of the student that stand where the teacher has its own: they are of one family. */
static cab_status copy_places(const start *s, const places *to, const places *from)
{
    for (int i = 0; i < to->count; i++) {
        const cab_tensor *t = from->found[i];
        float *values = NULL;
        if (to->found[i] == NULL)
            continue;
        if (t == NULL || cab_elements(t) != cab_elements(to->found[i]))
            return cab_fail(CAB_ESHAPE, "\"%s\" does not fit the teacher's", to->found[i]->name);
        CAB_TRY(CAB_NEW(&values, (size_t)cab_elements(t), t->name));
        cab_status status = cab_params_read(s->teacher->params, t, values);
        if (status == CAB_OK)
            status = put(s, to->found[i], values);
        cab_free(values);
        CAB_TRY(status);
    }
    return CAB_OK;
}

static cab_status copy_head(const start *s, const cab_dense *to, const cab_dense *from)
{
    if (!knows_classes(s)) {
        CAB_TRY(draw_all(s, to->w, 1 / sqrt((double)cab_columns(to->w))));
        return fill(s, to->b, 0);
    }
    CAB_TRY(copy_classes(s, to->w, from->w));
    return to->b != NULL ? copy_classes(s, to->b, from->b) : CAB_OK;
}

static cab_status copy_own_ends(const start *s)
{
    cab_network to = s->student->network, from = s->teacher->network;
    places into = {.count = 0}, out = {.count = 0};
    if (to.patches.w != NULL) {
        CAB_TRY(copy_head(s, &to.head, &from.head));
        to.head = from.head = (cab_dense){0};
    }
    CAB_TRY(cab_network_ends(&to, note_place, &into));
    CAB_TRY(cab_network_ends(&from, note_place, &out));
    return copy_places(s, &into, &out);
}

/* All of a block but its mixers. */
static cab_status copy_own_block(const start *s, int l)
{
    cab_block to = s->student->network.blocks[l], from = s->teacher->network.blocks[source_layer(s, l)];
    places into = {.count = 0}, out = {.count = 0};
    to.attention = from.attention = (cab_attention_mixer){0};
    to.mamba2 = (cab_mamba2){0};
    CAB_TRY(cab_block_parameters(&to, note_place, &into));
    CAB_TRY(cab_block_parameters(&from, note_place, &out));
    return copy_places(s, &into, &out);
}

/* ---- kept attention --------------------------------------------------------------------------------------------------- */

/* The teacher's head that head i of the student's Q, or of its n K and V, is. */
static int source_head(const start *s, int l, int i, int n, bool of_kv)
{
    const cab_config *t = &s->teacher->config;
    if (s->kept->layers)
        return i;
    const int head = cab_kept_head(s->kept, l, of_kv ? i * (s->kept->count / n) : i);
    return of_kv ? head / (t->n_head / t->n_kv_head) : head;
}

/* What queries are multiplied by here, where the teacher scales its logits otherwise than the student does. */
static float query_factor(const start *s, int l)
{
    const cab_attention_mixer *from = &s->teacher->network.blocks[source_layer(s, l)].attention;
    const cab_attention_mixer *to = &s->student->network.blocks[l].attention;
    const float factor = from->query_scale > 0 && to->query_scale == 0 ? from->query_scale : 1;
    return factor * from->shape.scale / to->shape.scale;
}

/* Writes (rows, columns) to a matrix that may be stored the other way round, or to a vector. */
static cab_status put_rows(const start *s, cab_tensor *t, cab_layout layout, const float *rows)
{
    float *turned = NULL;
    if (t->n_dim != 2 || layout != CAB_IN_OUT)
        return put(s, t, rows);
    CAB_TRY(CAB_NEW(&turned, (size_t)cab_elements(t), t->name));
    for (int64_t i = 0; i < cab_elements(t); i++)
        turned[i] = rows[i % t->shape[1] * t->shape[0] + i / t->shape[1]];
    const cab_status status = put(s, t, turned);
    cab_free(turned);
    return status;
}

/* Heads of one of the teacher's projections, or of its bias (columns 1), in the order of the student's, n of them, times a factor. */
static cab_status pick_heads(const start *s, cab_part part, int l, int n, bool of_kv, float factor, float *rows)
{
    const int64_t width = s->teacher->config.head_dim;
    cab_part_values p;
    CAB_TRY(take(s, part, l, &p));
    for (int64_t i = 0; p.values != NULL && i < n * width * p.columns; i++) {
        const int64_t head = i / (width * p.columns), rest = i % (width * p.columns);
        rows[i] = factor * p.values[source_head(s, l, (int)head, n, of_kv) * width * p.columns + rest];
    }
    cab_free(p.values);
    return CAB_OK;
}

/* A projection of the student, of Q, K or V, or of all three, from the teacher's weights or biases. */
static cab_status copy_heads(const start *s, int l, cab_tensor *t, cab_layout layout, int n_part, const cab_part *parts)
{
    const cab_attention_shape *shape = &s->student->network.blocks[l].attention.shape;
    const int64_t columns = t == NULL || t->n_dim == 1 ? 1 : s->student->config.d_model;
    float *values = NULL, *at;
    cab_status status;
    if (t == NULL)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&values, (size_t)cab_elements(t), t->name));
    at = values;
    for (int i = 0; i < n_part; i++) {
        const bool query = parts[i] == CAB_PART_Q_W || parts[i] == CAB_PART_Q_B;
        const int n = query ? shape->n_head : shape->n_kv_head;
        CAB_GOTO(pick_heads(s, parts[i], l, n, !query, query ? query_factor(s, l) : 1, at));
        at += (int64_t)n * shape->head_dim * columns;
    }
    status = put_rows(s, t, layout, values);
done:
    cab_free(values);
    return status;
}

/* Columns of heads of the output projection. */
static cab_status copy_output(const start *s, int l, const cab_dense *out)
{
    const int n = s->student->network.blocks[l].attention.shape.n_head;
    const int64_t width = s->teacher->config.head_dim, columns = n * width;
    cab_part_values p;
    float *values = NULL;
    cab_status status;
    CAB_TRY(take(s, CAB_PART_OUT_W, l, &p));
    CAB_GOTO(CAB_NEW(&values, (size_t)cab_elements(out->w), out->w->name));
    for (int64_t r = 0; r < p.rows; r++)
        for (int64_t c = 0; c < columns; c++)
            values[r * columns + c] =
                p.values[r * p.columns + source_head(s, l, (int)(c / width), n, false) * width + c % width];
    status = put_rows(s, out->w, out->layout, values);
done:
    cab_free(values);
    cab_free(p.values);
    return status;
}

static cab_status copy_projection(const start *s, int l, const cab_dense *d, int n, const cab_part *w,
                                  const cab_part *b)
{
    CAB_TRY(copy_heads(s, l, d->w, d->layout, n, w));
    return copy_heads(s, l, d->b, d->layout, n, b);
}

/* A layer without kept heads leaves its idle head at zero. */
static cab_status copy_attention(const start *s, int l, const cab_attention_mixer *a)
{
    static const cab_part weights[] = {CAB_PART_Q_W, CAB_PART_K_W, CAB_PART_V_W},
                          biases[] = {CAB_PART_Q_B, CAB_PART_K_B, CAB_PART_V_B};
    const cab_dense *const each[] = {&a->q, &a->k, &a->v};
    if (s->kept->count == 0 || a->out.w == NULL)
        return CAB_OK;
    CAB_TRY(copy_projection(s, l, &a->qkv, 3, weights, biases));
    for (int i = 0; i < 3; i++)
        CAB_TRY(copy_projection(s, l, each[i], 1, &weights[i], &biases[i]));
    CAB_TRY(copy_one(s, CAB_PART_Q_NORM, l, a->q_norm.w));
    CAB_TRY(copy_one(s, CAB_PART_K_NORM, l, a->k_norm.w));
    CAB_TRY(copy_output(s, l, &a->out));
    return copy_one(s, CAB_PART_OUT_B, l, a->out.b);
}

/* ---- mixers ----------------------------------------------------------------------------------------------------------- */

/* A projection of the teacher with its bias. */
typedef struct projection {
    cab_part_values w, b;
} projection;

static cab_status projection_take(const start *s, int l, cab_part w, cab_part b, projection *p)
{
    *p = (projection){0};
    CAB_TRY(take(s, w, l, &p->w));
    return take(s, b, l, &p->b);
}

static void projection_free(projection *p)
{
    cab_free(p->w.values);
    cab_free(p->b.values);
}

/* What the mixer multiplies its input by: x is as much smaller than V, which the output projection makes good; B and C are not. */
static float input_scale(const cab_mamba2 *m)
{
    return m->input_scale > 0 ? m->input_scale : 1;
}

/* Row r of the projection, times `factor`, is added to `row`; its bias to *bias. */
static void add_row(const projection *p, int64_t r, float factor, float *row, float *bias)
{
    for (int64_t i = 0; i < p->w.columns; i++)
        row[i] += factor * p->w.values[r * p->w.columns + i];
    *bias += p->b.values != NULL ? factor * p->b.values[r] : 0;
}

/* V of the teacher's query head `head`, feature i. */
static int64_t value_row(const cab_config *t, int64_t column)
{
    const int64_t head = column / t->head_dim, share = t->n_head / t->n_kv_head;
    return head / share * t->head_dim + column % t->head_dim;
}

/* Whether x's channel j is the negative of a pair, and which of attention's columns it carries; -1: none. */
static int64_t column_of(const start *s, const cab_mamba2 *m, int64_t j, bool *negative)
{
    const cab_config *t = &s->teacher->config;
    const int64_t P = m->d_inner / m->n_head, head = j / P, column = head / 2 * P + j % P;
    *negative = head % 2 == 1;
    return column < (int64_t)t->n_head * t->head_dim ? column : -1;
}

static cab_status start_values(const start *s, int l, const cab_mamba2 *m, float *in, float *conv)
{
    projection v;
    const int64_t D = cab_columns(m->in_proj.w);
    const cab_status status = projection_take(s, l, CAB_PART_V_W, CAB_PART_V_B, &v);
    for (int64_t j = 0; status == CAB_OK && j < m->d_inner; j++) {
        bool negative;
        const int64_t column = column_of(s, m, j, &negative);
        if (column >= 0)
            add_row(&v, value_row(&s->teacher->config, column), negative ? -1 : 1, in + j * D, conv + j);
        conv[j] *= input_scale(m);
    }
    projection_free(&v);
    return status;
}

/* The mean square of row r's outputs on inputs as the norm before the mixer gives them, of mean square g^2 each. */
static double mean_square(const projection *p, int64_t r, const float *g)
{
    const double b = p->b.values != NULL ? (double)p->b.values[r] : 0;
    double sum = b * b;
    for (int64_t i = 0; i < p->w.columns; i++) {
        const double y = (double)p->w.values[r * p->w.columns + i] * (g != NULL ? (double)g[i] : 1);
        sum += y * y;
    }
    return sum;
}

/* Where Q and K are normed: what their norm multiplies each row of the projection by, on average. factors is left NULL where they are not. */
static cab_status norm_factors(const start *s, int l, bool query, const projection *p, float **factors)
{
    cab_part_values norm = {0}, before = {0};
    cab_status status;
    CAB_GOTO(take(s, query ? CAB_PART_Q_NORM : CAB_PART_K_NORM, l, &norm));
    if (norm.values == NULL)
        goto done;
    CAB_GOTO(take(s, CAB_PART_NORM_W, l, &before));
    CAB_GOTO(CAB_NEW(factors, (size_t)p->w.rows, "a norm"));
    for (int64_t first = 0; first < p->w.rows; first += norm.rows) {
        double mean = 0;
        for (int64_t r = first; r < first + norm.rows; r++)
            mean += mean_square(p, r, before.values) / (double)norm.rows;
        for (int64_t r = first; r < first + norm.rows; r++)
            (*factors)[r] = norm.values[r - first] / (float)sqrt(mean > 0 ? mean : 1);
    }
done:
    cab_free(norm.values);
    cab_free(before.values);
    return status;
}

/* Rows of B or C: for group g the mean of the heads whose values its mixer heads carry, as (k, -k). */
static cab_status start_states(const start *s, int l, const cab_mamba2 *m, bool query, float *in, float *conv)
{
    const cab_config *t = &s->teacher->config;
    const int64_t D = cab_columns(m->in_proj.w), N = m->d_state, half = N / 2 < t->head_dim ? N / 2 : t->head_dim;
    const int64_t span = (int64_t)t->n_head / m->n_group > 0 ? t->n_head / m->n_group : 1;
    const int share = t->n_head / t->n_kv_head;
    projection p;
    float *normed = NULL;
    cab_status status =
        projection_take(s, l, query ? CAB_PART_Q_W : CAB_PART_K_W, query ? CAB_PART_Q_B : CAB_PART_K_B, &p);
    if (status == CAB_OK)
        status = norm_factors(s, l, query, &p, &normed);
    for (int64_t g = 0; status == CAB_OK && g < m->n_group; g++)
        for (int64_t i = 0; i < span * 2 * half; i++) {
            const int64_t head = (g * t->n_head / m->n_group + i / (2 * half)) % t->n_head, feature = i % (2 * half);
            const int64_t row = (query ? head : head / share) * t->head_dim + feature % half,
                          n = feature / half * (N / 2);
            const float sign = feature < half ? 1 : -1, factor = (float)s->recipe->init.qk_scale / (float)span;
            const int64_t to = g * N + n + feature % half;
            add_row(&p, row, sign * factor * (normed != NULL ? normed[row] : 1), in + to * D, conv + to);
        }
    if (status == CAB_OK)
        for (int64_t i = 0; i < (int64_t)m->n_group * N * D; i++)
            in[i] /= input_scale(m);
    cab_free(normed);
    projection_free(&p);
    return status;
}

static cab_status start_output(const start *s, int l, const cab_mamba2 *m, float *out)
{
    const cab_config *t = &s->teacher->config;
    cab_part_values p;
    CAB_TRY(take(s, CAB_PART_OUT_W, l, &p));
    for (int64_t j = 0; j < m->d_inner; j++) {
        bool negative;
        const int64_t column = column_of(s, m, j, &negative);
        const bool kept = column >= 0 && s->kept->count > 0 && cab_kept_has(s->kept, l, (int)(column / t->head_dim));
        for (int64_t r = 0; r < p.rows; r++)
            out[r * m->d_inner + j] =
                column < 0 || kept ? 0 : (negative ? -1.0f : 1.0f) * p.values[r * p.columns + column] / input_scale(m);
    }
    cab_free(p.values);
    return CAB_OK;
}

/* conv: what is added to x, B and C. */
static cab_status start_projections(const start *s, int l, const cab_mamba2 *m, float *conv)
{
    const int64_t D = cab_columns(m->in_proj.w), E = m->d_inner, groups = (int64_t)m->n_group * m->d_state;
    const bool reused = s->recipe->init.weights == CAB_INIT_TEACHER;
    float *in = NULL, *out = NULL;
    cab_status status;
    CAB_GOTO(CAB_NEW(&in, (size_t)cab_elements(m->in_proj.w), "a mixer"));
    CAB_GOTO(CAB_NEW(&out, (size_t)cab_elements(m->out_proj.w), "a mixer"));
    draw(s, m->in_proj.w, in, 0, (reused ? E : 2 * E + 2 * groups) * D, 1 / sqrt((double)D));
    if (s->recipe->init.gate_open)
        memset(in, 0, (size_t)(E * D) * sizeof *in);
    draw(s, m->out_proj.w, out, 0, cab_elements(m->out_proj.w), 1 / sqrt((double)E));
    if (reused) {
        CAB_GOTO(start_values(s, l, m, in + E * D, conv));
        CAB_GOTO(start_states(s, l, m, false, in + 2 * E * D, conv + E));
        CAB_GOTO(start_states(s, l, m, true, in + (2 * E + groups) * D, conv + E + groups));
        CAB_GOTO(start_output(s, l, m, out));
    }
    CAB_GOTO(put(s, m->in_proj.w, in));
    status = put(s, m->out_proj.w, out);
done:
    cab_free(in);
    cab_free(out);
    return status;
}

static cab_status start_convolution(const start *s, const cab_mamba2 *m)
{
    const int64_t n = cab_elements(m->conv_w), K = n / m->conv_w->shape[0]; /* taps, of which one is the token itself */
    float *values = NULL;
    CAB_TRY(CAB_NEW(&values, (size_t)n, "a convolution"));
    draw(s, m->conv_w, values, 0, n, 1 / sqrt((double)K));
    for (int64_t i = 0; s->recipe->init.conv_identity && i < n; i++)
        values[i] = i % K == (m->both ? K / 2 : K - 1);
    const cab_status status = put(s, m->conv_w, values);
    cab_free(values);
    return status;
}

/* Of both directions: in_proj has the biases, and the first part of its own opens the gate. */
static cab_status start_both(const start *s, int l, const cab_mamba2 *m)
{
    float *bias = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&bias, (size_t)cab_elements(m->in_proj.b), "a mixer's bias"));
    for (int j = 0; s->recipe->init.gate_open && j < m->d_inner; j++)
        bias[j] = open_gate;
    CAB_GOTO(start_projections(s, l, m, bias + m->d_inner));
    CAB_GOTO(put(s, m->in_proj.b, bias));
    CAB_GOTO(fill(s, m->conv_b, 0));
    status = m->conv_w != NULL ? start_convolution(s, m) : CAB_OK;
done:
    cab_free(bias);
    return status;
}

static cab_status start_convolved(const start *s, int l, const cab_mamba2 *m)
{
    float *conv = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&conv, (size_t)cab_elements(m->conv_b), "a convolution"));
    CAB_GOTO(start_projections(s, l, m, conv));
    CAB_GOTO(put(s, m->conv_b, conv));
    status = start_convolution(s, m);
done:
    cab_free(conv);
    return status;
}

/* -log of the decay from one token to the next at the start, where delta is 1. */
static double decay_rate(const start *s)
{
    const double decay = s->recipe->init.decay;
    return decay > 0 ? -log(decay) : 1.0 / s->student->config.max_length;
}

static cab_status start_mixer(const start *s, int l, const cab_mamba2 *m)
{
    CAB_TRY(m->both ? start_both(s, l, m) : start_convolved(s, l, m));
    CAB_TRY(fill(s, m->dt_bias, step_of_one));
    CAB_TRY(fill(s, m->A_log, log(decay_rate(s))));
    CAB_TRY(fill(s, m->D, s->recipe->init.skip));
    return fill(s, m->norm.w, 1);
}

/* ---- without the teacher's weights ------------------------------------------------------------------------------------ */

/* Matrices; vectors are 0 until they are known to be more. */
static cab_status draw_place(void *user, cab_tensor **place)
{
    const start *s = user;
    cab_tensor *t = *place;
    return t != NULL && t->n_dim == 2 ? draw_all(s, t, 1 / sqrt((double)cab_columns(t))) : fill(s, t, 0);
}

static cab_status draw_ends(start *s)
{
    cab_network n = s->student->network;
    CAB_TRY(cab_network_ends(&n, draw_place, s));
    for (int i = 0; i < CAB_SPECIAL_MAX; i++)
        CAB_TRY(draw_all(s, n.special[i], token_bound));
    for (int i = 0; i < CAB_REGISTERS_MAX; i++)
        CAB_TRY(draw_all(s, n.registers[i], token_bound));
    CAB_TRY(draw_all(s, n.positions, token_bound));
    return fill(s, n.final_norm.w, 1);
}

static cab_status draw_block(start *s, int l)
{
    cab_block b = s->student->network.blocks[l];
    const cab_mamba2 mixer = b.mamba2;
    cab_norm *const norms[] = {&b.norm,     &b.mlp_norm,         &b.mixed_norm,
                               &b.fed_norm, &b.attention.q_norm, &b.attention.k_norm};
    b.mamba2 = (cab_mamba2){0};
    CAB_TRY(cab_block_parameters(&b, draw_place, s));
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        CAB_TRY(fill(s, norms[i]->w, 1));
    if (mixer.out_proj.w == NULL)
        return CAB_OK;
    CAB_TRY(fill(s, mixer.out_proj.b, 0));
    return start_mixer(s, l, &mixer);
}

/* ---- all of it -------------------------------------------------------------------------------------------------------- */

static void report(const start *s)
{
    const cab_config *c = &s->student->config;
    if (c->d_model != s->teacher->config.d_model)
        cab_log_info("reuse    nothing: the student is %d wide, its teacher %d", c->d_model,
                     s->teacher->config.d_model);
    else if (c->image_size > 0)
        cab_log_info("reuse    patches, tokens, positions, %s of %d classes; norms, MLP, and Q, K, V, output "
                     "projection with their "
                     "biases of %d layers",
                     knows_classes(s) ? "head" : "and a new head", c->n_classes, c->n_layer);
    else
        cab_log_info("reuse    embedding, norms, MLP, head of %d layers, as they are", c->n_layer);
    if (s->kept->count > 0 && s->kept->layers)
        cab_log_info("keep     %d of %d layers as attention", s->kept->count, c->n_layer);
    else if (s->kept->count > 0)
        cab_log_info("keep     %d of %d heads of every layer as attention", s->kept->count, s->kept->n_head);
    cab_log_info("mixer    inner width %d, %d heads, %d groups, state %d", c->d_inner, c->n_state_head, c->n_group,
                 c->d_state);
}

cab_status cab_initialise_in_place_anew(cab_model *student, const cab_student_source *source)
{
    start s = {.student = student, .teacher = source->teacher, .recipe = source->recipe, .kept = source->kept};
    CAB_TRY(draw_ends(&s));
    for (int l = 0; l < student->config.n_layer; l++)
        CAB_TRY(draw_block(&s, l));
    report(&s);
    return CAB_OK;
}

cab_status cab_initialise_in_place(cab_model *student, const cab_student_source *source)
{
    const bool images = cab_model_reads_images(student);
    const start s = {.student = student,
                     .teacher = source->teacher,
                     .recipe = source->recipe,
                     .kept = source->kept,
                     .layer_map = images ? source->layer_map : NULL,
                     .class_map = source->class_map};
    const bool own = student->arch == &cab_arch_in_place;
    CAB_TRY(own ? copy_own_ends(&s) : copy_ends(&s));
    for (int l = 0; l < student->config.n_layer; l++) {
        const cab_block *b = &student->network.blocks[l];
        CAB_TRY(own ? copy_own_block(&s, l) : copy_block(&s, l, b));
        CAB_TRY(copy_attention(&s, l, &b->attention));
        if (b->mamba2.out_proj.w != NULL)
            CAB_TRY(start_mixer(&s, l, &b->mamba2));
        if (b->mamba2.out_proj.b != NULL && !cab_block_attends(b)) /* else attention adds it */
            CAB_TRY(copy_one(&s, CAB_PART_OUT_B, l, b->mamba2.out_proj.b));
    }
    report(&s);
    return CAB_OK;
}
