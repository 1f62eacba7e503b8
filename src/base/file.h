/* file.h - files from outside are hostile, files of ours are never half-written. */
#ifndef CAB_BASE_FILE_H
#define CAB_BASE_FILE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { CAB_PATH_MAX = 4096 };

/* A whole file, mapped read-only. data is NULL when size is 0. */
typedef struct cab_map {
    const uint8_t *data;
    size_t size;
} cab_map;

cab_status cab_map_open(const char *path, cab_map *map);
void cab_map_close(cab_map *map);

/* Every file that is read is opened by one of the calls here. What is no regular file is refused at once, CAB_EIO: opening
 * a FIFO would wait for a writer, and reading a device may never end. */

/* A stream to read from, closed by the caller with fclose(). */
cab_status cab_file_open(const char *path, FILE **stream);

/* A stream to write lines to as they come, behind what is there (keep) or instead of it. What is no regular file is refused
 * here too. */
cab_status cab_file_append(const char *path, bool keep, FILE **stream);

/* The whole file as a NUL-terminated string owned by the caller; more than max_bytes is an error that says so. */
cab_status cab_file_read(const char *path, size_t max_bytes, char **text, size_t *size);

/* The same of a text: without the byte order mark that UTF-8 may begin with. UTF-16 is refused (encoding.h). */
cab_status cab_file_read_text(const char *path, size_t max_bytes, char **text, size_t *size);

/* A file written beside its destination (temporary.h), then fsynced and renamed over it by commit, with the mode of the old one. Until
 * then the old file stands; abort (or a crash) leaves it untouched. Opening removes what dead processes left in the directory. Errors
 * of fwrite are found at commit. What a symbolic link names is replaced, not the link; devices and pipes are written to. */
typedef struct cab_writer {
    FILE *stream;
    char path[CAB_PATH_MAX];      /* as it was given, for messages */
    char target[CAB_PATH_MAX];    /* links resolved */
    char temporary[CAB_PATH_MAX]; /* "": written to directly */
} cab_writer;

cab_status cab_writer_open(cab_writer *writer, const char *path);
cab_status cab_writer_write(cab_writer *writer, const void *data, size_t size);
cab_status cab_writer_commit(cab_writer *writer);
void cab_writer_abort(cab_writer *writer);

/* Writes a whole file atomically, by the three calls above. */
cab_status cab_file_write(const char *path, const void *data, size_t size);
cab_status cab_file_copy(const char *from, const char *to);

/* "directory/name" in out[CAB_PATH_MAX]; too long is an error. */
cab_status cab_path_join(char *out, const char *directory, const char *name);
/* The part after the last '/'. */
const char *cab_path_name(const char *path);
bool cab_path_exists(const char *path);
bool cab_path_is_directory(const char *path);
/* mkdir -p. */
cab_status cab_directory_make(const char *path);
/* Fails, naming the directory and the reason, unless a file can be created in it now. */
cab_status cab_directory_check_writable(const char *path);

/* The same of a file that is to be written: before the work whose result it takes. */
cab_status cab_file_check_writable(const char *path);

/* FNV-1a, 64 bit, continued from `hash` (start with CAB_HASH_START): keys of caches, never security. */
#define CAB_HASH_START UINT64_C(0xcbf29ce484222325)
uint64_t cab_hash(uint64_t hash, const void *data, size_t size);

#endif
