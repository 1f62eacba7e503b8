/* test_export.c - what is exported computes what the model did, read back from the file; tensors of families by their formulas; what llama.cpp
 * would compute otherwise is refused, and nothing is left. */
#include "base/log.h"
#include "io/gguf.h"
#include "models/export.h"
#include "tiny.h"

static cab_status export_to(void **state, const char *model, cab_dtype dtype, cab_exported *done)
{
    const cab_export what = {.model = model, .dtype = dtype};
    return cab_export_gguf(&what, temp_path(state, "out.gguf"), done);
}

static void compare_logits(const char *model, const char *file, double tolerance)
{
    cab_model *a = NULL, *b = NULL;
    const int32_t ids[14] = {1, 5, 22, 0, 7, 7, 13, 2, 19, 3, 11, 4, 21, 6};
    assert_ok(cab_model_load(model, CAB_PRECISION_FP32, &a));
    assert_ok(cab_model_load(file, CAB_PRECISION_FP32, &b));
    assert_int_equal(a->config.vocab_size, b->config.vocab_size);
    float *x = tiny_logits(a, ids, 2, 7), *y = tiny_logits(b, ids, 2, 7);
    const double distance = tiny_distance(y, x, (size_t)14 * (size_t)a->config.vocab_size);
    if (!(distance <= tolerance))
        fail_msg("%s: logits are %g away from %s, at most %g", file, distance, model, tolerance);
    free(x);
    free(y);
    cab_model_free(a);
    cab_model_free(b);
}

static void a_llama_computes_what_it_did(void **state)
{
    const cab_dtype stored[] = {CAB_F32, CAB_BF16};
    for (int i = 0; i < 2; i++) {
        tiny t = tiny_llama(stored[i]);
        cab_exported done;
        const char *directory = tiny_write(state, &t, 2);
        char file[CAB_PATH_MAX], again[CAB_PATH_MAX];
        snprintf(file, sizeof file, "%s", temp_path(state, "out.gguf"));
        snprintf(again, sizeof again, "%s", temp_path(state, "again.gguf"));
        assert_ok(export_to(state, directory, CAB_F32, &done));
        assert_int_equal(done.tensors, t.count);
        assert_int_equal(done.wider, 0);
        compare_logits(directory, file, 0);
        assert_ok(export_to(state, directory, CAB_BF16, &done)); /* the values are bf16 numbers */
        compare_logits(directory, file, 0);
        assert_ok(export_to(state, directory, CAB_Q8_0, &done)); /* rows of 16, 20 and 24: no whole block */
        assert_int_equal(done.wider, 15);
        compare_logits(directory, file, 1e-3);
        const cab_export from_file = {.model = file, .dtype = CAB_F32};
        assert_ok(cab_export_gguf(&from_file, again, &done));
        compare_logits(file, again, 0);
    }
}

/* A tied embedding may be stored under its own name, under the head's, or under both, if they are equal. */
static void a_tied_head(void **state)
{
    cab_exported done;
    char directory[CAB_PATH_MAX], file[CAB_PATH_MAX];
    snprintf(directory, sizeof directory, "%s", (const char *)*state);
    snprintf(file, sizeof file, "%s", temp_path(state, "out.gguf"));
    tiny t = tiny_llama(CAB_F32);
    snprintf(tiny_find(&t, "model.embed_tokens.weight")->name, CAB_NAME_MAX, "lm_head.weight");
    tiny_write(state, &t, 1);
    assert_ok(export_to(state, directory, CAB_F32, &done));
    compare_logits(directory, file, 0);
    TINY_MATRIX(&t, 23, 16, "model.embed_tokens.weight"); /* other values: a function of the name */
    tiny_write(state, &t, 1);
    assert_fails(export_to(state, directory, CAB_F32, &done), CAB_EFORMAT, "differ, expected equal ones");
    tiny_find(&t, "model.embed_tokens.weight")->scale = tiny_find(&t, "lm_head.weight")->scale = 0;
    tiny_write(state, &t, 1);
    assert_ok(export_to(state, directory, CAB_F32, &done));
    assert_int_equal(done.tensors, t.count - 1);
}

