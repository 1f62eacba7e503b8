/* Models with state-space mixers: what configurations say, what becomes of multipliers, what is saved, what the taps show. */
#include "models/export.h"
#include "tiny_state_space.h"

enum { B = 2, L = 11, FAMILIES = 4 };

static tiny family(int i)
{
    return i == 0   ? tiny_mamba(CAB_F32)
           : i == 1 ? tiny_mamba2(CAB_F32)
           : i == 2 ? tiny_falcon_h1(CAB_F32)
                    : tiny_granite_hybrid(CAB_F32);
}

static cab_model *open_tiny(void **state, const tiny *t)
{
    cab_model *model = NULL;
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, t, 1), CAB_PRECISION_FP32, &model));
    return model;
}

static const int32_t *ids(void)
{
    static int32_t list[B * L];
    for (int i = 0; i < B * L; i++)
        list[i] = (i * 7 + i / 5) % 23;
    return list;
}

static void test_configuration(void **state)
{
    tiny t = tiny_falcon_h1(CAB_F32);
    cab_model *model = open_tiny(state, &t);
    assert_int_equal(model->config.d_inner, 24);
    assert_int_equal(model->config.n_state_head, 3);
    assert_int_equal(cab_model_tap_width(model, 0, CAB_TAP_QUERY), 12);
    assert_int_equal(cab_model_tap_width(model, 0, CAB_TAP_VALUE), 6);
    assert_int_equal(cab_model_tap_width(model, 0, CAB_TAP_C), 5);
    assert_int_equal(cab_model_tap_width(model, 0, CAB_TAP_X), 24);
    assert_true(cab_network_bounded(&model->network));
    cab_model_free(model);
    t = tiny_granite_hybrid(CAB_F32);
    model = open_tiny(state, &t);
    assert_int_equal(cab_model_tap_width(model, 0, CAB_TAP_QUERY), 5); /* C, where there is no attention */
    assert_int_equal(cab_model_tap_width(model, 1, CAB_TAP_QUERY), 16);
    assert_int_equal(cab_model_tap_width(model, 1, CAB_TAP_C), 0);
    cab_model_free(model);
    t = tiny_mamba2(CAB_F32);
    model = open_tiny(state, &t);
    assert_int_equal(cab_model_tap_width(model, 1, CAB_TAP_KEY), 10);
    assert_int_equal(cab_model_tap_width(model, 1, CAB_TAP_VALUE), 32);
    assert_false(cab_network_bounded(&model->network));
    cab_model_free(model);
}

