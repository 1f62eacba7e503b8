/* image_archive.h - the images in a .tar (plain, or .gz, .xz, .zst, .bz2) or .zip, without unpacking it to disk.
 *
 * What lies in the file uncompressed (a plain tar, stored members of a zip) is read in place, from the mapping; the rest is
 * expanded into memory once, when the archive is opened. */
#ifndef CAB_DATA_IMAGE_ARCHIVE_H
#define CAB_DATA_IMAGE_ARCHIVE_H

#include "base/error.h"
#include "data/expand.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cab_archive cab_archive;

/* A file or, with `directory` set, a folder. Files whose names are no image's have no data. */
typedef struct cab_member {
    const char *name; /* without "./" in front, without '/' at the end */
    const uint8_t *data;
    size_t size;
    bool directory;
} cab_member;

/* Whether the name ends as an archive's does. */
bool cab_archive_is_name(const char *path);

/* An archive that is damaged, cut short or beyond the limits is CAB_EFORMAT, and *out then holds the members before that, if
 * any; otherwise *out is NULL on failure. More data than half of the machine's free memory is CAB_ENOMEM. */
cab_status cab_archive_open(const char *path, const cab_expand_limits *limits, cab_archive **out);
/* The same from memory that must outlive the archive. */
cab_status cab_archive_parse(const void *data, size_t size, const char *name, const cab_expand_limits *limits,
                             cab_archive **out);
void cab_archive_close(cab_archive *archive);

/* In the order of the archive. */
size_t cab_archive_count(const cab_archive *archive);
const cab_member *cab_archive_at(const cab_archive *archive, size_t i);
/* The file of exactly this name, the last one if there are several; NULL: none. */
const cab_member *cab_archive_find(const cab_archive *archive, const char *name);

#endif
