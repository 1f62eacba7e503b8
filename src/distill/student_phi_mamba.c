/* student_phi_mamba.c - the student of text: the discrete Mamba-2 of Phi-Mamba, sized after its teacher. */
#include "distill/initialise_phi_mamba.h"
#include "distill/students.h"
#include "models/architectures.h"

static bool is(const cab_model *model)
{
    return model->arch == &cab_arch_phi_mamba;
}

static cab_status derive(const cab_student_source *source, const cab_arch **arch, cab_config *c)
{
    const struct cab_recipe_student *s = &source->recipe->student;
    const cab_config *t = &source->teacher->config;
    *arch = &cab_arch_phi_mamba;
    *c = (cab_config){.vocab_size = t->vocab_size,
                      .d_model = cab_student_chosen(s->d_model, t->d_model),
                      .n_layer = cab_student_chosen(s->n_layer, t->n_layer),
                      .n_head = cab_student_chosen(s->n_head, t->n_head),
                      .d_mlp = cab_student_chosen(s->d_mlp, t->d_mlp),
                      .d_state = cab_student_chosen(s->d_state, t->head_dim),
                      .d_conv = (int)s->d_conv,
                      .max_length = (int)source->seq_len,
                      .norm_eps = t->norm_eps,
                      .activation = t->activation,
                      .logit_cap = t->logit_cap,
                      .bos_token = t->bos_token,
                      .eos_token = t->eos_token};
    if (c->d_model % c->n_head != 0)
        return cab_fail(CAB_ESHAPE, "student.d_model %d is not a multiple of student.n_head %d", c->d_model, c->n_head);
    c->n_kv_head = c->n_group = c->n_head;
    c->head_dim = c->d_model / c->n_head;
    return CAB_OK;
}

static cab_status initialise(cab_model *student, const cab_student_source *source)
{
    return cab_initialise_phi_mamba(student, source->teacher, source->recipe, source->layer_map);
}

static const cab_student_default defaults[] = {{NULL, NULL}};
static const char *const keys[] = {"init.fold", "init.gate_open", "init.skip", "init.std", NULL};

const cab_student cab_student_phi_mamba = {
    .name = "phi-mamba",
    .domain = &cab_recipe_text,
    .defaults = defaults,
    .keys = keys,
    .is = is,
    .derive = derive,
    .initialise = initialise,
};