/* transformers writes the same model in several ways. */
static void test_spellings(void **state)
{
    static const struct {
        int family;
        const char *from, *to;
    } cases[] = {
        {0, "\"time_step_rank\": 2", "\"time_step_rank\": 2, \"time_step_limit\": null, \"use_cache\": true"},
        {1, "[0.0, Infinity]", "[0, {\"__float__\": \"Infinity\"}]"},
        {2, "\"mamba_d_head\": \"auto\"", "\"mamba_d_head\": 8, \"mamba_expand\": 3, \"mamba_norm_before_gate\": true"},
        {3, "[\"mamba\", \"attention\"]", "[\"linear_attention\", \"full_attention\"]"},
        {3, "\"layer_types\"", "\"layers_block_type\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny t = family(cases[i].family);
        cab_model *model = open_tiny(state, &t);
        float *expected = tiny_logits(model, ids(), B, L);
        cab_model_free(model);
        tiny_configure(&t, cases[i].from, cases[i].to);
        model = open_tiny(state, &t);
        float *got = tiny_logits(model, ids(), B, L);
        assert_memory_equal(got, expected, B * L * 23 * sizeof *got);
        cab_model_free(model);
        free(got);
        free(expected);
    }
}

static void test_refusals(void **state)
{
    static const struct {
        int family;
        const char *from, *to, *text;
        cab_status status;
    } cases[] = {
        {0, "\"expand\"", "\"hidden_act\": \"gelu\", \"expand\"", "\"hidden_act\" is \"gelu\"; only \"silu\"",
         CAB_EUNSUPPORTED},
        {0, "\"expand\"", "\"use_bias\": 1, \"expand\"", "\"use_bias\"", CAB_EFORMAT},
        {1, "Infinity", "0.5", "\"time_step_limit\" is [0.0,0.5]; only [0.0, Infinity]", CAB_EUNSUPPORTED},
        {1, "[0.0", "[0.01", "\"time_step_limit\"", CAB_EUNSUPPORTED},
        {1, "[0.0, Infinity]", "[]", "\"time_step_limit\"", CAB_EUNSUPPORTED},
        {1, "\"head_dim\": 8", "\"head_dim\": 16", "4 state-space heads of width 16 are not the inner width of 32",
         CAB_ESHAPE},
        {1, "\"n_groups\": 2", "\"n_groups\": 3", "and 3 groups do not divide", CAB_ESHAPE},
        {2, "\"mamba_n_heads\": 3", "\"mamba_n_heads\": 5", "an inner width of 24, 5 state-space heads", CAB_ESHAPE},
        {2, "\"mamba_n_groups\"", "\"ssm_multipliers\": [1, 2], \"mamba_n_groups\"",
         "\"ssm_multipliers\" is [1,2], expected 5", CAB_EFORMAT},
        {2, "\"mamba_n_groups\"", "\"mlp_multipliers\": [1, 0], \"mamba_n_groups\"", "\"mlp_multipliers\"",
         CAB_EFORMAT},
        {2, "\"mamba_n_groups\"", "\"key_multiplier\": -1, \"mamba_n_groups\"", "\"key_multiplier\" is -1",
         CAB_EFORMAT},
        {2, "\"mamba_n_groups\"", "\"mamba_use_mlp\": false, \"mamba_n_groups\"", "\"mamba_use_mlp\" is false",
         CAB_EUNSUPPORTED},
        {2, "\"mamba_n_groups\"", "\"partial_rotary_factor\": 0.5, \"mamba_n_groups\"", "leaves 2 features of 6",
         CAB_EUNSUPPORTED},
        {3, "\"num_local_experts\": 0", "\"num_local_experts\": 4", "\"num_local_experts\" is 4; only 0",
         CAB_EUNSUPPORTED},
        {3, "\"num_local_experts\": 0, ", "", "num_local_experts is 8; only 0", CAB_EUNSUPPORTED},
        {3, "\"attention\"]", "\"sliding_attention\"]",
         "layer_types[1] is \"sliding_attention\"; supported are mamba and attention", CAB_EUNSUPPORTED},
        {3, "[\"mamba\", ", "[", "\"layer_types\" has 1 entries, num_hidden_layers is 2", CAB_EFORMAT},
        {3, "\"rope\"", "\"alibi\"", "\"position_embedding_type\" is \"alibi\"; supported are rope and nope",
         CAB_EUNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny t = family(cases[i].family);
        cab_model *model = NULL;
        tiny_configure(&t, cases[i].from, cases[i].to);
        assert_fails(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model),
                     cases[i].status, cases[i].text);
    }
}

static float largest(const float *values, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(values[i]));
    return most;
}

/* Saved and opened again, every family gives the same bits; what is saved says no multipliers. */
static void test_saved(void **state)
{
    for (int i = 0; i < FAMILIES; i++) {
        tiny t = family(i);
        char other[CAB_PATH_MAX];
        if (i == 2)
            tiny_configure(
                &t, "\"mamba_n_groups\"",
                "\"key_multiplier\": 0.7, \"ssm_multipliers\": [2, 3, 0.5, 0.3, 1.5], \"ssm_in_multiplier\": 0.9, "
                "\"embedding_multiplier\": 1.5, \"mamba_n_groups\"");
        cab_model *model = open_tiny(state, &t), *again = NULL;
        float *expected = tiny_logits(model, ids(), B, L);
        assert_ok(cab_path_join(other, *state, "saved"));
        assert_ok(cab_model_save(model, other));
        assert_ok(cab_model_load_on(test_device(), other, CAB_PRECISION_FP32, &again));
        float *got = tiny_logits(again, ids(), B, L);
        assert_true(largest(expected, B * L * 23) > 0.01f);
        assert_memory_equal(got, expected, B * L * 23 * sizeof *got);
        if (i == 2) {
            assert_true(again->config.multipliers.key == 1 && again->config.multipliers.state_parts[1] == 1);
            assert_true(again->config.embedding_scale == 1.5);
        }
        cab_model_free(model);
        cab_model_free(again);
        free(expected);
        free(got);
    }
}

