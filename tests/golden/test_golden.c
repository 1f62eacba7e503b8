/* Whole models against the PyTorch reference: every case in the directory that $CAB_GOLDEN names (../shared/golden), and
 * the pretrained teachers beside it that $CAB_TEACHERS names (../shared/teachers).
 *
 *   phi_mamba_*.json, .safetensors   the student: logits, B, C, losses and every gradient
 *   hf_<architecture>/               a tiny random model in Hugging Face layout: logits, hidden states, queries, keys
 *   <teacher>/golden.safetensors     the same of a pretrained model, at its last positions; without a config.json beside it,
 *                                    of $CAB_GGUF/<teacher>.gguf (build/teachers), skipped where that is not there
 *
 * Nothing about the cases is known here: sizes, layers and tensors come from their files. The pretrained teachers'
 * reference was made with TF32 products: an evaluation in fp64 is 3e-4 away from it. CAB_GOLDEN_VERBOSE prints every
 * distance. */
#include "base/thread.h"
#include "distill/layer_map.h"
#include "distill/recipe.h"
#include "golden.h"
#include "nn/bridge.h"
#include "widths.h"

#include <dirent.h>

/* ---- a student and its reference ------------------------------------------------------------------------------------- */

typedef struct student {
    const golden_precision *precision;
    cab_safetensors *st;
    cab_backend *backend;
    cab_model *model;
    cab_params *bridge_params;
    int64_t B, L;
    int32_t *ids;
} student;

static double forward_tolerance(const student *s)
{
    return s->precision->forward * golden_growth(s->precision, s->model->config.n_layer);
}

static double gradient_tolerance(const student *s)
{
    return s->precision->gradient * golden_growth(s->precision, s->model->config.n_layer);
}

/* Fills a store from "<prefix><name>" of the file. */
static void load_parameters(const student *s, cab_params *params, const char *prefix)
{
    for (size_t i = 0; i < cab_params_count(params); i++) {
        cab_tensor *t = cab_params_at(params, i);
        char name[256];
        snprintf(name, sizeof name, "%s%s", prefix, t->name);
        float *values = calloc((size_t)cab_elements(t), sizeof *values);
        assert_non_null(values);
        assert_ok(cab_safetensors_read_f32(s->st, name, t->n_dim, t->shape, values));
        assert_ok(cab_params_write(params, t, values));
        free(values);
    }
}

/* Whatever the file has under the prefix, whose first `skip` characters are not the parameter's, must be a parameter of
 * one of the stores. */
static void expect_known(const student *s, const char *prefix, size_t skip)
{
    for (size_t i = 0; i < cab_safetensors_count(s->st); i++) {
        const char *name = cab_safetensors_at(s->st, i)->name;
        if (strncmp(name, prefix, strlen(prefix)) != 0)
            continue;
        const char *rest = name + skip;
        if (cab_params_find(s->model->params, rest) == NULL &&
            (s->bridge_params == NULL || cab_params_find(s->bridge_params, rest) == NULL))
            fail_msg("\"%s\" of the golden file is no parameter of ours", name);
    }
}

static void student_open(const char *path, const golden_precision *precision, student *s)
{
    char file[CAB_PATH_MAX];
    cab_json json = {0};
    cab_config config = {0};
    const cab_arch *arch = NULL;
    const char *type = NULL;
    *s = (student){.precision = precision};
    snprintf(file, sizeof file, "%s.json", path);
    assert_ok(cab_json_load(file, 1 << 24, &json));
    assert_ok(cab_json_string_or(&json, NULL, "model_type", "phi-mamba", &type));
    assert_ok(cab_architecture_find(type, file, &arch));
    assert_ok(arch->configure(&json, &config));
    cab_json_close(&json);
    snprintf(file, sizeof file, "%s.safetensors", path);
    assert_ok(cab_safetensors_open(file, &s->st));
    assert_ok(cab_backend_open(test_device(), &s->backend));
    assert_ok(cab_model_create(arch, &config, s->backend, precision->precision, &s->model));
    load_parameters(s, s->model->params, "param.");
    expect_known(s, "param.", strlen("param."));
    const cab_safetensors_entry *ids = golden_need(s->st, 2, "input_ids");
    s->B = ids->shape[0];
    s->L = ids->shape[1];
    s->ids = golden_ids(ids, config.vocab_size);
}

