#include "data/loops.h"

#include "base/random.h"

enum { SPAN_MOST = 8, LENGTH_LEAST = 16 };

bool cab_loop_draw(uint64_t seed, double share, uint64_t index, int64_t tokens, cab_loop *loop)
{
    cab_random random = {.seed = seed, .stream = CAB_STREAM_LOOPS, .index = index << 8}; /* a loop takes fewer draws */
    const int64_t most = tokens / 2;
    if (most < LENGTH_LEAST || (double)cab_random_uniform(&random) >= share)
        return false;
    loop->span = 1 + (int64_t)cab_random_below(&random, SPAN_MOST);
    loop->length = LENGTH_LEAST + (int64_t)cab_random_below(&random, (uint64_t)(most - LENGTH_LEAST + 1));
    loop->first = loop->span + (int64_t)cab_random_below(&random, (uint64_t)(tokens - loop->length - loop->span + 1));
    return true;
}

bool cab_loop_apply(const cab_loop *loop, const int32_t *starts, int32_t *ids, int32_t *labels)
{
    const int64_t end = loop->first + loop->length;
    for (int64_t t = loop->first - loop->span; t < end; t++)
        if (labels[t] < 0 || (starts != NULL && starts[t] != starts[end - 1]))
            return false;
    for (int64_t t = loop->first; t < end; t++)
        ids[t] = ids[t - loop->span];
    for (int64_t t = loop->first - 1; t < end; t++)
        labels[t] = -1;
    return true;
}
