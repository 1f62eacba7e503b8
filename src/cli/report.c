/* report.c - cab report: runs compared in a table and one HTML file. */
#include "report/report.h"

#include "base/log.h"
#include "cli/command.h"

#include <stdbool.h>
#include <unistd.h>

enum { WATCH_SECONDS = 5, LINGER = 6 }; /* how often a page is written; how often more after the last run has ended */

#define REPORT_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                        \
    TEXT(out, 'o', "FILE", "report.html", "where the page is written")                                                 \
    TEXT(title, 0, "TEXT", "Distillation runs", "title of the page")                                                   \
    BOOL(table, 't', "print the table only, write no page")                                                            \
    BOOL(watch, 'w', "write the page again every 5 seconds until the runs have ended; a browser follows")

struct report_options {
    CAB_FIELDS(REPORT_OPTIONS)
};
CAB_FLAG_TABLE(report_table, struct report_options, REPORT_OPTIONS)

static bool all_finished(const cab_report_runs *runs)
{
    for (size_t i = 0; i < runs->count; i++)
        if (!runs->items[i].finished)
            return false;
    return true;
}

static cab_status write_page(const struct report_options *options, const cab_report_runs *runs, bool again)
{
    const cab_report_page page = {.title = options->title, .refresh = again ? WATCH_SECONDS : 0};
    return cab_report_html(runs, &page, options->out);
}

/* Until every run has ended, and half a minute more: the methods of a comparison run one after the other. Leaves the last state in
 * *runs, on a page that stands still. */
static cab_status watch(const struct report_options *options, const cab_list *operands, cab_report_runs *runs)
{
    cab_log_info("report: %s, written every %d s until the runs have ended", options->out, WATCH_SECONDS);
    for (int ended = 0;;) {
        CAB_TRY(cab_report_runs_read((const char *const *)operands->items, operands->count, runs));
        ended = all_finished(runs) ? ended + 1 : 0;
        if (ended > LINGER || runs->count == 0)
            return write_page(options, runs, false);
        CAB_TRY(write_page(options, runs, true));
        cab_report_runs_free(runs);
        sleep(WATCH_SECONDS);
    }
}

static cab_status run_report(const void *given, const cab_list *operands)
{
    const struct report_options *options = given;
    cab_report_runs runs = {0};
    cab_status status;
    if (options->watch && options->table)
        return cab_fail(CAB_EARG, "--table writes no page, --watch writes it again and again: choose one");
    if (options->watch) {
        CAB_GOTO(watch(options, operands, &runs));
        CAB_GOTO(cab_report_table(&runs, stdout));
        goto done;
    }
    CAB_GOTO(cab_report_runs_read((const char *const *)operands->items, operands->count, &runs));
    CAB_GOTO(cab_report_table(&runs, stdout));
    if (!options->table) {
        CAB_GOTO(write_page(options, &runs, false));
        cab_log_info("report: %s", options->out);
    }
done:
    cab_report_runs_free(&runs);
    return status;
}

static const cli_example examples[] = {
    {"cab report runs/*", "every run under runs/, in report.html"},
    {"cab report runs/demo -o demo.html --title \"Tales\"", "the methods that one comparison tried"},
    {"cab report --watch runs/mine -o live.html", "a page that follows a run; open it in a browser"},
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
        "shows how alike teacher and student mix tokens, and what they look at; a comparison that lies elsewhere may "
        "be "
        "named beside the runs.\n\nThe page needs no other file and no network. Its charts of the training show values "
        "under "
        "the pointer, zoom where the pointer is dragged, and have switches for a logarithmic axis and for smoothing; "
        "on paper, "
        "and in a browser without scripts, they are drawings.",
    .examples = examples,
    .options = report_table,
    .options_size = sizeof(struct report_options),
    .operands_min = 1,
    .operands_max = 10000,
    .run = run_report,
};
