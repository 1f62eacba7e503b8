/* image_pick.h - a few images that stand for a whole set, and what to call them. */
#ifndef CAB_TRAIN_IMAGE_PICK_H
#define CAB_TRAIN_IMAGE_PICK_H

#include "data/image_set.h"

enum { CAB_CAPTION_MAX = 80 };

/* Loads image i of n that are evenly spaced over the set, and so over its classes. One that was skipped because it cannot be
 * decoded gives way to the one after it; *index is the one loaded. */
cab_status cab_image_pick(cab_image_set *set, uint64_t i, uint64_t n, cab_image *image, uint64_t *index);

/* The first of the words for a class ("goldfish, Carassius auratus"), or its name. Returns out. */
const char *cab_class_caption(const cab_classes *classes, int32_t label, char out[CAB_CAPTION_MAX]);

#endif
