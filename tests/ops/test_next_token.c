/* The end of a decoding step: prompts, arg max, and draws, whose frequencies are held against the distribution asked for; on a
 * GPU against the processor's as well, token for token. */
#include "ops/check.h"

enum { WORDS = 6 };

typedef struct call {
    const char *device;
    int64_t batch, words, prompt; /* prompt: tokens per row */
    const float *logits;
    const int32_t *prompts, *lengths, *samples; /* NULL: ones for lengths, zeros otherwise */
    const int32_t *fed, *seen;                  /* what the step is fed, and what was before; NULL: zeros */
    int32_t position;
    cab_dtype dtype;
    cab_sampling sampling;
} call;

static void write_list(cab_graph *g, cab_tensor *t, const int32_t *values, int32_t otherwise)
{
    const size_t n = (size_t)cab_elements(t);
    int32_t *list = calloc(n, sizeof *list);
    assert_non_null(list);
    for (size_t i = 0; i < n; i++)
        list[i] = values != NULL ? values[i] : otherwise;
    check_ok(cab_tensor_write(g, t, list));
    free(list);
}

static void write_logits(cab_graph *g, cab_tensor *t, const float *values)
{
    void *raw = calloc((size_t)cab_elements(t), sizeof(float));
    assert_non_null(raw);
    cab_convert(raw, t->dtype, values, CAB_F32, (size_t)cab_elements(t));
    check_ok(cab_tensor_write(g, t, raw));
    free(raw);
}

/* Fills tokens[batch] and returns the position afterwards; run three times, as a GPU replays the third; check_slow(): once. */
static int32_t run(const call *c, int32_t *tokens)
{
    cab_backend *backend = NULL;
    cab_graph *g = NULL;
    int32_t position = -1;
    check_ok(cab_backend_open(c->device != NULL ? c->device : check_device(), &backend));
    check_ok(cab_graph_new(backend, &g));
    const int64_t width = c->prompt > 0 ? c->prompt : 1, marks = (c->words + 31) / 32;
    const bool penalty = c->sampling.repeat_penalty > 0;
    const cab_next_token_inputs in = {
        .logits = cab_graph_input(g, "logits", c->dtype, 3, (int64_t[]){c->batch, 1, c->words}),
        .prompts = cab_graph_input(g, "prompts", CAB_I32, 2, (int64_t[]){c->batch, width}),
        .lengths = cab_graph_input(g, "lengths", CAB_I32, 1, &c->batch),
        .samples = cab_graph_input(g, "samples", CAB_I32, 1, &c->batch),
        .tokens = cab_graph_state(g, "tokens", CAB_I32, 2, (int64_t[]){c->batch, 1}),
        .position = cab_graph_state(g, "position", CAB_I32, 1, (int64_t[]){1}),
        .seen = penalty ? cab_graph_state(g, "seen", CAB_I32, 2, (int64_t[]){c->batch, marks}) : NULL};
    cab_next_token(g, &in, &c->sampling);
    check_ok(cab_graph_plan(g, NULL));
    write_logits(g, in.logits, c->logits);
    write_list(g, in.prompts, c->prompts, 0);
    write_list(g, in.lengths, c->lengths, 1);
    write_list(g, in.samples, c->samples, 0);
    for (int i = 0; i < (check_slow() ? 1 : 3); i++) {
        write_list(g, in.position, &c->position, 0);
        write_list(g, in.tokens, c->fed, 0);
        if (penalty)
            write_list(g, in.seen, c->seen, 0);
        check_ok(cab_graph_run(g));
        int32_t *before = i == 0 ? NULL : calloc((size_t)c->batch, sizeof *before);
        if (i > 0)
            memcpy(before, tokens, (size_t)c->batch * sizeof *tokens);
        check_ok(cab_tensor_read(g, in.tokens, tokens));
        if (i > 0)
            assert_memory_equal(before, tokens, (size_t)c->batch * sizeof *tokens);
        free(before);
    }
    check_ok(cab_tensor_read(g, in.position, &position));
    cab_graph_free(g);
    cab_backend_close(backend);
    return position;
}

static void test_prompts_then_draws(void **state)
{
    (void)state;
    static const float logits[4 * 3] = {0, 1, 2, 2, 1, 0, 1, 2, 0, 0, 0, 0};
    static const int32_t prompts[4 * 3] = {2, 1, 1, 2, 1, 0, 2, 0, 0, 2, 2, 1}, lengths[4] = {3, 2, 1, 3};
    call c = {.batch = 4, .words = 3, .prompt = 3, .logits = logits, .prompts = prompts, .lengths = lengths};
    int32_t tokens[4];
    assert_int_equal(run(&c, tokens), 1);
    assert_memory_equal(tokens, ((int32_t[]){1, 1, 1, 2}), sizeof tokens);
    c.position = 1;
    assert_int_equal(run(&c, tokens), 2);
    assert_memory_equal(tokens, ((int32_t[]){1, 0, 1, 1}), sizeof tokens);
    c.position = 2;
    assert_int_equal(run(&c, tokens), 3);
    assert_memory_equal(tokens, ((int32_t[]){2, 0, 1, 0}), sizeof tokens);
    c.position = INT32_MAX;
    assert_int_equal(run(&c, tokens), INT32_MAX);
    assert_memory_equal(tokens, ((int32_t[]){2, 0, 1, 0}), sizeof tokens);
}

