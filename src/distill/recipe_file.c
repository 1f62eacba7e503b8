/* recipe_file.c - recipes as YAML, through libcyaml.
 *
 * The schema is built from the option tables and reads every scalar as a string, so that a file and --set go through
 * the same checks, and a key that is absent stays apart from one that is given:
 *
 *     struct raw { values[] of the top rows, groups[] -> { values[] of the group's rows }, stages -> { values[] } x n }
 *
 * libcyaml names the key of an error but only a position before it; the line is found by walking libyaml's events.
 * Files from outside: aliases are refused (no alias bombs), size, nesting and counts are bounded. */
#include "base/file.h"
#include "base/memory.h"
#include "distill/recipe.h"

#include <cyaml/cyaml.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* BRACKETS_MAX: libyaml's scanner takes time quadratic in open flow collections. */
enum {
    FILE_MAX = 256 * 1024,
    BRACKETS_MAX = 1024,
    ROWS_MAX = 32,
    ITEMS_MAX = 4096,
    PATH_MAX_TEXT = 256,
    TEXT_MAX = 512,
    DEPTH_MAX = 8,
    MISTAKES_MAX = 100
};

#define ONE_ROW(...) +1
#define COUNT_ROWS(SECTION) (0 SECTION(ONE_ROW, ONE_ROW, ONE_ROW, ONE_ROW, ONE_ROW, ONE_ROW, ONE_ROW))
#define CHECK_ROWS(name, SECTION) _Static_assert(COUNT_ROWS(SECTION) <= ROWS_MAX, "raise ROWS_MAX for " #name);
CHECK_ROWS(top, CAB_RECIPE_TOP)
CAB_RECIPE_SECTIONS(CHECK_ROWS)
CHECK_ROWS(stages, CAB_RECIPE_STAGE)

/* One value as text: `text` of a scalar, `items` of a list. Absent: NULL. */
struct raw_value {
    char *text;
    char **items;
    unsigned count;
};

struct raw_group {
    struct raw_value values[ROWS_MAX];
};

struct raw {
    struct raw_group top;
    struct raw_group *groups[CAB_RECIPE_GROUPS];
    struct raw_group *stages;
    unsigned stages_count;
};

struct schema {
    cyaml_schema_value_t item, stage, top;
    cyaml_schema_field_t groups[CAB_RECIPE_GROUPS][ROWS_MAX + 1];      /* [0] is unused */
    cyaml_schema_field_t top_fields[ROWS_MAX + CAB_RECIPE_GROUPS + 1]; /* top rows, groups, stages, end */
};

/* Where a mistake is: the `nth` node called `path`. "": nowhere in particular. */
struct mistake {
    char path[2 * PATH_MAX_TEXT];
    unsigned nth;
};

/* What libcyaml said, in its own words, and the path of keys at which it stopped. */
struct complaint {
    char text[TEXT_MAX];
    char path[PATH_MAX_TEXT];
};

/* ---- schema ----------------------------------------------------------------------------------------------------- */

/* Rows of one group, at `base` in the struct that holds their values; returns the end of the filled fields. */
static cyaml_schema_field_t *add_rows(struct schema *schema, cyaml_schema_field_t *fields, cab_option_table table,
                                      size_t base)
{
    for (unsigned i = 0; i < table.count; i++) {
        const cab_option *option = &table.rows[i];
        size_t at = base + i * sizeof(struct raw_value);
        cyaml_schema_field_t *row = fields++;
        row->key = option->key;
        row->value.flags = CYAML_FLAG_OPTIONAL;
        if (option->kind == CAB_OPTION_LIST || option->kind == CAB_OPTION_INTS) {
            row->data_offset = (uint32_t)(at + offsetof(struct raw_value, items));
            row->count_offset = (uint32_t)(at + offsetof(struct raw_value, count));
            row->count_size = sizeof(unsigned);
            row->value.type = CYAML_SEQUENCE;
            row->value.flags |= CYAML_FLAG_POINTER_NULL | CYAML_FLAG_FLOW;
            row->value.data_size = sizeof(char *);
            row->value.sequence.entry = &schema->item;
            row->value.sequence.max = ITEMS_MAX;
        } else {
            row->data_offset = (uint32_t)(at + offsetof(struct raw_value, text));
            row->value.type = CYAML_STRING;
            row->value.flags |= CYAML_FLAG_POINTER;
            row->value.data_size = sizeof(char);
            row->value.string.max = FILE_MAX;
        }
    }
    return fields;
}

