/* Several documents in one sequence: each as if it were alone, whatever the model mixes tokens by and however it knows their places. */
#include "tiny.h"

enum { TOKENS = 13, WORDS = 23 };

static const int64_t edges[] = {0, 5, 6, TOKENS};

static float *packed_logits(const cab_model *model, const int32_t *ids)
{
    cab_graph *g = NULL;
    int32_t starts[TOKENS];
    float *values = calloc(TOKENS * WORDS, sizeof *values);
    assert_non_null(values);
    for (int e = 0; e < 3; e++)
        for (int64_t l = edges[e]; l < edges[e + 1]; l++)
            starts[l] = (int32_t)edges[e];
    assert_ok(cab_graph_new(model->backend, &g));
    cab_tensor *input = cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){1, TOKENS});
    cab_tensor *documents = cab_graph_input(g, "starts", CAB_I32, 2, (int64_t[]){1, TOKENS});
    cab_tensor *hidden = cab_model_record_documents(g, model, input, documents, 0, NULL);
    cab_tensor *logits = cab_model_record_logits(g, model, hidden);
    cab_graph_keep(g, logits);
    assert_ok(cab_graph_plan(g, NULL));
    assert_ok(cab_tensor_write(g, input, ids));
    assert_ok(cab_tensor_write(g, documents, starts));
    assert_ok(cab_graph_run(g));
    assert_ok(cab_tensor_read(g, logits, values));
    cab_graph_free(g);
    return values;
}

static void test_alone(void **state)
{
    const tiny models[] = {tiny_gpt2(CAB_F32, ""), tiny_phi(CAB_F32), tiny_llama(CAB_F32), tiny_phi_mamba(CAB_F32)};
    int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * 7 + i / 5) % WORDS;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        cab_model *model = NULL;
        assert_ok(cab_model_load_on(test_device(), tiny_write(state, &models[m], 1), CAB_PRECISION_FP32, &model));
        float *packed = packed_logits(model, ids), *whole = tiny_logits(model, ids, 1, TOKENS);
        for (int e = 0; e < 3; e++) {
            const int64_t n = edges[e + 1] - edges[e];
            float *alone = tiny_logits(model, ids + edges[e], 1, n);
            const double distance = tiny_distance(packed + edges[e] * WORDS, alone, (size_t)(n * WORDS));
            if (!(distance < 1e-5))
                fail_msg("%s, document %d: %g from what it is alone", cab_model_architecture(model), e, distance);
            free(alone);
        }
        assert_true(tiny_distance(packed, whole, TOKENS * WORDS) > 1e-3); /* they do know each other without */
        free(packed);
        free(whole);
        cab_model_free(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_alone, temp_setup, temp_teardown)};
    cab_thread_limit(2);
    return cmocka_run_group_tests_name("documents", tests, NULL, NULL);
}
