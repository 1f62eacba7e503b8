/* report.c - cab report: runs compared in a table and one HTML file. */
#include "report/report.h"

#include "base/log.h"
#include "cli/command.h"

#include <string.h>

#define REPORT_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                        \
    TEXT(output, 'o', "FILE", "report.html", "where the page is written")                                              \
    TEXT(title, 0, "TEXT", "Distillation runs", "title of the page")                                                   \
    BOOL(table, 't', "print the table only, write no page")

struct report_options {
    CAB_FIELDS(REPORT_OPTIONS)
};
CAB_FLAG_TABLE(report_table, struct report_options, REPORT_OPTIONS)

static cab_status run(const void *given, const cab_list *operands)
{
    const struct report_options *options = given;
    cab_report_runs runs = {0};
    cab_status status;
    CAB_GOTO(cab_report_runs_read((const char *const *)operands->items, operands->count, &runs));
    CAB_GOTO(cab_report_table(&runs, stdout));
    if (!options->table) {
        CAB_GOTO(cab_report_html(&runs, options->title, options->output));
        cab_log_info("report: %s", options->output);
    }
done:
    cab_report_runs_free(&runs);
    return status;
}

static const cli_example examples[] = {
    {"cab report runs/*", "every run under runs/, in report.html"},
    {"cab report runs/demo -o demo.html --title \"Tales\"", "the methods that one comparison tried"},
    {"cab report --table runs/a runs/b", "the numbers only"},
    {"cab report runs/a before.json after.json", "with two comparisons that cab compare wrote"},
    {0}};

const cli_command cli_report = {
    .name = "report",
    .summary = "compare runs in a table and one HTML file with charts",
    .synopsis = "RUN|COMPARISON...",
    .description =
        "Reads the logs of the runs in the directories RUN, prints a table to standard output and writes one "
        "self-contained HTML page. A directory that holds several runs stands for all of them. Unfinished runs "
        "are shown as far as they got. Where a run's directory has a compare.json, as cab compare writes it, the page "
        "shows "
        "how alike teacher and student mix tokens, and what they look at; a comparison that lies elsewhere may be "
        "named beside "
        "the runs.\n\nCharts are drawn by gnuplot; without it the page has the numbers only.",
    .examples = examples,
    .options = report_table,
    .options_size = sizeof(struct report_options),
    .operands_min = 1,
    .operands_max = 10000,
    .run = run,
};
