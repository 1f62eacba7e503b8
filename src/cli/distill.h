/* distill.h - shared by cab distill's two forms: one run in this process, several methods in a process each. */
#ifndef CAB_CLI_DISTILL_H
#define CAB_CLI_DISTILL_H

#include "base/communicator.h"
#include "distill/recipe.h"

/* Runs every recipe in a process of its own, one after another, so that each has its own peak memory. The signals that stop
 * a run (processes.c) are passed on: the run at work saves its state, the rest is not begun, CAB_EINTERRUPTED. Recipes whose run has
 * ended are left as they are. anew: they are replaced, all of them once the first has trained. Stops at the first failure. */
cab_status cli_distill_each(cab_recipe *const *recipes, unsigned count, bool anew);

/* Runs one recipe here, `anew` in place of what its directory holds; SIGINT, SIGTERM and SIGHUP make it save and stop, a second one kills;
 * SIGUSR1, SIGUSR2 and SIGXCPU make it save and stop. communicator: of the ranks that carry it out; NULL: this process does. */
cab_status cli_distill_here(const cab_recipe *recipe, bool anew, cab_communicator *communicator);

#endif