/* A name with "phi3" in it makes llama.cpp look for tokens; a model that has none of them is not called so. */
static void a_name_that_llama_cpp_takes_at_its_word(void **state)
{
    static const char *const names[] = {"my-Phi3", "my-Phi-3-mini", "my-llama"};
    tiny t = tiny_llama(CAB_F32);
    tiny_write(state, &t, 1);
    for (int i = 0; i < 3; i++) {
        cab_exported done;
        cab_gguf *g = NULL;
        char directory[CAB_PATH_MAX], file[CAB_PATH_MAX];
        snprintf(directory, sizeof directory, "%s", temp_path(state, names[i]));
        assert_ok(cab_directory_make(directory));
        for (int k = 0; k < 2; k++) {
            const char *name = k == 0 ? "config.json" : "model.safetensors";
            assert_ok(cab_path_join(file, directory, name));
            assert_ok(cab_file_copy(temp_path(state, name), file));
        }
        assert_ok(export_to(state, directory, CAB_F32, &done));
        assert_ok(cab_gguf_open(temp_path(state, "out.gguf"), &g));
        assert_true(json_object_object_get_ex(cab_gguf_metadata(g)->root, "general.name", NULL) == (i == 2));
        cab_gguf_close(g);
    }
}

static float *values_of(const cab_gguf *g, const char *name, int n_dim, const int64_t *shape)
{
    size_t n = 1;
    for (int i = 0; i < n_dim; i++)
        n *= (size_t)shape[i];
    float *values = calloc(n, sizeof *values);
    const cab_safetensors_entry *e = cab_gguf_find(g, name);
    if (e == NULL)
        fail_msg("no tensor \"%s\"", name);
    assert_ok(cab_safetensors_entry_read_f32(e, n_dim, shape, values));
    return values;
}

/* The file's tensor is `count` values of transformers' from `begin` on, by `change`. */
static void compare_tensor(const cab_gguf *g, const char *name, int n_dim, const int64_t *shape, tiny *t,
                           const char *theirs, size_t begin, double (*change)(double))
{
    float *found = values_of(g, name, n_dim, shape), *all = tiny_values(tiny_find(t, theirs));
    for (size_t i = 0; i < (size_t)(shape[0] * (n_dim > 1 ? shape[1] : 1)); i++)
        if (fabs((double)found[i] - change((double)all[begin + i])) > 1e-6)
            fail_msg("%s[%zu] is %g, expected %g", name, i, (double)found[i], change((double)all[begin + i]));
    free(found);
    free(all);
}

static double same(double x)
{
    return x;
}

static double decay(double a_log)
{
    return -exp(a_log);
}

/* Width 32, E 64 in 4 heads, state 8; the names before "mixer" differ. */
static void add_mixer(tiny *t, const char *mixer, int64_t groups, bool normed)
{
    const int64_t channels = 64 + 2 * groups * 8;
    TINY_MATRIX(t, 64 + channels + 4, 32, "%sin_proj.weight", mixer);
    tiny_add(t, 0, 3, (int64_t[]){channels, 1, 4}, "%sconv1d.weight", mixer);
    TINY_VECTOR(t, 0, channels, "%sconv1d.bias", mixer);
    TINY_VECTOR(t, 0, 4, "%sdt_bias", mixer);
    TINY_VECTOR(t, 0.5f, 4, "%sA_log", mixer);
    TINY_VECTOR(t, 1, 4, "%sD", mixer);
    if (normed)
        TINY_VECTOR(t, 1, 64, "%snorm.weight", mixer);
    TINY_MATRIX(t, 32, 64, "%sout_proj.weight", mixer);
}