static void student_close(student *s)
{
    cab_params_free(s->bridge_params);
    cab_model_free(s->model);
    cab_backend_close(s->backend);
    cab_safetensors_close(s->st);
    free(s->ids);
}

/* A graph with the student recorded in it. */
typedef struct recording {
    cab_graph *g;
    cab_tensor *ids, *hidden;
    cab_tensor **taps; /* keys, then queries, then inputs of the layers */
    cab_tensor **key, **query, **input;
} recording;

static void record(const student *s, const cab_model *model, bool recompute, recording *r)
{
    size_t n = (size_t)model->config.n_layer;
    assert_ok(cab_graph_new(s->backend, &r->g));
    r->ids = cab_graph_input(r->g, "ids", CAB_I32, 2, (int64_t[]){s->B, s->L});
    r->taps = calloc(3 * n, sizeof *r->taps);
    assert_non_null(r->taps);
    r->key = r->taps, r->query = r->taps + n, r->input = r->taps + 2 * n;
    const cab_taps taps = {.key = r->key, .query = r->query, .hidden = r->input};
    r->hidden = cab_model_record(r->g, model, r->ids, recompute, &taps);
    assert_ok(cab_tensor_write(r->g, r->ids, s->ids));
}

static void record_close(recording *r)
{
    cab_graph_free(r->g);
    free(r->taps);
}

static void check_forward(const student *s)
{
    const int n_layer = s->model->config.n_layer;
    const double tolerance = forward_tolerance(s);
    recording r;
    record(s, s->model, false, &r);
    cab_tensor *logits = cab_model_record_logits(r.g, s->model, r.hidden);
    cab_graph_keep(r.g, logits);
    for (int l = 0; l < n_layer; l++) {
        cab_graph_keep(r.g, r.key[l]);
        cab_graph_keep(r.g, r.query[l]);
    }
    assert_ok(cab_graph_run(r.g));
    golden_expect_tokens(r.g, s->precision->name, logits, golden_need(s->st, 3, "logits"), false, 0, tolerance);
    for (int l = 0; l < n_layer; l++) {
        char name[32];
        snprintf(name, sizeof name, "act.%d.B", l);
        golden_expect_tokens(r.g, s->precision->name, r.key[l], golden_need(s->st, 4, name), false, 0, tolerance);
        snprintf(name, sizeof name, "act.%d.C", l);
        golden_expect_tokens(r.g, s->precision->name, r.query[l], golden_need(s->st, 4, name), false, 0, tolerance);
    }
    record_close(&r);
}

/* ---- losses ---------------------------------------------------------------------------------------------------------- */

static void expect_loss(const student *s, const char *name, double value, double tolerance)
{
    const cab_safetensors_entry *entry = cab_safetensors_find(s->st, name);
    if (entry == NULL || golden_elements(entry) != 1)
        fail_msg("the golden file has no scalar \"%s\"", name);
    float *expected = golden_values(entry), got = (float)value;
    golden_expect(name, &got, expected, 1, tolerance, 0);
    free(expected);
}

static double read_scalar(cab_graph *g, const cab_tensor *t)
{
    float value = 0;
    assert_ok(cab_scalar_read(g, t, &value));
    return (double)value;
}

static double largest_gradient(const student *s, const char *prefix)
{
    double largest = 0;
    for (size_t i = 0; i < cab_safetensors_count(s->st); i++) {
        const cab_safetensors_entry *entry = cab_safetensors_at(s->st, i);
        if (strncmp(entry->name, prefix, strlen(prefix)) != 0)
            continue;
        float *values = golden_values(entry);
        largest = fmax(largest, golden_norm(values, golden_elements(entry)));
        free(values);
    }
    if (largest == 0)
        fail_msg("the golden file has no gradient \"%s*\" but zeros", prefix);
    return largest;
}

