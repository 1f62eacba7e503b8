/* claim.h - the directory of a run, held by one process at a time. */
#ifndef CAB_TRAIN_CLAIM_H
#define CAB_TRAIN_CLAIM_H

#include "base/communicator.h"
#include "distill/recipe.h"

#include <stdbool.h>

typedef struct cab_claim {
    int directory; /* its descriptor, locked; -1: none */
    bool made;     /* the directory is ours */
    bool begun;    /* recipe.yaml is ours */
} cab_claim;

/* Makes recipe->out if need be, and locks it until it is released or the process ends; nothing in it changes. CAB_EARG where another
 * process holds it and, unless `anew`, where it holds another run, or this one, finished. Release even after a failure. */
cab_status cab_claim_take(const cab_recipe *recipe, bool anew, cab_claim *claim);
/* The run may change the directory from here on. anew: after removing what an earlier run left, but for student/, which is replaced in the end. */
cab_status cab_claim_begin(const cab_recipe *recipe, bool anew, cab_claim *claim);
/* Writes recipe.yaml, its paths made absolute. Of a resumed run, once its checkpoint has been accepted: what may change may have changed. */
cab_status cab_claim_record(const cab_recipe *recipe);
/* Removes the run that recipe->out holds, if it is there. */
cab_status cab_claim_clear(const cab_recipe *recipe);
/* `fruitless`: nothing was trained, so what this claim has made goes, and the next attempt may have a mended recipe. */
void cab_claim_release(const cab_recipe *recipe, bool fruitless, cab_claim *claim);

/* cab_distill(), in place of the run that the directory holds, which stays as it is until teacher and data have been opened. */
cab_status cab_distill_anew(const cab_recipe *recipe, cab_model **student, cab_result *result);
/* Either of them as one of several ranks; NULL: alone. */
cab_status cab_distill_ranks(const cab_recipe *recipe, bool anew, cab_communicator *communicator);

#endif
