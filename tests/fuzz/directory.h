/* directory.h - for targets whose parsers read a directory: one of their own, removed at the end, and silent warnings. */
#ifndef FUZZ_DIRECTORY_H
#define FUZZ_DIRECTORY_H

#include "base/file.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char fuzz_directory[CAB_PATH_MAX];

static inline void fuzz_remove(void)
{
    DIR *listing = opendir(fuzz_directory);
    for (struct dirent *entry = NULL; listing != NULL && (entry = readdir(listing)) != NULL;) {
        char path[CAB_PATH_MAX];
        if (cab_path_join(path, fuzz_directory, entry->d_name) == CAB_OK)
            unlink(path);
    }
    if (listing != NULL)
        closedir(listing);
    rmdir(fuzz_directory);
}

/* A warning at each of a million inputs would be all that a log holds; sanitizers write past the stream. */
static inline void fuzz_open(void)
{
    const char *parent = getenv("TMPDIR");
    FILE *nowhere = fopen("/dev/null", "w");
    snprintf(fuzz_directory, sizeof fuzz_directory, "%s/cab-fuzz-XXXXXX", parent == NULL ? "/tmp" : parent);
    if (mkdtemp(fuzz_directory) == NULL || nowhere == NULL || atexit(fuzz_remove) != 0)
        abort();
    stderr = nowhere;
}

static inline const char *fuzz_path(const char *name)
{
    static char path[CAB_PATH_MAX];
    if (cab_path_join(path, fuzz_directory, name) != CAB_OK)
        abort();
    return path;
}

static inline void fuzz_write(const char *name, const void *data, size_t size)
{
    FILE *stream = fopen(fuzz_path(name), "wb"); /* not atomically: a million times */
    if (stream == NULL || fwrite(data, 1, size, stream) != size || fclose(stream) != 0)
        abort();
}

/* What is refused is refused with one sentence. */
static inline void fuzz_check_error(void)
{
    if (cab_error_text()[0] == '\0' || strchr(cab_error_text(), '\n') != NULL)
        abort();
}

#endif
