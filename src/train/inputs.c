/* inputs.c - describing and comparing the inputs of a run. */
#include "train/inputs.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/options.h"
#include "distill/recipe.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_MAX = 320, LINE_MAX_BYTES = CAB_PATH_MAX + KEY_MAX + 64 };

/* ---- describing ------------------------------------------------------------------------------------------------- */

struct cab_input_list {
    char *text;
    size_t length, capacity;
};

cab_status cab_input_add(cab_input_list *l, const char *key, const char *path, const cab_fingerprint *content)
{
    char line[LINE_MAX_BYTES], shown[CAB_PATH_MAX];
    int length = snprintf(line, sizeof line, "%s %" PRIu64 " %016" PRIx64 " %s\n", key, content->size,
                          content->checksum, cab_printable(path, shown, sizeof shown));
    CAB_TRY(CAB_GROW(&l->text, &l->capacity, l->length + (size_t)length + 1, "the inputs of a run"));
    memcpy(l->text + l->length, line, (size_t)length + 1);
    l->length += (size_t)length;
    return CAB_OK;
}

static cab_status add_file(cab_input_list *l, const char *key, const char *path)
{
    cab_fingerprint content;
    CAB_TRY(cab_fingerprint_file(path, &content));
    return cab_input_add(l, key, path, &content);
}

/* What a model is read from. */
static int is_of_model(const struct dirent *entry)
{
    static const char *const names[] = {"config.json", "generation_config.json", "preprocessor_config.json",
                                        "tokenizer.json", "model.safetensors.index.json"};
    static const char ending[] = ".safetensors";
    const size_t length = strlen(entry->d_name);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(entry->d_name, names[i]) == 0)
            return 1;
    return length >= sizeof ending && strcmp(entry->d_name + length - (sizeof ending - 1), ending) == 0;
}

static cab_status add_model(cab_input_list *l, const char *key, const char *directory)
{
    struct dirent **entries = NULL;
    cab_status status = CAB_OK;
    if (!cab_path_is_directory(directory)) /* a GGUF file */
        return add_file(l, key, directory);
    int count = scandir(directory, &entries, is_of_model, alphasort);
    for (int i = 0; i < count; i++) {
        char path[CAB_PATH_MAX], name[CAB_PATH_MAX + KEY_MAX];
        snprintf(name, sizeof name, "%s/%.255s", key, entries[i]->d_name);
        if (status == CAB_OK)
            status = cab_path_join(path, directory, entries[i]->d_name);
        if (status == CAB_OK)
            status = add_file(l, name, path);
        free(entries[i]);
    }
    free(entries);
    return status;
}

cab_status cab_inputs_describe(const cab_run *run, char **text)
{
    const struct cab_recipe *r = run->recipe;
    cab_input_list l = {0};
    cab_status status;
    CAB_GOTO(add_model(&l, "teacher.path", r->teacher.path));
    if (r->student.path[0] != '\0')
        CAB_GOTO(add_model(&l, "student.path", r->student.path));
    CAB_GOTO(run->domain->inputs(run->data, &l));
    if (r->data.classes[0] != '\0')
        CAB_GOTO(add_file(&l, "data.classes", r->data.classes));
    *text = l.text;
    l.text = NULL;
done:
    cab_free(l.text);
    return status;
}

/* ---- comparing -------------------------------------------------------------------------------------------------- */

/* One line: its key, then "<bytes> <digits>", then the path. */
typedef struct input {
    const char *key, *content, *path;
    int key_length, content_length, path_length;
} input;

/* Takes one word and the space behind it. */
static bool take_word(const char **at, const char *end, const char **word, int *length)
{
    const char *space = memchr(*at, ' ', (size_t)(end - *at));
    if (space == NULL || space == *at || space - *at > KEY_MAX)
        return false;
    *word = *at;
    *length = (int)(space - *at);
    *at = space + 1;
    return true;
}

/* The next line of *at, which moves behind it; false at the end, or with *bad where it is no such line. */
static bool next_input(const char **at, input *out, bool *bad)
{
    const char *from = *at, *end = strchr(from, '\n'), *digits = NULL;
    int length = 0;
    *bad = false;
    if (*from == '\0')
        return false;
    *bad = end == NULL || end - from > LINE_MAX_BYTES || !take_word(&from, end, &out->key, &out->key_length) ||
           !take_word(&from, end, &out->content, &out->content_length) || !take_word(&from, end, &digits, &length);
    if (*bad)
        return false;
    out->content_length += 1 + length;
    out->path = from;
    out->path_length = (int)(end - from);
    *at = end + 1;
    return true;
}

static bool find_input(const char *text, const input *wanted, input *found)
{
    bool bad = false;
    while (next_input(&text, found, &bad))
        if (found->key_length == wanted->key_length && memcmp(found->key, wanted->key, (size_t)wanted->key_length) == 0)
            return true;
    return false;
}

/* Every input of `a` is in `b` too; what differs is told if `a` is what the run began with, and `b` is now. */
static cab_status compare_one_way(const char *file, const char *a, const char *b, bool a_is_then)
{
    input one, other;
    bool bad = false;
    const char *at = a;
    while (next_input(&at, &one, &bad)) {
        if (!find_input(b, &one, &other))
            return cab_fail(CAB_EARG, "%s: the run began %s %.*s (%.*s)%s", file, a_is_then ? "with" : "without",
                            one.key_length, one.key, one.path_length, one.path,
                            a_is_then ? ", which is not there now" : "");
        if (a_is_then && (one.content_length != other.content_length ||
                          memcmp(one.content, other.content, (size_t)one.content_length) != 0))
            return cab_fail(CAB_EARG,
                            "%s: the run began with another %.*s: %.*s is now %.*s (bytes, checksum), %.*s was %.*s",
                            file, one.key_length, one.key, other.path_length, other.path, other.content_length,
                            other.content, one.path_length, one.path, one.content_length, one.content);
    }
    return bad ? cab_fail(CAB_EFORMAT, "%s: its list of inputs is damaged: \"%.40s\"", file, at) : CAB_OK;
}

cab_status cab_inputs_compare(const char *file, const char *then, const char *now)
{
    CAB_TRY(compare_one_way(file, then, now, true));
    return compare_one_way(file, now, then, false);
}

cab_status cab_inputs_model_hash(const char *model, uint64_t *hash)
{
    cab_input_list l = {0};
    input one;
    bool bad = false;
    const cab_status status = add_model(&l, "model", model);
    *hash = CAB_HASH_START;
    for (const char *at = l.text; status == CAB_OK && at != NULL && next_input(&at, &one, &bad) && !bad;)
        *hash = cab_hash(*hash, one.content, (size_t)one.content_length);
    cab_free(l.text);
    return status;
}
