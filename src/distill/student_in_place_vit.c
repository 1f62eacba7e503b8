/* student_in_place_vit.c - the in-place student of images: a ViT, DeiT or DINOv2 as it is, with Mamba-2 in both directions
 * (nn/mamba2.h) in the place of its attention, in all layers or in all but those that are listed. Its directory is that of
 * models/in_place.h, which opens here.
 *
 * E = expand * width, heads of the width of the teacher's, a group for each of the teacher's heads, N = 2 * their width: V goes into
 * x in pairs (+, -), (k, -k) and (q, -q) into B and C. Fewer layers than the teacher has are those of the layer map. A student of another
 * width has the teacher's architecture and nothing of its weights. */
#include "distill/initialise_in_place.h"
#include "distill/students.h"
#include "models/architectures.h"
#include "models/in_place.h"

enum { STATE_MOST = 256 };

static bool is(const cab_model *model)
{
    return model->arch == &cab_arch_in_place && cab_model_reads_images(model);
}

/* Whether the student is as wide as its teacher, and can have its weights. */
static bool same_width(const cab_student_source *source)
{
    const int64_t given = source->recipe->student.d_model;
    return given == 0 || given == source->teacher->config.d_model;
}

static cab_status check_sizes(const cab_student_source *source)
{
    const struct cab_recipe_student *s = &source->recipe->student;
    const cab_config *t = &source->teacher->config;
    const struct {
        const char *key;
        int64_t given;
        int own;
    } sizes[] = {{"d_mlp", s->d_mlp, t->d_mlp}, {"n_head", s->n_head, t->n_head}};
    for (size_t i = 0; same_width(source) && i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].given > 0 && sizes[i].given != sizes[i].own)
            return cab_fail(CAB_EARG,
                            "student.%s is %d; an in-place student of its teacher's width has its teacher's, %d",
                            sizes[i].key, (int)sizes[i].given, sizes[i].own);
    if (!same_width(source) && source->recipe->init.weights == CAB_INIT_TEACHER)
        return cab_fail(CAB_EARG,
                        "student.d_model is %d, the teacher's %d: weights of one width say nothing to another; "
                        "init.weights must be scratch",
                        (int)s->d_model, t->d_model);
    if (s->n_layer > t->n_layer)
        return cab_fail(CAB_ESHAPE, "student.n_layer is %d; an in-place student has at most its teacher's %d",
                        (int)s->n_layer, t->n_layer);
    return CAB_OK;
}

/* Heads as wide as the teacher's and an MLP as many times wider, where nothing else is said. */
static cab_status derive_width(const cab_student_source *source, cab_config *c)
{
    const struct cab_recipe_student *s = &source->recipe->student;
    const cab_config *t = &source->teacher->config;
    if (same_width(source))
        return CAB_OK;
    c->d_model = (int)s->d_model;
    c->d_mlp = cab_student_chosen(s->d_mlp, (int)(((int64_t)t->d_mlp * c->d_model + t->d_model - 1) / t->d_model));
    c->n_head = cab_student_chosen(s->n_head, c->d_model > t->head_dim ? c->d_model / t->head_dim : 1);
    if (c->d_model % c->n_head != 0)
        return cab_fail(CAB_ESHAPE, "student.n_head %d does not divide student.d_model %d", c->n_head, c->d_model);
    c->n_kv_head = c->n_head;
    c->head_dim = c->d_model / c->n_head;
    return CAB_OK;
}

static cab_status derive_mixer(const cab_student_source *source, cab_config *c)
{
    const struct cab_recipe_student *s = &source->recipe->student;
    const int width = cab_student_chosen(s->head_dim, c->head_dim);
    c->both_ways = c->in_bias = true;
    c->out_bias = source->teacher->network.blocks[0].attention.out.b != NULL;
    c->token_scale = s->token_scale;
    c->shared_decay = s->shared_decay;
    c->grid_conv = (int)s->grid_conv;
    c->conv_bias = c->grid_conv > 0;
    c->d_conv = 1;
    if (c->grid_conv > 0 && (c->grid_conv < 3 || c->grid_conv % 2 == 0))
        return cab_fail(CAB_EARG, "student.grid_conv is %d; supported are 3, 5 and 7, and 0 for none", c->grid_conv);
    c->d_inner = (int)s->expand * c->n_head * c->head_dim;
    c->d_state = cab_student_chosen(s->d_state, 2 * c->head_dim < STATE_MOST ? 2 * c->head_dim : STATE_MOST);
    if (c->d_inner % width != 0)
        return cab_fail(CAB_ESHAPE, "student.head_dim %d does not divide the inner width %d", width, c->d_inner);
    c->n_state_head = c->d_inner / width;
    c->n_group = cab_student_chosen(s->n_group, c->n_head);
    if (c->n_state_head % c->n_group != 0)
        return cab_fail(CAB_ESHAPE, "student.n_group %d does not divide %d heads", c->n_group, c->n_state_head);
    return CAB_OK;
}

/* All heads of the listed layers, none of the others. */
static json_object *list_kept(const cab_kept *kept, const cab_config *c)
{
    json_object *list = json_object_new_array();
    for (int l = 0; l < c->n_layer; l++) {
        json_object *heads = json_object_new_array();
        for (int h = 0; h < c->n_head && kept->count > 0 && cab_kept_has(kept, l, 0); h++)
            json_object_array_add(heads, json_object_new_int(h));
        json_object_array_add(list, heads);
    }
    return list;
}

