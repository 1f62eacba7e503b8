/* arguments.c - command lines, by the option table of the subcommand. */
#include "base/memory.h"
#include "cli/command.h"

#include <stdio.h>
#include <string.h>

enum { NAME_MAX_BYTES = 64, FORM_MAX_BYTES = 96 };

struct reader {
    const cli_command *command;
    cab_option_table table;
    void *options;
    cab_list *operands;
    int argc, at;
    char **argv;
    bool *help;
    const cab_option *list;    /* the list that the word before was for; NULL: none */
    const cab_option **owners; /* by operand: the list that it may be for as well */
};

const char *cli_flag_name(const cab_option *option, char *out)
{
    snprintf(out, NAME_MAX_BYTES, "%s", option->key);
    for (char *c = out; *c; c++)
        *c = *c == '_' ? '-' : *c;
    return out;
}

const char *cli_flag_form(const cab_option *option, char *out)
{
    char name[NAME_MAX_BYTES];
    cli_flag_name(option, name);
    snprintf(out, FORM_MAX_BYTES, "--%s%s%s", name, option->hint ? "=" : "", option->hint ? option->hint : "");
    return out;
}

/* "--train a.txt b.txt": a word behind a list's item is an operand as long as there is room for one, and goes to the list when
 * another comes. Moves the first such operand; false: there is none. */
static cab_status make_room(struct reader *reader, bool *made)
{
    cab_list *operands = reader->operands;
    *made = false;
    for (unsigned i = 0; i < operands->count && !*made; i++) {
        char *word = operands->items[i];
        if (!reader->owners[i])
            continue;
        CAB_TRY(cab_option_append(reader->owners[i], reader->options, reader->owners[i]->key, word));
        operands->count--;
        memmove(operands->items + i, operands->items + i + 1, (operands->count - i) * sizeof *operands->items);
        memmove(reader->owners + i, reader->owners + i + 1, (operands->count - i) * sizeof *reader->owners);
        cab_free(word);
        *made = true;
    }
    return CAB_OK;
}

static cab_status add_operand(struct reader *reader, const char *text)
{
    bool room = reader->operands->count < reader->command->operands_max;
    static const cab_option operand = {.kind = CAB_OPTION_LIST, .key = "operand"};
    char shown[NAME_MAX_BYTES];
    if (room && reader->list && reader->command->is_operand && !reader->command->is_operand(reader->list, text))
        room = false;
    else if (!room)
        CAB_TRY(make_room(reader, &room));
    if (!room && reader->list)
        return cab_option_append(reader->list, reader->options, reader->list->key, text);
    if (!room)
        return cab_fail(CAB_EARG, "too many arguments: \"%s\"; expected: cab %s [OPTION]... %s",
                        cab_printable(text, shown, sizeof shown), reader->command->name, reader->command->synopsis);
    reader->owners[reader->operands->count] = reader->list;
    return cab_option_append(&operand, reader->operands, "operand", text);
}

void cli_operands_free(cab_list *operands)
{
    for (unsigned i = 0; i < operands->count; i++)
        cab_free(operands->items[i]);
    cab_free(operands->items);
    *operands = (cab_list){0};
}

static cab_status store(struct reader *reader, const cab_option *option, const char *value)
{
    char name[NAME_MAX_BYTES], shown[NAME_MAX_BYTES + 2];
    snprintf(shown, sizeof shown, "--%s", cli_flag_name(option, name));
    if (!value[0] && option->kind == CAB_OPTION_TEXT && !option->text[0])
        return cab_fail(CAB_EARG, "%s: the value is empty", shown);
    return option->kind == CAB_OPTION_LIST ? cab_option_append(option, reader->options, shown, value)
                                           : cab_option_set(option, reader->options, shown, value);
}