static void compare_mixer(const cab_gguf *g, tiny *t, const char *mixer, int64_t groups)
{
    const int64_t channels = 64 + 2 * groups * 8;
    char name[CAB_NAME_MAX];
#define THEIRS(end) (snprintf(name, sizeof name, "%s%s", mixer, end), name)
    compare_tensor(g, "blk.0.ssm_in.weight", 2, (int64_t[]){64 + channels + 4, 32}, t, THEIRS("in_proj.weight"), 0,
                   same);
    compare_tensor(g, "blk.0.ssm_conv1d.weight", 2, (int64_t[]){channels, 4}, t, THEIRS("conv1d.weight"), 0, same);
    compare_tensor(g, "blk.0.ssm_dt.bias", 1, (int64_t[]){4}, t, THEIRS("dt_bias"), 0, same);
    compare_tensor(g, "blk.0.ssm_a", 2, (int64_t[]){4, 1}, t, THEIRS("A_log"), 0, decay);
    compare_tensor(g, "blk.0.ssm_d", 2, (int64_t[]){4, 1}, t, THEIRS("D"), 0, same);
    compare_tensor(g, "blk.0.ssm_out.weight", 2, (int64_t[]){32, 64}, t, THEIRS("out_proj.weight"), 0, same);
#undef THEIRS
}

/* One layer; 2 heads of width 16, one of keys and values. */
static tiny tiny_hybrid(const char *config, const char *mlp_norm, const char *final_norm)
{
    tiny t = {.dtype = CAB_F32};
    snprintf(t.config, sizeof t.config, "%s", config);
    TINY_MATRIX(&t, 23, 32, "model.embed_tokens.weight");
    TINY_VECTOR(&t, 1, 32, "%s", final_norm);
    TINY_VECTOR(&t, 1, 32, "model.layers.0.input_layernorm.weight");
    TINY_VECTOR(&t, 1, 32, "%s", mlp_norm);
    return t;
}

static tiny tiny_falcon_h1(void)
{
    tiny t = tiny_hybrid(
        "{\"model_type\": \"falcon_h1\", \"vocab_size\": 23, \"hidden_size\": 32, \"num_hidden_layers\": 1, "
        "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 16, \"intermediate_size\": 40, "
        "\"mamba_d_ssm\": 64, \"mamba_n_heads\": 4, \"mamba_d_head\": 16, \"mamba_d_state\": 8, \"mamba_n_groups\": 2, "
        "\"mamba_d_conv\": 4, \"mamba_rms_norm\": false, \"mamba_norm_before_gate\": false, \"hidden_act\": \"silu\", "
        "\"ssm_multipliers\": [1.0, 1.0, 1.0, 1.0, 1.0], \"key_multiplier\": 1.0, \"attention_bias\": true, "
        "\"time_step_limit\": [0.0, {\"__float__\": \"Infinity\"}], \"tie_word_embeddings\": true}",
        "model.layers.0.pre_ff_layernorm.weight", "model.final_layernorm.weight");
    static const struct {
        const char *name;
        int64_t rows, columns;
    } dense[] = {{"self_attn.q_proj", 32, 32},       {"self_attn.k_proj", 16, 32},
                 {"self_attn.v_proj", 16, 32},       {"self_attn.o_proj", 32, 32},
                 {"feed_forward.gate_proj", 40, 32}, {"feed_forward.up_proj", 40, 32},
                 {"feed_forward.down_proj", 32, 40}};
    for (int i = 0; i < 7; i++)
        TINY_MATRIX(&t, dense[i].rows, dense[i].columns, "model.layers.0.%s.weight", dense[i].name);
    TINY_VECTOR(&t, 0, 32, "model.layers.0.self_attn.q_proj.bias");
    TINY_VECTOR(&t, 0, 16, "model.layers.0.self_attn.k_proj.bias");
    TINY_VECTOR(&t, 0, 16, "model.layers.0.self_attn.v_proj.bias");
    TINY_VECTOR(&t, 0, 32, "model.layers.0.self_attn.o_proj.bias");
    tiny_find(&t, "model.layers.0.self_attn.o_proj.bias")->scale = 0;
    add_mixer(&t, "model.layers.0.mamba.", 2, false);
    return t;
}

