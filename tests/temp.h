/* temp.h - cmocka, and a directory that lives as long as a test. */
#ifndef TEMP_H
#define TEMP_H

#include "base/file.h"

/* cmocka wants the four before it. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where models run in tests that do not say: CAB_TEST_DEVICE, else the CPU. */
static inline const char *test_device(void)
{
    const char *device = getenv("CAB_TEST_DEVICE");
    return device != NULL && *device != '\0' ? device : "cpu";
}

/* Setup and teardown of cmocka_unit_test_setup_teardown(): *state is the path of an empty directory. */
static inline int temp_setup(void **state)
{
    const char *parent = getenv("TMPDIR");
    char path[CAB_PATH_MAX];
    if (cab_path_join(path, parent == NULL ? "/tmp" : parent, "cab-test-XXXXXX") != CAB_OK || mkdtemp(path) == NULL)
        return -1;
    *state = strdup(path);
    return *state == NULL ? -1 : 0;
}

static inline void temp_remove(const char *path)
{
    DIR *directory = opendir(path);
    if (directory != NULL) {
        for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
            char inner[CAB_PATH_MAX];
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                cab_path_join(inner, path, entry->d_name) == CAB_OK)
                temp_remove(inner);
        }
        closedir(directory);
    }
    remove(path);
}

static inline int temp_teardown(void **state)
{
    temp_remove(*state);
    free(*state);
    return 0;
}

static inline size_t temp_count_files(const char *path)
{
    size_t count = 0;
    DIR *directory = opendir(path);
    assert_non_null(directory);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(directory);
    return count;
}

/* "<directory>/<name>" in a buffer that the next but three calls reuse. */
static inline const char *temp_path(void **state, const char *name)
{
    static char paths[4][CAB_PATH_MAX];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    assert_int_equal(cab_path_join(path, *state, name), CAB_OK);
    return path;
}

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        cab_status assert_ok_status = (call);                                                                          \
        if (assert_ok_status != CAB_OK)                                                                                \
            fail_msg("%s: %s", #call, cab_error_text());                                                               \
    } while (0)

/* The call fails with that status, and its sentence contains `part`. */
#define assert_fails(call, expected, part)                                                                             \
    do {                                                                                                               \
        cab_status assert_fails_status = (call);                                                                       \
        if (assert_fails_status != (expected) || strstr(cab_error_text(), (part)) == NULL)                             \
            fail_msg("%s: status %d, expected %d; text \"%s\", expected \"...%s...\"", #call,                          \
                     (int)assert_fails_status, (int)(expected), cab_error_text(), (part));                             \
    } while (0)

#define TEMP_TEST(function) cmocka_unit_test_setup_teardown(function, temp_setup, temp_teardown)

#endif
