/* student_vim.c - the student of images: Vision Mamba, of the sizes of Vim-Tiny or as wide as its teacher. */
#include "distill/initialise_vim.h"
#include "distill/students.h"
#include "models/architectures.h"

enum { STATES = 16, RANK_SHARE = 16 };

static bool is(const cab_model *model)
{
    return model->arch == &cab_arch_vim;
}

static cab_status derive(const cab_student_source *source, const cab_arch **arch, cab_config *c)
{
    const struct cab_recipe_student *s = &source->recipe->student;
    const cab_config *t = &source->teacher->config;
    *arch = &cab_arch_vim;
    *c = (cab_config){.d_model = cab_student_chosen(s->d_model, t->d_model),
                      .n_layer = cab_student_chosen(s->n_layer, t->n_layer),
                      .d_state = cab_student_chosen(s->d_state, STATES),
                      .d_conv = (int)s->d_conv,
                      .patch_size = cab_student_chosen(s->patch_size, t->patch_size),
                      .n_classes = source->n_classes,
                      .n_group = 1,
                      .n_special = 1,
                      .tied_decay = s->tied_decay,
                      .class_middle = true,
                      .norm_eps = 1e-5};
    c->d_inner = (int)s->expand * c->d_model;
    c->dt_rank = cab_student_chosen(s->dt_rank, (c->d_model + RANK_SHARE - 1) / RANK_SHARE);
    if (t->image_size % c->patch_size != 0)
        return cab_fail(CAB_ESHAPE, "student.patch_size is %d, images have %d pixels a side: not a multiple",
                        c->patch_size, t->image_size);
    cab_config_set_image(c, t->image_size);
    return CAB_OK;
}

static cab_status initialise(cab_model *student, const cab_student_source *source)
{
    return cab_initialise_images(student, source->teacher, source->recipe, source->layer_map, source->class_map);
}

/* The sizes of Vision Mamba, and the paper's schedule at its batch of 64. */
static const cab_student_default defaults[] = {{"student.d_state", "16"},
                                               {"bridge.hidden", "128"},
                                               {"bridge.feature_map", "softmax"},
                                               {"train.batch", "64"},
                                               {"train.min_lr", "0.16"},
                                               {"train.warmup", "0.017"},
                                               {"train.weight_decay", "0.05"},
                                               {"train.beta2", "0.999"},
                                               {"train.clip", "0"},
                                               {NULL, NULL}};
static const char *const keys[] = {"student.expand",     "student.dt_rank", "student.tied_decay",
                                   "student.patch_size", "student.classes", NULL};

const cab_student cab_student_vim = {
    .name = "vim",
    .domain = &cab_recipe_images,
    .defaults = defaults,
    .keys = keys,
    .is = is,
    .derive = derive,
    .initialise = initialise,
};
