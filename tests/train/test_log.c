/* test_log.c - the run log: its lines, what a resumed run keeps of them, the result. */
#include "base/json.h"
#include "base/memory.h"
#include "temp.h"
#include "train/log.h"

#include <math.h>

enum { LAST = 12 }; /* the runs' last step */

static char *content(void **state, const char *name)
{
    char *text = NULL;
    size_t size;
    assert_ok(cab_file_read(temp_path(state, name), 1 << 20, &text, &size));
    return text;
}

/* The terms that there were when this was written; those that came later are absent. */
static void set_terms(cab_run_step *step, double ce, double kl, double align)
{
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        step->terms[t] = NAN;
    step->terms[CAB_TERM_CE] = ce;
    step->terms[CAB_TERM_KL] = kl;
    step->terms[CAB_TERM_ALIGN] = align;
}

static void log_steps(void **state, uint64_t resume, uint64_t first, uint64_t last)
{
    cab_run_log log;
    assert_ok(cab_run_log_open(&log, *state, resume, resume == LAST));
    for (uint64_t i = first; i <= last; i++) {
        cab_run_step step = {.step = i,
                             .tokens = i * 64,
                             .stage = "a \"b\"\n",
                             .loss = 1.5,
                             .lr = 1e-3,
                             .grad_norm = 2,
                             .tokens_per_s = 100,
                             .seconds = (double)i,
                             .unit = "tokens"};
        set_terms(&step, 1.25, NAN, INFINITY);
        const cab_run_eval eval = {.step = i,
                                   .tokens = i * 64,
                                   .loss = 2,
                                   .perplexity = exp(2),
                                   .kl = 0.1,
                                   .agreement = 0.5,
                                   .top1 = NAN,
                                   .top5 = NAN,
                                   .seconds = (double)i,
                                   .unit = "tokens"};
        assert_ok(cab_run_log_step(&log, &step));
        if (i % 2 == 0)
            assert_ok(cab_run_log_eval(&log, &eval));
    }
    cab_run_log_close(&log);
}

static void lines_are_objects_without_what_was_not_measured(void **state)
{
    log_steps(state, 0, 1, 2);
    char *text = content(state, CAB_RUN_LOG);
    assert_string_equal(text,
                        "{\"step\":1,\"tokens\":64,\"stage\":\"a \\\"b\\\"\\n\",\"loss\":1.5,\"ce\":1.25,\"lr\":0.001,"
                        "\"grad_norm\":2,\"tokens_per_s\":100,\"seconds\":1}\n"
                        "{\"step\":2,\"tokens\":128,\"stage\":\"a \\\"b\\\"\\n\",\"loss\":1.5,\"ce\":1.25,\"lr\":0.001,"
                        "\"grad_norm\":2,\"tokens_per_s\":100,\"seconds\":2}\n"
                        "{\"eval\":true,\"step\":2,\"tokens\":128,\"loss\":2,\"perplexity\":7.3890561,\"kl\":0.1,"
                        "\"agreement\":0.5,\"seconds\":2}\n");
    cab_free(text);
}

/* What a domain counts stands under its own name beside "tokens", and per second under that alone. */
static void other_units_have_their_names(void **state)
{
    cab_run_log log;
    cab_run_step step = {.step = 1,
                         .tokens = 64,
                         .stage = "s",
                         .loss = 1,
                         .lr = 0.5,
                         .grad_norm = 2,
                         .tokens_per_s = 50,
                         .seconds = 3,
                         .unit = "images"};
    set_terms(&step, NAN, 1, NAN);
    const cab_run_eval eval = {.step = 1,
                               .tokens = 64,
                               .loss = 2,
                               .perplexity = NAN,
                               .kl = 1,
                               .agreement = 0.5,
                               .top1 = 0.25,
                               .top5 = 0.75,
                               .seconds = 3,
                               .unit = "images"};
    assert_ok(cab_run_log_open(&log, *state, 0, false));
    assert_ok(cab_run_log_step(&log, &step));
    assert_ok(cab_run_log_eval(&log, &eval));
    cab_run_log_close(&log);
    char *text = content(state, CAB_RUN_LOG);
    assert_string_equal(text,
                        "{\"step\":1,\"tokens\":64,\"stage\":\"s\",\"loss\":1,\"kl\":1,\"lr\":0.5,\"grad_norm\":2,"
                        "\"images\":64,\"images_per_s\":50,\"seconds\":3}\n"
                        "{\"eval\":true,\"step\":1,\"tokens\":64,\"loss\":2,\"kl\":1,\"agreement\":0.5,\"top1\":0.25,"
                        "\"top5\":0.75,\"images\":64,\"seconds\":3}\n");
    cab_free(text);
}

