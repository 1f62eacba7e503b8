/* test_tasks.c - requests scored in batches against each one alone; recall's sequences; shares and their errors. */
#include "base/random.h"
#include "runs.h"
#include "train/scorer.h"
#include "train/tasks_internal.h"

#include <math.h>

static const char teacher[] = "examples/tales/teacher";

static cab_model *load(void)
{
    cab_model *model;
    assert_ok(cab_model_load(teacher, CAB_PRECISION_FP32, &model));
    return model;
}

/* log p of the scored tokens by the logits of a graph of this request alone. */
static cab_score alone(const cab_model *model, const cab_request *r)
{
    const int64_t L = (int64_t)r->count - 1, V = model->config.vocab_size;
    cab_graph *g;
    cab_score score = {0};
    assert_ok(cab_graph_new(model->backend, &g));
    cab_tensor *ids = cab_model_input(g, model, 1, L);
    cab_tensor *logits = cab_model_record_logits(g, model, cab_model_record(g, model, ids, 0, NULL));
    cab_graph_keep(g, logits);
    assert_ok(cab_graph_plan(g, NULL));
    assert_ok(cab_tensor_write(g, ids, r->ids));
    assert_ok(cab_graph_run(g));
    float *values = malloc(cab_tensor_bytes(logits));
    assert_non_null(values);
    assert_ok(cab_tensor_read(g, logits, values));
    for (size_t t = r->context; t < r->count; t++) {
        const float *row = values + ((int64_t)t - 1) * logits->ld;
        double sum = 0;
        int64_t best = 0;
        for (int64_t v = 0; v < V; v++) {
            sum += exp((double)row[v]);
            best = row[v] > row[best] ? v : best;
        }
        score.logp += (double)row[r->ids[t]] - log(sum);
        score.hits += best == r->ids[t];
    }
    free(values);
    cab_graph_free(g);
    return score;
}

/* Of many lengths, among them one token behind one, choices that share a context, one that begins another, and the same twice. */
static void test_scores(void **state)
{
    (void)state;
    enum { N = 40, MOST = 250 };
    cab_model *model = load();
    int32_t ids[N][MOST];
    cab_request requests[N];
    cab_score scores[N];
    cab_random random = {.seed = 3, .stream = CAB_STREAM_TEST};
    for (size_t i = 0; i < N; i++) {
        const size_t count = i == 0 ? 2 : i == 1 ? MOST : 2 + (size_t)cab_random_below(&random, 90);
        for (size_t t = 0; t < count; t++)
            ids[i][t] = i >= 4 && i < 10 ? ids[1][t] : (int32_t)cab_random_below(&random, 1024);
        requests[i] = (cab_request){ids[i], count, 1 + (size_t)cab_random_below(&random, count - 1)};
    }
    requests[11] = requests[10];
    size_t cut = 1;
    assert_ok(cab_score_requests(model, requests, N, "test", scores, &cut));
    assert_int_equal(cut, 0);
    for (size_t i = 0; i < N; i++) {
        const cab_score one = alone(model, &requests[i]);
        assert_true(fabs(scores[i].logp - one.logp) < 1e-4 * fabs(one.logp));
        assert_int_equal(scores[i].hits, one.hits);
    }
    cab_model_free(model);
}

/* What does not fit loses the beginning of its context, and not more than that. */
static void test_long(void **state)
{
    (void)state;
    cab_model *model = load();
    const size_t most = (size_t)model->config.max_length;
    int32_t ids[600];
    cab_score scores[1];
    size_t cut = 0;
    for (int i = 0; i < 600; i++)
        ids[i] = 7 * i % 1024;
    const cab_request longer = {ids, 300, 290}, kept = {ids + 300 - most - 1, most + 1, most + 1 - 10};
    assert_ok(cab_score_requests(model, &longer, 1, "test", scores, &cut));
    assert_int_equal(cut, 1);
    assert_true(fabs(scores[0].logp - alone(model, &kept).logp) < 1e-3);
    assert_int_equal(cab_score_requests(model, &(cab_request){ids, 600, 300}, 1, "test", scores, NULL), CAB_ESHAPE);
    assert_int_equal(cab_score_requests(model, &(cab_request){ids, 6, 0}, 1, "test", scores, NULL), CAB_EARG);
    cab_model_free(model);
}

static cab_task_set *open_recall(uint64_t items, int64_t longest)
{
    static const char *const tasks[] = {CAB_TASK_RECALL};
    cab_tokenizer *tokenizer = NULL;
    cab_task_set *set = NULL;
    assert_ok(cab_tokenizer_open(teacher, &tokenizer));
    const cab_task_options options = {.tasks = tasks,
                                      .count = 1,
                                      .items = items,
                                      .tokenizer = tokenizer,
                                      .directory = teacher,
                                      .vocab_size = 1024,
                                      .longest = longest};
    assert_ok(cab_task_set_open(&options, &set));
    cab_tokenizer_free(tokenizer);
    return set;
}

/* Where token `id` stands in ids[0 .. count); count where it does not. */
static size_t find(const int32_t *ids, size_t count, int32_t id)
{
    size_t i = 0;
    while (i < count && ids[i] != id)
        i++;
    return i;
}