static void schema_build(struct schema *schema)
{
    *schema = (struct schema){
        .item = {CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, FILE_MAX)},
        .stage = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_group, NULL)},
        .top = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw, NULL)},
    };
    schema->stage.mapping.fields = schema->groups[CAB_RECIPE_STAGES_GROUP];
    schema->top.mapping.fields = schema->top_fields;
    cyaml_schema_field_t *field = add_rows(schema, schema->top_fields, cab_recipe_group_get(CAB_RECIPE_TOP_GROUP).table,
                                           offsetof(struct raw, top));
    for (unsigned g = 1; g < CAB_RECIPE_GROUPS; g++) {
        cab_recipe_group group = cab_recipe_group_get(g);
        add_rows(schema, schema->groups[g], group.table, 0);
        field->key = group.name;
        field->value.flags = CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER_NULL;
        field->value.data_size = sizeof(struct raw_group);
        if (g == CAB_RECIPE_STAGES_GROUP) {
            field->data_offset = offsetof(struct raw, stages);
            field->count_offset = offsetof(struct raw, stages_count);
            field->count_size = sizeof(unsigned);
            field->value.type = CYAML_SEQUENCE;
            field->value.sequence.entry = &schema->stage;
            field->value.sequence.max = CAB_STAGES_MAX;
        } else {
            field->data_offset = (uint32_t)(offsetof(struct raw, groups) + g * sizeof(struct raw_group *));
            field->value.type = CYAML_MAPPING;
            field->value.mapping.fields = schema->groups[g];
        }
        field++;
    }
}

/* libcyaml's log: an error line, then "in mapping field 'lr' (line ...)", "in sequence entry '2' (...)" outwards. */
static void listen(cyaml_log_t level, void *context, const char *format, va_list arguments)
{
    struct complaint *complaint = context;
    char line[TEXT_MAX], word[64], inner[PATH_MAX_TEXT];
    (void)level;
    vsnprintf(line, sizeof line, format, arguments);
    line[strcspn(line, "\n")] = '\0';
    snprintf(inner, sizeof inner, "%s", complaint->path);
    const char *join = inner[0] && inner[0] != '[' ? "." : "";
    if (sscanf(line, " in mapping field '%63[^']'", word) == 1 ||
        sscanf(line, "Load:   in mapping field '%63[^']'", word) == 1)
        snprintf(complaint->path, sizeof complaint->path, "%.63s%s%.180s", word, join, inner);
    else if (sscanf(line, " in sequence entry '%63[0-9]'", word) == 1 ||
             sscanf(line, "Load:   in sequence entry '%63[0-9]'", word) == 1)
        snprintf(complaint->path, sizeof complaint->path, "[%lu]%s%.180s", strtoul(word, NULL, 10) - 1, join, inner);
    else if (!complaint->text[0] && !strstr(line, "Backtrace:"))
        snprintf(complaint->text, sizeof complaint->text, "%s",
                 strncmp(line, "Load: ", 6) == 0 || strncmp(line, "Save: ", 6) == 0 ? line + 6 : line);
}

static cyaml_config_t configuration(struct complaint *complaint)
{
    return (cyaml_config_t){.log_fn = listen,
                            .log_ctx = complaint,
                            .mem_fn = cyaml_mem,
                            .log_level = CYAML_LOG_ERROR,
                            .flags = CYAML_CFG_NO_ALIAS | CYAML_CFG_STYLE_BLOCK};
}

/* ---- places ----------------------------------------------------------------------------------------------------- */

struct place {
    unsigned line;    /* from 1; 0: not found */
    char problem[96]; /* of the YAML itself, when it cannot be parsed */
};

/* A mapping or sequence that is open: its path is the first `length` characters of the walker's. */
struct frame {
    bool mapping, key_next;
    unsigned index;
    size_t length;
};

struct walker {
    struct frame frames[DEPTH_MAX];
    int depth; /* open collections; those past DEPTH_MAX are counted only */
    char path[PATH_MAX_TEXT];
};

/* A node begins in the innermost collection: extends the path by its index, or by its name when the node is a key.
 * True where the path is a new one. */
