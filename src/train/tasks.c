/* tasks.c - contexts and choices as tokens; log-probabilities as shares of right answers. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/task.h"
#include "data/text_bounds.h"
#include "train/scorer.h"
#include "train/tasks_internal.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- filling -------------------------------------------------------------------------------------------------------------- */

cab_status cab_task_part_begin(cab_task_set *set, const char *name, unsigned measures)
{
    CAB_TRY(CAB_GROW(&set->parts, &set->parts_capacity, set->n_parts + 1, "tasks"));
    cab_task_part *part = &set->parts[set->n_parts++];
    *part = (cab_task_part){.measures = measures, .first = set->n_questions};
    snprintf(part->name, sizeof part->name, "%s", name);
    return CAB_OK;
}

cab_status cab_task_question_begin(cab_task_set *set, unsigned label)
{
    CAB_TRY(CAB_GROW(&set->questions, &set->questions_capacity, set->n_questions + 1, "questions"));
    set->questions[set->n_questions++] = (cab_task_question){set->n_requests, 0, label};
    set->parts[set->n_parts - 1].n++;
    return CAB_OK;
}

cab_status cab_task_request_add(cab_task_set *set, const int32_t *ids, size_t count, size_t context, size_t characters)
{
    CAB_TRY(CAB_GROW(&set->requests, &set->requests_capacity, set->n_requests + 1, "choices"));
    set->requests[set->n_requests++] = (cab_task_request){set->pool.count, count, context, characters};
    set->questions[set->n_questions - 1].n++;
    return cab_ids_append(&set->pool, ids, count);
}

/* ---- texts ---------------------------------------------------------------------------------------------------------------- */

typedef struct coder {
    const cab_task_options *options;
    cab_encoder *encoder;
    int32_t start; /* put before every context; -1: nothing */
    cab_ids context, whole;
    cab_bytes text;
} coder;

static cab_status coder_open(const cab_task_options *o, coder *c)
{
    cab_text_bounds bounds;
    bool leads = false;
    c->options = o;
    CAB_TRY(cab_text_bounds_load(o->directory, o->tokenizer, o->vocab_size, &bounds));
    CAB_TRY(cab_text_bounds_leads(o->directory, &leads));
    c->start = leads ? bounds.start : -1;
    return cab_encoder_new(o->tokenizer, &c->encoder);
}

static void coder_close(coder *c)
{
    cab_encoder_free(c->encoder);
    cab_ids_free(&c->context);
    cab_ids_free(&c->whole);
    cab_bytes_free(&c->text);
}

static cab_status encode(coder *c, const char *text, size_t size, cab_ids *ids)
{
    ids->count = 0;
    if (c->start >= 0)
        CAB_TRY(cab_ids_push(ids, c->start));
    CAB_TRY(cab_encoder_encode(c->encoder, text, size, ids));
    for (size_t i = 0; i < ids->count; i++)
        CAB_TRY(cab_tokenizer_check_id(c->options->tokenizer, ids->data[i], c->options->vocab_size, "a task"));
    return CAB_OK;
}

