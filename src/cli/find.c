/* find.c - models by the runs that made them, recipes and tasks by name. */
#include "cli/find.h"

#include "base/options.h"
#include "report/report.h"
#include "train/tasks.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_BYTES = 256, DIRECTORIES_MAX = 16 };

/* ---- models --------------------------------------------------------------------------------------------------------- */

static bool holds(const char *directory, const char *name)
{
    char path[CAB_PATH_MAX];
    return directory[0] != '\0' && cab_path_join(path, directory, name) == CAB_OK && cab_path_exists(path);
}

cab_status cli_find_model(const char *given, char out[CAB_PATH_MAX])
{
    if (!holds(given, "config.json") && holds(given, "student/config.json"))
        return cab_path_join(out, given, "student");
    if (given[0] != '\0' && !holds(given, "config.json") && cab_report_is_run(given))
        return cab_fail(CAB_EIO, "%s: a run without a student yet; cab distill --resume goes on with it", given);
    if (snprintf(out, CAB_PATH_MAX, "%s", given) >= CAB_PATH_MAX)
        return cab_fail(CAB_EARG, "%.60s...: the path is longer than %d bytes", given, CAB_PATH_MAX - 1);
    return CAB_OK;
}

/* ---- recipes -------------------------------------------------------------------------------------------------------- */

/* share/cab/recipes of the prefix whose bin holds this program; false where that cannot be told. */
static bool installed(char out[CAB_PATH_MAX])
{
    char program[CAB_PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0)
        return false;
    program[length] = '\0';
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(program, '/');
        if (slash == NULL)
            return false;
        *slash = '\0';
    }
    return cab_path_join(out, program, "share/cab/recipes") == CAB_OK;
}

/* The directories of the search, in its order. */
static unsigned directories(char out[DIRECTORIES_MAX][CAB_PATH_MAX])
{
    unsigned count = 0;
    size_t length;
    snprintf(out[count++], CAB_PATH_MAX, "recipes");
    for (const char *list = getenv("CAB_RECIPES"); list != NULL && *list != '\0' && count + 1 < DIRECTORIES_MAX;
         list += length + (list[length] == ':')) {
        length = strcspn(list, ":");
        if (length > 0 && length < CAB_PATH_MAX)
            snprintf(out[count++], CAB_PATH_MAX, "%.*s", (int)length, list);
    }
    return count + installed(out[count]);
}

static bool is_recipe(const char *name)
{
    const size_t length = strlen(name);
    return length > 5 && name[0] != '.' && strcmp(name + length - 5, ".yaml") == 0;
}

static int is_recipe_entry(const struct dirent *entry)
{
    return is_recipe(entry->d_name) && strlen(entry->d_name) < NAME_BYTES;
}

/* In byte order, whatever the locale. */
static int by_name(const struct dirent **left, const struct dirent **right)
{
    return strcmp((*left)->d_name, (*right)->d_name);
}

static cab_status visit_directory(const char *directory, cli_recipe_visitor visit, void *user)
{
    struct dirent **entries = NULL;
    char path[CAB_PATH_MAX] = "", name[NAME_BYTES];
    cab_status status = CAB_OK;
    const int count = scandir(directory, &entries, is_recipe_entry, by_name);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%.*s", (int)(strlen(entries[i]->d_name) - 5), entries[i]->d_name);
        if (status == CAB_OK)
            status = cab_path_join(path, directory, entries[i]->d_name);
        if (status == CAB_OK)
            status = visit(user, name, path);
        free(entries[i]);
    }
    free(entries);
    return status;
}

/* One that an earlier directory has goes before. */
struct unshadowed {
    cli_recipe_visitor visit;
    void *user;
};

/* below: "", or "tasks/". */
static cab_status look(const char *below, const char *name, char out[CAB_PATH_MAX], bool *found)
{
    char searched[DIRECTORIES_MAX][CAB_PATH_MAX], file[NAME_BYTES + 16];
    const unsigned count = directories(searched);
    *found = false;
    if (snprintf(file, sizeof file, is_recipe(name) ? "%s%s" : "%s%s.yaml", below, name) >= (int)sizeof file)
        return CAB_OK;
    for (unsigned i = 0; !*found && i < count; i++) {
        CAB_TRY(cab_path_join(out, searched[i], file));
        *found = cab_path_exists(out) && !cab_path_is_directory(out);
    }
    return CAB_OK;
}

