/* test_compare.c - comparisons of tiny models from directories and files: their numbers, their drawings, the file they are kept
 * in, and what is refused. On real images where there are any. */
#include "base/memory.h"
#include "data/image_set.h"
#include "distill/initialise_vim.h"
#include "models/tiny.h"
#include "train/compare.h"
#include "train/predictions.h"

#include <math.h>

static const char *const images = "../shared/data/tiny-imagenet/val.tar.xz";
static const char *const vit_tiny = "../shared/teachers/vit-tiny";

/* ---- text ------------------------------------------------------------------------------------------------------------ */

/* A vocabulary of the letters that the text is made of. */
static const char tokenizer[] =
    "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \"d\": 3, \"<|endoftext|>\": 4}, "
    "\"merges\": []}, "
    "\"added_tokens\": [{\"id\": 4, \"content\": \"<|endoftext|>\", \"special\": true, \"single_word\": false, "
    "\"lstrip\": "
    "false, \"rstrip\": false, \"normalized\": false}], \"normalizer\": null, \"pre_tokenizer\": {\"type\": "
    "\"ByteLevel\", "
    "\"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}, \"post_processor\": null, \"decoder\": "
    "{\"type\": "
    "\"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}}";

typedef struct files {
    char *teacher, *student, *text, *cache;
} files;

static char *keep(const char *path)
{
    char *copy = strdup(path);
    assert_non_null(copy);
    return copy;
}

static void write_model(const char *directory, const tiny *model)
{
    char path[CAB_PATH_MAX];
    void *state = keep(directory);
    assert_ok(cab_directory_make(directory));
    tiny_write(&state, model, 1);
    assert_ok(cab_path_join(path, directory, "tokenizer.json"));
    assert_ok(cab_file_write(path, tokenizer, strlen(tokenizer)));
    free(state);
}

static files make_files(void **state, const tiny *teacher, const tiny *student)
{
    const char text[] = "abcdabcdaabbccddabcdbcdadcbaabcdabcdaabbccddabcdbcdadcba";
    files f = {.teacher = keep(temp_path(state, "teacher")),
               .student = keep(temp_path(state, "student")),
               .text = keep(temp_path(state, "text.txt")),
               .cache = keep(temp_path(state, "cache"))};
    write_model(f.teacher, teacher);
    write_model(f.student, student);
    assert_ok(cab_file_write(f.text, text, strlen(text)));
    return f;
}

static void free_files(files *f)
{
    free(f->teacher);
    free(f->student);
    free(f->text);
    free(f->cache);
}

static cab_compare_options options_of(const files *f)
{
    return (cab_compare_options){.teacher = f->teacher,
                                 .student = f->student,
                                 .files = (const char *const *)&f->text,
                                 .files_count = 1,
                                 .cache = f->cache,
                                 .seq_len = 10,
                                 .samples = 3,
                                 .maps = 1,
                                 .precision = CAB_PRECISION_FP32};
}

static void expect_ordered(const cab_similarity *s)
{
    assert_true(s->min <= s->q1 && s->q1 <= s->median && s->median <= s->q3 && s->q3 <= s->max);
    assert_true(s->min >= -1.0001 && s->max <= 1.0001 && s->mean >= s->min && s->mean <= s->max);
}

static void test_text(void **state)
{
    const tiny teacher = tiny_gpt2(CAB_F32, ""), student = tiny_phi_mamba(CAB_F32);
    files f = make_files(state, &teacher, &student);
    cab_compare_options o = options_of(&f);
    cab_comparison c = {0}, back = {0};
    assert_ok(cab_compare(&o, &c));
    assert_int_equal(c.n_layer, 2);
    assert_int_equal(c.samples, 3);
    assert_int_equal(c.tokens, 10);
    for (int l = 0; l < 2; l++) {
        assert_int_equal(c.layers[l].teacher_layer, l);
        expect_ordered(&c.layers[l]);
        assert_true(c.layers[l].min == fmin(fmin(c.layers[l].values[0], c.layers[l].values[1]), c.layers[l].values[2]));
    }
    expect_ordered(&c.all);
    assert_int_equal(c.n_map, 1);
    assert_int_equal(c.maps[0].rows, 10);
    assert_string_equal(c.maps[0].tokens[1], "b");
    json_object *json = NULL;
    const char *path = temp_path(state, "compare.json");
    assert_ok(cab_comparison_json(&c, &json));
    assert_ok(cab_json_save(json, path));
    json_object_put(json);
    assert_ok(cab_comparison_load(path, &back));
    assert_int_equal(back.n_layer, 2);
    assert_true(fabs(back.layers[1].q3 - c.layers[1].q3) < 1e-3 && fabs(back.all.mean - c.all.mean) < 1e-3);
    assert_true(fabsf(back.maps[0].layers[1].student[11] - c.maps[0].layers[1].student[11]) <=
                1e-3f * fabsf(c.maps[0].layers[1].student[11]));
    assert_string_equal(back.maps[0].tokens[9], c.maps[0].tokens[9]);
    cab_comparison_free(&c);
    cab_comparison_free(&back);
    free_files(&f);
}

