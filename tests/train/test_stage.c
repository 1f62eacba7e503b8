/* The pieces of a run, driven by hand: frozen parameters, averages, snapshots, evaluations, the plan. */
#include "base/log.h"
#include "runs.h"
#include "train/domain_text.h"
#include "train/run.h"
#include "train/saver.h"
#include "train/snapshot.h"

#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens a run as cab_distill() does, and enters its first stage. The recipe is freed by close_run(). */
static cab_recipe *open_run(void **state, const char *method, const char *out, const char *const *settings,
                            cab_run *run)
{
    char path[CAB_PATH_MAX];
    cab_recipe *recipe = runs_recipe(state, method, out, settings);
    *run = (cab_run){0};
    assert_ok(cab_directory_make(recipe->out));
    assert_ok(cab_path_join(path, recipe->out, CAB_RUN_RECIPE));
    assert_ok(cab_recipe_save(recipe, path));
    assert_ok(cab_run_open(recipe, run));
    assert_ok(cab_run_enter_stage(run, 0));
    return recipe;
}

static void close_run(cab_recipe *recipe, cab_run *run)
{
    cab_run_close(run);
    cab_recipe_free(recipe);
}

static void advance(cab_run *run, int steps)
{
    for (int i = 0; i < steps; i++) {
        cab_term_values values;
        cab_term_weights weights;
        double lr = 0, norm = 0;
        assert_ok(cab_run_advance(run, &values, &weights, &lr, &norm));
        assert_true(lr > 0 && norm > 0 && isfinite(norm));
    }
}

/* All of a store, or of an array beside it, one after another; the caller frees. */
static float *copy_values(const cab_run *run, const cab_params *params, float *const *beside, size_t *n)
{
    *n = (size_t)cab_params_elements(params);
    float *all = calloc(*n, sizeof *all), *at = all;
    assert_non_null(all);
    for (size_t i = 0; i < cab_params_count(params); i++) {
        const cab_tensor *t = cab_params_at(params, i);
        const void *from = beside != NULL ? beside[i] : t->data;
        assert_ok(run->backend->download(run->backend, at, from, (size_t)cab_elements(t) * sizeof *at));
        at += cab_elements(t);
    }
    return all;
}

static void test_frozen_parameters_stay(void **state)
{
    static const char *const settings[] = {"stages[0].freeze=backbone.layers.*.mlp.*,lm_head.*", NULL};
    cab_run run;
    cab_recipe *recipe = open_run(state, "soft", "run", settings, &run);
    size_t n, at = 0;
    float *before = copy_values(&run, run.student->params, NULL, &n);
    advance(&run, 2);
    float *after = copy_values(&run, run.student->params, NULL, &n);
    for (size_t i = 0; i < cab_params_count(run.student->params); i++) {
        const cab_tensor *t = cab_params_at(run.student->params, i);
        size_t count = (size_t)cab_elements(t);
        bool frozen = strstr(t->name, ".mlp.") != NULL || strncmp(t->name, "lm_head.", 8) == 0;
        bool same = memcmp(before + at, after + at, count * sizeof *before) == 0;
        if (same != frozen)
            fail_msg("%s %s", t->name, frozen ? "moved although it is frozen" : "did not move");
        at += count;
    }
    for (size_t i = 0; i < cab_optimizer_count(run.optimizer); i++)
        assert_null(strstr(cab_optimizer_at(run.optimizer, i)->parameter->name, ".mlp."));
    free(before);
    free(after);
    close_run(recipe, &run);
}

