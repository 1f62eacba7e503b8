/* Image models against the PyTorch reference: every case in the directory that $CAB_GOLDEN names (../shared/golden), and the
 * pretrained teachers beside it that $CAB_TEACHERS names (../shared/teachers).
 *
 *   vim_*.json, .safetensors     Vision Mamba: logits, B and C of both directions, losses and every gradient
 *   hf_vit*, hf_deit*            tiny random teachers: logits, queries, keys
 *   <teacher>/golden.safetensors pixel_values.<i>, row i of logits, and of image i the fused projections qkv<i>.<layer> of the
 *                                first positions
 *
 * CAB_GOLDEN_VERBOSE prints every distance. */
#include "distill/layer_map.h"
#include "distill/recipe.h"
#include "golden.h"
#include "nn/bridge.h"
#include "widths.h"

#include <dirent.h>

/* A model and its reference. */
typedef struct subject {
    const golden_precision *precision;
    cab_safetensors *st;
    cab_backend *backend;
    cab_model *model;
    cab_params *bridge_params;
    int64_t B;
    float *pixels;
} subject;

static double forward_tolerance(const subject *s)
{
    return s->precision->forward * golden_growth(s->precision, s->model->config.n_layer);
}

static double gradient_tolerance(const subject *s)
{
    return s->precision->gradient * golden_growth(s->precision, s->model->config.n_layer);
}

static void close_subject(subject *s)
{
    cab_params_free(s->bridge_params);
    cab_model_free(s->model);
    cab_backend_close(s->backend);
    cab_safetensors_close(s->st);
    free(s->pixels);
}

/* ---- a recording ----------------------------------------------------------------------------------------------------- */

enum { TAPS = 4 };

typedef struct recording {
    cab_graph *g;
    cab_tensor *pixels, *hidden;
    cab_tensor **taps[TAPS]; /* B, C, B_b, C_b; of a teacher K, Q */
} recording;

static void record(const subject *s, bool recompute, recording *r)
{
    const cab_config *c = &s->model->config;
    assert_ok(cab_graph_new(s->backend, &r->g));
    r->pixels = cab_graph_input(r->g, "pixels", CAB_F32, 4, (int64_t[]){s->B, 3, c->image_size, c->image_size});
    for (int i = 0; i < TAPS; i++) {
        r->taps[i] = calloc((size_t)c->n_layer, sizeof **r->taps);
        assert_non_null(r->taps[i]);
    }
    const cab_taps taps = {.key = r->taps[0], .query = r->taps[1], .key_back = r->taps[2], .query_back = r->taps[3]};
    r->hidden = cab_model_record(r->g, s->model, r->pixels, recompute ? s->model->config.n_layer : 0, &taps);
    assert_ok(cab_tensor_write(r->g, r->pixels, s->pixels));
}

static void record_close(recording *r)
{
    cab_graph_free(r->g);
    for (int i = 0; i < TAPS; i++)
        free(r->taps[i]);
}

static void run_forward(const subject *s, recording *r, cab_tensor **logits)
{
    record(s, false, r);
    *logits = cab_model_record_logits(r->g, s->model, r->hidden);
    cab_graph_keep(r->g, *logits);
    for (int i = 0; i < TAPS; i++)
        for (int l = 0; l < s->model->config.n_layer; l++)
            cab_graph_keep(r->g, r->taps[i][l]);
    assert_ok(cab_graph_run(r->g));
}

/* Rows of ours, (B, 1, V), against the reference's first or only rows. */
static void expect_logits(const subject *s, const recording *r, const cab_tensor *logits, const float *expected)
{
    char what[64];
    snprintf(what, sizeof what, "%s: logits", s->precision->name);
    float *got = golden_read(r->g, logits);
    golden_expect(what, got, expected, cab_elements(logits), forward_tolerance(s), 0);
    free(got);
}

/* ---- Vision Mamba ---------------------------------------------------------------------------------------------------- */

/* The reference's name of a parameter of ours: of the bridge's, "bridge.B.0.2.weight" is "bridge.proj_B.0.2.weight". */
static const char *public_name(const char *name, char out[256])
{
    const char *prefix = "bridge.";
    if (strncmp(name, prefix, strlen(prefix)) == 0)
        snprintf(out, 256, "bridge.proj_%s", name + strlen(prefix));
    else
        snprintf(out, 256, "%s", name);
    return out;
}

