/* Model directories: what loads and how, what is refused and with which sentence, what is saved. */
#include "data/tokenizer.h"
#include "models/part.h"
#include "tiny_state_space.h"

static const char *const teacher_directory = "examples/tales/teacher";

/* Every parameter equals the tensor of its name. */
static void expect_values(const cab_model *model, tiny *t)
{
    assert_int_equal(cab_params_count(model->params), t->count);
    for (size_t i = 0; i < cab_params_count(model->params); i++) {
        const cab_tensor *p = cab_params_at(model->params, i);
        size_t n = (size_t)cab_elements(p);
        float *expected = tiny_values(tiny_find(t, p->name)), *got = calloc(n, sizeof *got);
        assert_non_null(got);
        assert_ok(cab_params_read(model->params, p, got));
        assert_memory_equal(got, expected, n * sizeof *got);
        free(expected);
        free(got);
    }
}

static void test_every_architecture_loads(void **state)
{
    tiny models[] = {tiny_gpt2(CAB_F32, "transformer."),
                     tiny_gpt2(CAB_BF16, ""),
                     tiny_phi(CAB_F32),
                     tiny_phi(CAB_BF16),
                     tiny_llama(CAB_F32),
                     tiny_llama(CAB_BF16),
                     tiny_phi_mamba(CAB_F32),
                     tiny_phi_mamba(CAB_BF16),
                     tiny_mamba(CAB_F32),
                     tiny_mamba(CAB_BF16),
                     tiny_mamba2(CAB_F32),
                     tiny_mamba2(CAB_BF16),
                     tiny_falcon_h1(CAB_F32),
                     tiny_falcon_h1(CAB_BF16),
                     tiny_granite_hybrid(CAB_F32),
                     tiny_granite_hybrid(CAB_BF16)};
    static const char *const names[] = {"gpt2",  "phi",    "llama",     "phi-mamba",
                                        "mamba", "mamba2", "falcon_h1", "granitemoehybrid"};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        for (int precision = CAB_PRECISION_FP32; precision <= CAB_PRECISION_BF16; precision++) {
            cab_model *model = NULL;
            assert_ok(
                cab_model_load_on(test_device(), tiny_write(state, &models[i], 1), (cab_precision)precision, &model));
            assert_string_equal(cab_model_architecture(model), names[i / 2]);
            expect_values(model, &models[i]);
            cab_model_free(model);
        }
}

/* A dry build counts what a build makes. */
static void test_parameters_are_counted(void **state)
{
    tiny models[] = {tiny_gpt2(CAB_F32, ""),  tiny_phi(CAB_F32),           tiny_llama(CAB_F32),
                     tiny_phi_mamba(CAB_F32), tiny_mamba(CAB_F32),         tiny_mamba2(CAB_F32),
                     tiny_falcon_h1(CAB_F32), tiny_granite_hybrid(CAB_F32)};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        cab_model *model = NULL;
        cab_model_count count;
        uint64_t matrices = 0;
        assert_ok(cab_model_load_on(test_device(), tiny_write(state, &models[i], 1), CAB_PRECISION_FP32, &model));
        for (size_t t = 0; t < cab_params_count(model->params); t++)
            if (cab_params_at(model->params, t)->n_dim == 2)
                matrices += (uint64_t)cab_elements(cab_params_at(model->params, t));
        assert_ok(cab_model_count_parameters(model->arch, &model->config, &count));
        assert_int_equal(count.parameters, cab_model_parameters(model));
        assert_int_equal(count.matrices, matrices);
        cab_model_free(model);
    }
}

static void test_configuration(void **state)
{
    tiny t = tiny_phi(CAB_F32);
    cab_model *model = NULL;
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    const cab_config *c = &model->config;
    assert_int_equal(c->vocab_size, 23);
    assert_int_equal(c->head_dim, 4);
    assert_int_equal(c->n_kv_head, 2);
    assert_int_equal(c->rope.dim, 2);
    assert_int_equal(c->d_mlp, 20);
    assert_int_equal(c->max_length, 16);
    assert_int_equal(c->eos_token, 1); /* the first of a list */
    assert_int_equal(cab_model_tap_width(model, 0, CAB_TAP_QUERY), 16);
    assert_int_equal(cab_model_tap_width(model, 0, CAB_TAP_KEY), 8);
    assert_int_equal(cab_model_tap_width(model, 0, CAB_TAP_VALUE), 8);
    cab_model_free(model);
    t = tiny_gpt2(CAB_F32, "");
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    assert_int_equal(model->config.bos_token, -1); /* outside the vocabulary */
    assert_int_equal(cab_model_parameters(model),
                     23 * 12 + 16 * 12 + 2 * (12 * 36 + 36 + 12 * 12 + 12 + 12 * 48 + 48 + 48 * 12 + 12 + 4 * 12) +
                         2 * 12);
    cab_model_free(model);
    t = tiny_phi_mamba(CAB_F32);
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    assert_int_equal(cab_model_tap_width(model, 0, CAB_TAP_QUERY), 10);
    assert_int_equal(cab_model_tap_width(model, 0, CAB_TAP_VALUE), 12);
    assert_int_equal(model->config.eos_token, 0);
    cab_model_free(model);
}

