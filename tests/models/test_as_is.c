/* test_as_is.c - a .gguf file whose matrices stay as quantised as they are computes what it does when they are expanded first; what cannot be
 * so is refused by name. */
#include "base/log.h"
#include "io/gguf.h"
#include "models/export.h"
#include "ops/backends.h"
#include "steps.h"

/* Width 64, 2 heads of 32, one of keys and values; q and k come in llama.cpp's order of rows. */
static tiny wide_llama(void)
{
    tiny t = {.dtype = CAB_F32,
              .config =
                  "{\"model_type\": \"llama\", \"vocab_size\": 23, \"hidden_size\": 64, \"num_hidden_layers\": 1, "
                  "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 32, "
                  "\"intermediate_size\": 96, \"max_position_embeddings\": 16, \"hidden_act\": \"silu\", "
                  "\"attention_bias\": true, \"mlp_bias\": false, \"tie_word_embeddings\": true, "
                  "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 500.0}}"};
    static const struct {
        const char *name;
        int64_t in, out;
    } dense[] = {{"self_attn.q_proj", 64, 64}, {"self_attn.k_proj", 64, 32}, {"self_attn.v_proj", 64, 32},
                 {"self_attn.o_proj", 64, 64}, {"mlp.gate_proj", 64, 96},    {"mlp.up_proj", 64, 96},
                 {"mlp.down_proj", 96, 64}};
    TINY_MATRIX(&t, 23, 64, "model.embed_tokens.weight");
    for (int i = 0; i < 7; i++) {
        TINY_MATRIX(&t, dense[i].out, dense[i].in, "model.layers.0.%s.weight", dense[i].name);
        if (i < 4)
            TINY_VECTOR(&t, 0, dense[i].out, "model.layers.0.%s.bias", dense[i].name);
    }
    TINY_VECTOR(&t, 1, 64, "model.layers.0.input_layernorm.weight");
    TINY_VECTOR(&t, 1, 64, "model.layers.0.post_attention_layernorm.weight");
    TINY_VECTOR(&t, 1, 64, "model.norm.weight");
    return t;
}

static void export_as(void **state, cab_dtype dtype, const char *file)
{
    tiny t = wide_llama();
    cab_exported done;
    const cab_export what = {.model = tiny_write(state, &t, 2), .dtype = dtype};
    assert_ok(cab_export_gguf(&what, file, &done));
    assert_int_equal(done.wider, 0);
}

/* The same values in both, those of one in blocks; an embedding is written as Q8_0. */
static void expect_same_parameters(const cab_model *a, const cab_model *b)
{
    for (size_t p = 0; p < cab_params_count(a->params); p++) {
        const cab_tensor *x = cab_params_at(a->params, p), *y = cab_params_find(b->params, x->name);
        const size_t n = (size_t)cab_elements(x);
        float *values[2] = {malloc(n * sizeof(float)), malloc(n * sizeof(float))};
        assert_non_null(y);
        assert_int_equal(cab_dtype_is_blocks(y->dtype), x->n_dim == 2);
        assert_ok(cab_params_read(a->params, x, values[0]));
        assert_ok(cab_params_read(b->params, y, values[1]));
        if (a->precision == CAB_PRECISION_BF16 && x->n_dim == 2) /* as it is multiplied */
            for (size_t i = 0; i < n; i++)
                values[1][i] = cab_bf16_to_f32(cab_bf16_from_f32(values[1][i]));
        assert_memory_equal(values[0], values[1], n * sizeof(float));
        free(values[0]);
        free(values[1]);
    }
}

/* How far logits may be away. A few rows take another way, on the processor in 16 bits; on a GPU more are the same bits. */
static double tolerance_of(const cab_model *model, bool few)
{
    if (!few && !model->backend->host)
        return 0;
    return model->precision == CAB_PRECISION_BF16 ? 2e-2 : few ? 2e-4 : 1e-5;
}

static void expect_same_logits(const cab_model *a, const cab_model *b, const char *what)
{
    const int32_t ids[35] = {1, 5, 22, 0,  7, 7,  13, 2,  19, 3, 11, 4, 21, 6, 9, 8, 20, 17,
                             3, 3, 12, 18, 1, 10, 14, 15, 16, 2, 5,  0, 22, 6, 7, 4, 8};
    for (int batch = 1; batch < 6; batch += 4) { /* of 3 tokens, and of 35 */
        const int length = batch == 1 ? 3 : 7;
        float *x = tiny_logits(a, ids, batch, length), *y = tiny_logits(b, ids, batch, length);
        const double distance = tiny_distance(y, x, (size_t)(batch * length) * 23);
        if (!(distance <= tolerance_of(a, batch == 1)))
            fail_msg("%s, %d tokens: %g away", what, batch * length, distance);
        free(x);
        free(y);
    }
    float *x = tiny_steps(a, ids, 2, 7), *y = tiny_steps(b, ids, 2, 7); /* one after the other */
    const double distance = tiny_distance(y, x, (size_t)14 * 23);
    if (!(distance <= tolerance_of(a, true)))
        fail_msg("%s, step by step: %g away", what, distance);
    free(x);
    free(y);
}

