/* class_match.h - which classes of a model the classes of data are.
 *
 * A model's directory may hold a class map of its own, classes.tsv, as distilled students do: its third column is then the
 * model's class. Where there is one, classes are matched by their names, and no order can shift them. */
#ifndef CAB_TRAIN_CLASS_MATCH_H
#define CAB_TRAIN_CLASS_MATCH_H

#include "data/image_classes.h"
#include "models/model.h"

/* The model's own class map; *own without classes when there is none. The directory's config.json is not looked at. */
cab_status cab_model_classes(const cab_model *model, cab_classes *own);

/* By number. *map: by label of the data the model's class, borrowed from `classes`; NULL: the label itself. A model with as
 * many classes as the data is asked for the labels themselves; one with more needs the teacher's column of a class map.
 * CAB_EFORMAT when the map does not fit, or could be meant either way. */
cab_status cab_image_classes_for(const cab_classes *classes, const cab_model *model, const int32_t **map);

/* By name where the model has a class map of its own, else by number. *map is owned by the caller. CAB_EFORMAT naming the
 * class of the data that the model does not have. */
cab_status cab_image_classes_match(const cab_classes *classes, const cab_model *model, int32_t **map);

#endif