/* Rows first .. first + n of a parameter are `factor` times what the file has. */
static void expect_rows(const cab_model *model, tiny *t, const char *name, int64_t first, int64_t n, float factor)
{
    const cab_tensor *p = cab_params_find(model->params, name);
    assert_non_null(p);
    const int64_t columns = cab_columns(p);
    float *stored = tiny_values(tiny_find(t, name)), *got = calloc((size_t)cab_elements(p), sizeof *got);
    assert_non_null(got);
    assert_ok(cab_params_read(model->params, p, got));
    for (int64_t i = first * columns; i < (first + n) * columns; i++)
        assert_true(got[i] == factor * stored[i]);
    free(stored);
    free(got);
}

/* Which weights each multiplier of Falcon-H1 is in; powers of two, so that products are exact. */
static void test_multipliers(void **state)
{
    static const struct {
        const char *name;
        int64_t first, rows;
        float factor;
    } rows[] = {{"model.layers.1.self_attn.q_proj.weight", 0, 12, 0.5f},
                {"model.layers.1.self_attn.k_proj.weight", 0, 6, 0.5f * 4},
                {"model.layers.1.self_attn.v_proj.weight", 0, 6, 0.5f},
                {"model.layers.1.self_attn.o_proj.weight", 0, 16, 2},
                {"model.layers.1.mamba.in_proj.weight", 0, 24, 0.25f * 2},
                {"model.layers.1.mamba.in_proj.weight", 24, 24, 0.25f * 4},
                {"model.layers.1.mamba.in_proj.weight", 48, 5, 0.25f * 8},
                {"model.layers.1.mamba.in_proj.weight", 53, 5, 0.25f * 16},
                {"model.layers.1.mamba.in_proj.weight", 58, 3, 0.25f * 32},
                {"model.layers.1.mamba.out_proj.weight", 0, 16, 0.125f},
                {"model.layers.1.feed_forward.gate_proj.weight", 0, 20, 64},
                {"model.layers.1.feed_forward.up_proj.weight", 0, 20, 1},
                {"model.layers.1.feed_forward.down_proj.weight", 0, 16, 128},
                {"model.embed_tokens.weight", 0, 23, 1}};
    tiny t = tiny_falcon_h1(CAB_F32);
    cab_model *model = open_tiny(state, &t);
    float *plain = tiny_logits(model, ids(), B, L);
    cab_model_free(model);
    tiny_configure(&t, "\"mamba_n_groups\"", "\"lm_head_multiplier\": 4, \"mamba_n_groups\"");
    model = open_tiny(state, &t);
    float *scaled = tiny_logits(model, ids(), B, L);
    cab_model_free(model);
    for (int i = 0; i < B * L * 23; i++)
        assert_true(scaled[i] == 4 * plain[i]);
    tiny_configure(
        &t, "\"mamba_n_groups\"",
        "\"attention_in_multiplier\": 0.5, \"key_multiplier\": 4, \"attention_out_multiplier\": 2, "
        "\"ssm_in_multiplier\": 0.25, \"ssm_multipliers\": [2, 4, 8, 16, 32], \"ssm_out_multiplier\": 0.125, "
        "\"mlp_multipliers\": [64, 128], \"mamba_n_groups\"");
    model = open_tiny(state, &t);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect_rows(model, &t, rows[i].name, rows[i].first, rows[i].rows, rows[i].factor);
    cab_model_free(model);
    free(plain);
    free(scaled);
}

