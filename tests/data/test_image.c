/* test_image.c - decoding, resampling and colour operations against Pillow (tests/corpora/images/expected.tsv, written by
 * tests/corpora/make_images.py), and the evaluation transform against a real teacher's pixels. */
#include "base/memory.h"
#include "base/random.h"
#include "data/image_adjust.h"
#include "data/image_internal.h"
#include "data/image_transform.h"
#include "data/resample_kernels.h"
#include "data/scratch.h"
#include "io/safetensors.h"

#include <inttypes.h>
#include <math.h>

#define CORPUS "tests/corpora/images/"
#define VIT "../shared/teachers/vit-tiny"
static const uint8_t fill[3] = {124, 116, 104};

/* ---- the table -------------------------------------------------------------------------------------------------------- */

enum { FIELDS_MAX = 10 };
typedef void (*row_check)(char *fields[], const cab_image *base);

/* Calls `check` for each row of this kind; there must be at least `least`. */
static void for_rows(const char *kind, int least, row_check check)
{
    char *text = NULL;
    size_t size = 0;
    int rows = 0;
    cab_map map;
    cab_image base = {0};
    cab_decode_options options = {0};
    assert_ok(cab_map_open(CORPUS "base.png", &map));
    assert_ok(cab_image_decode(map.data, map.size, "base.png", &options, &base));
    assert_ok(cab_file_read(CORPUS "expected.tsv", 1 << 20, &text, &size));
    for (char *line = text, *next = NULL; *line != '\0'; line = next) {
        char *fields[FIELDS_MAX] = {0};
        next = strchr(line, '\n');
        *next++ = '\0';
        for (int i = 0; i < FIELDS_MAX && line != NULL; i++) {
            fields[i] = line;
            line = strchr(line, '\t');
            if (line != NULL)
                *line++ = '\0';
        }
        if (strcmp(fields[0], kind) == 0) {
            rows++;
            check(fields + 1, &base);
        }
    }
    if (rows < least)
        fail_msg("%d rows of %s, expected at least %d", rows, kind, least);
    cab_free(text);
    cab_image_free(&base);
    cab_map_close(&map);
}

static void check_pixels(const char *what, const cab_image *image, const char *width, const char *height,
                         const char *hash)
{
    char found[17];
    uint64_t value = cab_hash(CAB_HASH_START, image->pixels, (size_t)image->width * (size_t)image->height * 3);
    snprintf(found, sizeof found, "%016" PRIx64, value);
    if (image->width != atoi(width) || image->height != atoi(height) || strcmp(found, hash) != 0)
        fail_msg("%s: %d x %d pixels, hash %s; expected %s x %s, %s", what, image->width, image->height, found, width,
                 height, hash);
}

static cab_status decode_file(const char *name, const cab_decode_options *options, cab_image *image)
{
    char path[CAB_PATH_MAX];
    cab_map map;
    assert_ok(cab_path_join(path, CORPUS, name));
    assert_ok(cab_map_open(path, &map));
    cab_status status = cab_image_decode(map.data, map.size, name, options, image);
    int width = 0, height = 0;
    if (status == CAB_OK) {
        assert_ok(cab_image_probe(map.data, map.size, name, options, &width, &height));
        assert_int_equal(width, image->width);
        assert_int_equal(height, image->height);
    }
    cab_map_close(&map);
    return status;
}

/* ---- decoding --------------------------------------------------------------------------------------------------------- */

static void check_decode(char *f[], const cab_image *base)
{
    cab_image image = {0};
    cab_decode_options options = {0};
    (void)base;
    assert_ok(decode_file(f[0], &options, &image));
    check_pixels(f[0], &image, f[1], f[2], f[3]);
    cab_image_free(&image);
}

static void check_reduce(char *f[], const cab_image *base)
{
    cab_image image = {0};
    cab_decode_options options = {.min_side = atoi(f[1])};
    (void)base;
    assert_ok(decode_file(f[0], &options, &image));
    check_pixels(f[0], &image, f[2], f[3], f[4]);
    cab_image_free(&image);
}