static void load_parameters(const subject *s, cab_params *params, const char *prefix)
{
    for (size_t i = 0; i < cab_params_count(params); i++) {
        cab_tensor *t = cab_params_at(params, i);
        int n_dim = 0;
        const int64_t *shape = cab_params_stored_shape(params, i, &n_dim);
        char name[512], plain[256];
        snprintf(name, sizeof name, "%s%s", prefix, public_name(t->name, plain));
        float *values = calloc((size_t)cab_elements(t), sizeof *values);
        assert_non_null(values);
        assert_ok(cab_safetensors_read_f32(s->st, name, n_dim, shape, values));
        assert_ok(cab_params_write(params, t, values));
        free(values);
    }
}

static size_t count_prefix(const subject *s, const char *prefix)
{
    size_t n = 0;
    for (size_t i = 0; i < cab_safetensors_count(s->st); i++)
        n += strncmp(cab_safetensors_at(s->st, i)->name, prefix, strlen(prefix)) == 0;
    return n;
}

static void open_vim(const char *path, const golden_precision *precision, subject *s)
{
    char file[CAB_PATH_MAX];
    cab_json json = {0};
    cab_config config = {0};
    *s = (subject){.precision = precision};
    snprintf(file, sizeof file, "%s.json", path);
    assert_ok(cab_json_load(file, 1 << 24, &json));
    const cab_arch *arch = NULL;
    assert_ok(cab_architecture_find("vim", file, &arch));
    assert_ok(arch->configure(&json, &config));
    cab_json_close(&json);
    snprintf(file, sizeof file, "%s.safetensors", path);
    assert_ok(cab_safetensors_open(file, &s->st));
    assert_ok(cab_backend_open(test_device(), &s->backend));
    assert_ok(cab_model_create(arch, &config, s->backend, precision->precision, &s->model));
    load_parameters(s, s->model->params, "param.");
    assert_int_equal(cab_params_count(s->model->params), count_prefix(s, "param."));
    s->B = golden_need(s->st, 4, "input")->shape[0];
    s->pixels = golden_values(golden_need(s->st, 4, "input"));
}

/* Ours (B, L, N); the reference (B, 1, N, L), in the order in which the direction sees the tokens. */
static void expect_tap(const subject *s, const recording *r, int which, int l)
{
    static const char *const names[TAPS] = {"B", "C", "B_b", "C_b"};
    const cab_tensor *t = r->taps[which][l];
    const int64_t B = t->shape[0], L = t->shape[1], N = cab_columns(t);
    char name[64], what[128];
    snprintf(name, sizeof name, "act.%d.%s", l, names[which]);
    snprintf(what, sizeof what, "%s: %s", s->precision->name, name);
    const cab_safetensors_entry *entry = golden_need(s->st, 4, name);
    assert_ok(cab_safetensors_entry_check_shape(entry, 4, (int64_t[]){B, 1, N, L}));
    float *all = golden_values(entry), *got = golden_read(r->g, t),
          *expected = calloc((size_t)(B * L * N), sizeof *got);
    assert_non_null(expected);
    for (int64_t b = 0; b < B; b++)
        for (int64_t at = 0; at < L; at++)
            for (int64_t n = 0; n < N; n++)
                expected[(b * L + at) * N + n] = all[(b * N + n) * L + (which >= 2 ? L - 1 - at : at)];
    golden_expect(what, got, expected, B * L * N, forward_tolerance(s), 0);
    free(all);
    free(got);
    free(expected);
}

static void check_forward(const subject *s)
{
    recording r;
    cab_tensor *logits;
    run_forward(s, &r, &logits);
    float *expected = golden_values(golden_need(s->st, 2, "logits"));
    expect_logits(s, &r, logits, expected);
    for (int i = 0; i < TAPS; i++)
        for (int l = 0; l < s->model->config.n_layer; l++)
            expect_tap(s, &r, i, l);
    free(expected);
    record_close(&r);
}

static double read_scalar(cab_graph *g, const cab_tensor *t)
{
    float value = 0;
    assert_ok(cab_scalar_read(g, t, &value));
    return (double)value;
}

static void expect_loss(const subject *s, const char *name, double value)
{
    float *expected = golden_values(golden_need(s->st, 0, name)), got = (float)value;
    golden_expect(name, &got, expected, 1, forward_tolerance(s), 0);
    free(expected);
}

