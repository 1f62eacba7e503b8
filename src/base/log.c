/* log.c - messages, clocks, and what the operating system says about memory.
 *
 * Memory limits: /proc/meminfo gives MemAvailable of the machine; control groups may allow less. /proc/self/cgroup
 * names the group: "0::<path>" (v2, files memory.max and memory.current) and "<n>:memory:<path>" (v1,
 * memory.limit_in_bytes and memory.usage_in_bytes). Every ancestor's limit binds too, and in a container the named path
 * may not exist under the mount, so each parent up to the root is asked. */
#include "base/log.h"

#include "base/file.h"

#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static atomic_bool log_quiet;

/* One line at once even when threads write together, and whatever bytes a path has. A progress line on the terminal gives way; it is
 * redrawn below. */
static void write_line(const char *prefix, const char *format, va_list args) CAB_PRINTF(2, 0);
static void write_line(const char *prefix, const char *format, va_list args)
{
    char text[2 * 4096], shown[2 * sizeof text];
    vsnprintf(text, sizeof text, format, args);
    cab_printable(text, shown, sizeof shown);
    fprintf(stderr, "%s%s%s\n", isatty(STDERR_FILENO) ? "\r\x1b[K" : "", prefix, shown);
}

void cab_log_info(const char *format, ...)
{
    if (cab_log_is_quiet())
        return;
    va_list args;
    va_start(args, format);
    write_line("", format, args);
    va_end(args);
}

void cab_log_warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_line("warning: ", format, args);
    va_end(args);
}

void cab_log_quiet(bool quiet)
{
    atomic_store_explicit(&log_quiet, quiet, memory_order_relaxed);
}

bool cab_log_is_quiet(void)
{
    return atomic_load_explicit(&log_quiet, memory_order_relaxed);
}

double cab_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

const char *cab_format_bytes(double bytes, char *buffer)
{
    static const char units[][4] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t unit = 0;
    while (bytes >= 1023.5 && unit + 1 < sizeof units / sizeof *units) {
        bytes /= 1024.0;
        unit++;
    }
    snprintf(buffer, CAB_FORMAT_MAX, "%.*f %s", unit > 0 && bytes < 99.95 ? 1 : 0, bytes, units[unit]);
    return buffer;
}

const char *cab_format_seconds(double seconds, char *buffer)
{
    if (!(seconds >= 0.0 && seconds < 1e9)) {
        snprintf(buffer, CAB_FORMAT_MAX, "?");
        return buffer;
    }
    unsigned long whole = (unsigned long)(seconds + 0.5);
    if (seconds < 9.95)
        snprintf(buffer, CAB_FORMAT_MAX, "%.1fs", seconds);
    else if (whole < 60)
        snprintf(buffer, CAB_FORMAT_MAX, "%lus", whole);
    else if (whole < 3600)
        snprintf(buffer, CAB_FORMAT_MAX, "%lum%02lus", whole / 60, whole % 60);
    else
        snprintf(buffer, CAB_FORMAT_MAX, "%luh%02lum", whole / 3600, whole / 60 % 60);
    return buffer;
}

double cab_peak_memory(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0.0;
    return (double)usage.ru_maxrss * 1024.0; /* Linux counts KiB */
}

/* The number after `key` at the start of a line of a /proc-style file; `key` "" takes the first line. NAN: not there,
 * or a word such as "max". */
static double read_number(const char *path, const char *key)
{
    char line[256];
    double value = NAN;
    FILE *stream = fopen(path, "r");
    if (stream == NULL)
        return NAN;
    while (fgets(line, sizeof line, stream) != NULL) {
        unsigned long long number = 0;
        if (strncmp(line, key, strlen(key)) == 0) {
            if (sscanf(line + strlen(key), "%llu", &number) == 1)
                value = (double)number;
            break;
        }
    }
    fclose(stream);
    return value;
}

typedef struct group_files {
    const char *mount, *limit, *usage, *cache;
} group_files;

/* What one group can still take. Inactive page cache counts as usage but is given back on demand. */
static double group_room(const group_files *files, const char *group)
{
    char path[CAB_PATH_MAX + 64];
    snprintf(path, sizeof path, "%s%s/%s", files->mount, group, files->limit);
    double limit = read_number(path, "");
    snprintf(path, sizeof path, "%s%s/%s", files->mount, group, files->usage);
    double usage = read_number(path, "");
    if (isnan(limit) || isnan(usage))
        return INFINITY;
    snprintf(path, sizeof path, "%s%s/memory.stat", files->mount, group);
    double cache = read_number(path, files->cache);
    return fmax(0.0, limit - usage + (isnan(cache) ? 0.0 : cache));
}

/* The least room on the way from `group` ("/a/b") to the root (""). */
static double path_room(const group_files *files, char *group)
{
    double room = INFINITY;
    for (;;) {
        room = fmin(room, group_room(files, group));
        char *slash = strrchr(group, '/');
        if (slash == NULL)
            return room;
        *slash = '\0';
    }
}

static double groups_room(void)
{
    static const group_files v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                   "total_inactive_file "};
    static const group_files v2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "};
    char line[CAB_PATH_MAX];
    double room = INFINITY;
    FILE *stream = fopen("/proc/self/cgroup", "r");
    if (stream == NULL)
        return room;
    while (fgets(line, sizeof line, stream) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (group == NULL)
            continue;
        *group++ = '\0';
        if (strcmp(line, "0:") == 0)
            room = fmin(room, path_room(&v2, group));
        else if (strstr(controllers, "memory") != NULL)
            room = fmin(room, path_room(&v1, group));
    }
    fclose(stream);
    return room;
}

double cab_available_memory(void)
{
    double machine = read_number("/proc/meminfo", "MemAvailable:"); /* in KiB */
    return fmin(isnan(machine) ? INFINITY : machine * 1024.0, groups_room());
}