/* The value that follows an option: what is attached to it, or the next argument. */
static cab_status take_value(struct reader *reader, const cab_option *option, const char *attached)
{
    char form[FORM_MAX_BYTES];
    if (option->kind == CAB_OPTION_BOOL)
        return attached ? cab_fail(CAB_EARG, "%s takes no value", cli_flag_form(option, form))
                        : store(reader, option, "true");
    if (!attached) {
        if (reader->at >= reader->argc)
            return cab_fail(CAB_EARG, "%s: the value is missing", cli_flag_form(option, form));
        attached = reader->argv[reader->at++];
        reader->list = option->kind == CAB_OPTION_LIST ? option : NULL;
    }
    return store(reader, option, attached);
}

static cab_status unknown_flag(struct reader *reader, const char *flag)
{
    char name[NAME_MAX_BYTES], shown[NAME_MAX_BYTES];
    cab_nearest nearest = cab_nearest_begin(flag);
    for (unsigned i = 0; i < reader->table.count; i++)
        cab_nearest_offer(&nearest, cli_flag_name(&reader->table.rows[i], name), NULL);
    cab_printable(flag, shown, sizeof shown);
    if (nearest.best[0])
        return cab_fail(CAB_EARG, "unknown option --%s; did you mean --%s?", shown, nearest.best);
    return cab_fail(CAB_EARG, "unknown option --%s; cab %s --help lists them", shown, reader->command->name);
}

static cab_status long_flag(struct reader *reader, const char *argument)
{
    char name[NAME_MAX_BYTES];
    size_t length = strcspn(argument, "=");
    const char *attached = argument[length] ? argument + length + 1 : NULL;
    snprintf(name, sizeof name, "%.*s", (int)length, argument);
    if (strcmp(name, "help") == 0) {
        *reader->help = true;
        return CAB_OK;
    }
    const cab_option *option = strchr(name, '_') ? NULL : cab_option_find(reader->table, name);
    return option ? take_value(reader, option, attached) : unknown_flag(reader, name);
}

static cab_status short_flags(struct reader *reader, const char *letters)
{
    for (; *letters && !*reader->help; letters++) {
        const cab_option *option = NULL;
        for (unsigned i = 0; i < reader->table.count; i++)
            option = reader->table.rows[i].letter == *letters ? &reader->table.rows[i] : option;
        if (!option && *letters != 'h')
            return cab_fail(CAB_EARG, "unknown option -%c; cab %s --help lists them",
                            *letters > ' ' && *letters < 0x7f ? *letters : '?', reader->command->name);
        if (!option)
            *reader->help = true;
        else if (option->kind == CAB_OPTION_BOOL)
            CAB_TRY(take_value(reader, option, NULL));
        else
            return take_value(reader, option, letters[1] ? letters + 1 : NULL);
    }
    return CAB_OK;
}

static cab_status read_all(struct reader *reader)
{
    bool ended = false;
    while (reader->at < reader->argc && !*reader->help) {
        const char *argument = reader->argv[reader->at++];
        const bool flag = !ended && argument[0] == '-' && argument[1];
        if (flag)
            reader->list = NULL;
        if (!flag)
            CAB_TRY(add_operand(reader, argument));
        else if (strcmp(argument, "--") == 0)
            ended = true;
        else if (argument[1] == '-')
            CAB_TRY(long_flag(reader, argument + 2));
        else
            CAB_TRY(short_flags(reader, argument + 1));
    }
    return CAB_OK;
}

cab_status cli_arguments(const cli_command *command, int argc, char **argv, void *options, cab_list *operands,
                         bool *help)
{
    struct reader reader = {.command = command,
                            .table = command->options(),
                            .options = options,
                            .operands = operands,
                            .argc = argc,
                            .argv = argv,
                            .help = help};
    CAB_TRY(CAB_NEW(&reader.owners, (size_t)argc + 1, "arguments"));
    cab_status status = read_all(&reader);
    cab_free(reader.owners);
    CAB_TRY(status);
    if (!*help && operands->count < command->operands_min)
        return cab_fail(CAB_EARG, "an argument is missing; expected: cab %s [OPTION]... %s", command->name,
                        command->synopsis);
    return CAB_OK;
}
