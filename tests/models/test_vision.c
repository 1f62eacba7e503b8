/* Image models: both layouts of a teacher, positions for another image size, what is refused, what is saved. */
#include "tiny_vision.h"

/* Logits of two images, in a buffer the caller frees. */
static float *image_logits(const cab_model *model)
{
    const cab_config *c = &model->config;
    const size_t pixels = 2 * 3 * (size_t)c->image_size * (size_t)c->image_size, n = 2 * (size_t)c->n_classes;
    float *images = calloc(pixels, sizeof *images), *values = calloc(n, sizeof *values);
    void *raw = calloc(n, sizeof *values);
    cab_random random = {.seed = 5, .stream = CAB_STREAM_TEST};
    cab_graph *g = NULL;
    assert_true(images != NULL && values != NULL && raw != NULL);
    for (size_t i = 0; i < pixels; i++)
        images[i] = cab_random_normal(&random);
    assert_ok(cab_graph_new(model->backend, &g));
    cab_tensor *input = cab_graph_input(g, "pixels", CAB_F32, 4, (int64_t[]){2, 3, c->image_size, c->image_size});
    cab_tensor *logits = cab_model_record_logits(g, model, cab_model_record(g, model, input, false, NULL));
    cab_graph_keep(g, logits);
    assert_ok(cab_graph_plan(g, NULL));
    assert_ok(cab_tensor_write(g, input, images));
    assert_ok(cab_graph_run(g));
    assert_ok(cab_tensor_read(g, logits, raw));
    cab_convert(values, CAB_F32, raw, logits->dtype, n);
    cab_graph_free(g);
    free(images);
    free(raw);
    return values;
}

/* ---- loading --------------------------------------------------------------------------------------------------------- */

static void test_transformers(void **state)
{
    for (int distilled = 0; distilled < 2; distilled++) {
        tiny t = tiny_transformers(CAB_F32, distilled);
        cab_model *model = NULL;
        assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
        const cab_config *c = &model->config;
        assert_string_equal(cab_model_architecture(model), distilled ? "deit" : "vit");
        assert_true(cab_model_reads_images(model));
        assert_int_equal(c->n_classes, 5);
        assert_int_equal(c->max_length, distilled ? 11 : 10);
        assert_int_equal(c->n_special, distilled ? 2 : 1);
        assert_int_equal(c->class_at, 0);
        assert_int_equal(cab_model_tap_width(model, 0, CAB_TAP_KEY), 12);
        assert_fails(cab_model_save(model, temp_path(state, "copy")), CAB_EUNSUPPORTED, "are read, not written");
        cab_model_free(model);
    }
}

/* A name of transformers', without the model's prefix, becomes timm's. */
static void rename_to_timm(char name[256])
{
    static const struct {
        const char *from, *to;
    } names[] = {{"embeddings.cls_token", "cls_token"},
                 {"embeddings.distillation_token", "dist_token"},
                 {"embeddings.position_embeddings", "pos_embed"},
                 {"embeddings.patch_embeddings.projection", "patch_embed.proj"},
                 {"encoder.layer.", "blocks."},
                 {"attention.attention.query", "attn.qkv"},
                 {"attention.output.dense", "attn.proj"},
                 {"intermediate.dense", "mlp.fc1"},
                 {"output.dense", "mlp.fc2"},
                 {"layernorm_before", "norm1"},
                 {"layernorm_after", "norm2"},
                 {"layernorm", "norm"},
                 {"distillation_classifier", "head_dist"},
                 {"cls_classifier", "head"},
                 {"classifier", "head"}};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        char *at = strstr(name, names[k].from), changed[512];
        if (at == NULL)
            continue;
        snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - name), name, names[k].to, at + strlen(names[k].from));
        snprintf(name, 256, "%.255s", changed);
    }
}

/* Values of a tensor; of a query's, followed by those of key and value, which stand after it, weight and bias in turn. */
static float *timm_values(const tiny_tensor *tensor, bool query)
{
    const size_t n = (size_t)(tensor->n_dim == 2 ? 144 : 12);
    float *values = tiny_values(tensor);
    if (!query)
        return values;
    values = realloc(values, 3 * n * sizeof *values);
    assert_non_null(values);
    for (size_t part = 1; part < 3; part++) {
        float *other = tiny_values(tensor + 2 * part);
        memcpy(values + part * n, other, n * sizeof *other);
        free(other);
    }
    return values;
}