static void check_refuse(char *f[], const cab_image *base)
{
    cab_image image = {0};
    cab_decode_options options = {0};
    (void)base;
    check_error(decode_file(f[0], &options, &image), CAB_EFORMAT, f[0], f[1]);
    cab_image_free(&image);
}

static void test_decode(void **state)
{
    (void)state;
    for_rows("decode", 30, check_decode);
    for_rows("reduce", 6, check_reduce);
}

static void test_refuse(void **state)
{
    (void)state;
    for_rows("refuse", 11, check_refuse);
}

/* Every byte that may be missing is missed, or the picture is as it was. */
static void test_truncated(void **state)
{
    static const char *const names[] = {CORPUS "turned6.jpg", CORPUS "turned6.png"};
    (void)state;
    for (size_t n = 0; n < 2; n++) {
        cab_map map;
        cab_image whole = {0}, image = {0};
        cab_decode_options options = {0};
        int refused = 0;
        assert_ok(cab_map_open(names[n], &map));
        assert_ok(cab_image_decode(map.data, map.size, names[n], &options, &whole));
        for (size_t size = 0; size < map.size; size++) {
            if (cab_image_decode(map.data, size, "cut", &options, &image) != CAB_OK) {
                assert_non_null(strstr(cab_error_text(), "cut: "));
                refused++;
            } else if (image.width != whole.width || memcmp(image.pixels, whole.pixels, 9 * 6 * 3) != 0) {
                fail_msg("%s: %zu of %zu bytes were taken for the whole", names[n], size, map.size);
            }
        }
        assert_true(refused > (int)map.size * 3 / 4);
        cab_image_free(&whole);
        cab_image_free(&image);
        cab_map_close(&map);
    }
}

static void test_limits(void **state)
{
    cab_image image = {0};
    cab_decode_options options = {.max_pixels = 61 * 47 - 1};
    (void)state;
    check_error(decode_file("base.jpg", &options, &image), CAB_EFORMAT, "base.jpg",
                "61 x 47 pixels; expected 1 to 2866");
    options.max_pixels++;
    assert_ok(decode_file("base.jpg", &options, &image));
    cab_image_free(&image);
    assert_int_equal(cab_image_reserve(&image, 0, 5), CAB_ESHAPE);
    assert_int_equal(cab_image_reserve(&image, 5, -1), CAB_ESHAPE);
    cab_image_free(&image);
}

static void test_exif(void **state)
{
    (void)state;
    const uint8_t big[] = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 18, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0};
    assert_int_equal(cab_exif_orientation(big, sizeof big), 6);
    for (size_t size = 0; size < 20; size++)
        assert_int_equal(cab_exif_orientation(big, size), 1);
    uint8_t odd[sizeof big];
    memcpy(odd, big, sizeof big);
    odd[19] = 9; /* no orientation */
    assert_int_equal(cab_exif_orientation(odd, sizeof odd), 1);
    odd[19] = 6;
    odd[7] = 255; /* the directory lies outside */
    assert_int_equal(cab_exif_orientation(odd, sizeof odd), 1);
}

static void test_names(void **state)
{
    (void)state;
    assert_true(cab_image_is_name("a/b.JPEG") && cab_image_is_name("x.jpg") && cab_image_is_name("x.y.Png"));
    assert_false(cab_image_is_name("jpg") || cab_image_is_name("a.jpg.txt") || cab_image_is_name("a.gif"));
}

/* ---- resampling and operations ---------------------------------------------------------------------------------------- */

static void check_resample(char *f[], const cab_image *base)
{
    cab_resampler resampler = {0};
    cab_image whole = {0}, part = {0};
    cab_box box = {atoi(f[0]), atoi(f[1]), atoi(f[2]), atoi(f[3])};
    cab_filter filter = (cab_filter)atoi(f[4]);
    int width = atoi(f[5]), height = atoi(f[6]);
    char what[100];
    snprintf(what, sizeof what, "%s %s %s %s by filter %s", f[0], f[1], f[2], f[3], f[4]);
    assert_ok(cab_resample(&resampler, base, box, filter, width, height, NULL, &whole));
    check_pixels(what, &whole, f[5], f[6], f[7]);
    cab_box window = {width / 3, height / 4, width - width / 3, height / 2 + 1 - height / 4};
    assert_ok(cab_resample(&resampler, base, box, filter, width, height, &window, &part));
    for (int y = 0; y < window.height; y++)
        assert_memory_equal(part.pixels + (size_t)y * (size_t)window.width * 3,
                            whole.pixels + ((size_t)(window.y + y) * (size_t)width + (size_t)window.x) * 3,
                            (size_t)window.width * 3);
    cab_image_free(&whole);
    cab_image_free(&part);
    cab_resampler_free(&resampler);
}

