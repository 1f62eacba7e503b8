#include "data/image_classes.h"

#include "base/file.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

enum { CLASSES_MAX = 1 << 20, FIELDS = 4 };
static const size_t MAP_BYTES_MAX = (size_t)256 << 20;

void cab_classes_free(cab_classes *c)
{
    for (size_t i = 0; i < c->count; i++) {
        cab_free(c->names == NULL ? NULL : c->names[i]);
        cab_free(c->words == NULL ? NULL : c->words[i]);
    }
    cab_free(c->names);
    cab_free(c->words);
    cab_free(c->teacher);
    cab_free(c->by_name);
    *c = (cab_classes){0};
}

static cab_status reserve(cab_classes *c, size_t count)
{
    *c = (cab_classes){0};
    CAB_TRY(CAB_NEW(&c->names, count, "names of classes"));
    c->count = count;
    CAB_TRY(CAB_NEW(&c->words, count, "words of classes"));
    CAB_TRY(CAB_NEW(&c->teacher, count, "classes of the teacher"));
    CAB_TRY(CAB_NEW(&c->by_name, count, "an index of classes"));
    for (size_t i = 0; i < count; i++)
        c->teacher[i] = -1;
    return CAB_OK;
}

typedef struct named {
    const char *name;
    uint32_t label;
} named;

static int compare_named(const void *left, const void *right)
{
    const named *a = left, *b = right;
    return strcmp(a->name, b->name);
}

/* Fills by_name; `path` is where the names come from. */
static cab_status sort_names(cab_classes *c, const char *path)
{
    cab_status status = CAB_OK;
    named *sorted = NULL;
    CAB_TRY(CAB_NEW(&sorted, c->count, "an index of classes"));
    for (size_t i = 0; i < c->count; i++)
        sorted[i] = (named){c->names[i], (uint32_t)i};
    qsort(sorted, c->count, sizeof *sorted, compare_named);
    for (size_t i = 0; i < c->count && status == CAB_OK; i++) {
        c->by_name[i] = sorted[i].label;
        if (i > 0 && strcmp(sorted[i - 1].name, sorted[i].name) == 0)
            status = cab_fail(CAB_EFORMAT, "%s: the class \"%s\" stands there twice", path, sorted[i].name);
    }
    cab_free(sorted);
    return status;
}

cab_status cab_classes_from_names(const char *const *names, size_t count, cab_classes *c)
{
    cab_status status = CAB_OK;
    CAB_GOTO(reserve(c, count));
    for (size_t i = 0; i < count; i++)
        CAB_GOTO(cab_strdup(&c->names[i], names[i]));
    CAB_GOTO(sort_names(c, "the list of classes"));
done:
    if (status != CAB_OK)
        cab_classes_free(c);
    return status;
}

cab_status cab_classes_copy(const cab_classes *from, cab_classes *c)
{
    cab_status status = CAB_OK;
    CAB_GOTO(cab_classes_from_names((const char *const *)from->names, from->count, c));
    for (size_t i = 0; i < c->count; i++) {
        c->teacher[i] = from->teacher[i];
        if (from->words[i] != NULL)
            CAB_GOTO(cab_strdup(&c->words[i], from->words[i]));
    }
done:
    if (status != CAB_OK)
        cab_classes_free(c);
    return status;
}

int32_t cab_classes_find(const cab_classes *c, const char *name)
{
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, c->names[c->by_name[middle]]);
        if (order == 0)
            return (int32_t)c->by_name[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -1;
}

cab_status cab_classes_check_teacher(const cab_classes *c, int64_t teacher_classes)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->teacher[i] < 0 || c->teacher[i] >= teacher_classes)
            return cab_fail(CAB_EFORMAT,
                            "class \"%s\": its index among the teacher's classes is %d; expected 0 to %lld",
                            c->names[i], (int)c->teacher[i], (long long)teacher_classes - 1);
    return CAB_OK;
}

/* ---- the file --------------------------------------------------------------------------------------------------------- */

/* A whole field as a number from 0 to CLASSES_MAX; false otherwise. */
static bool read_number(const char *field, int32_t *out)
{
    int32_t value = 0;
    const char *p = field;
    for (; *p >= '0' && *p <= '9' && value < CLASSES_MAX; p++)
        value = value * 10 + (*p - '0');
    *out = value;
    return p != field && *p == '\0' && value < CLASSES_MAX;
}