/* The same tensors under timm's names, Q, K and V in one. */
static void write_as_timm(void **state, const tiny *t, bool distilled, const char *config)
{
    const char *const prefix = distilled ? "deit." : "vit.";
    float *values[TINY_TENSORS] = {0};
    cab_safetensors_writer *writer = NULL;
    assert_ok(cab_safetensors_writer_new(&writer));
    for (int i = 0; i < t->count; i++) {
        const tiny_tensor *tensor = &t->tensors[i];
        const char *plain = tensor->name;
        const bool query = strstr(plain, "attention.query") != NULL;
        char name[256];
        int64_t shape[CAB_MAX_DIMS];
        if (strstr(plain, "attention.key") != NULL || strstr(plain, "attention.value") != NULL)
            continue;
        snprintf(name, sizeof name, "%s", strncmp(plain, prefix, strlen(prefix)) == 0 ? plain + strlen(prefix) : plain);
        rename_to_timm(name);
        values[i] = timm_values(tensor, query);
        memcpy(shape, tensor->shape, sizeof shape);
        shape[0] *= query ? 3 : 1;
        assert_ok(cab_safetensors_writer_add(writer, name, CAB_F32, tensor->n_dim, shape, values[i]));
    }
    assert_ok(cab_safetensors_writer_save(writer, temp_path(state, "model.safetensors")));
    cab_safetensors_writer_free(writer);
    for (int i = 0; i < t->count; i++)
        free(values[i]);
    assert_ok(cab_file_write(temp_path(state, "config.json"), config, strlen(config)));
}

static void test_timm(void **state)
{
    static const char *const configs[] = {
        "{\"architecture\": \"vit_tiny_patch4_12\", \"num_classes\": 5}",
        "{\"architecture\": \"deit_base_distilled_patch4_12\", \"model_args\": {\"num_heads\": 3}}"};
    for (int distilled = 0; distilled < 2; distilled++) {
        tiny t = tiny_transformers(CAB_F32, distilled);
        cab_model *model = NULL;
        assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
        float *expected = image_logits(model);
        cab_model_free(model);
        write_as_timm(state, &t, distilled, configs[distilled]);
        assert_ok(cab_model_load_on(test_device(), *state, CAB_PRECISION_FP32, &model));
        assert_string_equal(cab_model_architecture(model), distilled ? "deit" : "vit");
        assert_int_equal(model->config.image_size, 12);
        assert_int_equal(model->config.n_layer, 2);
        float *got = image_logits(model);
        assert_true(tiny_distance(got, expected, 10) < 1e-6);
        cab_model_free(model);
        free(got);
        free(expected);
    }
}

/* One head on the class token, though there is a distillation token: DeiTForImageClassification. */
static void test_single_head(void **state)
{
    tiny t = tiny_transformers(CAB_F32, true);
    cab_model *model = NULL;
    tiny_drop(&t, "distillation_classifier.weight");
    tiny_drop(&t, "distillation_classifier.bias");
    snprintf(tiny_find(&t, "cls_classifier.weight")->name, CAB_NAME_MAX, "classifier.weight");
    snprintf(tiny_find(&t, "cls_classifier.bias")->name, CAB_NAME_MAX, "classifier.bias");
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    assert_int_equal(cab_columns(cab_model_head(model).w), 12);
    free(image_logits(model));
    cab_model_free(model);
}

/* Frozen bf16 filters stay in the file, whatever shape we give them; a GPU needs copies. */
static void test_mapped(void **state)
{
    if (strcmp(test_device(), "cpu") != 0)
        skip();
    tiny t = tiny_transformers(CAB_BF16, false);
    cab_model *model = NULL;
    size_t others = 0;
    for (int i = 0; i < t.count; i++) {
        const tiny_tensor *tensor = &t.tensors[i];
        for (int64_t n = tensor->shape[0], d = 1; tensor->n_dim % 2 == 1 && d <= tensor->n_dim; d++) {
            if (d == tensor->n_dim)
                others += (size_t)n * sizeof(float);
            else
                n *= tensor->shape[d];
        }
    }
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_BF16, &model));
    assert_int_equal(cab_params_bytes(model->params), others);
    free(image_logits(model));
    cab_model_free(model);
}

/* ---- DINOv2 ------------------------------------------------------------------------------------------------------------ */

static float *dinov2_logits(void **state, const tiny *t)
{
    cab_model *model = NULL;
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, t, 1), CAB_PRECISION_FP32, &model));
    float *logits = image_logits(model);
    cab_model_free(model);
    return logits;
}

/* Multiplies the values of all tensors with one of these in their names. */
static void multiply(tiny *t, const char *const *names, float factor)
{
    for (int i = 0; i < t->count; i++)
        for (int k = 0; names[k] != NULL; k++)
            if (strstr(t->tensors[i].name, names[k]) != NULL) {
                t->tensors[i].scale *= factor;
                t->tensors[i].offset *= factor;
            }
}

/* The scales are what the outputs of attention and MLP are multiplied by: four times as large, they are four times the outputs,
 * and where they are 0, registers say nothing. */