static void a_falcon_h1(void **state)
{
    tiny t = tiny_falcon_h1();
    cab_exported done;
    cab_gguf *g = NULL;
    assert_ok(export_to(state, tiny_write(state, &t, 1), CAB_F32, &done));
    assert_ok(cab_gguf_open(temp_path(state, "out.gguf"), &g));
    compare_mixer(g, &t, "model.layers.0.mamba.", 2);
    compare_tensor(g, "blk.0.ffn_norm", 1, (int64_t[]){32}, &t, "model.layers.0.pre_ff_layernorm.weight", 0, same);
    compare_tensor(g, "output_norm.weight", 1, (int64_t[]){32}, &t, "model.final_layernorm.weight", 0, same);
    compare_tensor(g, "blk.0.attn_q.weight", 2, (int64_t[]){32, 32}, &t, "model.layers.0.self_attn.q_proj.weight", 0,
                   same); /* the order of rows is transformers' */
    assert_null(cab_gguf_find(g, "blk.0.attn_output.bias"));
    assert_int_equal(cab_gguf_count(g), t.count - 1);
    int64_t groups = 0, inner = 0;
    assert_ok(cab_json_int(cab_gguf_metadata(g), NULL, "falcon-h1.ssm.group_count", 0, 9, &groups));
    assert_ok(cab_json_int(cab_gguf_metadata(g), NULL, "falcon-h1.ssm.inner_size", 0, 99, &inner));
    assert_int_equal(groups, 2);
    assert_int_equal(inner, 64);
    cab_gguf_close(g);
}

/* Multipliers become weights: what the file computes is what the directory did. */
static void a_falcon_h1_with_multipliers(void **state)
{
    static const char *const ends[] = {
        "\"embedding_multiplier\": 3.0, \"lm_head_multiplier\": 0.5, \"tie_word_embeddings\": true",
        "\"embedding_multiplier\": 0.5, \"lm_head_multiplier\": 0.5, \"tie_word_embeddings\": true",
        "\"embedding_multiplier\": 3.0, \"lm_head_multiplier\": 0.5, \"tie_word_embeddings\": false"};
    static const char *const more[] = {
        "\"attention_in_multiplier\": 0.7, \"attention_out_multiplier\": 1.3, \"ssm_in_multiplier\": 1.2, "
        "\"ssm_out_multiplier\": 0.6, \"mlp_multipliers\": [1.5, 0.4], \"key_multiplier\": 0.5, \"attention_bias\"",
        "[1.1, 0.8, 2.0, 0.9, 1.4]"};
    const int32_t ids[] = {3, 1, 4, 1, 5, 9, 2, 6};
    for (int i = 0; i < 3; i++) {
        tiny t = tiny_falcon_h1();
        cab_exported done;
        cab_model *models[2] = {NULL, NULL};
        float *logits[2];
        tiny_configure(&t, "\"key_multiplier\": 1.0, \"attention_bias\"", more[0]);
        tiny_configure(&t, "[1.0, 1.0, 1.0, 1.0, 1.0]", more[1]);
        tiny_configure(&t, "\"tie_word_embeddings\": true", ends[i]);
        if (i == 2)
            TINY_MATRIX(&t, 23, 32, "lm_head.weight");
        const char *directory = tiny_write(state, &t, 1);
        assert_ok(export_to(state, directory, CAB_F32, &done));
        assert_int_equal(done.tensors, t.count - 1 + (i == 0));
        assert_ok(cab_model_load(directory, CAB_PRECISION_FP32, &models[0]));
        assert_ok(cab_model_load(temp_path(state, "out.gguf"), CAB_PRECISION_FP32, &models[1]));
        for (int k = 0; k < 2; k++)
            logits[k] = tiny_logits(models[k], ids, 1, 8);
        if (!(tiny_distance(logits[0], logits[1], 8 * 23) < 1e-5))
            fail_msg("%d: %g", i, tiny_distance(logits[0], logits[1], 8 * 23));
        for (int k = 0; k < 2; k++) {
            free(logits[k]);
            cab_model_free(models[k]);
        }
    }
}