static void test_resample(void **state)
{
    cab_resampler resampler = {0};
    cab_image image = {0}, out = {0};
    (void)state;
    for_rows("resample", 100, check_resample);
    assert_ok(cab_image_reserve(&image, 4, 4));
    const cab_box wrong[] = {{0, 0, 5, 4}, {-1, 0, 2, 2}, {3, 3, 2, 1}, {0, 0, 0, 1}, {INT32_MAX, 0, 1, 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(cab_resample(&resampler, &image, wrong[i], CAB_FILTER_BICUBIC, 2, 2, NULL, &out), CAB_ESHAPE);
    cab_image_free(&image);
    cab_resampler_free(&resampler);
}

/* The kernels of this processor give the bits of the plain ones, for any number of taps, up to the row's last pixel. */
static void test_resample_kernels(void **state)
{
    enum { IN = 700, OUT = 5, TAPS = 9, ROW = IN * 3 };
    const cab_resample_kernels *plain = cab_resample_plain(), *fast = cab_resample_fastest();
    cab_random random = {.seed = 3, .stream = CAB_STREAM_TEST};
    uint8_t *in = NULL, expected[ROW],
            found[ROW]; /* `in` of its exact size, so that sanitizers see what is read beyond */
    int32_t weights[OUT * TAPS];
    struct cab_span taps[OUT];
    (void)state;
    for (int round = 0; round < 300; round++) {
        const int rows = 1 + round % TAPS, pixels = 1 + (int)cab_random_below(&random, IN / TAPS);
        const size_t row = (size_t)pixels * 3;
        in = malloc(row * (size_t)rows);
        assert_non_null(in);
        for (size_t i = 0; i < row * (size_t)rows; i++)
            in[i] = (uint8_t)cab_random_u32(&random);
        for (int i = 0; i < OUT * TAPS; i++)
            weights[i] = (int32_t)cab_random_below(&random, 3 << 19) - (1 << 19); /* sums leave 0 .. 255 both ways */
        for (int i = 0; i < OUT; i++) {
            int count = 1 + (int)cab_random_below(&random, (uint64_t)(pixels < TAPS ? pixels : TAPS));
            taps[i] = (struct cab_span){
                i == 0 ? pixels - count : (int)cab_random_below(&random, (uint64_t)(pixels - count + 1)), count};
        }
        const cab_axis axis = {taps, weights, TAPS};
        plain->across(&axis, in, expected, OUT);
        fast->across(&axis, in, found, OUT);
        assert_memory_equal(found, expected, OUT * 3);
        plain->down(in, row, weights, rows, expected, row);
        fast->down(in, row, weights, rows, found, row);
        assert_memory_equal(found, expected, row);
        free(in);
    }
}

static cab_status adjust(const char *name, double value, cab_filter filter, cab_image *image, cab_image *spare)
{
    const struct {
        const char *name;
        void (*by_factor)(cab_image *, float);
        void (*plain)(cab_image *);
        void (*by_number)(cab_image *, int);
    } tables[] = {
        {"brightness", cab_adjust_brightness, NULL, NULL}, {"contrast", cab_adjust_contrast, NULL, NULL},
        {"colour", cab_adjust_colour, NULL, NULL},         {"autocontrast", NULL, cab_adjust_autocontrast, NULL},
        {"equalize", NULL, cab_adjust_equalize, NULL},     {"invert", NULL, cab_adjust_invert, NULL},
        {"mirror", NULL, cab_adjust_mirror, NULL},         {"posterize", NULL, NULL, cab_adjust_posterize},
        {"solarize", NULL, NULL, cab_adjust_solarize}};
    double m[6] = {1, 0, 0, 0, 1, 0};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (strcmp(tables[i].name, name) == 0) {
            if (tables[i].by_factor != NULL)
                tables[i].by_factor(image, (float)value);
            else if (tables[i].plain != NULL)
                tables[i].plain(image);
            else
                tables[i].by_number(image, (int)value);
            return CAB_OK;
        }
    if (strcmp(name, "solarize_add") == 0) {
        cab_adjust_solarize_add(image, 128, (int)value);
        return CAB_OK;
    }
    if (strcmp(name, "sharpness") == 0)
        return cab_adjust_sharpness(image, (float)value, spare);
    if (strcmp(name, "rotate") == 0)
        return cab_adjust_rotate(image, value, filter, fill, spare);
    m[strcmp(name, "shear_x") == 0       ? 1
      : strcmp(name, "shear_y") == 0     ? 3
      : strcmp(name, "translate_x") == 0 ? 2
                                         : 5] = value;
    return cab_adjust_affine(image, m, filter, fill, spare);
}

static void check_adjust(char *f[], const cab_image *base)
{
    cab_image image = {0}, spare = {0};
    char what[100];
    assert_ok(cab_image_reserve(&image, base->width, base->height));
    memcpy(image.pixels, base->pixels, (size_t)base->width * (size_t)base->height * 3);
    assert_ok(adjust(f[0], atof(f[1]), (cab_filter)atoi(f[2]), &image, &spare));
    snprintf(what, sizeof what, "%s by %s, filter %s", f[0], f[1], f[2]);
    check_pixels(what, &image, "61", "47", f[3]);
    cab_image_free(&image);
    cab_image_free(&spare);
}

static void test_adjust(void **state)
{
    (void)state;
    for_rows("adjust", 60, check_adjust);
}

/* ---- the transform of evaluation ---------------------------------------------------------------------------------------- */

static void test_transform_config(void **state)
{
    scratch *s = *state;
    cab_image_transform t;
    scratch_text(state, "config.json",
                 "{\"pretrained_cfg\": {\"input_size\": [3, 192, 192], \"crop_pct\": 0.95, \"interpolation\": "
                 "\"bilinear\", \"mean\": [0.1, 0.2, 0.3], \"std\": [0.4, 0.5, 0.6]}}");
    assert_ok(cab_image_transform_load(s->directory, &t));
    assert_int_equal(t.size, 192);
    assert_true(t.crop == 0.95 && t.filter == CAB_FILTER_BILINEAR && t.mean[1] == 0.2f && t.std[2] == 0.6f);
    scratch_text(state, "preprocessor_config.json",
                 "{\"size\": {\"shortest_edge\": 256}, \"crop_size\": {\"height\": 224, \"width\": 224}, "
                 "\"do_center_crop\": true, \"resample\": 3, \"image_mean\": [0.5, 0.5, 0.5]}");
    assert_ok(cab_image_transform_load(s->directory, &t));
    assert_int_equal(t.size, 224);
    assert_true(t.crop == 0.875 && t.filter == CAB_FILTER_BICUBIC && t.mean[0] == 0.5f && t.std[0] == 0.4f);
    assert_int_equal(cab_image_transform_edge(&t), 256);
    for (int crop = 192, edge = 0; crop <= 512; crop += 32)
        for (edge = crop; edge <= 2 * crop; edge++) {
            t = (cab_image_transform){.size = crop, .crop = (double)crop / edge};
            assert_int_equal(cab_image_transform_edge(&t), edge);
        }
    scratch_text(state, "preprocessor_config.json", "{\"size\": 224, \"resample\": 2}");
    assert_ok(cab_image_transform_load(s->directory, &t));
    assert_true(t.size == 224 && t.crop == 1.0 && t.filter == CAB_FILTER_BILINEAR);
    static const char *const wrong[][2] = {{"{\"size\": 0}", "\"size\" is 0"},
                                           {"{\"resample\": 1}", "\"resample\" is 1"},
                                           {"{\"image_std\": [0, 1, 1]}", "\"image_std\"[0] is 0"},
                                           {"{\"image_mean\": [1, 1]}", "has 2 numbers"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        scratch_text(state, "preprocessor_config.json", wrong[i][0]);
        cab_status status = cab_image_transform_load(s->directory, &t);
        assert_true(status == CAB_EFORMAT || status == CAB_EUNSUPPORTED);
        check_error(status, status, "preprocessor_config.json", wrong[i][1]);
    }
    scratch_text(state, "config.json", "{\"pretrained_cfg\": {\"crop_pct\": 1.5}}");
    check_error(cab_image_transform_load(s->directory, &t), CAB_EFORMAT, "config.json", "\"crop_pct\" is 1.5");
}

/* Every key that a directory may state: obeyed, or refused by name. */
static const struct {
    const char *config, *preprocessor; /* "" : absent */
    int size, edge;
    cab_resize resize;
    cab_filter filter;
    float divisor, mean, std; /* of red */
} keys[] = {
    /* timm: the older flat form, a mode, a null */
    {"{\"architecture\": \"vit\", \"input_size\": [3, 192, 192], \"crop_pct\": 0.75, \"interpolation\": "
     "\"bilinear\", "
     "\"mean\": [0.5, 0.5, 0.5], \"std\": [0.25, 0.5, 0.5]}",
     "", 192, 256, CAB_RESIZE_EDGE, CAB_FILTER_BILINEAR, 255, 0.5f, 0.25f},
    {"{\"pretrained_cfg\": {\"crop_pct\": null, \"crop_mode\": \"squash\", \"interpolation\": \"nearest\"}}", "", 224,
     256, CAB_RESIZE_BOTH, CAB_FILTER_NEAREST, 255, 0.485f, 0.229f},
    /* transformers: what is absent is the class's default */
    {"{\"model_type\": \"vit\", \"image_size\": 64}", "", 64, 64, CAB_RESIZE_BOTH, CAB_FILTER_BILINEAR, 255, 0.5f,
     0.5f},
    {"{\"model_type\": \"deit\"}", "", 224, 256, CAB_RESIZE_BOTH, CAB_FILTER_BICUBIC, 255, 0.5f, 0.5f},
    {"{\"model_type\": \"vim\", \"img_size\": 32}", "", 32, 36, CAB_RESIZE_EDGE, CAB_FILTER_BICUBIC, 255, 0.485f,
     0.229f},
    {"{\"model_type\": \"vit\"}", "{}", 224, 224, CAB_RESIZE_BOTH, CAB_FILTER_BILINEAR, 255, 0.5f, 0.5f},
    {"{}", "{\"image_processor_type\": \"DeiTImageProcessorFast\"}", 224, 256, CAB_RESIZE_BOTH, CAB_FILTER_BICUBIC, 255,
     0.5f, 0.5f},
    {"{}", "{\"feature_extractor_type\": \"CLIPFeatureExtractor\", \"size\": 240}", 224, 240, CAB_RESIZE_EDGE,
     CAB_FILTER_BICUBIC, 255, 0.48145466f, 0.26862954f},
    {"{}", "{\"image_processor_type\": \"BitImageProcessor\", \"size\": {\"shortest_edge\": 256}}", 224, 256,
     CAB_RESIZE_EDGE, CAB_FILTER_BICUBIC, 255, 0.48145466f, 0.26862954f},
    {"{\"model_type\": \"vit\"}", "{\"size\": {\"height\": 96, \"width\": 96}, \"crop_size\": 64}", 96, 96,
     CAB_RESIZE_BOTH, CAB_FILTER_BILINEAR, 255, 0.5f, 0.5f}, /* ViT's class crops only where it is told */
    {"{\"model_type\": \"vit\"}",
     "{\"size\": [96, 96], \"crop_size\": {\"height\": 64, \"width\": 64}, \"do_center_crop\": true, \"resample\": "
     "3}",
     64, 96, CAB_RESIZE_BOTH, CAB_FILTER_BICUBIC, 255, 0.5f, 0.5f},
    {"{\"model_type\": \"vit\"}", "{\"size\": 96, \"do_resize\": false}", 96, 96, CAB_RESIZE_NONE, CAB_FILTER_BILINEAR,
     255, 0.5f, 0.5f},
    {"{\"model_type\": \"vit\"}", "{\"crop_size\": 96, \"do_resize\": false, \"do_center_crop\": true}", 96, 96,
     CAB_RESIZE_CROP, CAB_FILTER_BILINEAR, 255, 0.5f, 0.5f},
    {"{\"model_type\": \"vit\"}", "{\"do_normalize\": false, \"image_mean\": [0.1, 0.1, 0.1]}", 224, 224,
     CAB_RESIZE_BOTH, CAB_FILTER_BILINEAR, 255, 0, 1},
    {"{\"model_type\": \"vit\"}",
     "{\"do_rescale\": false, \"image_mean\": [127, 127, 127], \"image_std\": [50, 50, 50]}", 224, 224, CAB_RESIZE_BOTH,
     CAB_FILTER_BILINEAR, 1, 127, 50},
    {"{\"model_type\": \"vit\"}", "{\"rescale_factor\": 0.00784313725490196, \"image_mean\": [1.5, 1, 1]}", 224, 224,
     CAB_RESIZE_BOTH, CAB_FILTER_BILINEAR, 127.5f, 1.5f, 0.5f},
    {"{\"architecture\": \"x\", \"mean\": [0.1, 0, 0]}", "{\"image_processor_type\": \"TimmWrapperImageProcessor\"}",
     224, 256, CAB_RESIZE_EDGE, CAB_FILTER_BICUBIC, 255, 0.1f, 0.229f},
};

static void test_transform_keys(void **state)
{
    scratch *s = *state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        cab_image_transform t, again;
        scratch_text(state, "config.json", keys[i].config);
        const char *path = scratch_text(state, "preprocessor_config.json", keys[i].preprocessor);
        if (keys[i].preprocessor[0] == '\0')
            assert_int_equal(unlink(path), 0);
        assert_ok(cab_image_transform_load(s->directory, &t));
        if (t.size != keys[i].size || cab_image_transform_edge(&t) != keys[i].edge || t.resize != keys[i].resize ||
            t.filter != keys[i].filter || t.divisor != keys[i].divisor || t.mean[0] != keys[i].mean ||
            t.std[0] != keys[i].std)
            fail_msg("row %zu: %d of %d, resize %d, filter %d, over %g, mean %g, std %g", i, t.size,
                     cab_image_transform_edge(&t), (int)t.resize, (int)t.filter, (double)t.divisor, (double)t.mean[0],
                     (double)t.std[0]);
        assert_ok(cab_image_transform_save(&t, s->directory)); /* and what is written comes back */
        assert_ok(cab_image_transform_load(s->directory, &again));
        t.crop = again.crop = (double)t.size / cab_image_transform_edge(&t);
        assert_true(cab_image_transform_equal(&t, &again));
    }
}

static void test_transform_refused(void **state)
{
    static const struct {
        bool timm;
        const char *text, *words;
    } rows[] = {
        {true, "\"crop_mode\": \"border\"", "\"crop_mode\" is \"border\"; supported: center, squash"},
        {true, "\"interpolation\": \"lanczos\"", "\"interpolation\" is \"lanczos\""},
        {true, "\"input_size\": [3, 224, 112]", "\"input_size\" is 224 x 112; only squares"},
        {true, "\"input_size\": [224]", "\"input_size\" has 1 numbers"},
        {true, "\"crop_pct\": 0", "\"crop_pct\" is 0"},
        {false, "\"size\": {\"height\": 224, \"width\": 112}", "\"size\" is 224 x 112; only squares"},
        {false, "\"size\": {\"shortest_edge\": 224, \"longest_edge\": 300}", "\"size\" is {"},
        {false, "\"size\": {\"shortest_edge\": 224}", "pictures would not be square"},
        {false, "\"size\": \"224\"", "\"size\" is \"224\""},
        {false, "\"size\": 64, \"crop_size\": 96, \"do_center_crop\": true", "\"crop_size\" is 96, more than the 64"},
        {false, "\"resample\": 4", "\"resample\" is 4"},
        {false, "\"rescale_factor\": 0", "\"rescale_factor\" is 0"},
        {false, "\"rescale_factor\": NaN", "\"rescale_factor\" is nan"},
        {false, "\"do_pad\": true", "\"do_pad\" is true; only false"},
        {false, "\"do_flip_channel_order\": true", "\"do_flip_channel_order\" is true"},
        {false, "\"do_something_new\": true", "\"do_something_new\" is true; there is no such step"},
        {false, "\"crop_pct\": 0.9", "\"crop_pct\" is 0.9"},
        {false, "\"do_resize\": 1", "\"do_resize\" is 1 (int), expected true or false"},
        {false, "\"image_mean\": [127, 127, 127]", "\"image_mean\"[0] is 127; expected 0 to 1"},
        {false, "\"image_processor_type\": \"ConvNextImageProcessor\"", "\"ConvNextImageProcessor\"; supported are"},
    };
    scratch *s = *state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cab_image_transform t;
        char text[256];
        snprintf(text, sizeof text, rows[i].timm ? "{\"pretrained_cfg\": {%s}}" : "{%s}", rows[i].text);
        scratch_text(state, "config.json", rows[i].timm ? text : "{\"model_type\": \"vit\"}");
        scratch_text(state, "preprocessor_config.json", rows[i].timm ? "{}" : text);
        cab_status status = cab_image_transform_load(s->directory, &t);
        assert_true(status == CAB_EFORMAT || status == CAB_EUNSUPPORTED);
        check_error(status, status, rows[i].timm ? "/config.json" : "preprocessor_config.json", rows[i].words);
    }
}

/* Pillow 13.0: Image.fromarray of the values below, .resize((16, 16) or (18, 18) or (16, 24), filter).crop(middle 16 x 16); the
 * sums over the image and the pixels at (3, 5) and (10, 8). */
static void test_transform_geometry(void **state)
{
    static const struct {
        cab_resize resize;
        int edge;
        cab_filter filter;
        int sums[3], first[3], second[3];
    } rows[] = {{CAB_RESIZE_BOTH, 16, CAB_FILTER_BILINEAR, {32623, 34946, 34210}, {155, 205, 110}, {33, 83, 133}},
                {CAB_RESIZE_BOTH, 18, CAB_FILTER_BICUBIC, {32660, 35322, 34564}, {166, 215, 17}, {21, 79, 129}},
                {CAB_RESIZE_BOTH, 16, CAB_FILTER_NEAREST, {32512, 34560, 33792}, {158, 208, 2}, {30, 80, 130}},
                {CAB_RESIZE_EDGE, 16, CAB_FILTER_BILINEAR, {32681, 32868, 32713}, {175, 225, 19}, {29, 79, 129}},
                {CAB_RESIZE_CROP, 16, CAB_FILTER_BILINEAR, {32768, 29696, 30464}, {191, 241, 35}, {23, 73, 123}}};
    enum { W = 20, H = 30, S = 16 };
    cab_image_scratch work = {0};
    cab_image image = {0}, out = {0};
    float pixels[3 * S * S];
    (void)state;
    assert_ok(cab_image_reserve(&image, W, H));
    for (int i = 0; i < W * H * 3; i++)
        image.pixels[i] = (uint8_t)(i / 3 % W * 7 + i / 3 / W * 13 + i % 3 * 50);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        cab_image_transform t = {.size = S, .resize = rows[r].resize, .filter = rows[r].filter, .divisor = 127.5f};
        t.crop = (double)S / rows[r].edge;
        for (int c = 0; c < 3; c++) {
            t.mean[c] = 0.25f;
            t.std[c] = 0.5f;
        }
        int sums[3] = {0};
        assert_ok(cab_image_transform_crop(&t, &work, &image, &out));
        for (int i = 0; i < S * S * 3; i++)
            sums[i % 3] += out.pixels[i];
        assert_ok(cab_image_transform_apply(&t, &work, &image, pixels));
        for (int c = 0; c < 3; c++) {
            assert_int_equal(sums[c], rows[r].sums[c]);
            assert_int_equal(out.pixels[(5 * S + 3) * 3 + c], rows[r].first[c]);
            assert_int_equal(out.pixels[(8 * S + 10) * 3 + c], rows[r].second[c]);
            const double expected = ((double)rows[r].first[c] / 127.5 - 0.25) / 0.5;
            assert_true(fabs((double)pixels[c * S * S + 5 * S + 3] - expected) < 1e-6);
        }
    }
    cab_image_transform t = {.size = S, .resize = CAB_RESIZE_NONE, .crop = 1, .divisor = 255};
    assert_int_equal(cab_image_transform_crop(&t, &work, &image, &out), CAB_ESHAPE);
    assert_non_null(strstr(cab_error_text(), "an image of 20 x 30 pixels, expected 16 x 16: "));
    t.size = 25;
    t.resize = CAB_RESIZE_CROP;
    assert_int_equal(cab_image_transform_crop(&t, &work, &image, &out), CAB_ESHAPE);
    assert_non_null(strstr(cab_error_text(), "expected 25 x 25 or more"));
    cab_image_free(&image);
    cab_image_free(&out);
    cab_image_scratch_free(&work);
}

