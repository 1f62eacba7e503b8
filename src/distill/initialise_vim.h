/* initialise_vim.h - where the image student starts. */
#ifndef CAB_DISTILL_INITIALISE_VIM_H
#define CAB_DISTILL_INITIALISE_VIM_H

#include "distill/recipe.h"
#include "models/model.h"

/* Fills every parameter of a student of architecture "vim", drawn from `seed`, as the public code does. near_identity:
 * A_log starts at -20, so that every decay is 1 to eight digits and the student starts as linear attention; A's
 * gradient is in proportion to A, so that it stays there. Otherwise A_log is log(1), log(2) ... log(N) in every
 * channel. */
cab_status cab_initialise_vim(cab_model *student, uint64_t seed, bool near_identity);

/* The same as recipe->init says: with weights of the teacher, a ViT, what of it fits over the fresh numbers.
 * layer_map[l] is the teacher layer whose weights layer l reuses, -1 for none; class_map[v] the teacher's class that is
 * the student's class v, NULL: v itself. What was copied and what did not fit is said with cab_log_info(). */
cab_status cab_initialise_images(cab_model *student, const cab_model *teacher, const struct cab_recipe *recipe,
                                 const int *layer_map, const int32_t *class_map);

#endif
