/* images.c - how fast images are decoded, augmented and handed out as batches.
 *
 *   bench_images DATA [--size S] [--batch B] [--threads T] [--seconds X]
 *   bench_images --make FOLDER                writes 64 JPEGs of 500 x 375 pixels, as detailed as photographs, and ends
 *
 * DATA is a folder of classes, an archive, or a list. Rates are images per second of processor time, which is a rate per
 * core whatever else the machine does; the loader's rate by the clock is printed beside it. bench/images_pytorch.py
 * measures the same steps in torchvision on the same DATA. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/thread.h"
#include "data/image_loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* jpeglib.h needs stdio.h before it. */
#include <jpeglib.h>

enum { MADE = 64, MADE_WIDTH = 500, MADE_HEIGHT = 375, MADE_QUALITY = 90, MADE_CLASSES = 4 };

typedef struct bench {
    const char *data;
    int size, batch, threads;
    double seconds;
    cab_image_set *set;
    cab_image_transform transform;
    uint8_t *pixels;
} bench;

static double processor_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- pictures to measure with ------------------------------------------------------------------------------------------- */

/* Octaves of smooth noise whose strength falls with the frequency, as in photographs. */
static void paint(cab_image *image, uint64_t seed)
{
    enum { OCTAVES = 7 };
    cab_random random = {.seed = seed, .stream = CAB_STREAM_SAMPLE};
    cab_resampler resampler = {0};
    cab_image grid = {0}, layer = {0};
    size_t bytes = (size_t)image->width * (size_t)image->height * 3;
    memset(image->pixels, 128, bytes);
    for (int k = 0; k < OCTAVES; k++) {
        int width = (MADE_WIDTH >> (OCTAVES - 1 - k)) + 1, height = (MADE_HEIGHT >> (OCTAVES - 1 - k)) + 1;
        if (cab_image_reserve(&grid, width, height) != CAB_OK)
            break;
        for (int i = 0; i < width * height * 3; i++)
            grid.pixels[i] = (uint8_t)cab_random_u32(&random);
        if (cab_resample(&resampler, &grid, (cab_box){0, 0, width, height}, CAB_FILTER_BICUBIC, image->width,
                         image->height, NULL, &layer) != CAB_OK)
            break;
        for (size_t i = 0; i < bytes; i++) {
            int value = image->pixels[i] + ((int)layer.pixels[i] - 128) / (k + 2);
            image->pixels[i] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
        }
    }
    cab_image_free(&grid);
    cab_image_free(&layer);
    cab_resampler_free(&resampler);
}

static cab_status write_jpeg(const char *path, const cab_image *image)
{
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors; /* ends the program on an error; none is possible but a lack of memory */
    unsigned char *data = NULL;
    unsigned long size = 0;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &data, &size);
    jpeg.image_width = (JDIMENSION)image->width;
    jpeg.image_height = (JDIMENSION)image->height;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, MADE_QUALITY, TRUE);
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        JSAMPROW row = image->pixels + (size_t)jpeg.next_scanline * (size_t)image->width * 3;
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    cab_status status = cab_file_write(path, data, size);
    free(data);
    return status;
}

static cab_status make(const char *folder)
{
    cab_status status = CAB_OK;
    cab_image image = {0};
    CAB_TRY(cab_image_reserve(&image, MADE_WIDTH, MADE_HEIGHT));
    for (int i = 0; i < MADE; i++) {
        char class[CAB_PATH_MAX], path[CAB_PATH_MAX], name[32];
        snprintf(name, sizeof name, "class%d", i % MADE_CLASSES);
        CAB_GOTO(cab_path_join(class, folder, name));
        CAB_GOTO(cab_directory_make(class));
        snprintf(name, sizeof name, "%02d.jpg", i);
        CAB_GOTO(cab_path_join(path, class, name));
        paint(&image, (uint64_t)i);
        CAB_GOTO(write_jpeg(path, &image));
    }
done:
    cab_image_free(&image);
    return status;
}

/* ---- measuring -------------------------------------------------------------------------------------------------------- */

/* One image, by the step's number; what the steps before it need is done outside of the measured time. */
typedef enum step { STEP_DECODE, STEP_EVALUATE, STEP_AUGMENT, STEPS } step;
static const char *const step_names[STEPS] = {"decode", "resize, crop", "augment (DeiT)"};

