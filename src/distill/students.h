/* students.h - the kinds of students, a row each: what a student reads, the defaults of its recipe, how its architecture
 * and sizes follow from teacher and recipe, and how its parameters begin. The architecture (src/models/) says what a
 * student computes, and has its taps and its decoding state. student_list.h lists the rows. */
#ifndef CAB_DISTILL_STUDENTS_H
#define CAB_DISTILL_STUDENTS_H

#include "distill/keep.h"
#include "distill/recipe_domain.h"
#include "models/model.h"

/* What a new student is made from. */
typedef struct cab_student_source {
    const cab_model *teacher;
    const cab_recipe *recipe;
    int64_t seq_len;          /* text: tokens of a training sequence */
    int n_classes;            /* images: classes of the student */
    const int *layer_map;     /* for every student layer, the teacher layer whose weights it reuses, or -1 */
    const cab_kept *kept;     /* what stays attention, if the row has keeps() */
    const int32_t *class_map; /* images: for every class of the student, the teacher's; NULL: the same numbers */
} cab_student_source;

typedef struct cab_student_default {
    const char *key, *value;
} cab_student_default;

typedef struct cab_student {
    const char *name; /* its word in student.architecture; of two rows on different domains it may be the same */
    const cab_recipe_domain *domain;     /* what it reads: text or images */
    const cab_student_default *defaults; /* of recipe keys whose default is another for this student; key NULL ends */
    const char *const *keys;   /* recipe keys that only this student, and others that list them, have; NULL ends */
    const cab_preset *presets; /* by method; NULL: the domain's */
    const char *const *fresh;  /* patterns of parameters that are not the teacher's own; NULL: all are new */
    /* Chooses what stays attention, before derive(); NULL: nothing can. windows: of the training data. */
    cab_status (*keeps)(const cab_student_source *source, const cab_windows *windows, cab_kept *kept);
    /* Whether a model is of this kind. */
    bool (*is)(const cab_model *model);
    /* Sets architecture and sizes of a new student, of which the caller puts config->in_place. CAB_ESHAPE if recipe and teacher
     * contradict one another. */
    cab_status (*derive)(const cab_student_source *source, const cab_arch **arch, cab_config *config);
    /* Fills all parameters of a new student as recipe->init says, and logs (cab_log_info()) what was copied of the
     * teacher. */
    cab_status (*initialise)(cab_model *student, const cab_student_source *source);
} cab_student;

/* The student that a recipe asks for: the row of that name, of two that of student.reads. */
const cab_student *cab_student_of(const cab_recipe *recipe);
/* What student.reads says. */
const cab_recipe_domain *cab_student_domain(const cab_recipe *recipe);
/* The row of the same name on the other domain, or NULL. */
const cab_student *cab_student_namesake(const cab_student *student);
/* Row `index`; NULL past the last. */
const cab_student *cab_student_at(unsigned index);
/* The kind of student that a model is; NULL: of none. */
const cab_student *cab_student_of_model(const cab_model *model);
/* Whether a model can be trained on: one of these kinds, or another whose architecture is saved. */
bool cab_student_can_be(const cab_model *model);
/* The first student that reads this domain. */
const cab_student *cab_student_for(const cab_recipe_domain *domain);

/* A new student of the sizes that derive() gives, with parameters of zero; the caller frees it. CAB_ENOMEM, before
 * anything is allocated, if parameters and optimizer state do not fit into the memory that is left; else the failures
 * of derive(). */
cab_status cab_student_create(const cab_student_source *source, cab_backend *backend, cab_precision precision,
                              cab_model **student);
/* Gives a new student its first parameters, by its row's initialise(). Needs source->layer_map. */
cab_status cab_student_initialise(cab_model *student, const cab_student_source *source);

/* For timing: the student that a recipe of nothing but defaults makes of a teacher of text, with random weights.
 * n_layer 0: as many layers as the teacher. The caller frees it. */
cab_status cab_student_synthetic(const cab_model *teacher, int n_layer, bool trainable, cab_model **student);

/* For rows: `value`, or `fallback` if the recipe leaves the value at 0. */
int cab_student_chosen(int64_t value, int fallback);

#endif
