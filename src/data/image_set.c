/* image_set.c - from what was found to a set: labels, order, subset; and single images out of it.
 *
 * items: by (label, name, source), so that the same images give the same set wherever they came from. */
#include "data/image_set.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/image_set_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STRING_BLOCK = 1 << 16, NAMED = 5, LABEL_MAX = 1 << 20 };
static const size_t FILE_BYTES_MAX = (size_t)1 << 30;

/* ---- strings ---------------------------------------------------------------------------------------------------------- */

struct cab_string_block {
    struct cab_string_block *next;
    size_t used, size;
    char text[];
};

cab_status cab_strings_add(cab_strings *strings, const char *text, size_t size, const char **out)
{
    struct cab_string_block *block = strings->blocks;
    if (block == NULL || block->size - block->used <= size) {
        size_t room = size >= STRING_BLOCK ? size + 1 : STRING_BLOCK;
        CAB_TRY(cab_alloc((void **)&block, 1, sizeof *block + room, "names of images"));
        block->size = room;
        block->next = strings->blocks;
        strings->blocks = block;
    }
    char *copy = block->text + block->used;
    memcpy(copy, text, size);
    copy[size] = '\0';
    block->used += size + 1;
    *out = copy;
    return CAB_OK;
}

void cab_strings_free(cab_strings *strings)
{
    while (strings->blocks != NULL) {
        struct cab_string_block *next = strings->blocks->next;
        cab_free(strings->blocks);
        strings->blocks = next;
    }
}

/* ---- collecting ------------------------------------------------------------------------------------------------------- */

static bool is_about_data(cab_status status)
{
    return status == CAB_EFORMAT || status == CAB_EIO || status == CAB_EUNSUPPORTED;
}

cab_status cab_image_set_problem(cab_image_set *set, cab_status status)
{
    if (set->on_error == CAB_ON_ERROR_STOP || !is_about_data(status))
        return status;
    uint64_t before = atomic_fetch_add(&set->skipped, 1);
    if (before < NAMED)
        cab_log_warn("skipped: %s", cab_error_text());
    else if (before == NAMED)
        cab_log_warn("skipped: more of the kind; their number is told at the end");
    return CAB_OK;
}

cab_status cab_image_set_add(cab_image_set *set, cab_image_item item)
{
    CAB_TRY(CAB_GROW(&set->items, &set->capacity, set->count + 1, "the table of images"));
    set->items[set->count++] = item;
    return CAB_OK;
}

cab_status cab_image_set_add_folder_name(cab_image_set *set, const char *class)
{
    CAB_TRY(CAB_GROW(&set->folders, &set->folders_capacity, set->folders_count + 1, "the table of classes"));
    set->folders[set->folders_count++] = class;
    return CAB_OK;
}

cab_status cab_image_set_source(cab_image_set *set, const char *path, bool archive, uint32_t *source)
{
    cab_image_source added = {0};
    for (*source = 0; *source < set->sources_count; ++*source)
        if (strcmp(set->sources[*source].path, path) == 0)
            return CAB_OK;
    CAB_TRY(CAB_GROW(&set->sources, &set->sources_capacity, set->sources_count + 1, "the table of sources"));
    CAB_TRY(cab_strdup(&added.path, path));
    set->sources[set->sources_count++] = added;
    if (!archive)
        return CAB_OK;
    cab_status status = cab_archive_open(path, &set->limits, &set->sources[*source].archive);
    if (status == CAB_EFORMAT && set->on_error == CAB_ON_ERROR_SKIP && set->classes.count == 0)
        return cab_fail(CAB_EFORMAT,
                        "%s: damaged or cut short; it can be skipped only where the classes are given: "
                        "others might follow the damage",
                        path);
    return status == CAB_OK ? CAB_OK : cab_image_set_problem(set, status);
}

/* ---- labels ----------------------------------------------------------------------------------------------------------- */

static int compare_strings(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* "train" and the like hold classes and are none. */
static cab_status check_not_splits(const cab_image_set *set, const char **names, size_t count)
{
    static const char *const splits[] = {"train", "training", "val", "valid", "validation", "test"};
    size_t matches = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < sizeof splits / sizeof *splits; k++)
            matches += strcmp(names[i], splits[k]) == 0;
    if (count == 0 || matches < count)
        return CAB_OK;
    return cab_fail(CAB_EFORMAT, "%s: its folders are parts of a data set, not classes; give %s/%s",
                    set->sources[0].path, set->sources[0].path, names[0]);
}