/* Gradients of all stores are compared, then cleared. A parameter that the loss does not touch has none in the file. */
static void expect_gradients(const subject *s, const char *prefix)
{
    cab_params *stores[2] = {s->model->params, s->bridge_params};
    double largest = 0;
    size_t compared = 0;
    for (size_t i = 0; i < cab_safetensors_count(s->st); i++) {
        const cab_safetensors_entry *entry = cab_safetensors_at(s->st, i);
        if (strncmp(entry->name, prefix, strlen(prefix)) != 0)
            continue;
        float *values = golden_values(entry);
        largest = fmax(largest, golden_norm(values, golden_elements(entry)));
        free(values);
    }
    for (int k = 0; k < 2 && stores[k] != NULL; k++) {
        for (size_t i = 0; i < cab_params_count(stores[k]); i++) {
            const cab_tensor *t = cab_params_at(stores[k], i);
            const int64_t n = cab_elements(t);
            char name[512], plain[256];
            snprintf(name, sizeof name, "%s%s", prefix, public_name(t->name, plain));
            const cab_safetensors_entry *entry = cab_safetensors_find(s->st, name);
            float *got = calloc((size_t)n, sizeof *got);
            assert_non_null(got);
            assert_ok(cab_params_read_grad(stores[k], t, got));
            if (entry != NULL) {
                assert_int_equal(golden_elements(entry), n);
                float *expected = golden_values(entry);
                golden_expect(name, got, expected, n, gradient_tolerance(s), s->precision->floor * largest);
                free(expected);
                compared++;
            } else if (golden_norm(got, n) > s->precision->floor * largest) {
                fail_msg("%s: the reference has no such gradient, ours has norm %g", name, golden_norm(got, n));
            }
            free(got);
        }
        assert_ok(cab_params_zero_grad(stores[k]));
    }
    assert_true(compared > 0);
    assert_int_equal(compared, count_prefix(s, prefix));
}

/* The teacher's logits, given as they are: its head is the identity. */
static cab_head_side teacher_side(const subject *s, cab_graph *g)
{
    const int64_t V = s->model->config.n_classes, n = V * V + s->B * V;
    const cab_dtype dtype = cab_model_dtype(s->model);
    float *logits = golden_values(golden_need(s->st, 2, "teacher_logits")),
          *identity = calloc((size_t)n, sizeof *identity);
    void *converted = calloc((size_t)n, sizeof(float));
    assert_true(identity != NULL && converted != NULL);
    for (int64_t v = 0; v < V; v++)
        identity[v * V + v] = 1;
    cab_head_side side = {.hidden = cab_graph_input(g, "teacher logits", dtype, 3, (int64_t[]){s->B, 1, V}),
                          .w = cab_graph_input(g, "identity", dtype, 2, (int64_t[]){V, V})};
    cab_convert(converted, dtype, logits, CAB_F32, (size_t)(s->B * V));
    assert_ok(cab_tensor_write(g, side.hidden, converted));
    cab_convert(converted, dtype, identity, CAB_F32, (size_t)(V * V));
    assert_ok(cab_tensor_write(g, side.w, converted));
    free(converted);
    free(logits);
    free(identity);
    return side;
}

/* Cross-entropy with its gradients, and the value of KL. */
static void check_head_loss(const subject *s, bool recompute)
{
    recording r;
    record(s, recompute, &r);
    cab_head_side ours = cab_model_head(s->model), teacher = teacher_side(s, r.g);
    ours.hidden = r.hidden;
    cab_tensor *labels = cab_graph_input(r.g, "labels", CAB_I32, 2, (int64_t[]){s->B, 1});
    int32_t *ids = golden_ids(golden_need(s->st, 1, "labels"), s->model->config.n_classes);
    assert_ok(cab_tensor_write(r.g, labels, ids));
    cab_head_losses losses = cab_head_loss(r.g, &ours, &teacher, labels, NULL, 1);
    cab_tensor *seed = cab_graph_scalar(r.g, "seed", 1);
    cab_graph_keep(r.g, losses.ce);
    cab_graph_keep(r.g, losses.kl);
    cab_graph_backward(r.g, 1, &losses.ce, &seed);
    assert_ok(cab_graph_plan(r.g, NULL));
    assert_ok(cab_graph_run(r.g));
    expect_loss(s, "loss_ce", read_scalar(r.g, losses.ce));
    expect_loss(s, "loss_kl", read_scalar(r.g, losses.kl));
    expect_gradients(s, "grad_ce.");
    free(ids);
    record_close(&r);
}

