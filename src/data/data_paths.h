/* data_paths.h - what a user names as text data, to files. */
#ifndef CAB_DATA_DATA_PATHS_H
#define CAB_DATA_DATA_PATHS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

/* Zero-initialise, free. */
typedef struct cab_data_paths {
    char **items;
    size_t count, capacity;
} cab_data_paths;

/* Adds what `word` stands for: a file, whatever its name; a folder: the files of text or token ids in it and below it, by
 * name, hidden ones and those of file managers left out; else a pattern as the shell has them (* ? [...]).
 * CAB_EIO when there is nothing of that name. CAB_EFORMAT when a folder holds no such file, or files of several kinds: a
 * README.md beside .txt files is no part of the corpus, and a pattern says which are meant. */
cab_status cab_data_paths_add(cab_data_paths *paths, const char *word);
void cab_data_paths_free(cab_data_paths *paths);

/* Whether there is a file or a folder of that name, or one that the pattern matches. What is in it is not looked at. */
bool cab_data_paths_exist(const char *word);

/* Fails for files of data that are not read, and says what to do: a parquet file by the line that converts it. */
cab_status cab_data_paths_check_kind(const char *path);

#endif
