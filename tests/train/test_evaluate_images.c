/* Evaluation of image models: every figure against its definition, maps of classes, confusions, bad images. */
#include "base/memory.h"
#include "pictures.h"
#include "train/evaluate_images.h"
#include "train/image_scorer.h"

static const int32_t model_map[PICTURE_CLASSES] = {4, 0, 2, 8, 1, 5, 7},
                     teacher_map[PICTURE_CLASSES] = {1, 3, 0, 6, 2, 8, 4};

/* ---- by definition ------------------------------------------------------------------------------------------------ */

/* log softmax over the mapped classes of picture i, asked alone. */
static void log_probabilities(const cab_image_judge *judge, cab_image_set *set, uint64_t i, double out[PICTURE_CLASSES])
{
    cab_image_scratch scratch = {0};
    cab_image image = {0};
    cab_image_scorer *scorer = NULL;
    const float *logits = NULL;
    double sum = 0;
    assert_ok(cab_image_set_load(set, i, &image));
    assert_ok(cab_image_transform_crop(&judge->transform, &scratch, &image, &scratch.image));
    assert_ok(cab_image_scorer_new(judge->model, &judge->transform, 1, &scorer));
    assert_ok(cab_image_scorer_run(scorer, scratch.image.pixels, &logits));
    for (int c = 0; c < PICTURE_CLASSES; c++)
        sum += exp(logits[judge->classes[c]]);
    for (int c = 0; c < PICTURE_CLASSES; c++)
        out[c] = logits[judge->classes[c]] - log(sum);
    cab_image_scorer_free(scorer);
    cab_image_scratch_free(&scratch);
    cab_image_free(&image);
}

static int rank_of(const double *p, int class)
{
    int rank = 0;
    for (int c = 0; c < PICTURE_CLASSES; c++)
        rank += p[c] > p[class];
    return rank;
}

static int best_of(const double *p)
{
    int best = 0;
    for (int c = 1; c < PICTURE_CLASSES; c++)
        best = p[c] > p[best] ? c : best;
    return best;
}

static void expect_close(const char *what, double got, double expected)
{
    if (!(fabs(got - expected) <= 1e-5 * (1 + fabs(expected))))
        fail_msg("%s is %.9g, expected %.9g", what, got, expected);
}

static void expect_evaluation(const cab_image_evaluation *r, const cab_image_judge *model,
                              const cab_image_judge *teacher, cab_image_set *set)
{
    double loss = 0, kl = 0, teacher_loss = 0;
    int top1 = 0, top5 = 0, agreement = 0, teacher_top1 = 0, class_top1[PICTURE_CLASSES] = {0};
    assert_int_equal(r->images, PICTURES);
    for (int i = 0; i < PICTURES; i++) {
        double q[PICTURE_CLASSES], p[PICTURE_CLASSES];
        const int label = cab_image_set_label(set, (uint64_t)i);
        log_probabilities(model, set, (uint64_t)i, q);
        log_probabilities(teacher, set, (uint64_t)i, p);
        for (int c = 0; c < PICTURE_CLASSES; c++)
            kl += exp(p[c]) * (p[c] - q[c]);
        loss -= q[label];
        teacher_loss -= p[label];
        top1 += rank_of(q, label) == 0;
        top5 += rank_of(q, label) < 5;
        class_top1[label] += rank_of(q, label) == 0;
        teacher_top1 += rank_of(p, label) == 0;
        agreement += best_of(p) == best_of(q);
        assert_int_equal(r->labels[i], label);
        assert_int_equal(r->predicted[i], best_of(q));
    }
    expect_close("loss", r->loss, loss / PICTURES);
    expect_close("top-1", r->top1, (double)top1 / PICTURES);
    expect_close("top-5", r->top5, (double)top5 / PICTURES);
    expect_close("KL", r->kl, kl / PICTURES);
    expect_close("agreement", r->agreement, (double)agreement / PICTURES);
    expect_close("the teacher's loss", r->teacher_loss, teacher_loss / PICTURES);
    expect_close("the teacher's top-1", r->teacher_top1, (double)teacher_top1 / PICTURES);
    for (int c = 0; c < PICTURE_CLASSES; c++) {
        assert_int_equal(r->class_top1[c], class_top1[c]);
        assert_int_equal(r->class_images[c], cab_image_set_class_begin(set, c + 1) - cab_image_set_class_begin(set, c));
    }
    assert_true(top5 > top1 && top5 < PICTURES); /* or nothing was told apart */
}

