/* students.h - one row per kind of student: what it reads, its recipe's defaults, how its sizes derive from a teacher and a
 * recipe, where its parameters start. What it computes, its taps and its decoding state are its architecture's (models/). */
#ifndef CAB_DISTILL_STUDENTS_H
#define CAB_DISTILL_STUDENTS_H

#include "distill/recipe_domain.h"
#include "models/model.h"

/* What a new student is made from. */
typedef struct cab_student_source {
    const cab_model *teacher;
    const cab_recipe *recipe;
    int64_t seq_len;          /* of text: tokens of a training sequence */
    int n_classes;            /* of images */
    const int *layer_map;     /* the teacher's layer whose weights layer l reuses, -1: none */
    const int32_t *class_map; /* of images: the teacher's class that is class v; NULL: v itself */
} cab_student_source;

typedef struct cab_student_default {
    const char *key, *value;
} cab_student_default;

typedef struct cab_student {
    const cab_arch *arch;
    const cab_recipe_domain *domain;     /* what it reads */
    const cab_student_default *defaults; /* of its recipe, where they differ from the options' own; key NULL ends */
    const char *const *keys;             /* of recipes, that it has and no other; NULL ends */
    /* The sizes of a new one. CAB_ESHAPE where recipe and teacher contradict one another. */
    cab_status (*derive)(const cab_student_source *source, cab_config *config);
    /* Fills all its parameters as recipe->init says, and says with cab_log_info() what of the teacher was copied. */
    cab_status (*initialise)(cab_model *student, const cab_student_source *source);
} cab_student;

/* The student that a recipe asks for. */
const cab_student *cab_student_of(const cab_recipe *recipe);
/* Row `index`; NULL past the last. */
const cab_student *cab_student_at(unsigned index);
/* The first of a domain. */
const cab_student *cab_student_for(const cab_recipe_domain *domain);

/* A new student, its parameters zero: derived, checked against the memory that is left, created. CAB_ENOMEM, before anything is
 * allocated, where parameters and optimizer would not fit. */
cab_status cab_student_create(const cab_student_source *source, cab_backend *backend, cab_precision precision,
                              cab_model **student);
/* Its first parameters; needs source->layer_map. */
cab_status cab_student_initialise(cab_model *student, const cab_student_source *source);

/* The student that a recipe of defaults makes of a teacher of text, with random weights, for timing; n_layer 0: as many layers. */
cab_status cab_student_synthetic(const cab_model *teacher, int n_layer, bool trainable, cab_model **student);

/* For rows: value, or `fallback` where the recipe leaves it at 0. */
int cab_student_chosen(int64_t value, int fallback);

#endif
