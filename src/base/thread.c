/* thread.c - OpenMP's settings are the only ones: it reads OMP_NUM_THREADS and the affinity mask by itself. */
#include "base/thread.h"

#include <omp.h>

int cab_thread_count(void)
{
    return omp_get_max_threads();
}

void cab_thread_limit(int count)
{
    if (count >= 1)
        omp_set_num_threads(count);
}