/* The pixels that PyTorch, Pillow and timm gave the teacher for two photographs. */
static void test_transform_golden(void **state)
{
    static const struct {
        const char *file, *tensor;
    } cases[] = {{VIT "/images/n01514668_10054.JPEG", "pixel_values.0"},
                 {VIT "/images/n03032252_101298.JPEG", "pixel_values.13"}};
    const int64_t shape[3] = {3, 224, 224};
    const size_t count = 3 * 224 * 224;
    cab_safetensors *golden = NULL;
    cab_image_transform t;
    cab_image_scratch work = {0};
    cab_decode_options options = {0};
    float *expected = NULL, *found = NULL;
    (void)state;
    if (!cab_path_exists(VIT "/golden.safetensors")) {
        print_message("skipped: " VIT " is absent\n");
        skip();
    }
    assert_ok(cab_safetensors_open(VIT "/golden.safetensors", &golden));
    assert_ok(cab_image_transform_load(VIT, &t));
    assert_ok(CAB_NEW(&expected, count, "pixels"));
    assert_ok(CAB_NEW(&found, count, "pixels"));
    for (size_t i = 0; i < 2; i++) {
        cab_map map;
        cab_image image = {0};
        const cab_safetensors_entry *entry = cab_safetensors_find(golden, cases[i].tensor);
        assert_non_null(entry);
        assert_ok(cab_safetensors_entry_read_f32(entry, 3, shape, expected));
        assert_ok(cab_map_open(cases[i].file, &map));
        assert_ok(cab_image_decode(map.data, map.size, cases[i].file, &options, &image));
        assert_ok(cab_image_transform_apply(&t, &work, &image, found));
        for (size_t k = 0; k < count; k++)
            if (fabsf(found[k] - expected[k]) > 1e-6f)
                fail_msg("%s: value %zu is %g, expected %g", cases[i].file, k, (double)found[k], (double)expected[k]);
        cab_image_free(&image);
        cab_map_close(&map);
    }
    cab_free(expected);
    cab_free(found);
    cab_image_scratch_free(&work);
    cab_safetensors_close(golden);
}