/* One parameter's gradient: the reference's, or zero where that has none. Appended to *all when that is not NULL. */
static void expect_gradient(const student *s, const cab_params *params, const cab_tensor *t, const char *prefix,
                            double largest)
{
    char name[256];
    int64_t n = cab_elements(t);
    float *got = calloc((size_t)n, sizeof *got);
    assert_non_null(got);
    assert_ok(cab_params_read_grad(params, t, got));
    snprintf(name, sizeof name, "%s%s", prefix, t->name);
    const cab_safetensors_entry *entry = cab_safetensors_find(s->st, name);
    if (entry != NULL) {
        assert_ok(cab_safetensors_entry_check_shape(entry, t->n_dim, t->shape));
        float *expected = golden_values(entry);
        golden_expect(name, got, expected, n, gradient_tolerance(s), s->precision->floor * largest);
        free(expected);
    } else if (golden_norm(got, n) > s->precision->floor * largest) {
        fail_msg("%s: the reference has no such gradient, ours has norm %g", name, golden_norm(got, n));
    }
    free(got);
}

/* Gradients of all stores are compared, then cleared. */
static void expect_gradients(const student *s, const char *prefix)
{
    double largest = largest_gradient(s, prefix);
    expect_known(s, prefix, strlen(prefix));
    cab_params *stores[2] = {s->model->params, s->bridge_params};
    for (int k = 0; k < 2 && stores[k] != NULL; k++) {
        for (size_t i = 0; i < cab_params_count(stores[k]); i++)
            expect_gradient(s, stores[k], cab_params_at(stores[k], i), prefix, largest);
        assert_ok(cab_params_zero_grad(stores[k]));
    }
}

/* The teacher's logits, given as they are: its head is the identity. */
static cab_head_side teacher_side(const student *s, cab_graph *g)
{
    const int64_t V = s->model->config.vocab_size;
    const cab_safetensors_entry *entry = golden_need(s->st, 3, "teacher_logits");
    const int64_t shape[3] = {s->B, s->L, V};
    assert_ok(cab_safetensors_entry_check_shape(entry, 3, shape));
    const cab_dtype dtype = cab_model_dtype(s->model);
    float *logits = golden_values(entry), *identity = calloc((size_t)(V * V), sizeof *identity);
    void *low = calloc((size_t)(V * V > s->B * s->L * V ? V * V : s->B * s->L * V), sizeof(float));
    assert_true(identity != NULL && low != NULL);
    for (int64_t v = 0; v < V; v++)
        identity[v * V + v] = 1;
    cab_head_side side = {.hidden = cab_graph_input(g, "teacher logits", dtype, 3, shape),
                          .w = cab_graph_input(g, "identity", dtype, 2, (int64_t[]){V, V})};
    cab_convert(low, dtype, logits, CAB_F32, (size_t)(s->B * s->L * V));
    assert_ok(cab_tensor_write(g, side.hidden, low));
    cab_convert(low, dtype, identity, CAB_F32, (size_t)(V * V));
    assert_ok(cab_tensor_write(g, side.w, low));
    free(low);
    free(logits);
    free(identity);
    return side;
}

/* Cross-entropy, or with_teacher KL over all positions. */
static void check_head_loss(const student *s, bool with_teacher, bool recompute)
{
    recording r;
    record(s, s->model, recompute, &r);
    cab_head_side ours = cab_model_head(s->model), teacher = {0};
    ours.hidden = r.hidden;
    if (with_teacher)
        teacher = teacher_side(s, r.g);
    cab_tensor *labels = cab_graph_input(r.g, "labels", CAB_I32, 2, (int64_t[]){s->B, s->L});
    int32_t *shifted = golden_labels(s->ids, s->B, s->L);
    assert_ok(cab_tensor_write(r.g, labels, shifted));
    cab_head_losses losses = cab_head_loss(r.g, &ours, with_teacher ? &teacher : NULL, labels, NULL, 1);
    cab_tensor *loss = with_teacher ? losses.kl : losses.ce, *seed = cab_graph_scalar(r.g, "seed", 1);
    cab_graph_keep(r.g, loss);
    cab_graph_backward(r.g, 1, &loss, &seed);
    assert_ok(cab_graph_plan(r.g, NULL));
    assert_ok(cab_graph_run(r.g));
    expect_loss(s, with_teacher ? "loss_kl_all_positions" : "loss_ce", read_scalar(r.g, loss), forward_tolerance(s));
    expect_gradients(s, with_teacher ? "grad_kl." : "grad_ce.");
    free(shifted);
    record_close(&r);
}

/* ---- alignment ------------------------------------------------------------------------------------------------------- */

