/* task_file.c - a task's YAML: keys with texts, or with lists of texts, and nothing below these.
 *
 * Read by libyaml's events. Files from outside: size, brackets and aliases are bounded as in recipes. */
#include "base/file.h"
#include "base/memory.h"
#include "data/task.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum { FILE_MAX = 64 * 1024, BRACKETS_MAX = 256, ITEMS_MAX = 256, TEXT_MAX = 512 };

CAB_OPTION_TABLE(table, cab_task, CAB_TASK_KEYS)

cab_option_table cab_task_table(void)
{
    return table();
}

typedef struct reader {
    const char *name;
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
    cab_task *task;
} reader;

static size_t line_of(const reader *r)
{
    return r->event.start_mark.line + 1;
}

/* The next event; what is no YAML is an error. */
static cab_status next(reader *r)
{
    if (r->has_event)
        yaml_event_delete(&r->event);
    r->has_event = yaml_parser_parse(&r->parser, &r->event) != 0;
    if (r->has_event && r->event.type == YAML_ALIAS_EVENT)
        return cab_fail(CAB_EFORMAT, "%s:%zu: an alias (*name); write the value out", r->name, line_of(r));
    if (r->has_event)
        return CAB_OK;
    return cab_fail(CAB_EFORMAT, "%s:%zu: %s", r->name, r->parser.problem_mark.line + 1,
                    r->parser.problem != NULL ? r->parser.problem : "not YAML");
}

static cab_status expected(const reader *r, const char *what)
{
    return cab_fail(CAB_EFORMAT, "%s:%zu: expected %s", r->name, line_of(r), what);
}

/* Puts file and line before the text of a value's failure. */
static cab_status at_line(const reader *r, cab_status status)
{
    char sentence[TEXT_MAX];
    if (status == CAB_OK)
        return CAB_OK;
    snprintf(sentence, sizeof sentence, "%s", cab_error_text());
    return cab_fail(status == CAB_EARG ? CAB_EFORMAT : status, "%s:%zu: %s", r->name, line_of(r), sentence);
}

static cab_status unknown_key(const reader *r, const char *key)
{
    cab_nearest nearest = cab_nearest_begin(key);
    char shown[TEXT_MAX];
    for (unsigned i = 0; i < table().count; i++)
        cab_nearest_offer(&nearest, table().rows[i].key, NULL);
    cab_printable(key, shown, sizeof shown);
    if (nearest.best[0] != '\0')
        return cab_fail(CAB_EFORMAT, "%s:%zu: unknown key \"%s\"; did you mean \"%s\"?", r->name, line_of(r), shown,
                        nearest.best);
    return cab_fail(CAB_EFORMAT, "%s:%zu: unknown key \"%s\" of a task", r->name, line_of(r), shown);
}

/* A scalar's text; one that holds a zero byte ends there, which no text may. */
static cab_status scalar(const reader *r, const char **text)
{
    if (r->event.type != YAML_SCALAR_EVENT)
        return expected(r, "a text");
    *text = (const char *)r->event.data.scalar.value;
    if (strlen(*text) != r->event.data.scalar.length)
        return expected(r, "a text without zero bytes");
    return CAB_OK;
}

static cab_status read_list(reader *r, const cab_option *option)
{
    const char *text = "";
    cab_option_empty(option, r->task);
    for (unsigned i = 0;; i++) {
        CAB_TRY(next(r));
        if (r->event.type == YAML_SEQUENCE_END_EVENT)
            return CAB_OK;
        if (i == ITEMS_MAX)
            return expected(r, "a shorter list");
        CAB_TRY(scalar(r, &text));
        CAB_TRY(at_line(r, cab_option_append(option, r->task, option->key, text)));
    }
}

static cab_status read_value(reader *r, const cab_option *option)
{
    const char *text = "";
    CAB_TRY(next(r));
    if (cab_option_given(option, r->task))
        return cab_fail(CAB_EFORMAT, "%s:%zu: %s is given twice", r->name, line_of(r), option->key);
    if (option->kind == CAB_OPTION_LIST && r->event.type == YAML_SEQUENCE_START_EVENT)
        return read_list(r, option);
    CAB_TRY(scalar(r, &text));
    if (option->kind == CAB_OPTION_LIST)
        return at_line(r, cab_option_append(option, r->task, option->key, text));
    return at_line(r, cab_option_set(option, r->task, option->key, text));
}

