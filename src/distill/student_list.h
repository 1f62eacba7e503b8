/* student_list.h - the names of the students, in the order of their rows (students.h): FIRST and NEXT take the row's
 * name and its architecture's. student.architecture of a recipe is one of these words. */
#ifndef CAB_DISTILL_STUDENT_LIST_H
#define CAB_DISTILL_STUDENT_LIST_H

#define CAB_STUDENTS(FIRST, NEXT)                                                                                      \
    FIRST(phi_mamba, "phi-mamba")                                                                                      \
    NEXT(in_place_vit, "in-place-vit") NEXT(vim, "vim") NEXT(in_place, "in-place")

#define CAB_STUDENT_WORD(name, word) word
#define CAB_STUDENT_NEXT_WORD(name, word) "|" word
#define CAB_STUDENT_WORDS CAB_STUDENTS(CAB_STUDENT_WORD, CAB_STUDENT_NEXT_WORD)

#endif
