/* term_layer.c - the layer-wise error: the mixers of every student layer, given what the mixers of its teacher layer read,
 * against what those gave:
 *
 *   mean over mapped layers l of  mean (mixers_l(u) - t)^2 / var(t)      u, t: input and output of the mixers of layer g(l)
 *
 * No layer hears of another, and nothing but the mixers learns. A layer whose mixers are attention alone is left out: it is the
 * teacher's own. The state is the layer map (MOHAWK, Bick et al. 2024, has the like as its second stage). */
#include "base/memory.h"
#include "distill/term.h"

#include <string.h>

typedef struct layers {
    int count;
    int *teacher; /* of every student layer; -1: it takes no part */
} layers;

static bool takes_part(const cab_model *student, int l)
{
    return cab_model_tap_width(student, l, CAB_TAP_B) > 0;
}

static cab_status check_pair(const cab_model *student, const cab_model *teacher)
{
    const cab_config *s = &student->config, *t = &teacher->config;
    if (s->d_model != t->d_model)
        return cab_fail(CAB_ESHAPE, "the student is %d wide, the teacher %d: layers are compared output by output",
                        s->d_model, t->d_model);
    if (s->n_special != t->n_special || s->class_at != t->class_at || s->patch_size != t->patch_size)
        return cab_fail(CAB_ESHAPE,
                        "student and teacher order their tokens otherwise: layers are compared token by token");
    return CAB_OK;
}

static void layer_close(void *state)
{
    layers *s = state;
    if (s != NULL)
        cab_free(s->teacher);
    cab_free(s);
}

static cab_status layer_open(const cab_term_setup *setup, void **state)
{
    const int n_layer = setup->student->config.n_layer;
    layers *s = NULL;
    cab_status status;
    CAB_TRY(check_pair(setup->student, setup->teacher));
    CAB_TRY(CAB_NEW(&s, 1, "the layer-wise error"));
    *state = s;
    CAB_GOTO(CAB_NEW(&s->teacher, (size_t)n_layer, "the layer-wise error"));
    for (int l = 0; l < n_layer; l++) {
        s->teacher[l] = takes_part(setup->student, l) ? setup->layer_map[l] : -1;
        s->count += s->teacher[l] >= 0;
    }
    status = s->count > 0 ? CAB_OK : cab_fail(CAB_ESHAPE, "no layer of the student learns from a layer of the teacher");
done:
    if (status != CAB_OK) {
        layer_close(s);
        *state = NULL;
    }
    return status;
}

static cab_status layer_record(const cab_term_inputs *in, cab_term_output *out)
{
    const layers *s = in->state;
    const cab_network *n = &in->student->network;
    cab_context context = {.dtype = cab_model_dtype(in->student), .max_length = n->max_length};
    out->over = s->count;
    for (int l = 0; l < n->n_layer; l++) {
        const int g = s->teacher[l];
        if (g < 0)
            continue;
        context.layer = l;
        cab_tensor *mixed = cab_block_mix_record(in->g, &context, &n->blocks[l], in->teacher_taps->mixer_in[g]);
        CAB_TRY(cab_term_add(in->g, out, cab_relative_error(in->g, mixed, in->teacher_taps->mixer_out[g])));
    }
    return CAB_OK;
}

const cab_term cab_term_layer = {
    .needs = CAB_NEEDS_TEACHER,
    .teacher_taps = CAB_TAP_BIT(CAB_TAP_MIXER_IN) | CAB_TAP_BIT(CAB_TAP_MIXER_OUT),
    .chart = {.title = "Layer-wise error, training",
              .note = "each mixer on the input of the teacher's layer, against what attention makes of it",
              .unit = "share of the variance",
              .logarithmic = true},
    .open = layer_open,
    .close = layer_close,
    .record = layer_record,
};
