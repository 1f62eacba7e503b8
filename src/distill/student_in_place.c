/* student_in_place.c - the student that is its teacher, but for attention: Mamba-2 as it was published takes the place of all
 * heads or of all but some, in a layout that other tools open (layouts.h).
 *
 *   falcon-h1         x + attention of the kept heads (u) + mixer(u): since the output projection sums over heads, kept heads are
 *                     exact, and the mixer stands for the others
 *   granite-hybrid    a layer has either attention or the mixer
 *   own               both, in the blocks of any family (models/in_place.h), which opens here
 *
 * E = expand * (heads * head width), heads of width P, groups as many as the teacher has heads of K and V. */
#include "base/log.h"
#include "base/memory.h"
#include "distill/initialise_in_place.h"
#include "distill/layouts.h"
#include "distill/students.h"
#include "models/in_place.h"
#include "models/part.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { HEAD_WIDTH = 64, IDLE_WIDTH = 32, STATE_MOST = 256 };

static bool is(const cab_model *model)
{
    for (unsigned i = 0; cab_student_layout_at(i) != NULL; i++)
        if (cab_student_layout_at(i)->keeps != 0 && model->arch == cab_student_layout_at(i)->arch)
            return true;
    return false;
}

/* What is kept in a layout: heads or layers, 0 if nothing is. */
static int kept_unit(const struct cab_recipe_student *s, const cab_student_layout *layout)
{
    if (s->keep == 0 && s->keep_list.count == 0)
        return 0;
    if (s->keep_unit > 0)
        return 1 << (s->keep_unit - 1);
    return layout->keeps == CAB_KEEP_LAYERS ? CAB_KEEP_LAYERS : CAB_KEEP_HEADS;
}

static bool holds(const cab_student_source *source, const cab_student_layout *layout, char why[CAB_WHY_MAX])
{
    const int unit = kept_unit(&source->recipe->student, layout);
    if (unit == 0 || (layout->keeps & unit) != 0)
        return cab_student_layout_holds(layout, source->teacher, unit, why);
    snprintf(why, CAB_WHY_MAX, "%s", unit == CAB_KEEP_HEADS ? "some heads of a layer" : "whole layers of attention");
    return false;
}

/* The layout that the recipe names, or the first of those that are chosen by themselves that holds the teacher; `why` is then what the
 * first of them cannot hold, "" if it is the one. */
static cab_status choose_layout(const cab_student_source *source, const cab_student_layout **out, char why[CAB_WHY_MAX])
{
    const unsigned named = (unsigned)source->recipe->student.layout;
    const cab_student_layout *layout;
    char others[CAB_WHY_MAX] = "", unused[CAB_WHY_MAX];
    for (unsigned i = 0; (layout = cab_student_layout_at(i)) != NULL; i++) {
        const bool wanted = named == CAB_LAYOUT_AUTO ? layout->automatic : named == i + 1;
        const size_t used = strlen(others);
        if (!holds(source, layout, i == 0 ? why : unused))
            continue;
        if (wanted) {
            *out = layout;
            return CAB_OK;
        }
        snprintf(others + used, sizeof others - used, "%s%s", used > 0 ? ", " : "", layout->name);
    }
    layout = cab_student_layout_at(named == CAB_LAYOUT_AUTO ? 0 : named - 1);
    (void)holds(source, layout, why);
    return cab_fail(CAB_EUNSUPPORTED, "%s: student.layout %s cannot hold %s; layouts that can: %s",
                    source->recipe->teacher.path, layout->name, why, others[0] != '\0' ? others : "none");
}

/* The largest number of groups up to `wanted` that divides both. */
static int groups_of(int wanted, int heads)
{
    while (heads % wanted != 0)
        wanted--;
    return wanted;
}

