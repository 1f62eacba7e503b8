/* test_augment.c - each random step against its definition: what it may draw, how often, and what it does with it. The
 * operations themselves are compared with Pillow in test_image.c. */
#include "data/augment.h"
#include "data/finished.h"
#include "data/image_adjust.h"

#include <math.h>

static cab_random numbers(uint64_t index)
{
    return (cab_random){.seed = 11, .stream = CAB_STREAM_TEST, .index = index};
}

/* |found - expected| within six standard errors of a mean of n draws. */
static void check_mean(const char *what, double sum, double n, double expected, double deviation)
{
    if (fabs(sum / n - expected) > 6.0 * deviation / sqrt(n))
        fail_msg("%s: mean %g of %g draws, expected %g", what, sum / n, n, expected);
}

static void fill_image(cab_image *image, int width, int height, uint64_t seed)
{
    cab_random random = numbers(seed << 32);
    assert_ok(cab_image_reserve(image, width, height));
    for (int i = 0; i < width * height * 3; i++)
        image->pixels[i] = (uint8_t)cab_random_u32(&random);
}

/* ---- crop ------------------------------------------------------------------------------------------------------------- */

static void test_crop(void **state)
{
    enum { DRAWS = 4000, W = 500, H = 400 };
    const cab_augment a = cab_augment_basic();
    cab_random random = numbers(0);
    double areas = 0.0, ratios = 0.0, left = 0.0;
    int tried = 0;
    (void)state;
    for (int i = 0; i < DRAWS; i++) {
        cab_box b = cab_augment_crop(&a, &random, W, H);
        assert_true(b.x >= 0 && b.y >= 0 && b.width >= 1 && b.height >= 1 && b.x + b.width <= W && b.y + b.height <= H);
        double area = (double)b.width * b.height / (W * H), ratio = (double)b.width / b.height;
        assert_true(area > 0.078 && area <= 1.0 && ratio > 0.745 && ratio < 1.342);
        if (area < 0.4) { /* where every shape fits, areas and shapes are as drawn */
            areas += area;
            ratios += log(ratio);
            left += b.width == W ? 0.5 : (double)b.x / (W - b.width);
            tried++;
        }
    }
    check_mean("area", areas, tried, 0.24, 0.32 / sqrt(12.0));
    check_mean("log of the shape", ratios, tried, 0.0, 2.0 * log(4.0 / 3.0) / sqrt(12.0));
    check_mean("place", left, tried, 0.5, 1.0 / sqrt(12.0));
}

/* A picture in which no drawn shape fits gives its middle, in the nearest allowed shape. */
static void test_crop_fallback(void **state)
{
    cab_augment a = cab_augment_basic();
    cab_random random = numbers(1);
    (void)state;
    a.scale_min = 1.0f;
    cab_box wide = cab_augment_crop(&a, &random, 300, 90), tall = cab_augment_crop(&a, &random, 90, 300);
    assert_true(wide.x == 90 && wide.y == 0 && wide.width == 120 && wide.height == 90);
    assert_true(tall.x == 0 && tall.y == 90 && tall.width == 90 && tall.height == 120);
    cab_box point = cab_augment_crop(&a, &random, 1, 1);
    assert_true(point.width == 1 && point.height == 1);
}

/* ---- a whole image ---------------------------------------------------------------------------------------------------- */

enum { S = 32, FLOATS = 3 * S * S };

static void augment(const cab_augment *a, const cab_image_transform *t, uint64_t index, const cab_image *image,
                    float pixels[FLOATS])
{
    cab_random random = numbers(index);
    cab_image_scratch work = {0};
    const cab_image_feed_options feed = feed_of(t, a, 1);
    uint8_t bytes[FLOATS];
    cab_erasure erasures[1];
    assert_true(feed.erasures <= 1);
    assert_ok(cab_augment_apply(a, t, &random, &work, image, bytes, erasures));
    finish(&feed, &(cab_image_batch){.pixels = bytes, .erasures = erasures, .mix = {.share = 1.0f}}, 1, pixels);
    cab_image_scratch_free(&work);
}

