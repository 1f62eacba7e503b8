/* initialise_in_place.h - where an in-place student starts: its teacher, copied, and mixers in the place of attention. */
#ifndef CAB_DISTILL_INITIALISE_IN_PLACE_H
#define CAB_DISTILL_INITIALISE_IN_PLACE_H

#include "distill/students.h"

/* Fills every parameter of the student. source->kept says which attention is kept. What was copied is said with
 * cab_log_info(). */
cab_status cab_initialise_in_place(cab_model *student, const cab_student_source *source);
/* The same of a student of another width than its teacher's: matrices uniform in +-1/sqrt(columns), tokens and positions near zero, biases 0,
 * norms 1. */
cab_status cab_initialise_in_place_anew(cab_model *student, const cab_student_source *source);

#endif