/* The bridge that the file's tensors describe. */
static cab_bridge *open_bridge(student *s, int n_teacher, bool softmax)
{
    const int n_layer = s->model->config.n_layer;
    int *map = calloc((size_t)n_layer, sizeof *map), first = -1;
    assert_non_null(map);
    assert_ok(cab_layer_map(CAB_LAYERS_PROPORTIONAL, NULL, 0, n_layer, n_teacher, map));
    for (int l = 0; l < n_layer; l++) {
        if (golden_find(s->st, "bridge.B.%d.0.weight", l) == NULL)
            map[l] = -1;
        else if (first < 0)
            first = l;
    }
    if (first < 0)
        fail_msg("the golden file has no tensor \"bridge.B.<layer>.0.weight\"");
    cab_bridge_options options = {.n_layer = 1, .activation = CAB_SILU, .softmax = softmax, .map = CAB_MAP_NONE};
    while (golden_find(s->st, "bridge.B.%d.%d.weight", first, 2 * options.n_layer) != NULL)
        options.n_layer++;
    options.hidden = golden_find(s->st, "bridge.B.%d.0.weight", first)->shape[0];
    cab_bridge *bridge = NULL;
    assert_ok(cab_params_new(s->backend, &s->bridge_params));
    assert_ok(cab_bridge_new(s->bridge_params, &options, map, n_layer,
                             same_widths(cab_model_tap_width(s->model, 0, CAB_TAP_KEY),
                                         golden_need(s->st, 3, "teacher.0.k")->shape[2],
                                         golden_need(s->st, 3, "teacher.0.q")->shape[2]),
                             1, &bridge));
    load_parameters(s, s->bridge_params, "");
    expect_known(s, "bridge.", 0);
    free(map);
    return bridge;
}

/* teacher.<t>.<what> of every teacher layer as inputs. */
static void teacher_taps(const student *s, cab_graph *g, char what, int n_teacher, cab_tensor **taps)
{
    const cab_dtype dtype = cab_model_dtype(s->model);
    for (int t = 0; t < n_teacher; t++) {
        char name[32];
        snprintf(name, sizeof name, "teacher.%d.%c", t, what);
        const cab_safetensors_entry *entry = golden_need(s->st, 3, name);
        const int64_t shape[3] = {s->B, s->L, entry->shape[2]};
        assert_ok(cab_safetensors_entry_check_shape(entry, 3, shape));
        float *values = golden_values(entry);
        void *converted = calloc((size_t)golden_elements(entry), sizeof(float));
        assert_non_null(converted);
        taps[t] = cab_graph_input(g, name, dtype, 3, shape);
        cab_convert(converted, dtype, values, CAB_F32, (size_t)golden_elements(entry));
        assert_ok(cab_tensor_write(g, taps[t], converted));
        free(values);
        free(converted);
    }
}

static void check_alignment(student *s, const char *loss_name, const char *prefix, bool softmax, bool recompute)
{
    int n_teacher = 0;
    while (golden_find(s->st, "teacher.%d.k", n_teacher) != NULL)
        n_teacher++;
    if (n_teacher == 0)
        fail_msg("the golden file has no tensor \"teacher.0.k\"");
    cab_bridge *bridge = open_bridge(s, n_teacher, softmax);
    const int aligned = cab_bridge_aligned(bridge), n = 2 * aligned;
    cab_tensor **K = calloc(2 * (size_t)n_teacher, sizeof *K), **Q = K + n_teacher;
    cab_tensor **terms = calloc(2 * (size_t)n, sizeof *terms), **seeds = terms + n;
    assert_true(K != NULL && terms != NULL);
    recording r;
    record(s, s->model, recompute, &r);
    teacher_taps(s, r.g, 'k', n_teacher, K);
    teacher_taps(s, r.g, 'q', n_teacher, Q);
    cab_bridge_record(r.g, bridge, r.key, r.query, K, Q, terms);
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
    expect_loss(s, loss_name, loss, forward_tolerance(s));
    expect_gradients(s, prefix);
    record_close(&r);
    free(K);
    free(terms);
    cab_bridge_free(bridge);
    cab_params_free(s->bridge_params);
    s->bridge_params = NULL;
}

