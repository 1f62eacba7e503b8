/* predictions.h - a few images of a set with what a student and its teacher make of them, for the report. */
#ifndef CAB_TRAIN_PREDICTIONS_H
#define CAB_TRAIN_PREDICTIONS_H

#include "train/evaluate_images.h"

#define CAB_RUN_PREDICTIONS "predictions.json"

enum { CAB_PREDICTIONS_TOP = 3 };

typedef struct cab_predicted {
    int label; /* of the data */
    char *name;
    double probability; /* softmax over the classes of the data */
} cab_predicted;

typedef struct cab_prediction {
    char *name;      /* of the file */
    char *thumbnail; /* JPEG in base64 */
    cab_predicted truth;
    cab_predicted top[CAB_PREDICTIONS_TOP]; /* the likeliest first */
    int n_top;
    bool taught; /* whether `teacher`, its likeliest class, is known */
    cab_predicted teacher;
} cab_prediction;

typedef struct cab_predictions {
    cab_prediction *items;
    size_t count;
} cab_predictions;

/* Asks both for `count` images that are evenly spaced over the set (all, if there are not as many), and writes
 * <directory>/predictions.json (docs/formats.md) atomically. teacher may be NULL. For the end of a run: the models are those
 * that were trained, and nothing is opened again. */
cab_status cab_predictions_write(const char *directory, const cab_image_judge *student, const cab_image_judge *teacher,
                                 cab_image_set *set, size_t count);

/* Reads the file back. What makes no sense is CAB_EFORMAT. *out must be zeroed; free it even after a failure. */
cab_status cab_predictions_load(const char *path, cab_predictions *out);
void cab_predictions_free(cab_predictions *predictions);

#endif
