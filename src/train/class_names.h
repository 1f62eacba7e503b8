/* class_names.h - what the classes of an image model are called, for people. */
#ifndef CAB_TRAIN_CLASS_NAMES_H
#define CAB_TRAIN_CLASS_NAMES_H

#include "models/model.h"

/* Zero-initialise, free. names[i] is NULL where nobody says what class i is called. Of a class map with words it is "goldfish,
 * Carassius auratus (n01443537)". */
typedef struct cab_class_names {
    int count; /* the model's classes */
    char **names;
} cab_class_names;

/* Out of the model's directory, the first of
 *   config.json: "id2label" (transformers), or "label_names" in "pretrained_cfg" (timm)
 *   classes.tsv, classes.txt, imagenet1k_wnids.txt
 * and before that out of `file` (NULL: none): a class map (data/image_classes.h), or a list of one name a line, all classes
 * of the model. A class that none of them names has no name; that is no error. */
cab_status cab_class_names_load(const cab_model *model, const char *file, cab_class_names *names);
void cab_class_names_free(cab_class_names *names);

/* The name, or "class 17" in `out`, which holds at least 32 bytes. */
const char *cab_class_name(const cab_class_names *names, int32_t class, char *out);

#endif
