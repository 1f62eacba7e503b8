/* scorer.c - requests become rows, rows become batches of one length, a batch is one run of a graph:
 *
 *   ids (B, L) -> hidden (B, L, D) -> those of its S rows that predict a scored token -> log p of each, and the likeliest word
 *
 * So the head, often the costliest product, is computed only where it is asked for. Batches of one length share a graph. */
#include "train/scorer.h"

#include "base/memory.h"
#include "base/progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CPU_TOKENS = 4096, GPU_TOKENS = 32768, SCORED_STEP = 64 };

/* A request within the model's context. What the model reads of it is ids[0 .. count - 1). */
typedef struct part {
    const int32_t *ids;
    size_t count, context, request;
} part;

/* A row of a batch: parts first .. last of the sorted list, each of which the next one begins with. The last is what the model reads. */
typedef struct row {
    size_t first, last, length, scored;
} row;

typedef struct scorer {
    const cab_model *model;
    part *parts;
    row *rows; /* the longest first */
    size_t n_parts, n_rows, done;
    int64_t B, L, S; /* of the graph */
    cab_graph *graph;
    cab_tensor *ids, *places, *labels;
    cab_head_scores out;
    int32_t *tokens, *place, *label, *likeliest; /* of one batch, on the host */
    float *logp;
    cab_score *scores;
} scorer;

static const char *name_of(const cab_model *m)
{
    return m->directory != NULL ? m->directory : m->arch->name;
}

/* ---- rows ----------------------------------------------------------------------------------------------------------------- */

static size_t input_of(const part *p)
{
    return p->count - 1;
}

/* By input, token by token: what begins another comes before it. */
static int by_input(const void *left, const void *right)
{
    const part *a = left, *b = right;
    const size_t n = input_of(a) < input_of(b) ? input_of(a) : input_of(b);
    for (size_t i = 0; i < n; i++)
        if (a->ids[i] != b->ids[i])
            return a->ids[i] < b->ids[i] ? -1 : 1;
    if (input_of(a) != input_of(b))
        return input_of(a) < input_of(b) ? -1 : 1;
    return a->request < b->request ? -1 : 1;
}

static bool begins(const part *a, const part *b)
{
    return input_of(a) <= input_of(b) && memcmp(a->ids, b->ids, input_of(a) * sizeof *a->ids) == 0;
}

static int by_length(const void *left, const void *right)
{
    const row *a = left, *b = right;
    if (a->length != b->length)
        return a->length > b->length ? -1 : 1;
    return a->first < b->first ? -1 : 1;
}

static cab_status make_parts(scorer *s, const cab_request *requests, size_t n, size_t *cut)
{
    const cab_model *m = s->model;
    const size_t most = cab_network_bounded(&m->network) ? (size_t)m->config.max_length : SIZE_MAX / 2;
    CAB_TRY(CAB_NEW(&s->parts, n, "requests"));
    for (size_t i = 0; i < n; i++) {
        const cab_request *r = &requests[i];
        const size_t lost = r->count > most + 1 ? r->count - most - 1 : 0;
        if (r->context == 0 || r->context >= r->count)
            return cab_fail(CAB_EARG, "request %zu: %zu of its %zu tokens are its context, expected some of both", i,
                            r->context, r->count);
        if (r->count - r->context > most)
            return cab_fail(CAB_ESHAPE, "%s: %zu tokens to score at once, the model takes at most %zu", name_of(m),
                            r->count - r->context, most);
        s->parts[s->n_parts++] = (part){r->ids + lost, r->count - lost, r->context - lost, i};
        if (cut != NULL)
            *cut += lost > 0;
    }
    qsort(s->parts, n, sizeof *s->parts, by_input);
    return CAB_OK;
}