/* Heads and groups of the mixer. */
static cab_status derive_mixer(const cab_student_source *source, const cab_student_layout *layout, cab_config *c)
{
    const struct cab_recipe_student *s = &source->recipe->student;
    const cab_config *t = &source->teacher->config;
    const int attention = t->n_head * t->head_dim, expand = layout->expand > 0 ? layout->expand : (int)s->expand;
    const int width = cab_student_chosen(s->head_dim, attention % HEAD_WIDTH == 0 ? HEAD_WIDTH : t->head_dim);
    c->d_inner = layout->expand > 0 ? expand * c->d_model : expand * attention;
    c->d_state = cab_student_chosen(s->d_state, 2 * t->head_dim < STATE_MOST ? 2 * t->head_dim : STATE_MOST);
    c->d_conv = (int)s->d_conv;
    c->conv_bias = true;
    c->gated_norm = layout->gated_norm;
    if (layout->expand > 0 && s->expand != layout->expand)
        return cab_fail(CAB_EARG, "student.expand is %d, layout %s has %d", (int)s->expand, layout->name,
                        layout->expand);
    if (c->d_inner % width != 0)
        return cab_fail(CAB_ESHAPE, "student.head_dim %d does not divide the inner width %d", width, c->d_inner);
    c->n_state_head = c->d_inner / width;
    c->n_group =
        layout->groups > 0 ? layout->groups : cab_student_chosen(s->n_group, groups_of(t->n_kv_head, c->n_state_head));
    if (layout->groups > 0 && s->n_group > 0 && s->n_group != layout->groups)
        return cab_fail(CAB_EARG, "student.n_group is %d, layout %s has %d", (int)s->n_group, layout->name,
                        layout->groups);
    if (c->n_state_head % c->n_group != 0)
        return cab_fail(CAB_ESHAPE, "student.n_group %d does not divide %d heads", c->n_group, c->n_state_head);
    return CAB_OK;
}

/* Heads that stay attention, or one narrow head of zeros where a format wants one. */
static cab_status derive_heads(const cab_student_source *source, cab_config *c)
{
    const cab_config *t = &source->teacher->config;
    if (source->kept->count == 0) {
        c->n_head = c->n_kv_head = 1;
        c->head_dim = c->rope.dim = IDLE_WIDTH;
        c->attention_bias = false;
        return CAB_OK;
    }
    c->n_head = source->kept->count;
    c->n_kv_head = cab_kept_kv_heads(source->kept, t->n_head / t->n_kv_head);
    return CAB_OK;
}

/* Layers of either kind, for a format that has no layer of both. */
static cab_status derive_layers(const cab_student_source *source, cab_config *c)
{
    for (int l = 0; l < c->n_layer; l++)
        c->layer_kinds[l] = cab_kept_has(source->kept, l, 0) ? 0 : CAB_LAYER_STATE_SPACE;
    return CAB_OK;
}

/* The heads that stay, layer by layer. */
static json_object *list_kept(const cab_kept *kept)
{
    json_object *list = json_object_new_array();
    for (int l = 0; l < kept->n_layer; l++) {
        json_object *heads = json_object_new_array();
        for (int h = 0; h < kept->n_head; h++)
            if (kept->count > 0 && cab_kept_has(kept, l, h))
                json_object_array_add(heads, json_object_new_int(h));
        json_object_array_add(list, heads);
    }
    return list;
}

/* Norms before attention may multiply by much more than 1, Gemma's by 20: what they give is divided by that for a mixer, or nothing of what it
 * learns would have the right size. 0: they do not. */
static cab_status measure_inputs(const cab_model *teacher, double *scale)
{
    enum { MUCH = 4 };
    double sum = 0;
    for (int l = 0; l < teacher->config.n_layer; l++) {
        cab_part_values w;
        double square = 0;
        CAB_TRY(cab_model_part(teacher, CAB_PART_NORM_W, l, &w));
        for (int64_t i = 0; i < w.rows; i++)
            square += (double)w.values[i] * (double)w.values[i] / (double)w.rows;
        sum += sqrt(square) / teacher->config.n_layer;
        cab_free(w.values);
    }
    *scale = sum > MUCH ? 1 / sum : 0;
    return CAB_OK;
}

