/* initialise_phi_mamba.h - where the student of text starts: fresh numbers, and what of the teacher fits. */
#ifndef CAB_DISTILL_INITIALISE_PHI_MAMBA_H
#define CAB_DISTILL_INITIALISE_PHI_MAMBA_H

#include "distill/recipe.h"
#include "models/model.h"

/* Fills every parameter of the student as recipe->init says. layer_map[l] is the teacher layer whose weights layer l
 * reuses, -1 for none. What was copied and what did not fit is said with cab_log_info(). */
cab_status cab_initialise_phi_mamba(cab_model *student, const cab_model *teacher, const struct cab_recipe *recipe,
                                    const int *layer_map);

#endif