static void test_untied_head(void **state)
{
    tiny t = tiny_gpt2(CAB_F32, "transformer.");
    cab_model *model = NULL;
    tiny_configure(&t, "\"n_layer\"", "\"tie_word_embeddings\": false, \"n_layer\"");
    assert_fails(cab_model_load(tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model), CAB_EFORMAT,
                 "tensor \"lm_head.weight\" is missing");
    TINY_MATRIX(&t, 23, 12, "lm_head.weight");
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    assert_string_equal(cab_model_head(model).w->name, "lm_head.weight");
    cab_model_free(model);
}

/* A frozen matrix stored as it is used stays where it lies in the file; nothing is copied but vectors. */
static void test_bf16_matrices_are_mapped(void **state)
{
    tiny t = tiny_gpt2(CAB_BF16, "");
    cab_model *model = NULL;
    size_t vectors = 0;
    for (int i = 0; i < t.count; i++)
        vectors += t.tensors[i].n_dim == 1 ? (size_t)t.tensors[i].shape[0] * sizeof(float) : 0;
    assert_ok(cab_model_load(tiny_write(state, &t, 1), CAB_PRECISION_BF16, &model));
    assert_int_equal(cab_params_bytes(model->params), vectors);
    assert_fails(cab_params_set_trainable(model->params, "wte.weight", true, NULL), CAB_EARG, "was loaded frozen");
    cab_model_free(model);
}

static void test_trainable_models_have_fp32_masters(void **state)
{
    tiny t = tiny_phi_mamba(CAB_BF16);
    cab_backend *backend = NULL;
    cab_model *model = NULL;
    assert_ok(cab_backend_open(test_device(), &backend));
    assert_ok(cab_model_open(tiny_write(state, &t, 1), backend, CAB_PRECISION_BF16, true, &model));
    expect_values(model, &t);
    for (size_t i = 0; i < cab_params_count(model->params); i++) {
        const cab_tensor *p = cab_params_at(model->params, i);
        assert_true(p->dtype == CAB_F32 && p->trainable && p->grad != NULL);
    }
    cab_model_free(model);
    cab_backend_close(backend);
}

static void test_shards(void **state)
{
    tiny t = tiny_phi_mamba(CAB_F32);
    cab_model *model = NULL;
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 3), CAB_PRECISION_FP32, &model));
    expect_values(model, &t);
    cab_model_free(model);
    assert_int_equal(unlink(temp_path(state, "model-00002-of-00003.safetensors")), 0);
    assert_fails(cab_model_load(*state, CAB_PRECISION_FP32, &model), CAB_EIO, "model-00002-of-00003.safetensors");
}

/* ---- refusals -------------------------------------------------------------------------------------------------------- */

static void expect_refusal(void **state, const tiny *t, cab_status status, const char *text)
{
    cab_model *model = NULL;
    const char *directory = tiny_write(state, t, 1);
    for (int precision = CAB_PRECISION_FP32; precision <= CAB_PRECISION_BF16; precision++) {
        assert_fails(cab_model_load(directory, (cab_precision)precision, &model), status, text);
        assert_non_null(strstr(cab_error_text(), directory)); /* which of many models */
        assert_null(model);
    }
}

static void test_missing_tensor(void **state)
{
    tiny t = tiny_gpt2(CAB_BF16, "transformer.");
    tiny_drop(&t, "transformer.h.1.mlp.c_fc.weight");
    expect_refusal(state, &t, CAB_EFORMAT, "tensor \"transformer.h.1.mlp.c_fc.weight\" is missing");
    t = tiny_phi(CAB_F32);
    tiny_drop(&t, "model.layers.0.self_attn.q_proj.bias");
    expect_refusal(state, &t, CAB_EFORMAT, "tensor \"model.layers.0.self_attn.q_proj.bias\" is missing");
}

