/* test_image_loader.c - batches: the same whatever the threads, the order of asking or the cache; every image once an epoch;
 * evaluation in order; bad images. */
#include "base/memory.h"
#include "data/finished.h"
#include "data/image_loader.h"

#include <math.h>
#include <time.h>

#define CORPUS "tests/corpora/images/"
#define TINY "../shared/data/tiny-imagenet"

enum { S = 16, IMAGE = 3 * S * S, CLASSES = 3, IMAGES = 11 };

/* 4, 1 and 6 small pictures, distinct by their kind. */
static const char *make_data(void **state)
{
    static const char *const files[IMAGES] = {"turned1.png", "turned2.png",  "turned3.png",    "turned4.png",
                                              "base.png",    "base.jpg",     "gray.png",       "bilevel.png",
                                              "cmyk.jpg",    "palette4.png", "progressive.jpg"};
    const scratch *s = *state;
    for (int i = 0; i < IMAGES; i++) {
        char folder[CAB_PATH_MAX], path[CAB_PATH_MAX], from[CAB_PATH_MAX], name[64];
        snprintf(name, sizeof name, "data/%c", i < 4 ? 'a' : i < 5 ? 'b' : 'c');
        assert_ok(cab_path_join(folder, s->directory, name));
        assert_ok(cab_directory_make(folder));
        snprintf(name, sizeof name, "%02d%s", i, strrchr(files[i], '.'));
        assert_ok(cab_path_join(path, folder, name));
        assert_ok(cab_path_join(from, CORPUS, files[i]));
        assert_ok(cab_file_copy(from, path));
    }
    return scratch_path(state, "data");
}

static cab_image_set *open_data(const char *path, cab_on_error on_error)
{
    cab_image_set *set = NULL;
    const cab_image_set_options options = {.on_error = on_error};
    assert_ok(cab_image_set_open(&path, 1, &options, &set));
    return set;
}

static cab_image_loader_options options_of(const cab_augment *augment, int batch, int threads)
{
    cab_image_loader_options o = {.transform = cab_image_transform_default(),
                                  .augment = augment,
                                  .batch = batch,
                                  .seed = 5,
                                  .threads = threads,
                                  .targets = true};
    o.transform.size = S;
    return o;
}

static cab_image_loader *open_loader(cab_image_set *set, const cab_image_loader_options *options)
{
    cab_image_loader *loader = NULL;
    assert_ok(cab_image_loader_open(set, options, &loader));
    return loader;
}

/* A batch as a model reads it, with its labels. targets may be NULL. */
static void read_batch(cab_image_loader *loader, const cab_image_loader_options *o, uint64_t index, float *pixels,
                       float *targets, int32_t *labels)
{
    const cab_image_feed_options feed = feed_of(&o->transform, o->augment, o->batch);
    const size_t width = (size_t)cab_image_loader_classes(loader);
    cab_image_batch batch;
    assert_ok(cab_image_loader_batch(loader, index, &batch));
    finish(&feed, &batch, o->batch, pixels);
    if (targets != NULL)
        memcpy(targets, batch.targets, (size_t)o->batch * width * sizeof *targets);
    memcpy(labels, batch.labels, (size_t)o->batch * sizeof *labels);
}

/* A hash of everything in a batch. */
static uint64_t batch_hash(cab_image_loader *loader, uint64_t index, int size)
{
    cab_image_batch batch;
    const size_t n = (size_t)size;
    assert_ok(cab_image_loader_batch(loader, index, &batch));
    uint64_t hash = cab_hash(CAB_HASH_START, batch.pixels, n * IMAGE);
    hash = cab_hash(hash, batch.targets, n * CLASSES * sizeof *batch.targets);
    hash = cab_hash(hash, batch.labels, n * sizeof *batch.labels);
    hash = cab_hash(hash, &batch.mix.share, sizeof batch.mix.share);
    hash = cab_hash(hash, &batch.mix.box, sizeof batch.mix.box);
    return batch.erasures == NULL ? hash : cab_hash(hash, batch.erasures, n * sizeof *batch.erasures);
}

/* ---- training --------------------------------------------------------------------------------------------------------- */