static void a_granite_hybrid(void **state)
{
    tiny t = tiny_hybrid(
        "{\"model_type\": \"granitemoehybrid\", \"vocab_size\": 23, \"hidden_size\": 32, \"num_hidden_layers\": 1, "
        "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"shared_intermediate_size\": 40, \"mamba_expand\": "
        "2, "
        "\"mamba_n_heads\": 4, \"mamba_d_head\": \"auto\", \"mamba_d_state\": 8, \"mamba_n_groups\": 1, "
        "\"mamba_d_conv\": 4, \"num_local_experts\": 0, \"attention_multiplier\": 0.25, \"logits_scaling\": 4.0, "
        "\"layer_types\": [\"linear_attention\"], \"position_embedding_type\": \"rope\", \"tie_word_embeddings\": "
        "true}",
        "model.layers.0.post_attention_layernorm.weight", "model.norm.weight");
    cab_exported done;
    cab_gguf *g = NULL;
    double scale = 0;
    TINY_MATRIX(&t, 80, 32, "model.layers.0.shared_mlp.input_linear.weight");
    TINY_MATRIX(&t, 32, 40, "model.layers.0.shared_mlp.output_linear.weight");
    add_mixer(&t, "model.layers.0.mamba.", 1, true);
    assert_ok(export_to(state, tiny_write(state, &t, 1), CAB_F32, &done));
    assert_ok(cab_gguf_open(temp_path(state, "out.gguf"), &g));
    compare_mixer(g, &t, "model.layers.0.mamba.", 1);
    compare_tensor(g, "blk.0.ssm_norm.weight", 2, (int64_t[]){1, 64}, &t, "model.layers.0.mamba.norm.weight", 0, same);
    compare_tensor(g, "blk.0.ffn_gate.weight", 2, (int64_t[]){40, 32}, &t,
                   "model.layers.0.shared_mlp.input_linear.weight", 0, same);
    compare_tensor(g, "blk.0.ffn_up.weight", 2, (int64_t[]){40, 32}, &t,
                   "model.layers.0.shared_mlp.input_linear.weight", (size_t)40 * 32, same);
    const cab_json *m = cab_gguf_metadata(g);
    json_object *heads = NULL;
    assert_ok(cab_json_array(m, NULL, "granitehybrid.attention.head_count_kv", &heads));
    assert_string_equal(json_object_to_json_string_ext(heads, JSON_C_TO_STRING_PLAIN), "[0]");
    assert_ok(cab_json_number(m, NULL, "granitehybrid.logit_scale", &scale));
    assert_true(scale == 4);
    assert_false(json_object_object_get_ex(m->root, "granitehybrid.attention.scale", NULL)); /* 16^-1/2: as usual */
    cab_gguf_close(g);
}

static void a_mamba2(void **state)
{
    tiny t = {.dtype = CAB_F32,
              .config =
                  "{\"model_type\": \"mamba2\", \"vocab_size\": 23, \"hidden_size\": 32, \"num_hidden_layers\": 1, "
                  "\"num_heads\": 4, \"head_dim\": 16, \"state_size\": 8, \"n_groups\": 1, \"expand\": 2, "
                  "\"use_conv_bias\": false, \"tie_word_embeddings\": false}"};
    cab_exported done;
    cab_gguf *g = NULL;
    TINY_MATRIX(&t, 23, 32, "backbone.embeddings.weight");
    TINY_MATRIX(&t, 23, 32, "lm_head.weight");
    TINY_VECTOR(&t, 1, 32, "backbone.norm_f.weight");
    TINY_VECTOR(&t, 1, 32, "backbone.layers.0.norm.weight");
    add_mixer(&t, "backbone.layers.0.mixer.", 1, true);
    tiny_drop(&t, "backbone.layers.0.mixer.conv1d.bias");
    assert_ok(export_to(state, tiny_write(state, &t, 1), CAB_F32, &done));
    assert_ok(cab_gguf_open(temp_path(state, "out.gguf"), &g));
    compare_mixer(g, &t, "backbone.layers.0.mixer.", 1);
    assert_non_null(cab_gguf_find(g, "output.weight"));
    float *bias = values_of(g, "blk.0.ssm_conv1d.bias", 1, (int64_t[]){80});
    for (int i = 0; i < 80; i++)
        assert_true(bias[i] == 0);
    free(bias);
    cab_gguf_close(g);
}

