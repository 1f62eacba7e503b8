/* test_block_heads.c - losses, scores and words of heads in blocks of few bits, against the same heads expanded first. */
#include "ops/blocks.h"

enum { V = 71, D = 256, WORDS = 3, MANY = 32 };

typedef struct heads_case {
    cab_dtype stored, dtype;
    int rows;
} heads_case;

/* Of a student whose head trains, or is in blocks itself, and a teacher. */
typedef struct heads_result {
    float ce, kl, agreement;
    float label[40], top[40 * WORDS];
    int32_t ids[40 * WORDS];
    float gradient[V * D];
} heads_result;

typedef struct heads {
    cab_backend *backend;
    cab_params *params;
    cab_graph *g;
    cab_tensor *student, *teacher, *hidden, *labels;
    uint8_t *blocks; /* of the teacher */
} heads;

static void open_heads(const heads_case *c, bool expanded, heads *h)
{
    const int64_t shape[2] = {V, D};
    float w[V * D], *x = malloc((size_t)(c->rows * D) * sizeof *x);
    int32_t *labels = malloc((size_t)c->rows * sizeof *labels);
    h->blocks = blocks_make(c->stored, V * D);
    assert_true(x != NULL && labels != NULL);
    check_ok(cab_backend_open(check_device(), &h->backend));
    check_ok(cab_params_new(h->backend, &h->params));
    h->teacher = expanded ? blocks_add_expanded(h->params, "teacher", c->stored, c->dtype, shape, h->blocks)
                          : blocks_add(h->params, "teacher", c->stored, shape, h->blocks);
    check_ok(cab_params_add(h->params, "student", CAB_F32, 2, shape, CAB_DECAY, &h->student));
    for (int i = 0; i < V * D; i++)
        w[i] = (float)((i * 29 + i / 7) % 33 - 16) / 64.0f;
    check_ok(cab_params_write(h->params, h->student, w));
    check_ok(cab_params_set_trainable(h->params, "student", true, NULL));
    check_ok(cab_graph_new(h->backend, &h->g));
    h->hidden = cab_graph_input(h->g, "hidden", c->dtype, 3, (int64_t[]){1, c->rows, D});
    h->labels = cab_graph_input(h->g, "labels", CAB_I32, 2, (int64_t[]){1, c->rows});
    blocks_fill(x, c->rows * D);
    for (int i = 0; i < c->rows * D; i++)
        x[i] /= 64; /* logits of a few units */
    for (int i = 0; i < c->rows; i++)
        labels[i] = (int32_t)(i * 5 % V);
    blocks_write(h->g, h->hidden, x);
    check_ok(cab_tensor_write(h->g, h->labels, labels));
    free(labels);
    free(x);
}

static void close_heads(heads *h)
{
    cab_graph_free(h->g);
    cab_params_free(h->params);
    cab_backend_close(h->backend);
    free(h->blocks);
}

/* Twice: a GPU runs its list, then records it. */
static void run_twice(heads *h)
{
    for (int run = 0; run < 2; run++) {
        check_ok(cab_params_zero_grad(h->params));
        check_ok(cab_graph_run(h->g));
    }
}

/* Distillation: KL against the teacher's head, and the gradient of the student's. */
static void distil(const heads_case *c, bool expanded, heads_result *r)
{
    heads h;
    open_heads(c, expanded, &h);
    const cab_head_losses losses =
        cab_head_loss(h.g, &(cab_head_side){.hidden = h.hidden, .w = h.student},
                      &(cab_head_side){.hidden = h.hidden, .w = h.teacher}, h.labels, NULL, 2);
    cab_tensor *weight = cab_graph_scalar(h.g, "weight", 1);
    cab_graph_keep(h.g, losses.ce);
    cab_graph_keep(h.g, losses.kl);
    cab_graph_keep(h.g, losses.agreement);
    cab_graph_backward(h.g, 2, (cab_tensor *[]){losses.ce, losses.kl}, (cab_tensor *[]){weight, weight});
    check_ok(cab_graph_plan(h.g, NULL));
    run_twice(&h);
    check_ok(cab_scalar_read(h.g, losses.ce, &r->ce));
    check_ok(cab_scalar_read(h.g, losses.kl, &r->kl));
    check_ok(cab_scalar_read(h.g, losses.agreement, &r->agreement));
    check_ok(cab_params_read_grad(h.params, h.student, r->gradient));
    close_heads(&h);
}