static void test_deterministic(void **state)
{
    enum { B = 4, BATCHES = 9 };
    const cab_augment augment = cab_augment_deit();
    cab_image_set *set = open_data(make_data(state), CAB_ON_ERROR_STOP);
    cab_image_loader_options options = options_of(&augment, B, 1);
    uint64_t expected[BATCHES];
    cab_image_loader *loader = open_loader(set, &options);
    for (uint64_t b = 0; b < BATCHES; b++) {
        expected[b] = batch_hash(loader, b, B);
        for (uint64_t k = 0; k < b; k++)
            assert_true(expected[k] != expected[b]);
    }
    cab_image_loader_free(loader);
    options.threads = 5;
    options.prefetch = 1;
    loader = open_loader(set, &options);
    static const uint64_t jumps[] = {0, 1, 2, 7, 8, 3, 3, 4, 0, 6};
    for (size_t i = 0; i < sizeof jumps / sizeof *jumps; i++)
        assert_true(batch_hash(loader, jumps[i], B) == expected[jumps[i]]);
    cab_image_loader_free(loader);
    assert_ok(cab_image_set_cache(set, NULL, 2));
    options.prefetch = 7;
    loader = open_loader(set, &options);
    for (uint64_t b = 4; b < BATCHES; b++)
        assert_true(batch_hash(loader, b, B) == expected[b]);
    cab_image_loader_free(loader);
    options.seed = 6;
    loader = open_loader(set, &options);
    assert_true(batch_hash(loader, 0, B) != expected[0]);
    cab_image_loader_free(loader);
    cab_image_set_free(set);
}

/* Labels of `batches` batches, one after the other. */
static void read_labels(cab_image_set *set, const cab_image_loader_options *options, int batches, int32_t *labels,
                        float *pixels)
{
    cab_image_loader *loader = open_loader(set, options);
    for (int b = 0; b < batches; b++)
        read_batch(loader, options, (uint64_t)b, pixels + b * options->batch * IMAGE, NULL,
                   labels + b * options->batch);
    cab_image_loader_free(loader);
}

/* Each epoch has every image once, in another order, across the ends of batches; samples do not depend on the size of the
 * batch. */
static void test_epochs(void **state)
{
    enum { EPOCHS = 4, SAMPLES = EPOCHS * IMAGES };
    const cab_augment plain = {0}; /* nothing random: images can be told apart by their pixels */
    cab_image_set *set = open_data(make_data(state), CAB_ON_ERROR_STOP);
    cab_image_loader_options options = options_of(&plain, IMAGES, 2);
    static float whole[SAMPLES * IMAGE], split[SAMPLES * IMAGE], reference[IMAGES * IMAGE];
    int32_t labels[SAMPLES], again[SAMPLES], expected[IMAGES];
    int orders[EPOCHS][IMAGES];
    read_labels(set, &options, EPOCHS, labels, whole);
    options.batch = 4;
    read_labels(set, &options, SAMPLES / 4, again, split);
    assert_memory_equal(labels, again, sizeof labels);
    assert_memory_equal(whole, split, sizeof whole);
    options = options_of(NULL, IMAGES, 2);
    read_labels(set, &options, 1, expected, reference);
    for (int e = 0; e < EPOCHS; e++) {
        bool seen[IMAGES] = {0};
        for (int k = 0; k < IMAGES; k++) {
            const float *pixels = whole + (e * IMAGES + k) * IMAGE;
            int i = 0;
            while (i < IMAGES && memcmp(pixels, reference + i * IMAGE, IMAGE * sizeof *pixels) != 0)
                i++;
            assert_true(i < IMAGES && !seen[i]);
            assert_int_equal(labels[e * IMAGES + k], expected[i]);
            seen[i] = true;
            orders[e][k] = i;
        }
        assert_true(e == 0 || memcmp(orders[e], orders[e - 1], sizeof orders[e]) != 0);
    }
    cab_image_set_free(set);
}

/* Three times in a row, each time augmented anew; an epoch has as many samples as before, and so a third of the images. */
static void test_repeats(void **state)
{
    enum { REPEATS = 3, SAMPLES = 9 };
    cab_augment augment = cab_augment_basic();
    cab_image_set *set = open_data(make_data(state), CAB_ON_ERROR_STOP);
    static float once[IMAGES * IMAGE], thrice[IMAGES * IMAGE];
    int32_t labels[IMAGES], repeated[IMAGES];
    cab_image_loader_options options = options_of(&augment, IMAGES, 2);
    read_labels(set, &options, 1, labels, once);
    augment.repeats = REPEATS;
    read_labels(set, &options, 1, repeated, thrice);
    for (int k = 0; k < SAMPLES; k++)
        assert_int_equal(repeated[k], labels[k / REPEATS]);
    for (int k = 1; k < REPEATS; k++)
        assert_memory_not_equal(thrice, thrice + k * IMAGE, IMAGE * sizeof *thrice);
    assert_memory_equal(thrice, once, IMAGE * sizeof *once);
    cab_image_set_free(set);
}

