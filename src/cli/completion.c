/* completion.c - scripts that complete commands, options, words, keys of recipes, recipes and files in bash, zsh and fish.
 *
 * What an option or an operand takes is told by its hint and by the command's synopsis; the names of recipes are asked of
 * `cab recipe list` when they are wanted. */
#include "cli/command.h"

#include <stdio.h>
#include <string.h>

enum { NAME_BYTES = 64, WORD_BYTES = 64 };

/* What is completed. */
typedef enum kind { KIND_NOTHING, KIND_WORDS, KIND_DIRECTORY, KIND_FILE, KIND_SETTING, KIND_METHODS, KIND_DEVICE } kind;

static kind kind_of(const cab_option *option)
{
    static const struct {
        const char *hint;
        kind kind;
    } hints[] = {{"DIR", KIND_DIRECTORY}, {"FILE", KIND_FILE}, {"KEY=VALUE", KIND_SETTING}, {"A,B,...", KIND_METHODS}};
    if (option->kind == CAB_OPTION_ENUM)
        return KIND_WORDS;
    if (strcmp(option->key, "device") == 0)
        return KIND_DEVICE;
    for (size_t i = 0; option->hint != NULL && i < sizeof hints / sizeof *hints; i++)
        if (strcmp(option->hint, hints[i].hint) == 0)
            return hints[i].kind;
    return KIND_NOTHING;
}

/* Operands: models and runs are directories, recipes have names as well. */
static bool takes_recipes(const cli_command *command)
{
    return strstr(command->synopsis, "RECIPE") != NULL;
}

static bool takes_models(const cli_command *command)
{
    return strncmp(command->synopsis, "MODEL", 5) == 0 || strncmp(command->synopsis, "TEACHER", 7) == 0;
}

static const char devices[] = "cpu|cuda";

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

/* Calls put(out, key, words) for every key of a recipe; words of an ENUM, "true|false" of a BOOL, else NULL. Stages are those of
 * index 0 and 1. */
static void each_key(FILE *out, void (*put)(FILE *out, const char *key, const char *words))
{
    char key[2 * NAME_BYTES];
    for (unsigned g = 0; g < CAB_RECIPE_GROUPS; g++) {
        const cab_recipe_group group = cab_recipe_group_get(g);
        const bool stages = g == CAB_RECIPE_STAGES_GROUP;
        for (unsigned i = 0; i < group.table.count * (stages ? 2 : 1); i++) {
            const cab_option *option = &group.table.rows[i % group.table.count];
            if (stages)
                snprintf(key, sizeof key, "stages[%u].%s", i / group.table.count, option->key);
            else
                snprintf(key, sizeof key, "%s%s%s", group.name, group.name[0] ? "." : "", option->key);
            put(out, key,
                option->kind == CAB_OPTION_ENUM   ? option->words
                : option->kind == CAB_OPTION_BOOL ? "true|false"
                                                  : NULL);
        }
    }
}

/* ---- bash ------------------------------------------------------------------------------------------------------- */

static void bash_key(FILE *out, const char *key, const char *words)
{
    (void)words;
    fprintf(out, " %s=", key);
}

static void bash_key_words(FILE *out, const char *key, const char *words)
{
    if (words == NULL)
        return;
    fprintf(out, "    '%s') COMPREPLY=($(compgen -W '", key);
    put_words(out, words);
    fputs("' -- \"$word\")) ;;\n", out);
}

/* What stands behind an option, as a command of the script. */
static void bash_value(const cab_option *option, FILE *out)
{
    switch (kind_of(option)) {
    case KIND_WORDS:
    case KIND_DEVICE:
        fputs("COMPREPLY=($(compgen -W '", out);
        put_words(out, option->kind == CAB_OPTION_ENUM ? option->words : devices);
        fputs("' -- \"$word\"));", out);
        break;
    case KIND_DIRECTORY:
        fputs("COMPREPLY=($(compgen -d -- \"$word\"));", out);
        break;
    case KIND_FILE:
        fputs("COMPREPLY=($(compgen -f -- \"$word\"));", out);
        break;
    case KIND_SETTING:
        fputs("_cab_set;", out);
        break;
    case KIND_METHODS:
        fputs("_cab_methods;", out);
        break;
    case KIND_NOTHING:
        break;
    }
}

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
        bash_value(option, out);
        fputs(" return ;;\n", out);
    }
    fputs("        esac\n        flags='--help", out);
    for (unsigned i = 0; i < table.count; i++)
        fprintf(out, " --%s", cli_flag_name(&table.rows[i], name));
    fprintf(out, "' operands=%s ;;\n",
            takes_recipes(command)  ? "recipes"
            : takes_models(command) ? "directories"
                                    : "files");
}

