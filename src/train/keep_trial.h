/* keep_trial.h - which heads of a teacher, or which layers, stay attention: by trial. Internal to this folder. */
#ifndef CAB_TRAIN_KEEP_TRIAL_H
#define CAB_TRAIN_KEEP_TRIAL_H

#include "distill/students.h"
#include "train/domain.h"

/* Sequences of the training data that the trials want: the first of them are looked at and not learned. */
enum { CAB_TRIAL_STEPS = 64, CAB_TRIAL_BATCH = 8, CAB_TRIAL_WINDOWS = (CAB_TRIAL_STEPS + 1) * CAB_TRIAL_BATCH };

/* Measures kept->cost, which has units to choose from and no choice yet, and chooses. source->kept is ignored. */
cab_status cab_keep_trial(const cab_domain_setup *setup, const cab_student_source *source, const cab_windows *windows,
                          cab_kept *kept);

#endif
