/* augmentation.c - augment.* of a recipe: a preset, and the keys that are not -1 over it. */
#include "distill/augmentation.h"

/* As the evaluation sees an image; single keys may still ask for more. */
static cab_augment augment_none(void)
{
    cab_augment a = cab_augment_basic();
    a.scale_min = a.scale_max = a.flip = 0;
    return a;
}

static cab_status override_reals(const struct cab_recipe_augment *from, cab_augment *a)
{
    const struct {
        const char *key;
        double value;
        float *field;
    } reals[] = {{"scale_min", from->scale_min, &a->scale_min},
                 {"scale_max", from->scale_max, &a->scale_max},
                 {"ratio_min", from->ratio_min, &a->ratio_min},
                 {"ratio_max", from->ratio_max, &a->ratio_max},
                 {"flip", from->flip, &a->flip},
                 {"jitter", from->jitter, &a->jitter},
                 {"erase", from->erase, &a->erase},
                 {"mixup", from->mixup, &a->mixup},
                 {"cutmix", from->cutmix, &a->cutmix},
                 {"mix_probability", from->mix_probability, &a->mix_probability},
                 {"switch_probability", from->switch_probability, &a->switch_probability},
                 {"smoothing", from->smoothing, &a->smoothing}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        if (reals[i].value < 0 && reals[i].value != -1)
            return cab_fail(CAB_EARG, "augment.%s: found %g, expected 0 or more, or -1", reals[i].key, reals[i].value);
        if (reals[i].value >= 0)
            *reals[i].field = (float)reals[i].value;
    }
    return CAB_OK;
}

cab_status cab_recipe_augment(const cab_recipe *recipe, cab_augment *augment)
{
    const struct cab_recipe_augment *from = &recipe->augment;
    cab_augment a = from->preset == CAB_AUGMENT_NONE    ? augment_none()
                    : from->preset == CAB_AUGMENT_BASIC ? cab_augment_basic()
                                                        : cab_augment_deit();
    CAB_TRY(override_reals(from, &a));
    if (from->rand[0] != '\0')
        CAB_TRY(cab_randaugment_parse(from->rand, &a.rand));
    if (from->erase_mode > 0)
        a.erase_mode = (cab_erase)(from->erase_mode - 1);
    if (from->erase_count >= 0)
        a.erase_count = (int)from->erase_count;
    if (from->repeats >= 0)
        a.repeats = (int)from->repeats;
    CAB_TRY(cab_augment_check(&a));
    *augment = a;
    return CAB_OK;
}