static void test_student(void **state)
{
    static const struct {
        const char *loss, *prefix;
        bool softmax;
    } alignments[] = {{"loss_align", "grad_align.", false},
                      {"loss_align_none", "grad_align_none.", false},
                      {"loss_align_softmax", "grad_align_softmax.", true}};
    for (size_t p = 0; p < sizeof golden_precisions / sizeof *golden_precisions; p++) {
        student s;
        int aligned = 0;
        student_open(*state, &golden_precisions[p], &s);
        check_forward(&s);
        for (int recompute = 0; recompute < 2; recompute++) {
            check_head_loss(&s, false, recompute);
            check_head_loss(&s, true, recompute);
            for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++)
                if (cab_safetensors_find(s.st, alignments[i].loss) != NULL) {
                    check_alignment(&s, alignments[i].loss, alignments[i].prefix, alignments[i].softmax, recompute);
                    aligned++;
                }
        }
        if (aligned == 0)
            fail_msg("the golden file has no loss_align");
        student_close(&s);
    }
}

/* ---- models in Hugging Face layout ----------------------------------------------------------------------------------- */

/* What the reference calls hidden.<i>: the input of layer i, last what the final norm gives. transformers' Mamba and Mamba-2 note
 * what a layer gives instead, and of the last layer also what the norm makes of it; NULL: no tap of ours. */
static cab_tensor *hidden_state(const student *s, const recording *r, int i)
{
    const int n = s->model->config.n_layer;
    const bool behind = strcmp(s->model->arch->name, "mamba") == 0 || strcmp(s->model->arch->name, "mamba2") == 0;
    if (i == n)
        return r->hidden;
    return !behind ? r->input[i] : i + 1 < n ? r->input[i + 1] : NULL;
}

/* Which of the golden file's tensors we looked at: a case that compares nothing must not pass. */
static int check_taps(const student *s, const recording *r, double tolerance)
{
    const cab_config *c = &s->model->config;
    int compared = 0, attending = 0; /* q and k are numbered among the layers that attend */
    for (int l = 0; l <= c->n_layer; l++) {
        const bool attends = l < c->n_layer && cab_block_attends(&s->model->network.blocks[l]);
        const cab_safetensors_entry *hidden = golden_find(s->st, "hidden.%d", l);
        const cab_safetensors_entry *q = attends ? golden_find(s->st, "q.%d", attending) : NULL;
        const cab_safetensors_entry *k = attends ? golden_find(s->st, "k.%d", attending) : NULL;
        const cab_safetensors_entry *qkv = golden_find(s->st, "qkv.%d", l);
        cab_tensor *state = hidden_state(s, r, l);
        if (hidden != NULL && state != NULL)
            golden_expect_tokens(r->g, s->precision->name, state, hidden, false, 0, tolerance);
        attending += attends;
        if (q != NULL)
            golden_expect_tokens(r->g, s->precision->name, r->query[l], q, true, 0, tolerance);
        if (k != NULL)
            golden_expect_tokens(r->g, s->precision->name, r->key[l], k, true, 0, tolerance);
        if (l < c->n_layer && qkv != NULL) {
            golden_expect_tokens(r->g, s->precision->name, r->query[l], qkv, false, 0, tolerance);
            golden_expect_tokens(r->g, s->precision->name, r->key[l], qkv, false, cab_columns(r->query[l]), tolerance);
        }
        compared += (hidden != NULL && state != NULL) + (q != NULL) + (k != NULL) + 2 * (qkv != NULL);
    }
    return compared;
}

static void check_model(const student *s, double tolerance)
{
    const cab_config *c = &s->model->config;
    recording r;
    record(s, s->model, false, &r);
    cab_tensor *logits = cab_model_record_logits(r.g, s->model, r.hidden);
    cab_graph_keep(r.g, logits);
    if (s->model->network.head_scale > 0) /* the reference's hidden state is the one before it is scaled for the head */
        r.hidden = cab_scale(r.g, r.hidden, 1 / s->model->network.head_scale);
    cab_graph_keep(r.g, r.hidden);
    for (int i = 0; i < 3 * c->n_layer; i++)
        cab_graph_keep(r.g, r.taps[i]);
    assert_ok(cab_graph_run(r.g));
    const bool last = golden_find(s->st, "logits_last") != NULL;
    golden_expect_tokens(r.g, s->precision->name, logits, golden_need(s->st, 3, last ? "logits_last" : "logits"), false,
                         0, tolerance);
    int compared = check_taps(s, &r, tolerance);
    record_close(&r);
    if (s->precision->precision == CAB_PRECISION_FP32)
        print_message("  logits and %d taps compared\n", compared);
}