/* A class of a list as a label; -1: it is no number, or too large. */
static int32_t as_label(const char *text)
{
    int32_t value = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9' && value < LABEL_MAX; p++)
        value = value * 10 + (*p - '0');
    return p == text || *p != '\0' || value >= LABEL_MAX ? -1 : value;
}

/* The largest label when every class of the lists is a number; -1 otherwise. */
static int32_t largest_label(const cab_image_set *set)
{
    int32_t largest = -1;
    for (size_t i = 0; i < set->count && set->only_lists; i++) {
        int32_t label = as_label(set->items[i].class);
        if (label < 0)
            return -1;
        largest = label > largest ? label : largest;
    }
    return largest;
}

static cab_status classes_from_numbers(cab_image_set *set, int32_t largest)
{
    cab_status status = CAB_OK;
    char(*texts)[16] = NULL;
    const char **names = NULL;
    CAB_TRY(CAB_NEW(&texts, (size_t)largest + 1, "names of classes"));
    CAB_GOTO(CAB_NEW(&names, (size_t)largest + 1, "names of classes"));
    for (int32_t i = 0; i <= largest; i++) {
        snprintf(texts[i], sizeof texts[i], "%" PRId32, i);
        names[i] = texts[i];
    }
    CAB_GOTO(cab_classes_from_names(names, (size_t)largest + 1, &set->classes));
done:
    cab_free(texts);
    cab_free((void *)names);
    return status;
}

static cab_status classes_from_names(cab_image_set *set)
{
    cab_status status = CAB_OK;
    const char **names = NULL;
    size_t count = 0, unique = 0;
    CAB_TRY(CAB_NEW(&names, set->count + set->folders_count, "names of classes"));
    for (size_t i = 0; i < set->folders_count; i++)
        names[count++] = set->folders[i];
    for (size_t i = 0; i < set->count; i++) /* images of a folder share one string */
        if (count == 0 || names[count - 1] != set->items[i].class)
            names[count++] = set->items[i].class;
    qsort(names, count, sizeof *names, compare_strings);
    for (size_t i = 0; i < count; i++)
        if (unique == 0 || strcmp(names[unique - 1], names[i]) != 0)
            names[unique++] = names[i];
    CAB_GOTO(check_not_splits(set, names, unique));
    CAB_GOTO(cab_classes_from_names(names, unique, &set->classes));
done:
    cab_free((void *)names);
    return status;
}

/* Gives every item its label; those of unknown classes go. */
static cab_status label_items(cab_image_set *set, bool numbers)
{
    const char *last = NULL;
    int32_t label = -1;
    size_t kept = 0, count = set->count;
    for (size_t i = 0; i < count; i++) {
        cab_image_item item = set->items[i];
        if (item.class != last) {
            last = item.class;
            label = cab_classes_find(&set->classes, last);
            if (label < 0 && numbers && (size_t)as_label(last) < set->classes.count)
                label = as_label(last);
        }
        item.label = label;
        if (label >= 0)
            set->items[kept++] = item;
        else
            CAB_TRY(cab_image_set_problem(
                set, cab_fail(CAB_EFORMAT, "%s/%s: the class \"%s\" is not among the %zu given",
                              set->sources[item.source].path, item.name, last, set->classes.count)));
    }
    set->count = kept;
    return CAB_OK;
}

static int compare_items(const void *left, const void *right)
{
    const cab_image_item *a = left, *b = right;
    if (a->label != b->label)
        return a->label < b->label ? -1 : 1;
    int order = strcmp(a->name, b->name);
    return order != 0 ? order : a->source < b->source ? -1 : a->source > b->source;
}

static cab_status index_classes(cab_image_set *set)
{
    if (set->class_begin == NULL)
        CAB_TRY(CAB_NEW(&set->class_begin, set->classes.count + 1, "the table of classes"));
    memset(set->class_begin, 0, (set->classes.count + 1) * sizeof *set->class_begin);
    for (size_t i = 0; i < set->count; i++)
        set->class_begin[set->items[i].label + 1]++;
    for (size_t c = 0; c < set->classes.count; c++)
        set->class_begin[c + 1] += set->class_begin[c];
    return CAB_OK;
}

static cab_status check_classes(cab_image_set *set)
{
    for (size_t c = 0; c < set->classes.count; c++)
        if (set->class_begin[c] == set->class_begin[c + 1])
            CAB_TRY(cab_image_set_problem(set, cab_fail(CAB_EFORMAT, "%s: the class \"%s\" has no image",
                                                        set->sources[0].path, set->classes.names[c])));
    return CAB_OK;
}

