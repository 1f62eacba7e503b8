/* task.c - items of a task: an object per line, its templates filled in. */
#include "data/task.h"

#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t DATA_MAX = (size_t)1 << 30, LABELS_MAX = (size_t)64 << 20;
enum { TEXT_MAX = 512, NAME_MAX_BYTES = 64 };

/* ---- one line --------------------------------------------------------------------------------------------------------- */

static cab_status fill(const char *template, json_object *object, int index, char **out)
{
    cab_bytes bytes = {0};
    cab_status status = cab_template_fill(template, object, index, &bytes);
    if (status == CAB_OK)
        status = cab_bytes_append(&bytes, "", 1);
    if (status == CAB_OK)
        status = cab_strdup(out, bytes.data);
    cab_bytes_free(&bytes);
    return status;
}

/* The last word is what is to be said, with the space before it. */
static cab_status split_word(cab_task_item *item)
{
    size_t end = strlen(item->context);
    while (end > 0 && strchr(" \n\t\r", item->context[end - 1]) != NULL)
        item->context[--end] = '\0';
    char *space = strrchr(item->context, ' ');
    if (space == NULL || space == item->context)
        return cab_fail(CAB_EFORMAT, "found \"%.40s\", expected words with spaces between them", item->context);
    CAB_TRY(cab_strdup(&item->choices[0], space));
    *space = '\0';
    item->n_choices = 1;
    return CAB_OK;
}

static cab_status fill_choices(const cab_task *task, json_object *object, cab_task_item *item)
{
    const size_t list = task->choices.count == 1 ? cab_template_length(task->choices.items[0], object) : 0;
    const size_t count = list > 0 ? list : task->choices.count;
    if (count < 2 || count > CAB_CHOICES_MAX)
        return cab_fail(CAB_EFORMAT, "%zu choices, expected 2 to %d", count, CAB_CHOICES_MAX);
    for (size_t i = 0; i < count; i++) {
        const char *template = task->choices.items[list > 0 ? 0 : i];
        CAB_TRY(fill(template, object, list > 0 ? (int)i : -1, &item->choices[i]));
        item->n_choices++;
        if (item->choices[i][0] == '\0')
            return cab_fail(CAB_EFORMAT, "choice %zu is empty", i);
    }
    return CAB_OK;
}

/* A label as a number, or by its name among those that the object lists. */
static cab_status find_label(const cab_task *task, json_object *object, const char *label, cab_task_item *item)
{
    char *end, *name = NULL, template[NAME_MAX_BYTES + 3];
    if (task->names[0] == '\0') {
        errno = 0;
        const long number = strtol(label, &end, 10);
        if (end == label || *end != '\0' || errno != 0 || number < task->first ||
            number - task->first >= (long)item->n_choices)
            return cab_fail(CAB_EFORMAT, "label \"%.40s\", expected a number from %d to %d", label, (int)task->first,
                            (int)task->first + (int)item->n_choices - 1);
        item->label = (unsigned)(number - task->first);
        return CAB_OK;
    }
    snprintf(template, sizeof template, "{%.*s}", NAME_MAX_BYTES, task->names);
    for (unsigned i = 0; i < item->n_choices; i++) {
        CAB_TRY(fill(template, object, (int)i, &name));
        const bool same = strcmp(name, label) == 0;
        cab_free(name);
        if (same) {
            item->label = i;
            return CAB_OK;
        }
    }
    return cab_fail(CAB_EFORMAT, "label \"%.40s\", expected one of \"%s\"", label, task->names);
}

/* given: the label's text, of the file of labels; NULL: it is in the object. */
static cab_status read_item(const cab_task *task, json_object *object, const char *given, cab_task_item *item)
{
    char *label = NULL, template[NAME_MAX_BYTES + 3];
    CAB_TRY(fill(task->context, object, -1, &item->context));
    if (task->measure == CAB_TASK_LAST_WORD)
        return split_word(item);
    CAB_TRY(fill_choices(task, object, item));
    if (given != NULL)
        return find_label(task, object, given, item);
    snprintf(template, sizeof template, "{%.*s}", NAME_MAX_BYTES, task->label);
    CAB_TRY(fill(template, object, -1, &label));
    const cab_status status = find_label(task, object, label, item);
    cab_free(label);
    return status;
}

/* ---- all lines ---------------------------------------------------------------------------------------------------------- */

/* The next line in text[0..size); false at the end. */
static bool next_line(const char **at, const char **line, size_t *size)
{
    if (**at == '\0')
        return false;
    *line = *at;
    *size = strcspn(*at, "\n");
    *at += *size + ((*at)[*size] == '\n');
    if (*size > 0 && (*line)[*size - 1] == '\r')
        --*size;
    return true;
}

static bool is_blank(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (strchr(" \t", line[i]) == NULL)
            return false;
    return true;
}