/* A run killed after step 9, with a checkpoint of step 4, logs in the end what an unbroken one does. */
static void a_resumed_log_is_that_of_an_unbroken_run(void **state)
{
    log_steps(state, 0, 1, 12);
    char *unbroken = content(state, CAB_RUN_LOG);
    log_steps(state, 0, 1, 9);
    FILE *file = fopen(temp_path(state, CAB_RUN_LOG), "a");
    assert_non_null(file);
    fputs("{\"step\":3,\"tok", file);
    fclose(file);
    log_steps(state, 4, 5, 12);
    char *resumed = content(state, CAB_RUN_LOG);
    assert_string_equal(resumed, unbroken);
    cab_free(unbroken);
    cab_free(resumed);
    log_steps(state, 0, 1, 1);
    char *anew = content(state, CAB_RUN_LOG);
    assert_int_equal(strcspn(anew, "\n") + 1, strlen(anew)); /* one line */
    cab_free(anew);
}

/* A run killed behind its last evaluation, before its result: the evaluation will be made, and logged, once more. */
static void the_last_evaluation_is_dropped(void **state)
{
    log_steps(state, 0, 1, LAST);
    char *unbroken = content(state, CAB_RUN_LOG);
    log_steps(state, LAST, LAST + 1, LAST);
    char *resumed = content(state, CAB_RUN_LOG);
    const size_t kept = strlen(resumed);
    assert_memory_equal(resumed, unbroken, kept);
    static const char dropped[] = "{\"eval\":true,\"step\":12,";
    assert_int_equal(strncmp(unbroken + kept, dropped, sizeof dropped - 1), 0);
    cab_free(unbroken);
    cab_free(resumed);
}

static void damaged_lines_do_not_survive_a_resumption(void **state)
{
    static const char damaged[] =
        "{\"step\":1}\nnonsense\n{\"step\":\"2\"}\n{\"tokens\":3}\n\n{\"step\":-4}\n{\"step\":5}\n";
    assert_ok(cab_file_write(temp_path(state, CAB_RUN_LOG), damaged, sizeof damaged - 1));
    log_steps(state, 4, 1, 0);
    char *text = content(state, CAB_RUN_LOG);
    assert_string_equal(text, "{\"step\":1}\n");
    cab_free(text);
    assert_int_equal(temp_count_files(*state), 1);
}

static void a_log_needs_its_directory(void **state)
{
    cab_run_log log;
    assert_fails(cab_run_log_open(&log, temp_path(state, "nowhere"), 0, false), CAB_EIO, "nowhere/log.jsonl");
    cab_run_log_close(&log);
}

static void the_result_reads_back(void **state)
{
    cab_json json;
    double number;
    int64_t whole;
    const char *text;
    const cab_run_summary summary = {.result = {.loss = 2.5,
                                                .perplexity = 12.25,
                                                .kl = NAN,
                                                .agreement = 0.5,
                                                .top1 = NAN,
                                                .top5 = NAN,
                                                .tokens_per_second = 1e4,
                                                .seconds = 3,
                                                .peak_memory = 1e9,
                                                .tokens = 1u << 20,
                                                .steps = 77},
                                     .method = "cab",
                                     .sample = "\"<x>\" \xc3\xa9\n",
                                     .fraction = 0.05,
                                     .teacher_perplexity = 6.5,
                                     .teacher_top1 = NAN,
                                     .teacher_top5 = NAN,
                                     .unit = "tokens",
                                     .seed = 3,
                                     .parameters = 1234};
    assert_ok(cab_run_summary_write(*state, &summary));
    assert_ok(cab_json_load(temp_path(state, CAB_RUN_RESULT), 1 << 20, &json));
    assert_ok(cab_json_number(&json, NULL, "perplexity", &number));
    assert_true(number == 12.25);
    assert_ok(cab_json_number_or(&json, NULL, "kl", -1, &number));
    assert_true(number == -1);
    assert_ok(cab_json_int(&json, NULL, "steps", 0, 100, &whole));
    assert_int_equal(whole, 77);
    assert_ok(cab_json_string(&json, NULL, "sample", &text));
    assert_string_equal(text, "\"<x>\" \xc3\xa9\n");
    assert_ok(cab_json_string_or(&json, NULL, "teacher", "none", &text));
    assert_string_equal(text, "none");
    cab_json_close(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(lines_are_objects_without_what_was_not_measured),
        TEMP_TEST(other_units_have_their_names),
        TEMP_TEST(a_resumed_log_is_that_of_an_unbroken_run),
        TEMP_TEST(the_last_evaluation_is_dropped),
        TEMP_TEST(damaged_lines_do_not_survive_a_resumption),
        TEMP_TEST(a_log_needs_its_directory),
        TEMP_TEST(the_result_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
