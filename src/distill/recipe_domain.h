/* recipe_domain.h - what recipes on one domain, text or images, have of their own: presets of the methods, a learning
 * rate, checks. A domain is a constant in a file of its own (recipe_text.c, recipe_images.c). A recipe's student says
 * which domain the recipe is on. */
#ifndef CAB_DISTILL_RECIPE_DOMAIN_H
#define CAB_DISTILL_RECIPE_DOMAIN_H

#include "distill/recipe.h"

/* A published method: recipe settings as "key=value" lines, NULL-terminated, so that a preset reads, and can be copied,
 * as a recipe. */
typedef struct cab_preset {
    const char *const *settings;
    unsigned stages;
    double lr;    /* as cab_recipe_domain's lr() takes it */
    double power; /* of 1 / width that it falls with, where it depends on the width */
} cab_preset;

typedef struct cab_recipe_domain {
    const char *name;          /* "text" */
    const char *unit;          /* "tokens" */
    const char *parts;         /* what data.fraction is a share of: "the documents" */
    const char *use[2];        /* a command that uses a student: what stands before its directory, and behind it */
    bool sequences;            /* a sample is data.seq_len units (0: the teacher's length); else one unit */
    const cab_preset *presets; /* by method; the preset of CAB_METHOD_CUSTOM has no stages */
    /* The peak learning rate for a student of width d_model, if neither the stage nor the recipe gives one. Returns 0
     * if the rate depends on the width and d_model is 0. */
    double (*lr)(const cab_recipe *recipe, const cab_preset *preset, int64_t d_model);
    /* Refuses keys that make no sense in this domain. */
    cab_status (*check)(const cab_recipe *recipe);
} cab_recipe_domain;

/* MOHAWK's three stages (Bick et al. 2024): the mixers' matrices against attention's, the mixers' outputs, then all of the student by KL; of
 * 3.0 G tokens 80 M, 160 M and the rest. As settings of a preset. */
#define CAB_PRESET_MULTI_STAGE                                                                                         \
    "stages[0].name=matrix", "stages[0].share=0.0267", "stages[0].matrix=1", "stages[1].name=layers",                  \
        "stages[1].share=0.0533", "stages[1].layer=1", "stages[2].name=distil", "stages[2].kl=1"
/* Mixers alone in their own blocks bear a higher rate. */
#define CAB_PRESET_MIXER_RATE(lr) "stages[0].lr=" lr, "stages[1].lr=" lr

extern const cab_recipe_domain cab_recipe_text, cab_recipe_images;

/* What the recipe's method sets for the recipe's student. */
const cab_preset *cab_recipe_method_preset(const cab_recipe *recipe, int64_t method);
/* The domain that the recipe's student reads. */
const cab_recipe_domain *cab_recipe_domain_of(const cab_recipe *recipe);
/* Units of a sample: tokens of a sequence, or 1 image. 0: as many as the teacher takes. */
uint64_t cab_recipe_length(const cab_recipe *recipe);

#endif
