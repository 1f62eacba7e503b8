/* progress.c - "distil  12.5%  4m16s left  1250/10000 steps  loss 2.31  34.1 steps/s" */
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

enum { LINE_MAX_BYTES = 512, COLUMNS_DEFAULT = 80, FIELDS_MAX = 16, FIELD_BYTES = 96 };

void cab_progress_begin(cab_progress *progress, const char *label, const char *unit, uint64_t first, uint64_t total)
{
    *progress = (cab_progress){.total = total, .first = first, .started = cab_seconds()};
    snprintf(progress->label, sizeof progress->label, "%s", label);
    snprintf(progress->unit, sizeof progress->unit, "%s", unit);
    progress->drawn = progress->started;
    progress->terminal = isatty(STDERR_FILENO) != 0;
}

size_t cab_terminal_columns(int descriptor)
{
    struct winsize size;
    if (ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
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

/* The fields of a line, the dearest first: of a terminal that is too narrow for all, the last go. */
static void add_field(char fields[FIELDS_MAX][FIELD_BYTES], unsigned *count, const char *text, size_t length)
{
    if (length > 0 && *count < FIELDS_MAX)
        snprintf(fields[(*count)++], FIELD_BYTES, "%.*s", (int)length, text);
}

/* `detail` is fields of its own, two spaces between them. */
static void add_details(char fields[FIELDS_MAX][FIELD_BYTES], unsigned *count, const char *detail)
{
    while (*detail != '\0') {
        const char *end = strstr(detail, "  ");
        const size_t length = end != NULL ? (size_t)(end - detail) : strlen(detail);
        add_field(fields, count, detail, length);
        detail += length + strspn(detail + length, " ");
    }
}

/* Label, share, count, time left, details, rate. total 0: the end is unknown, so neither share nor time left is there. */
static unsigned collect_fields(const cab_progress *progress, uint64_t done, double elapsed, const char *detail,
                               char fields[FIELDS_MAX][FIELD_BYTES])
{
    char number[CAB_FORMAT_MAX], total[CAB_FORMAT_MAX] = "", text[FIELD_BYTES];
    const double rate = done > progress->first ? (double)(done - progress->first) / elapsed : 0.0;
    const uint64_t rest = done < progress->total ? progress->total - done : 0;
    unsigned count = 0;
    add_field(fields, &count, progress->label, strlen(progress->label));
    if (progress->total > 0) {
        snprintf(text, sizeof text, "%.1f%%", 100.0 * (double)done / (double)progress->total);
        add_field(fields, &count, text, strlen(text));
        snprintf(text, sizeof text, "%s left", cab_format_seconds(rate > 0.0 ? (double)rest / rate : -1.0, number));
        add_field(fields, &count, text, strlen(text));
        format_count(progress, progress->total, total);
    }
    format_count(progress, done, number);
    snprintf(text, sizeof text, "%s%s%s%s%s", number, progress->total > 0 ? "/" : "", total,
             strcmp(progress->unit, "bytes") == 0 ? "" : " ",
             strcmp(progress->unit, "bytes") == 0 ? "" : progress->unit);
    add_field(fields, &count, text, strlen(text));
    add_details(fields, &count, detail);
    format_rate(progress, rate, text, sizeof text);
    add_field(fields, &count, text, strlen(text));
    return count;
}

void cab_progress_line(const cab_progress *progress, uint64_t done, double elapsed, const char *detail, size_t columns,
                       char *line, size_t size)
{
    char fields[FIELDS_MAX][FIELD_BYTES];
    const unsigned count = collect_fields(progress, done, elapsed, detail, fields);
    size_t used = 0;
    line[0] = '\0';
    for (unsigned i = 0; i < count; i++) {
        const size_t gap = i > 0 ? 2 : 0, length = strlen(fields[i]);
        if (used + gap + length > columns || used + gap + length >= size)
            break;
        used += (size_t)snprintf(line + used, size - used, "%s%s", i > 0 ? "  " : "", fields[i]);
    }
}

void cab_progress_update(cab_progress *progress, uint64_t done, const char *detail)
{
    char line[LINE_MAX_BYTES], shown[2 * LINE_MAX_BYTES];
    double now = cab_seconds();
    double interval = progress->terminal ? TERMINAL_SECONDS : PLAIN_SECONDS;
    if (cab_log_is_quiet() || now - progress->started < SILENT_SECONDS || now - progress->drawn < interval)
        return;
    cab_progress_line(progress, done, now - progress->started, detail,
                      progress->terminal ? cab_terminal_columns(STDERR_FILENO) - 1 : sizeof line, line, sizeof line);
    cab_printable(line, shown, sizeof shown);
    if (progress->terminal) /* a line that wraps could not be redrawn in place */
        fprintf(stderr, "\r\x1b[K%s", shown);
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
