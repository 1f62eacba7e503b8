#include "distill/layerwise.h"

#include "base/memory.h"
#include "distill/students.h"

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
    if (s->patch_size != t->patch_size)
        return cab_fail(CAB_ESHAPE,
                        "the student has patches of %d pixels, the teacher of %d: layers are compared token by token",
                        s->patch_size, t->patch_size);
    if (s->n_special > t->n_special)
        return cab_fail(
            CAB_ESHAPE,
            "the student has %d tokens beside the patches, the teacher %d: layers are compared token by token",
            s->n_special, t->n_special);
    return CAB_OK;
}

static void order_tokens(const cab_config *s, const cab_config *t, cab_layerwise *layers)
{
    layers->ordered = s->n_special == t->n_special && s->class_at == t->class_at;
    layers->rows = (cab_row_map){.class_at = s->class_at, .skip = t->n_special - s->n_special};
}

void cab_layerwise_close(void *state)
{
    cab_layerwise *s = state;
    if (s != NULL)
        cab_free(s->teacher);
    cab_free(s);
}

cab_status cab_layerwise_open(const cab_term_setup *setup, cab_layerwise **layers)
{
    const int n_layer = setup->student->config.n_layer;
    cab_layerwise *s = NULL;
    cab_status status;
    CAB_TRY(check_pair(setup->student, setup->teacher));
    CAB_TRY(CAB_NEW(&s, 1, "layer-wise terms"));
    CAB_GOTO(CAB_NEW(&s->teacher, (size_t)n_layer, "layer-wise terms"));
    order_tokens(&setup->student->config, &setup->teacher->config, s);
    for (int l = 0; l < n_layer; l++) {
        s->teacher[l] = takes_part(setup->student, l) ? setup->layer_map[l] : -1;
        s->count += s->teacher[l] >= 0;
    }
    status = s->count > 0 ? CAB_OK : cab_fail(CAB_ESHAPE, "no layer of the student learns from a layer of the teacher");
done:
    if (status == CAB_OK)
        *layers = s;
    else
        cab_layerwise_close(s);
    return status;
}

cab_tensor *cab_layerwise_record(const cab_term_inputs *in, int l, const cab_taps *taps)
{
    const cab_layerwise *s = in->state;
    const cab_network *n = &in->student->network;
    cab_context context = {
        .dtype = cab_model_dtype(in->student), .starts = in->starts, .max_length = n->max_length, .taps = taps};
    const cab_student *kind = cab_student_of_model(in->student);
    const bool own_norm = kind != NULL && kind->fresh == NULL && n->blocks[l].norm.w != NULL;
    const int from = s->teacher[l];
    cab_tensor *u = own_norm ? in->teacher_taps->hidden[from] : in->teacher_taps->mixer_in[from];
    if (!s->ordered)
        u = cab_order_tokens(in->g, u, &s->rows);
    if (own_norm)
        u = cab_norm_record(in->g, &n->blocks[l].norm, u);
    return cab_block_mix_record(in->g, &context, &n->blocks[l], u);
}