static cab_status at_line(const char *name, uint64_t number, cab_status status)
{
    char why[TEXT_MAX];
    snprintf(why, sizeof why, "%s", cab_error_text());
    return cab_fail(status, "%s: line %" PRIu64 ": %s", name, number, why);
}

static cab_status add_line(cab_task *task, const char *name, uint64_t number, const char *line, size_t size,
                           const char *label)
{
    char where[TEXT_MAX];
    cab_json json = {0};
    cab_status status;
    snprintf(where, sizeof where, "%s: line %" PRIu64, name, number);
    CAB_TRY(CAB_GROW(&task->items, &task->capacity, task->n_items + 1, "a task's items"));
    CAB_GOTO(cab_json_parse(line, size, where, &json));
    status = read_item(task, json.root, label, &task->items[task->n_items]);
    task->n_items++; /* what is there of it is freed with the task */
    if (status != CAB_OK)
        status = at_line(name, number, status);
done:
    cab_json_close(&json);
    return status;
}

/* The next label; an error where there is none. */
static cab_status next_label(const char **labels, const char *name, uint64_t number, char label[NAME_MAX_BYTES])
{
    const char *line;
    size_t size;
    if (!next_line(labels, &line, &size))
        return cab_fail(CAB_EFORMAT, "%s: line %" PRIu64 " has no label: the file of labels is shorter", name, number);
    snprintf(label, NAME_MAX_BYTES, "%.*s", (int)(size < NAME_MAX_BYTES ? size : NAME_MAX_BYTES - 1), line);
    return CAB_OK;
}

cab_status cab_task_read_lines(cab_task *task, const char *name, const char *lines, const char *labels, uint64_t most)
{
    const char *line;
    char label[NAME_MAX_BYTES];
    size_t size;
    uint64_t number = 0;
    while ((most == 0 || task->n_items < most) && next_line(&lines, &line, &size)) {
        number++;
        if (is_blank(line, size))
            continue;
        if (labels != NULL)
            CAB_TRY(next_label(&labels, name, number, label));
        CAB_TRY(add_line(task, name, number, line, size, labels != NULL ? label : NULL));
    }
    if (task->n_items == 0)
        return cab_fail(CAB_EFORMAT, "%s: holds no item of \"%s\"", name, task->name);
    if (labels != NULL && *lines == '\0' && labels[strspn(labels, "\n\r \t")] != '\0')
        return cab_fail(CAB_EFORMAT, "%s: the file of labels is longer: %zu items", name, task->n_items);
    return CAB_OK;
}

/* ---- files ---------------------------------------------------------------------------------------------------------------- */

static cab_status find_data(const cab_task *task, const char *const *folders, size_t count, char out[CAB_PATH_MAX],
                            char folder[CAB_PATH_MAX])
{
    for (size_t i = 0; i < count; i++)
        for (unsigned k = 0; k < task->data.count; k++) {
            CAB_TRY(cab_path_join(out, folders[i], task->data.items[k]));
            snprintf(folder, CAB_PATH_MAX, "%s", folders[i]);
            if (cab_path_exists(out))
                return CAB_OK;
        }
    if (count == 0)
        return cab_fail(CAB_EARG, "task \"%s\" needs a folder that holds %s: --data=DIR, or eval.data in a recipe",
                        task->name, task->data.items[0]);
    return cab_fail(CAB_EIO, "%s: task \"%s\": no %s%s there", folders[0], task->name, task->data.items[0],
                    task->data.count > 1 ? ", nor another of its names," : "");
}

cab_status cab_task_read(cab_task *task, const char *const *folders, size_t count, uint64_t most)
{
    char path[CAB_PATH_MAX], folder[CAB_PATH_MAX], beside[CAB_PATH_MAX], *lines = NULL, *labels = NULL;
    size_t size = 0;
    cab_status status;
    CAB_TRY(find_data(task, folders, count, path, folder));
    CAB_GOTO(cab_file_read_text(path, DATA_MAX, &lines, &size));
    if (strlen(lines) != size) {
        status = cab_fail(CAB_EFORMAT, "%s: a zero byte at offset %zu, expected JSON lines", path, strlen(lines));
        goto done;
    }
    if (task->labels[0] != '\0') {
        CAB_GOTO(cab_path_join(beside, folder, task->labels));
        CAB_GOTO(cab_file_read_text(beside, LABELS_MAX, &labels, &size));
    }
    status = cab_task_read_lines(task, path, lines, labels, most);
done:
    cab_free(lines);
    cab_free(labels);
    return status;
}

void cab_task_free(cab_task *task)
{
    if (task == NULL)
        return;
    for (size_t i = 0; i < task->n_items; i++) {
        cab_free(task->items[i].context);
        for (unsigned k = 0; k < CAB_CHOICES_MAX; k++)
            cab_free(task->items[i].choices[k]);
    }
    cab_free(task->items);
    cab_free(task->name);
    cab_options_clear(cab_task_table(), task);
    cab_free(task);
}