static cab_status make_rows(scorer *s)
{
    CAB_TRY(CAB_NEW(&s->rows, s->n_parts, "rows"));
    for (size_t i = 0; i < s->n_parts; i++) {
        const part *p = &s->parts[i];
        row *r = &s->rows[s->n_rows];
        r->scored += p->count - p->context;
        r->length = input_of(p);
        r->last = i;
        if (i + 1 == s->n_parts || !begins(p, &s->parts[i + 1])) {
            s->n_rows++;
            if (i + 1 < s->n_parts)
                s->rows[s->n_rows].first = i + 1;
        }
    }
    qsort(s->rows, s->n_rows, sizeof *s->rows, by_length);
    return CAB_OK;
}

/* ---- graphs --------------------------------------------------------------------------------------------------------------- */

/* A length that few graphs serve. One that computes a short sequence otherwise (longrope) is not passed. */
static int64_t padded(const cab_model *m, size_t length)
{
    const size_t step = length <= 128 ? 16 : length <= 512 ? 64 : 256;
    const size_t original = (size_t)m->config.rope.original, most = (size_t)m->config.max_length;
    size_t L = (length + step - 1) / step * step;
    if (m->config.rope.kind == CAB_ROPE_LONGROPE && length <= original && L > original)
        L = original;
    return (int64_t)(cab_network_bounded(&m->network) && L > most ? most : L);
}

static void close_graph(scorer *s)
{
    cab_graph_free(s->graph);
    s->graph = NULL;
    cab_free(s->tokens);
    cab_free(s->place);
    cab_free(s->label);
    cab_free(s->likeliest);
    cab_free(s->logp);
    s->tokens = s->place = s->label = s->likeliest = NULL;
    s->logp = NULL;
}

static cab_status open_graph(scorer *s)
{
    const int64_t one[] = {1, s->S};
    cab_head_side head = cab_model_head(s->model);
    close_graph(s);
    CAB_TRY(CAB_NEW(&s->tokens, (size_t)(s->B * s->L), "a batch"));
    CAB_TRY(CAB_NEW(&s->place, (size_t)s->S, "a batch"));
    CAB_TRY(CAB_NEW(&s->label, (size_t)s->S, "a batch"));
    CAB_TRY(CAB_NEW(&s->likeliest, (size_t)s->S, "a batch"));
    CAB_TRY(CAB_NEW(&s->logp, (size_t)s->S, "a batch"));
    CAB_TRY(cab_graph_new(s->model->backend, &s->graph));
    s->ids = cab_model_input(s->graph, s->model, s->B, s->L);
    s->places = cab_graph_input(s->graph, "places", CAB_I32, 2, one);
    s->labels = cab_graph_input(s->graph, "labels", CAB_I32, 2, one);
    cab_tensor *hidden = cab_model_record(s->graph, s->model, s->ids, 0, NULL);
    if (hidden != NULL)
        hidden = cab_reshape(s->graph, hidden, 2, (int64_t[]){s->B * s->L, cab_columns(hidden)});
    if (hidden != NULL)
        head.hidden = cab_embedding(s->graph, s->places, hidden, NULL, NULL, NULL, hidden->dtype);
    s->out = cab_head_score(s->graph, &head, s->labels, 1);
    cab_graph_keep(s->graph, s->out.label);
    cab_graph_keep(s->graph, s->out.ids);
    return cab_graph_plan(s->graph, NULL);
}

/* ---- batches -------------------------------------------------------------------------------------------------------------- */

/* Puts row `at` of the batch in: its tokens, and from *scored on the places and labels of what is scored. */
static void load_row(scorer *s, const row *r, int64_t at, int64_t *scored)
{
    const part *whole = &s->parts[r->last];
    memcpy(s->tokens + at * s->L, whole->ids, r->length * sizeof *s->tokens);
    for (size_t i = r->first; i <= r->last; i++)
        for (size_t t = s->parts[i].context; t < s->parts[i].count; t++) {
            s->place[*scored] = (int32_t)(at * s->L + (int64_t)t - 1);
            s->label[(*scored)++] = s->parts[i].ids[t];
        }
}

