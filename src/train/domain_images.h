/* domain_images.h - the data of a run on images. Internal to this folder. */
#ifndef CAB_TRAIN_DOMAIN_IMAGES_H
#define CAB_TRAIN_DOMAIN_IMAGES_H

#include "data/image_feed.h"
#include "distill/keep.h"
#include "train/domain.h"

typedef struct cab_image_data {
    cab_domain_setup setup;
    cab_image_set *train, *eval, *part; /* part: the share of eval that periodic evaluations look at; NULL: all */
    cab_image_transform transform;
    int32_t *map;       /* by label: the teacher's class; NULL: the label itself */
    bool compared;      /* the teacher's classes are those of the data: KL and agreement mean something */
    cab_params *head;   /* the teacher's rows of the data's classes; NULL: the teacher's own head serves */
    cab_head_side side; /* of these */
    cab_kept kept;      /* layers of the teacher, in a student that keeps attention */
    cab_image_loader *loader;
    int64_t batch;                 /* of a step, over all ranks */
    int64_t rank_rows, rank_batch; /* of a micro-batch and of a step, on this rank */
    size_t classes;                /* of the student */
    bool mixed;                    /* labels are distributions: mixing or smoothing is on */
    cab_image_feed_options feed;   /* of a micro-batch */
    cab_image_batch lent;          /* by the loader: the images of one optimizer step */
    uint64_t loaded;               /* 1 + that step; 0: none */
    cab_image_rows rows;           /* of a micro-batch */
} cab_image_data;

#endif