/* The same logits from one token at a time. */
static void check_steps(const student *s, double tolerance)
{
    const cab_safetensors_entry *entry = golden_need(s->st, 3, "logits");
    const int64_t V = s->model->config.vocab_size;
    const size_t row = (size_t)(s->B * V);
    float *got = calloc(row * (size_t)s->L, sizeof *got), *expected = golden_values(entry);
    void *raw = calloc(row, sizeof *got);
    int32_t *column = calloc((size_t)s->B, sizeof *column);
    cab_graph *g = NULL;
    assert_true(got != NULL && raw != NULL && column != NULL && entry->shape[1] == s->L);
    assert_ok(cab_graph_new(s->backend, &g));
    cab_tensor *token = cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){s->B, 1});
    cab_tensor *position = cab_graph_input(g, "position", CAB_I32, 1, (int64_t[]){1});
    cab_tensor *logits = cab_model_record_logits(g, s->model, cab_model_record_step(g, s->model, token, position));
    cab_graph_keep(g, logits);
    assert_ok(cab_graph_plan(g, NULL));
    for (int32_t l = 0; l < s->L; l++) {
        for (int64_t b = 0; b < s->B; b++)
            column[b] = s->ids[b * s->L + l];
        assert_ok(cab_tensor_write(g, token, column));
        assert_ok(cab_tensor_write(g, position, &l));
        assert_ok(cab_graph_run(g));
        assert_ok(cab_tensor_read(g, logits, raw));
        for (int64_t b = 0; b < s->B; b++)
            cab_convert(got + (b * s->L + l) * V, CAB_F32,
                        (const char *)raw + (size_t)(b * V) * cab_dtype_size(logits->dtype), logits->dtype, (size_t)V);
    }
    golden_expect("logits of single tokens", got, expected, s->B * s->L * V, tolerance, 0);
    cab_graph_free(g);
    free(got);
    free(expected);
    free(raw);
    free(column);
}

static float *logits_of(const student *s, const cab_model *model)
{
    recording r;
    record(s, model, false, &r);
    cab_tensor *logits = cab_model_record_logits(r.g, model, r.hidden);
    cab_graph_keep(r.g, logits);
    assert_ok(cab_graph_run(r.g));
    float *values = golden_read(r.g, logits);
    record_close(&r);
    return values;
}

/* Saved and opened again, it is the same model, bit by bit. */
static void check_saved(const student *s)
{
    const size_t bytes = (size_t)(s->B * s->L * s->model->config.vocab_size) * sizeof(float);
    void *directory = NULL;
    cab_model *again = NULL;
    assert_int_equal(temp_setup(&directory), 0);
    assert_ok(cab_model_save(s->model, directory));
    assert_ok(cab_model_open(directory, s->backend, s->model->precision, true, &again));
    float *saved = logits_of(s, again), *own = logits_of(s, s->model);
    assert_memory_equal(saved, own, bytes);
    free(saved);
    free(own);
    cab_model_free(again);
    temp_teardown(&directory);
}

/* The model in a directory or a GGUF file against the golden.safetensors of `directory`. */
static void compare_model(const char *model, const char *directory, double least_tolerance, bool steps)
{
    char path[CAB_PATH_MAX];
    for (size_t p = 0; p < sizeof golden_precisions / sizeof *golden_precisions; p++) {
        student s = {.precision = &golden_precisions[p]};
        assert_ok(cab_path_join(path, directory, "golden.safetensors"));
        assert_ok(cab_safetensors_open(path, &s.st));
        if (cab_safetensors_find(s.st, "input_ids") == NULL) {
            printf("skipped: %s: reads no tokens; images are test_golden_vision.c's\n", directory);
            cab_safetensors_close(s.st);
            skip();
        }
        assert_ok(cab_backend_open(test_device(), &s.backend));
        bool trains = cab_safetensors_find(s.st, "loss_ce") != NULL;
        cab_status status = cab_model_open(model, s.backend, golden_precisions[p].precision, trains, &s.model);
        if (status == CAB_EUNSUPPORTED) {
            printf("skipped: %s\n", cab_error_text());
            cab_backend_close(s.backend);
            cab_safetensors_close(s.st);
            skip();
        }
        assert_ok(status);
        const cab_safetensors_entry *ids = golden_need(s.st, 2, "input_ids");
        s.B = ids->shape[0];
        s.L = ids->shape[1];
        s.ids = golden_ids(ids, s.model->config.vocab_size);
        check_model(&s, fmax(forward_tolerance(&s), least_tolerance));
        if (steps && cab_network_steps(&s.model->network))
            check_steps(&s, forward_tolerance(&s));
        if (trains)
            check_head_loss(&s, false, false);
        if (trains && s.model->arch->describe != NULL)
            check_saved(&s);
        student_close(&s);
    }
}

