/* fuzz_list.c - any bytes as a list of images (.csv), as a class map and as names of classes, each by the path that a user takes:
 * through a file. Whatever is read is consistent; a failure has its sentence. */
#include "base/file.h"
#include "base/log.h"
#include "data/image_classes.h"
#include "data/image_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(void)
{
    if (cab_error_text()[0] == '\0' || strchr(cab_error_text(), '\n') != NULL)
        abort();
}

static void use_set(const char *path)
{
    cab_image_set *set = NULL;
    cab_image image = {0};
    char name[CAB_PATH_MAX];
    const cab_image_set_options options = {.on_error = CAB_ON_ERROR_SKIP};
    if (cab_image_set_open(&path, 1, &options, &set) != CAB_OK) {
        check_text();
        return;
    }
    const cab_classes *classes = cab_image_set_classes(set);
    for (uint64_t i = 0; i < cab_image_set_count(set); i++) {
        const int32_t label = cab_image_set_label(set, i);
        if (label < 0 || (size_t)label >= classes->count)
            abort();
        cab_image_set_name(set, i, name);
        (void)cab_image_set_load(set, i, &image);
    }
    cab_image_free(&image);
    cab_image_set_free(set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    cab_classes classes;
    snprintf(path, sizeof path, "/tmp/cab-fuzz-%ld.csv", (long)getpid());
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0)
        abort();
    cab_log_quiet(true);
    cab_error_set_text("");
    use_set(path);
    cab_error_set_text("");
    if (cab_classes_load(path, &classes) != CAB_OK)
        check_text();
    else
        for (size_t i = 0; i < classes.count; i++)
            if (cab_classes_find(&classes, classes.names[i]) != (int32_t)i)
                abort();
    cab_classes_free(&classes);
    unlink(path);
    return 0;
}
