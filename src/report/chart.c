/* chart.c - writes a gnuplot script to a temporary file, runs gnuplot on it without a shell, reads the SVG back.
 *
 * Only numbers go into the script. Text and grid lines get their colours from the page's style sheet. */
#include "report/chart.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { SVG_MAX = 16 << 20, UNITS = 4 };
static const double log_ratio = 12; /* a logarithmic axis that spans less than this is drawn as a linear one */

struct extent {
    double x_max, y_min, y_max;
};

static struct extent measure(const cab_chart *chart)
{
    struct extent extent = {0, INFINITY, -INFINITY};
    for (size_t s = 0; s < chart->count; s++) {
        for (size_t i = 0; i < chart->series[s].count; i++) {
            extent.x_max = fmax(extent.x_max, chart->series[s].x[i]);
            extent.y_min = fmin(extent.y_min, chart->series[s].y[i]);
            extent.y_max = fmax(extent.y_max, chart->series[s].y[i]);
        }
    }
    if (isfinite(chart->reference)) {
        extent.y_min = fmin(extent.y_min, chart->reference);
        extent.y_max = fmax(extent.y_max, chart->reference);
    }
    return extent;
}

/* Ticks at 1, 2 and 5 of every decade of a short axis: gnuplot's own leave most of it bare. At most ten on a long one. */
static void write_log_ticks(FILE *script, const struct extent *extent)
{
    static const double steps[] = {1, 2, 5};
    int first = (int)floor(log10(extent->y_min)), last = (int)ceil(log10(extent->y_max));
    size_t each = last - first > 4 ? 1 : sizeof steps / sizeof *steps;
    const char *before = "set ytics (";
    for (int decade = first; decade <= last; decade += 1 + (last - first) / 10) {
        for (size_t i = 0; i < each; i++) {
            double tick = steps[i] * pow(10, decade);
            fprintf(script, "%s\"%g\" %g", before, tick, tick);
            before = ", ";
        }
    }
    fprintf(script, ")\n");
}

/* A margin of a twentieth around the values, but not below 0 when no value is. */
static void write_y_axis(FILE *script, const struct extent *extent, bool logarithmic)
{
    double span = extent->y_max > extent->y_min ? extent->y_max - extent->y_min : fabs(extent->y_max) + 1e-9;
    double low = extent->y_min - span / 20, high = extent->y_max + span / 20;
    if (low < 0 && extent->y_min >= 0)
        low = 0;
    if (logarithmic) {
        double factor = pow(extent->y_max / extent->y_min, 0.05);
        low = extent->y_min / factor;
        high = extent->y_max * factor;
        fprintf(script, "set logscale y\n");
        write_log_ticks(script, extent);
    }
    fprintf(script, "set yrange [%.9g:%.9g]\n", low, high);
}

static void write_frame(FILE *script, int width, int height)
{
    fprintf(script,
            "set terminal svg dynamic size %d,%d noenhanced\n"
            "set border 1 lc rgb '#8a93a0'\nset tics nomirror scale 0.5 textcolor rgb '#68717d'\n"
            "set grid y lc rgb '#d5dae1' dt 1 lw 1\nset lmargin 9\nset rmargin 2\nset tmargin 0.8\n",
            width, height);
}

static void write_lines(FILE *script, const void *given)
{
    const cab_chart *chart = given;
    static const struct {
        double scale;
        const char *name;
    } units[UNITS] = {{1, ""}, {1e3, "thousand "}, {1e6, "million "}, {1e9, "billion "}};
    struct extent extent = measure(chart);
    int unit = UNITS - 1;
    while (unit > 0 && extent.x_max < 2 * units[unit].scale)
        unit--;
    write_frame(script, 560, 300);
    fprintf(script, "set xlabel '%s%s' textcolor rgb '#68717d'\nset xrange [0:%.9g]\n", units[unit].name, chart->unit,
            extent.x_max > 0 ? extent.x_max / units[unit].scale : 1);
    write_y_axis(script, &extent, chart->logarithmic && extent.y_max > log_ratio * extent.y_min);
    for (size_t s = 0; s < chart->count; s++) {
        fprintf(script, "$d%zu << END\n", s);
        for (size_t i = 0; i < chart->series[s].count; i++)
            fprintf(script, "%.9g %.9g\n", chart->series[s].x[i] / units[unit].scale, chart->series[s].y[i]);
        fprintf(script, "END\n");
    }
    fprintf(script, "plot ");
    if (isfinite(chart->reference))
        fprintf(script, "%.9g with lines lw 1.5 dt (8,6) lc rgb '#8a93a0' notitle, ", chart->reference);
    for (size_t s = 0; s < chart->count; s++)
        fprintf(script, "$d%zu with %s lw 2 lc rgb '%s' notitle%s", s,
                chart->marks ? "linespoints pt 7 ps 0.4" : "lines", chart->series[s].colour,
                s + 1 < chart->count ? ", " : "\n");
}