/* The right choice is what stood behind the key, no other choice is, and all of them stand in the sequence. */
static void check_retrieval(const cab_task_set *set, const cab_task_question *q)
{
    size_t keys[3] = {0};
    assert_true(q->n >= 2 && q->label < q->n);
    for (unsigned i = 0; i < q->n; i++) {
        const cab_task_request *r = &set->requests[q->first + i];
        const int32_t *ids = set->pool.data + r->begin, value = ids[r->count - 1];
        const size_t at = find(ids, r->context, value);
        assert_int_equal(r->count, r->context + 1);
        assert_true(at > 0 && at < r->context);
        /* key, perhaps a mark, value: the key is the last token but marks, which stand everywhere */
        const bool marked = ids[r->context - 1] == ids[at - 1];
        const int32_t asked = marked ? ids[r->context - 2] : ids[r->context - 1], key = ids[marked ? at - 2 : at - 1];
        assert_int_equal(asked == key, i == q->label);
        keys[0] += asked == key;
    }
    assert_int_equal(keys[0], 1);
}

static void test_recall(void **state)
{
    (void)state;
    cab_task_set *set = open_recall(20, 256), *again = open_recall(20, 256), *shorter = open_recall(3, 40);
    assert_int_equal(set->pool.count, again->pool.count);
    assert_memory_equal(set->pool.data, again->pool.data, set->pool.count * sizeof *set->pool.data);
    assert_int_equal(cab_task_set_count(set), 5);
    assert_int_equal(cab_task_set_count(shorter), 3);
    assert_string_equal(set->parts[0].name, "recall, 4 pairs");
    assert_string_equal(set->parts[4].name, "induction, 64 tokens");
    for (size_t i = 0; i < set->parts[1].first + set->parts[1].n; i++)
        check_retrieval(set, &set->questions[i]);
    for (size_t i = set->parts[2].first; i < set->n_questions; i++) {
        const cab_task_request *r = &set->requests[set->questions[i].first];
        const size_t lead = r->count % 2, half = r->count / 2;
        const int32_t *ids = set->pool.data + r->begin + lead;
        assert_int_equal(r->context, lead + half + 1);
        assert_memory_equal(ids, ids + half, half * sizeof *ids);
    }
    cab_task_set_free(set);
    cab_task_set_free(again);
    cab_task_set_free(shorter);
}

/* Shares count what the scores say: of choices, lengths and words, by a set of known answers. */
static void test_shares(void **state)
{
    (void)state;
    cab_model *model = load();
    cab_task_set set = {0};
    cab_task_result result;
    cab_score scores[30];
    cab_request requests[30];
    cab_random random = {.seed = 5, .stream = CAB_STREAM_TEST};
    double right = 0, lengths = 0, words = 0, logp = 0;
    assert_ok(cab_task_part_begin(&set, "quiz", CAB_MEASURE_CHOICE | CAB_MEASURE_LENGTHS | CAB_MEASURE_WORD));
    for (unsigned i = 0; i < 10; i++) {
        assert_ok(cab_task_question_begin(&set, i % 3));
        for (unsigned k = 0; k < 3; k++) {
            int32_t ids[12];
            for (int t = 0; t < 12; t++)
                ids[t] = (int32_t)cab_random_below(&random, 1024);
            assert_ok(cab_task_request_add(&set, ids, 6 + 2 * k, 5, 1 + 3 * (size_t)k));
        }
    }
    for (size_t i = 0; i < 30; i++)
        requests[i] = (cab_request){set.pool.data + set.requests[i].begin, set.requests[i].count, 5};
    assert_ok(cab_score_requests(model, requests, 30, "test", scores, NULL));
    assert_ok(cab_task_set_run(&set, model, 0, NULL, &result));
    for (unsigned i = 0; i < 10; i++) {
        unsigned best = 0, longest = 0;
        for (unsigned k = 1; k < 3; k++) {
            best = scores[3 * i + k].logp > scores[3 * i + best].logp ? k : best;
            longest =
                scores[3 * i + k].logp / (1 + 3 * k) > scores[3 * i + longest].logp / (1 + 3 * longest) ? k : longest;
        }
        right += best == i % 3;
        lengths += longest == i % 3;
        words += scores[3 * i + i % 3].hits == 1 + 2 * (i % 3);
        logp += scores[3 * i + i % 3].logp;
    }
    const double p = right / 10;
    assert_int_equal(result.items, 10);
    assert_true(fabs(result.accuracy.value - p) < 1e-12 && fabs(result.normalised.value - lengths / 10) < 1e-12);
    assert_true(fabs(result.accuracy.error - sqrt(p * (1 - p) / 9)) < 1e-12);
    assert_true(fabs(result.last_word.value - words / 10) < 1e-12);
    assert_true(fabs(log(result.perplexity) + logp / 10) < 1e-6);
    cab_ids_free(&set.pool);
    cab_free(set.requests);
    cab_free(set.questions);
    cab_free(set.parts);
    cab_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scores), cmocka_unit_test(test_long),
                                       cmocka_unit_test(test_recall), cmocka_unit_test(test_shares)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