/* The teacher's own configuration with a mixer. What attention's output projection adds, the mixer's does where attention is gone. */
static cab_status derive_own(const cab_student_source *source, const cab_student_layout *layout, cab_config *c)
{
    *c = source->teacher->config;
    CAB_TRY(derive_mixer(source, layout, c));
    CAB_TRY(measure_inputs(source->teacher, &c->input_scale));
    c->out_bias = source->teacher->network.blocks[0].attention.out.b != NULL;
    return cab_in_place_describe_teacher(source->teacher, list_kept(source->kept), c);
}

static cab_status keeps(const cab_student_source *source, const cab_windows *windows, cab_kept *kept)
{
    const cab_student_layout *layout = NULL;
    char why[CAB_WHY_MAX];
    CAB_TRY(choose_layout(source, &layout, why));
    const int unit = kept_unit(&source->recipe->student, layout);
    return cab_kept_choose(source->teacher, source->recipe, unit == CAB_KEEP_LAYERS, windows, kept);
}

/* Sizes that are the teacher's. */
static cab_status check_sizes(const cab_student_source *source)
{
    const struct cab_recipe_student *s = &source->recipe->student;
    const cab_config *t = &source->teacher->config;
    const struct {
        const char *key;
        int64_t given;
        int own;
    } sizes[] = {
        {"n_layer", s->n_layer, t->n_layer}, {"d_model", s->d_model, t->d_model}, {"d_mlp", s->d_mlp, t->d_mlp}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].given > 0 && sizes[i].given != sizes[i].own)
            return cab_fail(CAB_EARG, "student.%s is %d; an in-place student has its teacher's, %d", sizes[i].key,
                            (int)sizes[i].given, sizes[i].own);
    if (s->n_head > 0)
        return cab_fail(CAB_EARG, "student.n_head: the heads of an in-place student follow from student.head_dim");
    return CAB_OK;
}

static bool any_bias(const cab_network *n, bool mlp)
{
    bool any = false;
    for (int l = 0; l < n->n_layer; l++) {
        const cab_attention_mixer *a = &n->blocks[l].attention;
        const cab_mlp *m = &n->blocks[l].mlp;
        any = any || (mlp ? m->gate_up.b != NULL || m->gate.b != NULL || m->up.b != NULL || m->down.b != NULL
                          : a->qkv.b != NULL || a->q.b != NULL || a->k.b != NULL || a->v.b != NULL || a->out.b != NULL);
    }
    return any;
}

static cab_status derive(const cab_student_source *source, const cab_arch **arch, cab_config *c)
{
    const cab_config *t = &source->teacher->config;
    const cab_student_layout *layout = NULL;
    char why[CAB_WHY_MAX];
    CAB_TRY(check_sizes(source));
    CAB_TRY(choose_layout(source, &layout, why));
    *arch = layout->arch;
    if (source->recipe->student.layout == CAB_LAYOUT_AUTO && layout != cab_student_layout_at(0))
        cab_log_info("layout   %s, which opens here alone: %s cannot hold %s", layout->name,
                     cab_student_layout_at(0)->name, why);
    if (layout->own)
        return derive_own(source, layout, c);
    *c = (cab_config){.vocab_size = t->vocab_size,
                      .d_model = t->d_model,
                      .n_layer = t->n_layer,
                      .d_mlp = t->d_mlp,
                      .n_head = t->n_head,
                      .n_kv_head = t->n_kv_head,
                      .head_dim = t->head_dim,
                      .max_length = t->max_length,
                      .rope = t->rope,
                      .norm_eps = t->norm_eps,
                      .activation = CAB_SILU,
                      .tied = t->tied,
                      .embedding_scale = (double)source->teacher->network.embedding_scale,
                      .branch_scale = (double)source->teacher->network.blocks[0].branch_scale,
                      .head_scale = (double)source->teacher->network.head_scale,
                      .attention_bias = any_bias(&source->teacher->network, false),
                      .mlp_bias = any_bias(&source->teacher->network, true),
                      .bos_token = t->bos_token,
                      .eos_token = t->eos_token};
    CAB_TRY(derive_mixer(source, layout, c));
    return cab_student_layout_beside(layout) ? derive_heads(source, c) : derive_layers(source, c);
}

static cab_status initialise(cab_model *student, const cab_student_source *source)
{
    return cab_initialise_in_place(student, source);
}

