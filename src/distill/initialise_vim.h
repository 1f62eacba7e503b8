/* initialise_vim.h - where the image student starts. */
#ifndef CAB_DISTILL_INITIALISE_VIM_H
#define CAB_DISTILL_INITIALISE_VIM_H

#include "models/model.h"

/* Fills every parameter of a student of architecture "vim", drawn from `seed`, as the public code does. near_identity: A_log
 * starts at -20, so that every decay is 1 to eight digits and the student starts as linear attention; A's gradient is in
 * proportion to A, so that it stays there. Otherwise A_log is log(1), log(2) ... log(N) in every channel. */
cab_status cab_initialise_vim(cab_model *student, uint64_t seed, bool near_identity);

#endif
