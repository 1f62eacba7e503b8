/* fuzz_image.c - any bytes as a picture: refused with a sentence, or decoded at the size that the header promised, scaled,
 * and prepared for a model. The first byte chooses whether JPEGs are decoded at a reduced size. */
#include "data/augment.h"

#include <stdlib.h>
#include <string.h>

enum { SIZE = 8, PIXELS_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const cab_image *image)
{
    cab_image_transform transform = cab_image_transform_default();
    cab_augment augment = cab_augment_deit();
    cab_random random = {.seed = 1, .stream = CAB_STREAM_TEST, .index = (uint64_t)image->pixels[0] << 32};
    cab_image_scratch scratch = {0};
    float pixels[3 * SIZE * SIZE];
    uint8_t bytes[3 * SIZE * SIZE];
    cab_erasure erasures[1];
    transform.size = SIZE;
    if (cab_image_transform_apply(&transform, &scratch, image, pixels) == CAB_OK &&
        cab_augment_apply(&augment, &transform, &random, &scratch, image, bytes, erasures) != CAB_OK)
        abort();
    cab_image_scratch_free(&scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cab_image image = {0};
    cab_decode_options options = {.max_pixels = PIXELS_MAX};
    int width = 0, height = 0;
    if (size == 0)
        return 0;
    options.min_side = data[0] % 2 == 0 ? 0 : data[0];
    cab_error_set_text("");
    cab_status probed = cab_image_probe(data + 1, size - 1, "fuzz", &options, &width, &height);
    cab_status status = cab_image_decode(data + 1, size - 1, "fuzz", &options, &image);
    if (status == CAB_OK) {
        if (probed != CAB_OK || image.width != width || image.height != height)
            abort();
        use(&image);
    } else if (cab_error_text()[0] == '\0' || strchr(cab_error_text(), '\n') != NULL) {
        abort();
    }
    cab_image_free(&image);
    return 0;
}