/* Evaluation: the head in blocks is the one that is looked at. */
static void evaluate(const heads_case *c, bool expanded, heads_result *r)
{
    heads h;
    open_heads(c, expanded, &h);
    const cab_head_side side = {.hidden = h.hidden, .w = h.teacher};
    const cab_head_losses losses = cab_head_loss(h.g, &side, NULL, h.labels, NULL, 1);
    const cab_head_scores scores = cab_head_score(h.g, &side, h.labels, WORDS);
    cab_graph_keep(h.g, losses.ce);
    cab_graph_keep(h.g, scores.label);
    cab_graph_keep(h.g, scores.ids);
    cab_graph_keep(h.g, scores.top);
    check_ok(cab_graph_plan(h.g, NULL));
    run_twice(&h);
    check_ok(cab_scalar_read(h.g, losses.ce, &r->ce));
    check_ok(cab_tensor_read(h.g, scores.label, r->label));
    check_ok(cab_tensor_read(h.g, scores.ids, r->ids));
    check_ok(cab_tensor_read(h.g, scores.top, r->top));
    close_heads(&h);
}

static void expect_near(const char *what, const heads_case *c, const float *a, const float *b, int n)
{
    double difference = 0, size = 0;
    for (int i = 0; i < n; i++) {
        difference += (double)(a[i] - b[i]) * (double)(a[i] - b[i]);
        size += (double)b[i] * (double)b[i];
    }
    /* The processor multiplies a few rows in 16 bits; a GPU multiplies them straight from their blocks. */
    const double tolerance = c->rows > MANY ? 1e-6 : c->dtype == CAB_F32 ? 1e-3 : 2e-2;
    if (!(size > 0 && sqrt(difference) <= tolerance * sqrt(size)))
        fail_msg("%s of %s, %s, %d rows: %g away, at most %g", what, cab_dtype_name(c->stored),
                 cab_dtype_name(c->dtype), c->rows, sqrt(difference / size), tolerance);
}

static void expect_same(const heads_case *c)
{
    heads_result *r = calloc(2, sizeof *r);
    assert_non_null(r);
    for (int i = 0; i < 2; i++)
        distil(c, i > 0, &r[i]);
    expect_near("ce", c, &r[0].ce, &r[1].ce, 1);
    expect_near("kl", c, &r[0].kl, &r[1].kl, 1);
    expect_near("gradient", c, r[0].gradient, r[1].gradient, V * D);
    for (int i = 0; i < 2; i++)
        evaluate(c, i > 0, &r[i]);
    expect_near("ce", c, &r[0].ce, &r[1].ce, 1);
    expect_near("labels' scores", c, r[0].label, r[1].label, c->rows);
    expect_near("words' scores", c, r[0].top, r[1].top, c->rows * WORDS);
    if (c->rows > MANY)
        assert_memory_equal(r[0].ids, r[1].ids, (size_t)(c->rows * WORDS) * sizeof(int32_t));
    free(r);
}

static void loses_what_the_expanded_head_loses(void **state)
{
    (void)state;
    for (int t = 0; t < BLOCKS_TYPES; t++)
        for (int low = 0; low < 2; low++) {
            if (check_slow() && (t + low) % 2)
                continue;
            expect_same(&(heads_case){blocks_types[t], low ? CAB_BF16 : CAB_F32, 35});
            expect_same(&(heads_case){blocks_types[t], low ? CAB_BF16 : CAB_F32, 3});
        }
}

/* A student's head in blocks: nothing flows back through it, and that is said. */
static void does_not_train(void **state)
{
    (void)state;
    heads h;
    cab_tensor *first = NULL;
    open_heads(&(heads_case){CAB_Q5_1, CAB_F32, 11}, false, &h);
    check_ok(cab_params_add(h.params, "first", CAB_F32, 2, (int64_t[]){D, D}, CAB_DECAY, &first));
    check_ok(cab_params_set_trainable(h.params, "first", true, NULL));
    cab_tensor *hidden = cab_linear(h.g, h.hidden, first, NULL, CAB_OUT_IN);
    const cab_head_losses losses =
        cab_head_loss(h.g, &(cab_head_side){.hidden = hidden, .w = h.teacher}, NULL, h.labels, NULL, 1);
    cab_tensor *weight = cab_graph_scalar(h.g, "weight", 1);
    cab_graph_backward(h.g, 1, (cab_tensor *[]){losses.ce}, &weight);
    check_ok(cab_graph_plan(h.g, NULL));
    assert_int_equal(cab_graph_run(h.g), CAB_EUNSUPPORTED);
    assert_non_null(
        strstr(cab_error_text(), "a matrix in Q5_1 is multiplied from the right by a linear layer, forward"));
    close_heads(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(loses_what_the_expanded_head_loses),
                                       cmocka_unit_test(does_not_train)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
