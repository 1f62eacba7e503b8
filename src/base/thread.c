/* thread.c - OpenMP's settings are the only ones: it reads OMP_NUM_THREADS and the affinity mask by itself. */
#include "base/thread.h"

#include "base/file.h"
#include "base/log.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a group allows, in processors: cpu.max of version 2 ("200000 100000"), cpu.cfs_quota_us and cpu.cfs_period_us of
 * version 1. INFINITY: no limit, or no such group. */
static double group_quota(const char *path, const char *period_path)
{
    double quota = -1.0, period = -1.0;
    FILE *stream = fopen(path, "r");
    if (stream == NULL)
        return INFINITY;
    int found = fscanf(stream, "%lf %lf", &quota, &period);
    fclose(stream);
    if (period_path != NULL && (stream = fopen(period_path, "r")) != NULL) {
        found += fscanf(stream, "%lf", &period) == 1;
        fclose(stream);
    }
    return found == 2 && quota > 0.0 && period > 0.0 ? quota / period : INFINITY;
}

int cab_thread_processors(void)
{
    const double quota =
        fmin(group_quota("/sys/fs/cgroup/cpu.max", NULL),
             group_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"));
    const int processors = omp_get_num_procs();
    const int allowed = quota < processors ? (int)ceil(quota) : processors;
    return allowed < 1 ? 1 : allowed;
}

int cab_thread_count(void)
{
    const int wanted = omp_get_max_threads();
    if (wanted <= 1)
        return 1;
    const int most = cab_thread_processors();
    if (wanted > most)
        omp_set_num_threads(most); /* for parallel loops that ask nobody */
    return wanted < most ? wanted : most;
}

void cab_thread_limit(int count)
{
    const int most = cab_thread_processors();
    if (count > most)
        cab_log_warn("%d threads were asked for, but this process has %d processor%s: %d are used", count, most,
                     most == 1 ? "" : "s", most);
    if (count >= 1)
        omp_set_num_threads(count < most ? count : most);
}

void cab_thread_start(char **argv)
{
    char path[CAB_PATH_MAX], number[16];
    const int wanted = omp_get_max_threads(), most = cab_thread_processors();
    bool again = false;
    /* gcc's OpenMP lets a waiting thread spin for milliseconds, which starves the thread it waits for as soon as other
     * programs want the processors: 1.1 steps/s of the demo's training instead of 12.7 with four busy programs on two
     * cores. The user's choice stands. */
    if (getenv("OMP_WAIT_POLICY") == NULL && getenv("GOMP_SPINCOUNT") == NULL)
        again = setenv("GOMP_SPINCOUNT", "10000", 1) == 0;
    if (wanted > most) {
        if (getenv("OMP_NUM_THREADS") != NULL)
            cab_log_warn("OMP_NUM_THREADS asks for %d threads, but this process has %d processor%s: %d are used",
                         wanted, most, most == 1 ? "" : "s", most);
        snprintf(number, sizeof number, "%d", most);
        again = setenv("OMP_NUM_THREADS", number, 1) == 0 || again;
    }
    const ssize_t length = again ? readlink("/proc/self/exe", path, sizeof path - 1) : -1;
    if (length > 0) {
        path[length] = '\0';
        execv(path, argv);
    }
    omp_set_num_threads(wanted < most ? wanted : most); /* without /proc: at least for this thread */
}