/* Cuts the line at its tabs, in place; the last field keeps what is left. Returns the number of fields. */
static int split(char *line, char *fields[FIELDS])
{
    int count = 0;
    while (line != NULL && count < FIELDS) {
        fields[count++] = line;
        line = count < FIELDS ? strchr(line, '\t') : NULL;
        if (line != NULL)
            *line++ = '\0';
    }
    return count;
}

static cab_status read_line(cab_classes *c, char *line, const char *path, size_t number)
{
    char *fields[FIELDS] = {0};
    int count = split(line, fields);
    int32_t label = 0, teacher = 0;
    if (count < FIELDS - 1)
        return cab_fail(CAB_EFORMAT, "%s:%zu: %d fields; expected label, name, teacher's class, words between tabs",
                        path, number, count);
    if (!read_number(fields[0], &label) || (size_t)label >= c->count)
        return cab_fail(CAB_EFORMAT, "%s:%zu: label \"%s\"; expected 0 to %zu", path, number, fields[0], c->count - 1);
    if (c->names[label] != NULL)
        return cab_fail(CAB_EFORMAT, "%s:%zu: the label %d stands there twice", path, number, (int)label);
    if (fields[1][0] == '\0')
        return cab_fail(CAB_EFORMAT, "%s:%zu: the name of the class is empty", path, number);
    if (!read_number(fields[2], &teacher))
        return cab_fail(CAB_EFORMAT, "%s:%zu: teacher's class \"%s\"; expected a number below %d", path, number,
                        fields[2], (int)CLASSES_MAX);
    CAB_TRY(cab_strdup(&c->names[label], fields[1]));
    if (count == FIELDS)
        CAB_TRY(cab_strdup(&c->words[label], fields[3]));
    c->teacher[label] = teacher;
    return CAB_OK;
}

/* The line at `text`, made a string; the rest begins at *next, NULL at the end. */
static char *cut_line(char *text, char **next)
{
    char *end = strchr(text, '\n');
    *next = end == NULL ? NULL : end + 1;
    if (end == NULL)
        end = text + strlen(text);
    *end = '\0';
    if (end > text && end[-1] == '\r')
        end[-1] = '\0';
    return text;
}

/* Whether the first field of the first line is no number. */
static bool has_headings(const char *text)
{
    return *text < '0' || *text > '9';
}

static size_t count_lines(const char *text)
{
    size_t count = 0;
    for (bool filled = false;; text++) {
        filled = filled || (*text != '\n' && *text != '\r' && *text != '\0');
        if (*text != '\n' && *text != '\0')
            continue;
        count += filled;
        filled = false;
        if (*text == '\0')
            return count;
    }
}

cab_status cab_classes_parse(const char *text, size_t size, const char *path, cab_classes *c)
{
    cab_status status = CAB_OK;
    char *copy = NULL;
    *c = (cab_classes){0};
    CAB_TRY(CAB_NEW(&copy, size + 1, "a class map"));
    memcpy(copy, text, size);
    size_t lines = count_lines(copy), headings = has_headings(copy) && lines > 0;
    if (strlen(copy) != size || lines == headings || lines > CLASSES_MAX)
        CAB_GOTO(cab_fail(CAB_EFORMAT, "%s: expected a text of 1 to %d lines: label, name, teacher's class, words",
                          path, (int)CLASSES_MAX));
    CAB_GOTO(reserve(c, lines - headings));
    size_t number = 0;
    for (char *next = copy; next != NULL;) {
        char *line = cut_line(next, &next);
        number++;
        if (*line != '\0' && !(headings && number == 1))
            CAB_GOTO(read_line(c, line, path, number));
    }
    for (size_t i = 0; i < c->count;
         i++) /* as many lines as labels, none twice: none can be missing, but for a heading */
        if (c->names[i] == NULL)
            CAB_GOTO(cab_fail(CAB_EFORMAT, "%s: the label %zu is missing", path, i));
    CAB_GOTO(sort_names(c, path));
done:
    cab_free(copy);
    if (status != CAB_OK)
        cab_classes_free(c);
    return status;
}

cab_status cab_classes_load(const char *path, cab_classes *c)
{
    char *text = NULL;
    size_t size = 0;
    *c = (cab_classes){0};
    CAB_TRY(cab_file_read_text(path, MAP_BYTES_MAX, &text, &size));
    cab_status status = cab_classes_parse(text, size, path, c);
    cab_free(text);
    return status;
}
