/* Batches: every row as if it were alone, the same bits twice, memory that does not grow, the GPU as the processor; generation
 * of several texts, and the timer of decoding. */
#include "base/log.h"
#include "base/thread.h"
#include "device/device.h"
#include "distill/students.h"
#include "models/synthetic.h"
#include "runs.h"
#include "train/decode.h"
#include "train/decode_timer.h"

#include <math.h>

enum { ROWS = 5, LENGTH = 40 };

static const int32_t words[LENGTH] = {7, 300, 41, 12, 256, 90, 3, 511, 60, 61, 5};

static const cab_decode_row rows[ROWS] = {
    {words, 1, 0}, {words, 11, 0}, {words + 2, 4, 3}, {words, 11, 1}, {words, 11, 0}};

/* The tales' teacher, and the student that would be made of it, with random weights. */
typedef struct models {
    cab_backend *backend;
    cab_model *each[2];
} models;

static models open_models(const char *device, cab_precision precision)
{
    models m = {0};
    assert_ok(cab_backend_open(device, &m.backend));
    assert_ok(cab_model_open(runs_teacher, m.backend, precision, false, &m.each[0]));
    assert_ok(cab_student_synthetic(m.each[0], 0, false, &m.each[1]));
    return m;
}

static void close_models(models *m)
{
    for (int i = 0; i < 2; i++)
        cab_model_free(m->each[i]);
    cab_backend_close(m->backend);
}

/* Ids (n, LENGTH) of n rows, and the last step's logits (n, V). */
typedef struct decoded {
    int32_t *ids;
    float *logits;
} decoded;

static decoded decode(const cab_model *model, const cab_decode_row *list, int64_t n, cab_sampling sampling)
{
    cab_decode *d = NULL;
    int32_t tokens[ROWS];
    const size_t count = (size_t)n;
    decoded out = {calloc(count * LENGTH, sizeof *out.ids),
                   calloc(count * (size_t)model->config.vocab_size, sizeof *out.logits)};
    assert_true(out.ids != NULL && out.logits != NULL);
    assert_ok(cab_decode_new(model, list, n, &sampling, &d));
    for (int i = 0; i < LENGTH; i++) {
        assert_int_equal(cab_decode_position(d), i);
        assert_ok(cab_decode_step(d));
        assert_ok(cab_decode_tokens(d, tokens));
        for (int64_t b = 0; b < n; b++)
            out.ids[b * LENGTH + i] = tokens[b];
    }
    assert_ok(cab_decode_logits(d, out.logits));
    cab_decode_free(d);
    return out;
}

static void release(decoded *d)
{
    free(d->ids);
    free(d->logits);
}

static double distance(const float *a, const float *b, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += pow((double)a[i] - (double)b[i], 2);
        norm += pow((double)b[i], 2);
    }
    return sqrt(difference / norm);
}

static void test_rows_are_alone(void **state)
{
    (void)state;
    models m = open_models(test_device(), CAB_PRECISION_FP32);
    for (int k = 0; k < 2; k++) {
        const size_t V = (size_t)m.each[k]->config.vocab_size;
        decoded all = decode(m.each[k], rows, ROWS, (cab_sampling){1, 50, 0.95f, 9, 0, 0});
        for (int b = 0; b < ROWS; b++) {
            decoded one = decode(m.each[k], &rows[b], 1, (cab_sampling){1, 50, 0.95f, 9, 0, 0});
            assert_memory_equal(all.ids + b * LENGTH, one.ids, LENGTH * sizeof *one.ids);
            assert_true(distance(all.logits + (size_t)b * V, one.logits, V) < 1e-5);
            assert_memory_equal(one.ids, rows[b].prompt + 1, (rows[b].length - 1) * sizeof *one.ids);
            release(&one);
        }
        assert_memory_equal(all.ids + LENGTH, all.ids + 4 * LENGTH, LENGTH * sizeof *all.ids);
        assert_memory_not_equal(all.ids + LENGTH, all.ids + 3 * LENGTH, LENGTH * sizeof *all.ids);
        release(&all);
    }
    close_models(&m);
}

static void test_same_bits(void **state)
{
    (void)state;
    for (int precision = CAB_PRECISION_FP32; precision <= CAB_PRECISION_BF16; precision++) {
        models m = open_models(test_device(), (cab_precision)precision);
        for (int k = 0; k < 2; k++) {
            decoded a = decode(m.each[k], rows, ROWS, (cab_sampling){1, 0, 0.95f, 2, 0, 0});
            decoded b = decode(m.each[k], rows, ROWS, (cab_sampling){1, 0, 0.95f, 2, 0, 0});
            assert_memory_equal(a.ids, b.ids, ROWS * LENGTH * sizeof *a.ids);
            assert_memory_equal(a.logits, b.logits, ROWS * (size_t)m.each[k]->config.vocab_size * sizeof *a.logits);
            release(&a);
            release(&b);
        }
        close_models(&m);
    }
}

