/* results.h - where the results of a command go: to standard output, or into the file of --out, which is complete or not there. */
#ifndef CAB_CLI_RESULTS_H
#define CAB_CLI_RESULTS_H

#include "base/file.h"

#include <stdbool.h>
#include <stdio.h>

#define CLI_OUT_HELP "write the result into this file, whole or not at all, instead of standard output"

typedef struct cli_results {
    FILE *stream;
    bool terminal; /* somebody looks at them: control characters of texts from outside are shown escaped */
    bool to_file;
    cab_writer writer;
} cli_results;

/* out "": standard output. A file that cannot be written fails here, before the work. */
cab_status cli_results_open(cli_results *results, const char *out);

/* Puts the file in its place when `status` is CAB_OK, else leaves what was there. Returns `status`, or the failure of writing. */
cab_status cli_results_close(cli_results *results, cab_status status);

/* What has been printed so far is seen; CAB_EIO when it could not be written. */
cab_status cli_results_flush(const cli_results *results);

/* A text of several lines. On a terminal control characters but \n and \t become \x1b, \u009b. The text is whole
 * characters. false: it could not be written. */
bool cli_results_put(const cli_results *results, const char *text, size_t size);

/* A name for a line: on a terminal as cab_printable() shows it in out[size], else the name itself. */
const char *cli_results_name(const cli_results *results, const char *name, char *out, size_t size);

#endif