static float *values_of(cab_graph *g, const cab_tensor *t)
{
    float *values = calloc((size_t)cab_elements(t), sizeof *values);
    assert_non_null(values);
    assert_ok(cab_tensor_read(g, t, values));
    return values;
}

static void expect_equal(cab_graph *g, const cab_tensor *a, const cab_tensor *b)
{
    float *x = values_of(g, a), *y = values_of(g, b);
    assert_int_equal(cab_elements(a), cab_elements(b));
    assert_true(largest(x, (size_t)cab_elements(a)) > 0.001f);
    assert_memory_equal(x, y, (size_t)cab_elements(a) * sizeof *x);
    free(x);
    free(y);
}

/* In blocks of every form mixer_in is the norm of the layer's input, and its mixers alone make mixer_out of it. */
static void test_taps_of_mixers(void **state)
{
    const tiny models[] = {
        tiny_gpt2(CAB_F32, ""), tiny_phi(CAB_F32), tiny_phi_mamba(CAB_F32), family(0), family(1), family(2), family(3)};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        cab_model *model = open_tiny(state, &models[i]);
        cab_graph *g = NULL;
        cab_tensor *in[2], *out[2], *hidden[2], *normed[2], *mixed[2];
        const cab_taps taps = {.mixer_in = in, .mixer_out = out, .hidden = hidden};
        assert_ok(cab_graph_new(model->backend, &g));
        cab_tensor *input = cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){B, L});
        cab_graph_keep(g, cab_model_record(g, model, input, 0, &taps));
        cab_context context = {.dtype = CAB_F32, .max_length = 16};
        for (int l = 0; l < 2; l++) {
            normed[l] = cab_norm_record(g, &model->network.blocks[l].norm, hidden[l]);
            mixed[l] = cab_block_mix_record(g, &context, &model->network.blocks[l], in[l]);
            cab_tensor *const kept[] = {in[l], out[l], hidden[l], normed[l], mixed[l]};
            for (int k = 0; k < 5; k++)
                cab_graph_keep(g, kept[k]);
        }
        assert_ok(cab_graph_plan(g, NULL));
        assert_ok(cab_tensor_write(g, input, ids()));
        assert_ok(cab_graph_run(g));
        for (int l = 0; l < 2; l++) {
            expect_equal(g, in[l], normed[l]);
            expect_equal(g, out[l], mixed[l]);
        }
        cab_graph_free(g);
        cab_model_free(model);
    }
}

/* Beside attention a mixer shows C, B and x under these names, alone as query, key and value too. */
static void test_taps_of_states(void **state)
{
    for (int i = 0; i < FAMILIES; i++) {
        tiny t = family(i);
        cab_model *model = open_tiny(state, &t);
        cab_graph *g = NULL;
        cab_tensor *query[2] = {0}, *key[2] = {0}, *value[2] = {0}, *C[2] = {0}, *Bs[2] = {0}, *x[2] = {0},
                   *decay[2] = {0};
        const cab_taps taps = {.query = query, .key = key, .value = value, .C = C, .B = Bs, .x = x, .decay = decay};
        assert_ok(cab_graph_new(model->backend, &g));
        cab_tensor *input = cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){B, L});
        assert_non_null(cab_model_record(g, model, input, 0, &taps));
        for (int l = 0; l < 2; l++) {
            const bool attends = cab_block_attends(&model->network.blocks[l]), states = i < 3 || l == 0;
            assert_true(attends == (i == 2 || (i == 3 && l == 1)));
            assert_true((C[l] != NULL) == states && (x[l] != NULL) == states && (decay[l] != NULL) == states);
            assert_true((query[l] == C[l] && key[l] == Bs[l] && value[l] == x[l]) == !attends);
            assert_int_equal(cab_columns(query[l]), cab_model_tap_width(model, l, CAB_TAP_QUERY));
            assert_int_equal(cab_columns(value[l]), cab_model_tap_width(model, l, CAB_TAP_VALUE));
            if (states)
                assert_int_equal(cab_columns(x[l]), cab_model_tap_width(model, l, CAB_TAP_X));
        }
        cab_graph_free(g);
        cab_model_free(model);
    }
}