/* The first of equals, zeros of either sign among them, in rows of many sizes. */
static void test_most_likely(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 6, 31, 1024, 1025, 8193, 50257};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int64_t n = sizes[s], best = n * 2 / 3;
        float *logits = calloc((size_t)(2 * n), sizeof *logits);
        int32_t tokens[2];
        assert_non_null(logits);
        for (int64_t i = 0; i < n; i++) {
            logits[i] = i == best || i == n - 1 ? 3.0f : -1.0f - (float)(i % 7);
            logits[n + i] = i < best ? -2.0f : i % 2 ? 0.0f : -0.0f;
        }
        for (int low = 0; low < 2; low++) {
            const call c = {.batch = 2, .words = n, .logits = logits, .dtype = low ? CAB_BF16 : CAB_F32};
            run(&c, tokens);
            assert_int_equal(tokens[0], best);
            assert_int_equal(tokens[1], best);
        }
        free(logits);
    }
}

static void test_top_1(void **state)
{
    (void)state;
    enum { ROWS = 50 };
    float logits[ROWS * WORDS];
    int32_t samples[ROWS], tokens[ROWS];
    for (int b = 0; b < ROWS; b++) {
        memcpy(logits + b * WORDS, ((float[]){0, 3, -1, 3, 2, -50}), WORDS * sizeof *logits);
        samples[b] = b;
    }
    const cab_sampling only[] = {{.temperature = 2, .top_k = 1, .top_p = 1}, {.temperature = 2, .top_p = 0}};
    for (int i = 0; i < 2; i++) {
        const call c = {.batch = ROWS, .words = WORDS, .logits = logits, .samples = samples, .sampling = only[i]};
        run(&c, tokens);
        for (int b = 0; b < ROWS; b++)
            assert_int_equal(tokens[b], 1);
    }
}

/* Draws of independent samples, and of one sample at successive positions. */
static void frequencies(const float *one, const cab_sampling *sampling, bool positions, int draws, int counts[WORDS])
{
    float *logits = calloc((size_t)draws * WORDS, sizeof *logits);
    int32_t *numbers = calloc((size_t)draws, sizeof *numbers), *tokens = calloc((size_t)draws, sizeof *tokens);
    assert_true(logits != NULL && numbers != NULL && tokens != NULL);
    for (int b = 0; b < draws; b++) {
        memcpy(logits + (size_t)b * WORDS, one, WORDS * sizeof *logits);
        numbers[b] = positions ? b + 1 : b; /* lengths, which the draw counts from, or samples */
    }
    const call c = {.batch = draws,
                    .words = WORDS,
                    .logits = logits,
                    .lengths = positions ? numbers : NULL,
                    .samples = positions ? NULL : numbers,
                    .position = positions ? draws : 0,
                    .sampling = *sampling};
    run(&c, tokens);
    memset(counts, 0, WORDS * sizeof *counts);
    for (int b = 0; b < draws; b++) {
        assert_in_range(tokens[b], 0, WORDS - 1);
        counts[tokens[b]]++;
    }
    free(logits);
    free(numbers);
    free(tokens);
}

