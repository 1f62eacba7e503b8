/* student_list.h - the names of the students, in the order of their rows (students.h): FIRST, NEXT and SAME take the row's
 * name and its word in student.architecture of a recipe; SAME is of a word that an earlier row on the other domain has. */
#ifndef CAB_DISTILL_STUDENT_LIST_H
#define CAB_DISTILL_STUDENT_LIST_H

#define CAB_STUDENTS(FIRST, NEXT, SAME)                                                                                \
    FIRST(phi_mamba, "phi-mamba")                                                                                      \
    NEXT(in_place_vit, "in-place") NEXT(vim, "vim") SAME(in_place, "in-place")

#define CAB_STUDENT_WORD(name, word) word
#define CAB_STUDENT_NEXT_WORD(name, word) "|" word
#define CAB_STUDENT_NO_WORD(name, word)
#define CAB_STUDENT_WORDS CAB_STUDENTS(CAB_STUDENT_WORD, CAB_STUDENT_NEXT_WORD, CAB_STUDENT_NO_WORD)

#endif
