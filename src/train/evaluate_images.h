/* evaluate_images.h - how well a model tells pictures apart, and how close it is to a teacher.
 *
 * Everything is counted among the classes of the data: of a model's logits only those of these classes are looked at, and
 * the probabilities in loss and KL are the softmax over them. So a teacher of 1000 classes can be measured on 200 of them,
 * and a student of just these 200 beside it. */
#ifndef CAB_TRAIN_EVALUATE_IMAGES_H
#define CAB_TRAIN_EVALUATE_IMAGES_H

#include "base/communicator.h"
#include "data/image_set.h"
#include "data/image_transform.h"
#include "models/model.h"
#include "train/class_match.h"

/* ---- one pass over an open set ------------------------------------------------------------------------------------ */

/* A model and how it is asked. */
typedef struct cab_image_judge {
    const cab_model *model;
    cab_image_transform transform; /* cab_image_transform_of() */
    const int32_t
        *classes; /* cab_image_classes_for(): by label of the set the model's class; NULL: the label. Borrowed */
} cab_image_judge;

typedef struct cab_image_evaluator_options {
    int batch;   /* 0: 32 */
    int threads; /* that decode; 0: as many as math uses */
    /* Ranks that look at a part of the set each; NULL: none. All get the figures of the whole set; `predicted` and what
     * is counted by class tell of a rank's own part. */
    cab_communicator *communicator;
} cab_image_evaluator_options;

/* Shares are between 0 and 1; what a teacher is needed for is NaN without one. */
typedef struct cab_image_evaluation {
    uint64_t images;  /* that were looked at */
    uint64_t skipped; /* everything the set passed over so far */
    double loss, top1, top5;
    double kl;        /* KL(teacher || model), nats per image */
    double agreement; /* images for which both find the same class most likely */
    double teacher_loss, teacher_top1, teacher_top5;
    double seconds, images_per_second;
    double waited; /* seconds of these in which the model waited for pictures */

    uint64_t count;                    /* images in the set */
    int32_t *labels, *predicted;       /* by image of the set; predicted -1: it was skipped */
    size_t classes;                    /* of the data */
    uint64_t *class_images;            /* by label: images that were looked at, */
    uint64_t *class_top1, *class_top5; /* and of these the right ones */
} cab_image_evaluation;

typedef struct cab_image_evaluator cab_image_evaluator;

/* Records and plans; the models and the set must outlive the evaluator. teacher may be NULL. The map of each model must
 * name a class of it for every label. */
cab_status cab_image_evaluator_new(const cab_image_judge *model, const cab_image_judge *teacher, cab_image_set *set,
                                   const cab_image_evaluator_options *options, cab_image_evaluator **out);
void cab_image_evaluator_free(cab_image_evaluator *evaluator);

/* One pass over the set. As often as wanted: the models' values may change between passes. *evaluation is filled in
 * anew; what it held before is freed (zero-initialise it). CAB_EFORMAT when no picture could be decoded, CAB_ENUMERIC when
 * a logit is not finite. */
cab_status cab_image_evaluator_run(cab_image_evaluator *evaluator, cab_image_evaluation *evaluation);
void cab_image_evaluation_free(cab_image_evaluation *evaluation);

/* How often images of one class were taken for another. */
typedef struct cab_confusion {
    int32_t label, predicted;
    uint64_t images;
} cab_confusion;

/* The most frequent confusions, at most `max` into `worst`, the most frequent first; *count says how many. */
cab_status cab_image_evaluation_confusions(const cab_image_evaluation *evaluation, size_t max, cab_confusion *worst,
                                           size_t *count);

/* ---- from files --------------------------------------------------------------------------------------------------- */

typedef struct cab_evaluate_images_options {
    const char *model;   /* directory */
    const char *teacher; /* directory, or NULL */
    const char *const *data;
    unsigned data_count;
    const char *classes; /* class map, or NULL: the model's own, or the classes found */
    cab_on_error on_error;
    cab_expand_limits limits; /* of archives */
    int image_size;           /* of both models; 0: their own */
    int batch;                /* 0: 32 */
    cab_precision precision;
    const char *device;
} cab_evaluate_images_options;

/* Opens everything, evaluates once. *classes receives the classes of the data (cab_classes_free). */
cab_status cab_evaluate_images(const cab_evaluate_images_options *options, cab_image_evaluation *evaluation,
                               cab_classes *classes);

#endif