/* teacher.<t>.<what>, (B, heads, L, width) in the file, with the heads side by side. */
static cab_tensor *teacher_tap(const subject *s, cab_graph *g, char what, int layer)
{
    char name[64];
    snprintf(name, sizeof name, "teacher.%d.%c", layer, what);
    const cab_safetensors_entry *entry = golden_need(s->st, 4, name);
    const int64_t B = entry->shape[0], H = entry->shape[1], L = entry->shape[2], P = entry->shape[3];
    const cab_dtype dtype = cab_model_dtype(s->model);
    float *values = golden_values(entry), *rows = calloc((size_t)(B * H * L * P), sizeof *rows);
    void *converted = calloc((size_t)(B * H * L * P), sizeof(float));
    assert_true(rows != NULL && converted != NULL);
    for (int64_t i = 0; i < B * H * L * P; i++) {
        const int64_t b = i / (H * L * P), h = i / (L * P) % H, l = i / P % L, p = i % P;
        rows[((b * L + l) * H + h) * P + p] = values[i];
    }
    cab_tensor *t = cab_graph_input(g, name, dtype, 3, (int64_t[]){B, L, H * P});
    cab_convert(converted, dtype, rows, CAB_F32, (size_t)(B * H * L * P));
    assert_ok(cab_tensor_write(g, t, converted));
    free(values);
    free(rows);
    free(converted);
    return t;
}

static cab_bridge *open_bridge(subject *s, int n_teacher, bool softmax)
{
    const int n_layer = s->model->config.n_layer;
    const cab_safetensors_entry *k = golden_need(s->st, 4, "teacher.0.k");
    const int64_t width = k->shape[1] * k->shape[3];
    int map[64];
    assert_true(n_layer <= 64);
    assert_ok(cab_layer_map(CAB_LAYERS_PROPORTIONAL, NULL, 0, n_layer, n_teacher, map));
    const cab_bridge_options options = {.n_layer = 2,
                                        .hidden = golden_need(s->st, 2, "bridge.proj_B.0.0.weight")->shape[0],
                                        .activation = CAB_SILU,
                                        .softmax = softmax,
                                        .map = CAB_MAP_NONE,
                                        .bidirectional = true};
    cab_bridge *bridge = NULL;
    assert_ok(cab_params_new(s->backend, &s->bridge_params));
    assert_ok(cab_bridge_new(s->bridge_params, &options, map, n_layer,
                             same_widths(cab_model_tap_width(s->model, 0, CAB_TAP_KEY), width, width), 1, &bridge));
    load_parameters(s, s->bridge_params, "");
    assert_int_equal(cab_params_count(s->bridge_params), count_prefix(s, "bridge."));
    return bridge;
}

static void check_alignment(subject *s, bool softmax, bool recompute)
{
    int n_teacher = 0;
    while (golden_find(s->st, "teacher.%d.k", n_teacher) != NULL)
        n_teacher++;
    assert_true(n_teacher > 0 && n_teacher <= 64);
    cab_bridge *bridge = open_bridge(s, n_teacher, softmax);
    const int n = cab_bridge_terms(bridge), aligned = cab_bridge_aligned(bridge);
    cab_tensor *K[64], *Q[64], **terms = calloc(2 * (size_t)n, sizeof *terms), **seeds = terms + n;
    assert_non_null(terms);
    recording r;
    record(s, recompute, &r);
    for (int t = 0; t < n_teacher; t++) {
        K[t] = teacher_tap(s, r.g, 'k', t);
        Q[t] = teacher_tap(s, r.g, 'q', t);
    }
    const cab_bridge_images images = {.B = r.taps[0],
                                      .C = r.taps[1],
                                      .B_back = r.taps[2],
                                      .C_back = r.taps[3],
                                      .K = K,
                                      .Q = Q,
                                      .rows = {.class_at = s->model->config.class_at}};
    cab_bridge_record_images(r.g, bridge, &images, terms);
    cab_tensor *seed = cab_graph_scalar(r.g, "seed", 1.0f / (float)aligned);
    for (int i = 0; i < n; i++) {
        seeds[i] = seed;
        cab_graph_keep(r.g, terms[i]);
    }
    cab_graph_backward(r.g, n, terms, seeds);
    assert_ok(cab_graph_plan(r.g, NULL));
    assert_ok(cab_graph_run(r.g));
    double loss = 0;
    for (int i = 0; i < n; i++)
        loss += read_scalar(r.g, terms[i]) / aligned;
    expect_loss(s, softmax ? "loss_align_softmax" : "loss_align_none", loss);
    expect_gradients(s, softmax ? "grad_align_softmax." : "grad_align_none.");
    record_close(&r);
    free(terms);
    cab_bridge_free(bridge);
    cab_params_free(s->bridge_params);
    s->bridge_params = NULL;
}