static void test_layer_scale(void **state)
{
    static const char *const scales[] = {"layer_scale", NULL}, *const outputs[] = {"output.dense", "mlp.fc2", NULL};
    for (int registers = 0; registers < 4; registers += 3) {
        tiny plain = tiny_dinov2(CAB_F32, registers), scaled = plain, large = plain;
        multiply(&scaled, scales, 4);
        multiply(&large, outputs, 4);
        float *a = dinov2_logits(state, &plain), *b = dinov2_logits(state, &scaled), *c = dinov2_logits(state, &large);
        assert_true(tiny_distance(b, c, 10) < 1e-5);

        assert_true(tiny_distance(a, b, 10) > 1e-2);
        free(a);
        free(b);
        free(c);
    }
    tiny t = tiny_dinov2(CAB_F32, 3);
    for (int mixing = 0; mixing < 2; mixing++) {
        tiny other = t;
        multiply(&other, scales, (float)mixing);
        float *a = dinov2_logits(state, &other);
        multiply(&other, (const char *const[]){"register_tokens", NULL}, 5);
        float *b = dinov2_logits(state, &other);
        assert_true(mixing ? tiny_distance(a, b, 10) > 1e-3 : tiny_distance(a, b, 10) == 0);
        free(a);
        free(b);
    }
}

/* The head reads the class token and the mean of the patches: where no layer adds to the class token, the patches tell
 * images apart. */
static void test_pooled(void **state)
{
    tiny t = tiny_dinov2(CAB_F32, 3);
    cab_model *model = NULL;
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    assert_int_equal(cab_columns(cab_model_head(model).w), 24);
    assert_int_equal(model->config.max_length, 13);
    assert_int_equal(model->config.d_mlp, 21);
    cab_model_free(model);
    multiply(&t, (const char *const[]){"layer_scale", NULL}, 0);
    float *logits = dinov2_logits(state, &t);
    assert_true(tiny_distance(logits, logits + 5, 5) > 1e-3);
    free(logits);
}

/* tiny_dinov2() with the giant's MLP, of the same width as the plain one with mlp_ratio 4/3: 16. */
static tiny tiny_gated(bool gated)
{
    tiny t = tiny_dinov2(CAB_F32, 0);
    tiny_configure(&t, "\"mlp_ratio\": 1.75",
                   gated ? "\"mlp_ratio\": 2, \"use_swiglu_ffn\": true"
                         : "\"mlp_ratio\": 1.34, \"hidden_act\": \"silu\"");
    for (int i = 0; i < t.count; i++) {
        char *at = strstr(t.tensors[i].name, "mlp.fc");
        if (at == NULL)
            continue;
        const bool in = at[strlen("mlp.fc")] == '1';
        char ending[16];
        snprintf(ending, sizeof ending, "%s", at + strlen("mlp.fc1"));
        t.tensors[i].shape[0] = in ? (gated ? 32 : 16) : 12;
        t.tensors[i].shape[1] = in ? 12 : 16;
        if (gated)
            snprintf(at, CAB_NAME_MAX - (size_t)(at - t.tensors[i].name), "mlp.weights_%s%s", in ? "in" : "out",
                     ending);
    }
    return t;
}

/* The plain model gets the gate's half of the gated one's parameters; the other half becomes a factor of 1. */
static void copy_gate(const cab_model *gated, const cab_model *plain, const cab_tensor *from, const cab_tensor *to)
{
    float values[32 * 16];
    const int64_t half = 16 * (from->n_dim == 2 ? 12 : 1);
    assert_ok(cab_params_read(gated->params, from, values));
    if (strstr(from->name, "weights_in") != NULL)
        for (int64_t i = 0; i < half; i++)
            values[half + i] = from->n_dim == 1;
    assert_ok(cab_params_write(gated->params, (cab_tensor *)from, values));
    assert_ok(cab_params_write(plain->params, (cab_tensor *)to, values));
}

/* The giant's MLP: its first half is what goes through the activation. */
static void test_gated_mlp(void **state)
{
    tiny with = tiny_gated(true), without = tiny_gated(false);
    cab_model *gated = NULL, *plain = NULL;
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &with, 1), CAB_PRECISION_FP32, &gated));
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &without, 1), CAB_PRECISION_FP32, &plain));
    assert_int_equal(gated->config.d_mlp, 16);
    float *before = image_logits(gated);
    for (size_t i = 0; i < cab_params_count(gated->params); i++) {
        const cab_tensor *from = cab_params_at(gated->params, i), *to = cab_params_at(plain->params, i);
        if (strstr(from->name, "mlp.weights") != NULL)
            copy_gate(gated, plain, from, to);
    }
    float *a = image_logits(gated), *b = image_logits(plain);
    assert_true(tiny_distance(a, b, 10) < 1e-6);
    assert_true(tiny_distance(a, before, 10) > 1e-2);
    free(before);
    free(a);
    free(b);
    cab_model_free(gated);
    cab_model_free(plain);
}

/* How much of each of 3 samples is in each of 1, 2 ... 5: torch's bicubic interpolation with antialiasing
 * (dev/reference/dinov2_sizes.py --weights). */
