/* Models of several parts: the language model computes what it computes alone, the rest is left out. */
#include "tiny.h"

enum { TOKENS = 7, WORDS = 23 };

static float *logits_of(const char *directory)
{
    static const int32_t ids[TOKENS] = {3, 1, 4, 1, 5, 9, 2};
    cab_model *model = NULL;
    assert_ok(cab_model_load_on(test_device(), directory, CAB_PRECISION_FP32, &model));
    float *logits = tiny_logits(model, ids, 1, TOKENS);
    cab_model_free(model);
    return logits;
}

/* tiny_llama()'s tensors, each name by `format`, "model." of it left out where `short_names`; and a tensor of another part. */
static void write_part(void **state, const tiny *t, const char *format, bool short_names, const char *other)
{
    cab_safetensors_writer *writer = NULL;
    float *values[TINY_TENSORS];
    const float zero = 0;
    assert_ok(cab_safetensors_writer_new(&writer));
    for (int i = 0; i < t->count; i++) {
        char name[CAB_NAME_MAX];
        const char *own = t->tensors[i].name;
        snprintf(name, sizeof name, format, short_names ? own + strlen("model.") : own);
        values[i] = tiny_values(&t->tensors[i]);
        assert_ok(
            cab_safetensors_writer_add(writer, name, CAB_F32, t->tensors[i].n_dim, t->tensors[i].shape, values[i]));
    }
    if (other != NULL)
        assert_ok(cab_safetensors_writer_add(writer, other, CAB_F32, 1, (int64_t[]){1}, &zero));
    assert_ok(cab_safetensors_writer_save(writer, temp_path(state, "model.safetensors")));
    cab_safetensors_writer_free(writer);
    for (int i = 0; i < t->count; i++)
        free(values[i]);
}

static void write_config(void **state, const char *type, const char *text)
{
    char config[3000];
    snprintf(config, sizeof config,
             "{\"model_type\": \"%s\", \"vision_config\": {\"hidden_size\": 8}, \"text_config\": %s}", type, text);
    assert_ok(cab_file_write(temp_path(state, "config.json"), config, strlen(config)));
}

static void test_language_model(void **state)
{
    static const struct {
        const char *format, *other;
        bool short_names;
    } cases[] = {{"language_model.%s", "vision_tower.vision_model.embeddings.weight", false},
                 {"model.language_model.%s", "model.multi_modal_projector.linear_1.weight", true},
                 {"%s", "model.vision_tower.x", false}};
    tiny t = tiny_llama(CAB_F32);
    float *alone = logits_of(tiny_write(state, &t, 1));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_part(state, &t, cases[i].format, cases[i].short_names, cases[i].other);
        write_config(state, "llava", t.config);
        float *part = logits_of(*state);
        assert_memory_equal(part, alone, TOKENS * WORDS * sizeof *part);
        free(part);
    }
    free(alone);
}

static void test_refused(void **state)
{
    tiny t = tiny_llama(CAB_F32);
    cab_model *model = NULL;
    write_part(state, &t, "language_model.%s", false, "audio_tower.weight");
    write_config(state, "llava", t.config);
    assert_fails(cab_model_load(*state, CAB_PRECISION_FP32, &model), CAB_EUNSUPPORTED, "\"audio_tower.weight\"");
    write_config(state, "paligemma", t.config); /* sees a prompt in both directions */
    assert_fails(cab_model_load(*state, CAB_PRECISION_FP32, &model), CAB_EUNSUPPORTED,
                 "architecture \"paligemma\" is not supported");
    write_config(state, "llava", "3");
    assert_fails(cab_model_load(*state, CAB_PRECISION_FP32, &model), CAB_EFORMAT, "\"text_config\"");
}

/* What the files of Gemma 3 (4B) state, and what transformers takes for the rest. */
static void test_defaults(void **state)
{
    tiny t = tiny_llama(CAB_F32);
    cab_config c;
    write_part(state, &t, "language_model.%s", false, NULL);
    write_config(state, "gemma3",
                 "{\"hidden_size\": 2560, \"intermediate_size\": 10240, \"model_type\": \"gemma3_text\", "
                 "\"num_hidden_layers\": 34, \"rope_scaling\": {\"factor\": 8.0, \"rope_type\": \"linear\"}, "
                 "\"sliding_window\": 1024}");
    assert_ok(cab_model_sizes(*state, &c));
    assert_true(c.d_model == 2560 && c.d_mlp == 10240 && c.n_layer == 34 && c.window == 1024);
    assert_true(c.vocab_size == 262208 && c.n_head == 8 && c.n_kv_head == 4 && c.head_dim == 256 && c.tied);
    assert_true(c.max_length == 131072 && c.rope.theta == 1e6 && c.rope.factor == 8 && c.local_rope.theta == 1e4);
    assert_true(c.layer_kinds[4] == CAB_LAYER_SLIDING && c.layer_kinds[5] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_language_model, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_refused, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(test_defaults, temp_setup, temp_teardown),
    };
    cab_thread_limit(2);
    return cmocka_run_group_tests_name("composite", tests, NULL, NULL);
}