/* What a stage's losses do not reach keeps its values: weight decay does not touch it either. */
static void test_unreached_parameters_stay(void **state)
{
    cab_run run;
    cab_recipe *recipe = open_run(state, "cab-published", "run", NULL, &run);
    size_t n;
    float *before = copy_values(&run, run.student->params, NULL, &n),
          *bridge = copy_values(&run, run.terms.params, NULL, &n);
    advance(&run, 1);
    float *after = copy_values(&run, run.student->params, NULL, &n);
    size_t at = 0, still = 0;
    for (size_t i = 0; i < cab_params_count(run.student->params); i++) {
        const cab_tensor *t = cab_params_at(run.student->params, i);
        size_t count = (size_t)cab_elements(t);
        bool same = memcmp(before + at, after + at, count * sizeof *before) == 0;
        bool reached = cab_graph_trains(cab_objective_graph(run.objective), t);
        assert_int_equal(same, !reached);
        still += same;
        at += count;
    }
    assert_int_equal(still, 11); /* head 2, final norm 2; of the last layer D, z_bias, out_proj and the MLP's 4 */
    float *trained = copy_values(&run, run.terms.params, NULL, &n);
    assert_true(memcmp(trained, bridge, n * sizeof *bridge) != 0);
    assert_non_null(cab_params_find(run.terms.params, "bridge.B.0.0.weight"));
    free(before);
    free(after);
    free(bridge);
    free(trained);
    close_run(recipe, &run);
}

static void expect_same_found(const cab_run_found *a, const cab_run_found *b)
{
    assert_true(a->step == b->step && a->lr == b->lr && a->norm == b->norm);
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        assert_true(a->values.counted[t] == b->values.counted[t] &&
                    (!a->values.counted[t] || a->values.of[t] == b->values.of[t]));
    assert_true(a->values.labels == b->values.labels && a->values.valid == b->values.valid && a->values.labels > 0);
}

/* Steps that are asked for before the ones ahead of them are read give the same bits, with few micro-batches and with more than wait at a
 * time. */
static void test_steps_on_their_way(void **state)
{
    static const char *const cuts[] = {"train.micro_batch=2", "train.micro_batch=1"};
    for (int cut = 0; cut < 2; cut++) {
        const char *const settings[] = {cuts[cut], "train.batch=10", "train.tokens=1600", NULL};
        cab_run a, b;
        cab_recipe *one = open_run(state, "cab", "one", settings, &a),
                   *other = open_run(state, "cab", "other", settings, &b);
        cab_run_found x, y;
        for (int i = 0; i < 6; i++) {
            assert_ok(cab_run_begin_step(&b));
            assert_int_equal(b.flying, i == 0 ? 1 : 2);
            if (i == 0)
                continue;
            assert_ok(cab_run_begin_step(&a));
            assert_ok(cab_run_end_step(&a, &x));
            assert_ok(cab_run_end_step(&b, &y));
            assert_true(x.step == (uint64_t)i && b.step == (uint64_t)i + 1);
            expect_same_found(&x, &y);
        }
        assert_ok(cab_run_begin_step(&a));
        assert_ok(cab_run_end_step(&a, &x));
        assert_ok(cab_run_end_step(&b, &y));
        expect_same_found(&x, &y);
        assert_true(b.flying == 0 && b.landed == 0);
        size_t n;
        float *p = copy_values(&a, a.student->params, NULL, &n), *q = copy_values(&b, b.student->params, NULL, &n);
        assert_memory_equal(p, q, n * sizeof *p);
        free(p);
        free(q);
        close_run(one, &a);
        close_run(other, &b);
    }
}

/* A step that fails is named although another one is on its way behind it, and what remains is that the last good one was done. */
static void test_a_step_that_fails_on_its_way(void **state)
{
    cab_run run;
    cab_run_found found;
    cab_recipe *recipe = open_run(state, "soft", "run", NULL, &run);
    advance(&run, 2);
    cab_tensor *p = cab_params_find(run.student->params, "lm_head.weight");
    const float large = 3e38f;
    assert_non_null(p);
    assert_ok(cab_run_begin_step(&run));
    for (int i = 0; i < 32; i++)
        assert_ok(run.backend->upload(run.backend, (float *)p->data + i, &large, sizeof large));
    assert_ok(cab_params_refresh(run.student->params));
    assert_ok(cab_run_begin_step(&run));
    assert_ok(cab_run_end_step(&run, &found));
    assert_int_equal(found.step, 3);
    assert_ok(cab_run_begin_step(&run));
    assert_int_equal(run.step, 5);
    assert_fails(cab_run_end_step(&run, &found), CAB_ENUMERIC, "step 4 (stage \"distil\"): the loss term ce is ");
    assert_int_equal(run.step, 3);
    close_run(recipe, &run);
}

