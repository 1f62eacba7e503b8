/* layer_map.h - which teacher layer g(l) teaches which of S student layers, of T teacher layers, all counted from 0. */
#ifndef CAB_DISTILL_LAYER_MAP_H
#define CAB_DISTILL_LAYER_MAP_H

#include "base/error.h"

#include <stdint.h>

/* kind is CAB_LAYERS_... of recipe.h:
 *   proportional   g(l) = floor(l T / S): the paper's
 *   uniform-last   g(l) = ceil((l + 1) T / S) - 1: evenly spaced, the last layer taught by the last
 *   first          g(l) = l; student layers from T on have no teacher
 *   list           g(l) = list[l], -1 for none; must have S entries below T
 * Any S and T; neither need divide the other. map has S entries and receives -1 for "no teacher". */
cab_status cab_layer_map(int kind, const int64_t *list, unsigned list_count, int S, int T, int *map);

#endif
