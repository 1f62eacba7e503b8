/* completion.c - scripts that complete commands, options, words and files in bash, zsh and fish. */
#include "cli/command.h"

#include <stdio.h>
#include <string.h>

enum { NAME_BYTES = 64, WORD_BYTES = 64 };

static bool takes_directory(const cab_option *option)
{
    return option->hint && strcmp(option->hint, "DIR") == 0;
}

static bool takes_file(const cab_option *option)
{
    return option->hint && strcmp(option->hint, "FILE") == 0;
}

static void put_words(FILE *out, const char *words)
{
    char word[WORD_BYTES];
    for (unsigned i = 0; cab_words_get(words, i, word, sizeof word); i++)
        fprintf(out, "%s%s", i ? " " : "", word);
}

static void put_commands(FILE *out)
{
    for (const cli_command *const *c = cli_commands(); *c; c++) {
        if (!(*c)->hidden)
            fprintf(out, " %s", (*c)->name);
    }
}

/* ---- bash ------------------------------------------------------------------------------------------------------- */

static void bash_command(const cli_command *command, FILE *out)
{
    char name[NAME_BYTES];
    cab_option_table table = command->options();
    fprintf(out, "    %s)\n        case $previous in\n", command->name);
    for (unsigned i = 0; i < table.count; i++) {
        const cab_option *option = &table.rows[i];
        if (option->kind == CAB_OPTION_BOOL)
            continue;
        fprintf(out, "        --%s%s%c) ", cli_flag_name(option, name), option->letter ? "|-" : "",
                option->letter ? option->letter : ' ');
        if (option->kind == CAB_OPTION_ENUM) {
            fputs("COMPREPLY=($(compgen -W '", out);
            put_words(out, option->words);
            fputs("' -- \"$word\"));", out);
        } else if (takes_directory(option)) {
            fputs("COMPREPLY=($(compgen -d -- \"$word\"));", out);
        } else if (takes_file(option)) {
            fputs("COMPREPLY=($(compgen -f -- \"$word\"));", out);
        }
        fputs(" return ;;\n", out);
    }
    fputs("        esac\n        flags='--help", out);
    for (unsigned i = 0; i < table.count; i++)
        fprintf(out, " --%s", cli_flag_name(&table.rows[i], name));
    fputs("' ;;\n", out);
}

static void bash(FILE *out)
{
    fputs("# bash completion of cab; written by: cab completion bash\n"
          "_cab()\n{\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} flags=\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
          "        COMPREPLY=($(compgen -W '--help --version",
          out);
    put_commands(out);
    fputs("' -- \"$word\"))\n        return\n    fi\n    case ${COMP_WORDS[1]} in\n", out);
    for (const cli_command *const *c = cli_commands(); *c; c++) {
        if (!(*c)->hidden)
            bash_command(*c, out);
    }
    fputs("    esac\n"
          "    case $word in\n"
          "    -*) COMPREPLY=($(compgen -W \"$flags\" -- \"$word\")) ;;\n"
          "    *) COMPREPLY=($(compgen -f -- \"$word\")) ;;\n"
          "    esac\n}\n"
          "complete -o filenames -F _cab cab\n",
          out);
}

/* ---- zsh -------------------------------------------------------------------------------------------------------- */

/* Help text inside '...[text]...': the characters that end it are escaped. */
static void zsh_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", out);
        else if (strchr("[]:\\", *text))
            fprintf(out, "\\%c", *text);
        else
            fputc(*text, out);
    }
}

static void zsh_option(const cab_option *option, FILE *out)
{
    char name[NAME_BYTES];
    bool repeated = option->kind == CAB_OPTION_LIST;
    cli_flag_name(option, name);
    if (option->letter)
        fprintf(out, "            %s'{-%c,--%s%s}'[", repeated ? "'*" : "'", option->letter, name,
                option->kind == CAB_OPTION_BOOL ? "" : "=");
    else
        fprintf(out, "            '%s--%s%s[", repeated ? "*" : "", name, option->kind == CAB_OPTION_BOOL ? "" : "=");
    zsh_text(out, option->help);
    fputc(']', out);
    if (option->kind == CAB_OPTION_ENUM) {
        fputs(":word:(", out);
        put_words(out, option->words);
        fputc(')', out);
    } else if (option->hint) {
        fprintf(out, ":%s:%s", option->hint,
                takes_directory(option) ? "_files -/"
                : takes_file(option)    ? "_files"
                                        : "");
    }
    fputs("' \\\n", out);
}