static cab_status take_row(scorer *s, const row *r, int64_t *scored)
{
    for (size_t i = r->first; i <= r->last; i++) {
        cab_score *score = &s->scores[s->parts[i].request];
        for (size_t t = s->parts[i].context; t < s->parts[i].count; t++, ++*scored) {
            score->logp += (double)s->logp[*scored];
            score->hits += s->likeliest[*scored] == s->label[*scored];
        }
        if (!isfinite(score->logp))
            return cab_fail(CAB_ENUMERIC, "%s: the log-probability of a text is %g, expected a finite number",
                            name_of(s->model), score->logp);
    }
    return CAB_OK;
}

static cab_status run_batch(scorer *s, size_t first, size_t last)
{
    int64_t scored = 0;
    memset(s->tokens, 0, (size_t)(s->B * s->L) * sizeof *s->tokens);
    for (size_t i = first; i < last; i++)
        load_row(s, &s->rows[i], (int64_t)(i - first), &scored);
    for (int64_t i = scored; i < s->S; i++) {
        s->place[i] = 0;
        s->label[i] = -1;
    }
    CAB_TRY(cab_tensor_write(s->graph, s->ids, s->tokens));
    CAB_TRY(cab_tensor_write(s->graph, s->places, s->place));
    CAB_TRY(cab_tensor_write(s->graph, s->labels, s->label));
    CAB_TRY(cab_graph_run(s->graph));
    CAB_TRY(cab_tensor_read(s->graph, s->out.label, s->logp));
    CAB_TRY(cab_tensor_read(s->graph, s->out.ids, s->likeliest));
    scored = 0;
    for (size_t i = first; i < last; i++)
        CAB_TRY(take_row(s, &s->rows[i], &scored));
    return CAB_OK;
}

/* All rows of one padded length, from the first that is not done. */
static cab_status run_length(scorer *s, int64_t budget, cab_progress *progress)
{
    size_t first = s->done, last = first, most = 0;
    s->L = padded(s->model, s->rows[first].length);
    while (last < s->n_rows && padded(s->model, s->rows[last].length) == s->L)
        last++;
    s->B = budget / s->L > 1 ? budget / s->L : 1;
    s->B = (size_t)s->B < last - first ? s->B : (int64_t)(last - first);
    for (size_t at = first; at < last; at += (size_t)s->B) {
        size_t scored = 0;
        for (size_t i = at; i < last && i < at + (size_t)s->B; i++)
            scored += s->rows[i].scored;
        most = scored > most ? scored : most;
    }
    s->S = (int64_t)((most + SCORED_STEP - 1) / SCORED_STEP * SCORED_STEP);
    CAB_TRY(open_graph(s));
    while (s->done < last) {
        const size_t end = s->done + (size_t)s->B < last ? s->done + (size_t)s->B : last;
        CAB_TRY(run_batch(s, s->done, end));
        s->done = end;
        cab_progress_update(progress, s->done, "");
    }
    return CAB_OK;
}

cab_status cab_score_requests(const cab_model *model, const cab_request *requests, size_t n, const char *title,
                              cab_score *scores, size_t *cut)
{
    scorer s = {.model = model, .scores = scores};
    const int64_t budget = strcmp(model->backend->name, "cpu") == 0 ? CPU_TOKENS : GPU_TOKENS;
    cab_progress progress;
    cab_status status;
    if (cut != NULL)
        *cut = 0;
    memset(scores, 0, n * sizeof *scores);
    if (n == 0)
        return CAB_OK;
    CAB_GOTO(make_parts(&s, requests, n, cut));
    CAB_GOTO(make_rows(&s));
    cab_progress_begin(&progress, title, "texts", 0, s.n_rows);
    while (status == CAB_OK && s.done < s.n_rows)
        status = run_length(&s, budget, &progress);
    cab_progress_end(&progress);
done:
    close_graph(&s);
    cab_free(s.parts);
    cab_free(s.rows);
    return status;
}