static void compare_vim(const char *path)
{
    for (size_t p = 0; p < sizeof golden_precisions / sizeof *golden_precisions; p++) {
        subject s;
        open_vim(path, &golden_precisions[p], &s);
        check_forward(&s);
        for (int recompute = 0; recompute < 2; recompute++) {
            check_head_loss(&s, recompute);
            check_alignment(&s, false, recompute);
            check_alignment(&s, true, recompute);
        }
        close_subject(&s);
    }
}

/* Written and read again, it computes the same. */
static void compare_saved(const char *path)
{
    char directory[] = "/tmp/cab-vim-XXXXXX";
    subject s;
    recording r;
    cab_tensor *logits;
    assert_non_null(mkdtemp(directory));
    open_vim(path, &golden_precisions[0], &s);
    assert_ok(cab_model_export(s.model, directory, NULL, NULL));
    cab_model_free(s.model);
    assert_ok(cab_model_open(directory, s.backend, CAB_PRECISION_FP32, false, &s.model));
    run_forward(&s, &r, &logits);
    float *expected = golden_values(golden_need(s.st, 2, "logits"));
    expect_logits(&s, &r, logits, expected);
    free(expected);
    record_close(&r);
    close_subject(&s);
    temp_remove(directory);
}

/* ---- teachers -------------------------------------------------------------------------------------------------------- */

static void open_teacher(const char *directory, const golden_precision *precision, subject *s)
{
    char file[CAB_PATH_MAX];
    *s = (subject){.precision = precision};
    assert_ok(cab_path_join(file, directory, "golden.safetensors"));
    assert_ok(cab_safetensors_open(file, &s->st));
    assert_ok(cab_backend_open(test_device(), &s->backend));
    assert_ok(cab_model_open(directory, s->backend, precision->precision, false, &s->model));
}

static void compare_random_teacher(const char *directory)
{
    for (size_t p = 0; p < sizeof golden_precisions / sizeof *golden_precisions; p++) {
        subject s;
        recording r;
        cab_tensor *logits;
        open_teacher(directory, &golden_precisions[p], &s);
        s.B = golden_need(s.st, 4, "pixel_values")->shape[0];
        s.pixels = golden_values(golden_need(s.st, 4, "pixel_values"));
        run_forward(&s, &r, &logits);
        float *expected = golden_values(golden_need(s.st, 2, "logits"));
        expect_logits(&s, &r, logits, expected);
        for (int l = 0; l < s.model->config.n_layer; l++)
            for (int i = 0; i < 2; i++) {
                char name[32];
                snprintf(name, sizeof name, "%c.%d", i == 0 ? 'k' : 'q', l);
                golden_expect_tokens(r.g, s.precision->name, r.taps[i][l], golden_need(s.st, 4, name), true, 0,
                                     forward_tolerance(&s));
            }
        free(expected);
        record_close(&r);
        close_subject(&s);
    }
}

/* qkv<image>.<layer>, (n, 3 D): the first n positions. */
static int compare_projections(const subject *s, const recording *r, int image)
{
    int compared = 0;
    for (int l = 0; l < s->model->config.n_layer; l++) {
        const cab_safetensors_entry *entry = golden_find(s->st, "qkv%d.%d", image, l);
        if (entry == NULL)
            continue;
        const int64_t n = entry->shape[0], D = s->model->config.d_model;
        assert_ok(cab_safetensors_entry_check_shape(entry, 2, (int64_t[]){n, 3 * D}));
        float *all = golden_values(entry), *expected = calloc((size_t)(n * D), sizeof *expected);
        assert_non_null(expected);
        for (int i = 0; i < 2; i++) {
            const cab_tensor *t = r->taps[i][l];
            float *got = golden_read(r->g, t);
            char what[128];
            snprintf(what, sizeof what, "%s: %s, %s", s->precision->name, entry->name, i == 0 ? "K" : "Q");
            for (int64_t row = 0; row < n; row++)
                memcpy(expected + row * D, all + row * 3 * D + (i == 0 ? D : 0), (size_t)D * sizeof *expected);
            golden_expect(what, got, expected, n * D, forward_tolerance(s), 0);
            free(got);
            compared++;
        }
        free(all);
        free(expected);
    }
    return compared;
}

