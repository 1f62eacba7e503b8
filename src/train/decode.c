/* decode.c - a graph of one token per sequence: states, caches, tokens and the position stay in it, and its last node writes
 * what the next run reads. */
#include "train/decode.h"

#include "base/memory.h"
#include "ops/attention.h"

#include <inttypes.h>
#include <omp.h>
#include <string.h>

/* Bytes of weights times sequences: below this a step runs on one thread. */
#define SMALL_STEP 8e6

struct cab_decode {
    const cab_model *model;
    cab_graph *graph;
    cab_tensor *tokens, *position, *logits;
    int64_t batch;
    int32_t count; /* what `position` holds */
    int threads;   /* of a step on the processor */
    char *raw;     /* logits as the model gives them */
};

/* What the host gives: every prompt, its length, its sample number, and the first tokens. */
typedef struct feed {
    cab_tensor *prompts, *lengths, *samples;
    int32_t *ids, *numbers;
} feed;

static cab_status write_rows(cab_decode *d, const feed *f, const cab_decode_row *rows)
{
    const size_t width = (size_t)cab_columns(f->prompts);
    for (int64_t b = 0; b < d->batch; b++)
        memcpy(f->ids + (size_t)b * width, rows[b].prompt, rows[b].length * sizeof *f->ids);
    CAB_TRY(cab_tensor_write(d->graph, f->prompts, f->ids));
    for (int64_t b = 0; b < d->batch; b++)
        f->numbers[b] = (int32_t)rows[b].length;
    CAB_TRY(cab_tensor_write(d->graph, f->lengths, f->numbers));
    for (int64_t b = 0; b < d->batch; b++)
        f->numbers[b] = rows[b].sample;
    CAB_TRY(cab_tensor_write(d->graph, f->samples, f->numbers));
    for (int64_t b = 0; b < d->batch; b++)
        f->numbers[b] = rows[b].prompt[0];
    return cab_tensor_write(d->graph, d->tokens, f->numbers);
}

/* A step of a small model is over before a second thread is awake, and beside other programs each of its many barriers may wait for
 * a whole time slice: on one thread a million parameters decode 13,000 tokens/s whoever else is at work. */
static int threads_of_step(const cab_decode *d)
{
    const cab_backend *backend = d->model->backend;
    return backend->host && cab_decode_traffic_of(d).weights * (double)d->batch < SMALL_STEP ? 1 : backend->threads;
}

/* Plans or runs the graph with the threads of a step; another graph of the backend has its own. */
static cab_status with_threads(cab_decode *d, bool plan)
{
    cab_backend *backend = d->model->backend;
    const int before = backend->threads, team = omp_get_max_threads();
    backend->threads = d->threads;
    const cab_status status = plan ? cab_graph_plan(d->graph, NULL) : cab_graph_run(d->graph);
    backend->threads = before;
    if (d->threads != before)
        omp_set_num_threads(team); /* a product sets its own number */
    return status;
}

static cab_status decode_record(cab_decode *d, feed *f, const cab_decode_row *rows, const cab_sampling *sampling)
{
    size_t longest = 1;
    for (int64_t b = 0; b < d->batch; b++) {
        if (rows[b].length == 0 || rows[b].length > INT32_MAX)
            return cab_fail(CAB_EARG, "a prompt has %zu tokens, expected 1 or more", rows[b].length);
        longest = rows[b].length > longest ? rows[b].length : longest;
    }
    cab_graph *g = d->graph;
    f->prompts = cab_graph_input(g, "prompts", CAB_I32, 2, (int64_t[]){d->batch, (int64_t)longest});
    f->lengths = cab_graph_input(g, "prompts' lengths", CAB_I32, 1, &d->batch);
    f->samples = cab_graph_input(g, "samples", CAB_I32, 1, &d->batch);
    d->tokens = cab_graph_state(g, "tokens", CAB_I32, 2, (int64_t[]){d->batch, 1});
    d->position = cab_graph_state(g, "position", CAB_I32, 1, (int64_t[]){1});
    const cab_head_side head = cab_model_head(d->model);
    cab_tensor *hidden = cab_model_record_step(g, d->model, d->tokens, d->position);
    cab_tensor *logits = cab_linear_logits(g, hidden, head.w, head.b, CAB_OUT_IN);
    d->logits = cab_network_cap(g, &d->model->network, logits);
    cab_graph_keep(g, d->logits);
    cab_tensor *seen = NULL;
    if (sampling->repeat_penalty > 0 && sampling->repeat_penalty != 1)
        seen = cab_graph_state(g, "tokens fed", CAB_I32, 2, (int64_t[]){d->batch, (cab_columns(d->logits) + 31) / 32});
    const cab_next_token_inputs in = {.logits = d->logits,
                                      .prompts = f->prompts,
                                      .lengths = f->lengths,
                                      .samples = f->samples,
                                      .tokens = d->tokens,
                                      .position = d->position,
                                      .seen = seen};
    cab_next_token(g, &in, sampling);
    d->threads = threads_of_step(d);
    CAB_TRY(with_threads(d, true));
    CAB_TRY(CAB_NEW(&f->ids, (size_t)d->batch * longest, "prompts"));
    CAB_TRY(CAB_NEW(&f->numbers, (size_t)d->batch, "prompts"));
    return write_rows(d, f, rows);
}