static void test_stages_follow_one_another(void **state)
{
    cab_run run;
    cab_recipe *recipe = open_run(state, "cab-published", "run",
                                  (const char *const[]){"train.tokens=1280", "stages[0].share=0.15", NULL}, &run);
    uint64_t first = 99;
    assert_int_equal(run.total_steps, 20);
    assert_int_equal(run.stage_steps[0], 3); /* 15 % */
    assert_int_equal(cab_run_stage(&run, 0, &first), 0);
    assert_int_equal(cab_run_stage(&run, 2, &first), 0);
    assert_int_equal(first, 0);
    assert_int_equal(cab_run_stage(&run, 3, &first), 1);
    assert_int_equal(first, 3);
    assert_int_equal(cab_run_stage(&run, 19, &first), 1);
    close_run(recipe, &run);
}

static void test_averages(void **state)
{
    static const char *const settings[] = {"train.ema=0.75", NULL};
    cab_run run;
    cab_recipe *recipe = open_run(state, "soft", "run", settings, &run);
    size_t n;
    float *expected = copy_values(&run, run.student->params, NULL, &n);
    for (int step = 0; step < 4; step++) {
        advance(&run, 1);
        float *p = copy_values(&run, run.student->params, NULL, &n),
              *average = copy_values(&run, run.student->params, run.averages, &n);
        double difference = 0, norm = 0;
        for (size_t i = 0; i < n; i++) {
            expected[i] = 0.75f * expected[i] + 0.25f * p[i];
            difference += pow((double)expected[i] - (double)average[i], 2);
            norm += pow((double)expected[i], 2);
        }
        assert_true(sqrt(difference / norm) < 1e-6);
        free(p);
        free(average);
    }
    cab_run_evaluation raw, averaged;
    float *before = copy_values(&run, run.student->params, NULL, &n);
    assert_ok(cab_run_evaluate(&run, 0, &averaged)); /* with the averages, which then step back */
    float *after = copy_values(&run, run.student->params, NULL, &n);
    assert_memory_equal(before, after, n * sizeof *before);
    run.domain->evaluator_free(run.evaluator); /* which may have been captured, with the addresses of the averages */
    run.evaluator = NULL;
    assert_ok(cab_run_swap_averages(&run));
    assert_ok(cab_run_evaluate(&run, 0, &raw));
    assert_ok(cab_run_swap_averages(&run));
    assert_true(raw.loss != averaged.loss && isfinite(raw.loss) && raw.tokens == averaged.tokens);
    free(before);
    free(after);
    free(expected);
    close_run(recipe, &run);
}

static void test_snapshots(void **state)
{
    static const char *const settings[] = {"train.ema=0.9", "precision=bf16", NULL};
    cab_run a, b;
    bool found = true;
    cab_recipe *recipe = open_run(state, "cab", "run", settings, &a);
    assert_ok(cab_snapshot_load(&a, &found));
    assert_false(found);
    advance(&a, 3);
    a.seconds = 12.5;
    assert_ok(cab_snapshot_save(&a));
    cab_recipe *again = open_run(state, "cab", "run", settings, &b);
    assert_ok(cab_snapshot_load(&b, &found));
    assert_true(found && b.step == 3 && b.seconds == 12.5);
    assert_ok(cab_run_enter_stage(&b, 0));
    assert_ok(cab_snapshot_moments(&b));
    advance(&a, 3);
    advance(&b, 3);
    const cab_params *stores[2][2] = {{a.student->params, a.terms.params}, {b.student->params, b.terms.params}};
    for (int k = 0; k < 3; k++) {
        size_t n;
        float *x = copy_values(&a, stores[0][k / 2], k == 1 ? a.averages : NULL, &n);
        float *y = copy_values(&b, stores[1][k / 2], k == 1 ? b.averages : NULL, &n);
        assert_memory_equal(x, y, n * sizeof *x);
        free(x);
        free(y);
    }
    assert_ok(cab_snapshot_remove(&a));
    assert_ok(cab_snapshot_remove(&a)); /* nothing to remove is no failure */
    assert_ok(cab_snapshot_load(&b, &found));
    assert_false(found);
    close_run(recipe, &a);
    close_run(again, &b);
}