static bool walk_node(struct walker *walker, const char *scalar)
{
    if (walker->depth == 0 || walker->depth > DEPTH_MAX)
        return false;
    struct frame *frame = &walker->frames[walker->depth - 1];
    if (!frame->mapping) {
        snprintf(walker->path + frame->length, sizeof walker->path - frame->length, "[%u]", frame->index++);
        return true;
    }
    frame->key_next = !frame->key_next;
    if (frame->key_next)
        return false; /* this node was the value */
    snprintf(walker->path + frame->length, sizeof walker->path - frame->length, "%s%s", frame->length ? "." : "",
             scalar ? scalar : "?");
    return true;
}

static void walk_open(struct walker *walker, bool mapping)
{
    if (walker->depth < DEPTH_MAX)
        walker->frames[walker->depth] =
            (struct frame){.mapping = mapping, .key_next = true, .length = strlen(walker->path)};
    walker->depth++;
}

/* Where the parser stopped. Of bytes that are no text libyaml gives the offset alone. */
static size_t problem_line(const yaml_parser_t *parser, const char *text, size_t size)
{
    size_t line = parser->problem_mark.line + 1;
    for (size_t i = 0; parser->error == YAML_READER_ERROR && i < parser->problem_offset && i < size; i++)
        line += text[i] == '\n';
    return line;
}

/* The line on which the `nth` node called `path` begins. */
static struct place find_place(const char *text, size_t size, const char *path, unsigned nth)
{
    struct place place = {0};
    struct walker walker = {0};
    yaml_parser_t parser;
    bool ended = false;
    if (!yaml_parser_initialize(&parser))
        return place;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    while (!ended && nth > 0) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            place.line = (unsigned)problem_line(&parser, text, size);
            snprintf(place.problem, sizeof place.problem, "%s", parser.problem ? parser.problem : "not YAML");
            break;
        }
        bool scalar = event.type == YAML_SCALAR_EVENT, mapping = event.type == YAML_MAPPING_START_EVENT;
        bool opens = mapping || event.type == YAML_SEQUENCE_START_EVENT;
        bool begins = scalar || opens || event.type == YAML_ALIAS_EVENT;
        bool named = begins && walk_node(&walker, scalar ? (const char *)event.data.scalar.value : NULL);
        bool odd_key = named && opens && walker.frames[walker.depth - 1].mapping;
        if (named && (odd_key || strcmp(walker.path, path) == 0)) {
            place.line = (unsigned)event.start_mark.line + 1;
            nth--;
        }
        if (odd_key) {
            snprintf(place.problem, sizeof place.problem, "%s as a key, expected a word",
                     mapping ? "a group of keys" : "a list");
            nth = 0;
        }
        if (opens)
            walk_open(&walker, mapping);
        if (event.type == YAML_MAPPING_END_EVENT || event.type == YAML_SEQUENCE_END_EVENT)
            walker.depth--;
        ended = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return place;
}

/* ---- errors ----------------------------------------------------------------------------------------------------- */

/* "recipe.yaml:12", or the file alone where the line is not known. */
static const char *position(const char *name, unsigned line, char *out, size_t size)
{
    if (line)
        snprintf(out, size, "%s:%u", name, line);
    else
        snprintf(out, size, "%s", name);
    return out;
}

/* The option that "train.lr", "stages[2].freeze" or "data.train[3]" names; NULL for a group or nothing. */
static const cab_option *option_at(const char *path)
{
    char group_name[PATH_MAX_TEXT], key[2 * PATH_MAX_TEXT];
    const char *dot = strchr(path, '.');
    snprintf(group_name, sizeof group_name, "%.*s", dot ? (int)strcspn(path, ".[") : 0, path);
    snprintf(key, sizeof key, "%s", dot ? dot + 1 : path);
    key[strcspn(key, "[")] = '\0';
    for (unsigned g = 0; g < CAB_RECIPE_GROUPS; g++) {
        cab_recipe_group group = cab_recipe_group_get(g);
        if (strcmp(group.name, group_name) == 0)
            return cab_option_find(group.table, key);
    }
    return NULL;
}

/* What stands at a place where libcyaml expected something else, from "Expecting STRING, got event: SEQUENCE_START". */
static const char *found_instead(const char *text)
{
    return strstr(text, "SEQUENCE_START")  ? "a list"
           : strstr(text, "MAPPING_START") ? "a group of keys"
                                           : "a single value";
}

