/* A teacher in 8-bit floats: how far its outputs are from those in bf16, and who is refused. */
#include "base/random.h"
#include "models/synthetic.h"
#include "ops/backends.h"
#include "ops/fp8.h"
#include "temp.h"

#include <math.h>

enum { BATCH = 16, CLASSES = 1000 };

/* Logits of ViT-Tiny of random weights for 16 random images. */
static void logits(const cab_model *model, float *values)
{
    const cab_config *c = &model->config;
    const size_t pixels = BATCH * 3 * (size_t)c->image_size * (size_t)c->image_size;
    float *images = calloc(pixels, sizeof *images);
    cab_bf16 *raw = calloc(BATCH * CLASSES, sizeof *raw);
    cab_random random = {.seed = 7, .stream = CAB_STREAM_TEST};
    cab_graph *g = NULL;
    assert_true(images != NULL && raw != NULL);
    assert_int_equal(c->n_classes, CLASSES);
    for (size_t i = 0; i < pixels; i++)
        images[i] = cab_random_normal(&random);
    assert_ok(cab_graph_new(model->backend, &g));
    cab_tensor *input = cab_graph_input(g, "pixels", CAB_F32, 4, (int64_t[]){BATCH, 3, c->image_size, c->image_size});
    cab_tensor *y = cab_model_record_logits(g, model, cab_model_record(g, model, input, 0, NULL));
    cab_graph_keep(g, y);
    assert_ok(cab_graph_plan(g, NULL));
    assert_ok(cab_tensor_write(g, input, images));
    assert_ok(cab_graph_run(g));
    assert_ok(cab_tensor_read(g, y, raw));
    cab_convert(values, CAB_F32, raw, CAB_BF16, BATCH * CLASSES);
    cab_graph_free(g);
    free(images);
    free(raw);
}

static void open_model(const char *device, cab_precision precision, cab_model **model)
{
    cab_backend *backend;
    assert_ok(cab_backend_open(device, &backend));
    assert_ok(cab_model_synthetic("bench/configs/vit-tiny.json", 0, backend, precision, false, model));
    (*model)->owns_backend = true;
}

static void test_logits(void **state)
{
    static float whole[BATCH * CLASSES], eight[BATCH * CLASSES];
    cab_model *model;
    double difference = 0, norm = 0;
    (void)state;
    open_model(test_device(), CAB_PRECISION_BF16, &model);
    if (cab_fp8_check(model->backend) != CAB_OK) {
        print_message("%s\n", cab_error_text());
        cab_model_free(model);
        skip();
    }
    logits(model, whole);
    assert_ok(cab_model_quantise(model));
    logits(model, eight);
    for (int i = 0; i < BATCH * CLASSES; i++) {
        difference += (double)(eight[i] - whole[i]) * (double)(eight[i] - whole[i]);
        norm += (double)whole[i] * (double)whole[i];
    }
    print_message("logits: %.1e of 1.5e-01\n", sqrt(difference / norm));
    assert_true(sqrt(difference / norm) < 0.15 && sqrt(difference / norm) > 5e-3);
    cab_model_free(model);
}

static void test_refused(void **state)
{
    cab_model *model;
    (void)state;
    open_model("cpu", CAB_PRECISION_BF16, &model);
    assert_fails(cab_model_quantise(model), CAB_EUNSUPPORTED, "fp8 needs a GPU");
    cab_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_logits), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