static void refuse(void **state, tiny *t, cab_status expected, const char *text)
{
    cab_exported done;
    assert_fails(export_to(state, tiny_write(state, t, 1), CAB_BF16, &done), expected, text);
    assert_false(cab_path_exists(temp_path(state, "out.gguf")));
    assert_int_equal(temp_count_files(*state), 2); /* config.json, model.safetensors */
}

static void what_cannot_be_said_is_refused(void **state)
{
    tiny t = tiny_gpt2(CAB_F32, "");
    refuse(state, &t, CAB_EUNSUPPORTED,
           "config.json: model_type \"gpt2\" cannot be written as GGUF; those that can: llama,");
    t = tiny_llama(CAB_F32);
    TINY_VECTOR(&t, 0, 4, "model.layers.0.extra.weight");
    refuse(state, &t, CAB_EUNSUPPORTED, "tensor \"model.layers.0.extra.weight\" has no place in llama.cpp's");
    t = tiny_llama(CAB_F32);
    tiny_drop(&t, "model.layers.1.self_attn.v_proj.bias");
    refuse(state, &t, CAB_ESHAPE, "parameters, but config.json describes");
    t = tiny_llama(CAB_F32);
    tiny_find(&t, "model.layers.1.mlp.up_proj.weight")->damage = NAN;
    refuse(state, &t, CAB_ENUMERIC, "tensor \"model.layers.1.mlp.up_proj.weight\": element 319 is nan");
    t = tiny_falcon_h1();
    tiny_find(&t, "model.layers.0.self_attn.o_proj.bias")->scale = 1;
    refuse(state, &t, CAB_EUNSUPPORTED, "o_proj.bias\" is not zero: llama.cpp's \"falcon-h1\" adds no bias there");
    t = tiny_falcon_h1();
    tiny_configure(&t, "{\"__float__\": \"Infinity\"}", "0.5");
    refuse(state, &t, CAB_EUNSUPPORTED, "\"time_step_limit\" is ");
    t = tiny_falcon_h1();
    tiny_configure(&t, "\"mamba_d_head\": 16", "\"mamba_d_head\": 17");
    refuse(state, &t, CAB_ESHAPE, "4 state-space heads of width 17 are not the inner width of 64");
}

/* Golden models of the families that can be read back. */
static void golden_models_compute_what_they_did(void **state)
{
    static const char *const names[] = {"llama",          "llama3",         "llama_mlp_bias",
                                        "qwen2",          "qwen2_yarn",     "qwen3",
                                        "gemma2",         "gemma3",         "granite",
                                        "olmo2",          "phi3",           "falcon_h1",
                                        "falcon_h1_norm", "granite_hybrid", "granite_hybrid_bias",
                                        "mamba2",         "mamba",          NULL};
    const char *golden = getenv("CAB_GOLDEN") != NULL ? getenv("CAB_GOLDEN") : "../shared/golden";
    char path[CAB_PATH_MAX], inner[CAB_PATH_MAX];
    for (int i = 0; names[i] != NULL; i++) {
        cab_exported done;
        snprintf(inner, sizeof inner, "hf_%s", names[i]);
        assert_ok(cab_path_join(path, golden, inner));
        if (!cab_path_exists(path)) {
            printf("skipped: %s is not there\n", path);
            continue;
        }
        assert_ok(export_to(state, path, CAB_F32, &done));
        compare_logits(path, temp_path(state, "out.gguf"), 1e-5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(a_llama_computes_what_it_did),
                                       TEMP_TEST(a_tied_head),
                                       TEMP_TEST(a_name_that_llama_cpp_takes_at_its_word),
                                       TEMP_TEST(a_falcon_h1),
                                       TEMP_TEST(a_falcon_h1_with_multipliers),
                                       TEMP_TEST(a_granite_hybrid),
                                       TEMP_TEST(a_mamba2),
                                       TEMP_TEST(what_cannot_be_said_is_refused),
                                       TEMP_TEST(golden_models_compute_what_they_did)};
    cab_thread_limit(1); /* tiny models, and other tests beside this one */
    cab_log_quiet(true);
    return cmocka_run_group_tests_name("export", tests, NULL, NULL);
}
