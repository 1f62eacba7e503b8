/* classify.h - the most likely classes of single pictures. */
#ifndef CAB_TRAIN_CLASSIFY_H
#define CAB_TRAIN_CLASSIFY_H

#include "models/model.h"

typedef struct cab_class_share {
    int32_t class;
    float probability; /* softmax over all classes of the model */
} cab_class_share;

/* Receives every image, in the order of the paths: its most likely classes, the likeliest first. Where the image could not
 * be read, `status` says so, cab_error_text() names it, and `top` is NULL. Anything but CAB_OK ends the work and is passed
 * on. */
typedef cab_status (*cab_classify_sink)(void *user, const char *path, cab_status status, const cab_class_share *top,
                                        size_t count);

/* JPEG and PNG files, by their content; `top`: how many classes of each, 1 to those of the model. batch 0: all pictures at
 * once, up to 16 of them. */
cab_status cab_classify(const cab_model *model, const char *const *paths, size_t count, size_t top, int batch,
                        cab_classify_sink sink, void *user);

#endif