static cab_image_judge judge_of(const cab_model *model, const int32_t *map)
{
    cab_image_judge judge = {.model = model, .classes = map};
    assert_ok(cab_image_transform_of(model, &judge.transform));
    return judge;
}

static void evaluate(const cab_image_judge *model, const cab_image_judge *teacher, cab_image_set *set, int batch,
                     cab_image_evaluation *result)
{
    const cab_image_evaluator_options options = {.batch = batch, .threads = 2};
    cab_image_evaluator *evaluator = NULL;
    assert_ok(cab_image_evaluator_new(model, teacher, set, &options, &evaluator));
    for (int pass = 0; pass < 2; pass++) /* the second one begins anew */
        assert_ok(cab_image_evaluator_run(evaluator, result));
    cab_image_evaluator_free(evaluator);
}

/* Batches that divide the images, that do not, and that are larger than they are many; a teacher who wants the same pixels,
 * and one who wants others. */
static void test_figures(void **state)
{
    static const int batches[] = {1, 4, 11, 16};
    cab_image_set *set = pictures_open(pictures_write(state), CAB_ON_ERROR_STOP);
    cab_model *model = pictures_model(state, "vim", true), *teacher = pictures_model(state, "vit", false);
    const cab_image_judge judge = judge_of(model, model_map);
    cab_image_judge teacher_judge = judge_of(teacher, teacher_map);
    cab_image_evaluation result = {0};
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        teacher_judge.transform.mean[1] = i % 2 == 0 ? judge.transform.mean[1] : 0.25f;
        evaluate(&judge, &teacher_judge, set, batches[i], &result);
        expect_evaluation(&result, &judge, &teacher_judge, set);
    }
    evaluate(&judge, NULL, set, 0, &result);
    assert_true(isnan(result.kl) && isnan(result.agreement) && isnan(result.teacher_top1) && isfinite(result.loss));
    cab_image_evaluation_free(&result);
    cab_model_free(model);
    cab_model_free(teacher);
    cab_image_set_free(set);
}

static void test_confusions(void **state)
{
    static int32_t labels[] = {0, 0, 1, 1, 1, 2, 2, 2, 2, 1}, predicted[] = {1, 1, 1, 2, 0, 0, 0, -1, 2, 2};
    static const cab_confusion expected[] = {{0, 1, 2}, {1, 2, 2}, {2, 0, 2}, {1, 0, 1}};
    const cab_image_evaluation e = {.count = 10, .labels = labels, .predicted = predicted, .classes = 3};
    cab_confusion worst[8];
    size_t count = 0;
    (void)state;
    assert_ok(cab_image_evaluation_confusions(&e, 8, worst, &count));
    assert_int_equal(count, 4);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(worst[i].label, expected[i].label);
        assert_int_equal(worst[i].predicted, expected[i].predicted);
        assert_int_equal(worst[i].images, expected[i].images);
    }
    assert_ok(cab_image_evaluation_confusions(&e, 2, worst, &count));
    assert_int_equal(count, 2);
}

/* ---- what goes wrong ---------------------------------------------------------------------------------------------- */

static cab_status evaluate_path(const char *path, cab_on_error on_error, const cab_image_judge *judge,
                                cab_image_evaluation *result)
{
    const cab_image_evaluator_options options = {.batch = 3};
    cab_image_evaluator *evaluator = NULL;
    cab_image_set *set = pictures_open(path, on_error);
    assert_ok(cab_image_evaluator_new(judge, NULL, set, &options, &evaluator));
    cab_status status = cab_image_evaluator_run(evaluator, result);
    cab_image_evaluator_free(evaluator);
    cab_image_set_free(set);
    return status;
}