static void compare_pretrained(const char *directory)
{
    for (size_t p = 0; p < sizeof golden_precisions / sizeof *golden_precisions; p++) {
        subject s;
        int images = 0, projections = 0;
        open_teacher(directory, &golden_precisions[p], &s);
        const cab_safetensors_entry *all = golden_need(s.st, 2, "logits");
        float *expected = golden_values(all);
        s.B = 1;
        for (int i = 0; i < all->shape[0]; i++) {
            const cab_safetensors_entry *pixels = golden_find(s.st, "pixel_values.%d", i);
            recording r;
            cab_tensor *logits;
            if (pixels == NULL)
                continue;
            assert_ok(cab_safetensors_entry_check_shape(
                pixels, 3, (int64_t[]){3, s.model->config.image_size, s.model->config.image_size}));
            s.pixels = golden_values(pixels);
            run_forward(&s, &r, &logits);
            expect_logits(&s, &r, logits, expected + i * all->shape[1]);
            projections += compare_projections(&s, &r, i);
            images++;
            record_close(&r);
            free(s.pixels);
            s.pixels = NULL;
        }
        assert_true(images > 0 && projections > 0);
        free(expected);
        close_subject(&s);
    }
}

/* ---- what there is --------------------------------------------------------------------------------------------------- */

/* Calls `compare` for each entry of the directory that begins with `start` and ends with `end`, without that end. */
static int for_each(const char *directory, const char *start, const char *end, void (*compare)(const char *))
{
    DIR *listing = opendir(directory);
    int found = 0;
    for (struct dirent *e; listing != NULL && (e = readdir(listing)) != NULL;) {
        const size_t length = strlen(e->d_name), tail = strlen(end);
        char path[CAB_PATH_MAX];
        if (strncmp(e->d_name, start, strlen(start)) != 0 || length < tail ||
            strcmp(e->d_name + length - tail, end) != 0)
            continue;
        assert_ok(cab_path_join(path, directory, e->d_name));
        path[strlen(path) - tail] = '\0';
        print_message("  %s\n", path);
        compare(path);
        found++;
    }
    if (listing != NULL)
        closedir(listing);
    return found;
}

static const char *golden_directory(void)
{
    const char *directory = getenv("CAB_GOLDEN");
    return directory != NULL ? directory : "../shared/golden";
}

static void or_skip(int found, const char *what, const char *directory)
{
    if (found > 0)
        return;
    print_message("skipped: no %s in %s\n", what, directory);
    skip();
}

static void test_vim(void **state)
{
    (void)state;
    or_skip(for_each(golden_directory(), "vim_", ".json", compare_vim), "vim_*.json", golden_directory());
}

static void test_saved_vim(void **state)
{
    (void)state;
    or_skip(for_each(golden_directory(), "vim_", ".json", compare_saved), "vim_*.json", golden_directory());
}

static void test_teachers(void **state)
{
    (void)state;
    const int found = for_each(golden_directory(), "hf_vit", "", compare_random_teacher) +
                      for_each(golden_directory(), "hf_deit", "", compare_random_teacher) +
                      for_each(golden_directory(), "hf_dinov2", "", compare_random_teacher);
    or_skip(found, "hf_vit*, hf_deit* or hf_dinov2*", golden_directory());
}

static void test_pretrained(void **state)
{
    (void)state;
    const char *given = getenv("CAB_TEACHERS"), *directory = given != NULL ? given : "../shared/teachers";
    or_skip(for_each(directory, "vit", "", compare_pretrained), "vit*", directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vim), cmocka_unit_test(test_saved_vim),
                                       cmocka_unit_test(test_teachers), cmocka_unit_test(test_pretrained)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