/* libcyaml's complaint as one line: file, line, key, what was found, what was expected. */
static cab_status explain(const char *name, const char *text, size_t size, cyaml_err_t error,
                          struct complaint *complaint, struct mistake *mistake)
{
    char where[PATH_MAX_TEXT + 64], sentence[TEXT_MAX], path[2 * PATH_MAX_TEXT], expected[TEXT_MAX] = "";
    const char *unknown = "Unexpected key: ";
    bool twice = strstr(complaint->text, "already seen") != NULL;
    if (error == CYAML_ERR_OOM)
        return cab_fail(CAB_ENOMEM, "%s: not enough memory to read the recipe", name);
    snprintf(path, sizeof path, "%s", complaint->path);
    if (error == CYAML_ERR_INVALID_KEY)
        snprintf(path, sizeof path, "%s%s%s", complaint->path, complaint->path[0] ? "." : "",
                 strncmp(complaint->text, unknown, strlen(unknown)) == 0 ? complaint->text + strlen(unknown) : "");
    if (error == CYAML_ERR_LIBYAML_PARSER || error == CYAML_ERR_INTERNAL_ERROR)
        path[0] = '\0'; /* no node has this path: the walk goes on to where the parser fails, or a key is no word */
    struct place place = find_place(text, size, path, twice ? 2 : 1);
    snprintf(mistake->path, sizeof mistake->path, "%s", place.problem[0] ? "" : path);
    mistake->nth = twice ? 2 : 1;
    position(name, place.line, where, sizeof where);
    if (place.problem[0])
        return cab_fail(CAB_EFORMAT, "%s: %s", where, place.problem);
    if (error == CYAML_ERR_INVALID_KEY) {
        cab_recipe_unknown_key(path, sentence, sizeof sentence);
        return cab_fail(CAB_EFORMAT, "%s: %s", where, sentence);
    }
    if (twice)
        return cab_fail(CAB_EFORMAT, "%s: %s is given twice", where, path);
    if (error == CYAML_ERR_ALIAS)
        return cab_fail(CAB_EFORMAT, "%s: %s is an alias (*name); write the value out", where, path);
    if (error == CYAML_ERR_INVALID_VALUE) {
        const cab_option *option = option_at(path);
        if (option)
            cab_option_expected(option, expected, sizeof expected);
        else
            snprintf(expected, sizeof expected, "%s",
                     strcmp(path, "stages") == 0 ? "a list of stages" : "keys and values");
        return cab_fail(CAB_EFORMAT, "%s: %s: found %s, expected %s", where, path[0] ? path : "the file",
                        found_instead(complaint->text), expected);
    }
    return cab_fail(
        CAB_EFORMAT, "%s: %s%s%s", where, path, path[0] ? ": " : "",
        cab_printable(complaint->text[0] ? complaint->text : cyaml_strerror(error), sentence, sizeof sentence));
}

struct source {
    const char *name, *text;
    size_t size;
    struct mistake *mistake;
};