static void test_wrong_shape(void **state)
{
    tiny t = tiny_gpt2(CAB_BF16, "");
    tiny_find(&t, "h.0.attn.c_attn.weight")->shape[1] = 35;
    expect_refusal(state, &t, CAB_ESHAPE, "\"h.0.attn.c_attn.weight\"");
    t = tiny_phi_mamba(CAB_F32);
    tiny_find(&t, "backbone.layers.1.mixer.conv1d.weight")->n_dim = 2;
    expect_refusal(state, &t, CAB_ESHAPE, "\"backbone.layers.1.mixer.conv1d.weight\"");
}

static void test_values_that_are_not_finite(void **state)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        tiny t = tiny_gpt2(CAB_BF16, "");
        tiny_find(&t, "h.1.attn.c_proj.weight")->damage = bad[i];
        expect_refusal(state, &t, CAB_ENUMERIC, "\"h.1.attn.c_proj.weight\"");
        t = tiny_phi(CAB_F32);
        tiny_find(&t, "model.final_layernorm.bias")->damage = bad[i];
        expect_refusal(state, &t, CAB_ENUMERIC, "\"model.final_layernorm.bias\"");
    }
}

/* A factor of 1 changes nothing, nor does what begins beyond the positions that a model has; another factor does. */
static void test_rotary_scalings(void **state)
{
    static const struct {
        const char *kind;
        bool same;
    } cases[] = {{"dynamic\", \"factor\": 4, \"x\": \"", true},
                 {"linear\", \"factor\": 1, \"x\": \"", true},
                 {"linear\", \"factor\": 3, \"x\": \"", false},
                 {"llama3\", \"factor\": 1, \"original_max_position_embeddings\": 8, \"x\": \"", true},
                 {"llama3\", \"factor\": 8, \"original_max_position_embeddings\": 8, \"x\": \"", false},
                 {"yarn\", \"factor\": 1, \"x\": \"", true},
                 {"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 8, \"x\": \"", false}};
    const int32_t ids[6] = {3, 1, 4, 1, 5, 9};
    float *plain = NULL;
    for (int i = -1; i < (int)(sizeof cases / sizeof *cases); i++) {
        tiny t = tiny_llama(CAB_F32);
        cab_model *model = NULL;
        char changed[200];
        snprintf(changed, sizeof changed, "\"rope_type\": \"%s\"", i < 0 ? "default" : cases[i].kind);
        tiny_configure(&t, "\"rope_type\": \"default\"", changed);
        assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
        float *logits = tiny_logits(model, ids, 1, 6);
        if (i < 0) {
            plain = logits;
        } else {
            const double distance = tiny_distance(logits, plain, 6 * 23);
            if (cases[i].same ? distance > 1e-6 : distance < 1e-3)
                fail_msg("%s: logits are %g from those of default", cases[i].kind, distance);
            free(logits);
        }
        cab_model_free(model);
    }
    free(plain);
}

/* A config.json of Gemma 3 with these settings beside its sizes. */
static cab_status configure_gemma(const char *settings, cab_config *config)
{
    char text[1024];
    const cab_arch *arch = NULL;
    cab_json json = {.name = "config.json"};
    snprintf(text, sizeof text,
             "{\"model_type\": \"gemma3_text\", \"vocab_size\": 23, \"hidden_size\": 16, \"num_hidden_layers\": 4, "
             "\"num_attention_heads\": 4, \"head_dim\": 8, %s}",
             settings);
    json.root = json_tokener_parse(text);
    assert_non_null(json.root);
    *config = (cab_config){0};
    assert_ok(cab_architecture_of(&json, &arch));
    cab_status status = cab_architecture_configure(arch, &json, config);
    json_object_put(json.root);
    return status;
}