/* Pixels and targets of a mixed batch come from the same draw. */
static void test_mixed(void **state)
{
    enum { B = 6 };
    cab_augment augment = {0};
    cab_image_set *set = open_data(make_data(state), CAB_ON_ERROR_STOP);
    static float plain[B * IMAGE], mixed[B * IMAGE];
    float targets[B * CLASSES];
    int32_t labels[B];
    cab_image_loader_options options = options_of(&augment, B, 3);
    cab_image_loader *loader = open_loader(set, &options);
    read_batch(loader, &options, 3, plain, targets, labels);
    for (int i = 0; i < B; i++)
        for (int c = 0; c < CLASSES; c++)
            assert_true(targets[i * CLASSES + c] == (c == labels[i] ? 1.0f : 0.0f));
    cab_image_loader_free(loader);
    augment = (cab_augment){.mixup = 1.0f, .mix_probability = 1.0f, .smoothing = 0.3f};
    loader = open_loader(set, &options);
    assert_int_equal(cab_image_loader_classes(loader), CLASSES);
    read_batch(loader, &options, 3, mixed, targets, labels);
    float share = -1.0f; /* what the pixels say */
    for (int k = 0; k < IMAGE; k++) {
        float own = plain[k], other = plain[(B - 1) * IMAGE + k];
        if (fabsf(own - other) > 0.5f) {
            float found = (mixed[k] - other) / (own - other);
            assert_true(share < 0.0f || fabsf(found - share) < 1e-4f);
            share = found;
        }
    }
    assert_true(share > 0.0f && share < 1.0f);
    int own = labels[0], other = labels[B - 1];
    assert_true(fabsf(targets[own] - ((own == other ? 1.0f : share) * 0.7f + 0.1f)) < 1e-4f);
    cab_image_loader_free(loader);
    cab_image_set_free(set);
}

/* Micro-batches, whose partners are in others, are the whole batch in pieces. */
static void test_micro_batches(void **state)
{
    enum { B = 6 };
    const cab_augment augments[] = {
        {.mixup = 1.0f, .mix_probability = 1.0f, .erase = 0.9f, .erase_count = 2, .erase_mode = CAB_ERASE_PIXEL},
        {.cutmix = 1.0f, .mix_probability = 1.0f, .erase = 0.9f, .erase_mode = CAB_ERASE_RAND}};
    cab_image_set *set = open_data(make_data(state), CAB_ON_ERROR_STOP);
    static float whole[B * IMAGE], parts[B * IMAGE];
    for (size_t i = 0; i < sizeof augments / sizeof *augments; i++) {
        cab_image_loader_options options = options_of(&augments[i], B, 2);
        cab_image_loader *loader = open_loader(set, &options);
        cab_image_batch batch;
        for (uint64_t b = 0; b < 3; b++) {
            assert_ok(cab_image_loader_batch(loader, b, &batch));
            cab_image_feed_options feed = feed_of(&options.transform, &augments[i], B);
            finish(&feed, &batch, B, whole);
            feed.apart = true;
            for (feed.batch = 1; feed.batch <= 3; feed.batch++) {
                finish(&feed, &batch, B, parts);
                assert_memory_equal(whole, parts, sizeof whole);
            }
        }
        cab_image_loader_free(loader);
    }
    cab_image_set_free(set);
}

/* ---- lending ---------------------------------------------------------------------------------------------------------- */

/* A device whose copies end when sent() is asked for. */
typedef struct device {
    cab_backend backend;          /* first */
    const cab_image_batch *reads; /* NULL: nothing is under way */
    uint64_t hash;
    int blocks, waits;
} device;

static cab_status device_sent(cab_backend *backend)
{
    device *d = (device *)backend;
    if (d->reads != NULL)
        assert_true(cab_hash(CAB_HASH_START, d->reads->pixels, 4 * IMAGE) ==
                    d->hash); /* what was lent is still there */
    d->reads = NULL;
    d->waits++;
    return CAB_OK;
}

static cab_status device_allocate(cab_backend *backend, size_t bytes, const char *what, void **out)
{
    ((device *)backend)->blocks++;
    return cab_alloc(out, bytes, 1, what);
}

static void device_release(cab_backend *backend, void *block)
{
    ((device *)backend)->blocks -= block != NULL;
    cab_free(block);
}

