/* What a step of alignment holds, by its plan: Vim-Tiny taught by a ViT of its width at 224, 448 and 896 pixels. */
#include "distill/objective.h"
#include "models/synthetic.h"
#include "nn/bridge.h"
#include "ops/backends.h"
#include "temp.h"
#include "widths.h"

enum { SIZES = 3 };

static const char vit_tiny[] =
    "{\"model_type\": \"vit\", \"hidden_size\": 192, \"num_hidden_layers\": 12, \"num_attention_heads\": 3, "
    "\"intermediate_size\": 768, \"image_size\": 224, \"patch_size\": 16}";
static const char vim_tiny[] =
    "{\"model_type\": \"vim\", \"img_size\": 224, \"patch_size\": 16, \"embed_dim\": 192, \"depth\": 24, "
    "\"num_classes\": 200}";

typedef struct fixture {
    cab_backend *backend;
    cab_model *teacher, *student;
    cab_term_set terms;
    cab_objective *objective;
} fixture;

static cab_model *model(void **state, fixture *f, const char *config, int size, bool trainable)
{
    cab_model *m = NULL;
    const char *path = temp_path(state, "config.json");
    assert_ok(cab_file_write(path, config, strlen(config)));
    assert_ok(cab_model_synthetic(path, size, f->backend, CAB_PRECISION_FP32, trainable, &m));
    return m;
}

static cab_plan plan_at(void **state, fixture *f, int size, bool recompute)
{
    const cab_bridge_options options_of_bridge = {
        .n_layer = 2, .hidden = 128, .activation = CAB_SILU, .softmax = true, .bidirectional = true};
    const cab_objective_options options = {.batch = 1,
                                           .seq_len = 1,
                                           .terms[CAB_TERM_ALIGN] = true,
                                           .temperature = 1,
                                           .recompute = recompute ? 24 : 0,
                                           .train = true};
    cab_bridge *bridge = NULL;
    int map[24];
    cab_plan plan;
    for (int l = 0; l < 24; l++)
        map[l] = l / 2;
    *f = (fixture){0};
    assert_ok(cab_backend_open("cpu", &f->backend));
    f->backend->threads = 2;
    f->teacher = model(state, f, vit_tiny, size, false);
    f->student = model(state, f, vim_tiny, size, true);
    assert_ok(cab_params_new(f->backend, &f->terms.params));
    assert_ok(cab_bridge_new(f->terms.params, &options_of_bridge, map, 24, same_widths(16, 192, 192), 1, &bridge));
    f->terms.state[CAB_TERM_ALIGN] = bridge;
    assert_ok(cab_objective_new(f->backend, f->student, f->teacher, &f->terms, &options, &f->objective));
    assert_ok(cab_objective_plan(f->objective, &plan));
    return plan;
}

static void close_fixture(fixture *f)
{
    cab_objective_free(f->objective);
    cab_term_set_close(&f->terms);
    cab_model_free(f->teacher);
    cab_model_free(f->student);
    cab_backend_close(f->backend);
}

static void check_tensor(const cab_tensor *t, int64_t most, const char *op)
{
    if (t != NULL && t->kind == CAB_ACTIVATION && cab_elements(t) >= most)
        fail_msg("%s: \"%s\" has %lld elements, L x L are %lld", op, t->name, (long long)cab_elements(t),
                 (long long)most);
}

/* No tensor of the graph, teacher's or student's, is as large as L x L, nor is any scratch but attention's. */
static void expect_no_square(const fixture *f, int64_t L)
{
    const cab_graph *g = cab_objective_graph(f->objective);
    for (int i = 0; i < cab_graph_nodes(g); i++) {
        const cab_node *node = cab_graph_node(g, i);
        if (node->skip)
            continue;
        for (int k = 0; k < node->n_in; k++) {
            check_tensor(node->in[k], L * L, node->op->name);
            check_tensor(node->gin[k], L * L, node->op->name);
        }
        for (int k = 0; k < node->n_out; k++) {
            check_tensor(node->out[k], L * L, node->op->name);
            check_tensor(node->gout[k], L * L, node->op->name);
        }
        if (strcmp(node->op->name, "attention") != 0)
            assert_true(node->scratch_bytes < (size_t)(L * L) * sizeof(float));
    }
}

/* The plan grows as the number of tokens does: by the same bytes for each, within 2 %. */
static void expect_linear(void **state, bool recompute)
{
    static const int sizes[SIZES] = {224, 448, 896};
    double bytes[SIZES], tokens[SIZES];
    for (int i = 0; i < SIZES; i++) {
        fixture f;
        cab_plan plan = plan_at(state, &f, sizes[i], recompute);
        tokens[i] = f.student->config.max_length;
        bytes[i] = (double)plan.arena;
        print_message("%d px: %.0f tokens, %.1f MiB, %.1f KiB a token%s\n", sizes[i], tokens[i], bytes[i] / 0x1p20,
                      bytes[i] / tokens[i] / 0x1p10, recompute ? ", recomputing" : "");
        if (sizes[i] == 896)
            expect_no_square(&f, (int64_t)tokens[i]);
        close_fixture(&f);
    }
    const double first = (bytes[1] - bytes[0]) / (tokens[1] - tokens[0]),
                 second = (bytes[2] - bytes[1]) / (tokens[2] - tokens[1]);
    assert_true(second < 1.02 * first && first < 1.02 * second);
}

static void test_linear_in_tokens(void **state)
{
    expect_linear(state, false);
    expect_linear(state, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEMP_TEST(test_linear_in_tokens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
