/* Single pictures: the reference's logits from JPEG files, the likeliest classes, and what classes are called. */
#include "pictures.h"
#include "train/class_names.h"
#include "train/classify.h"
#include "train/image_scorer.h"

#define PHOTOS "../shared/teachers/vit-tiny"

enum { TOP = 5, COLLECTED = 32 };

typedef struct collector {
    int count, failures;
    char paths[COLLECTED][64]; /* the last part */
    cab_class_share top[COLLECTED][TOP];
    size_t top_count;
    bool stop;
} collector;

static cab_status collect(void *user, const char *path, cab_status status, const cab_class_share *top, size_t count)
{
    collector *c = user;
    if (status != CAB_OK) {
        assert_null(top);
        assert_non_null(strstr(cab_error_text(), path));
        c->failures++;
        return c->stop ? status : CAB_OK;
    }
    assert_true(c->count < COLLECTED && count <= TOP);
    snprintf(c->paths[c->count], sizeof c->paths[0], "%s", cab_path_name(path));
    memcpy(c->top[c->count++], top, count * sizeof *top);
    c->top_count = count;
    return CAB_OK;
}

/* ---- against the reference ---------------------------------------------------------------------------------------- */

static int by_name(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

/* The photographs in the order of the golden logits, which is that of their names. */
static size_t list_photos(char *paths[COLLECTED])
{
    size_t count = 0;
    DIR *folder = opendir(PHOTOS "/images");
    for (struct dirent *entry = NULL; folder != NULL && (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        assert_true(count < COLLECTED);
        paths[count] = malloc(CAB_PATH_MAX);
        assert_non_null(paths[count]);
        assert_ok(cab_path_join(paths[count++], PHOTOS "/images", entry->d_name));
    }
    if (folder != NULL)
        closedir(folder);
    qsort(paths, count, sizeof *paths, by_name);
    return count;
}

static float *golden_logits(int64_t rows, int64_t columns)
{
    cab_safetensors *st = NULL;
    float *values = calloc((size_t)(rows * columns), sizeof *values);
    assert_non_null(values);
    assert_ok(cab_safetensors_open(PHOTOS "/golden.safetensors", &st));
    const cab_safetensors_entry *entry = cab_safetensors_find(st, "logits");
    assert_non_null(entry);
    assert_ok(cab_safetensors_entry_read_f32(entry, 2, (int64_t[]){rows, columns}, values));
    cab_safetensors_close(st);
    return values;
}

/* From JPEG files to logits: at most 2e-2 away. */
static void expect_photo(cab_image_scorer *scorer, const cab_image_transform *transform, const char *path,
                         const float *expected, int classes)
{
    const cab_decode_options options = {0};
    cab_map map;
    cab_image image = {0};
    cab_image_scratch scratch = {0};
    const float *logits = NULL;
    assert_ok(cab_map_open(path, &map));
    assert_ok(cab_image_decode(map.data, map.size, path, &options, &image));
    assert_ok(cab_image_transform_crop(transform, &scratch, &image, &scratch.image));
    assert_ok(cab_image_scorer_run(scorer, scratch.image.pixels, &logits));
    for (int c = 0; c < classes; c++)
        if (!(fabsf(logits[c] - expected[c]) <= 2e-2f))
            fail_msg("%s: logit %d is %.5f, expected %.5f", path, c, (double)logits[c], (double)expected[c]);
    cab_map_close(&map);
    cab_image_free(&image);
    cab_image_scratch_free(&scratch);
}

static int largest(const float *values, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        best = values[i] > values[best] ? i : best;
    return best;
}

static void test_photos(void **state)
{
    char *paths[COLLECTED];
    const size_t count = list_photos(paths);
    cab_model *model = NULL;
    cab_image_transform transform;
    cab_image_scorer *scorer = NULL;
    collector c = {0};
    (void)state;
    if (count == 0) {
        print_message(PHOTOS " is not here\n");
        skip();
    }
    assert_int_equal(count, 17);
    assert_ok(cab_model_load_on(test_device(), PHOTOS, CAB_PRECISION_FP32, &model));
    const int classes = model->config.n_classes;
    float *expected = golden_logits((int64_t)count, classes);
    assert_ok(cab_image_transform_of(model, &transform));
    assert_ok(cab_image_scorer_new(model, &transform, 1, &scorer));
    for (size_t i = 0; i < count; i++)
        expect_photo(scorer, &transform, paths[i], expected + i * (size_t)classes, classes);
    assert_ok(cab_classify(model, (const char *const *)paths, count, TOP, 0, collect, &c));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(c.top[i][0].class, largest(expected + i * (size_t)classes, classes));
    assert_int_equal(c.count, count);
    cab_image_scorer_free(scorer);
    cab_model_free(model);
    for (size_t i = 0; i < count; i++)
        free(paths[i]);
    free(expected);
}

/* ---- the likeliest classes ---------------------------------------------------------------------------------------- */

/* All classes wanted: their probabilities fall and sum to 1, and no class comes twice. */
static void expect_distribution(const cab_class_share *top, size_t count)
{
    bool seen[MODEL_CLASSES] = {false};
    double sum = 0;
    for (size_t k = 0; k < count; k++) {
        assert_false(seen[top[k].class]);
        seen[top[k].class] = true;
        sum += (double)top[k].probability;
        assert_true(k == 0 || top[k].probability <= top[k - 1].probability);
    }
    assert_true(fabs(sum - 1) < 1e-5);
}

static cab_status check_all(void *user, const char *path, cab_status status, const cab_class_share *top, size_t count)
{
    (void)path;
    assert_ok(status);
    expect_distribution(top, count);
    ++*(int *)user;
    return CAB_OK;
}

static void test_order(void **state)
{
    static const char *const names[] = {"base.png",    "cmyk.jpg", "cut.jpg",    "gray.png",
                                        "turned1.png", "text.jpg", "nowhere.png"};
    enum { N = sizeof names / sizeof *names };
    char paths[N][CAB_PATH_MAX];
    const char *list[N];
    collector whole = {0}, single = {0}, stopped = {.stop = true};
    int seen = 0;
    cab_model *model = pictures_model(state, "vim", true);
    for (int i = 0; i < N; i++) {
        assert_ok(cab_path_join(paths[i], "tests/corpora/images", names[i]));
        list[i] = paths[i];
    }
    assert_ok(cab_classify(model, list, N, TOP, 0, collect, &whole));
    assert_ok(cab_classify(model, list, N, TOP, 3, collect, &single)); /* other batches, the same answers */
    assert_int_equal(whole.failures, 3);
    assert_int_equal(whole.count, N - 3);
    assert_string_equal(whole.paths[2], "gray.png");
    assert_int_equal(single.count, whole.count);
    for (int i = 0; i < whole.count; i++)
        for (int k = 0; k < TOP; k++)
            assert_int_equal(whole.top[i][k].class, single.top[i][k].class);
    assert_fails(cab_classify(model, list, N, TOP, 0, collect, &stopped), CAB_EFORMAT, "cut.jpg");
    assert_int_equal(stopped.count, 2);
    assert_ok(cab_classify(model, list, 2, MODEL_CLASSES, 0, check_all, &seen));
    assert_int_equal(seen, 2);
    assert_fails(cab_classify(model, list, 2, MODEL_CLASSES + 1, 0, check_all, &seen), CAB_EARG, "10 classes");
    assert_ok(cab_classify(model, NULL, 0, 1, 0, check_all, &seen));
    cab_model_free(model);
}

/* ---- names -------------------------------------------------------------------------------------------------------- */

static void expect_names(const cab_model *model, const char *file, const char *third, const char *last)
{
    cab_class_names names = {0};
    char out[32];
    assert_ok(cab_class_names_load(model, file, &names));
    assert_int_equal(names.count, MODEL_CLASSES);
    assert_string_equal(cab_class_name(&names, 2, out), third);
    assert_string_equal(cab_class_name(&names, MODEL_CLASSES - 1, out), last);
    cab_class_names_free(&names);
}

static const char *put(void **state, const char *name, const char *text)
{
    const char *path = temp_path(state, name);
    assert_ok(cab_file_write(path, text, strlen(text)));
    return path;
}

/* What stands nearer wins: the file over config.json over classes.tsv over classes.txt. */
static void test_names(void **state)
{
    cab_model *model = pictures_model(state, "vit", false);
    cab_class_names names = {0};
    expect_names(model, NULL, "class 2", "class 8");
    put(state, "vit/classes.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni");
    expect_names(model, NULL, "c", "i");
    put(state, "vit/classes.tsv", "0\tant\t2\tants, emmets\n1\tbee\t0\tbee\n");
    expect_names(model, NULL, "ants, emmets (ant)", "class 8");
    put(state, "vit/config.json", "{\"id2label\": {\"2\": \"two\", \"8\": \"eight\"}}");
    expect_names(model, NULL, "two", "eight");
    expect_names(model, put(state, "map.tsv", "0\tcat\t2\n"), "cat", "eight");
    put(state, "vit/config.json",
        "{\"pretrained_cfg\": {\"label_names\": [\"0\",\"1\",\"n2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"n8\"], "
        "\"label_descriptions\": {\"n2\": \"second\"}}}");
    expect_names(model, NULL, "second", "n8");
    put(state, "vit/config.json", "{\"id2label\": {\"9\": \"nine\"}}");
    assert_fails(cab_class_names_load(model, NULL, &names), CAB_EFORMAT, "names class \"9\"; expected 0 to 8");
    put(state, "vit/config.json", "{\"id2label\": {\"1\": 5}}");
    assert_fails(cab_class_names_load(model, NULL, &names), CAB_EFORMAT, "is no string");
    put(state, "vit/config.json", "{\"pretrained_cfg\": {\"label_names\": [\"0\"]}}");
    assert_fails(cab_class_names_load(model, NULL, &names), CAB_EFORMAT, "has 1 names; the model has 9 classes");
    put(state, "vit/config.json", "{}");
    assert_fails(cab_class_names_load(model, put(state, "short.txt", "a\nb\n"), &names), CAB_EFORMAT,
                 "2 names of classes; the model has 9");
    assert_fails(cab_class_names_load(model, put(state, "hole.txt", "a\n\nc\n"), &names), CAB_EFORMAT,
                 "hole.txt:2: the line is empty");
    cab_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(test_photos), TEMP_TEST(test_order), TEMP_TEST(test_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
