/* augmentation.h - the augmentation that a recipe asks for. */
#ifndef CAB_DISTILL_AUGMENTATION_H
#define CAB_DISTILL_AUGMENTATION_H

#include "data/augment.h"
#include "distill/recipe.h"

/* The preset, with what the recipe says beside it. CAB_EARG for values that make no sense. */
cab_status cab_recipe_augment(const cab_recipe *recipe, cab_augment *augment);

#endif