/* Sanitizers hold back what is freed, and so what the library of matrix products takes for a moment. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_IS_HELD_BACK 1
#elif defined(__has_feature)
#define MEMORY_IS_HELD_BACK (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define MEMORY_IS_HELD_BACK 0
#endif

/* A student's state stays as large as it is, and no step takes memory; a teacher's cache fills. */
static void test_memory(void **state)
{
    (void)state;
    models m = open_models(test_device(), CAB_PRECISION_FP32);
    cab_decode *student = NULL, *teacher = NULL;
    assert_ok(cab_decode_new(m.each[1], rows, 3, &(cab_sampling){0}, &student));
    assert_ok(cab_decode_new(m.each[0], rows, 3, &(cab_sampling){0}, &teacher));
    for (int i = 0; i < 8; i++) {
        assert_ok(cab_decode_step(student));
        assert_ok(cab_decode_step(teacher));
    }
    const cab_decode_traffic first = cab_decode_traffic_of(student), filled = cab_decode_traffic_of(teacher);
    assert_ok(cab_decode_tokens(student, (int32_t[ROWS]){0}));
    const double peak = cab_peak_memory();
    while (cab_decode_position(student) < 1000)
        assert_ok(cab_decode_step(student));
    while (cab_decode_position(teacher) < 16)
        assert_ok(cab_decode_step(teacher));
    assert_ok(cab_decode_tokens(student, (int32_t[ROWS]){0}));
    assert_true(MEMORY_IS_HELD_BACK || cab_peak_memory() - peak < 1 << 20);
    assert_true(first.state > 0 && cab_decode_traffic_of(student).state == first.state);
    assert_true(cab_decode_traffic_of(teacher).state == 2 * filled.state);
    /* 4 layers, a key and a value of 128 fp32 for each of 3 rows and 8 tokens */
    const cab_config *c = &m.each[0]->config;
    assert_true(filled.state == 2.0 * c->n_layer * c->d_model * sizeof(float) * 3 * 8);
    /* GPT-2's head is its embedding and is read whole; of the positions each row reads one */
    const double all = 4.0 * (double)cab_model_parameters(m.each[0]), positions = 4.0 * c->max_length * c->d_model;
    assert_true(filled.weights == all - positions + 2 * 3 * 4.0 * c->d_model);
    cab_decode_free(student);
    cab_decode_free(teacher);
    close_models(&m);
}

static void test_gpu_as_the_processor(void **state)
{
    (void)state;
    static const cab_sampling samplings[] = {{0}, {0.8f, 0, 0.95f, 1, 0, 0}, {1, 20, 1, 5, 0.02f, 1.3f}};
    if (strcmp(test_device(), "cpu") == 0) {
        print_message("CAB_TEST_DEVICE names no GPU\n");
        skip();
    }
    models gpu = open_models(test_device(), CAB_PRECISION_FP32), cpu = open_models("cpu", CAB_PRECISION_FP32);
    for (int k = 0; k < 2; k++)
        for (int s = 0; s < 3; s++) {
            const size_t n = ROWS * (size_t)gpu.each[k]->config.vocab_size;
            decoded a = decode(gpu.each[k], rows, ROWS, samplings[s]);
            decoded b = decode(cpu.each[k], rows, ROWS, samplings[s]);
            const double apart = distance(a.logits, b.logits, n);
            print_message("%s, sampling %d: logits within %.1e\n", gpu.each[k]->arch->name, s, apart);
            assert_memory_equal(a.ids, b.ids, ROWS * LENGTH * sizeof *a.ids);
            assert_true(apart < 1e-4);
            release(&a);
            release(&b);
        }
    close_models(&gpu);
    close_models(&cpu);
}

