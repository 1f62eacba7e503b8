/* run_images.h - what a run does in its own way when it is on images. Internal to this folder; called by run.c, stage.c and
 * loop.c. */
#ifndef CAB_TRAIN_RUN_IMAGES_H
#define CAB_TRAIN_RUN_IMAGES_H

#include "train/run.h"

/* Sets of training and validation, the classes and which of the teacher's they are. The teacher is open. */
cab_status cab_run_images_open_data(cab_run *run);
/* The student of the recipe's sizes, or the one it names. */
cab_status cab_run_images_open_student(cab_run *run);
/* Starts the threads that load. Everything else is open. */
cab_status cab_run_images_open_loader(cab_run *run);
void cab_run_images_close(cab_run *run);

/* Micro-batch `index` of the current step, of `share`. Batches are functions of the step alone. */
cab_status cab_run_images_train(cab_run *run, int index, const cab_term_weights *weights, int share,
                                cab_term_values *values);
/* Of all validation images, or of the share that periodic evaluations look at. */
cab_status cab_run_images_evaluate(cab_run *run, bool all, cab_run_evaluation *out);
/* Writes predictions.json, what the student as it stands makes of a few validation images. */
cab_status cab_run_images_predict(const cab_run *run);

/* Says what meets: models, data, steps. */
void cab_run_images_print(const cab_run *run);
/* Writes beside an exported student how its images are prepared and what its classes are called. */
cab_status cab_run_images_describe(const cab_run *run, const char *directory);

#endif