static void test_distribution(void **state)
{
    (void)state;
    const float logits[WORDS] = {logf(1), logf(2), logf(4), logf(8), logf(16), logf(1)};
    static const struct {
        cab_sampling sampling;
        double expected[WORDS];
    } cases[] = {
        {{1, 0, 1, 11, 0, 0}, {1 / 32., 2 / 32., 4 / 32., 8 / 32., 16 / 32., 1 / 32.}},
        {{0.5f, 0, 1, 11, 0, 0}, {1 / 342., 4 / 342., 16 / 342., 64 / 342., 256 / 342., 1 / 342.}},
        {{1, 3, 1, 11, 0, 0}, {0, 0, 4 / 28., 8 / 28., 16 / 28., 0}},
        {{1, 0, 0.7f, 11, 0, 0}, {0, 0, 0, 8 / 24., 16 / 24., 0}}, /* half is not enough, three quarters are */
        {{1, 4, 0.9f, 11, 0, 0}, {0, 0, 4 / 28., 8 / 28., 16 / 28., 0}},
        {{1, 5, 1, 11, 0, 0}, {1 / 31., 2 / 31., 4 / 31., 8 / 31., 16 / 31., 0}}, /* the first of the two least */
        {{1, 0, 1, 11, 0.2f, 0}, {0, 0, 4 / 28., 8 / 28., 16 / 28., 0}},
        {{1, 2, 1, 11, 0.2f, 0}, {0, 0, 0, 8 / 24., 16 / 24., 0}},
        {{1, 0, 0.4f, 11, 0.2f, 0}, {0, 0, 0, 0, 1, 0}},
        {{0.5f, 0, 1, 11, 0.2f, 0}, {0, 0, 0, 64 / 320., 256 / 320., 0}}, /* a share of the cooled probability */
        {{1, 0, 1, 11, 1, 0}, {0, 0, 0, 0, 1, 0}},
    };
    const int draws = check_slow() ? 100 : 40000;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int positions = 0; positions < 2; positions++) {
            int counts[WORDS];
            frequencies(logits, &cases[c].sampling, positions, draws, counts);
            for (int w = 0; w < WORDS; w++) {
                double p = cases[c].expected[w], bound = 5 * sqrt(p * (1 - p) / draws);
                if (!(fabs((double)counts[w] / draws - p) <= bound))
                    fail_msg("case %d, word %d: frequency %g, expected %g", (int)c, w, (double)counts[w] / draws, p);
            }
        }
}

/* Another seed, sample or position gives another draw; equal ones the same. */
static void test_randomness(void **state)
{
    (void)state;
    enum { ROWS = 64, N = 1000 };
    float *logits = calloc(ROWS * N, sizeof *logits);
    int32_t samples[ROWS], a[ROWS], b[ROWS];
    assert_non_null(logits);
    for (int i = 0; i < ROWS; i++)
        samples[i] = i / 2;
    call c = {.batch = ROWS, .words = N, .logits = logits, .samples = samples, .sampling = {1, 0, 1, 3, 0, 0}};
    run(&c, a);
    for (int i = 0; i < ROWS; i += 2) {
        assert_int_equal(a[i], a[i + 1]);
        assert_true(i == 0 || a[i] != a[i - 1]); /* true of these seeds: one in a thousand is equal */
    }
    c.sampling.seed = 4;
    run(&c, b);
    assert_memory_not_equal(a, b, sizeof a);
    c.sampling.seed = 3;
    c.position = 1;
    run(&c, b);
    assert_memory_not_equal(a, b, sizeof a);
    free(logits);
}

/* Logits as models have them: far below zero, around it, of bf16 with many equals, all equal. */
static void test_gpu_draws_as_the_processor(void **state)
{
    (void)state;
    enum { MOST = 96 };
    const int rows = check_slow() ? 6 : MOST;
    static const struct {
        int64_t words;
        float centre, width;
        cab_dtype dtype;
        cab_sampling sampling;
    } cases[] = {
        {50257, -100, 4, CAB_F32, {0.8f, 0, 0.95f, 1, 0, 0}}, {50257, 0, 3, CAB_F32, {1, 0, 1, 2, 0, 0}},
        {50257, 0, 3, CAB_BF16, {1, 40, 0.9f, 3, 0, 0}},      {51200, 10, 2, CAB_BF16, {0.7f, 1000, 1, 4, 0, 0}},
        {1000, 0, 0, CAB_F32, {1, 300, 0.5f, 5, 0, 0}},       {7, 0, 80, CAB_F32, {1.5f, 0, 0.99f, 6, 0, 0}},
        {3001, -5, 1, CAB_F32, {100, 0, 0.999f, 7, 0, 0}},    {50257, -9, 3, CAB_BF16, {1, 0, 1, 8, 0.05f, 0}},
        {50257, 0, 3, CAB_F32, {1, 50, 0.9f, 9, 0.02f, 1.3f}}};
    if (strcmp(check_device(), "cpu") == 0) {
        print_message("CAB_TEST_DEVICE names no GPU\n");
        skip();
    }
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const size_t n = (size_t)(rows * cases[k].words);
        cab_random random = {.seed = k, .stream = CAB_STREAM_TEST};
        float *logits = calloc(n, sizeof *logits);
        int32_t samples[MOST], cpu[MOST], gpu[MOST], different = 0;
        int32_t *seen = calloc(n / 32 + (size_t)rows, sizeof *seen);
        assert_true(logits != NULL && seen != NULL);
        for (size_t i = 0; i < n / 32; i++)
            seen[i] = (int32_t)(0x9E3779B9u * (uint32_t)i);
        for (size_t i = 0; i < n; i++)
            logits[i] = cases[k].centre + cases[k].width * cab_random_normal(&random);
        for (int i = 0; i < rows; i++)
            samples[i] = i;
        call c = {.device = "cpu",
                  .batch = rows,
                  .words = cases[k].words,
                  .logits = logits,
                  .samples = samples,
                  .fed = samples,
                  .seen = seen,
                  .dtype = cases[k].dtype,
                  .sampling = cases[k].sampling};
        run(&c, cpu);
        c.device = NULL;
        run(&c, gpu);
        for (int i = 0; i < rows; i++)
            different += cpu[i] != gpu[i];
        if (different > 1) /* one may lie within rounding, 1e-8 or so, of the end of a token's share */
            fail_msg("case %d: %d of %d draws differ", (int)k, different, rows);
        free(logits);
        free(seen);
    }
}