cab_status cab_decode_new(const cab_model *model, const cab_decode_row *rows, int64_t batch,
                          const cab_sampling *sampling, cab_decode **out)
{
    cab_decode *d = NULL;
    feed f = {0};
    cab_status status;
    if (!cab_network_steps(&model->network))
        return cab_fail(CAB_EUNSUPPORTED, "a model of architecture \"%s\" generates no text", model->arch->name);
    CAB_TRY(CAB_NEW(&d, 1, "a decoder"));
    d->model = model;
    d->batch = batch;
    CAB_GOTO(cab_graph_new(model->backend, &d->graph));
    CAB_GOTO(decode_record(d, &f, rows, sampling));
    status = cab_alloc((void **)&d->raw, cab_tensor_bytes(d->logits), 1, "logits");
done:
    cab_free(f.ids);
    cab_free(f.numbers);
    if (status != CAB_OK)
        cab_decode_free(d);
    else
        *out = d;
    return status;
}

void cab_decode_free(cab_decode *d)
{
    if (d == NULL)
        return;
    cab_graph_free(d->graph);
    cab_free(d->raw);
    cab_free(d);
}

int32_t cab_decode_position(const cab_decode *d)
{
    return d->count;
}

bool cab_decode_full(const cab_decode *d)
{
    return cab_network_bounded(&d->model->network) && d->count >= d->model->network.step_length;
}

cab_status cab_decode_step(cab_decode *d)
{
    if (cab_decode_full(d))
        return cab_fail(CAB_ESHAPE, "%s: the model's context of %" PRId64 " tokens is full",
                        d->model->directory != NULL ? d->model->directory : d->model->arch->name,
                        d->model->network.step_length);
    CAB_TRY(with_threads(d, false));
    d->count += d->count < INT32_MAX;
    return CAB_OK;
}

cab_status cab_decode_tokens(cab_decode *d, int32_t *tokens)
{
    return cab_tensor_read(d->graph, d->tokens, tokens);
}

cab_status cab_decode_put(cab_decode *d, const int32_t *tokens)
{
    return cab_tensor_write(d->graph, d->tokens, tokens);
}

cab_status cab_decode_logits(cab_decode *d, float *logits)
{
    const cab_tensor *t = d->logits;
    const size_t row = (size_t)t->ld * cab_dtype_size(t->dtype), columns = (size_t)cab_columns(t);
    CAB_TRY(cab_tensor_read(d->graph, t, d->raw));
    for (size_t b = 0; b < (size_t)d->batch; b++)
        cab_convert(logits + b * columns, CAB_F32, d->raw + b * row, t->dtype, columns);
    return CAB_OK;
}

cab_status cab_decode_seek(cab_decode *d, int32_t position)
{
    d->count = position;
    return cab_tensor_write(d->graph, d->position, &position);
}

/* An embedding: of its tables a step takes a row per sequence. */
static bool gathers(const cab_decode *d, const cab_node *node)
{
    return node->n_in > 0 && node->in[0] == d->tokens;
}

/* Whether a node before has read the whole tensor. */
static bool read_before(const cab_decode *d, int index, const cab_tensor *t)
{
    for (int i = 0; i < index; i++) {
        const cab_node *node = cab_graph_node(d->graph, i);
        for (int k = 0; k < node->n_in && !gathers(d, node); k++)
            if (node->in[k] == t)
                return true;
    }
    return false;
}

cab_decode_traffic cab_decode_traffic_of(const cab_decode *d)
{
    const double length = (double)d->model->network.step_length;
    cab_decode_traffic sum = {0};
    for (int i = 0; i < cab_graph_nodes(d->graph); i++) {
        const cab_node *node = cab_graph_node(d->graph, i);
        for (int k = 0; k < node->n_in; k++) {
            const cab_tensor *t = node->in[k];
            if (t == NULL || t == d->tokens || t == d->position)
                continue;
            const double bytes = (double)cab_tensor_bytes(t);
            if (t->kind == CAB_PARAMETER && gathers(d, node))
                sum.weights += bytes / (double)cab_rows(t) * (double)d->batch;
            else if (t->kind == CAB_PARAMETER && !read_before(d, i, t))
                sum.weights += bytes;
            else if (t->kind == CAB_STATE && node->op == &cab_op_attention_step) { /* a cache, filled so far */
                sum.state += bytes * d->count / length;
                sum.moved += bytes * (d->count + 1) / length;
            } else if (t->kind == CAB_STATE) {
                sum.state += bytes;
                sum.moved += 2 * bytes;
            }
        }
    }
    return sum;
}
