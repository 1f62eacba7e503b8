/* Decoding one token at a time equals the whole sequence at once: key and value caches of the teachers, the recurrent state
 * of the student. */
#include "steps.h"
#include "tiny_state_space.h"

enum { LENGTH = 13, VOCABULARY = 23 };

static void compare(void **state, const tiny *t, const char *eager)
{
    static const double tolerance[] = {[CAB_PRECISION_FP32] = 1e-5, [CAB_PRECISION_BF16] = 3e-2};
    int32_t ids[3 * LENGTH];
    for (int i = 0; i < 3 * LENGTH; i++)
        ids[i] = (i * 7 + i / 5) % VOCABULARY;
    const char *directory = tiny_write(state, t, 1);
    for (int precision = CAB_PRECISION_FP32; precision <= CAB_PRECISION_BF16; precision++) {
        const int64_t B = precision == CAB_PRECISION_FP32 ? 3 : 1;
        cab_model *model = NULL;
        assert_ok(cab_model_load_on(test_device(), directory, (cab_precision)precision, &model));
        float *whole = tiny_logits(model, ids, B, LENGTH);
        setenv("CAB_EAGER", eager, 1);
        float *steps = tiny_steps(model, ids, B, LENGTH);
        unsetenv("CAB_EAGER");
        double distance = tiny_distance(steps, whole, (size_t)(B * LENGTH * VOCABULARY));
        if (!(distance <= tolerance[precision]))
            fail_msg("%s, batch %d: steps are %g from the whole", cab_model_architecture(model), (int)B, distance);
        free(whole);
        free(steps);
        cab_model_free(model);
    }
}

static void test_gpt2(void **state)
{
    tiny t = tiny_gpt2(CAB_F32, "");
    compare(state, &t, "0");
}

static void test_phi(void **state)
{
    tiny t = tiny_phi(CAB_F32);
    compare(state, &t, "0");
}

static void test_llama(void **state)
{
    tiny t = tiny_llama(CAB_F32);
    compare(state, &t, "0");
}

static void test_phi_mamba(void **state)
{
    tiny t = tiny_phi_mamba(CAB_F32);
    compare(state, &t, "0");
}

static void test_state_space(void **state)
{
    tiny models[] = {tiny_mamba(CAB_F32), tiny_mamba2(CAB_F32), tiny_falcon_h1(CAB_F32), tiny_granite_hybrid(CAB_F32)};
    for (int i = 0; i < 4; i++)
        compare(state, &models[i], "0");
}

static void test_phi_mamba_without_convolution(void **state)
{
    tiny t = tiny_phi_mamba(CAB_F32);
    tiny_configure(&t, "\"d_conv\": 3", "\"d_conv\": 1");
    for (int i = 0; i < t.count; i++)
        if (t.tensors[i].n_dim == 3)
            t.tensors[i].shape[2] = 1;
    compare(state, &t, "0");
}

static void test_eager(void **state)
{
    tiny models[] = {tiny_gpt2(CAB_F32, ""), tiny_phi(CAB_F32), tiny_phi_mamba(CAB_F32), tiny_mamba(CAB_F32),
                     tiny_falcon_h1(CAB_F32)};
    for (int i = 0; i < 5; i++)
        compare(state, &models[i], "1");
}

/* Positions beyond the table are refused, whole or in steps. */
static void test_sequences_longer_than_the_table(void **state)
{
    tiny t = tiny_gpt2(CAB_F32, "");
    cab_model *model = NULL;
    cab_graph *g = NULL;
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    assert_ok(cab_graph_new(model->backend, &g));
    cab_graph_keep(g,
                   cab_model_record(g, model, cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){1, 17}), false, NULL));
    assert_fails(cab_graph_plan(g, NULL), CAB_ESHAPE, "16");
    cab_graph_free(g);
    cab_model_free(model);
}

/* A token id outside the vocabulary is found when the list runs; on a GPU when something is read of it. */
static void test_ids_outside_the_vocabulary(void **state)
{
    const int32_t bad[] = {-1, VOCABULARY, INT32_MAX};
    float read[64];
    tiny t = tiny_phi_mamba(CAB_F32);
    cab_model *model = NULL;
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    for (int i = 0; i < 3; i++) {
        cab_graph *g = NULL;
        assert_ok(cab_graph_new(model->backend, &g));
        cab_tensor *ids = cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){1, 1});
        cab_tensor *hidden = cab_model_record(g, model, ids, false, NULL);
        cab_graph_keep(g, hidden);
        assert_ok(cab_tensor_write(g, ids, &bad[i]));
        cab_status status = cab_graph_run(g);
        if (!model->backend->host) {
            assert_ok(status);
            status = cab_tensor_read(g, hidden, read);
        }
        assert_fails(status, CAB_EARG, "expected 0 to 22");
        cab_graph_free(g);
    }
    cab_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(test_gpt2),
        TEMP_TEST(test_phi),
        TEMP_TEST(test_llama),
        TEMP_TEST(test_phi_mamba),
        TEMP_TEST(test_state_space),
        TEMP_TEST(test_phi_mamba_without_convolution),
        TEMP_TEST(test_eager),
        TEMP_TEST(test_sequences_longer_than_the_table),
        TEMP_TEST(test_ids_outside_the_vocabulary),
    };
    cab_thread_limit(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