/* ---- recipes ---------------------------------------------------------------------------------------------------------- */

/* Where all methods but vanilla and soft start: as lead measurements have it (docs/method.md). */
#define SCRATCH "bridge.error=relative", "init.conv_identity=true", "init.decay=0.905"
#define FROM_ATTENTION SCRATCH, "init.weights=teacher", "init.qk_scale=0.4", "init.skip=0"

static const char *const vanilla[] = {SCRATCH, "stages[0].name=train", "stages[0].ce=1", NULL};

static const char *const soft[] = {SCRATCH, "stages[0].name=distil", "stages[0].ce=1", "stages[0].kl=1", NULL};

static const char *const cab_published[] = {"bridge.error=squared",  "init.conv_identity=true",
                                            "init.decay=0.905",      "stages[0].name=align",
                                            "stages[0].share=0.2",   "stages[0].align=1",
                                            "stages[1].name=distil", "stages[1].ce=1",
                                            "stages[1].kl=1",        NULL};

static const char *const cab[] = {FROM_ATTENTION,
                                  "stages[0].name=joint",
                                  "stages[0].ce=1",
                                  "stages[0].kl=1",
                                  "stages[0].align=3",
                                  "stages[0].align_end=0",
                                  NULL};

static const char *const weight_reuse[] = {FROM_ATTENTION,   "stages[0].name=distil",   "stages[0].ce=1",
                                           "stages[0].kl=1", "stages[0].temperature=2", NULL};

static const char *const multi_stage[] = {FROM_ATTENTION, CAB_PRESET_MULTI_STAGE, CAB_PRESET_MIXER_RATE("4e-3"), NULL};

static const char *const attention_copy[] = {"bridge.error=relative",
                                             "init.conv_identity=true",
                                             "init.decay=0.999",
                                             "init.weights=teacher",
                                             "init.skip=0",
                                             "stages[0].name=distil",
                                             "stages[0].kl=1",
                                             "stages[0].freeze=*.mamba.in_proj.*",
                                             NULL};

static const char *const cab_best[] = {FROM_ATTENTION,
                                       "stages[0].name=layers",
                                       "stages[0].share=0.4",
                                       "stages[0].lr=4e-3",
                                       "stages[0].layer=1",
                                       "stages[1].name=distil",
                                       "stages[1].kl=1",
                                       "stages[1].ce=0.1",
                                       "stages[1].ce_end=0",
                                       "stages[1].temperature=2",
                                       NULL};

static const cab_preset presets[] = {
    /* rates at width 128 */
    [CAB_METHOD_CUSTOM] = {(const char *const[]){NULL}, 0, 4e-3, 1},
    [CAB_METHOD_VANILLA] = {vanilla, 1, 4e-3, 1},
    [CAB_METHOD_SOFT] = {soft, 1, 4e-3, 1},
    [CAB_METHOD_CAB_PUBLISHED] = {cab_published, 2, 4e-3, 1},
    [CAB_METHOD_CAB] = {cab, 1, 4e-3, 1},
    [CAB_METHOD_WEIGHT_REUSE] = {weight_reuse, 1, 4e-3, 1},
    [CAB_METHOD_MULTI_STAGE] = {multi_stage, 3, 4e-3, 1},
    [CAB_METHOD_ATTENTION_COPY] = {attention_copy, 1, 4e-3, 1},
    [CAB_METHOD_CAB_BEST] = {cab_best, 2, 4e-3, 1},
};

static const cab_student_default defaults[] = {{NULL, NULL}};
static const char *const keys[] = {
    "student.expand",  "student.layout",   "student.keep",    "student.keep_list", "student.keep_unit",
    "student.keep_by", "student.head_dim", "student.n_group", "init.skip",         NULL};
static const char *const fresh[] = {"*.mamba.*", NULL};

const cab_student cab_student_in_place = {
    .name = "in-place",
    .domain = &cab_recipe_text,
    .defaults = defaults,
    .keys = keys,
    .presets = presets,
    .fresh = fresh,
    .keeps = keeps,
    .is = is,
    .derive = derive,
    .initialise = initialise,
};