static void test_refusals(void **state)
{
    (void)state;
    models m = open_models(test_device(), CAB_PRECISION_FP32);
    cab_decode *d = NULL;
    const cab_decode_row empty = {words, 0, 0}, full = {words, 1, 0}, alien = {(const int32_t[]){1 << 30}, 1, 0};
    assert_fails(cab_decode_new(m.each[0], &empty, 1, &(cab_sampling){0}, &d), CAB_EARG, "a prompt has 0 tokens");
    assert_ok(cab_decode_new(m.each[0], &full, 1, &(cab_sampling){0}, &d));
    assert_ok(cab_decode_seek(d, 255));
    assert_ok(cab_decode_step(d));
    assert_true(cab_decode_full(d));
    assert_fails(cab_decode_step(d), CAB_ESHAPE, "context of 256 tokens is full");
    cab_decode_free(d);
    assert_ok(cab_decode_new(m.each[1], &alien, 1, &(cab_sampling){0}, &d));
    cab_status status = cab_decode_step(d); /* a GPU says so when it is waited for */
    assert_int_equal(status == CAB_OK ? cab_decode_tokens(d, (int32_t[1]){0}) : status, CAB_EARG);
    assert_non_null(strstr(cab_error_text(), "embedding"));
    cab_decode_free(d);
    close_models(&m);
}

/* ---- texts ------------------------------------------------------------------------------------------------------------ */

typedef struct collected {
    char text[6][2048];
    size_t stop_at; /* this one stops after its first bytes; -1: none */
} collected;

static bool collect(void *user, size_t index, const char *text, size_t size)
{
    collected *c = user;
    assert_in_range(index, 0, 5);
    assert_true(strlen(c->text[index]) + size < sizeof c->text[index]);
    strncat(c->text[index], text, size);
    return index != c->stop_at;
}

static bool collect_one(void *user, const char *text, size_t size)
{
    return collect(user, 0, text, size);
}

static void test_several_texts(void **state)
{
    (void)state;
    static const char *const prompts[] = {"Once upon a time, there was a little", "Lily", ""};
    static collected all, one, stopped;
    cab_model *model = NULL;
    cab_generate_options o = cab_generate_defaults();
    o.max_tokens = 40;
    assert_ok(cab_model_load_on(test_device(), runs_teacher, CAB_PRECISION_FP32, &model));
    all = stopped = (collected){.stop_at = SIZE_MAX};
    assert_ok(cab_generate_batch(model, 3, prompts, 2, &o, collect, &all));
    for (int p = 0; p < 3; p++) {
        one = (collected){.stop_at = SIZE_MAX};
        assert_ok(cab_generate(model, prompts[p], &o, collect_one, &one));
        assert_string_equal(all.text[2 * p], one.text[0]);
        assert_string_not_equal(all.text[2 * p], all.text[2 * p + 1]);
    }
    stopped.stop_at = 3;
    assert_ok(cab_generate_batch(model, 3, prompts, 2, &o, collect, &stopped));
    for (int i = 0; i < 6; i++)
        if (i != 3)
            assert_string_equal(stopped.text[i], all.text[i]);
    assert_in_range(strlen(stopped.text[3]), 1, strlen(all.text[3]) - 1);
    assert_fails(cab_generate_batch(model, 3, prompts, 0, &o, collect, &all), CAB_EARG, "nothing to generate");
    cab_model_free(model);
}

/* ---- the timer --------------------------------------------------------------------------------------------------------- */

static int count_lines(FILE *file, const char *with)
{
    char line[512];
    int n = 0;
    rewind(file);
    while (fgets(line, sizeof line, file) != NULL)
        n += strstr(line, with) != NULL;
    return n;
}

static void test_timer(void **state)
{
    (void)state;
    static const int64_t batches[] = {1, 3}, positions[] = {0, 20, 256, 300}, close[] = {0, 5}, negative[] = {-1};
    cab_decode_timer_options o = {.teacher = runs_teacher,
                                  .n_layer = 1,
                                  .device = test_device(),
                                  .precision = CAB_PRECISION_FP32,
                                  .batches = batches,
                                  .n_batches = 2,
                                  .positions = positions,
                                  .n_positions = 4,
                                  .steps = 4};
    FILE *out = tmpfile();
    assert_non_null(out);
    assert_ok(cab_decode_time(&o, out));
    assert_int_equal(count_lines(out, "beyond its context of 256"), 2);
    assert_int_equal(count_lines(out, "%\n"), 2 * 4 + 2 * 3);
    o.positions = close;
    o.n_positions = 2;
    assert_fails(cab_decode_time(&o, out), CAB_EARG, "position 5 is not 4 steps behind");
    o.positions = negative;
    o.n_positions = 1;
    assert_fails(cab_decode_time(&o, out), CAB_EARG, "length: found -1");
    o.batches = (const int64_t[]){0};
    o.n_batches = 1;
    assert_fails(cab_decode_time(&o, out), CAB_EARG, "batch: found 0");
    fclose(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_alone), cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_memory),         cmocka_unit_test(test_gpu_as_the_processor),
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_several_texts),
        cmocka_unit_test(test_timer),
    };
    cab_thread_limit(1);
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
