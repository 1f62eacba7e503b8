/* progress.c - "distil  12.5%  1250/10000 steps  34.1 steps/s  4m16s left  loss 2.31" */
#include "base/progress.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SILENT_SECONDS 2.0
#define TERMINAL_SECONDS 0.1
#define PLAIN_SECONDS 5.0

enum { LINE_MAX_BYTES = 512, COLUMNS_DEFAULT = 80 };

void cab_progress_begin(cab_progress *progress, const char *label, const char *unit, uint64_t first, uint64_t total)
{
    *progress = (cab_progress){.total = total, .first = first, .started = cab_seconds()};
    snprintf(progress->label, sizeof progress->label, "%s", label);
    snprintf(progress->unit, sizeof progress->unit, "%s", unit);
    progress->drawn = progress->started;
    progress->terminal = isatty(STDERR_FILENO) != 0;
}

static int terminal_columns(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return COLUMNS_DEFAULT;
    return size.ws_col;
}

static void format_count(const cab_progress *progress, uint64_t count, char *buffer)
{
    if (strcmp(progress->unit, "bytes") == 0)
        cab_format_bytes((double)count, buffer);
    else
        snprintf(buffer, CAB_FORMAT_MAX, "%" PRIu64, count);
}

static void format_rate(const cab_progress *progress, double rate, char *buffer, size_t size)
{
    char number[CAB_FORMAT_MAX];
    if (strcmp(progress->unit, "bytes") == 0)
        snprintf(buffer, size, "%s/s", cab_format_bytes(rate, number));
    else
        snprintf(buffer, size, "%.*f %s/s", rate < 10.0 ? 2 : rate < 100.0 ? 1 : 0, rate, progress->unit);
}

/* total 0: the end is unknown, so neither the percentage nor the time left is shown. */
static void format_line(const cab_progress *progress, uint64_t done, double elapsed, const char *detail, char *line)
{
    char count[CAB_FORMAT_MAX], total[CAB_FORMAT_MAX], left[CAB_FORMAT_MAX], rate_text[64];
    double rate = done > progress->first ? (double)(done - progress->first) / elapsed : 0.0;
    const char *unit = strcmp(progress->unit, "bytes") == 0 ? "" : progress->unit;
    format_count(progress, done, count);
    format_rate(progress, rate, rate_text, sizeof rate_text);
    if (progress->total == 0) {
        snprintf(line, LINE_MAX_BYTES, "%s  %s %s  %s  %s", progress->label, count, unit, rate_text, detail);
        return;
    }
    format_count(progress, progress->total, total);
    uint64_t rest = done < progress->total ? progress->total - done : 0;
    cab_format_seconds(rate > 0.0 ? (double)rest / rate : -1.0, left);
    snprintf(line, LINE_MAX_BYTES, "%s  %.1f%%  %s/%s %s  %s  %s left  %s", progress->label,
             100.0 * (double)done / (double)progress->total, count, total, unit, rate_text, left, detail);
}

void cab_progress_update(cab_progress *progress, uint64_t done, const char *detail)
{
    char line[LINE_MAX_BYTES], shown[2 * LINE_MAX_BYTES];
    double now = cab_seconds();
    double interval = progress->terminal ? TERMINAL_SECONDS : PLAIN_SECONDS;
    if (cab_log_is_quiet() || now - progress->started < SILENT_SECONDS || now - progress->drawn < interval)
        return;
    format_line(progress, done, now - progress->started, detail, line);
    cab_printable(line, shown, sizeof shown);
    if (progress->terminal) /* a line that wraps could not be redrawn in place */
        fprintf(stderr, "\r\x1b[K%.*s", terminal_columns() - 1, shown);
    else
        fprintf(stderr, "%s\n", shown);
    fflush(stderr);
    progress->drawn = now;
    progress->shown = true;
}

void cab_progress_end(cab_progress *progress)
{
    if (progress->terminal && progress->shown)
        fprintf(stderr, "\r\x1b[K");
    progress->shown = false;
}
