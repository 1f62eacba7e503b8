/* image_set_internal.h - what the files of an image set share.
 *
 *   image_sources.c   folders and archives to items      image_list.c   .csv lists, both ways
 *   image_set.c       items to labels, order, subset, loading             image_cache.c   decoded images kept */
#ifndef CAB_DATA_IMAGE_SET_INTERNAL_H
#define CAB_DATA_IMAGE_SET_INTERNAL_H

#include "base/file.h"
#include "data/image_archive.h"
#include "data/image_set.h"

#include <stdatomic.h>

/* Strings that live as long as the set, many to a block. */
typedef struct cab_strings {
    struct cab_string_block *blocks;
} cab_strings;

/* A folder (archive NULL) or an archive. */
typedef struct cab_image_source {
    char *path;
    cab_archive *archive;
} cab_image_source;

typedef struct cab_image_item {
    const char *name;    /* relative to its source, or absolute */
    const char *class;   /* its name as found */
    const uint8_t *data; /* of an archive's member; NULL: a file */
    size_t size;
    uint32_t source;
    int32_t label;
} cab_image_item;

/* A decoded image in the cache file; offset 0: it could not be decoded. */
typedef struct cab_cached_image {
    uint64_t offset;
    uint32_t width, height;
    uint64_t checksum; /* of its pixels */
} cab_cached_image;

struct cab_image_set {
    cab_classes classes;
    cab_on_error on_error;
    cab_expand_limits limits;
    cab_decode_options decode;
    cab_strings strings;
    cab_image_source *sources;
    size_t sources_count, sources_capacity;
    bool shared; /* sources and strings belong to another set */
    cab_image_item *items;
    size_t count, capacity;
    const char **folders; /* names of classes seen as folders, with images or without */
    size_t folders_count, folders_capacity;
    uint64_t *class_begin; /* by label, one more than there are classes */
    uint64_t others;       /* files that are no images */
    bool only_lists;       /* every path was a list */
    atomic_uint_fast64_t skipped;
    atomic_uchar *bad;  /* by image: it was found to be undecodable */
    cab_map cache_file; /* mapped, its table at `cached` */
    const cab_cached_image *cached;
    cab_image *cache_memory; /* by image; without pixels: it could not be decoded */
};

cab_status cab_strings_add(cab_strings *strings, const char *text, size_t size, const char **out);
void cab_strings_free(cab_strings *strings);

/* After a failure with its text: passes `status` on, or counts and names it and returns CAB_OK, as the options say.
 * What is nobody's data, such as a lack of memory, is passed on always. */
cab_status cab_image_set_problem(cab_image_set *set, cab_status status);

cab_status cab_image_set_add(cab_image_set *set, cab_image_item item);
cab_status cab_image_set_add_folder_name(cab_image_set *set, const char *class);
/* The source of this path, opened if it is new. */
cab_status cab_image_set_source(cab_image_set *set, const char *path, bool archive, uint32_t *source);

/* Splits "a.tar/inner" where an archive stands in the path; *inner is "" when the path ends with it. False: none. */
bool cab_image_split_archive(const char *path, char archive[CAB_PATH_MAX], const char **inner);

cab_status cab_image_set_add_path(cab_image_set *set, const char *path);
cab_status cab_image_set_add_list(cab_image_set *set, const char *path);

/* The bytes of image i's file; *owned (to be freed) when they had to be read. */
cab_status cab_image_set_bytes(const cab_image_set *set, uint64_t i, const uint8_t **data, size_t *size, char **owned);
/* Decodes image i whatever the cache holds. */
cab_status cab_image_set_decode(cab_image_set *set, uint64_t i, cab_image *image);
/* Notes that image i is bad, counted and named once, and returns `status`. */
cab_status cab_image_set_bad(cab_image_set *set, uint64_t i, cab_status status);
/* Makes `image` image i of the cache; false when there is no cache or the image is bad. */
bool cab_image_cache_lend(const cab_image_set *set, uint64_t i, cab_image *image);
void cab_image_cache_close(cab_image_set *set);
/* Checks a mapped cache of `images` images in full, pixels included, by `threads` threads: CAB_EFORMAT, with the damage, or with *stale where
 * it is whole, but of an older version or of other images. *table lies in the mapping. */
cab_status cab_image_cache_parse(const char *path, const cab_map *map, uint64_t key, uint64_t images, int threads,
                                 const cab_cached_image **table, bool *stale);

#endif