/* A penalty of 2 on what has been fed: 8 becomes 4, -1 becomes -2. What a prompt feeds counts, and so does what is fed now. */
static void test_repeat_penalty(void **state)
{
    (void)state;
    enum { ROWS = 5, N = 40 };
    float logits[ROWS * N];
    int32_t seen[ROWS * 2] = {0}, fed[ROWS] = {33, 1, 1, 1, 1}, tokens[ROWS], prompts[ROWS * 2] = {0};
    static const int32_t lengths[ROWS] = {1, 1, 1, 1, 2};
    for (int i = 0; i < ROWS * N; i++)
        logits[i] = -30;
    logits[0 * N + 33] = 8, logits[0 * N + 2] = 5;       /* fed now, in the second word of the marks: 4 < 5 */
    logits[1 * N + 33] = 8, logits[1 * N + 2] = 5;       /* never fed */
    logits[2 * N + 39] = -1, logits[2 * N + 38] = -1.5f; /* below 0 it grows: -2 < -1.5 */
    logits[3 * N + 7] = 8, logits[3 * N + 8] = 3;        /* 4 is still the largest */
    logits[4 * N + 7] = 8;                               /* its prompt is not over */
    seen[2 * 2 + 1] = 1 << 7, seen[3 * 2] = 1 << 7, prompts[4 * 2 + 1] = 21;
    const call c = {.batch = ROWS,
                    .words = N,
                    .prompt = 2,
                    .logits = logits,
                    .prompts = prompts,
                    .lengths = lengths,
                    .fed = fed,
                    .seen = seen,
                    .sampling = {.temperature = 0, .repeat_penalty = 2}};
    run(&c, tokens);
    assert_memory_equal(tokens, ((int32_t[ROWS]){2, 33, 38, 7, 21}), sizeof tokens);
    call drawn = c; /* a draw knows it too */
    drawn.sampling = (cab_sampling){.temperature = 0.01f, .top_p = 1, .seed = 1, .repeat_penalty = 2};
    run(&drawn, tokens);
    assert_memory_equal(tokens, ((int32_t[ROWS]){2, 33, 38, 7, 21}), sizeof tokens);
}

static void test_refusals(void **state)
{
    (void)state;
    cab_backend *backend = NULL;
    check_ok(cab_backend_open(check_device(), &backend));
    for (int bad = 0; bad < 5; bad++) {
        cab_graph *g = NULL;
        check_ok(cab_graph_new(backend, &g));
        const cab_next_token_inputs in = {
            .logits = cab_graph_input(g, "logits", CAB_F32, 3, (int64_t[]){2, 1, 5}),
            .prompts = cab_graph_input(g, "prompts", CAB_I32, 2, (int64_t[]){bad == 0 ? 3 : 2, 4}),
            .lengths = cab_graph_input(g, "lengths", CAB_I32, 1, (int64_t[]){bad == 1 ? 3 : 2}),
            .samples = cab_graph_input(g, "samples", bad == 2 ? CAB_F32 : CAB_I32, 1, (int64_t[]){2}),
            .tokens = cab_graph_state(g, "tokens", CAB_I32, 2, (int64_t[]){2, 1}),
            .position = cab_graph_state(g, "position", CAB_I32, 1, (int64_t[]){1}),
            .seen = bad >= 3 ? cab_graph_state(g, "seen", CAB_I32, 2, (int64_t[]){2, bad == 3 ? 2 : 1}) : NULL};
        cab_next_token(g, &in, &(cab_sampling){.repeat_penalty = bad == 3 ? 1.5f : 1});
        assert_int_equal(cab_graph_plan(g, NULL), CAB_ESHAPE);
        assert_non_null(strstr(cab_error_text(), "next_token: "));
        cab_graph_free(g);
    }
    cab_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts_then_draws),
        cmocka_unit_test(test_most_likely),
        cmocka_unit_test(test_top_1),
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_randomness),
        cmocka_unit_test(test_repeat_penalty),
        cmocka_unit_test(test_gpu_draws_as_the_processor),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
