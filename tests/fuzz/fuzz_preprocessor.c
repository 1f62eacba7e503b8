/* fuzz_preprocessor.c - hostile preprocessing: config.json (timm's, or transformers'), the byte 0xFF, preprocessor_config.json.
 * What loads prepares a picture without a crash, and comes back as it was written. */
#include "data/image_transform.h"
#include "directory.h"

enum { WIDTH = 9, HEIGHT = 14, PIXELS_MAX = 96 };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_open();
    return 0;
}

static void use(const cab_image_transform *t)
{
    static float pixels[3 * PIXELS_MAX * PIXELS_MAX];
    cab_image_scratch scratch = {0};
    cab_image image = {0};
    cab_image_transform again;
    if (t->size < 1 || !(t->crop > 0 && t->crop <= 1) || cab_image_transform_edge(t) < t->size)
        abort();
    if (t->size <= PIXELS_MAX && cab_image_transform_edge(t) <= 4 * PIXELS_MAX) {
        if (cab_image_reserve(&image, WIDTH, HEIGHT) != CAB_OK)
            abort();
        memset(image.pixels, 77, (size_t)WIDTH * HEIGHT * 3);
        if (cab_image_transform_apply(t, &scratch, &image, pixels) != CAB_OK)
            fuzz_check_error();
    }
    if (cab_image_transform_edge(t) <= 1 << 14) { /* the largest that is read */
        unlink(fuzz_path("preprocessor_config.json"));
        if (cab_image_transform_save(t, fuzz_directory) != CAB_OK ||
            cab_image_transform_load(fuzz_directory, &again) != CAB_OK || again.size != t->size ||
            again.resize != t->resize || again.filter != t->filter ||
            cab_image_transform_edge(&again) != cab_image_transform_edge(t))
            abort();
    }
    cab_image_free(&image);
    cab_image_scratch_free(&scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *mark = size == 0 ? NULL : memchr(data, 0xFF, size);
    const size_t first = mark == NULL ? size : (size_t)(mark - data);
    cab_image_transform t;
    fuzz_write("config.json", data, first);
    unlink(fuzz_path("preprocessor_config.json"));
    if (mark != NULL)
        fuzz_write("preprocessor_config.json", mark + 1, size - first - 1);
    cab_error_set_text("");
    if (cab_image_transform_load(fuzz_directory, &t) != CAB_OK)
        fuzz_check_error();
    else
        use(&t);
    return 0;
}
