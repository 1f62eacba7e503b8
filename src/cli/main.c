/* main.c - the cab tool: picks the subcommand, prints the one line of a failure, turns the status into the exit code.
 *
 * stdout carries results, stderr progress and messages. Exit codes are those of CAB_STATUS_TABLE. */
#include "base/fault.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/thread.h"
#include "cli/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const cli_command *const *cli_commands(void)
{
    static const cli_command *const commands[] = {
        &cli_distill, &cli_eval,    &cli_generate, &cli_sample,  &cli_teach,      &cli_classify,
        &cli_subset,  &cli_inspect, &cli_export,   &cli_compare, &cli_report,     &cli_bench,
        &cli_recipe,  &cli_version, &cli_help,     &cli_man,     &cli_completion, NULL};
    return commands;
}

cab_status cli_command_find(const char *name, const cli_command **command)
{
    char shown[64];
    cab_nearest nearest = cab_nearest_begin(name);
    for (const cli_command *const *c = cli_commands(); *c; c++) {
        if (strcmp((*c)->name, name) == 0) {
            *command = *c;
            return CAB_OK;
        }
        cab_nearest_offer(&nearest, (*c)->name, NULL);
    }
    cab_printable(name, shown, sizeof shown);
    if (nearest.best[0])
        return cab_fail(CAB_EARG, "no command \"%s\"; did you mean \"%s\"?", shown, nearest.best);
    return cab_fail(CAB_EARG, "no command \"%s\"; cab --help lists them", shown);
}

cab_status cli_flush_results(void)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return cab_fail_errno(CAB_EIO, errno, "stdout: cannot be written");
    return CAB_OK;
}

static cab_status run_command(const cli_command *command, int argc, char **argv)
{
    cab_list operands = {0};
    cab_option_table table = command->options();
    void *options = NULL;
    bool help = false;
    cab_status status;
    CAB_GOTO(cab_alloc(&options, 1, command->options_size ? command->options_size : 1, "options"));
    CAB_GOTO(cab_options_init(table, options));
    CAB_GOTO(cli_arguments(command, argc, argv, options, &operands, &help));
    if (help)
        cli_print_help(command, stdout);
    else
        CAB_GOTO(command->run(options, &operands));
    status = cli_flush_results();
done:
    if (options)
        cab_options_clear(table, options);
    cab_free(options);
    cli_operands_free(&operands);
    return status;
}

/* "--help" and "--version" before any subcommand are the subcommands of those names. */
static const char *command_word(const char *word)
{
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return "help";
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0)
        return "version";
    return word;
}

/* A file that is opened later must not get the number that results or messages are written to. Writing to these still fails. */
static void open_standard_streams(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    const cli_command *command = NULL;
    open_standard_streams();
    cab_thread_start(argv);
    signal(SIGXFSZ, SIG_IGN); /* a write beyond `ulimit -f` fails with EFBIG, and the failure has its line */
    cab_fault_report();
    if (argc < 2) {
        cli_print_help(NULL, stderr);
        return CAB_EARG;
    }
    cab_status status = cli_command_find(command_word(argv[1]), &command);
    if (status == CAB_OK)
        status = run_command(command, argc - 2, argv + 2);
    if (status != CAB_OK && cab_error_text()[0])
        fprintf(stderr, "cab%s%s: %s\n", command ? " " : "", command ? command->name : "", cab_error_text());
    return status;
}