/* What test_gguf exports: all families, and what else llama.cpp can say. */
static tiny exported(int i)
{
    tiny t = i < FAMILIES ? family(i) : i == 4 ? family(2) : i == 5 ? family(3) : tiny_mamba2_grouped(CAB_F32, 1);
    if (i == 6)
        tiny_configure(&t, "\"n_groups\": 2", "\"n_groups\": 1");
    if (i == 4) {
        tiny_configure(&t, "\"mamba_rms_norm\": false",
                       "\"mamba_rms_norm\": true, \"attention_bias\": true, "
                       "\"mamba_norm_before_gate\": false");
        for (int l = 0; l < 2; l++) {
            TINY_VECTOR(&t, 1, 24, "model.layers.%d.mamba.norm.weight", l);
            TINY_VECTOR(&t, 0, 12, "model.layers.%d.self_attn.q_proj.bias", l);
            TINY_VECTOR(&t, 0, 6, "model.layers.%d.self_attn.k_proj.bias", l);
            TINY_VECTOR(&t, 0, 6, "model.layers.%d.self_attn.v_proj.bias", l);
            TINY_VECTOR(&t, 0, 16, "model.layers.%d.self_attn.o_proj.bias", l);
            t.tensors[t.count - 1].scale = 0; /* llama.cpp adds none there */
        }
    }
    if (i == 5) {
        tiny_configure(&t, "\"rope\"", "\"nope\"");
        tiny_configure(&t, "\"attention_multiplier\": 0.4", "\"attention_multiplier\": 0.35355339059327373");
    }
    return t;
}

/* Written as GGUF and read again, all compute what they did; and from that file once more. */
static void test_gguf(void **state)
{
    for (int i = 0; i < 7; i++) {
        tiny t = exported(i);
        cab_exported done;
        char first[CAB_PATH_MAX], second[CAB_PATH_MAX];
        const char *directory = tiny_write(state, &t, 1);
        assert_ok(cab_path_join(first, *state, "first.gguf"));
        assert_ok(cab_path_join(second, *state, "second.gguf"));
        assert_ok(cab_export_gguf(&(cab_export){.model = directory, .dtype = CAB_F32}, first, &done));
        assert_ok(cab_export_gguf(&(cab_export){.model = first, .dtype = CAB_F32}, second, &done));
        cab_model *model = open_tiny(state, &t), *read[2] = {NULL, NULL};
        float *expected = tiny_logits(model, ids(), B, L);
        for (int k = 0; k < 2; k++) {
            assert_ok(cab_model_load_on(test_device(), k == 0 ? first : second, CAB_PRECISION_FP32, &read[k]));
            assert_string_equal(cab_model_architecture(read[k]), cab_model_architecture(model));
            assert_int_equal(read[k]->config.eos_token, -1); /* without a tokenizer the file does not say */
            float *got = tiny_logits(read[k], ids(), B, L);
            const double distance = tiny_distance(got, expected, B * L * 23);
            if (!(distance <= 2e-6))
                fail_msg("%s, file %d: logits are %g away", cab_model_architecture(model), k, distance);
            free(got);
            cab_model_free(read[k]);
        }
        cab_model_free(model);
        free(expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(test_configuration),  TEMP_TEST(test_spellings),   TEMP_TEST(test_refusals),
        TEMP_TEST(test_saved),          TEMP_TEST(test_multipliers), TEMP_TEST(test_taps_of_mixers),
        TEMP_TEST(test_taps_of_states), TEMP_TEST(test_gguf),
    };
    cab_thread_limit(1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