static void computes_what_it_does_expanded(void **state)
{
    static const cab_dtype stored[] = {CAB_Q8_0, CAB_Q4_0};
    char file[CAB_PATH_MAX];
    snprintf(file, sizeof file, "%s", temp_path(state, "out.gguf"));
    for (int i = 0; i < 4; i++) {
        const cab_precision precision = i / 2 ? CAB_PRECISION_BF16 : CAB_PRECISION_FP32;
        cab_model *a = NULL, *b = NULL;
        export_as(state, stored[i % 2], file);
        assert_ok(cab_model_load_on(test_device(), file, precision, &a));
        assert_ok(cab_model_load_on(test_device(), file, precision | CAB_PRECISION_AS_IS, &b));
        expect_same_parameters(a, b);
        expect_same_logits(a, b, cab_dtype_name(stored[i % 2]));
        cab_model_free(a);
        cab_model_free(b);
    }
    assert_int_equal(cab_precision_of_file("cpu", file), cab_precision_auto("cpu") | CAB_PRECISION_AS_IS);
    assert_int_equal(cab_precision_of_file("cuda", file), cab_precision_auto("cuda"));
}

/* Memory of a device holds the blocks alone: of Q4_0 all matrices but the embedding, 0.28 of bf16's; and that one in Q8_0. */
static void takes_the_memory_of_its_blocks(void **state)
{
    char file[CAB_PATH_MAX];
    cab_model *model = NULL;
    size_t expected = 0;
    if (strcmp(test_device(), "cpu") == 0) {
        print_message("CAB_TEST_DEVICE names no GPU\n");
        skip();
    }
    snprintf(file, sizeof file, "%s", temp_path(state, "out.gguf"));
    export_as(state, CAB_Q4_0, file);
    assert_ok(cab_model_load_on(test_device(), file, CAB_PRECISION_BF16 | CAB_PRECISION_AS_IS, &model));
    for (size_t p = 0; p < cab_params_count(model->params); p++) {
        const cab_tensor *t = cab_params_at(model->params, p);
        const size_t n = (size_t)cab_elements(t);
        expected += t->n_dim == 1 ? n * sizeof(float) : strstr(t->name, "embed") ? n / 32 * 34 : n / 32 * 18;
    }
    float *logits = tiny_logits(model, (int32_t[]){1, 5, 22, 0, 7, 7, 13, 2, 19, 3}, 1, 10);
    assert_int_equal(cab_params_bytes(model->params), expected + 192 * sizeof(cab_bf16)); /* copies of the biases */
    free(logits);
    cab_model_free(model);
}

static void refuses_by_name(void **state)
{
    cab_backend *backend = NULL;
    cab_model *model = NULL;
    char file[CAB_PATH_MAX];
    const cab_precision as_is = CAB_PRECISION_FP32 | CAB_PRECISION_AS_IS;
    snprintf(file, sizeof file, "%s", temp_path(state, "out.gguf"));
    export_as(state, CAB_Q8_0, file);
    assert_ok(cab_backend_open(test_device(), &backend));
    assert_fails(cab_model_open(file, backend, as_is, true, &model), CAB_EUNSUPPORTED,
                 "out.gguf: precision as-is is of frozen models; quantised matrices do not train");
    export_as(state, CAB_BF16, file);
    assert_fails(cab_model_open(file, backend, as_is, false, &model), CAB_EUNSUPPORTED, "no matrix is quantised");
    cab_backend_close(backend);
}

/* The scale of a block of a matrix is infinite. */
static void finds_what_is_no_number(void **state)
{
    cab_gguf *gguf = NULL;
    cab_model *model = NULL;
    char file[CAB_PATH_MAX];
    snprintf(file, sizeof file, "%s", temp_path(state, "out.gguf"));
    export_as(state, CAB_Q8_0, file);
    assert_ok(cab_gguf_open(file, &gguf));
    const size_t bytes = cab_gguf_find(gguf, "blk.0.ffn_down.weight")->bytes;
    const uint8_t *data = cab_gguf_find(gguf, "blk.0.ffn_down.weight")->data;
    uint8_t *copy = malloc(bytes);
    memcpy(copy, data, bytes);
    cab_gguf_close(gguf);
    FILE *f = fopen(file, "r+b");
    size_t at = 0, matched = 0;
    for (int c = fgetc(f); c != EOF && matched < 64; c = fgetc(f), at++)
        matched = (uint8_t)c == copy[matched] ? matched + 1 : (uint8_t)c == copy[0];
    assert_int_equal(matched, 64);
    fseek(f, (long)(at - matched), SEEK_SET);
    fwrite("\x00\x7c", 1, 2, f);
    fclose(f);
    free(copy);
    assert_fails(cab_model_load_on(test_device(), file, CAB_PRECISION_FP32 | CAB_PRECISION_AS_IS, &model), CAB_ENUMERIC,
                 "tensor \"model.layers.0.mlp.down_proj.weight\": 32 of 6144 values are NaN or infinite");
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(computes_what_it_does_expanded),
                                       TEMP_TEST(takes_the_memory_of_its_blocks), TEMP_TEST(refuses_by_name),
                                       TEMP_TEST(finds_what_is_no_number)};
    cab_thread_limit(1);
    cab_log_quiet(true);
    return cmocka_run_group_tests_name("as_is", tests, NULL, NULL);
}
