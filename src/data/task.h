/* task.h - questions with known answers: a context, choices, the right one, as in lm-evaluation-harness.
 *
 *   task.c         items out of JSON lines        task_file.c    what a task is, in YAML        task_template.c   "{goal}" filled in
 *
 * A task is a small YAML file of the keys below. A template holds the names of fields of an item's object in braces, with dots into
 * objects and through lists: "{question.choices.text}" is one text per choice. A brace itself is written twice. */
#ifndef CAB_DATA_TASK_H
#define CAB_DATA_TASK_H

#include "base/json.h"
#include "base/options.h"
#include "data/buffer.h"

#include <stdbool.h>
#include <stdint.h>

#define CAB_TASK_KEYS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                         \
    TEXT(about, "", "what is asked, in a line")                                                                        \
    LIST(data, "names of its file of JSON lines, the first that is found in the folder of tasks' data")                \
    TEXT(labels, "", "a file beside it with the label of every line; empty: the field `label`")                        \
    TEXT(label, "label", "field of the right choice: its number, or one of `names`")                                   \
    TEXT(names, "", "field that lists what labels call the choices, as A, B, C; empty: numbers")                       \
    INT(first, 0, 0, 1, "number of the first choice")                                                                  \
    ENUM(measure, 0, "choice|last-word",                                                                               \
         "choice: the likeliest of the choices; last-word: whether the last word of `context` is what the model "      \
         "finds likeliest, token by token")                                                                            \
    TEXT(context, "", "template of what the model reads first")                                                        \
    LIST(choices, "templates of the choices, with the space before them; one template of a list gives one choice per " \
                  "element")

enum { CAB_TASK_CHOICE, CAB_TASK_LAST_WORD };
enum { CAB_CHOICES_MAX = 64 };

typedef struct cab_task_item {
    char *context;
    char *choices[CAB_CHOICES_MAX]; /* n_choices of them */
    unsigned n_choices, label;
} cab_task_item;

typedef struct cab_task {
    CAB_FIELDS(CAB_TASK_KEYS)
    char *name; /* of its file, without .yaml */
    cab_task_item *items;
    size_t n_items, capacity;
} cab_task;

/* Its rows, for manuals. */
cab_option_table cab_task_table(void);

/* The task of a YAML file without its items. CAB_EFORMAT names file, line, what was found and what was expected. */
cab_status cab_task_load(const char *path, cab_task **task);
cab_status cab_task_parse(const char *name, const char *text, size_t size, cab_task **task);
/* Its items, out of the first of the folders (or files) that has them; most: the first so many, 0: all. */
cab_status cab_task_read(cab_task *task, const char *const *folders, size_t count, uint64_t most);
/* The same from memory; labels NULL: in the objects. `name` stands in error texts. */
cab_status cab_task_read_lines(cab_task *task, const char *name, const char *lines, const char *labels, uint64_t most);
void cab_task_free(cab_task *task);

/* ---- templates ---- */

/* Refuses a brace that is not closed: CAB_EARG. */
cab_status cab_template_check(const char *text);
/* Appends the template's text; `index` picks of fields that are lists, -1: they are refused. CAB_EFORMAT: a field that is not
 * there, or is no text or number; the text does not say where. */
cab_status cab_template_fill(const char *text, json_object *object, int index, cab_bytes *out);
/* Elements of the longest list that the template names; 0: it names none. */
size_t cab_template_length(const char *text, json_object *object);

#endif