static cab_image_transform small_transform(void)
{
    cab_image_transform t = cab_image_transform_default();
    t.size = S;
    return t;
}

/* With all off, the pixels are those of evaluation; with the flip alone, those or their mirror image, equally often. */
static void test_flip(void **state)
{
    enum { DRAWS = 400 };
    static float plain[FLOATS], mirrored[FLOATS], found[FLOATS];
    const cab_image_transform t = small_transform();
    cab_image image = {0};
    cab_image_scratch work = {0};
    cab_augment a = {0};
    int flips = 0;
    (void)state;
    fill_image(&image, 50, 40, 1);
    assert_ok(cab_image_transform_apply(&t, &work, &image, plain));
    for (int i = 0; i < FLOATS; i++)
        mirrored[i] = plain[i / S * S + (S - 1 - i % S)];
    augment(&a, &t, 0, &image, found);
    assert_memory_equal(found, plain, sizeof plain);
    a.flip = 0.5f;
    for (int i = 0; i < DRAWS; i++) {
        augment(&a, &t, (uint64_t)i << 20, &image, found);
        bool flipped = memcmp(found, mirrored, sizeof found) == 0;
        assert_true(flipped || memcmp(found, plain, sizeof found) == 0);
        flips += flipped;
    }
    check_mean("flips", flips, DRAWS, 0.5, 0.5);
    cab_image_free(&image);
    cab_image_scratch_free(&work);
}

/* Equal numbers give equal pixels, others give others, and the picture itself is left alone. */
static void test_reproducible(void **state)
{
    static float first[FLOATS], second[FLOATS];
    const cab_image_transform t = small_transform();
    const cab_augment a = cab_augment_deit();
    cab_image image = {0}, copy = {0};
    int equal = 0;
    (void)state;
    fill_image(&image, 61, 47, 2);
    fill_image(&copy, 61, 47, 2);
    for (uint64_t i = 0; i < 100; i++) {
        augment(&a, &t, i << 32, &image, first);
        augment(&a, &t, i << 32, &image, second);
        assert_memory_equal(first, second, sizeof first);
        augment(&a, &t, (i + 1) << 32, &image, second);
        equal += memcmp(first, second, sizeof first) == 0;
        for (int k = 0; k < FLOATS; k++)
            assert_true(isfinite(first[k]));
    }
    assert_int_equal(equal, 0);
    assert_memory_equal(image.pixels, copy.pixels, 61 * 47 * 3);
    cab_image_free(&image);
    cab_image_free(&copy);
}

/* ---- RandAugment ------------------------------------------------------------------------------------------------------ */