static const double smooth_weights[][3] = {{0.3043478, 0.3913043, 0.3043478},
                                           {0.6500803, 0.3900481, -0.0401285},
                                           {-0.0401285, 0.3900481, 0.6500803},
                                           {1, 0, 0},
                                           {0, 1, 0},
                                           {0, 0, 1},
                                           {1.0522388, -0.0522388, 0.0},
                                           {0.373246, 0.696913, -0.070159},
                                           {-0.070159, 0.696913, 0.373246},
                                           {0, -0.0522388, 1.0522388},
                                           {1.0754716, -0.0754717, 0.0},
                                           {0.6492537, 0.3955224, -0.0447761},
                                           {0, 1, 0},
                                           {-0.0447761, 0.3955222, 0.6492538},
                                           {0, -0.0754717, 1.0754716}};

/* The class token's position as it was, and the patches' of a grid of `to` from those of a grid of 3; registers have none. */
static void expect_smooth(const cab_model *model, tiny *t, int to)
{
    const char *name = "dinov2_with_registers.embeddings.position_embeddings";
    const double(*w)[3] = smooth_weights + to * (to - 1) / 2;
    const cab_tensor *positions = cab_params_find(model->params, name);
    float *stored = tiny_values(tiny_find(t, name)), got[26 * 12];
    assert_non_null(positions);
    assert_int_equal(positions->shape[1], 1 + to * to);
    assert_int_equal(model->config.max_length, 1 + 3 + to * to);
    assert_ok(cab_params_read(model->params, positions, got));
    assert_memory_equal(got, stored, 12 * sizeof *got);
    for (int i = 0; i < to * to; i++)
        for (int d = 0; d < 12; d++) {
            double expected = 0;
            for (int k = 0; k < 9; k++)
                expected += w[i / to][k / 3] * w[i % to][k % 3] * (double)stored[(1 + k) * 12 + d];
            assert_true(fabs((double)got[(1 + i) * 12 + d] - expected) < 1e-6);
        }
    free(stored);
}

static void test_dinov2_sizes(void **state)
{
    tiny plain = tiny_dinov2(CAB_F32, 0), registers = tiny_dinov2(CAB_F32, 3);
    cab_backend *backend = NULL;
    cab_model *model = NULL;
    assert_ok(cab_backend_open(test_device(), &backend));
    assert_ok(cab_model_open_sized(tiny_write(state, &plain, 1), 20, backend, CAB_PRECISION_FP32, false, &model));
    assert_int_equal(model->config.max_length, 26);
    free(image_logits(model));
    cab_model_free(model);
    tiny_write(state, &registers, 1);
    for (int to = 1; to < 6; to++) {
        assert_ok(cab_model_open_sized(*state, 4 * to, backend, CAB_PRECISION_FP32, false, &model));
        expect_smooth(model, &registers, to);
        free(image_logits(model));
        cab_model_free(model);
    }
    cab_backend_close(backend);
}

/* ---- another image size ------------------------------------------------------------------------------------------------ */

/* Keys' kernel with a = -0.75 as a function of the distance. */
static double kernel(double x)
{
    const double a = -0.75, d = fabs(x);
    if (d <= 1)
        return (a + 2) * d * d * d - (a + 3) * d * d + 1;
    return d < 2 ? a * (d * d * d - 5 * d * d + 8 * d - 4) : 0;
}

/* Feature d at (y, x) of a grid of `to`, from the patches of a grid of 3; row(i) is where patch i stands. */
static double expected_position(const float *stored, int D, int to, int y, int x, int d, const int row[9])
{
    const double sy = (y + 0.5) * 3 / to - 0.5, sx = (x + 0.5) * 3 / to - 0.5;
    double sum = 0;
    for (int i = -3; i < 6; i++)
        for (int j = -3; j < 6; j++) {
            const int r = i < 0 ? 0 : i > 2 ? 2 : i, c = j < 0 ? 0 : j > 2 ? 2 : j;
            sum += kernel(sy - i) * kernel(sx - j) * (double)stored[row[r * 3 + c] * D + d];
        }
    return sum;
}

static void expect_positions(const cab_model *model, const float *stored, const char *name, bool middle, int special)
{
    const cab_config *c = &model->config;
    const int D = c->d_model, to = c->image_size / c->patch_size, T = to * to;
    int row[9];
    float *got = calloc((size_t)(c->max_length * D), sizeof *got);
    assert_non_null(got);
    for (int i = 0; i < 9; i++)
        row[i] = i < (middle ? 4 : 0) ? i : i + special;
    assert_int_equal(c->max_length, T + special);
    assert_int_equal(c->class_at, middle ? T / 2 : 0);
    const cab_tensor *t = cab_params_find(model->params, name);
    assert_non_null(t);
    assert_int_equal(t->shape[1], T + special);
    assert_ok(cab_params_read(model->params, t, got));
    for (int i = 0; i < special; i++)
        assert_memory_equal(got + (c->class_at + i) * D, stored + ((middle ? 4 : 0) + i) * D, (size_t)D * sizeof *got);
    for (int i = 0; i < T; i++)
        for (int d = 0; d < D; d++) {
            const int at = i < c->class_at ? i : i + special;
            const double expected = expected_position(stored, D, to, i / to, i % to, d, row);
            assert_true(fabs((double)got[at * D + d] - expected) < 1e-6);
        }
    free(got);
}

