/* keep_trial.h - which heads of a teacher, or which layers, stay attention: by trial. Internal to this folder. */
#ifndef CAB_TRAIN_KEEP_TRIAL_H
#define CAB_TRAIN_KEEP_TRIAL_H

#include "distill/students.h"
#include "train/domain.h"

/* Samples of the training data that the trials want: the first batch of them is looked at and not learned. */
enum { CAB_TRIAL_STEPS = 64, CAB_TRIAL_BATCH = 8, CAB_TRIAL_WINDOWS = (CAB_TRIAL_STEPS + 1) * CAB_TRIAL_BATCH };

/* What the trials read. */
typedef struct cab_trial_data {
    int64_t seq_len;                        /* tokens of a sample; images: 1 */
    const cab_image_feed_options *pictures; /* as in cab_objective_options; NULL: of text */
    /* Gives batch 0 .. CAB_TRIAL_STEPS, of CAB_TRIAL_BATCH samples: the input alone, which holds until the next call. */
    cab_status (*batch)(void *data, int index, cab_batch *batch);
    void *data;
} cab_trial_data;

/* Those of CAB_TRIAL_WINDOWS windows of tokens. */
cab_trial_data cab_trial_windows(cab_windows *windows);

/* Measures kept->cost, which has units to choose from and no choice yet, and chooses. source->kept is ignored; of source->layer_map
 * NULL every layer is its own teacher. */
cab_status cab_keep_trial(const cab_domain_setup *setup, const cab_student_source *source, const cab_trial_data *data,
                          cab_kept *kept);

/* Sets *found and *kept if the run's directory says what stays attention, for such a teacher and recipe: a run that goes on keeps what it
 * has, on whatever machine. A file that is there and cannot be read is an error. */
cab_status cab_kept_recall(const cab_domain_setup *setup, cab_kept *kept, bool *found);
/* Writes it into a directory, that of a run or of a student. */
cab_status cab_kept_record(const cab_kept *kept, const char *directory);

#endif