/* A teacher is as like itself as can be, and both sides of its drawings are the same. */
static void test_like_itself(void **state)
{
    const tiny teacher = tiny_gpt2(CAB_F32, "");
    files f = make_files(state, &teacher, &teacher);
    cab_compare_options o = options_of(&f);
    cab_comparison c = {0};
    o.text = "abca";
    assert_ok(cab_compare(&o, &c));
    assert_true(c.all.min > 0.999999);
    assert_int_equal(c.maps[0].rows, 4);
    assert_memory_equal(c.maps[0].layers[1].teacher, c.maps[0].layers[1].student, 16 * sizeof(float));
    cab_comparison_free(&c);
    free_files(&f);
}

static void test_what_is_refused(void **state)
{
    const tiny teacher = tiny_gpt2(CAB_F32, "");
    tiny student = tiny_phi_mamba(CAB_F32);
    files f = make_files(state, &teacher, &student);
    cab_compare_options o = options_of(&f);
    cab_comparison c = {0};
    const struct {
        int64_t seq_len;
        cab_status status;
        const char *part;
    } lengths[] = {{17, CAB_ESHAPE, "at most 16 tokens"}, {16, CAB_OK, ""}};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        o.seq_len = lengths[i].seq_len;
        const cab_status status = cab_compare(&o, &c);
        assert_int_equal(status, lengths[i].status);
        assert_true(status == CAB_OK || strstr(cab_error_text(), lengths[i].part) != NULL);
        cab_comparison_free(&c);
    }
    assert_ok(cab_file_write(f.text, "abc", 3));
    assert_fails(cab_compare(&o, &c), CAB_EFORMAT, "expected more than the 16 of one window");
    cab_comparison_free(&c);
    o.pictures = (const char *const[]){"x.jpg"};
    o.pictures_count = 1;
    assert_fails(cab_compare(&o, &c), CAB_EARG, "a model of text");
    cab_comparison_free(&c);
    o.teacher = f.student;
    assert_fails(cab_compare(&o, &c), CAB_EUNSUPPORTED, "no attention");
    cab_comparison_free(&c);
    tiny_find(&student, "backbone.layers.1.mixer.conv1d.bias")->scale = 0;
    tiny_find(&student, "backbone.layers.1.mixer.conv1d.weight")->scale = 0;
    write_model(f.student, &student);
    o = options_of(&f);
    assert_ok(cab_file_write(f.text, "abcdabcdabcdabcdabcd", 20));
    assert_fails(cab_compare(&o, &c), CAB_ENUMERIC, "layer 1");
    cab_comparison_free(&c);
    free_files(&f);
}

static void test_damaged_files(void **state)
{
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "{\"teacher\":\"t\",\"student\":\"s\",\"kind\":\"text\",\"tokens\":4,\"samples\":1,\"all\":{},\"layers\":[],"
        "\"maps\":[]}",
        "{\"teacher\":\"t\",\"student\":\"s\",\"kind\":\"text\",\"tokens\":4,\"samples\":1,\"all\":{\"min\":0,\"q1\":0,"
        "\"median\":0,\"q3\":0,\"max\":7,\"mean\":0},\"layers\":[],\"maps\":[]}",
        "{\"teacher\":\"t\",\"student\":\"s\",\"kind\":\"images\",\"tokens\":4,\"samples\":1,\"all\":{\"min\":0,\"q1\":"
        "0,"
        "\"median\":0,\"q3\":0,\"max\":0,\"mean\":0},\"layers\":[],\"maps\":[{\"name\":\"n\",\"thumbnail\":\"a\\\"b=\","
        "\"rows\":1,"
        "\"columns\":1,\"layers\":[]}]}",
        "{\"teacher\":\"t\",\"student\":\"s\",\"kind\":\"images\",\"tokens\":4,\"samples\":1,\"all\":{\"min\":0,\"q1\":"
        "0,"
        "\"median\":0,\"q3\":0,\"max\":0,\"mean\":0},\"layers\":[],\"maps\":[{\"name\":\"n\",\"thumbnail\":\"Zm9v\","
        "\"rows\":2,"
        "\"columns\":1,\"layers\":[{\"layer\":0,\"teacher_layer\":0,\"teacher\":[1],\"student\":[1,2]}]}]}"};
    const char *path = temp_path(state, "compare.json");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        cab_comparison c = {0};
        assert_ok(cab_file_write(path, texts[i], strlen(texts[i])));
        if (cab_comparison_load(path, &c) != CAB_EFORMAT)
            fail_msg("text %zu is taken", i);
        cab_comparison_free(&c);
    }
}