/* What is lent keeps its content until the device has read it, whatever the threads load beside it. */
static void test_lent(void **state)
{
    enum { B = 4 };
    const cab_augment augment = cab_augment_basic();
    cab_image_set *set = open_data(make_data(state), CAB_ON_ERROR_STOP);
    device d = {.backend = {.sent = device_sent, .host_allocate = device_allocate, .host_release = device_release}};
    cab_image_loader_options options = options_of(&augment, B, 3);
    options.prefetch = 1;
    options.backend = &d.backend;
    cab_image_loader *loader = open_loader(set, &options);
    assert_int_equal(d.blocks, 3);
    for (uint64_t b = 0; b < 40; b++) {
        cab_image_batch batch;
        assert_ok(cab_image_loader_batch(loader, b % 7 == 6 ? 3 : b, &batch));
        d.hash = cab_hash(CAB_HASH_START, batch.pixels, B * IMAGE);
        d.reads = &batch;
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
        assert_int_equal(d.waits, b + 1);
        assert_ok(device_sent(&d.backend));
        d.waits--;
    }
    cab_image_loader_free(loader);
    assert_int_equal(d.blocks, 0);
    cab_image_set_free(set);
}

/* ---- evaluation ------------------------------------------------------------------------------------------------------- */

static void test_evaluation(void **state)
{
    enum { B = 4 };
    static const int32_t map[CLASSES] = {7, 2, 9};
    cab_image_set *set = open_data(make_data(state), CAB_ON_ERROR_STOP);
    cab_image_loader_options options = options_of(NULL, B, 2);
    float pixels[B * IMAGE], targets[B * 10], expected[IMAGE];
    int32_t labels[B];
    cab_image_batch batch;
    cab_image image = {0};
    cab_image_scratch work = {0};
    options.target_map = map;
    options.classes = 10;
    cab_image_loader *loader = open_loader(set, &options);
    assert_int_equal(cab_image_loader_batches(loader), 3);
    for (uint64_t b = 0; b < 3; b++) {
        read_batch(loader, &options, b, pixels, targets, labels);
        for (uint64_t j = 0; j < B; j++) {
            uint64_t i = b * B + j;
            const float *found = pixels + j * IMAGE;
            float sum = 0.0f;
            for (int c = 0; c < 10; c++)
                sum += targets[j * 10 + (uint64_t)c];
            if (i >= IMAGES) {
                assert_int_equal(labels[j], -1);
                const cab_image_transform *t = &options.transform; /* black */
                assert_true(sum == 0.0f && found[0] == -t->mean[0] / t->std[0] &&
                            found[IMAGE - 1] == -t->mean[2] / t->std[2]);
                continue;
            }
            assert_int_equal(labels[j], map[cab_image_set_label(set, i)]);
            assert_true(sum == 1.0f && targets[j * 10 + (uint64_t)labels[j]] == 1.0f);
            assert_ok(cab_image_set_load(set, i, &image));
            assert_ok(cab_image_transform_apply(&options.transform, &work, &image, expected));
            assert_memory_equal(found, expected, sizeof expected);
        }
    }
    check_error(cab_image_loader_batch(loader, 3, &batch), CAB_EARG, "", "batch 3 of 3");
    cab_image_loader_free(loader);
    cab_image_free(&image);
    cab_image_scratch_free(&work);
    cab_image_set_free(set);
}

/* ---- what is wrong ---------------------------------------------------------------------------------------------------- */

static void test_bad_images(void **state)
{
    enum { B = 6 };
    const char *path = make_data(state);
    const cab_augment plain = {0};
    static float pixels[2 * B * IMAGE], good[IMAGES * IMAGE];
    int32_t labels[2 * B], expected[IMAGES];
    cab_image_batch batch;
    cab_image_loader_options options = options_of(NULL, IMAGES, 2);
    cab_image_set *set = open_data(path, CAB_ON_ERROR_STOP);
    read_labels(set, &options, 1, expected, good);
    cab_image_set_free(set);
    assert_ok(cab_file_copy(CORPUS "cut.jpg", scratch_path(state, "data/c/05.jpg")));
    set = open_data(path, CAB_ON_ERROR_STOP);
    options = options_of(NULL, B, 2);
    cab_image_loader *loader = open_loader(set, &options);
    for (int i = 0; i < 2; i++) /* told each time, by the thread that asks */
        check_error(cab_image_loader_batch(loader, 0, &batch), CAB_EFORMAT, "c/05.jpg", "truncated");
    assert_ok(cab_image_loader_batch(loader, 1, &batch));
    cab_image_loader_free(loader);
    cab_image_set_free(set);
    set = open_data(path, CAB_ON_ERROR_SKIP);
    read_labels(set, &options, 2, labels, pixels);
    for (int i = 0; i < IMAGES; i++) {
        assert_int_equal(labels[i], i == 5 ? -1 : expected[i]);
        assert_true(i == 5 || memcmp(pixels + i * IMAGE, good + i * IMAGE, IMAGE * sizeof *good) == 0);
    }
    assert_int_equal(cab_image_set_skipped(set), 1);
    options = options_of(&plain, IMAGES, 3);
    read_labels(set, &options, 1, labels, pixels);
    int replaced = 0;
    for (int k = 0; k < IMAGES; k++)
        replaced += memcmp(pixels + k * IMAGE, good + 6 * IMAGE, IMAGE * sizeof *good) == 0;
    assert_int_equal(replaced, 2); /* image 6 stands in for image 5 of its class */
    assert_int_equal(cab_image_set_skipped(set), 1);
    cab_image_set_free(set);
}