/* Functions that the rest of the script calls. bash cuts words at "=", so a setting is $key, "=", $word. */
static void bash_helpers(FILE *out)
{
    fputs("_cab_set()\n{\n"
          "    if [ -z \"$key\" ]; then\n"
          "        compopt -o nospace 2>/dev/null\n"
          "        COMPREPLY=($(compgen -W '",
          out);
    each_key(out, bash_key);
    fputs("' -- \"$word\"))\n        return\n    fi\n    case $key in\n", out);
    each_key(out, bash_key_words);
    fputs("    *) COMPREPLY=($(compgen -f -- \"$word\")) ;;\n    esac\n}\n"
          "_cab_methods()\n{\n"
          "    local before=\n"
          "    case $word in *,*) before=${word%,*}, ;; esac\n"
          "    COMPREPLY=($(compgen -P \"$before\" -W '",
          out);
    put_words(out, CAB_METHOD_WORDS);
    fputs("' -- \"${word##*,}\"))\n}\n", out);
}

static void bash(FILE *out)
{
    fputs("# bash completion of cab; written by: cab completion bash\n", out);
    bash_helpers(out);
    fputs("_cab()\n{\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} at=$COMP_CWORD key= flags= "
          "operands=\n"
          "    COMPREPLY=()\n"
          "    if [ \"$word\" = = ]; then\n"
          "        word= key=$previous at=$((at - 1))\n"
          "    elif [ \"$previous\" = = ]; then\n"
          "        key=${COMP_WORDS[COMP_CWORD-2]} at=$((at - 2))\n"
          "    fi\n"
          "    previous=${COMP_WORDS[at-1]}\n"
          "    case $key in --*) previous=$key key= ;; esac\n"
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
          "    *)  case $operands in\n"
          "        recipes) COMPREPLY=($(compgen -W \"$(\"${COMP_WORDS[0]}\" recipe list -q 2>/dev/null)\" -- "
          "\"$word\")\n"
          "                            $(compgen -f -- \"$word\")) ;;\n"
          "        directories) COMPREPLY=($(compgen -d -- \"$word\")) ;;\n"
          "        *) COMPREPLY=($(compgen -f -- \"$word\")) ;;\n"
          "        esac ;;\n"
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

static void zsh_key(FILE *out, const char *key, const char *words)
{
    (void)words;
    fprintf(out, " '%s'", key);
}

static void zsh_key_words(FILE *out, const char *key, const char *words)
{
    if (words == NULL)
        return;
    fprintf(out, "        '%s=') compadd ", key);
    put_words(out, words);
    fputs(" ;;\n", out);
}

/* Functions that specifications of options name. */
static void zsh_helpers(FILE *out)
{
    fputs("_cab_set() {\n    if compset -P '*='; then\n        case $IPREFIX in\n        *--*=) IPREFIX=${IPREFIX#*=} "
          ";;\n"
          "        esac\n        case $IPREFIX in\n",
          out);
    each_key(out, zsh_key_words);
    fputs("        *) _files ;;\n        esac\n    else\n        compadd -S = --", out);
    each_key(out, zsh_key);
    fputs("\n    fi\n}\n"
          "_cab_methods() {\n    _values -s , method ",
          out);
    put_words(out, CAB_METHOD_WORDS);
    fputs("\n}\n"
          "_cab_recipes() {\n"
          "    local -a names\n"
          "    names=(${(f)\"$(cab recipe list -q 2>/dev/null)\"})\n"
          "    compadd -a names\n"
          "    _files\n}\n",
          out);
}

static void zsh_value(const cab_option *option, FILE *out)
{
    static const char *const completers[] = {[KIND_NOTHING] = "",
                                             [KIND_DIRECTORY] = "_files -/",
                                             [KIND_FILE] = "_files",
                                             [KIND_SETTING] = "_cab_set",
                                             [KIND_METHODS] = "_cab_methods"};
    const kind taken = kind_of(option);
    if (taken == KIND_WORDS || taken == KIND_DEVICE) {
        fputs(":word:(", out);
        put_words(out, taken == KIND_WORDS ? option->words : devices);
        fputc(')', out);
    } else if (option->hint) {
        fprintf(out, ":%s:%s", option->hint, completers[taken]);
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
    zsh_value(option, out);
    fputs("' \\\n", out);
}

static void zsh(FILE *out)
{
    fputs("#compdef cab\n# zsh completion of cab; written by: cab completion zsh\n", out);
    zsh_helpers(out);
    fputs("_cab() {\n"
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
        fprintf(out, "            '--help[print the help text]' '*:file:%s' ;;\n",
                takes_recipes(*c)  ? "_cab_recipes"
                : takes_models(*c) ? "_files -/"
                                   : "_files");
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

static void fish_key(FILE *out, const char *key, const char *words)
{
    char word[WORD_BYTES];
    fprintf(out, "    echo '%s='\n", key);
    for (unsigned i = 0; words != NULL && cab_words_get(words, i, word, sizeof word); i++)
        fprintf(out, "    echo '%s=%s'\n", key, word);
}

static void fish_value(const cab_option *option, FILE *out)
{
    const kind taken = kind_of(option);
    if (taken == KIND_WORDS || taken == KIND_DEVICE || taken == KIND_METHODS) {
        fputs(taken == KIND_METHODS ? " -x -a '(__fish_append , " : " -x -a '", out);
        put_words(out, taken == KIND_WORDS ? option->words : taken == KIND_DEVICE ? devices : CAB_METHOD_WORDS);
        fputs(taken == KIND_METHODS ? ")'" : "'", out);
    } else if (taken == KIND_DIRECTORY) {
        fputs(" -x -a '(__fish_complete_directories)'", out);
    } else if (taken == KIND_SETTING) {
        fputs(" -x -a '(__cab_keys)'", out);
    } else if (option->kind != CAB_OPTION_BOOL) {
        fputs(taken == KIND_FILE ? " -r" : " -x", out);
    }
}

static void fish_option(const cli_command *command, const cab_option *option, FILE *out)
{
    char name[NAME_BYTES];
    fprintf(out, "complete -c cab -n '__fish_seen_subcommand_from %s' -l %s", command->name,
            cli_flag_name(option, name));
    if (option->letter)
        fprintf(out, " -s %c", option->letter);
    fish_value(option, out);
    fputs(" -d ", out);
    fish_text(out, option->help);
    fputc('\n', out);
}

static void fish(FILE *out)
{
    fputs("# fish completion of cab; written by: cab completion fish\n"
          "function __cab_keys\n",
          out);
    each_key(out, fish_key);
    fputs("end\n", out);
    for (const cli_command *const *c = cli_commands(); *c; c++) {
        cab_option_table table = (*c)->options();
        if ((*c)->hidden)
            continue;
        fprintf(out, "complete -c cab -n __fish_use_subcommand -f -a %s -d ", (*c)->name);
        fish_text(out, (*c)->summary);
        fputc('\n', out);
        for (unsigned i = 0; i < table.count; i++)
            fish_option(*c, &table.rows[i], out);
        if (takes_recipes(*c))
            fprintf(out, "complete -c cab -n '__fish_seen_subcommand_from %s' -a '(cab recipe list -q 2>/dev/null)'\n",
                    (*c)->name);
        if (takes_models(*c))
            fprintf(out, "complete -c cab -n '__fish_seen_subcommand_from %s' -a '(__fish_complete_directories)'\n",
                    (*c)->name);
    }
}

/* ----------------------------------------------------------------------------------------------------------------- */

static cab_option_table completion_table(void)
{
    return (cab_option_table){0};
}

static cab_status run_completion(const void *options, const cab_list *operands)
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
    .description = "Writes a script for the shell to standard output that completes commands, options, their words, "
                   "keys of recipes "
                   "behind --set, recipes and files.",
    .examples = examples,
    .options = completion_table,
    .operands_min = 1,
    .operands_max = 1,
    .hidden = true,
    .run = run_completion,
};