static size_t count_characters(const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

/* As lm-evaluation-harness does: space at the end of the context is the choice's; the tokens of both together, less as many as the
 * context has by itself, are scored. */
static cab_status add_choice(coder *c, const char *context, const char *choice, cab_task_set *set)
{
    size_t size = strlen(context);
    c->text.count = 0;
    CAB_TRY(cab_bytes_append(&c->text, context, size));
    CAB_TRY(cab_bytes_append(&c->text, choice, strlen(choice)));
    while (size > 0 && strchr(" \n\t\r", context[size - 1]) != NULL)
        size--;
    CAB_TRY(encode(c, context, size, &c->context));
    CAB_TRY(encode(c, c->text.data, c->text.count, &c->whole));
    if (c->context.count == 0)
        return cab_fail(CAB_EFORMAT, "the context is empty, expected words that the choices follow");
    if (c->whole.count <= c->context.count)
        return cab_fail(CAB_EFORMAT, "the choice \"%.40s\" adds no token to its context", choice);
    return cab_task_request_add(set, c->whole.data, c->whole.count, c->context.count,
                                count_characters(choice + strspn(choice, " ")));
}

static cab_status add_items(coder *c, const cab_task *task, cab_task_set *set)
{
    const bool word = task->measure == CAB_TASK_LAST_WORD;
    CAB_TRY(cab_task_part_begin(set, task->name, word ? CAB_MEASURE_WORD : CAB_MEASURE_CHOICE | CAB_MEASURE_LENGTHS));
    for (size_t i = 0; i < task->n_items; i++) {
        const cab_task_item *item = &task->items[i];
        CAB_TRY(cab_task_question_begin(set, item->label));
        for (unsigned k = 0; k < item->n_choices; k++) {
            cab_status status = add_choice(c, item->context, item->choices[k], set);
            char why[256];
            snprintf(why, sizeof why, "%s", cab_error_text());
            if (status != CAB_OK)
                return cab_fail(status, "task \"%s\": item %zu: %s", task->name, i + 1, why);
        }
    }
    return CAB_OK;
}

static cab_status add_file(coder *c, const char *path, cab_task_set *set)
{
    const cab_task_options *o = c->options;
    cab_task *task = NULL;
    CAB_TRY(cab_task_load(path, &task));
    cab_status status = cab_task_read(task, o->folders, o->folders_count, o->items);
    if (status == CAB_OK)
        status = add_items(c, task, set);
    cab_task_free(task);
    return status;
}

cab_status cab_task_set_open(const cab_task_options *options, cab_task_set **out)
{
    cab_task_set *set = NULL;
    coder c = {0};
    cab_status status;
    CAB_TRY(CAB_NEW(&set, 1, "a set of tasks"));
    CAB_GOTO(coder_open(options, &c));
    for (size_t i = 0; i < options->count; i++)
        CAB_GOTO(strcmp(options->tasks[i], CAB_TASK_RECALL) == 0 ? cab_recall_add(options, set)
                                                                 : add_file(&c, options->tasks[i], set));
done:
    coder_close(&c);
    if (status != CAB_OK)
        cab_task_set_free(set);
    else
        *out = set;
    return status;
}

void cab_task_set_free(cab_task_set *set)
{
    if (set == NULL)
        return;
    cab_ids_free(&set->pool);
    cab_free(set->requests);
    cab_free(set->questions);
    cab_free(set->parts);
    cab_free(set);
}

size_t cab_task_set_count(const cab_task_set *set)
{
    return set->n_parts;
}

int64_t cab_tasks_longest(const cab_model *model, const cab_model *teacher)
{
    int64_t longest = INT64_MAX;
    const cab_model *const models[] = {model, teacher};
    for (int i = 0; i < 2; i++)
        if (models[i] != NULL && cab_network_bounded(&models[i]->network) && models[i]->config.max_length < longest)
            longest = models[i]->config.max_length;
    return longest;
}

/* ---- answers -------------------------------------------------------------------------------------------------------------- */

/* The first of the largest. */
static unsigned likeliest(const cab_task_set *set, const cab_task_question *q, const cab_score *scores, bool lengths)
{
    unsigned best = 0;
    double most = -INFINITY;
    for (unsigned i = 0; i < q->n; i++) {
        const size_t characters = set->requests[q->first + i].characters;
        const double value = scores[q->first + i].logp / (lengths && characters > 0 ? (double)characters : 1);
        if (value > most) {
            most = value;
            best = i;
        }
    }
    return best;
}

/* Sums over the items of what is between 0 and 1. */
typedef struct sums {
    double sum, squares;
} sums;

static void put(sums *s, double x)
{
    s->sum += x;
    s->squares += x * x;
}

static cab_share share_of(const sums *s, uint64_t n, bool measured)
{
    const double mean = s->sum / (double)n, variance = (s->squares - s->sum * mean) / ((double)n - 1);
    if (!measured)
        return (cab_share){NAN, NAN};
    return (cab_share){mean, n > 1 ? sqrt((variance > 0 ? variance : 0) / (double)n) : NAN};
}

/* The first n questions of the part. */
static void summarise(const cab_task_set *set, const cab_task_part *part, size_t n, const cab_score *scores,
                      cab_task_result *result)
{
    const bool word = (part->measures & (CAB_MEASURE_WORD | CAB_MEASURE_TOKENS)) != 0;
    sums right = {0}, normalised = {0}, words = {0};
    double logp = 0;
    for (size_t i = part->first; i < part->first + n; i++) {
        const cab_task_question *q = &set->questions[i];
        const cab_task_request *r = &set->requests[q->first + q->label];
        const cab_score *s = &scores[q->first + q->label];
        const double hits = (double)s->hits / (double)(r->count - r->context);
        put(&right, likeliest(set, q, scores, false) == q->label);
        put(&normalised, likeliest(set, q, scores, true) == q->label);
        put(&words, part->measures & CAB_MEASURE_TOKENS ? hits : hits == 1);
        logp += s->logp / (part->measures & CAB_MEASURE_TOKENS ? (double)(r->count - r->context) : 1);
    }
    *result = (cab_task_result){.name = part->name,
                                .items = n,
                                .accuracy = share_of(&right, n, part->measures & CAB_MEASURE_CHOICE),
                                .normalised = share_of(&normalised, n, part->measures & CAB_MEASURE_LENGTHS),
                                .last_word = share_of(&words, n, word),
                                .perplexity = word ? exp(-logp / (double)n) : (double)NAN};
}

static void print_item(const cab_task_set *set, const char *model, const cab_task_part *part, size_t index,
                       const cab_score *scores, FILE *out)
{
    const cab_task_question *q = &set->questions[part->first + index];
    const cab_task_request *r = &set->requests[q->first + q->label];
    json_object *name = cab_json_text(model), *task = cab_json_text(part->name);
    fprintf(out, "{\"model\": %s, \"task\": %s, \"item\": %zu, \"label\": %u, \"chosen\": %u, \"logp\": [",
            json_object_to_json_string_ext(name, JSON_C_TO_STRING_NOSLASHESCAPE),
            json_object_to_json_string_ext(task, JSON_C_TO_STRING_NOSLASHESCAPE), index, q->label,
            likeliest(set, q, scores, false));
    for (unsigned i = 0; i < q->n; i++)
        fprintf(out, "%s%.7g", i > 0 ? ", " : "", scores[q->first + i].logp);
    fprintf(out, "], \"hits\": %u, \"tokens\": %zu}\n", scores[q->first + q->label].hits, r->count - r->context);
    json_object_put(name);
    json_object_put(task);
}

static size_t asked(const cab_task_part *part, uint64_t most)
{
    return most > 0 && part->n > most ? (size_t)most : part->n;
}

/* The requests of the questions that are asked; those of the others are left out, and have no score. */
static size_t collect(const cab_task_set *set, uint64_t most, cab_request *requests, size_t *places)
{
    size_t n = 0;
    for (size_t i = 0; i < set->n_parts; i++)
        for (size_t k = 0; k < asked(&set->parts[i], most); k++) {
            const cab_task_question *q = &set->questions[set->parts[i].first + k];
            for (size_t r = q->first; r < q->first + q->n; r++) {
                const cab_task_request *from = &set->requests[r];
                requests[n] = (cab_request){set->pool.data + from->begin, from->count, from->context};
                places[n++] = r;
            }
        }
    return n;
}

static cab_status score(const cab_task_set *set, const cab_model *model, uint64_t most, cab_score *scores)
{
    cab_request *requests = NULL;
    cab_score *found = NULL;
    size_t *places = NULL, cut = 0, n;
    cab_status status;
    CAB_GOTO(CAB_NEW(&requests, set->n_requests, "requests"));
    CAB_GOTO(CAB_NEW(&places, set->n_requests, "requests"));
    CAB_GOTO(CAB_NEW(&found, set->n_requests, "scores"));
    n = collect(set, most, requests, places);
    CAB_GOTO(cab_score_requests(model, requests, n, "tasks", found, &cut));
    for (size_t i = 0; i < n; i++)
        scores[places[i]] = found[i];
    if (cut > 0)
        cab_log_warn("%s: %zu texts are longer than its %d tokens: what they begin with was left out",
                     model->directory != NULL ? model->directory : model->arch->name, cut, model->config.max_length);
done:
    cab_free(requests);
    cab_free(places);
    cab_free(found);
    return status;
}

cab_status cab_task_set_run(const cab_task_set *set, const cab_model *model, uint64_t most, FILE *items,
                            cab_task_result *results)
{
    const char *name = model->directory != NULL ? model->directory : model->arch->name;
    cab_score *scores = NULL;
    CAB_TRY(CAB_NEW(&scores, set->n_requests, "scores"));
    const cab_status status = score(set, model, most, scores);
    for (size_t i = 0; status == CAB_OK && i < set->n_parts; i++) {
        const size_t n = asked(&set->parts[i], most);
        summarise(set, &set->parts[i], n, scores, &results[i]);
        for (size_t k = 0; items != NULL && k < n; k++)
            print_item(set, name, &set->parts[i], k, scores, items);
    }
    cab_free(scores);
    return status;
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------------- */

static void add_number(json_object *object, const char *key, const char *suffix, double value)
{
    char name[64], text[32];
    snprintf(name, sizeof name, "%s%s", key, suffix);
    snprintf(text, sizeof text, "%.9g", value);
    if (isfinite(value))
        json_object_object_add(object, name, json_object_new_double_s(value, text));
}

static void add_result(json_object *object, const cab_task_result *r)
{
    const struct {
        const char *key;
        cab_share share;
    } shares[] = {{"accuracy", r->accuracy}, {"normalised", r->normalised}, {"last_word", r->last_word}};
    json_object_object_add(object, "items", json_object_new_int64((int64_t)r->items));
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        add_number(object, shares[i].key, "", shares[i].share.value);
        add_number(object, shares[i].key, "_error", shares[i].share.error);
    }
    add_number(object, "perplexity", "", r->perplexity);
}

json_object *cab_task_results_json(const cab_task_result *results, const cab_task_result *teacher, size_t count)
{
    json_object *array = json_object_new_array();
    for (size_t i = 0; array != NULL && i < count; i++) {
        json_object *object = json_object_new_object(), *beside = json_object_new_object();
        json_object_object_add(object, "task", cab_json_text(results[i].name));
        add_result(object, &results[i]);
        if (teacher != NULL) {
            add_result(beside, &teacher[i]);
            json_object_object_add(object, "teacher", json_object_get(beside));
        }
        json_object_put(beside);
        json_object_array_add(array, object);
    }
    return array;
}