static void test_model(void **state)
{
    compare_model(*state, *state, 0, true);
}

static void test_teacher(void **state)
{
    compare_model(*state, *state, 1e-3, false);
}

/* Golden vectors of a model that is not beside them, but may lie in a GGUF file. */
static void test_gguf(void **state)
{
    const char *directory = *state, *files = getenv("CAB_GGUF"), *slash = strrchr(directory, '/');
    char path[CAB_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s.gguf", files != NULL ? files : "build/teachers",
             slash != NULL ? slash + 1 : directory);
    if (!cab_path_exists(path)) {
        printf("skipped: %s: no config.json, and %s is not there\n", directory, path);
        skip();
    }
    compare_model(path, directory, 1e-3, false);
}

/* ---- finding the cases ----------------------------------------------------------------------------------------------- */

enum { CASES_MAX = 256 };

typedef struct case_list {
    struct CMUnitTest tests[CASES_MAX];
    char *paths[CASES_MAX];
    size_t count;
} case_list;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct CMUnitTest *)a)->name, ((const struct CMUnitTest *)b)->name);
}

static void add_case(case_list *list, const char *path, CMUnitTestFunction function)
{
    if (list->count == CASES_MAX) {
        printf("skipped: %s: more than %d cases\n", path, CASES_MAX);
        return;
    }
    char *copy = strdup(path);
    if (copy == NULL)
        abort();
    list->paths[list->count] = copy;
    list->tests[list->count++] = (struct CMUnitTest){.name = copy, .test_func = function, .initial_state = copy};
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* A directory with golden.safetensors is a model; phi_mamba_<name>.json beside .safetensors a student. */
static void consider(case_list *list, const char *directory, const char *name, CMUnitTestFunction model)
{
    char path[CAB_PATH_MAX], inner[CAB_PATH_MAX];
    if (name[0] == '.' || cab_path_join(path, directory, name) != CAB_OK)
        return;
    if (cab_path_is_directory(path)) {
        if (cab_path_join(inner, path, "golden.safetensors") != CAB_OK || !cab_path_exists(inner))
            return;
        bool absent = cab_path_join(inner, path, "config.json") != CAB_OK || !cab_path_exists(inner);
        add_case(list, path, absent ? test_gguf : model);
    } else if (strncmp(name, "phi_mamba_", 10) == 0 && ends_with(name, ".json")) {
        path[strlen(path) - strlen(".json")] = '\0';
        add_case(list, path, test_student);
    }
}

static void find_cases(case_list *list, const char *directory, CMUnitTestFunction model)
{
    DIR *stream = opendir(directory);
    if (stream == NULL) {
        printf("skipped: %s: no such directory\n", directory);
        return;
    }
    for (struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream))
        consider(list, directory, entry->d_name, model);
    closedir(stream);
}

int main(void)
{
    case_list list = {.count = 0};
    cab_thread_limit(1); /* tiny models, and other tests beside this one */
    const char *golden = getenv("CAB_GOLDEN"), *teachers = getenv("CAB_TEACHERS");
    find_cases(&list, golden != NULL ? golden : "../shared/golden", test_model);
    find_cases(&list, teachers != NULL ? teachers : "../shared/teachers", test_teacher);
    qsort(list.tests, list.count, sizeof *list.tests, by_name);
    int failed = list.count > 0 ? _cmocka_run_group_tests("golden", list.tests, list.count, NULL, NULL) : 0;
    for (size_t i = 0; i < list.count; i++)
        free(list.paths[i]);
    return failed;
}