static void test_randaugment_words(void **state)
{
    cab_randaugment r;
    (void)state;
    assert_ok(cab_randaugment_parse("rand-m9-mstd0.5-inc1", &r));
    assert_true(r.operations == 2 && r.probability == 0.5f && r.magnitude == 9.0f && r.deviation == 0.5f &&
                r.max == 10.0f && r.increasing);
    assert_ok(cab_randaugment_parse("rand-n3-p1-m12.5-mmax15", &r));
    assert_true(r.operations == 3 && r.probability == 1.0f && r.magnitude == 12.5f && r.deviation == 0.0f &&
                r.max == 15.0f && !r.increasing);
    assert_ok(cab_randaugment_parse("none", &r));
    assert_int_equal(r.operations, 0);
    static const char *const wrong[] = {"augmix-m3", "rand-", "rand-m", "rand-m9x", "rand-z3", "rand-n1.5", "randm9"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check_error(cab_randaugment_parse(wrong[i], &r), CAB_EARG, wrong[i], "RandAugment");
}

/* What rand-m9-inc1 without deviation can do: 15 operations, those from `COLOUR` on and the rotation with either sign. */
enum { OPERATIONS = 15, OUTCOMES = 24, IW = 32, IH = 24, BYTES = IW * IH * 3 };
enum { ROTATE = 3, COLOUR = 7, SHEAR_X = 11 };
static const uint8_t gray[3] = {124, 116, 104};

static void apply_operation(int operation, double sign, cab_image *image, cab_image *spare)
{
    static void (*const plain[])(cab_image *) = {cab_adjust_autocontrast, cab_adjust_equalize, cab_adjust_invert};
    static void (*const enhance[])(cab_image *, float) = {cab_adjust_colour, cab_adjust_contrast,
                                                          cab_adjust_brightness};
    const double level = 0.9;
    const float factor = (float)(1.0 + sign * 0.9 * level);
    double m[6] = {1, 0, 0, 0, 1, 0};
    if (operation < ROTATE)
        plain[operation](image);
    else if (operation == ROTATE)
        assert_ok(cab_adjust_rotate(image, sign * 30.0 * level, CAB_FILTER_BICUBIC, gray, spare));
    else if (operation == ROTATE + 1)
        cab_adjust_posterize(image, 4 - 3);
    else if (operation == ROTATE + 2)
        cab_adjust_solarize(image, 256 - 230);
    else if (operation == ROTATE + 3)
        cab_adjust_solarize_add(image, 128, 99);
    else if (operation < COLOUR + 3)
        enhance[operation - COLOUR](image, factor);
    else if (operation < SHEAR_X)
        assert_ok(cab_adjust_sharpness(image, factor, spare));
    else {
        static const int places[] = {1, 3, 2, 5};
        const double values[] = {0.3, 0.3, 0.45 * IW, 0.45 * IH};
        m[places[operation - SHEAR_X]] = sign * level * values[operation - SHEAR_X];
        assert_ok(cab_adjust_affine(image, m, CAB_FILTER_BICUBIC, gray, spare));
    }
}

static int outcomes(const cab_image *image, uint8_t out[OUTCOMES][BYTES], double chance[OUTCOMES])
{
    cab_image work = {0}, spare = {0};
    int count = 0;
    for (int operation = 0; operation < OPERATIONS; operation++) {
        int signs = operation == ROTATE || operation >= COLOUR ? 2 : 1;
        for (int k = 0; k < signs; k++) {
            assert_ok(cab_image_reserve(&work, IW, IH));
            memcpy(work.pixels, image->pixels, BYTES);
            apply_operation(operation, k == 0 ? -1.0 : 1.0, &work, &spare);
            memcpy(out[count], work.pixels, BYTES);
            chance[count++] = 1.0 / OPERATIONS / signs;
        }
    }
    cab_image_free(&work);
    cab_image_free(&spare);
    return count;
}

/* One operation with probability 1: always one of them, each as often as it should be. */
static void test_randaugment_operations(void **state)
{
    enum { DRAWS = 6000 };
    const cab_randaugment r = {1, 1.0f, 9.0f, 0.0f, 10.0f, true};
    static uint8_t expected[OUTCOMES][BYTES];
    double chance[OUTCOMES], counts[OUTCOMES] = {0};
    cab_image image = {0}, work = {0}, spare = {0};
    (void)state;
    fill_image(&image, IW, IH, 3);
    for (int i = 0; i < BYTES; i++) /* autocontrast would change nothing otherwise */
        image.pixels[i] = (uint8_t)(10 + image.pixels[i] * 9 / 10);
    int n = outcomes(&image, expected, chance);
    assert_int_equal(n, OUTCOMES);
    for (int i = 0; i < DRAWS; i++) {
        cab_random random = numbers((uint64_t)i << 20);
        int which = 0;
        assert_ok(cab_image_reserve(&work, IW, IH));
        memcpy(work.pixels, image.pixels, BYTES);
        assert_ok(cab_randaugment_apply(&r, &random, CAB_FILTER_BICUBIC, gray, &work, &spare));
        while (which < n && memcmp(expected[which], work.pixels, BYTES) != 0)
            which++;
        assert_true(which < n);
        counts[which]++;
    }
    for (int k = 0; k < n; k++)
        check_mean("an operation", counts[k], DRAWS, chance[k], sqrt(chance[k] * (1.0 - chance[k])));
    cab_image_free(&image);
    cab_image_free(&work);
    cab_image_free(&spare);
}

/* Two operations with probability 1/2 each: nothing happens a quarter of the time. With a deviation, magnitudes differ, and
 * stay within 0 .. max: brightness by 1 +- 0.9 level never leaves 0.1 .. 1.9. */
static void test_randaugment_probability(void **state)
{
    enum { DRAWS = 2000 };
    cab_randaugment r = {2, 0.5f, 9.0f, 0.5f, 10.0f, true};
    cab_image image = {0}, spare = {0};
    int untouched = 0;
    bool seen[256] = {0};
    (void)state;
    for (int i = 0; i < DRAWS; i++) {
        cab_random random = numbers((uint64_t)i << 20), after = random;
        fill_image(&image, IW, IH, 4);
        assert_ok(cab_randaugment_apply(&r, &random, CAB_FILTER_BICUBIC, gray, &image, &spare));
        for (int k = 0; k < 2; k++) { /* an operation and whether; nothing more is drawn for one that is not applied */
            (void)cab_random_below(&after, 15);
            (void)cab_random_uniform(&after);
        }
        untouched += random.index == after.index;
    }
    check_mean("nothing", untouched, DRAWS, 0.25, sqrt(0.25 * 0.75));
    r = (cab_randaugment){1, 1.0f, 9.0f, 3.0f, 10.0f, true};
    for (int i = 0; i < DRAWS; i++) {
        cab_random random = numbers((uint64_t)i << 20), peek = random;
        assert_ok(cab_image_reserve(&image, 1, 1));
        memset(image.pixels, 100, 3);
        assert_ok(cab_randaugment_apply(&r, &random, CAB_FILTER_BICUBIC, gray, &image, &spare));
        if (cab_random_below(&peek, 15) == 9) /* brightness */
            seen[image.pixels[0]] = true;
    }
    int levels = 0;
    for (int v = 0; v < 256; v++) {
        levels += seen[v];
        assert_true(!seen[v] || (v >= 10 && v <= 190));
    }
    assert_true(levels > 20 && (seen[10] || seen[9]) && (seen[190] || seen[189]));
    cab_image_free(&image);
    cab_image_free(&spare);
}

static void test_jitter(void **state)
{
    enum { DRAWS = 1000 };
    cab_image image = {0};
    int low = 255, high = 0;
    (void)state;
    for (int i = 0; i < DRAWS; i++) {
        cab_random random = numbers((uint64_t)i << 20);
        assert_ok(cab_image_reserve(&image, 1, 1)); /* of one gray pixel only the brightness can change */
        memset(image.pixels, 100, 3);
        cab_augment_jitter(0.3f, &random, &image);
        assert_true(image.pixels[0] == image.pixels[1] && image.pixels[1] == image.pixels[2]);
        low = image.pixels[0] < low ? image.pixels[0] : low;
        high = image.pixels[0] > high ? image.pixels[0] : high;
    }
    assert_true(low >= 69 && low <= 71 && high >= 128 && high <= 130);
    cab_image_free(&image);
}

/* ---- erasing ---------------------------------------------------------------------------------------------------------- */

static void test_erase(void **state)
{
    enum { DRAWS = 1500, SIDE = 40 };
    const cab_augment a = {.erase = 0.25f, .erase_mode = CAB_ERASE_CONST, .erase_count = 1};
    int erased = 0;
    double areas = 0.0;
    (void)state;
    assert_int_equal(cab_augment_erasures(&a), 1);
    for (int i = 0; i < DRAWS; i++) {
        cab_random random = numbers((uint64_t)i << 30);
        cab_erasure e = {.height = 9};
        cab_augment_erase(&a, &random, SIDE, &e);
        if (e.height == 0)
            continue;
        const double area = (double)e.width * e.height / (SIDE * SIDE);
        assert_true(e.x >= 0 && e.y >= 0 && e.x + e.width <= SIDE && e.y + e.height <= SIDE &&
                    e.fill == CAB_ERASE_CONST);
        assert_true(area > 0.012 && area < 0.37 && e.width < SIDE && e.height < SIDE);
        areas += area;
        erased++;
    }
    check_mean("erased images", erased, DRAWS, 0.25, sqrt(0.25 * 0.75));
    check_mean("erased area", areas, erased, 0.17, 0.12);
}

enum { ERASED_SIDE = 64, ERASED_PLANE = ERASED_SIDE * ERASED_SIDE, ERASED_MOST = 3 };

/* What erasing makes of a picture of zeros. */
static void erase_black(const cab_augment *a, uint64_t index, float *pixels)
{
    static uint8_t black[3 * ERASED_PLANE];
    const cab_image_transform t = {.size = ERASED_SIDE, .divisor = 255.0f, .std = {1.0f, 1.0f, 1.0f}};
    const cab_image_feed_options feed = feed_of(&t, a, 1);
    cab_random random = numbers(index);
    cab_erasure erasures[ERASED_MOST];
    cab_augment_erase(a, &random, ERASED_SIDE, erasures);
    finish(&feed, &(cab_image_batch){.pixels = black, .erasures = erasures, .mix = {.share = 1.0f}}, 1, pixels);
}

static void test_erase_modes(void **state)
{
    enum { DRAWS = 60 };
    static float pixels[3 * ERASED_PLANE];
    cab_augment a = {.erase = 1.0f, .erase_mode = CAB_ERASE_PIXEL, .erase_count = ERASED_MOST};
    double sum = 0.0, squares = 0.0, n = 0.0;
    (void)state;
    for (int i = 0; i < DRAWS; i++) {
        erase_black(&a, (uint64_t)i << 30, pixels);
        for (int k = 0; k < 3 * ERASED_PLANE; k++)
            if (pixels[k] != 0.0f) {
                sum += (double)pixels[k];
                squares += (double)pixels[k] * (double)pixels[k];
                n++;
            }
    }
    assert_true(n > 0.05 * DRAWS * 3 * ERASED_PLANE && n < 0.34 * DRAWS * 3 * ERASED_PLANE);
    check_mean("erased pixels", sum, n, 0.0, 1.0);
    check_mean("their squares", squares, n, 1.0, sqrt(2.0));
    a.erase_mode = CAB_ERASE_RAND;
    a.erase_count = 1;
    erase_black(&a, 1, pixels);
    for (int c = 0; c < 3; c++) { /* one colour */
        float colour = 0.0f;
        for (int k = 0; k < ERASED_PLANE; k++) {
            const float value = pixels[c * ERASED_PLANE + k];
            colour = colour == 0.0f ? value : colour;
            assert_true(value == 0.0f || value == colour);
        }
        assert_true(colour != 0.0f);
    }
}

/* Draws behind a rectangle are those that came behind its noise when that was drawn in its place. */
static void test_erase_counts(void **state)
{
    static const int steps[] = {[CAB_ERASE_CONST] = 0, [CAB_ERASE_RAND] = 1, [CAB_ERASE_PIXEL] = -1};
    (void)state;
    for (int mode = CAB_ERASE_CONST; mode <= CAB_ERASE_PIXEL; mode++) {
        const cab_augment a = {.erase = 1.0f, .erase_mode = (cab_erase)mode, .erase_count = 1};
        cab_random random = numbers(9);
        cab_erasure e;
        cab_augment_erase(&a, &random, ERASED_SIDE, &e);
        assert_true(e.height > 0 && e.width > 0);
        const int per_channel = steps[mode] >= 0 ? steps[mode] : (e.width + 3) / 4 * e.height;
        assert_true(random.index == e.random.index + 3 * (uint64_t)per_channel);
        assert_true(random.seed == e.random.seed && random.stream == e.random.stream && random.sub == e.random.sub);
    }
}

/* ---- mixing ----------------------------------------------------------------------------------------------------------- */

/* lambda of mixup is Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)); half of the batches are cut instead. */
static void test_mix_draw(void **state)
{
    enum { DRAWS = 4000, SIDE = 224 };
    cab_augment a = cab_augment_deit();
    double sum = 0.0, squares = 0.0, cuts = 0.0, averages = 0.0;
    (void)state;
    for (int i = 0; i < DRAWS; i++) {
        cab_random random = numbers((uint64_t)i << 20);
        cab_mix m = cab_mix_draw(&a, &random, SIDE);
        assert_true(m.share >= 0.0f && m.share <= 1.0f);
        if (m.cut) {
            cab_box b = m.box;
            assert_true(b.x >= 0 && b.y >= 0 && b.x + b.width <= SIDE && b.y + b.height <= SIDE);
            assert_true(fabs(1.0 - (double)b.width * b.height / (SIDE * SIDE) - (double)m.share) < 1e-6);
            cuts++;
            continue;
        }
        double d = (double)m.share - 0.5;
        sum += d;
        squares += d * d;
        averages++;
    }
    const double variance = 1.0 / (4.0 * (2.0 * 0.8 + 1.0));
    check_mean("cutmix", cuts, DRAWS, 0.5, 0.5);
    check_mean("share of mixup", sum, averages, 0.0, sqrt(variance));
    check_mean("its variance", squares, averages, variance, 0.1);
    a.mix_probability = 0.0f;
    cab_random random = numbers(0);
    assert_true(cab_mix_draw(&a, &random, SIDE).share == 1.0f);
    a = cab_augment_basic();
    assert_true(cab_mix_draw(&a, &random, SIDE).share == 1.0f);
}

/* Where nothing of it falls outside, what is cut is a square of even side. */
static void test_cut_shape(void **state)
{
    enum { DRAWS = 2000, SIDE = 100 };
    const cab_augment a = {.cutmix = 1.0f, .mix_probability = 1.0f};
    int inside = 0;
    (void)state;
    for (int i = 0; i < DRAWS; i++) {
        cab_random random = numbers((uint64_t)i << 20);
        cab_mix m = cab_mix_draw(&a, &random, SIDE);
        cab_box b = m.box;
        assert_true(m.cut);
        if (b.x > 0 && b.y > 0 && b.x + b.width < SIDE && b.y + b.height < SIDE) {
            assert_int_equal(b.width, b.height);
            assert_int_equal(b.width % 2, 0);
            inside++;
        }
    }
    assert_true(inside > DRAWS / 20);
}

/* An odd batch at once, and one picture at a time: the middle one meets itself. */
static void test_mix_pixels(void **state)
{
    enum { B = 3, SIDE = 4, COUNT = 3 * SIDE * SIDE, PLANE = SIDE * SIDE };
    uint8_t bytes[B * COUNT];
    float pixels[B * COUNT];
    const cab_image_transform t = {.size = SIDE, .divisor = 1.0f, .std = {1.0f, 1.0f, 1.0f}};
    const cab_mix average = {.share = 0.25f}, cut = {.share = 0.75f, .cut = true, .box = {1, 2, 2, 1}};
    (void)state;
    for (int i = 0; i < B * COUNT; i++)
        bytes[i] = (uint8_t)i;
    for (int many = 0; many < 2; many++) {
        const cab_image_feed_options feed = {.transform = &t, .batch = many ? 1 : B, .mixed = true, .apart = many};
        finish(&feed, &(cab_image_batch){.pixels = bytes, .mix = average}, B, pixels);
        for (int i = 0; i < COUNT; i++) {
            const int from = i % PLANE * 3 + i / PLANE; /* channels are neighbours in the bytes */
            assert_true(pixels[i] == (float)from * 0.25f + (float)(from + 2 * COUNT) * 0.75f);
            assert_true(pixels[COUNT + i] == (float)(COUNT + from));
            assert_true(pixels[2 * COUNT + i] == (float)(from + 2 * COUNT) * 0.25f + (float)from * 0.75f);
        }
        finish(&feed, &(cab_image_batch){.pixels = bytes, .mix = cut}, B, pixels);
        for (int i = 0; i < COUNT; i++) {
            const int x = i % SIDE, y = i / SIDE % SIDE, from = i % PLANE * 3 + i / PLANE;
            const bool pasted = x >= 1 && x < 3 && y == 2;
            assert_true(pixels[i] == (float)(pasted ? from + 2 * COUNT : from));
            assert_true(pixels[COUNT + i] == (float)(COUNT + from));
            assert_true(pixels[2 * COUNT + i] == (float)(pasted ? from : from + 2 * COUNT));
        }
    }
}

/* share (1 - s) + s / C on the own class, and so on; rows add up to 1. */
static void test_mix_targets(void **state)
{
    enum { B = 4, C = 5 };
    const int32_t labels[B] = {0, 3, 3, 2};
    float t[B * C];
    const cab_mix mix = {.share = 0.7f};
    (void)state;
    cab_mix_targets(&mix, 0.1f, labels, B, C, t);
    for (int i = 0; i < B; i++) {
        double sum = 0.0;
        for (int c = 0; c < C; c++) {
            double own = c == labels[i] ? 0.92 : 0.02, other = c == labels[B - 1 - i] ? 0.92 : 0.02;
            assert_true(fabs((double)t[i * C + c] - (0.7 * own + 0.3 * other)) < 1e-6);
            sum += (double)t[i * C + c];
        }
        assert_true(fabs(sum - 1.0) < 1e-6);
    }
    const cab_mix none = {.share = 1.0f};
    const int32_t absent[2] = {1, -1};
    cab_mix_targets(&none, 0.0f, absent, 2, C, t);
    for (int c = 0; c < C; c++)
        assert_true(t[c] == (c == 1 ? 1.0f : 0.0f) && t[C + c] == 0.0f);
}

static void test_check(void **state)
{
    cab_augment a = cab_augment_deit();
    (void)state;
    assert_ok(cab_augment_check(&a));
    a.flip = 1.5f;
    check_error(cab_augment_check(&a), CAB_EARG, "flip", "expected within 0 to 1");
    a = cab_augment_deit();
    a.scale_min = 1.2f;
    check_error(cab_augment_check(&a), CAB_EARG, "scale", "1.2");
    a = cab_augment_deit();
    a.mixup = NAN;
    check_error(cab_augment_check(&a), CAB_EARG, "mixup", "nan");
    a = cab_augment_deit();
    a.ratio_min = 0.0f;
    check_error(cab_augment_check(&a), CAB_EARG, "ratio", "0.001");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crop),
        cmocka_unit_test(test_crop_fallback),
        cmocka_unit_test(test_flip),
        cmocka_unit_test(test_reproducible),
        cmocka_unit_test(test_randaugment_words),
        cmocka_unit_test(test_randaugment_operations),
        cmocka_unit_test(test_randaugment_probability),
        cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_erase),
        cmocka_unit_test(test_erase_modes),
        cmocka_unit_test(test_erase_counts),
        cmocka_unit_test(test_mix_draw),
        cmocka_unit_test(test_cut_shape),
        cmocka_unit_test(test_mix_pixels),
        cmocka_unit_test(test_mix_targets),
        cmocka_unit_test(test_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