/* All that comes out of a FIFO is what the file holds. */
static void expect_stream(const char *fifo, const char *file)
{
    char *expected = NULL, *got = NULL;
    size_t size = 0, n = 0, more;
    assert_ok(cab_file_read(file, 1 << 28, &expected, &size));
    FILE *stream = fopen(fifo, "rb");
    assert_non_null(stream);
    got = calloc(size + 1, 1);
    assert_non_null(got);
    while (n <= size && (more = fread(got + n, 1, size + 1 - n, stream)) > 0)
        n += more;
    fclose(stream);
    assert_int_equal(n, size);
    assert_memory_equal(got, expected, size);
    free(got);
    cab_free(expected);
}

/* What a thread writes is the state as it was when it began, whatever the run has done since; the run knows which step stands. */
static void test_snapshot_beside_training(void **state)
{
    static const char *const settings[] = {"train.ema=0.9", NULL};
    cab_run run;
    char path[CAB_PATH_MAX], kept[CAB_PATH_MAX];
    cab_recipe *recipe = open_run(state, "cab", "run", settings, &run);
    assert_ok(cab_path_join(path, recipe->out, CAB_RUN_CHECKPOINT));
    assert_ok(cab_path_join(kept, recipe->out, "kept"));
    advance(&run, 2);
    assert_ok(cab_snapshot_save(&run));
    assert_int_equal(run.saved_step, 2);
    assert_int_equal(rename(path, kept), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* the thread waits for a reader */
    assert_ok(cab_snapshot_begin(&run));
    advance(&run, 2);
    assert_false(cab_saver_is_done(run.saver));
    expect_stream(path, kept);
    assert_ok(cab_snapshot_wait(&run));
    assert_int_equal(run.saved_step, 2);
    assert_int_equal(unlink(path), 0);
    assert_ok(cab_snapshot_begin(&run)); /* which the next one waits for */
    advance(&run, 1);
    assert_ok(cab_snapshot_begin(&run));
    assert_true(run.saved_step >= 4);
    assert_ok(cab_snapshot_remove(&run)); /* waits as well: nothing comes back */
    assert_int_equal(run.saved_step, 5);
    assert_false(cab_path_exists(path));
    close_run(recipe, &run);
}

/* A checkpoint that cannot be written is told by the next call, once; the last good one stays the last good one. */
static void test_snapshot_that_fails(void **state)
{
    cab_run run;
    char path[CAB_PATH_MAX];
    cab_recipe *recipe = open_run(state, "soft", "run", NULL, &run);
    assert_ok(cab_path_join(path, recipe->out, CAB_RUN_CHECKPOINT));
    advance(&run, 1);
    assert_ok(cab_snapshot_save(&run));
    assert_int_equal(unlink(path), 0);
    assert_ok(cab_directory_make(path)); /* in the file's way */
    advance(&run, 1);
    assert_ok(cab_snapshot_begin(&run));
    cab_status status = CAB_OK;
    while (run.saver != NULL)
        status = cab_snapshot_check(&run);
    assert_int_equal(status, CAB_EIO);
    assert_non_null(strstr(cab_error_text(), path));
    assert_int_equal(run.saved_step, 1);
    assert_ok(cab_snapshot_wait(&run));
    assert_ok(cab_snapshot_begin(&run)); /* left to the end of the run, which keeps what ended it */
    cab_error_set_text("what ended it");
    close_run(recipe, &run);
    assert_string_equal(cab_error_text(), "what ended it");
}

static void test_snapshot_of_another_recipe(void **state)
{
    cab_run run;
    bool found = false;
    char path[CAB_PATH_MAX];
    cab_recipe *recipe = open_run(state, "soft", "run", NULL, &run);
    advance(&run, 1);
    assert_ok(cab_snapshot_save(&run));
    assert_ok(cab_path_join(path, recipe->out, CAB_RUN_RECIPE));
    assert_ok(cab_recipe_set(recipe, "seed", "8"));
    assert_ok(cab_recipe_save(recipe, path));
    assert_fails(cab_snapshot_load(&run, &found), CAB_EARG, "seed was \"1\" there and is \"8\" now");
    close_run(recipe, &run);
}

/* The mean over all windows, however they are batched and padded. */
static void test_evaluation_does_not_depend_on_batches(void **state)
{
    static const char *const sizes[] = {"train.micro_batch=1", "train.micro_batch=4"};
    cab_run_evaluation e[2], some;
    for (int i = 0; i < 2; i++) {
        cab_run run;
        cab_recipe *recipe = open_run(state, "soft", "run", (const char *const[]){sizes[i], NULL}, &run);
        assert_ok(cab_run_evaluate(&run, 0, &e[i]));
        const cab_text_data *data = run.data;
        assert_int_equal(e[i].tokens, cab_dataset_tokens(data->eval) - 1);
        assert_true(cab_dataset_eval_windows(data->eval, 16) % 4 != 0 || e[i].tokens % 16 != 0);
        assert_ok(cab_run_evaluate(&run, 40, &some));
        assert_int_equal(some.tokens, 48); /* whole windows */
        close_run(recipe, &run);
    }
    assert_true(fabs(e[0].loss - e[1].loss) < 1e-5 * e[0].loss);
    assert_true(fabs(e[0].kl - e[1].kl) < 1e-5 * e[0].kl);
    assert_true(e[0].agreement == e[1].agreement);
}

static void test_recompute_needs_less(void **state)
{
    static const char *const settings[] = {"train.recompute=false", "train.recompute=true"};
    size_t arena[2];
    for (int i = 0; i < 2; i++) {
        cab_run run;
        cab_plan plan;
        cab_recipe *recipe =
            open_run(state, "cab", "run", (const char *const[]){settings[i], "student.n_layer=6", NULL}, &run);
        cab_objective *o = NULL;
        const cab_objective_options options = {.batch = 4,
                                               .seq_len = 16,
                                               .terms[CAB_TERM_CE] = true,
                                               .terms[CAB_TERM_KL] = true,
                                               .terms[CAB_TERM_ALIGN] = true,
                                               .temperature = 1,
                                               .recompute = i == 1,
                                               .train = true};
        assert_ok(cab_objective_new(run.backend, run.student, run.teacher, &run.terms, &options, &o));
        assert_ok(cab_objective_plan(o, &plan));
        arena[i] = plan.arena;
        assert_true(plan.arena < plan.arena_unshared && plan.flops > 0);
        cab_objective_free(o);
        close_run(recipe, &run);
    }
    print_message("six layers: %zu bytes, with recompute %zu\n", arena[0], arena[1]);
    assert_true(arena[1] < arena[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(test_frozen_parameters_stay),
        TEMP_TEST(test_unreached_parameters_stay),
        TEMP_TEST(test_steps_on_their_way),
        TEMP_TEST(test_a_step_that_fails_on_its_way),
        TEMP_TEST(test_stages_follow_one_another),
        TEMP_TEST(test_averages),
        TEMP_TEST(test_snapshots),
        TEMP_TEST(test_snapshot_beside_training),
        TEMP_TEST(test_snapshot_that_fails),
        TEMP_TEST(test_snapshot_of_another_recipe),
        TEMP_TEST(test_evaluation_does_not_depend_on_batches),
        TEMP_TEST(test_recompute_needs_less),
    };
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
