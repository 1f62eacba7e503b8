/* methods.c - the published methods as presets: an initialisation, and stages of weighted loss terms.
 *
 *   vanilla        CE                                   from scratch
 *   soft           CE + KL                              from scratch
 *   cab            stage 1: align; stage 2: CE + KL     from scratch (Wang et al. 2025)
 *   cab-joint      CE + KL + align, 10 fading to 1      from scratch
 *   weight-reuse   CE + KL                              from the teacher's weights (Wang et al. 2024)
 *   cab-best       KL at temperature 4                  from the teacher's weights, folded exactly
 *
 * and for images, where the paper's has one stage:
 *
 *   vanilla        CE                                   from scratch
 *   soft           CE + KL                              from scratch
 *   cab            KL + 3 align, softmax map            from scratch, A at the identity
 *   cab-joint      CE + KL + 3 align                    from scratch
 *   weight-reuse   CE + KL                              from the teacher's weights
 *   cab-best       CE + KL + 10 align, wider bridges    from the teacher's weights
 *
 * Weights of the teacher are reused behind a convolution that passes the current token, and alignment is with Q and K as they are
 * but in the published method: docs/method.md has what that is worth. Presets for images all name bridge.feature_map and
 * bridge.hidden, so that going from one to another leaves nothing behind. That of cab-best is the winner of the search in
 * docs/results.md (10 % of Tiny-ImageNet, 344 steps of 128 images at a rate of 2e-3).
 *
 * A preset is a list of recipe settings, so that it reads, and can be copied, as a recipe. Those of text all start with a
 * convolution that passes the current token. Their settings and learning rates are the winners of the search in
 * dev/reference/search-tales.md (5 % of the corpus, width 128); docs/results.md has what they reach. */
#include "distill/recipe.h"

static const char *const vanilla[] = {"init.conv_identity=true", "stages[0].name=train", "stages[0].ce=1", NULL};

static const char *const soft[] = {"init.conv_identity=true", "stages[0].name=distil", "stages[0].ce=1",
                                   "stages[0].kl=1", NULL};

static const char *const cab[] = {
    "init.conv_identity=true", "stages[0].name=align", "stages[0].share=0.2", "stages[0].align=1",
    "stages[1].name=distil",   "stages[1].ce=1",       "stages[1].kl=1",      NULL};

static const char *const cab_joint[] = {"init.conv_identity=true",
                                        "stages[0].name=joint",
                                        "stages[0].ce=1",
                                        "stages[0].kl=1",
                                        "stages[0].align=10",
                                        "stages[0].align_end=1",
                                        NULL};

static const char *const weight_reuse[] = {"init.weights=teacher", "init.conv_identity=true", "stages[0].name=distil",
                                           "stages[0].ce=1",       "stages[0].kl=1",          NULL};

static const char *const cab_best[] = {
    "init.weights=teacher",  "init.fold=true",          "init.qk_scale=0.15",      "init.near_identity=true",
    "init.decay=0.9",        "init.conv_identity=true", "init.gate_open=true",     "init.skip=0",
    "stages[0].name=distil", "stages[0].kl=1",          "stages[0].temperature=4", NULL};

static const char *const image_vanilla[] = {"student.tied_decay=false", "bridge.feature_map=softmax",
                                            "bridge.hidden=128",        "stages[0].name=train",
                                            "stages[0].ce=1",           NULL};

static const char *const image_soft[] = {"student.tied_decay=false",
                                         "bridge.feature_map=softmax",
                                         "bridge.hidden=128",
                                         "stages[0].name=distil",
                                         "stages[0].ce=1",
                                         "stages[0].kl=1",
                                         NULL};

static const char *const image_cab[] = {
    "bridge.feature_map=softmax", "bridge.hidden=128", "student.tied_decay=true", "init.near_identity=true",
    "stages[0].name=distil",      "stages[0].kl=1",    "stages[0].align=3",       NULL};

static const char *const image_joint[] = {
    "student.tied_decay=false", "bridge.feature_map=none", "bridge.hidden=128", "stages[0].name=joint",
    "stages[0].ce=1",           "stages[0].kl=1",          "stages[0].align=3", NULL};

static const char *const image_reuse[] = {"student.tied_decay=false",
                                          "bridge.feature_map=softmax",
                                          "bridge.hidden=128",
                                          "init.weights=teacher",
                                          "init.conv_identity=true",
                                          "stages[0].name=distil",
                                          "stages[0].ce=1",
                                          "stages[0].kl=1",
                                          NULL};

static const char *const image_best[] = {"student.tied_decay=true", "bridge.feature_map=none",
                                         "bridge.hidden=384",       "init.weights=teacher",
                                         "init.conv_identity=true", "stages[0].name=joint",
                                         "stages[0].ce=1",          "stages[0].kl=1",
                                         "stages[0].align=10",      NULL};

static const struct {
    const char *const *settings;
    unsigned stages;
    double lr;                 /* at width 128 */
    const char *const *images; /* of one stage */
} presets[] = {
    [CAB_METHOD_VANILLA] = {vanilla, 1, 1e-3, image_vanilla},
    [CAB_METHOD_SOFT] = {soft, 1, 8e-3, image_soft},
    [CAB_METHOD_CAB] = {cab, 2, 8e-3, image_cab},
    [CAB_METHOD_CAB_JOINT] = {cab_joint, 1, 1.2e-2, image_joint},
    [CAB_METHOD_WEIGHT_REUSE] = {weight_reuse, 1, 4e-3, image_reuse},
    [CAB_METHOD_CAB_BEST] = {cab_best, 1, 2e-3, image_best},
};

static const double custom_lr = 2e-3; /* at width 128, for recipes without a method */
static const double tuned_width = 128;
static const double image_lr = 5e-4 / 512; /* per image of a batch */

const char *const *cab_method_settings(int method, bool images, unsigned *stages)
{
    static const char *const none[] = {NULL};
    if (method <= CAB_METHOD_CUSTOM || (size_t)method >= sizeof presets / sizeof *presets) {
        *stages = 0;
        return none;
    }
    *stages = images ? 1 : presets[method].stages;
    return images ? presets[method].images : presets[method].settings;
}

double cab_recipe_lr(const cab_recipe *recipe, const cab_stage *stage, int64_t d_model)
{
    if (stage->lr > 0)
        return stage->lr;
    if (recipe->train.lr > 0)
        return recipe->train.lr;
    if (cab_recipe_reads_images(recipe))
        return image_lr * (double)recipe->train.batch;
    bool known = recipe->method > CAB_METHOD_CUSTOM && (size_t)recipe->method < sizeof presets / sizeof *presets;
    return (known ? presets[recipe->method].lr : custom_lr) * tuned_width / (double)d_model;
}
