/* image_set.h - labelled images: folders of classes, archives of them, and lists.
 *
 * A path is one of
 *   a folder          <class>/<anything>.jpg|jpeg|png below it; the first folder is the class
 *   an archive        .tar[.gz|.xz|.zst|.bz2] or .zip holding the same; folders that all images share are passed over, and
 *                     "a.tar/train" takes only what lies below train/
 *   a .csv list       lines of path,class (a heading is allowed); paths are relative to the list and may lead into an
 *                     archive ("train.tar/train/cat/1.jpg"). Where every class of the lists is a number, it is the label
 * Several paths make one set. Images are in the order of (label, name), whatever the order on disk or in the archive.
 *
 * Without given classes, the labels are those of the names in alphabetical order. A validation set should be opened with
 * the classes of the training set: labels cannot shift then. */
#ifndef CAB_DATA_IMAGE_SET_H
#define CAB_DATA_IMAGE_SET_H

#include "base/fingerprint.h"
#include "data/expand.h"
#include "data/image.h"
#include "data/image_classes.h"

/* What to do about an image, folder or archive that cannot be used, and about a class that has no image or is unknown. */
typedef enum cab_on_error {
    CAB_ON_ERROR_STOP, /* fail, naming it */
    CAB_ON_ERROR_SKIP  /* count it, name the first few on stderr, go on without it; no label changes for that */
} cab_on_error;

typedef struct cab_image_set_options {
    const cab_classes *classes; /* copied; NULL: those found */
    cab_on_error on_error;
    cab_expand_limits limits; /* of each archive */
    double fraction; /* of every class that is kept, at least one image: ceil(fraction * images); 0 or 1: all */
    uint64_t seed;   /* which ones; a smaller fraction under the same seed keeps a part of the larger one's */
    cab_decode_options decode;
} cab_image_set_options;

typedef struct cab_image_set cab_image_set;

/* Finds the images; none is decoded yet. CAB_EFORMAT when there is none. */
cab_status cab_image_set_open(const char *const *paths, size_t count, const cab_image_set_options *options,
                              cab_image_set **out);
/* The set that cab_image_set_open() would give for the same paths and classes with this fraction and seed. Nothing is read again;
 * `whole`, which has no fraction, must outlive it. */
cab_status cab_image_set_share(const cab_image_set *whole, double fraction, uint64_t seed, cab_image_set **out);
void cab_image_set_free(cab_image_set *set);

uint64_t cab_image_set_count(const cab_image_set *set);
/* Owned by the set. */
const cab_classes *cab_image_set_classes(const cab_image_set *set);
int32_t cab_image_set_label(const cab_image_set *set, uint64_t i);
/* Images of a class lie side by side, from `begin` of it to that of the next; label may be the number of classes. */
uint64_t cab_image_set_class_begin(const cab_image_set *set, int32_t label);
/* "folder/class/file.jpg" or "archive.tar/class/file.jpg", in out[CAB_PATH_MAX]; cut off if longer. */
void cab_image_set_name(const cab_image_set *set, uint64_t i, char *out);
/* Everything that was passed over so far. */
uint64_t cab_image_set_skipped(const cab_image_set *set);

/* Image i, decoded. `image` is reused, or lent what the cache holds: it must not be written to, and be freed by
 * cab_image_free() before the set is. Any thread may call this, each with its own image. */
cab_status cab_image_set_load(cab_image_set *set, uint64_t i, cab_image *image);
/* The same for training: with CAB_ON_ERROR_SKIP an image that cannot be decoded is replaced by the next one of its class
 * that can, so that batches stay a function of the seed. */
cab_status cab_image_set_load_training(cab_image_set *set, uint64_t i, cab_image *image);
/* Whether image i was found to be undecodable, and skipped. */
bool cab_image_set_is_bad(const cab_image_set *set, uint64_t i);

/* Decodes every image once, by `threads` threads with a progress line, so that a bad one is found now and not hours
 * later. Errors are dealt with as the options say. */
cab_status cab_image_set_check(cab_image_set *set, int threads);
/* The same, and keeps the decoded images: in memory when `path` is NULL, else in one file that is mapped from then on and
 * used again as long as the images and the decode options are the same. More than fits is CAB_ENOMEM or CAB_EIO. */
cab_status cab_image_set_cache(cab_image_set *set, const char *path, int threads);

/* What tells this set's content from another's, wherever it lies: labels, names within their folder and sizes of all images, the bytes of 256
 * of them, and the archives' fingerprints. `size` is the sum of the images' sizes. */
cab_status cab_image_set_fingerprint(const cab_image_set *set, cab_fingerprint *out);

/* Writes the images as a .csv list: path,class. Paths below the list's folder are relative, others absolute. */
cab_status cab_image_set_write_list(const cab_image_set *set, const char *path);

#endif
