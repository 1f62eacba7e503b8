/* inspect.h - what a model directory holds, without converting it. */
#ifndef CAB_MODELS_INSPECT_H
#define CAB_MODELS_INSPECT_H

#include "base/error.h"

#include <stdbool.h>
#include <stdio.h>

/* Architecture, sizes, parameters, types, and whether it can be a teacher or a student; with `tensors` a line for each. A
 * model of an unsupported architecture, or with missing tensors, is still listed, with the reason. */
cab_status cab_inspect(const char *directory, FILE *out, bool json, bool tensors);

#endif