/* Files of transformers 4 and of 5 say the layers' windows and rotary embeddings differently, and mean the same. */
static void test_gemma_settings(void **state)
{
    (void)state;
    static const char *const same[] = {
        "\"sliding_window\": 9, \"sliding_window_pattern\": 3, \"rope_theta\": 5000, \"rope_local_base_freq\": 70, "
        "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8}",
        "\"sliding_window\": 9, \"_sliding_window_pattern\": 6, \"layer_types\": [\"sliding_attention\", "
        "\"sliding_attention\", \"full_attention\", \"sliding_attention\"], \"rope_parameters\": {"
        "\"full_attention\": {\"rope_theta\": 5000, \"rope_type\": \"linear\", \"factor\": 8}, "
        "\"sliding_attention\": {\"rope_theta\": 70, \"rope_type\": \"default\"}}"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        cab_config c;
        assert_ok(configure_gemma(same[i], &c));
        assert_memory_equal(c.layer_kinds, ((uint8_t[]){CAB_LAYER_SLIDING, CAB_LAYER_SLIDING, 0, CAB_LAYER_SLIDING}),
                            4);
        assert_true(c.window == 9 && c.tied && c.activation == CAB_GELU_TANH && c.attention_scale == 1.0 / 16);
        assert_true(c.rope.theta == 5000 && c.rope.kind == CAB_ROPE_LINEAR && c.rope.factor == 8 && c.rope.dim == 8);
        assert_true(c.local_rope.theta == 70 && c.local_rope.kind == CAB_ROPE_DEFAULT && c.local_rope.dim == 8);
    }
    static const char *const refused[][2] = {
        {"\"attn_logit_softcapping\": 50", "\"attn_logit_softcapping\" is 50"},
        {"\"final_logit_softcapping\": 30", "\"final_logit_softcapping\" is 30"},
        {"\"use_bidirectional_attention\": true", "\"use_bidirectional_attention\" is true"},
        {"\"hidden_activation\": \"mish\"", "\"hidden_activation\" is \"mish\""},
        {"\"rope_parameters\": {\"rope_theta\": 5000}", "\"sliding_attention\" is missing"}};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        cab_config c;
        if (configure_gemma(refused[i][0], &c) == CAB_OK || strstr(cab_error_text(), refused[i][1]) == NULL)
            fail_msg("%s: \"%s\", expected \"%s\"", refused[i][0], cab_error_text(), refused[i][1]);
    }
}

