#include "distill/layer_map.h"

#include "distill/recipe.h"

#include <inttypes.h>

static cab_status map_by_list(const int64_t *list, unsigned count, int S, int T, int *map)
{
    if (count != (unsigned)S)
        return cab_fail(CAB_ESHAPE, "bridge.layers: %u entries for %d student layers", count, S);
    for (int l = 0; l < S; l++) {
        if (list[l] < -1 || list[l] >= T)
            return cab_fail(CAB_ESHAPE, "bridge.layers[%d]: %" PRId64 ", expected -1 (none) or a teacher layer 0 to %d",
                            l, list[l], T - 1);
        map[l] = (int)list[l];
    }
    return CAB_OK;
}

cab_status cab_layer_map(int kind, const int64_t *list, unsigned list_count, int S, int T, int *map)
{
    if (kind == CAB_LAYERS_LIST)
        return map_by_list(list, list_count, S, T, map);
    for (int l = 0; l < S; l++) {
        if (kind == CAB_LAYERS_PROPORTIONAL)
            map[l] = (int)((int64_t)l * T / S);
        else if (kind == CAB_LAYERS_UNIFORM_LAST)
            map[l] = (int)((((int64_t)l + 1) * T + S - 1) / S) - 1;
        else
            map[l] = l < T ? l : -1;
    }
    return CAB_OK;
}
