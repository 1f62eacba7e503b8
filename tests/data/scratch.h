/* scratch.h - what the tests of the data room share: a directory per test, removed afterwards, and checks of errors. */
#ifndef CAB_TESTS_DATA_SCRATCH_H
#define CAB_TESTS_DATA_SCRATCH_H

#include "base/file.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        cab_status assert_status = (call);                                                                             \
        if (assert_status != CAB_OK)                                                                                   \
            fail_msg("%s: %s", #call, cab_error_text());                                                               \
    } while (0)

/* The status, and a single line that names the file and says `words`. */
static inline void check_error(cab_status status, cab_status expected, const char *file, const char *words)
{
    const char *text = cab_error_text();
    if (status != expected || strstr(text, file) == NULL || strstr(text, words) == NULL || strchr(text, '\n') != NULL)
        fail_msg("status %d, \"%s\"; expected %d, the file \"%s\" and \"%s\"", (int)status, text, (int)expected, file,
                 words);
}

enum { SCRATCH_PATHS = 64 };
typedef struct scratch {
    char directory[CAB_PATH_MAX];
    char *paths[SCRATCH_PATHS]; /* handed out, freed at the end */
    int count;
} scratch;

static inline int scratch_setup(void **state)
{
    scratch *s = calloc(1, sizeof *s);
    const char *parent = getenv("TMPDIR");
    if (s == NULL)
        return -1;
    snprintf(s->directory, sizeof s->directory, "%s/cab-data-XXXXXX", parent == NULL ? "/tmp" : parent);
    *state = s;
    return mkdtemp(s->directory) == NULL ? -1 : 0;
}

/* Removes the directory and what is in it, `depth` levels of directories deep. */
static inline void scratch_remove(const char *directory, int depth)
{
    DIR *listing = opendir(directory);
    for (struct dirent *entry = NULL; listing != NULL && (entry = readdir(listing)) != NULL;) {
        char path[CAB_PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            cab_path_join(path, directory, entry->d_name) != CAB_OK)
            continue;
        if (unlink(path) != 0 && depth > 0)
            scratch_remove(path, depth - 1);
    }
    if (listing != NULL)
        closedir(listing);
    rmdir(directory);
}

static inline int scratch_teardown(void **state)
{
    scratch *s = *state;
    scratch_remove(s->directory, 4);
    for (int i = 0; i < s->count; i++)
        free(s->paths[i]);
    free(s);
    return 0;
}

#define scratch_test(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

static inline const char *scratch_path(void **state, const char *name)
{
    scratch *s = *state;
    assert_true(s->count < SCRATCH_PATHS);
    char *path = malloc(CAB_PATH_MAX);
    assert_non_null(path);
    s->paths[s->count++] = path;
    assert_ok(cab_path_join(path, s->directory, name));
    return path;
}

static inline const char *scratch_data(void **state, const char *name, const void *data, size_t size)
{
    const char *path = scratch_path(state, name);
    assert_ok(cab_file_write(path, data, size));
    return path;
}

static inline const char *scratch_text(void **state, const char *name, const char *text)
{
    return scratch_data(state, name, text, strlen(text));
}

/* Entries in a directory; -1 when there is none. */
static inline int scratch_entries(const char *directory)
{
    DIR *listing = opendir(directory);
    int count = 0;
    if (listing == NULL)
        return -1;
    for (struct dirent *entry = NULL; (entry = readdir(listing)) != NULL;)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(listing);
    return count;
}

#endif