static void test_image_size(void **state)
{
    static const int sizes[] = {4, 8, 12, 20};
    tiny models[] = {tiny_vim(), tiny_transformers(CAB_F32, true), tiny_transformers(CAB_F32, false)};
    static const char *const names[] = {"pos_embed", "deit.embeddings.position_embeddings",
                                        "vit.embeddings.position_embeddings"};
    cab_backend *backend = NULL;
    assert_ok(cab_backend_open(test_device(), &backend));
    for (int m = 0; m < 3; m++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            cab_model *model = NULL;
            const char *directory = tiny_write(state, &models[m], 1);
            assert_ok(cab_model_open_sized(directory, sizes[i], backend, CAB_PRECISION_FP32, m == 0, &model));
            float *stored = tiny_values(tiny_find(&models[m], names[m])), *logits = image_logits(model);
            expect_positions(model, stored, names[m], m == 0, m == 1 ? 2 : 1);
            for (int k = 0; k < 10; k++)
                assert_true(isfinite(logits[k]));
            free(stored);
            free(logits);
            cab_model_free(model);
        }
    cab_backend_close(backend);
}

static void test_image_size_refused(void **state)
{
    static const int sizes[] = {10, 2, 8192};
    tiny t = tiny_vim(), text = tiny_gpt2(CAB_F32, "");
    cab_backend *backend = NULL;
    cab_model *model = NULL;
    assert_ok(cab_backend_open(test_device(), &backend));
    tiny_write(state, &t, 1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        assert_fails(cab_model_open_sized(*state, sizes[i], backend, CAB_PRECISION_FP32, false, &model), CAB_EARG,
                     "is not a multiple of the patches' 4");
    tiny_write(state, &text, 1);
    assert_fails(cab_model_open_sized(*state, 32, backend, CAB_PRECISION_FP32, false, &model), CAB_EARG,
                 "not a model of images");
    cab_backend_close(backend);
}

/* ---- the student ------------------------------------------------------------------------------------------------------- */

static void test_vim_comes_back(void **state)
{
    tiny t = tiny_vim();
    cab_model *model = NULL, *again = NULL;
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    assert_int_equal(model->config.dt_rank, 1);
    assert_int_equal(model->config.d_inner, 16);
    assert_int_equal(model->config.class_at, 4);
    assert_int_equal(cab_model_tap_width(model, 0, CAB_TAP_KEY), 3);
    assert_int_equal(cab_model_tap_width(model, 0, CAB_TAP_VALUE), 16);
    assert_ok(cab_model_save(model, temp_path(state, "copy")));
    assert_ok(cab_model_load_on(test_device(), temp_path(state, "copy"), CAB_PRECISION_FP32, &again));
    assert_memory_equal(&model->config, &again->config, sizeof model->config);
    float *expected = image_logits(model), *got = image_logits(again);
    assert_memory_equal(got, expected, 10 * sizeof *got);
    cab_checkpoint *saved = NULL;
    assert_ok(cab_checkpoint_open(temp_path(state, "copy"), &saved));
    assert_int_equal(cab_checkpoint_count(saved), t.count);
    for (int i = 0; i < t.count; i++) { /* public names and shapes */
        const cab_safetensors_entry *entry = cab_checkpoint_find(saved, t.tensors[i].name);
        assert_non_null(entry);
        assert_ok(cab_safetensors_entry_check_shape(entry, t.tensors[i].n_dim, t.tensors[i].shape));
    }
    cab_checkpoint_close(saved);
    free(expected);
    free(got);
    cab_model_free(model);
    cab_model_free(again);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------------- */

static void expect_refusal(void **state, cab_status status, const char *text)
{
    cab_model *model = NULL;
    assert_fails(cab_model_load(*state, CAB_PRECISION_FP32, &model), status, text);
    assert_non_null(strstr(cab_error_text(), *state));
    assert_null(model);
}

static void test_refused_configurations(void **state)
{
    static const struct {
        bool vim;
        const char *from, *to;
        cab_status status;
        const char *text;
    } cases[] = {
        {false, "\"num_channels\": 3", "\"num_channels\": 1", CAB_EFORMAT, "num_channels"},
        {false, "\"image_size\": 12", "\"image_size\": 13", CAB_ESHAPE, "do not divide"},
        {false, "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"mish\"", CAB_EUNSUPPORTED, "mish"},
        {false, "\"num_attention_heads\": 3", "\"num_attention_heads\": 5", CAB_ESHAPE, "do not divide"},
        {false, "\"hidden_size\": 12", "\"hidden_size\": 15", CAB_ESHAPE, "projection.weight"},
        {false, "\"model_type\": \"vit\"", "\"model_type\": \"swin\"", CAB_EUNSUPPORTED, "\"swin\""},
        {false, "\"model_type\": \"vit\"", "\"kind\": 1", CAB_EFORMAT, "model_type"},
        {false, "\"model_type\": \"vit\"", "\"architecture\": \"vit_odd\"", CAB_EUNSUPPORTED, "\"vit_odd\""},
        {false, "\"model_type\": \"vit\"", "\"architecture\": \"resnet50\"", CAB_EUNSUPPORTED, "\"resnet50\""},
        {true, "\"img_size\": 12", "\"img_size\": 14", CAB_ESHAPE, "not a multiple"},
        {true, "\"depth\": 2", "\"depth\": 3", CAB_EFORMAT, "\"layers.2.norm.weight\" is missing"},
        {true, "\"depth\": 2", "\"depth\": 2, \"bimamba_type\": \"v1\"", CAB_EUNSUPPORTED,
         "\"bimamba_type\" is \"v1\"; only \"v2\""},
        {true, "\"depth\": 2", "\"depth\": 2, \"if_divide_out\": false", CAB_EUNSUPPORTED,
         "\"if_divide_out\" is false"},
        {true, "\"depth\": 2", "\"depth\": 2, \"tied_decay\": true", CAB_EFORMAT, "one number in each row"},
        {true, "\"depth\": 2", "\"depth\": 2, \"tied_decay\": 3", CAB_EFORMAT, "tied_decay"},
        {true, "\"depth\": 2", "\"depth\": 2, \"stride\": 2", CAB_EUNSUPPORTED, "\"stride\" is 2; only patch_size, 4"},
        {true, "\"depth\": 2", "\"depth\": 2, \"rms_norm\": false", CAB_EUNSUPPORTED, "\"rms_norm\" is false"},
        {true, "\"depth\": 2", "\"depth\": 2, \"if_rope\": true", CAB_EUNSUPPORTED, "\"if_rope\" is true"},
        {true, "\"depth\": 2", "\"depth\": 2, \"final_pool_type\": \"mean\"", CAB_EUNSUPPORTED,
         "\"final_pool_type\" is \"mean\"; only \"none\""},
        {true, "\"depth\": 2", "\"depth\": 2, \"flip_img_sequences_ratio\": 0.5", CAB_EUNSUPPORTED, "only -1"},
        {true, "\"depth\": 2", "\"depth\": 2, \"if_bidirectonal\": true", CAB_EUNSUPPORTED,
         "\"if_bidirectonal\" is true; there is no such setting"},
        {false, "\"hidden_size\": 12", "\"hidden_size\": 12, \"num_labels\": 6", CAB_ESHAPE,
         "\"num_labels\" is 6, but \"classifier.weight\" has 5 rows"},
        {true, "\"d_state\": 3", "\"d_state\": 100000", CAB_EFORMAT, "d_state"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny t = cases[i].vim ? tiny_vim() : tiny_transformers(CAB_F32, false);
        tiny_configure(&t, cases[i].from, cases[i].to);
        tiny_write(state, &t, 1);
        expect_refusal(state, cases[i].status, cases[i].text);
    }
}

static void test_refused_dinov2(void **state)
{
    static const struct {
        const char *from, *to;
        cab_status status;
        const char *text;
    } cases[] = {
        {"\"mlp_ratio\": 1.75", "\"mlp_ratio\": 1.75, \"use_swiglu_ffn\": true", CAB_EFORMAT,
         "mlp.weights_in.weight\" is missing"},
        {"\"mlp_ratio\": 1.75", "\"mlp_ratio\": 1e30", CAB_ESHAPE, "mlp_ratio 1e+30"},
        {"\"mlp_ratio\": 1.75", "\"mlp_ratio\": 1.5", CAB_ESHAPE, "expected (18, 12)"},
        {"\"num_register_tokens\": 3", "\"num_register_tokens\": 2", CAB_ESHAPE, "register_tokens\": shape (1, 3, 12)"},
        {"\"num_register_tokens\": 3", "\"num_register_tokens\": 100", CAB_EFORMAT, "num_register_tokens"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny t = tiny_dinov2(CAB_F32, 3);
        tiny_configure(&t, cases[i].from, cases[i].to);
        tiny_write(state, &t, 1);
        expect_refusal(state, cases[i].status, cases[i].text);
    }
    tiny t = tiny_dinov2(CAB_F32, 0);
    tiny_drop(&t, "classifier.weight");
    tiny_drop(&t, "classifier.bias");
    tiny_write(state, &t, 1);
    expect_refusal(state, CAB_EUNSUPPORTED, "DINOv2's backbone alone");
    t = tiny_dinov2(CAB_F32, 0);
    tiny_drop(&t, "dinov2.encoder.layer.1.layer_scale2.lambda1");
    tiny_write(state, &t, 1);
    expect_refusal(state, CAB_EFORMAT, "layer_scale2.lambda1\" is missing");
}

static void test_refused_tensors(void **state)
{
    tiny t = tiny_transformers(CAB_F32, false);
    tiny_drop(&t, "classifier.weight");
    tiny_write(state, &t, 1);
    expect_refusal(state, CAB_EFORMAT, "\"classifier.weight\" is missing");
    t = tiny_transformers(CAB_F32, false);
    tiny_find(&t, "vit.embeddings.position_embeddings")->shape[1] = 9;
    tiny_write(state, &t, 1);
    expect_refusal(state, CAB_ESHAPE, "\"vit.embeddings.position_embeddings\": shape (1, 9, 12), expected (1, 10, 12)");
    t = tiny_transformers(CAB_F32, true);
    tiny_drop(&t, "deit.embeddings.distillation_token");
    tiny_write(state, &t, 1);
    expect_refusal(state, CAB_EFORMAT, "without a distillation token");
    static const char config[] = "{\"architecture\": \"vit_tiny_patch4_12\"}";
    t = tiny_transformers(CAB_F32, false);
    TINY_VECTOR(&t, 1, 12, "norm_pre.weight");
    write_as_timm(state, &t, false, config);
    expect_refusal(state, CAB_EUNSUPPORTED, "\"norm_pre.weight\"");
    t = tiny_transformers(CAB_F32, false);
    tiny_find(&t, "vit.embeddings.position_embeddings")->shape[1] = 1;
    write_as_timm(state, &t, false, config);
    expect_refusal(state, CAB_ESHAPE, "1 rows in \"pos_embed\"");
}

/* Positions are interpolated for a size that was asked for, never because config.json and the tensor disagree. */
static void test_positions_of_another_grid(void **state)
{
    tiny t = tiny_vim();
    cab_backend *backend = NULL;
    cab_model *model = NULL;
    assert_ok(cab_backend_open(test_device(), &backend));
    tiny_find(&t, "pos_embed")->shape[1] = 26; /* a grid of 5 x 5, config.json says 3 x 3 */
    tiny_write(state, &t, 1);
    expect_refusal(state, CAB_ESHAPE, "\"pos_embed\": shape (1, 26, 8), expected (1, 10, 8)");
    assert_fails(cab_model_open_sized(*state, 20, backend, CAB_PRECISION_FP32, false, &model), CAB_ESHAPE,
                 "shape (1, 26, 8), expected (1, 10, 8)");
    cab_backend_close(backend);
}

static void write_plain_timm(void **state, const char *config)
{
    tiny t = tiny_transformers(CAB_F32, false);
    write_as_timm(state, &t, false, config);
}

/* Arguments of timm's constructor: obeyed, or refused by name. */
static void test_timm_arguments(void **state)
{
    static const struct {
        const char *name, *arguments, *beside;
        cab_status status;
        const char *text;
    } cases[] = {
        {"vit_tiny_patch4_12", "\"global_pool\": \"avg\"", "", CAB_EUNSUPPORTED,
         "\"global_pool\" is \"avg\"; only \"token\""},
        {"vit_tiny_patch4_12", "", "\"global_pool\": \"avg\"", CAB_EUNSUPPORTED, "\"global_pool\" is \"avg\""},
        {"vit_tiny_patch4_12", "\"act_layer\": \"quick_gelu\"", "", CAB_EUNSUPPORTED, "\"quick_gelu\""},
        {"vit_tiny_patch4_12", "\"class_token\": false", "", CAB_EUNSUPPORTED, "\"class_token\" is false"},
        {"vit_tiny_patch4_12", "\"no_embed_class\": true", "", CAB_EUNSUPPORTED, "\"no_embed_class\" is true"},
        {"vit_tiny_patch4_12", "\"init_values\": 1e-5", "", CAB_EUNSUPPORTED, "\"init_values\" is"},
        {"vit_tiny_patch4_12", "\"qk_norm\": true", "", CAB_EUNSUPPORTED, "\"qk_norm\" is true"},
        {"vit_tiny_patch4_12", "\"norm_layer\": \"rmsnorm\"", "", CAB_EUNSUPPORTED, "\"norm_layer\" is"},
        {"vit_tiny_patch4_12", "\"new_thing\": 1", "", CAB_EUNSUPPORTED, "\"new_thing\" is 1"},
        {"vit_tiny_patch4_12", "\"depth\": 3", "", CAB_ESHAPE, "\"depth\" is 3, but the tensors are those of 2"},
        {"vit_tiny_patch4_12", "\"img_size\": [16, 16]", "", CAB_ESHAPE, "\"img_size\" is [16,16]"},
        {"vit_tiny_patch4_12", "\"mlp_ratio\": 4", "", CAB_ESHAPE, "\"mlp_ratio\" is 4"},
        {"vit_tiny_patch4_12", "", "\"num_classes\": 7", CAB_ESHAPE, "\"num_classes\" is 7"},
        {"vit_tiny_patch4_12", "", "\"input_size\": [3, 16, 16]", CAB_ESHAPE, "\"input_size\" is [3,16,16]"},
        {"vit_tiny_patch4_12", "", "\"pretrained_cfg\": {\"input_size\": [3, 16, 16]}", CAB_ESHAPE, "input_size"},
        {"vit_tiny_patch4_clip_quickgelu_12", "", "", CAB_EUNSUPPORTED, "\"clip\" is another variant"},
        {"vit_base_patch4_plus_12", "", "", CAB_EUNSUPPORTED, "\"plus\" is another variant"},
        {"vit_medium_patch4_12", "", "", CAB_EUNSUPPORTED, "\"medium\" is another variant"}};
    char config[512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(config, sizeof config, "{\"architecture\": \"%s\", \"model_args\": {%s}%s%s}", cases[i].name,
                 cases[i].arguments, cases[i].beside[0] ? ", " : "", cases[i].beside);
        write_plain_timm(state, config);
        expect_refusal(state, cases[i].status, cases[i].text);
    }
    write_plain_timm(state,
                     "{\"architecture\": \"vit_tiny_patch4_12.augreg_in21k\", \"num_classes\": 5, \"global_pool\": "
                     "\"token\", \"model_args\": {\"img_size\": 12, \"depth\": 2, \"act_layer\": \"relu\", "
                     "\"drop_rate\": 0.1, \"class_token\": true, \"init_values\": null, \"reg_tokens\": 0}}");
    cab_model *model = NULL;
    assert_ok(cab_model_load_on(test_device(), *state, CAB_PRECISION_FP32, &model));
    assert_int_equal(model->config.activation, CAB_RELU);
    cab_model_free(model);
}

/* qkv_bias false: no biases, and such as are stored are left over. */
static void test_qkv_bias(void **state)
{
    tiny t = tiny_transformers(CAB_F32, false);
    cab_model *model = NULL;
    tiny_configure(&t, "\"num_channels\"", "\"qkv_bias\": false, \"num_channels\"");
    tiny_write(state, &t, 1);
    expect_refusal(state, CAB_EUNSUPPORTED, "attention.key.bias\" and 5 more are left over");
    for (int l = 0; l < 2; l++)
        for (int i = 0; i < 3; i++) {
            static const char *const parts[] = {"query", "key", "value"};
            char name[CAB_NAME_MAX];
            snprintf(name, sizeof name, "vit.encoder.layer.%d.attention.attention.%s.bias", l, parts[i]);
            tiny_drop(&t, name);
        }
    TINY_MATRIX(&t, 12, 12, "vit.pooler.dense.weight"); /* the classifier reads the class token */
    TINY_VECTOR(&t, 0, 12, "vit.pooler.dense.bias");
    assert_ok(cab_model_load_on(test_device(), tiny_write(state, &t, 1), CAB_PRECISION_FP32, &model));
    free(image_logits(model));
    cab_model_free(model);
    tiny_configure(&t, "\"qkv_bias\": false", "\"qkv_bias\": true");
    tiny_write(state, &t, 1);
    expect_refusal(state, CAB_EFORMAT, "attention.query.bias\" is missing");
}

static void test_tensors_left_over(void **state)
{
    tiny t = tiny_transformers(CAB_F32, false);
    TINY_MATRIX(&t, 12, 12, "pre_logits.fc.weight"); /* between the norm and the head */
    write_as_timm(state, &t, false, "{\"architecture\": \"vit_tiny_patch4_12\"}");
    expect_refusal(state, CAB_EUNSUPPORTED, "tensor \"pre_logits.fc.weight\" is left over");
    t = tiny_vim();
    tiny_configure(&t, "\"depth\": 2", "\"depth\": 1");
    tiny_write(state, &t, 1);
    expect_refusal(state, CAB_EUNSUPPORTED, "tensor \"layers.1.mixer.A_b_log\" and 16 more are left over");
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(test_transformers),
                                       TEMP_TEST(test_timm),
                                       TEMP_TEST(test_single_head),
                                       TEMP_TEST(test_mapped),
                                       TEMP_TEST(test_image_size),
                                       TEMP_TEST(test_image_size_refused),
                                       TEMP_TEST(test_vim_comes_back),
                                       TEMP_TEST(test_refused_configurations),
                                       TEMP_TEST(test_refused_tensors),
                                       TEMP_TEST(test_positions_of_another_grid),
                                       TEMP_TEST(test_timm_arguments),
                                       TEMP_TEST(test_qkv_bias),
                                       TEMP_TEST(test_tensors_left_over),
                                       TEMP_TEST(test_layer_scale),
                                       TEMP_TEST(test_pooled),
                                       TEMP_TEST(test_gated_mlp),
                                       TEMP_TEST(test_dinov2_sizes),
                                       TEMP_TEST(test_refused_dinov2)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
