/* methods.c - the published methods as presets: an initialisation, and stages of weighted loss terms.
 *
 *   vanilla        CE                                   from scratch
 *   soft           CE + KL                              from scratch
 *   cab            stage 1: align; stage 2: CE + KL     from scratch (Wang et al. 2025)
 *   cab-joint      CE + KL + align                      from scratch
 *   weight-reuse   CE + KL                              from the teacher's weights (Wang et al. 2024)
 *   cab-best       CE + KL + 3 align, fading to 0       from the teacher's weights
 *
 * A preset is a list of recipe settings, so that it reads, and can be copied, as a recipe. */
#include "distill/recipe.h"

static const char *const vanilla[] = {"stages[0].name=train", "stages[0].ce=1", NULL};

static const char *const soft[] = {"stages[0].name=distil", "stages[0].ce=1", "stages[0].kl=1", NULL};

static const char *const cab[] = {"stages[0].name=align",
                                  "stages[0].share=0.15",
                                  "stages[0].align=1",
                                  "stages[1].name=distil",
                                  "stages[1].ce=1",
                                  "stages[1].kl=1",
                                  NULL};

static const char *const cab_joint[] = {"stages[0].name=distil", "stages[0].ce=1", "stages[0].kl=1",
                                        "stages[0].align=1", NULL};

static const char *const weight_reuse[] = {"init.weights=teacher", "stages[0].name=distil", "stages[0].ce=1",
                                           "stages[0].kl=1", NULL};

static const char *const cab_best[] = {"init.weights=teacher",
                                       "stages[0].name=distil",
                                       "stages[0].ce=1",
                                       "stages[0].kl=1",
                                       "stages[0].align=3",
                                       "stages[0].align_end=0",
                                       "stages[0].weights_shape=cosine",
                                       NULL};

static const struct {
    const char *const *settings;
    unsigned stages;
} presets[] = {
    [CAB_METHOD_VANILLA] = {vanilla, 1},
    [CAB_METHOD_SOFT] = {soft, 1},
    [CAB_METHOD_CAB] = {cab, 2},
    [CAB_METHOD_CAB_JOINT] = {cab_joint, 1},
    [CAB_METHOD_WEIGHT_REUSE] = {weight_reuse, 1},
    [CAB_METHOD_CAB_BEST] = {cab_best, 1},
};

const char *const *cab_method_settings(int method, unsigned *stages)
{
    static const char *const none[] = {NULL};
    if (method <= CAB_METHOD_CUSTOM || (size_t)method >= sizeof presets / sizeof *presets) {
        *stages = 0;
        return none;
    }
    *stages = presets[method].stages;
    return presets[method].settings;
}