static cab_status derive(const cab_student_source *source, const cab_arch **arch, cab_config *c)
{
    const struct cab_recipe_student *s = &source->recipe->student;
    const cab_kept *kept = source->kept;
    CAB_TRY(check_sizes(source));
    *arch = &cab_arch_in_place;
    *c = source->teacher->config;
    c->n_layer = cab_student_chosen(s->n_layer, c->n_layer);
    c->n_classes = source->n_classes;
    CAB_TRY(derive_width(source, c));
    CAB_TRY(derive_mixer(source, c));
    for (int i = 0; i < kept->count; i++)
        if (kept->units[i] >= c->n_layer)
            return cab_fail(CAB_ESHAPE, "student.keep_list has layer %d, the student has %d, counted from 0",
                            kept->units[i], c->n_layer);
    if (kept->count == c->n_layer)
        return cab_fail(CAB_EARG, "student.keep keeps all %d layers: nothing is left to replace", kept->count);
    return cab_in_place_describe_teacher(source->teacher, list_kept(kept, c), c);
}

static cab_status keeps(const cab_student_source *source, const cab_windows *windows, cab_kept *kept)
{
    const struct cab_recipe_student *s = &source->recipe->student;
    if (s->keep > 0 && s->keep_list.count == 0 && !same_width(source))
        return cab_fail(
            CAB_EARG,
            "student.keep is %d: layers of another width than the teacher's, %d, are not ranked, as none of "
            "them can be its own; name them in student.keep_list",
            (int)s->keep, source->teacher->config.d_model);
    return cab_kept_choose(source->teacher, source->recipe, true, windows, kept);
}

static cab_status initialise(cab_model *student, const cab_student_source *source)
{
    if (!same_width(source))
        return cab_initialise_in_place_anew(student, source);
    for (int l = 0; l < student->config.n_layer; l++)
        if (source->layer_map[l] < 0)
            return cab_fail(CAB_EARG,
                            "bridge.layers[%d] is -1; every layer of an in-place student is one of its teacher's", l);
    return cab_initialise_in_place(student, source);
}

/* ---- recipes ---------------------------------------------------------------------------------------------------------- */

/* Where all methods but vanilla and soft start. */
#define SCRATCH "bridge.error=relative", "init.conv_identity=true", "init.decay=0", "init.skip=0"
#define FROM_ATTENTION SCRATCH, "init.weights=teacher", "init.qk_scale=0.35", "init.gate_open=true"

static const char *const vanilla[] = {SCRATCH, "stages[0].name=train", "stages[0].ce=1", NULL};

static const char *const soft[] = {SCRATCH, "stages[0].name=distil", "stages[0].ce=1", "stages[0].kl=1", NULL};

static const char *const cab_published[] = {
    "bridge.error=squared", "init.conv_identity=true", "init.decay=0",      "init.skip=0",
    "stages[0].name=joint", "stages[0].kl=1",          "stages[0].align=3", NULL};

static const char *const cab[] = {FROM_ATTENTION,   "stages[0].name=joint", "stages[0].ce=1",
                                  "stages[0].kl=1", "stages[0].align=3",    NULL};

static const char *const weight_reuse[] = {FROM_ATTENTION, "stages[0].name=distil", "stages[0].ce=1", "stages[0].kl=1",
                                           NULL};

static const char *const multi_stage[] = {FROM_ATTENTION, CAB_PRESET_MULTI_STAGE, CAB_PRESET_MIXER_RATE("2e-3"),
                                          "stages[2].lr=2e-4", NULL};

static const char *const attention_copy[] = {SCRATCH,
                                             "init.weights=teacher",
                                             "init.gate_open=true",
                                             "stages[0].name=distil",
                                             "stages[0].kl=1",
                                             "stages[0].freeze=*.mamba.in_proj.*",
                                             NULL};

static const char *const cab_best[] = {
    FROM_ATTENTION,          "stages[0].name=layers", "stages[0].share=0.5", "stages[0].lr=2e-3", "stages[0].layer=1",
    "stages[1].name=distil", "stages[1].lr=2e-4",     "stages[1].kl=1",      "stages[1].ce=0.3",  NULL};

static const cab_preset presets[] = {
    [CAB_METHOD_CUSTOM] = {(const char *const[]){NULL}, 0, 0, 0},
    [CAB_METHOD_VANILLA] = {vanilla, 1, 0, 0},
    [CAB_METHOD_SOFT] = {soft, 1, 0, 0},
    [CAB_METHOD_CAB_PUBLISHED] = {cab_published, 1, 0, 0},
    [CAB_METHOD_CAB] = {cab, 1, 0, 0},
    [CAB_METHOD_WEIGHT_REUSE] = {weight_reuse, 1, 0, 0},
    [CAB_METHOD_MULTI_STAGE] = {multi_stage, 3, 0, 0},
    [CAB_METHOD_ATTENTION_COPY] = {attention_copy, 1, 0, 0},
    [CAB_METHOD_CAB_BEST] = {cab_best, 2, 0, 0},
};

static const cab_student_default defaults[] = {
    {"train.batch", "64"}, {"train.weight_decay", "0.05"}, {"student.grid_conv", "3"}, {NULL, NULL}};
static const char *const keys[] = {
    "student.expand",  "student.keep",        "student.keep_list",    "student.head_dim",
    "student.n_group", "student.token_scale", "student.shared_decay", "student.grid_conv",
    "student.classes", "init.skip",           "init.gate_open",       NULL};
static const char *const fresh[] = {"*.mamba.*", NULL};

const cab_student cab_student_in_place_vit = {
    .name = "in-place",
    .domain = &cab_recipe_images,
    .defaults = defaults,
    .keys = keys,
    .presets = presets,
    .fresh = fresh,
    .keeps = keeps,
    .is = is,
    .derive = derive,
    .initialise = initialise,
};
