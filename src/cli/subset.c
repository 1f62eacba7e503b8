/* subset.c - cab subset: a share of every class, drawn by a seed and written down as a list. */
#include "base/log.h"
#include "cli/command.h"
#include "data/image_set.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SUBSET_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                        \
    REAL(fraction, 'f', "X", 0.1, 0, 1, "share of every class, rounded up to whole images; above 0")                   \
    INT(seed, 's', "N", 1, 0, INT64_MAX, "which images; a smaller share is a part of a larger one of the same seed")   \
    TEXT(out, 'o', "FILE", "", "the list to write, .csv")                                                              \
    TEXT(classes, 'c', "FILE", "", "class map: the classes and their order; without it those found, by name")          \
    ENUM(on_error, 0, "WORD", 0, "stop|skip", "classes without an image, unknown classes, damaged archives")           \
    INT(max_member, 0, "MIB", 0, 0, 1 << 30, "what a member of an archive, or a document, may expand to; 0: 1024")     \
    INT(max_expanded, 0, "MIB", 0, 0, 1 << 30, "what a packed file may expand to in all; 0: 256 times its size")       \
    BOOL(quiet, 'q', "no messages but warnings")

struct subset_options {
    CAB_FIELDS(SUBSET_OPTIONS)
};
CAB_FLAG_TABLE(subset_table, struct subset_options, SUBSET_OPTIONS)

static bool ends_in_csv(const char *path)
{
    size_t length = strlen(path);
    return length > 4 && strcmp(path + length - 4, ".csv") == 0;
}

static cab_status write_subset(const struct subset_options *o, const cab_list *data, const cab_classes *classes)
{
    const cab_image_set_options options = {.classes = classes,
                                           .on_error = o->on_error == 1 ? CAB_ON_ERROR_SKIP : CAB_ON_ERROR_STOP,
                                           .limits = cab_expand_limits_mib(o->max_member, o->max_expanded),
                                           .fraction = o->fraction,
                                           .seed = (uint64_t)o->seed};
    cab_image_set *set = NULL;
    CAB_TRY(cab_image_set_open((const char *const *)data->items, data->count, &options, &set));
    cab_status status = cab_image_set_write_list(set, o->out);
    if (status == CAB_OK) {
        printf("%s: %" PRIu64 " images of %zu classes", o->out, cab_image_set_count(set),
               cab_image_set_classes(set)->count);
        if (cab_image_set_skipped(set) > 0)
            printf(", %" PRIu64 " skipped", cab_image_set_skipped(set));
        printf("\n");
    }
    cab_image_set_free(set);
    return status;
}

static cab_status run_subset(const void *given, const cab_list *operands)
{
    const struct subset_options *o = given;
    cab_classes classes = {0};
    cab_log_quiet(o->quiet);
    if (!ends_in_csv(o->out))
        return cab_fail(CAB_EARG, "--out: found \"%s\", expected the name of a list to write, list.csv", o->out);
    if (!(o->fraction > 0.0))
        return cab_fail(CAB_EARG, "--fraction: found %g, expected a number above 0, at most 1", o->fraction);
    if (o->classes[0])
        CAB_TRY(cab_classes_load(o->classes, &classes));
    cab_status status = write_subset(o, operands, o->classes[0] ? &classes : NULL);
    cab_classes_free(&classes);
    return status;
}

static const cli_example examples[] = {
    {"cab subset train.tar --fraction 0.1 --out train-10.csv", "a tenth of every class, for distilling"},
    {"cab subset photos/train -f 0.01 --seed 7 -o few.csv", "one image in a hundred of a folder"},
    {0}};

const cli_command cli_subset = {
    .name = "subset",
    .summary = "draw a share of every class of an image set",
    .synopsis = "DATA...",
    .description =
        "Writes a list of a share of the images in DATA, the same share of every class, drawn by a seed. DATA is a "
        "folder of classes, an archive of it, or a list. No image is copied: the list (path,class) names them "
        "where they lie, and can be given wherever a set of images is read.",
    .examples = examples,
    .options = subset_table,
    .options_size = sizeof(struct subset_options),
    .operands_min = 1,
    .operands_max = UINT32_MAX,
    .run = run_subset,
};
