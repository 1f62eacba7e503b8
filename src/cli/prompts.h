/* prompts.h - the texts that cab generate continues: from flags, files and standard input. */
#ifndef CAB_CLI_PROMPTS_H
#define CAB_CLI_PROMPTS_H

#include "base/error.h"
#include "base/options.h"

/* Prompts in the order in which they were found; never none: without any there is an empty one. */
typedef struct cli_prompts {
    cab_list texts;
} cli_prompts;

/* `given`, then the contents of `files` ("-": standard input) without their last line end. Where neither names a prompt and
 * standard input is a pipe or a file, it is one. Bytes that are no text are CAB_EFORMAT. */
cab_status cli_prompts_gather(const cab_list *given, const cab_list *files, cli_prompts *prompts);
void cli_prompts_free(cli_prompts *prompts);

#endif