static void test_options(void **state)
{
    cab_image_set *set = open_data(make_data(state), CAB_ON_ERROR_STOP);
    cab_image_loader *loader = NULL;
    cab_augment augment = cab_augment_deit();
    static const int32_t outside[CLASSES] = {0, 1, 3};
    cab_image_loader_options options = options_of(NULL, 0, 1);
    check_error(cab_image_loader_open(set, &options, &loader), CAB_EARG, "", "a batch of 0 images");
    options = options_of(NULL, 1, 1);
    options.classes = 2;
    check_error(cab_image_loader_open(set, &options, &loader), CAB_EFORMAT, "\"c\"",
                "is class 2 of the model; expected 0 to 1");
    options.classes = 3;
    options.target_map = outside;
    check_error(cab_image_loader_open(set, &options, &loader), CAB_EFORMAT, "\"c\"", "is class 3 of the model");
    options = options_of(&augment, 1, 1);
    augment.erase = 2.0f;
    check_error(cab_image_loader_open(set, &options, &loader), CAB_EARG, "", "erasing");
    assert_null(loader);
    cab_image_set_free(set);
}

/* Freed with work under way, and asked far ahead. */
static void test_stop(void **state)
{
    cab_augment augment = cab_augment_deit();
    cab_image_set *set = open_data(make_data(state), CAB_ON_ERROR_STOP);
    cab_image_loader_options options = options_of(&augment, 8, 4);
    for (int i = 0; i < 20; i++) {
        cab_image_loader *loader = open_loader(set, &options);
        if (i % 2 == 0)
            (void)batch_hash(loader, UINT64_C(1) << (3 * i), 8);
        cab_image_loader_free(loader);
    }
    cab_image_set_free(set);
}

static void test_tiny_imagenet(void **state)
{
    enum { B = 50 };
    const char *path = TINY "/val.tar.xz";
    const cab_augment augment = cab_augment_deit();
    cab_image_set *set = NULL;
    (void)state;
    if (!cab_path_exists(path)) {
        print_message("skipped: " TINY " is absent\n");
        skip();
    }
    const cab_image_set_options few = {.fraction = 0.02};
    assert_ok(cab_image_set_open(&path, 1, &few, &set));
    cab_image_loader_options options = options_of(&augment, B, 2);
    static float pixels[B * IMAGE], targets[B * 200];
    int32_t labels[B];
    cab_image_loader *loader = open_loader(set, &options);
    assert_int_equal(cab_image_loader_batches(loader), 4);
    double mean = 0.0;
    for (uint64_t b = 0; b < 4; b++) {
        read_batch(loader, &options, b, pixels, targets, labels);
        for (int i = 0; i < B * IMAGE; i++)
            mean += (double)pixels[i] / (4.0 * B * IMAGE);
        for (int i = 0; i < B; i++) {
            double sum = 0.0;
            for (int c = 0; c < 200; c++)
                sum += (double)targets[i * 200 + c];
            assert_true(labels[i] >= 0 && labels[i] < 200 && fabs(sum - 1.0) < 1e-4);
        }
    }
    assert_true(fabs(mean) < 0.3); /* normalised by the statistics of ImageNet */
    cab_image_loader_free(loader);
    cab_image_set_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        scratch_test(test_deterministic),     scratch_test(test_epochs),
        scratch_test(test_repeats),           scratch_test(test_mixed),
        scratch_test(test_micro_batches),     scratch_test(test_lent),
        scratch_test(test_evaluation),        scratch_test(test_bad_images),
        scratch_test(test_options),           scratch_test(test_stop),
        cmocka_unit_test(test_tiny_imagenet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
