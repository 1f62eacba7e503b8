/* Learning rates and weights of loss terms, step by step. */
#include "runs.h"
#include "train/schedule.h"

#include <math.h>

static void expect(double got, double expected, const char *what, int step)
{
    if (!(fabs(got - expected) <= 1e-12 * fabs(expected)))
        fail_msg("%s at step %d: found %.15g, expected %.15g", what, step, got, expected);
}

static cab_recipe *recipe_with(const char *const *settings)
{
    cab_recipe *recipe = NULL;
    assert_ok(cab_recipe_preset("vanilla", &recipe));
    runs_set(recipe, (const char *const[]){"train.lr=2", "train.min_lr=0.1", "train.warmup=0.2", NULL});
    runs_set(recipe, settings);
    return recipe;
}

/* Ten steps, of which two warm up; progress runs over the other eight. */
static void test_shapes(void **state)
{
    (void)state;
    static const char *const names[] = {"train.schedule=cosine", "train.schedule=linear", "train.schedule=wsd",
                                        "train.schedule=constant"};
    for (int kind = 0; kind < 4; kind++) {
        cab_recipe *r = recipe_with((const char *const[]){names[kind], NULL});
        for (int step = 0; step < 10; step++) {
            double p = (step - 2) / 7.0, shape = 1;
            if (kind == CAB_SCHEDULE_COSINE)
                shape = 0.5 * (1 + cos(acos(-1) * p));
            else if (kind == CAB_SCHEDULE_LINEAR)
                shape = 1 - p;
            else if (kind == CAB_SCHEDULE_WSD)
                shape = p < 0.8 ? 1 : (1 - p) / 0.2;
            double expected = step < 2 ? 2 * (step + 1) / 3.0 : 2 * (0.1 + 0.9 * shape);
            expect(cab_schedule_lr(r, &r->stages[0], 32, (uint64_t)step, 10),
                   kind == CAB_SCHEDULE_CONSTANT && step >= 2 ? 2 : expected, names[kind], step);
        }
        cab_recipe_free(r);
    }
}

static void test_ends(void **state)
{
    (void)state;
    cab_recipe *r = recipe_with((const char *const[]){"train.warmup=0", NULL});
    expect(cab_schedule_lr(r, &r->stages[0], 32, 0, 1000), 2, "no warm-up", 0);
    expect(cab_schedule_lr(r, &r->stages[0], 32, 999, 1000), 0.2, "the floor", 999);
    assert_ok(cab_recipe_set(r, "stages[0].lr", "5"));
    expect(cab_schedule_lr(r, &r->stages[0], 32, 0, 1000), 5, "a stage's own", 0);
    assert_ok(cab_recipe_set(r, "train.warmup", "1"));
    for (int step = 0; step < 4; step++)
        expect(cab_schedule_lr(r, &r->stages[0], 32, (uint64_t)step, 4), 5 * (step + 1) / 5.0, "all warm-up", step);
    for (uint64_t steps = 1; steps < 4; steps++)
        for (uint64_t step = 0; step < steps; step++) {
            double lr = cab_schedule_lr(r, &r->stages[0], 32, step, steps);
            assert_true(lr > 0 && lr <= 5);
        }
    cab_recipe_free(r);
}

/* Without one of its own, the method's rate falls with the width. */
static void test_rate_of_the_method(void **state)
{
    (void)state;
    cab_recipe *r = recipe_with((const char *const[]){"train.lr=0", "train.warmup=0", NULL});
    double narrow = cab_schedule_lr(r, &r->stages[0], 128, 0, 10),
           wide = cab_schedule_lr(r, &r->stages[0], 1024, 0, 10);
    assert_true(narrow > 0);
    expect(wide, narrow / 8, "eight times as wide", 0);
    cab_recipe_free(r);
}

static void test_weights(void **state)
{
    (void)state;
    cab_stage stage = {.ce = 1, .ce_end = -1, .kl = 0, .kl_end = 2, .align = 3, .align_end = 0};
    for (int step = 0; step <= 4; step++) {
        stage.weights_shape = CAB_WEIGHTS_LINEAR;
        cab_term_weights w = cab_schedule_weights(&stage, (uint64_t)step, 5);
        expect(w.of[CAB_TERM_CE], 1, "constant", step);
        expect(w.of[CAB_TERM_KL], step / 2.0, "rising", step);
        expect(w.of[CAB_TERM_ALIGN], 3 - 0.75 * step, "falling", step);
        stage.weights_shape = CAB_WEIGHTS_COSINE;
        w = cab_schedule_weights(&stage, (uint64_t)step, 5);
        expect(w.of[CAB_TERM_ALIGN], 3 - 1.5 * (1 - cos(acos(-1) * step / 4)), "along a cosine", step);
    }
    cab_term_weights w = cab_schedule_weights(&stage, 0, 1);
    expect(w.of[CAB_TERM_ALIGN], 3, "a single step", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_rate_of_the_method),
        cmocka_unit_test(test_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