/* ---- images ---------------------------------------------------------------------------------------------------------- */

static cab_model *vim(cab_backend *backend, int image_size, int classes)
{
    const cab_arch *arch = NULL;
    cab_model *model = NULL;
    cab_config c = {.d_model = 32,
                    .n_layer = 3,
                    .n_classes = classes,
                    .d_state = 8,
                    .d_conv = 4,
                    .d_inner = 64,
                    .dt_rank = 2,
                    .n_group = 1,
                    .n_special = 1,
                    .class_middle = true,
                    .patch_size = 16,
                    .norm_eps = 1e-5};
    cab_config_set_image(&c, image_size);
    assert_ok(cab_architecture_find("vim", "test", &arch));
    assert_ok(cab_model_create(arch, &c, backend, CAB_PRECISION_FP32, &model));
    assert_ok(cab_initialise_vim(model, 3, false));
    return model;
}

/* The pretrained teacher at the size of a small student, whose layers are a fourth of its own. */
static void test_images(void **state)
{
    if (!cab_path_exists(images) || !cab_path_exists(vit_tiny)) {
        print_message("%s or %s is not here: skipped\n", images, vit_tiny);
        skip();
    }
    char *student = keep(temp_path(state, "student"));
    cab_backend *backend = NULL;
    cab_comparison c = {0};
    assert_ok(cab_backend_open(test_device(), &backend));
    cab_model *model = vim(backend, 96, 200);
    assert_ok(cab_model_save(model, student));
    const cab_compare_options o = {.teacher = vit_tiny,
                                   .student = student,
                                   .files = &images,
                                   .files_count = 1,
                                   .samples = 3,
                                   .maps = 1,
                                   .precision = CAB_PRECISION_FP32};
    assert_ok(cab_compare(&o, &c));
    assert_true(c.images);
    assert_int_equal(c.tokens, 37);
    assert_int_equal(c.layers[2].teacher_layer, 8);
    expect_ordered(&c.all);
    assert_int_equal(c.maps[0].rows, 6);
    assert_int_equal(c.maps[0].n_layer, 3);
    assert_non_null(c.maps[0].thumbnail);
    float sum = 0; /* of attention the patches' part, without the class token itself */
    for (int i = 0; i < 36; i++)
        sum += c.maps[0].layers[1].teacher[i];
    assert_true(sum > 0.3f && sum < 1);
    cab_comparison_free(&c);
    cab_model_free(model);
    cab_backend_close(backend);
    free(student);
}

/* What a run leaves for the report: asked of the models in memory, written, read back. */
static void test_predictions(void **state)
{
    if (!cab_path_exists(images)) {
        print_message("%s is not here: skipped\n", images);
        skip();
    }
    cab_backend *backend = NULL;
    cab_image_set *set = NULL;
    cab_predictions p = {0};
    assert_ok(cab_backend_open(test_device(), &backend));
    cab_model *student = vim(backend, 64, 200), *teacher = vim(backend, 96, 300);
    int32_t map[200];
    for (int i = 0; i < 200; i++)
        map[i] = 299 - i;
    const cab_image_set_options options = {0};
    assert_ok(cab_image_set_open(&images, 1, &options, &set));
    cab_image_judge judges[2] = {{.model = student, .transform = cab_image_transform_default()},
                                 {.model = teacher, .transform = cab_image_transform_default(), .classes = map}};
    judges[0].transform.size = 64;
    judges[1].transform.size = 96;
    assert_ok(cab_predictions_write(*state, &judges[0], &judges[1], set, 5));
    assert_ok(cab_predictions_load(temp_path(state, CAB_RUN_PREDICTIONS), &p));
    assert_int_equal(p.count, 5);
    for (size_t i = 0; i < p.count; i++) {
        const cab_prediction *one = &p.items[i];
        assert_int_equal(one->truth.label, (int)i * 40);
        assert_int_equal(one->n_top, 3);
        assert_true(one->top[0].probability >= one->top[1].probability);
        assert_true(one->top[1].probability >= one->top[2].probability && one->top[2].probability > 0);
        assert_true(one->top[0].probability >= one->truth.probability && one->taught);
    }
    cab_predictions_free(&p);
    cab_image_set_free(set);
    cab_model_free(student);
    cab_model_free(teacher);
    cab_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(test_text),          TEMP_TEST(test_like_itself), TEMP_TEST(test_what_is_refused),
        TEMP_TEST(test_damaged_files), TEMP_TEST(test_images),      TEMP_TEST(test_predictions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
