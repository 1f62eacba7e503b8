/* term_matrix.c - the matrix error, MOHAWK's matrix orientation (Bick et al. 2024): what the mixer of every student layer multiplies its x by,
 * given what the mixers of its teacher layer read, against what attention multiplies its values by there:
 *
 *   mean over mapped layers of  mean over pairs of heads of  ||M - A||^2 / ||A||^2      (ops/mixer_matrix.c)
 *
 * A head of the mixer is compared with the heads of attention whose columns it stands for: with the same share of them; of an in-place
 * mixer two heads, (V, -V), stand for the same columns. Every channel of a Mamba-1 is a head. No layer hears of another. The state is the
 * cab_layerwise. */
#include "distill/layerwise.h"

/* Mamba-1's decays may differ from state to state; a matrix of those would cost N times as much. */
static bool is_tied(const cab_block *block)
{
    const cab_tensor *A_log[] = {block->mamba1.inner.A_log, block->vim.forward.A_log, block->vim.backward.A_log};
    for (size_t i = 0; i < sizeof A_log / sizeof *A_log; i++)
        if (A_log[i] != NULL && !A_log[i]->tied)
            return false;
    return true;
}

static cab_status check_layer(const cab_term_setup *setup, int l, int teacher)
{
    const cab_block *block = &setup->student->network.blocks[l];
    if (!cab_block_attends(&setup->teacher->network.blocks[teacher]))
        return cab_fail(CAB_ESHAPE, "layer %d of the teacher has no attention: there is no matrix to compare with",
                        teacher);
    if (!is_tied(block))
        return cab_fail(CAB_EUNSUPPORTED,
                        "the decays of layer %d of the student differ from state to state; matrices are compared where "
                        "student.tied_decay is on",
                        l);
    return CAB_OK;
}

static cab_status matrix_open(const cab_term_setup *setup, void **state)
{
    cab_layerwise *layers = NULL;
    cab_status status = CAB_OK;
    CAB_TRY(cab_layerwise_open(setup, &layers));
    for (int l = 0; l < setup->student->config.n_layer; l++)
        if (layers->teacher[l] >= 0)
            CAB_GOTO(check_layer(setup, l, layers->teacher[l]));
done:
    if (status == CAB_OK)
        *state = layers;
    else
        cab_layerwise_close(layers);
    return status;
}

/* What the mixer of one layer left in its taps. */
typedef struct tapped {
    cab_tensor *C, *B, *decay, *C_back, *B_back, *decay_back;
} tapped;

static cab_mixer_direction direction(cab_graph *g, cab_tensor *C, cab_tensor *B, cab_tensor *decay, cab_tensor *dt_bias,
                                     cab_tensor *A_log, cab_tensor *D)
{
    return (cab_mixer_direction){.C = C, .B = B, .decays = cab_mixer_decay(g, decay, dt_bias, A_log), .D = D};
}

static cab_mixer_direction channels(cab_graph *g, const cab_mamba1 *m, cab_tensor *C, cab_tensor *B, cab_tensor *dt)
{
    return direction(g, C, B, dt, m->dt_bias, m->A_log, m->D);
}

static void describe_mamba1(cab_graph *g, const cab_block *block, const tapped *t, cab_mixer_matrix *m)
{
    const bool vim = block->vim.out_proj.w != NULL;
    m->both = vim;
    m->scale = vim ? 0.5f : 1; /* the mean of both directions */
    m->n_head = vim ? block->vim.d_inner : block->mamba1.d_inner;
    m->n_group = 1;
    m->directions[0] = channels(g, vim ? &block->vim.forward : &block->mamba1.inner, t->C, t->B, t->decay);
    if (vim)
        m->directions[1] = channels(g, &block->vim.backward, t->C_back, t->B_back, t->decay_back);
}

static void describe_mamba2(cab_graph *g, const cab_mamba2 *mixer, const tapped *t, cab_mixer_matrix *m)
{
    m->both = mixer->both;
    if (mixer->both && mixer->token_scale > 0 && t->C != NULL)
        m->scale = mixer->token_scale / (float)t->C->shape[1];
    m->n_head = mixer->n_head;
    m->n_group = mixer->n_group;
    m->share = 2; /* (V, -V) */
    m->width = mixer->d_inner / mixer->n_head;
    m->of = m->attention.head_dim;
    m->directions[0] = direction(g, t->C, t->B, t->decay, mixer->dt_bias, mixer->A_log, mixer->D);
}

static cab_tensor *record_pair(const cab_term_inputs *in, int l, int teacher)
{
    const cab_layerwise *layers = in->state;
    tapped t = {0};
    const cab_taps taps = {.C = &t.C,
                           .B = &t.B,
                           .decay = &t.decay,
                           .query_back = &t.C_back,
                           .key_back = &t.B_back,
                           .decay_back = &t.decay_back};
    const cab_block *block = &in->student->network.blocks[l];
    cab_mixer_matrix m = {.scale = 1,
                          .share = 1,
                          .q = in->teacher_taps->query[teacher],
                          .k = in->teacher_taps->key[teacher],
                          .starts = in->starts,
                          .rows = layers->ordered ? NULL : &layers->rows,
                          .attention = in->teacher->network.blocks[teacher].attention.shape};
    cab_layerwise_record(in, l, &taps);
    if (block->mamba2.out_proj.w != NULL) {
        describe_mamba2(in->g, &block->mamba2, &t, &m);
        return cab_mixer_matrix_loss(in->g, &m);
    }
    if (block->discrete.out_proj.w != NULL) {
        m.n_head = block->discrete.n_head;
        m.n_group = block->discrete.n_group;
        m.directions[0] = direction(in->g, t.C, t.B, t.decay, NULL, NULL, block->discrete.D);
    } else {
        describe_mamba1(in->g, block, &t, &m);
    }
    m.width = m.attention.n_head;
    m.of = m.n_head;
    return cab_mixer_matrix_loss(in->g, &m);
}

static cab_status matrix_record(const cab_term_inputs *in, cab_term_output *out)
{
    const cab_layerwise *s = in->state;
    out->over = s->count;
    for (int l = 0; l < in->student->config.n_layer; l++)
        if (s->teacher[l] >= 0)
            CAB_TRY(cab_term_add(in->g, out, record_pair(in, l, s->teacher[l])));
    return CAB_OK;
}

const cab_term cab_term_matrix = {
    .needs = CAB_NEEDS_TEACHER,
    .teacher_taps = (unsigned)CAB_LAYERWISE_TAPS | CAB_TAP_BIT(CAB_TAP_QUERY) | CAB_TAP_BIT(CAB_TAP_KEY),
    .chart = {.title = "Matrix error, training",
              .note = "each mixer's matrix on the input of the teacher's layer, against attention's",
              .unit = "share of its square",
              .logarithmic = true},
    .open = matrix_open,
    .close = cab_layerwise_close,
    .record = matrix_record,
};