/* Puts file and line before the text of a value's failure. */
static cab_status at_line(const struct source *source, const char *path)
{
    char where[PATH_MAX_TEXT + 64], sentence[TEXT_MAX];
    snprintf(sentence, sizeof sentence, "%s", cab_error_text());
    position(source->name, find_place(source->text, source->size, path, 1).line, where, sizeof where);
    snprintf(source->mistake->path, sizeof source->mistake->path, "%s", path);
    source->mistake->nth = 1;
    return cab_fail(CAB_EFORMAT, "%s: %s", where, sentence);
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

/* Sets the rows of one group that the file gives. `prefix` is "", "train." or "stages[1].". */
static cab_status take_group(const struct source *source, const struct raw_group *raw, cab_option_table table,
                             void *object, const char *prefix)
{
    for (unsigned i = 0; i < table.count; i++) {
        const cab_option *option = &table.rows[i];
        const struct raw_value *value = &raw->values[i];
        char path[PATH_MAX_TEXT];
        snprintf(path, sizeof path, "%s%s", prefix, option->key);
        if (value->text && cab_option_set(option, object, path, value->text) != CAB_OK)
            return at_line(source, path);
        if (value->items)
            cab_option_empty(option, object);
        for (unsigned j = 0; value->items && j < value->count; j++) {
            snprintf(path, sizeof path, "%s%s[%u]", prefix, option->key, j);
            if (cab_option_append(option, object, path, value->items[j]) != CAB_OK)
                return at_line(source, path);
        }
    }
    return CAB_OK;
}

/* What the defaults and presets depend on. */
static cab_status take_student(const struct source *source, const struct raw *raw, cab_recipe *recipe)
{
    static const struct {
        const char *group, *key, *path;
    } first[] = {{"student", "architecture", "student.architecture"},
                 {"student", "reads", "student.reads"},
                 {"teacher", "path", "teacher.path"}};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++)
        for (unsigned g = 1; g < CAB_RECIPE_STAGES_GROUP; g++) {
            cab_recipe_group group = cab_recipe_group_get(g);
            if (strcmp(group.name, first[i].group) != 0 || !raw->groups[g])
                continue;
            const cab_option *option = cab_option_find(group.table, first[i].key);
            const char *text = raw->groups[g]->values[option - group.table.rows].text;
            if (text && cab_recipe_set(recipe, first[i].path, text) != CAB_OK)
                return at_line(source, first[i].path);
        }
    return CAB_OK;
}

/* Student and method first, then everything else, so that the order of lines in the file has no meaning. */
static cab_status take(const struct source *source, const struct raw *raw, cab_recipe *recipe)
{
    char prefix[64];
    CAB_TRY(take_group(source, &raw->top, cab_recipe_group_get(CAB_RECIPE_TOP_GROUP).table, recipe, ""));
    CAB_TRY(take_student(source, raw, recipe));
    CAB_TRY(cab_recipe_apply_method(recipe, (int)recipe->method));
    for (unsigned g = 1; g < CAB_RECIPE_STAGES_GROUP; g++) {
        cab_recipe_group group = cab_recipe_group_get(g);
        snprintf(prefix, sizeof prefix, "%s.", group.name);
        if (raw->groups[g])
            CAB_TRY(take_group(source, raw->groups[g], group.table, (char *)recipe + group.offset, prefix));
    }
    if (!raw->stages)
        return CAB_OK;
    CAB_TRY(cab_recipe_reset_stages(recipe, raw->stages_count));
    recipe->stages_given = true;
    for (unsigned i = 0; i < raw->stages_count; i++) {
        snprintf(prefix, sizeof prefix, "stages[%u].", i);
        CAB_TRY(take_group(source, &raw->stages[i], cab_recipe_group_get(CAB_RECIPE_STAGES_GROUP).table,
                           &recipe->stages[i], prefix));
    }
    return CAB_OK;
}

/* Bounds what libyaml's time depends on, before it sees the text. */
static cab_status check_bulk(const char *name, const char *text, size_t size)
{
    size_t brackets = 0;
    if (size > FILE_MAX)
        return cab_fail(CAB_EFORMAT, "%s: %zu bytes, expected a recipe of at most %d", name, size, FILE_MAX);
    for (size_t i = 0; i < size; i++)
        brackets += text[i] == '[' || text[i] == '{';
    if (brackets > BRACKETS_MAX)
        return cab_fail(CAB_EFORMAT, "%s: %zu brackets, expected a recipe of at most %d", name, brackets, BRACKETS_MAX);
    return CAB_OK;
}