static void test_bad_images(void **state)
{
    const char *data = pictures_write(state);
    cab_model *model = pictures_model(state, "vit", false);
    const cab_image_judge judge = judge_of(model, model_map);
    cab_image_evaluation result = {0};
    assert_ok(cab_file_copy("tests/corpora/images/cut.jpg", temp_path(state, "data/d/00.jpg")));
    data = temp_path(state, "data");
    assert_fails(evaluate_path(data, CAB_ON_ERROR_STOP, &judge, &result), CAB_EFORMAT, "data/d/00.jpg");
    assert_ok(evaluate_path(data, CAB_ON_ERROR_SKIP, &judge, &result));
    assert_int_equal(result.count, PICTURES + 1);
    assert_int_equal(result.images, PICTURES);
    assert_int_equal(result.skipped, 1);
    assert_int_equal(result.class_images[3], 2);
    assert_int_equal(result.predicted[6], -1); /* the first of d */
    assert_int_equal(result.labels[6], 3);
    cab_image_evaluation_free(&result);
    cab_model_free(model);
}

static void test_nothing_left(void **state)
{
    cab_model *model = pictures_model(state, "vit", false);
    const cab_image_judge judge = judge_of(model, model_map);
    cab_image_evaluation result = {0};
    assert_ok(cab_directory_make(temp_path(state, "data/a")));
    assert_ok(cab_file_copy("tests/corpora/images/text.jpg", temp_path(state, "data/a/1.jpg")));
    assert_fails(evaluate_path(temp_path(state, "data"), CAB_ON_ERROR_SKIP, &judge, &result), CAB_EFORMAT,
                 "none of the 1 images could be decoded");
    cab_image_evaluation_free(&result);
    cab_model_free(model);
}

static void test_not_finite(void **state)
{
    float bias[MODEL_CLASSES] = {[2] = NAN};
    cab_backend *backend = NULL;
    cab_model *model = NULL;
    cab_image_evaluation result = {0};
    pictures_write_model(state, "vit", false);
    assert_ok(cab_backend_open(test_device(), &backend));
    assert_ok(cab_model_open(temp_path(state, "vit"), backend, CAB_PRECISION_FP32, true, &model));
    assert_ok(cab_params_write(model->params, cab_params_find(model->params, "classifier.bias"), bias));
    const cab_image_judge judge = judge_of(model, model_map);
    assert_fails(evaluate_path(pictures_write(state), CAB_ON_ERROR_SKIP, &judge, &result), CAB_ENUMERIC,
                 "data/a/00.png: the logits of this image are not finite");
    cab_image_evaluation_free(&result);
    cab_model_free(model);
    cab_backend_close(backend);
}

/* ---- which class is which ----------------------------------------------------------------------------------------- */

static cab_classes classes_of(const char *text)
{
    cab_classes classes;
    assert_ok(cab_classes_parse(text, strlen(text), "map.tsv", &classes));
    return classes;
}

static void test_numbers(void **state)
{
    static const char *const names[PICTURE_CLASSES] = {"a", "b", "c", "d", "e", "f", "g"};
    cab_model *model = pictures_model(state, "vit", false);
    const int32_t *map = NULL;
    cab_classes c = classes_of("0\tant\t8\n1\tbee\t3\n");
    assert_ok(cab_image_classes_for(&c, model, &map));
    assert_ptr_equal(map, c.teacher);
    model->config.n_classes = 2; /* as many as the data: asked directly */
    assert_ok(cab_image_classes_for(&c, model, &map));
    assert_null(map);
    model->config.n_classes = 1;
    assert_fails(cab_image_classes_for(&c, model, &map), CAB_EFORMAT, "tells 1 classes apart, the data has 2");
    model->config.n_classes = 5;
    assert_fails(cab_image_classes_for(&c, model, &map), CAB_EFORMAT, "class \"ant\"");
    cab_classes_free(&c);
    c = classes_of("0\tant\t1\n1\tbee\t0\n");
    model->config.n_classes = 2;
    assert_fails(cab_image_classes_for(&c, model, &map), CAB_EFORMAT, "renumbers all of its 2 classes");
    cab_classes_free(&c);
    assert_ok(cab_classes_from_names(names, PICTURE_CLASSES, &c));
    model->config.n_classes = MODEL_CLASSES;
    assert_fails(cab_image_classes_for(&c, model, &map), CAB_EFORMAT, "--classes");
    cab_classes_free(&c);
    cab_model_free(model);
}

