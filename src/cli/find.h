/* find.h - what a command line names: a run for the student in it, a recipe or a task by its name alone. */
#ifndef CAB_CLI_FIND_H
#define CAB_CLI_FIND_H

#include "base/error.h"
#include "base/file.h"

/* The model directory that `given` means: itself, or the student of the run that it holds. CAB_EIO for a run that has no student
 * yet. Any other directory is left as it is, for the reader to refuse. */
cab_status cli_find_model(const char *given, char out[CAB_PATH_MAX]);

/* The file that `given` means: itself, where there is such a file or it has a slash; else NAME.yaml in the first of
 *   ./recipes, the directories of $CAB_RECIPES, share/cab/recipes beside the directory of the program
 * that has it. CAB_EIO, with the nearest name, where none has. */
cab_status cli_find_recipe(const char *given, char out[CAB_PATH_MAX]);

/* The task that `given` means: CAB_TASK_RECALL itself; a file, with a slash in its path; else tasks/NAME.yaml in one of the same
 * directories. CAB_EIO, with the nearest name or all of them, where none has. */
cab_status cli_find_task(const char *given, char out[CAB_PATH_MAX]);

/* Whether `word` means a recipe or the directory of a run, rather than data: by its suffix, as a name that is found, or by what is
 * in the directory. */
bool cli_is_recipe(const char *word);

/* Calls visit() for every recipe that cli_find_recipe() finds by name, by directory and then by name. Anything but CAB_OK ends it
 * and is passed on. */
typedef cab_status (*cli_recipe_visitor)(void *user, const char *name, const char *path);
cab_status cli_each_recipe(cli_recipe_visitor visit, void *user);

#endif