static cab_status read_keys(reader *r)
{
    const char *key = "";
    CAB_TRY(next(r));
    if (r->event.type == YAML_STREAM_START_EVENT)
        CAB_TRY(next(r));
    if (r->event.type == YAML_STREAM_END_EVENT)
        return cab_fail(CAB_EFORMAT, "%s: is empty, expected a task", r->name);
    CAB_TRY(next(r)); /* behind the start of the document */
    if (r->event.type != YAML_MAPPING_START_EVENT)
        return expected(r, "keys and values");
    for (;;) {
        CAB_TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT)
            break;
        CAB_TRY(scalar(r, &key));
        const cab_option *option = cab_option_find(table(), key);
        if (option == NULL)
            return unknown_key(r, key);
        CAB_TRY(read_value(r, option));
    }
    CAB_TRY(next(r));
    CAB_TRY(next(r));
    return r->event.type == YAML_STREAM_END_EVENT ? CAB_OK : expected(r, "one task, not a second document");
}

static cab_status check_templates(const char *name, const char *key, const char *template)
{
    char sentence[TEXT_MAX];
    if (cab_template_check(template) == CAB_OK)
        return CAB_OK;
    snprintf(sentence, sizeof sentence, "%s", cab_error_text());
    return cab_fail(CAB_EFORMAT, "%s: %s: %s", name, key, sentence);
}

/* What can be known without data. */
static cab_status check(const char *name, const cab_task *task)
{
    const bool word = task->measure == CAB_TASK_LAST_WORD;
    if (task->data.count == 0)
        return cab_fail(CAB_EFORMAT, "%s: data is missing: the names of its file of JSON lines", name);
    for (unsigned i = 0; i < task->data.count; i++)
        if (task->data.items[i][0] == '\0' || strchr(task->data.items[i], '/') != NULL)
            return cab_fail(CAB_EFORMAT, "%s: data: found \"%.80s\", expected a file's name without its folder", name,
                            task->data.items[i]);
    if (strchr(task->labels, '/') != NULL)
        return cab_fail(CAB_EFORMAT, "%s: labels: found \"%.80s\", expected a file's name without its folder", name,
                        task->labels);
    if (task->context[0] == '\0')
        return cab_fail(CAB_EFORMAT, "%s: context is missing: a template of what the model reads", name);
    if (word != (task->choices.count == 0))
        return cab_fail(CAB_EFORMAT, "%s: %s", name,
                        word ? "choices do not go with measure: last-word, whose choice is the last word of context"
                             : "choices are missing: templates, or one template of a list");
    CAB_TRY(check_templates(name, "context", task->context));
    for (unsigned i = 0; i < task->choices.count; i++)
        CAB_TRY(check_templates(name, "choices", task->choices.items[i]));
    return CAB_OK;
}

/* "piqa" of "recipes/tasks/piqa.yaml". */
static cab_status name_task(cab_task *task, const char *path)
{
    CAB_TRY(cab_strdup(&task->name, cab_path_name(path)));
    char *dot = strrchr(task->name, '.');
    if (dot != NULL && dot != task->name)
        *dot = '\0';
    return CAB_OK;
}

cab_status cab_task_parse(const char *name, const char *text, size_t size, cab_task **out)
{
    reader r = {.name = name};
    size_t brackets = 0;
    cab_status status;
    for (size_t i = 0; i < size; i++)
        brackets += text[i] == '[' || text[i] == '{';
    if (size > FILE_MAX || brackets > BRACKETS_MAX)
        return cab_fail(CAB_EFORMAT, "%s: %zu bytes with %zu brackets, expected a task of at most %d and %d", name,
                        size, brackets, FILE_MAX, BRACKETS_MAX);
    CAB_TRY(CAB_NEW(&r.task, 1, "a task"));
    if (!yaml_parser_initialize(&r.parser)) {
        cab_free(r.task);
        return cab_fail(CAB_ENOMEM, "out of memory: a parser of YAML");
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, size);
    CAB_GOTO(cab_options_init(table(), r.task));
    CAB_GOTO(name_task(r.task, name));
    CAB_GOTO(read_keys(&r));
    CAB_GOTO(check(name, r.task));
    *out = r.task;
    r.task = NULL;
done:
    if (r.has_event)
        yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    cab_task_free(r.task);
    return status;
}

cab_status cab_task_load(const char *path, cab_task **task)
{
    char *text;
    size_t size;
    CAB_TRY(cab_file_read_text(path, FILE_MAX, &text, &size));
    const cab_status status = cab_task_parse(path, text, size, task);
    cab_free(text);
    return status;
}