/* Narrow pictures, and those smaller than the model's size, come out at that size. */
static void test_transform_sizes(void **state)
{
    static const int sizes[][2] = {{1, 1}, {1, 200}, {300, 2}, {31, 32}, {33, 32}};
    cab_image_transform t = cab_image_transform_default();
    cab_image_scratch work = {0};
    cab_image image = {0};
    float pixels[3 * 32 * 32];
    (void)state;
    t.size = 32;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_ok(cab_image_reserve(&image, sizes[i][0], sizes[i][1]));
        memset(image.pixels, 51, (size_t)sizes[i][0] * (size_t)sizes[i][1] * 3);
        assert_ok(cab_image_transform_apply(&t, &work, &image, pixels));
        for (size_t k = 0; k < 3 * 32 * 32; k++)
            assert_true(pixels[k] == (51.0f / 255.0f - t.mean[k / 1024]) / t.std[k / 1024]);
    }
    cab_image_free(&image);
    cab_image_scratch_free(&work);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_refuse),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_exif),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_resample),
        cmocka_unit_test(test_resample_kernels),
        cmocka_unit_test(test_adjust),
        scratch_test(test_transform_config),
        scratch_test(test_transform_keys),
        scratch_test(test_transform_refused),
        cmocka_unit_test(test_transform_geometry),
        cmocka_unit_test(test_transform_golden),
        cmocka_unit_test(test_transform_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