static void zsh(FILE *out)
{
    fputs("#compdef cab\n# zsh completion of cab; written by: cab completion zsh\n"
          "_cab() {\n"
          "    local -a commands\n"
          "    commands=(\n",
          out);
    for (const cli_command *const *c = cli_commands(); *c; c++) {
        if ((*c)->hidden)
            continue;
        fprintf(out, "        '%s:", (*c)->name);
        zsh_text(out, (*c)->summary);
        fputs("'\n", out);
    }
    fputs("    )\n"
          "    if (( CURRENT == 2 )); then\n"
          "        _describe command commands\n"
          "        return\n"
          "    fi\n"
          "    local command=$words[2]\n"
          "    shift words\n"
          "    (( CURRENT-- ))\n"
          "    case $command in\n",
          out);
    for (const cli_command *const *c = cli_commands(); *c; c++) {
        cab_option_table table = (*c)->options();
        if ((*c)->hidden)
            continue;
        fprintf(out, "    %s)\n        _arguments \\\n", (*c)->name);
        for (unsigned i = 0; i < table.count; i++)
            zsh_option(&table.rows[i], out);
        fputs("            '--help[print the help text]' '*:file:_files' ;;\n", out);
    }
    fputs("    esac\n}\n_cab \"$@\"\n", out);
}

/* ---- fish ------------------------------------------------------------------------------------------------------- */

static void fish_text(FILE *out, const char *text)
{
    fputc('\'', out);
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\')
            fputc('\\', out);
        fputc(*text, out);
    }
    fputc('\'', out);
}

static void fish_option(const cli_command *command, const cab_option *option, FILE *out)
{
    char name[NAME_BYTES];
    fprintf(out, "complete -c cab -n '__fish_seen_subcommand_from %s' -l %s", command->name,
            cli_flag_name(option, name));
    if (option->letter)
        fprintf(out, " -s %c", option->letter);
    if (option->kind == CAB_OPTION_ENUM) {
        fputs(" -x -a '", out);
        put_words(out, option->words);
        fputc('\'', out);
    } else if (takes_directory(option)) {
        fputs(" -x -a '(__fish_complete_directories)'", out);
    } else if (option->kind != CAB_OPTION_BOOL) {
        fputs(takes_file(option) ? " -r" : " -x", out);
    }
    fputs(" -d ", out);
    fish_text(out, option->help);
    fputc('\n', out);
}

static void fish(FILE *out)
{
    fputs("# fish completion of cab; written by: cab completion fish\n", out);
    for (const cli_command *const *c = cli_commands(); *c; c++) {
        cab_option_table table = (*c)->options();
        if ((*c)->hidden)
            continue;
        fprintf(out, "complete -c cab -n __fish_use_subcommand -f -a %s -d ", (*c)->name);
        fish_text(out, (*c)->summary);
        fputc('\n', out);
        for (unsigned i = 0; i < table.count; i++)
            fish_option(*c, &table.rows[i], out);
    }
}

/* ----------------------------------------------------------------------------------------------------------------- */

static cab_option_table completion_table(void)
{
    return (cab_option_table){0};
}

static cab_status run(const void *options, const cab_list *operands)
{
    static const struct {
        const char *shell;
        void (*write)(FILE *out);
    } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    (void)options;
    for (size_t i = 0; i < sizeof shells / sizeof *shells; i++) {
        if (strcmp(operands->items[0], shells[i].shell) == 0) {
            shells[i].write(stdout);
            return CAB_OK;
        }
    }
    return cab_fail(CAB_EARG, "no completion for \"%.40s\"; expected bash, zsh or fish", operands->items[0]);
}

static const cli_example examples[] = {
    {"cab completion bash > ~/.local/share/bash-completion/completions/cab", "complete in bash"},
    {"cab completion fish > ~/.config/fish/completions/cab.fish", "complete in fish"},
    {0}};

const cli_command cli_completion = {
    .name = "completion",
    .summary = "write a shell completion script",
    .synopsis = "bash|zsh|fish",
    .description = "Writes a script for the shell to standard output that completes commands, options and words.",
    .examples = examples,
    .options = completion_table,
    .operands_min = 1,
    .operands_max = 1,
    .hidden = true,
    .run = run,
};