/* libcyaml reads the first document and leaves the rest. */
static cab_status check_alone(const char *name, const char *text, size_t size)
{
    yaml_parser_t parser;
    yaml_event_t event;
    cab_status status = CAB_OK;
    bool ended = false;
    if (!yaml_parser_initialize(&parser))
        return cab_fail(CAB_ENOMEM, "out of memory: a parser of YAML");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    for (int documents = 0; status == CAB_OK && !ended;) {
        if (!yaml_parser_parse(&parser, &event)) {
            status = cab_fail(CAB_EFORMAT, "%s:%zu: %s", name, problem_line(&parser, text, size),
                              parser.problem ? parser.problem : "not YAML");
            break;
        }
        documents += event.type == YAML_DOCUMENT_START_EVENT;
        if (documents > 1)
            status = cab_fail(CAB_EFORMAT, "%s:%zu: a second document begins, expected one recipe", name,
                              event.start_mark.line + 1);
        ended = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return status;
}

static cab_status parse(const char *name, const char *text, size_t size, struct mistake *mistake, cab_recipe **out)
{
    cab_status status = CAB_OK;
    struct complaint complaint = {0};
    struct schema *schema = NULL;
    struct raw *raw = NULL;
    cab_recipe *recipe = NULL;
    cyaml_config_t config = configuration(&complaint);
    CAB_TRY(check_bulk(name, text, size));
    CAB_GOTO(CAB_NEW(&schema, 1, "the recipe's schema"));
    schema_build(schema);
    cyaml_err_t error =
        cyaml_load_data((const uint8_t *)text, size, &config, &schema->top, (cyaml_data_t **)&raw, NULL);
    if (error != CYAML_OK)
        CAB_GOTO(explain(name, text, size, error, &complaint, mistake));
    if (!raw)
        CAB_GOTO(cab_fail(CAB_EFORMAT, "%s: is empty, expected a recipe", name));
    CAB_GOTO(check_alone(name, text, size));
    CAB_GOTO(cab_recipe_new(&recipe));
    CAB_GOTO(take(&(struct source){name, text, size, mistake}, raw, recipe));
    *out = recipe;
    recipe = NULL;
done:
    if (raw)
        cyaml_free(&config, &schema->top, raw, 0);
    cab_recipe_free(recipe);
    cab_free(schema);
    return status;
}

cab_status cab_recipe_parse(const char *name, const char *text, size_t size, cab_recipe **out)
{
    struct mistake mistake = {.nth = 0};
    return parse(name, text, size, &mistake, out);
}

/* ---- all mistakes ----------------------------------------------------------------------------------------------- */

/* Blanks the lines of the node that a mistake names, from its key to the end of its value, so that the next one is found; lines keep
 * their numbers. False where the node is not alone on its lines. */
static bool blank(char *text, size_t size, const struct mistake *mistake)
{
    const struct place place = find_place(text, size, mistake->path, mistake->nth);
    size_t at = 0, indent = 0;
    for (unsigned line = 1; line < place.line && at < size; at++)
        line += text[at] == '\n';
    if (mistake->path[0] == '\0' || place.line == 0 || at >= size)
        return false;
    while (text[at + indent] == ' ')
        indent++;
    const char *key = strrchr(mistake->path, '.');
    key = key != NULL ? key + 1 : mistake->path;
    const size_t length = strcspn(key, "[");
    if (length == 0 || strncmp(text + at + indent, key, length) != 0 || text[at + indent + length] != ':')
        return false;
    bool first = true;
    while (at < size) { /* its own line, and all that are indented more: a list or a group */
        const size_t end = strcspn(text + at, "\n"), spaces = strspn(text + at, " ");
        if (!first && spaces < end && spaces <= indent && text[at + spaces] != '#')
            break;
        memset(text + at, ' ', end);
        at += end + 1;
        first = false;
    }
    return true;
}

/* Of a group that is written on one line nothing can be told but its first mistake. */
static bool blank_node_or_group(char *text, size_t size, struct mistake *mistake)
{
    if (blank(text, size, mistake))
        return true;
    char *dot = strrchr(mistake->path, '.');
    if (dot == NULL)
        return false;
    *dot = '\0';
    mistake->nth = 1;
    return blank(text, size, mistake);
}

cab_status cab_recipe_load_all(const char *path, cab_recipe_mistake_sink sink, void *user, cab_recipe **recipe)
{
    char *text;
    size_t size;
    cab_status status = cab_file_read(path, FILE_MAX, &text, &size), first = CAB_OK;
    *recipe = NULL;
    if (status != CAB_OK) {
        sink(user, cab_error_text());
        return status;
    }
    for (int i = 0; i < MISTAKES_MAX; i++) {
        struct mistake mistake = {.nth = 0};
        status = parse(path, text, size, &mistake, recipe);
        if (status == CAB_OK)
            break;
        first = first == CAB_OK ? status : first;
        sink(user, cab_error_text());
        if (!blank_node_or_group(text, size, &mistake))
            break;
    }
    cab_free(text);
    return first;
}

cab_status cab_recipe_load(const char *path, cab_recipe **recipe)
{
    char *text;
    size_t size;
    CAB_TRY(cab_file_read(path, FILE_MAX, &text, &size));
    cab_status status = cab_recipe_parse(path, text, size, recipe);
    cab_free(text);
    return status;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

/* One text of the recipe in libcyaml's memory, so that one call frees what was read and what is written. */
static cab_status put_text(const cab_option *option, const void *object, unsigned index, char **out)
{
    char *text;
    CAB_TRY(cab_option_format(option, object, index, &text));
    size_t size = strlen(text) + 1;
    *out = cyaml_mem(NULL, NULL, size);
    if (*out)
        memcpy(*out, text, size);
    cab_free(text);
    return *out ? CAB_OK : cab_fail(CAB_ENOMEM, "out of memory: a recipe's text needs %zu bytes", size);
}

static cab_status put_zeroed(void *out, size_t size)
{
    void *block = cyaml_mem(NULL, NULL, size);
    if (!block)
        return cab_fail(CAB_ENOMEM, "out of memory: a recipe's values need %zu bytes", size);
    memset(block, 0, size);
    memcpy(out, &block, sizeof block);
    return CAB_OK;
}

static cab_status put_group(struct raw_group *raw, cab_option_table table, const void *object)
{
    for (unsigned i = 0; i < table.count; i++) {
        const cab_option *option = &table.rows[i];
        struct raw_value *value = &raw->values[i];
        if (option->kind != CAB_OPTION_LIST && option->kind != CAB_OPTION_INTS) {
            CAB_TRY(put_text(option, object, 0, &value->text));
            continue;
        }
        unsigned count = cab_option_count(option, object);
        CAB_TRY(put_zeroed(&value->items, (count + 1) * sizeof *value->items));
        for (; value->count < count; value->count++)
            CAB_TRY(put_text(option, object, value->count, &value->items[value->count]));
    }
    return CAB_OK;
}

static cab_status put(struct raw *raw, const cab_recipe *recipe)
{
    CAB_TRY(put_group(&raw->top, cab_recipe_group_get(CAB_RECIPE_TOP_GROUP).table, recipe));
    for (unsigned g = 1; g < CAB_RECIPE_STAGES_GROUP; g++) {
        cab_recipe_group group = cab_recipe_group_get(g);
        CAB_TRY(put_zeroed(&raw->groups[g], sizeof *raw->groups[g]));
        CAB_TRY(put_group(raw->groups[g], group.table, (const char *)recipe + group.offset));
    }
    CAB_TRY(put_zeroed(&raw->stages, (recipe->stages_count + 1) * sizeof *raw->stages));
    for (unsigned i = 0; i < recipe->stages_count; i++) {
        raw->stages_count = i + 1;
        CAB_TRY(put_group(&raw->stages[i], cab_recipe_group_get(CAB_RECIPE_STAGES_GROUP).table, &recipe->stages[i]));
    }
    return CAB_OK;
}

cab_status cab_recipe_print(const cab_recipe *recipe, char **text, size_t *size)
{
    cab_status status;
    struct complaint complaint = {0};
    struct schema *schema = NULL;
    struct raw *raw = NULL;
    char *yaml = NULL;
    cyaml_config_t config = configuration(&complaint);
    CAB_GOTO(CAB_NEW(&schema, 1, "the recipe's schema"));
    schema_build(schema);
    CAB_GOTO(put_zeroed(&raw, sizeof *raw));
    CAB_GOTO(put(raw, recipe));
    cyaml_err_t error = cyaml_save_data(&yaml, size, &config, &schema->top, raw, 0);
    if (error != CYAML_OK)
        CAB_GOTO(cab_fail(CAB_EFORMAT, "recipe: cannot be written as YAML: %s",
                          complaint.text[0] ? complaint.text : cyaml_strerror(error)));
    CAB_GOTO(CAB_NEW(text, *size + 1, "a recipe as text"));
    memcpy(*text, yaml, *size);
done:
    if (yaml)
        cyaml_mem(NULL, yaml, 0);
    if (raw)
        cyaml_free(&config, &schema->top, raw, 0);
    cab_free(schema);
    return status;
}

cab_status cab_recipe_save(const cab_recipe *recipe, const char *path)
{
    char *text;
    size_t size;
    CAB_TRY(cab_recipe_print(recipe, &text, &size));
    cab_status status = cab_file_write(path, text, size);
    cab_free(text);
    return status;
}