static cab_status measure_step(bench *b, step which)
{
    cab_status status = CAB_OK;
    const cab_augment augment = cab_augment_deit();
    cab_image image = {0};
    cab_image_scratch scratch = {0};
    cab_erasure erasure;
    double spent = 0.0;
    uint64_t n = 0;
    for (; spent < b->seconds || n < 8; n++) {
        uint64_t i = n % cab_image_set_count(b->set);
        double start = processor_seconds();
        CAB_GOTO(cab_image_set_load(b->set, i, &image));
        if (which != STEP_DECODE) {
            cab_random random = {1, CAB_STREAM_AUGMENT, (uint32_t)n, 0};
            start = processor_seconds();
            CAB_GOTO(which == STEP_EVALUATE
                         ? cab_image_transform_crop(&b->transform, &scratch, &image, &scratch.image)
                         : cab_augment_apply(&augment, &b->transform, &random, &scratch, &image, b->pixels, &erasure));
        }
        spent += processor_seconds() - start;
    }
    printf("  %-34s %8.0f images/s per core\n", step_names[which], (double)n / spent);
done:
    cab_image_free(&image);
    cab_image_scratch_free(&scratch);
    return status;
}

static cab_status measure_loader(bench *b, const char *name, const cab_augment *augment)
{
    cab_status status = CAB_OK;
    cab_image_loader *loader = NULL;
    const cab_image_loader_options options = {.transform = b->transform,
                                              .augment = augment,
                                              .batch = b->batch,
                                              .seed = 1,
                                              .threads = b->threads,
                                              .targets = true};
    cab_image_batch batch;
    CAB_TRY(cab_image_loader_open(b->set, &options, &loader));
    uint64_t batches = cab_image_loader_batches(loader), n = 1;
    CAB_GOTO(cab_image_loader_batch(loader, 0, &batch)); /* threads and memory are there now */
    double start = cab_seconds(), processor = processor_seconds();
    for (; cab_seconds() - start < b->seconds; n++)
        CAB_GOTO(cab_image_loader_batch(loader, augment == NULL ? n % batches : n, &batch));
    double images = (double)(n - 1) * b->batch;
    printf("  %-34s %8.0f images/s per core, %.0f by the clock\n", name, images / (processor_seconds() - processor),
           images / (cab_seconds() - start));
done:
    cab_image_loader_free(loader);
    return status;
}

static cab_status measure(bench *b)
{
    const cab_image_set_options options = {0};
    const cab_augment augment = cab_augment_deit();
    CAB_TRY(cab_image_set_open(&b->data, 1, &options, &b->set));
    size_t classes = cab_image_set_classes(b->set)->count;
    CAB_TRY(CAB_NEW(&b->pixels, 3 * (size_t)b->size * (size_t)b->size, "pixels"));
    b->transform = cab_image_transform_default();
    b->transform.size = b->size;
    printf("%s: %llu images, %zu classes; to %d x %d, batch %d, %d threads\n", b->data,
           (unsigned long long)cab_image_set_count(b->set), classes, b->size, b->size, b->batch, b->threads);
    for (int k = 0; k < STEPS; k++)
        CAB_TRY(measure_step(b, (step)k));
    CAB_TRY(measure_loader(b, "loader, evaluation", NULL));
    CAB_TRY(measure_loader(b, "loader, training", &augment));
    CAB_TRY(cab_image_set_cache(b->set, NULL, b->threads));
    return measure_loader(b, "loader, training, images cached", &augment);
}

int main(int argc, char **argv)
{
    bench b = {.size = 224, .batch = 64, .threads = cab_thread_count(), .seconds = 2.0};
    cab_status status = CAB_OK;
    if (argc == 3 && strcmp(argv[1], "--make") == 0) {
        status = make(argv[2]);
    } else {
        for (int i = 1; i < argc; i++) {
            bool value = i + 1 < argc;
            if (value && strcmp(argv[i], "--size") == 0)
                b.size = atoi(argv[++i]);
            else if (value && strcmp(argv[i], "--batch") == 0)
                b.batch = atoi(argv[++i]);
            else if (value && strcmp(argv[i], "--threads") == 0)
                b.threads = atoi(argv[++i]);
            else if (value && strcmp(argv[i], "--seconds") == 0)
                b.seconds = atof(argv[++i]);
            else
                b.data = argv[i];
        }
        if (b.data == NULL || b.size < 1 || b.batch < 1 || b.threads < 1) {
            fprintf(stderr, "usage: bench_images DATA [--size S] [--batch B] [--threads T] [--seconds X]\n"
                            "       bench_images --make FOLDER\n");
            return CAB_EARG;
        }
        status = measure(&b);
    }
    if (status != CAB_OK)
        fprintf(stderr, "bench_images: %s\n", cab_error_text());
    cab_image_set_free(b.set);
    cab_free(b.pixels);
    return status;
}
