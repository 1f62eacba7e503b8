/* term_layer.c - the layer-wise error: the mixers of every student layer, given what the mixers of its teacher layer read,
 * against what those gave:
 *
 *   mean over mapped layers l of  mean (mixers_l(u) - t)^2 / var(t)      u, t: input and output of the mixers of layer g(l)
 *
 * No layer hears of another, and nothing but the mixers learns. A layer whose mixers are attention alone is left out: it is the
 * teacher's own. The state is the cab_layerwise. MOHAWK (Bick et al. 2024) has as its second stage the error of whole blocks, which add the
 * same input to both sides; its first is term_matrix.c. */
#include "distill/layerwise.h"

static cab_status layer_open(const cab_term_setup *setup, void **state)
{
    cab_layerwise *layers = NULL;
    CAB_TRY(cab_layerwise_open(setup, &layers));
    *state = layers;
    return CAB_OK;
}

static cab_status layer_record(const cab_term_inputs *in, cab_term_output *out)
{
    const cab_layerwise *s = in->state;
    out->over = s->count;
    for (int l = 0; l < in->student->config.n_layer; l++)
        if (s->teacher[l] >= 0) {
            const cab_alignment how = {.rows = s->ordered ? NULL : &s->rows, .relative = true};
            cab_tensor *target = in->teacher_taps->mixer_out[s->teacher[l]];
            CAB_TRY(cab_term_add(in->g, out, cab_align_loss(in->g, cab_layerwise_record(in, l, NULL), target, &how)));
        }
    return CAB_OK;
}

const cab_term cab_term_layer = {
    .needs = CAB_NEEDS_TEACHER,
    .teacher_taps = (unsigned)CAB_LAYERWISE_TAPS | CAB_TAP_BIT(CAB_TAP_MIXER_OUT),
    .chart = {.title = "Layer-wise error, training",
              .note = "each mixer on the input of the teacher's layer, against what attention makes of it",
              .unit = "share of the variance",
              .logarithmic = true},
    .open = layer_open,
    .close = cab_layerwise_close,
    .record = layer_record,
};
