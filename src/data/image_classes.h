/* image_classes.h - the classes of a data set: their order, and which class of a teacher each one is.
 *
 * A class map is a text file of lines of tab-separated fields
 *
 *   label    name    teacher's class    words        0   n01443537   1   goldfish, Carassius auratus
 *
 * with or without a line of headings above them. Labels are 0 .. n - 1, each once; the name is that of the class's folder;
 * the teacher's class is an index into its logits; the words, which may be missing, are for people. */
#ifndef CAB_DATA_IMAGE_CLASSES_H
#define CAB_DATA_IMAGE_CLASSES_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct cab_classes {
    size_t count;
    char **names;      /* by label; unique */
    char **words;      /* by label; NULL where there are none */
    int32_t *teacher;  /* by label; -1: no class of the teacher is stated */
    uint32_t *by_name; /* labels in the order of their names */
} cab_classes;

cab_status cab_classes_load(const char *path, cab_classes *classes);
cab_status cab_classes_parse(const char *text, size_t size, const char *path, cab_classes *classes);
/* Classes of these names, in this order, without words or teacher. A name that stands there twice is CAB_EFORMAT. */
cab_status cab_classes_from_names(const char *const *names, size_t count, cab_classes *classes);
cab_status cab_classes_copy(const cab_classes *from, cab_classes *classes);
void cab_classes_free(cab_classes *classes);

/* The label; -1 when there is no such class. */
int32_t cab_classes_find(const cab_classes *classes, const char *name);
/* Fails unless every class has one of the teacher's, which has `teacher_classes`. */
cab_status cab_classes_check_teacher(const cab_classes *classes, int64_t teacher_classes);

#endif