static cab_status visit_first(void *user, const char *name, const char *path)
{
    const struct unshadowed *u = user;
    char first[CAB_PATH_MAX];
    bool found;
    CAB_TRY(look("", name, first, &found));
    return found && strcmp(first, path) == 0 ? u->visit(u->user, name, path) : CAB_OK;
}

cab_status cli_each_recipe(cli_recipe_visitor visit, void *user)
{
    struct unshadowed u = {visit, user};
    char searched[DIRECTORIES_MAX][CAB_PATH_MAX];
    const unsigned count = directories(searched);
    for (unsigned i = 0; i < count; i++)
        CAB_TRY(visit_directory(searched[i], visit_first, &u));
    return CAB_OK;
}

static cab_status offer(void *user, const char *name, const char *path)
{
    (void)path;
    cab_nearest_offer(user, name, NULL);
    return CAB_OK;
}

cab_status cli_find_recipe(const char *given, char out[CAB_PATH_MAX])
{
    char shown[NAME_BYTES];
    bool found = false;
    if (strchr(given, '/') != NULL || (cab_path_exists(given) && !cab_path_is_directory(given))) {
        if (snprintf(out, CAB_PATH_MAX, "%s", given) >= CAB_PATH_MAX)
            return cab_fail(CAB_EARG, "%.60s...: the path is longer than %d bytes", given, CAB_PATH_MAX - 1);
        return CAB_OK;
    }
    CAB_TRY(look("", given, out, &found));
    if (found)
        return CAB_OK;
    cab_nearest nearest = cab_nearest_begin(given);
    CAB_TRY(cli_each_recipe(offer, &nearest));
    cab_printable(given, shown, sizeof shown);
    if (nearest.best[0] != '\0')
        return cab_fail(CAB_EIO, "no file and no recipe \"%s\"; did you mean \"%s\"?", shown, nearest.best);
    return cab_fail(CAB_EIO, "no file and no recipe \"%s\"; cab recipe list has those that are found by name", shown);
}

bool cli_is_recipe(const char *word)
{
    char path[CAB_PATH_MAX];
    bool found = false;
    if (is_recipe(word) || cab_report_is_run(word))
        return true;
    return !cab_path_exists(word) && strchr(word, '/') == NULL && look("", word, path, &found) == CAB_OK && found;
}

/* ---- tasks ---------------------------------------------------------------------------------------------------------- */

/* The tasks that there are, for a message. */
struct names {
    char text[NAME_BYTES];
    cab_nearest nearest;
};

static cab_status add_name(void *user, const char *name, const char *path)
{
    struct names *names = user;
    const size_t used = strlen(names->text);
    (void)path;
    snprintf(names->text + used, sizeof names->text - used, "%s, ", name);
    cab_nearest_offer(&names->nearest, name, NULL);
    return CAB_OK;
}

cab_status cli_find_task(const char *given, char out[CAB_PATH_MAX])
{
    char searched[DIRECTORIES_MAX][CAB_PATH_MAX], folder[CAB_PATH_MAX], shown[NAME_BYTES];
    struct names names = {.nearest = cab_nearest_begin(given)};
    const bool file = strchr(given, '/') != NULL || (cab_path_exists(given) && !cab_path_is_directory(given));
    bool found = false;
    if (file && given[0] != '/' && strncmp(given, "./", 2) != 0)
        return cab_path_join(out, ".", given);
    if (file || strcmp(given, CAB_TASK_RECALL) == 0) {
        if (snprintf(out, CAB_PATH_MAX, "%s", given) >= CAB_PATH_MAX)
            return cab_fail(CAB_EARG, "%.60s...: the path is longer than %d bytes", given, CAB_PATH_MAX - 1);
        return CAB_OK;
    }
    CAB_TRY(look("tasks/", given, out, &found));
    if (found)
        return CAB_OK;
    const unsigned count = directories(searched);
    for (unsigned i = 0; i < count; i++) {
        CAB_TRY(cab_path_join(folder, searched[i], "tasks"));
        CAB_TRY(visit_directory(folder, add_name, &names));
    }
    add_name(&names, CAB_TASK_RECALL, NULL);
    names.text[strlen(names.text) > 2 ? strlen(names.text) - 2 : 0] = '\0';
    cab_printable(given, shown, sizeof shown);
    if (names.nearest.best[0] != '\0')
        return cab_fail(CAB_EIO, "no file and no task \"%s\"; did you mean \"%s\"?", shown, names.nearest.best);
    return cab_fail(CAB_EIO, "no file and no task \"%s\"; there are %s", shown, names.text);
}
