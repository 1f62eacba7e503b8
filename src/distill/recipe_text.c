/* recipe_text.c - recipes on text: the published methods as presets, each an initialisation and stages of weighted loss terms.
 *
 *   vanilla        CE                                   from scratch
 *   soft           CE + KL                              from scratch
 *   cab-published  stage 1: align; stage 2: CE + KL     from scratch, squared errors (Wang et al. 2025)
 *   cab            CE + KL + align, 6 fading to 0       from scratch, relative errors
 *   weight-reuse   CE + KL                              from the teacher's weights (Wang et al. 2024)
 *   multi-stage    stage 1: matrix; 2: layer; 3: KL     from the teacher's weights, folded exactly (Bick et al. 2024)
 *   attention-copy KL                                   from the teacher's weights; V, K, Q stay in x, B, C: the collapse
 *   cab-best       KL at temperature 2, a little CE     from the teacher's weights, folded exactly
 *
 * All start with a convolution that passes the current token. Settings and learning rates are the winners of the search in
 * dev/reference/search-tales.md (5 % of the corpus, width 128); docs/results.md has what they reach, docs/method.md what each part
 * is worth. */
#include "distill/students.h"

#include <math.h>

#define SCRATCH "bridge.error=relative", "init.conv_identity=true"

static const char *const vanilla[] = {SCRATCH, "stages[0].name=train", "stages[0].ce=1", NULL};

static const char *const soft[] = {SCRATCH, "stages[0].name=distil", "stages[0].ce=1", "stages[0].kl=1", NULL};

static const char *const cab_published[] = {"bridge.error=squared", "init.conv_identity=true", "stages[0].name=align",
                                            "stages[0].share=0.2",  "stages[0].align=1",       "stages[1].name=distil",
                                            "stages[1].ce=1",       "stages[1].kl=1",          NULL};

static const char *const cab[] = {
    SCRATCH, "stages[0].name=joint", "stages[0].ce=1", "stages[0].kl=1", "stages[0].align=6", "stages[0].align_end=0",
    NULL};

static const char *const weight_reuse[] = {SCRATCH,          "init.weights=teacher", "stages[0].name=distil",
                                           "stages[0].ce=1", "stages[0].kl=1",       NULL};

/* Nothing but what attention has: no decay, the gate open, Q and K as they are. */
static const char *const attention_copy[] = {SCRATCH,
                                             "init.weights=teacher",
                                             "init.fold=true",
                                             "init.near_identity=true",
                                             "init.decay=0.999",
                                             "init.gate_open=true",
                                             "init.skip=0",
                                             "stages[0].name=distil",
                                             "stages[0].kl=1",
                                             "stages[0].freeze=*.in_proj.*",
                                             NULL};

#define FOLDED                                                                                                         \
    SCRATCH, "init.weights=teacher", "init.fold=true", "init.qk_scale=0.15", "init.near_identity=true",                \
        "init.decay=0.9", "init.gate_open=true", "init.skip=0"

static const char *const multi_stage[] = {FOLDED, CAB_PRESET_MULTI_STAGE, NULL};

static const char *const cab_best[] = {FOLDED,
                                       "stages[0].name=distil",
                                       "stages[0].kl=1",
                                       "stages[0].temperature=2",
                                       "stages[0].ce=0.1",
                                       "stages[0].ce_end=0",
                                       NULL};

static const cab_preset presets[] = {
    /* rates at width 128 */
    [CAB_METHOD_CUSTOM] = {(const char *const[]){NULL}, 0, 2e-3, 1},
    [CAB_METHOD_VANILLA] = {vanilla, 1, 1e-3, 1},
    [CAB_METHOD_SOFT] = {soft, 1, 8e-3, 1},
    [CAB_METHOD_CAB_PUBLISHED] = {cab_published, 2, 8e-3, 1},
    [CAB_METHOD_CAB] = {cab, 1, 8e-3, 1},
    [CAB_METHOD_WEIGHT_REUSE] = {weight_reuse, 1, 4e-3, 1},
    [CAB_METHOD_MULTI_STAGE] = {multi_stage, 3, 2e-3, 0.5},
    [CAB_METHOD_ATTENTION_COPY] = {attention_copy, 1, 4e-3, 1},
    [CAB_METHOD_CAB_BEST] = {cab_best, 1, 2e-3, 0.5},
};

static const double tuned_width = 128;

static double text_lr(const cab_recipe *recipe, const cab_preset *preset, int64_t d_model)
{
    (void)recipe;
    return d_model > 0 ? preset->lr * pow(tuned_width / (double)d_model, preset->power) : 0;
}

static cab_status text_check(const cab_recipe *recipe)
{
    const struct cab_recipe_data *data = &recipe->data;
    if (data->classes[0] || data->image_size || data->min_side || data->image_cache)
        return cab_fail(CAB_EARG,
                        "data.classes, image_size, min_side and image_cache are of images, the student %s reads text; "
                        "its teacher must read images, and student.reads be images where that is not there",
                        cab_student_of(recipe)->name);
    if (recipe->teacher.cache[0] != '\0' && data->loops > 0)
        return cab_fail(CAB_EARG, "data.loops is %g; what the teacher says of repetitions is not in teacher.cache",
                        data->loops);
    return CAB_OK;
}

const cab_recipe_domain cab_recipe_text = {
    .name = "text",
    .unit = "tokens",
    .parts = "the documents",
    .use = {"cab generate", "--prompt \"Once upon a time\""},
    .sequences = true,
    .presets = presets,
    .lr = text_lr,
    .check = text_check,
};