/* ---- subset ----------------------------------------------------------------------------------------------------------- */

/* Keeps ceil(fraction * n) of the n images of each class, in their order. A product such as 0.07 * 100 lies a little above
 * what is meant. */
static cab_status take_fraction(cab_image_set *set, double fraction, uint64_t seed)
{
    const double slack = 1e-9;
    cab_status status = CAB_OK;
    uint64_t *order = NULL;
    bool *keep = NULL;
    size_t kept = 0;
    CAB_TRY(CAB_NEW(&order, set->count, "the order of a class"));
    CAB_GOTO(CAB_NEW(&keep, set->count, "a subset"));
    for (size_t c = 0; c < set->classes.count; c++) {
        uint64_t begin = set->class_begin[c], n = set->class_begin[c + 1] - begin;
        uint64_t wanted = (uint64_t)ceil(fraction * (double)n * (1.0 - slack));
        cab_random random = {.seed = seed, .stream = CAB_STREAM_SUBSET, .sub = (uint32_t)c};
        cab_random_permutation(&random, order, n);
        for (uint64_t i = 0; i < wanted && i < n; i++)
            keep[begin + order[i]] = true;
    }
    for (size_t i = 0; i < set->count; i++)
        if (keep[i])
            set->items[kept++] = set->items[i];
    set->count = kept;
    status = index_classes(set);
done:
    cab_free(order);
    cab_free(keep);
    return status;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

static cab_status build(cab_image_set *set, const cab_image_set_options *options)
{
    int32_t largest = largest_label(set);
    if (set->count == 0)
        return cab_fail(CAB_EFORMAT, "the data: no image found; expected <class>/*.jpg, .jpeg or .png");
    if (set->classes.count == 0)
        CAB_TRY(largest >= 0 ? classes_from_numbers(set, largest) : classes_from_names(set));
    CAB_TRY(label_items(set, largest >= 0));
    if (set->count == 0)
        return cab_fail(CAB_EFORMAT, "%s: no image of a known class found", set->sources[0].path);
    qsort(set->items, set->count, sizeof *set->items, compare_items);
    CAB_TRY(index_classes(set));
    CAB_TRY(check_classes(set));
    if (options->fraction > 0.0 && options->fraction < 1.0)
        CAB_TRY(take_fraction(set, options->fraction, options->seed));
    return CAB_NEW(&set->bad, set->count, "marks of bad images");
}

cab_status cab_image_set_open(const char *const *paths, size_t count, const cab_image_set_options *options,
                              cab_image_set **out)
{
    cab_status status = CAB_OK;
    cab_image_set *set = NULL;
    *out = NULL;
    if (!(options->fraction >= 0.0 && options->fraction <= 1.0))
        return cab_fail(CAB_EARG, "the fraction of the images is %g; expected above 0, at most 1", options->fraction);
    CAB_TRY(CAB_NEW(&set, 1, "a set of images"));
    set->on_error = options->on_error;
    set->limits = options->limits;
    set->decode = options->decode;
    set->only_lists = true;
    if (options->classes != NULL)
        CAB_GOTO(cab_classes_copy(options->classes, &set->classes));
    for (size_t i = 0; i < count; i++) {
        const size_t before = set->count;
        CAB_GOTO(cab_image_set_add_path(set, paths[i]));
        if (set->count == before)
            CAB_GOTO(cab_fail(CAB_EFORMAT,
                              "%s: no image found; expected <class>/*.jpg, .jpeg or .png, or lines that name some",
                              paths[i]));
    }
    CAB_GOTO(build(set, options));
    if (set->others > 0)
        cab_log_info("%s: %" PRIu64 " files that are no images passed over", set->sources[0].path, set->others);
    *out = set;
    set = NULL;
done:
    cab_image_set_free(set);
    return status;
}

cab_status cab_image_set_share(const cab_image_set *whole, double fraction, uint64_t seed, cab_image_set **out)
{
    cab_image_set *set = NULL;
    cab_status status;
    *out = NULL;
    CAB_TRY(CAB_NEW(&set, 1, "a set of images"));
    *set = (cab_image_set){.on_error = whole->on_error,
                           .limits = whole->limits,
                           .decode = whole->decode,
                           .sources = whole->sources,
                           .sources_count = whole->sources_count,
                           .shared = true,
                           .count = whole->count,
                           .only_lists = whole->only_lists};
    CAB_GOTO(cab_classes_copy(&whole->classes, &set->classes));
    CAB_GOTO(CAB_NEW(&set->items, whole->count, "a set of images"));
    memcpy(set->items, whole->items, whole->count * sizeof *set->items);
    CAB_GOTO(index_classes(set));
    CAB_GOTO(take_fraction(set, fraction, seed));
    CAB_GOTO(CAB_NEW(&set->bad, set->count, "marks of bad images"));
    *out = set;
    return CAB_OK;
done:
    cab_image_set_free(set);
    return status;
}

void cab_image_set_free(cab_image_set *set)
{
    if (set == NULL)
        return;
    cab_image_cache_close(set);
    for (size_t i = 0; i < set->sources_count && !set->shared; i++) {
        cab_archive_close(set->sources[i].archive);
        cab_free(set->sources[i].path);
    }
    if (!set->shared)
        cab_free(set->sources);
    cab_free(set->items);
    cab_free((void *)set->folders);
    cab_free(set->class_begin);
    cab_free((void *)set->bad);
    cab_classes_free(&set->classes);
    cab_strings_free(&set->strings);
    cab_free(set);
}

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

uint64_t cab_image_set_count(const cab_image_set *set)
{
    return set->count;
}

const cab_classes *cab_image_set_classes(const cab_image_set *set)
{
    return &set->classes;
}

int32_t cab_image_set_label(const cab_image_set *set, uint64_t i)
{
    return set->items[i].label;
}

uint64_t cab_image_set_class_begin(const cab_image_set *set, int32_t label)
{
    return set->class_begin[label];
}

uint64_t cab_image_set_skipped(const cab_image_set *set)
{
    return atomic_load(&set->skipped);
}

void cab_image_set_name(const cab_image_set *set, uint64_t i, char *out)
{
    const cab_image_item *item = &set->items[i];
    if (item->name[0] == '/')
        snprintf(out, CAB_PATH_MAX, "%s", item->name);
    else
        snprintf(out, CAB_PATH_MAX, "%s/%s", set->sources[item->source].path, item->name);
}

cab_status cab_image_set_bytes(const cab_image_set *set, uint64_t i, const uint8_t **data, size_t *size, char **owned)
{
    const cab_image_item *item = &set->items[i];
    char path[CAB_PATH_MAX];
    *data = item->data;
    *size = item->size;
    *owned = NULL;
    if (item->data != NULL)
        return CAB_OK;
    cab_image_set_name(set, i, path);
    CAB_TRY(cab_file_read(path, FILE_BYTES_MAX, owned, size));
    *data = (const uint8_t *)*owned;
    return CAB_OK;
}

cab_status cab_image_set_decode(cab_image_set *set, uint64_t i, cab_image *image)
{
    const uint8_t *data = NULL;
    size_t size = 0;
    char *owned = NULL, name[CAB_PATH_MAX];
    CAB_TRY(cab_image_set_bytes(set, i, &data, &size, &owned));
    cab_image_set_name(set, i, name);
    cab_status status = cab_image_decode(data, size, name, &set->decode, image);
    cab_free(owned);
    return status;
}

cab_status cab_image_set_bad(cab_image_set *set, uint64_t i, cab_status status)
{
    if (set->on_error == CAB_ON_ERROR_SKIP && is_about_data(status) && atomic_exchange(&set->bad[i], 1) == 0)
        (void)cab_image_set_problem(set, status);
    return status;
}

bool cab_image_set_is_bad(const cab_image_set *set, uint64_t i)
{
    return atomic_load(&set->bad[i]) != 0;
}

cab_status cab_image_set_load(cab_image_set *set, uint64_t i, cab_image *image)
{
    if (cab_image_cache_lend(set, i, image))
        return CAB_OK;
    cab_status status = cab_image_set_decode(set, i, image);
    return status == CAB_OK ? CAB_OK : cab_image_set_bad(set, i, status);
}

cab_status cab_image_set_load_training(cab_image_set *set, uint64_t i, cab_image *image)
{
    cab_status status = cab_image_set_load(set, i, image);
    uint64_t begin = set->class_begin[set->items[i].label], end = set->class_begin[set->items[i].label + 1];
    for (uint64_t k = 1; k < end - begin && set->on_error == CAB_ON_ERROR_SKIP && is_about_data(status); k++)
        status = cab_image_set_load(set, begin + (i - begin + k) % (end - begin), image);
    return status;
}