/* Runs "gnuplot -d -" from `script` to `output`; false where it cannot be run or fails. -d: no start-up files. */
static bool run_gnuplot(FILE *script, FILE *output)
{
    char *const arguments[] = {(char[]){"gnuplot"}, (char[]){"-d"}, (char[]){"-"}, NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int state = 0;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return false;
    bool started = posix_spawn_file_actions_adddup2(&actions, fileno(script), STDIN_FILENO) == 0 &&
                   posix_spawn_file_actions_adddup2(&actions, fileno(output), STDOUT_FILENO) == 0 &&
                   posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0) == 0 &&
                   posix_spawnp(&pid, arguments[0], &actions, NULL, arguments, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    if (!started)
        return false;
    while (waitpid(pid, &state, 0) < 0) {
        if (errno != EINTR)
            return false;
    }
    return WIFEXITED(state) && WEXITSTATUS(state) == 0;
}

/* Removes every stretch of text that begins with `begin` and ends with `end`. */
static void cut(char *text, const char *begin, const char *end)
{
    char *from = text, *to;
    while ((from = strstr(from, begin)) && (to = strstr(from + strlen(begin), end)))
        memmove(from, to + strlen(end), strlen(to + strlen(end)) + 1);
}

/* Fits the drawing into a page: no XML header, no titles (they show as tips), no identifiers that charts would share. */
static cab_status take_svg(FILE *output, bool definitions, char **svg)
{
    char *text, *start;
    long size = fseek(output, 0, SEEK_END) == 0 ? ftell(output) : -1;
    if (size <= 0 || size > SVG_MAX)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&text, (size_t)size + 1, "a chart"));
    rewind(output);
    if (fread(text, 1, (size_t)size, output) == (size_t)size && (start = strstr(text, "<svg"))) {
        memmove(text, start, strlen(start) + 1);
        cut(text, "<title>", "</title>");
        cut(text, "<desc>", "</desc>");
        cut(text, " id=\"gnuplot", "\"");
        if (!definitions)
            cut(text, "<defs>", "</defs>");
        *svg = text;
        return CAB_OK;
    }
    cab_free(text);
    return CAB_OK;
}

/* Writes a script by `write`, has it drawn. */
static cab_status draw(void (*write)(FILE *script, const void *chart), const void *chart, bool definitions, char **svg)
{
    cab_status status = CAB_OK;
    *svg = NULL;
    FILE *script = tmpfile(), *output = tmpfile();
    if (!script || !output) {
        status = cab_fail_errno(CAB_EIO, errno, "a temporary file for a chart cannot be made");
        goto done;
    }
    write(script, chart);
    if (fflush(script) != 0) {
        status = cab_fail_errno(CAB_EIO, errno, "a chart's script cannot be written");
        goto done;
    }
    rewind(script);
    if (run_gnuplot(script, output))
        status = take_svg(output, definitions, svg);
done:
    if (script)
        fclose(script);
    if (output)
        fclose(output);
    return status;
}

cab_status cab_chart_draw(const cab_chart *chart, char **svg)
{
    return draw(write_lines, chart, chart->definitions, svg);
}

/* ---- box plots -------------------------------------------------------------------------------------------------------- */

struct box_extent {
    double low, high, last; /* of y and x */
};

static struct box_extent measure_boxes(const cab_box_chart *chart)
{
    struct box_extent extent = {0};
    for (size_t s = 0; s < chart->count; s++) {
        for (size_t i = 0; i < chart->series[s].count; i++) {
            const cab_chart_box *b = &chart->series[s].boxes[i];
            extent.low = fmin(extent.low, b->min);
            extent.high = fmax(extent.high, b->max);
            extent.last = fmax(extent.last, b->x);
        }
    }
    return extent;
}

static void write_boxes(FILE *script, const void *given)
{
    static const double together = 0.72, widest = 0.036; /* of the distance between two x; of the chart, each */
    const cab_box_chart *chart = given;
    const struct box_extent extent = measure_boxes(chart);
    const double width = fmin(together / (double)chart->count, widest * (extent.last + 1.2));
    write_frame(script, 1120, 340);
    for (size_t s = 0; s < chart->count; s++) {
        const cab_box_series *series = &chart->series[s];
        const double shift = width * ((double)s - (double)(chart->count - 1) / 2);
        fprintf(script, "$d%zu << END\n", s);
        for (size_t i = 0; i < series->count; i++) {
            const cab_chart_box *b = &series->boxes[i];
            fprintf(script, "%.9g %.9g %.9g %.9g %.9g %.9g\n", b->x + shift, b->min, b->q1, b->median, b->q3, b->max);
        }
        fprintf(script, "END\n");
    }
    fprintf(script,
            "set xlabel '%s' textcolor rgb '#68717d'\nset xrange [-0.6:%.9g]\nset xtics %d\n"
            "set yrange [%.9g:%.9g]\nset style fill solid 0.3 border\nplot 0 with lines lw 1 lc rgb '#8a93a0' notitle",
            chart->label, extent.last + 0.6, extent.last > 40 ? 5 : 1, extent.low < 0 ? fmax(extent.low - 0.05, -1) : 0,
            fmin(extent.high + 0.05, 1));
    for (size_t s = 0; s < chart->count; s++)
        fprintf(script,
                ", $d%zu using 1:3:2:6:5:(%.9g) with candlesticks lw 1.2 lc rgb '%s' notitle whiskerbars 0.4"
                ", $d%zu using 1:4:4:4:4:(%.9g) with candlesticks lw 2.4 lc rgb '%s' notitle",
                s, width * 0.8, chart->series[s].colour, s, width * 0.8, chart->series[s].colour);
    fprintf(script, "\n");
}

cab_status cab_boxes_draw(const cab_box_chart *chart, char **svg)
{
    return draw(write_boxes, chart, false, svg);
}
