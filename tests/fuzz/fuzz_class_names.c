/* fuzz_class_names.c - hostile names of classes, by each path that a user has: --classes, a file beside the weights, config.json. The
 * first byte chooses. What loads has a name for every class of the model. */
#include "directory.h"
#include "train/class_names.h"

enum { CLASSES = 5, WAYS = 5 };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_open();
    return 0;
}

static void load(const cab_model *model, const char *file)
{
    char out[32];
    cab_class_names names;
    cab_error_set_text("");
    if (cab_class_names_load(model, file, &names) != CAB_OK) {
        fuzz_check_error();
        return;
    }
    if (names.count != CLASSES)
        abort();
    for (int32_t class = 0; class < names.count; class ++)
        if (cab_class_name(&names, class, out) == NULL)
            abort();
    cab_class_names_free(&names);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const files[WAYS] = {"given", "config.json", "classes.tsv", "classes.txt",
                                            "imagenet1k_wnids.txt"};
    char given[CAB_PATH_MAX];
    cab_model model = {.directory = fuzz_directory, .config = {.n_classes = CLASSES}};
    if (size == 0)
        return 0;
    const char *const name = files[data[0] % WAYS];
    fuzz_write("config.json", "{}", 2);
    fuzz_write(name, data + 1, size - 1);
    snprintf(given, sizeof given, "%s", fuzz_path("given"));
    load(&model, name == files[0] ? given : NULL);
    unlink(fuzz_path(name));
    return 0;
}