static void test_llama_variants_that_are_not_computed(void **state)
{
    static const struct {
        const char *from, *to;
        cab_status status;
        const char *text;
    } changes[] = {
        {"\"rope_type\": \"default\"", "\"rope_type\": \"linear\"", CAB_EFORMAT, "\"factor\" is missing"},
        {"\"rope_type\": \"default\"", "\"rope_type\": \"yarn\", \"factor\": 2, \"mscale\": 1", CAB_EUNSUPPORTED,
         "\"mscale\" is 1"},
        {"\"head_dim\": 6", "\"head_dim\": 6, \"sliding_window\": 8", CAB_EUNSUPPORTED, "\"sliding_window\" is 8"},
        {"\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", CAB_EUNSUPPORTED, "hidden_act is \"gelu\""},
        {"\"head_dim\": 6", "\"head_dim\": 4", CAB_ESHAPE, "\"model.layers.0.self_attn.q_proj.weight\""},
        {"\"mlp_bias\": false", "\"mlp_bias\": true", CAB_EFORMAT, "\"model.layers.0.mlp.gate_proj.bias\" is missing"},
        {"\"attention_bias\": true", "\"attention_bias\": false", CAB_EUNSUPPORTED,
         "_proj.bias\" and 7 more are left over"},
        {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", CAB_ESHAPE, "do not divide"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        tiny t = tiny_llama(CAB_F32);
        tiny_configure(&t, changes[i].from, changes[i].to);
        expect_refusal(state, &t, changes[i].status, changes[i].text);
    }
}

static void test_configurations_that_make_no_sense(void **state)
{
    static const struct {
        const char *from, *to;
        cab_status status;
        const char *text;
    } changes[] = {
        {"\"hidden_size\": 16", "\"hiden_size\": 16", CAB_EFORMAT, "\"hidden_size\" is missing"},
        {"\"hidden_size\": 16", "\"hidden_size\": \"16\"", CAB_EFORMAT, "expected an integer"},
        {"\"hidden_size\": 16", "\"hidden_size\": 0", CAB_EFORMAT, "\"hidden_size\" is 0"},
        {"\"hidden_size\": 16", "\"hidden_size\": 18", CAB_ESHAPE, "do not divide"},
        {"\"vocab_size\": 23", "\"vocab_size\": 16777216", CAB_ESHAPE, "\"model.embed_tokens.weight\""},
        {"\"hidden_size\": 16", "\"hidden_size\": 65536", CAB_ESHAPE, "\"model.embed_tokens.weight\""},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1024", CAB_EFORMAT, "\"model.layers.2."},
        {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", CAB_ESHAPE, "do not divide"},
        {"\"partial_rotary_factor\": 0.5", "\"partial_rotary_factor\": 1e300", CAB_ESHAPE, "partial_rotary_factor"},
        {"\"partial_rotary_factor\": 0.5", "\"partial_rotary_factor\": NaN", CAB_EFORMAT, "expected a positive number"},
        {"\"partial_rotary_factor\": 0.5", "\"rope_theta\": -1", CAB_EFORMAT, "\"rope_theta\" is -1"},
        {"\"partial_rotary_factor\": 0.5", "\"layer_norm_eps\": Infinity", CAB_EFORMAT, "\"layer_norm_eps\" is inf"},
        {"\"partial_rotary_factor\": 0.5", "\"rope_parameters\": 3", CAB_EFORMAT, "expected an object"},
        {"\"partial_rotary_factor\": 0.5", "\"rope_parameters\": {\"rope_type\": \"longer\"}", CAB_EUNSUPPORTED,
         "rope_type is \"longer\""},
        {"\"partial_rotary_factor\": 0.5", "\"rope_scaling\": {\"type\": \"linear\"}", CAB_EFORMAT,
         "\"factor\" is missing"},
        {"\"partial_rotary_factor\": 0.5", "\"qk_layernorm\": true", CAB_EUNSUPPORTED,
         "\"qk_layernorm\" is true; only false is supported"},
        {"\"partial_rotary_factor\": 0.5", "\"hidden_act\": \"mish\"", CAB_EUNSUPPORTED, "\"hidden_act\" is \"mish\""},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        tiny t = tiny_phi(CAB_F32);
        tiny_configure(&t, changes[i].from, changes[i].to);
        expect_refusal(state, &t, changes[i].status, changes[i].text);
    }
    tiny t = tiny_phi_mamba(CAB_F32);
    tiny_configure(&t, "\"d_state\": 5", "\"d_state\": 5, \"expand\": 2");
    expect_refusal(state, &t, CAB_EFORMAT, "\"expand\" is 2");
}

/* A setting that changes the result is obeyed or refused by name, whatever the architecture. */
static void test_settings_that_are_not_computed(void **state)
{
    static const struct {
        int model; /* of the three below */
        const char *setting;
        const char *text;
    } cases[] = {{0, "\"add_cross_attention\": true", "\"add_cross_attention\" is true; only false is supported"},
                 {0, "\"is_encoder_decoder\": true", "\"is_encoder_decoder\" is true"},
                 {0, "\"pruned_heads\": {\"1\": [0]}", "\"pruned_heads\" is {\"1\":[0]}; only {} is supported"},
                 {0, "\"quantization_config\": {\"bits\": 4}", "\"quantization_config\" is {\"bits\":4}"},
                 {1, "\"quantization_config\": {\"bits\": 4}", "\"quantization_config\" is"},
                 {2, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\" is true; only false"},
                 {2, "\"bias\": true", "\"bias\" is true"},
                 {2, "\"conv_bias\": false", "\"conv_bias\" is false"},
                 {2, "\"activation\": \"silu\"", "\"activation\" is \"silu\"; only \"identity\""},
                 {2, "\"rms_norm\": true", "\"rms_norm\" is true; there is no such setting"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const tiny models[] = {tiny_gpt2(CAB_F32, ""), tiny_phi(CAB_F32), tiny_phi_mamba(CAB_F32)};
        tiny t = models[cases[i].model];
        char setting[160];
        snprintf(setting, sizeof setting, "%s, \"vocab_size\"", cases[i].setting);
        tiny_configure(&t, "\"vocab_size\"", setting);
        expect_refusal(state, &t, CAB_EUNSUPPORTED, cases[i].text);
    }
    tiny t = tiny_phi(CAB_F32);
    tiny_configure(&t, "\"vocab_size\"", "\"head_dim\": 8, \"vocab_size\"");
    expect_refusal(state, &t, CAB_ESHAPE, "\"model.layers.0.self_attn.q_proj.weight\""); /* obeyed */
}

/* Settings of training, notes and defaults load; so do tensors that change nothing. */
static void test_what_changes_nothing(void **state)
{
    tiny t = tiny_gpt2(CAB_F32, "transformer.");
    const int before = t.count;
    cab_model *model = NULL;
    tiny_configure(&t, "\"vocab_size\"",
                   "\"attn_pdrop\": 0.1, \"add_cross_attention\": false, \"quantization_config\": null, \"_note\": 3, "
                   "\"pruned_heads\": {}, \"a_key_of_tomorrow\": 1, \"vocab_size\"");
    for (int l = 0; l < 2; l++) {
        tiny_add(&t, 0, 4, (int64_t[]){1, 1, 16, 16}, "transformer.h.%d.attn.bias", l);
        TINY_VECTOR(&t, 0, 1, "transformer.h.%d.attn.masked_bias", l);
    }
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    assert_int_equal(cab_params_count(model->params), before);
    cab_model_free(model);
    t = tiny_phi(CAB_F32);
    TINY_VECTOR(&t, 0, 1, "model.layers.1.self_attn.rotary_emb.inv_freq");
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    cab_model_free(model);
}

static void test_tensors_left_over(void **state)
{
    tiny t = tiny_gpt2(CAB_F32, "transformer.");
    tiny_configure(&t, "\"n_layer\": 2", "\"n_layer\": 1"); /* a layer more than it says */
    expect_refusal(state, &t, CAB_EUNSUPPORTED,
                   "tensor \"transformer.h.1.attn.c_attn.bias\" and 11 more are left over");
    t = tiny_phi(CAB_F32);
    TINY_VECTOR(&t, 1, 4, "model.layers.0.self_attn.q_layernorm.weight");
    expect_refusal(state, &t, CAB_EUNSUPPORTED, "tensor \"model.layers.0.self_attn.q_layernorm.weight\" is left over");
    t = tiny_phi_mamba(CAB_F32);
    TINY_VECTOR(&t, 1, 12, "backbone.layers.0.mixer.norm.weight");
    expect_refusal(state, &t, CAB_EUNSUPPORTED, "\"backbone.layers.0.mixer.norm.weight\" is left over");
}

/* Embedding and head in one: stored under either name, or under both if they are equal. */
static void test_tied_under_either_name(void **state)
{
    const int32_t ids[] = {3, 1, 4, 1, 5, 9};
    for (int which = 0; which < 2; which++) {
        tiny t = which == 0 ? tiny_gpt2(CAB_F32, "transformer.") : tiny_phi(CAB_F32);
        tiny_tensor *e = tiny_find(&t, which == 0 ? "transformer.wte.weight" : "model.embed_tokens.weight");
        char name[CAB_NAME_MAX];
        cab_model *model = NULL;
        memcpy(name, e->name, sizeof name);
        if (which == 1) {
            tiny_drop(&t, "lm_head.weight");
            tiny_configure(&t, "\"vocab_size\"", "\"tie_word_embeddings\": true, \"vocab_size\"");
        }
        e = tiny_find(&t, name);
        snprintf(e->name, sizeof e->name, "lm_head.weight");
        assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
        float *values = tiny_values(e), *got = calloc((size_t)e->shape[0] * (size_t)e->shape[1], sizeof *got);
        assert_ptr_equal(cab_model_head(model).w, cab_params_find(model->params, "lm_head.weight"));
        assert_ok(cab_params_read(model->params, cab_model_head(model).w, got));
        assert_memory_equal(got, values, (size_t)e->shape[0] * (size_t)e->shape[1] * sizeof *got);
        free(tiny_logits(model, ids, 1, 6));
        cab_model_free(model);
        free(values);
        free(got);
        TINY_MATRIX(&t, e->shape[0], e->shape[1], "%s", name); /* another name, so other values */
        expect_refusal(state, &t, CAB_EFORMAT, "\"lm_head.weight\" differ, expected equal ones");
        for (int k = 0; k < t.count; k++) /* equal ones: constants */
            if (strcmp(t.tensors[k].name, name) == 0 || strcmp(t.tensors[k].name, "lm_head.weight") == 0) {
                t.tensors[k].scale = 0;
                t.tensors[k].offset = 0.5f;
            }
        assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
        cab_model_free(model);
    }
}

static void test_unsupported_architecture(void **state)
{
    static const char *const types[] = {"\"model_type\": \"llama-9\"", "\"model_type\": \"\""};
    for (int i = 0; i < 2; i++) {
        tiny t = tiny_gpt2(CAB_F32, "");
        tiny_configure(&t, "\"model_type\": \"gpt2\"", types[i]);
        expect_refusal(state, &t, CAB_EUNSUPPORTED, "is not supported; supported are ");
        for (const cab_arch *const *arch = cab_architectures(); *arch != NULL; arch++)
            assert_non_null(strstr(cab_error_text(), (*arch)->name));
    }
    tiny t = tiny_gpt2(CAB_F32, "");
    tiny_configure(&t, "\"model_type\": \"gpt2\"", "\"model_type\": 2");
    expect_refusal(state, &t, CAB_EFORMAT, "\"model_type\" is 2 (int), expected a string");
    t = tiny_gpt2(CAB_F32, "");
    tiny_configure(&t, "\"model_type\": \"gpt2\",", "");
    expect_refusal(state, &t, CAB_EFORMAT, "\"model_type\" is missing");
}

/* A GPT-2 directory that says it is something else, and the reverse. */
static void test_wrong_model_type(void **state)
{
    tiny t = tiny_gpt2(CAB_F32, "");
    tiny_configure(&t, "\"model_type\": \"gpt2\"", "\"model_type\": \"phi\"");
    expect_refusal(state, &t, CAB_EFORMAT, "\"hidden_size\" is missing");
    t = tiny_phi_mamba(CAB_F32);
    tiny_configure(&t, "\"model_type\": \"phi-mamba\"", "\"model_type\": \"gpt2\"");
    expect_refusal(state, &t, CAB_EFORMAT, "\"n_embd\" is missing");
}

static void test_no_such_directory(void **state)
{
    cab_model *model = NULL;
    assert_fails(cab_model_load(temp_path(state, "nothing"), CAB_PRECISION_FP32, &model), CAB_EIO,
                 "nothing: no such directory");
    assert_fails(cab_model_load(*state, CAB_PRECISION_FP32, &model), CAB_EIO, "config.json");
}

static void test_tokenizer_of_another_model(void **state)
{
    (void)state;
    cab_tokenizer *tokenizer = NULL;
    cab_model *model = NULL;
    char path[CAB_PATH_MAX];
    assert_ok(cab_path_join(path, teacher_directory, "tokenizer.json"));
    assert_ok(cab_tokenizer_load(path, &tokenizer));
    assert_ok(cab_model_load_on(test_device(), teacher_directory, CAB_PRECISION_FP32, &model));
    assert_ok(cab_tokenizer_check_vocab(tokenizer, model->config.vocab_size, teacher_directory));
    assert_fails(cab_tokenizer_check_vocab(tokenizer, 1000, teacher_directory), CAB_ESHAPE, teacher_directory);
    assert_non_null(strstr(cab_error_text(), "1000"));
    cab_tokenizer_free(tokenizer);
    cab_model_free(model);
}

/* ---- values ---------------------------------------------------------------------------------------------------------- */

/* Real weights: bf16 products of a four-layer model stay within 3 % of fp32's logits. */
static void test_bf16_is_near_fp32(void **state)
{
    (void)state;
    cab_model *models[2] = {NULL, NULL};
    float *logits[2];
    int32_t ids[64];
    for (int i = 0; i < 64; i++)
        ids[i] = (i * 37 + 11) % 1000;
    for (int i = 0; i < 2; i++) {
        assert_ok(cab_model_load_on(test_device(), teacher_directory, i == 0 ? CAB_PRECISION_FP32 : CAB_PRECISION_BF16,
                                    &models[i]));
        logits[i] = tiny_logits(models[i], ids, 2, 32);
    }
    double distance = tiny_distance(logits[1], logits[0], (size_t)64 * 1024);
    print_message("bf16 logits are %.4f of their norm from fp32's\n", distance);
    assert_true(distance > 0 && distance < 0.03);
    for (int i = 0; i < 2; i++) {
        free(logits[i]);
        cab_model_free(models[i]);
    }
}

/* ---- saving ---------------------------------------------------------------------------------------------------------- */

static void test_students_survive_saving(void **state)
{
    tiny t = tiny_phi_mamba(CAB_F32);
    cab_model *model = NULL, *again = NULL;
    char directory[CAB_PATH_MAX];
    assert_ok(cab_path_join(directory, *state, "inner/student"));
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    assert_ok(cab_file_write(temp_path(state, "tokenizer.json"), "{}", 2));
    assert_ok(cab_model_save(model, directory));
    assert_ok(cab_model_load_on(test_device(), directory, CAB_PRECISION_FP32, &again));
    expect_values(again, &t);
    assert_string_equal(again->directory, directory);
    again->config.max_length = model->config.max_length;
    assert_memory_equal(&again->config, &model->config, sizeof model->config);
    assert_true(cab_path_exists(temp_path(state, "inner/student/tokenizer.json")));
    cab_model_free(again);

    float values[4] = {5, 6, 7, 8}; /* saving again replaces */
    assert_ok(cab_params_write(model->params, cab_params_find(model->params, "backbone.layers.1.mixer.D"), values));
    assert_ok(cab_model_save(model, directory));
    assert_ok(cab_model_load_on(test_device(), directory, CAB_PRECISION_FP32, &again));
    float got[4];
    assert_ok(cab_params_read(again->params, cab_params_find(again->params, "backbone.layers.1.mixer.D"), got));
    assert_memory_equal(got, values, sizeof values);
    assert_int_equal(temp_count_files(directory), 4); /* with generation_config.json, for the ends of texts */
    cab_model_free(again);
    cab_model_free(model);
}

static void test_export_with_other_values(void **state)
{
    tiny t = tiny_phi_mamba(CAB_F32);
    cab_model *model = NULL, *again = NULL;
    const float *values[TINY_TENSORS] = {NULL};
    const float average[4] = {-1, -2, -3, -4};
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    for (size_t i = 0; i < cab_params_count(model->params); i++)
        if (strcmp(cab_params_at(model->params, i)->name, "backbone.layers.0.mixer.D") == 0)
            values[i] = average;
    assert_ok(cab_model_export(model, temp_path(state, "averaged"), NULL, values));
    cab_model_free(model);
    assert_ok(cab_model_load_on(test_device(), temp_path(state, "averaged"), CAB_PRECISION_FP32, &again));
    float got[4];
    assert_ok(cab_params_read(again->params, cab_params_find(again->params, "backbone.layers.0.mixer.D"), got));
    assert_memory_equal(got, average, sizeof average);
    cab_model_free(again);
}

static void test_teachers_are_not_saved(void **state)
{
    cab_model *model = NULL;
    assert_ok(cab_model_load_on(test_device(), teacher_directory, CAB_PRECISION_BF16, &model));
    assert_fails(cab_model_save(model, temp_path(state, "copy")), CAB_EUNSUPPORTED,
                 "models of architecture \"gpt2\" are read, not written");
    assert_false(cab_path_exists(temp_path(state, "copy")));
    cab_model_free(model);
}

static void test_saving_where_nothing_can_be_written(void **state)
{
    tiny t = tiny_phi_mamba(CAB_F32);
    cab_model *model = NULL;
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    assert_fails(cab_model_save(model, temp_path(state, "config.json")), CAB_EIO, "config.json");
    cab_model_free(model);
}

/* ---- parts that initialisations copy --------------------------------------------------------------------------------- */

/* GPT-2 stores (in, out), and Q, K and V in one matrix; a part is (out, in). */
static void test_parts(void **state)
{
    tiny t = tiny_gpt2(CAB_BF16, "");
    cab_model *model = NULL;
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_BF16, &model));
    float *stored = tiny_values(tiny_find(&t, "h.1.attn.c_attn.weight"));
    cab_part_values k = {0}, bias = {0}, none = {.values = stored};
    assert_ok(cab_model_part(model, CAB_PART_K_W, 1, &k));
    assert_int_equal(k.rows, 12);
    assert_int_equal(k.columns, 12);
    for (int out = 0; out < 12; out++)
        for (int in = 0; in < 12; in++)
            assert_true(k.values[out * 12 + in] == stored[in * 36 + 12 + out]);
    assert_ok(cab_model_part(model, CAB_PART_V_B, 1, &bias));
    float *vector = tiny_values(tiny_find(&t, "h.1.attn.c_attn.bias"));
    assert_int_equal(bias.rows, 12);
    assert_int_equal(bias.columns, 1);
    assert_memory_equal(bias.values, vector + 24, 12 * sizeof(float));
    assert_ok(cab_model_part(model, CAB_PART_HEAD_B, 0, &none));
    assert_null(none.values);
    free(stored);
    free(vector);
    free(k.values);
    free(bias.values);
    cab_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(test_every_architecture_loads),
        TEMP_TEST(test_parameters_are_counted),
        TEMP_TEST(test_configuration),
        TEMP_TEST(test_untied_head),
        TEMP_TEST(test_bf16_matrices_are_mapped),
        TEMP_TEST(test_trainable_models_have_fp32_masters),
        TEMP_TEST(test_shards),
        TEMP_TEST(test_missing_tensor),
        TEMP_TEST(test_wrong_shape),
        TEMP_TEST(test_values_that_are_not_finite),
        TEMP_TEST(test_configurations_that_make_no_sense),
        TEMP_TEST(test_llama_variants_that_are_not_computed),
        TEMP_TEST(test_rotary_scalings),
        TEMP_TEST(test_gemma_settings),
        TEMP_TEST(test_settings_that_are_not_computed),
        TEMP_TEST(test_what_changes_nothing),
        TEMP_TEST(test_tensors_left_over),
        TEMP_TEST(test_tied_under_either_name),
        TEMP_TEST(test_unsupported_architecture),
        TEMP_TEST(test_wrong_model_type),
        TEMP_TEST(test_no_such_directory),
        TEMP_TEST(test_tokenizer_of_another_model),
        TEMP_TEST(test_bf16_is_near_fp32),
        TEMP_TEST(test_students_survive_saving),
        TEMP_TEST(test_export_with_other_values),
        TEMP_TEST(test_teachers_are_not_saved),
        TEMP_TEST(test_saving_where_nothing_can_be_written),
        TEMP_TEST(test_parts),
    };
    cab_thread_limit(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
