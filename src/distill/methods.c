/* methods.c - what a recipe's method and domain decide for it. */
#include "distill/students.h"

const cab_recipe_domain *cab_recipe_domain_of(const cab_recipe *recipe)
{
    return cab_student_of(recipe)->domain;
}

const cab_preset *cab_recipe_method_preset(const cab_recipe *recipe, int64_t method)
{
    const cab_student *student = cab_student_of(recipe);
    return &(student->presets != NULL ? student->presets : student->domain->presets)[method];
}

uint64_t cab_recipe_length(const cab_recipe *recipe)
{
    return cab_recipe_domain_of(recipe)->sequences ? (uint64_t)recipe->data.seq_len : 1;
}

double cab_recipe_lr(const cab_recipe *recipe, const cab_stage *stage, int64_t d_model)
{
    const cab_recipe_domain *domain = cab_recipe_domain_of(recipe);
    if (stage->lr > 0)
        return stage->lr;
    if (recipe->train.lr > 0)
        return recipe->train.lr;
    return domain->lr(recipe, cab_recipe_method_preset(recipe, recipe->method), d_model);
}