/* A model's own classes.tsv decides, by name. */
static void test_names(void **state)
{
    static const char own[] = "0\tbee\t4\n1\tant\t7\n2\tcat\t0\n", outside[] = "0\tbee\t9\n";
    cab_model *model = pictures_model(state, "vit", false);
    int32_t *map = NULL;
    cab_classes c = classes_of("0\tant\t1\n1\tbee\t2\n");
    assert_ok(cab_file_write(temp_path(state, "vit/classes.tsv"), own, strlen(own)));
    assert_ok(cab_image_classes_match(&c, model, &map));
    assert_int_equal(map[0], 7);
    assert_int_equal(map[1], 4);
    cab_free(map);
    cab_classes_free(&c);
    c = classes_of("0\tant\t1\n1\tdog\t2\n");
    assert_fails(cab_image_classes_match(&c, model, &map), CAB_EFORMAT, "\"dog\"");
    assert_ok(cab_file_write(temp_path(state, "vit/classes.tsv"), outside, strlen(outside)));
    assert_fails(cab_image_classes_match(&c, model, &map), CAB_EFORMAT, "\"bee\" is class 9");
    cab_classes_free(&c);
    cab_model_free(model);
}

/* The same by file names: the model's own classes keep a missing class from shifting the others. */
static void test_files(void **state)
{
    static const char own[] =
        "0\tg\t0\n1\tf\t1\n2\te\t2\n3\td\t3\n4\tc\t4\n5\tb\t5\n6\ta\t6\n7\tmissing\t7\n8\tlast\t8\n";
    static const char seven[] = "0\ta\t0\n1\tb\t1\n2\tc\t2\n3\td\t3\n4\te\t4\n5\tf\t5\n6\tg\t6\n";
    const char *data = strdup(pictures_write(state));
    cab_image_evaluation result = {0};
    cab_classes classes = {0};
    pictures_write_model(state, "vit", false);
    cab_evaluate_images_options o = {
        .model = temp_path(state, "vit"), .data = &data, .data_count = 1, .precision = CAB_PRECISION_FP32};
    assert_fails(cab_evaluate_images(&o, &result, &classes), CAB_EFORMAT, "tells 9 classes apart, the data has 7");
    assert_ok(cab_file_write(temp_path(state, "vit/classes.tsv"), own, strlen(own)));
    assert_fails(cab_evaluate_images(&o, &result, &classes), CAB_EFORMAT, "the class \"missing\" has no image");
    o.on_error = CAB_ON_ERROR_SKIP;
    assert_ok(cab_evaluate_images(&o, &result, &classes));
    assert_int_equal(result.images, PICTURES);
    assert_int_equal(result.skipped, 2);
    assert_int_equal(result.class_images[6], 4);
    assert_string_equal(classes.names[6], "a");
    cab_classes_free(&classes);
    /* its own numbers say nothing of a teacher's classes */
    assert_ok(cab_file_write(temp_path(state, "vit/classes.tsv"), seven, strlen(seven)));
    pictures_write_model(state, "vim", true);
    o.model = temp_path(state, "vit");
    o.teacher = temp_path(state, "vim");
    assert_fails(cab_evaluate_images(&o, &result, &classes), CAB_EFORMAT, "vim: tells 9 classes apart, the data has 7");
    cab_image_evaluation_free(&result);
    free((void *)data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(test_figures),      TEMP_TEST(test_confusions), TEMP_TEST(test_bad_images),
        TEMP_TEST(test_nothing_left), TEMP_TEST(test_not_finite), TEMP_TEST(test_numbers),
        TEMP_TEST(test_names),        TEMP_TEST(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
