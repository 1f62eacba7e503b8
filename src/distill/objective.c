#include "distill/objective.h"

#include "base/memory.h"
#include "tensor/readback.h"

#include <math.h>
#include <string.h>

/* What a run gives beside the terms' scalars, in this order before them; NULL where nothing gives it. */
enum { RESULT_AGREEMENT, RESULT_COUNT, RESULT_TERMS };

struct cab_objective {
    cab_objective_options options;
    cab_graph *graph;
    cab_tensor *input, *labels, *valid, *targets, *starts;
    cab_image_feed feed;  /* makes `input`, where pictures come as bytes */
    cab_head_words words; /* in the teacher's place; NULL: it runs, or there is none */
    cab_head_losses losses;
    cab_term_output terms[CAB_TERM_COUNT];
    cab_tensor *weights[CAB_TERM_COUNT]; /* of the stage's terms, divided by `over` and by the share */
    cab_tensor **results;
    float (*values)[2]; /* of each of them */
    int n_results;
    cab_readback *readback;
    cab_portion
        portions[CAB_READBACKS]; /* of the micro-batches that were started, at their number modulo CAB_READBACKS */
    uint64_t started, finished;
    float written[CAB_TERM_COUNT]; /* the weights that the device has; NAN: none yet */
    int32_t *all_valid;
    bool valid_written; /* the device has all_valid */
    cab_portion portion;
    cab_params *stores[2]; /* that train: the student's and, if there are any, the terms' */
};

/* ---- recording -------------------------------------------------------------------------------------------------------- */

/* Taps of one model: arrays of n_layer tensors in one block; NULL where no term asks for them. */
typedef struct tap_set {
    cab_tensor **block;
    cab_taps taps;
} tap_set;

static cab_status taps_new(tap_set *set, unsigned wanted, int n_layer)
{
    cab_tensor ***const arrays[CAB_TAPS] = {[CAB_TAP_QUERY] = &set->taps.query,
                                            [CAB_TAP_KEY] = &set->taps.key,
                                            [CAB_TAP_C] = &set->taps.C,
                                            [CAB_TAP_B] = &set->taps.B,
                                            [CAB_TAP_X] = &set->taps.x,
                                            [CAB_TAP_MIXER_IN] = &set->taps.mixer_in,
                                            [CAB_TAP_MIXER_OUT] = &set->taps.mixer_out,
                                            [CAB_TAP_VALUE] = &set->taps.value,
                                            [CAB_TAP_HIDDEN] = &set->taps.hidden,
                                            [CAB_TAP_QUERY_BACK] = &set->taps.query_back,
                                            [CAB_TAP_KEY_BACK] = &set->taps.key_back,
                                            [CAB_TAP_DECAY] = &set->taps.decay,
                                            [CAB_TAP_DECAY_BACK] = &set->taps.decay_back};
    CAB_TRY(CAB_NEW(&set->block, (size_t)CAB_TAPS * (size_t)n_layer, "taps"));
    for (int i = 0; i < CAB_TAPS; i++)
        if (wanted & CAB_TAP_BIT(i))
            *arrays[i] = set->block + (size_t)i * (size_t)n_layer;
    return CAB_OK;
}

/* Whether a term takes part. An evaluation has those of the head, as far as there is a teacher. */
static bool has_term(const cab_objective *o, int t, bool teacher)
{
    const unsigned needs = cab_term_at((cab_term_id)t)->needs;
    if (o->options.train)
        return o->options.terms[t];
    return (needs & CAB_NEEDS_HEAD) && (teacher || !(needs & CAB_NEEDS_TEACHER));
}

/* What the terms that take part need, and the taps that they ask for. */
typedef struct wishes {
    unsigned student_taps, teacher_taps;
    bool head, teacher_head;
} wishes;

static wishes gather_wishes(const cab_objective *o, bool teacher)
{
    wishes w = {0};
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        const cab_term *term = cab_term_at((cab_term_id)t);
        if (!has_term(o, t, teacher))
            continue;
        w.student_taps |= term->student_taps;
        w.teacher_taps |= term->teacher_taps;
        w.head = w.head || (term->needs & CAB_NEEDS_HEAD);
        w.teacher_head = w.teacher_head || ((term->needs & CAB_NEEDS_HEAD) && (term->needs & CAB_NEEDS_TEACHER));
    }
    return w;
}

/* A head loss needs the hidden states of whoever takes part in it. */
static void record_head(cab_objective *o, const cab_term_inputs *in, bool teacher)
{
    const cab_head_side *given = &o->options.teacher_head;
    cab_head_side sides[2] = {cab_model_head(in->student), {0}};
    sides[0].hidden = in->student_hidden;
    if (teacher && o->words.ids == NULL) {
        sides[1] = given->w != NULL ? *given : cab_model_head(in->teacher);
        sides[1].hidden = in->teacher_hidden;
    }
    if (o->options.targets)
        o->targets = cab_graph_input(o->graph, "targets", CAB_F32, 3,
                                     (int64_t[]){o->options.batch, o->options.seq_len, sides[0].w->shape[0]});
    if (o->words.ids != NULL)
        o->losses = cab_head_loss_words(o->graph, &sides[0], &o->words, o->labels, o->valid, o->options.temperature);
    else
        o->losses = cab_head_loss_targets(o->graph, &sides[0], teacher ? &sides[1] : NULL, o->labels, o->targets,
                                          o->valid, o->options.temperature);
    cab_graph_keep(o->graph, o->losses.agreement);
    cab_graph_keep(o->graph, o->losses.count);
}

/* Lets the terms record that read the head, or those that do not. What the head gives is reported even where the stage does
 * not weigh it. */
static cab_status record_terms(cab_objective *o, cab_term_inputs *in, const cab_term_set *set, bool head)
{
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        const cab_term *term = cab_term_at((cab_term_id)t);
        const bool of_head = (term->needs & CAB_NEEDS_HEAD) != 0;
        in->state = set != NULL ? set->state[t] : NULL;
        if (of_head == head && (head || has_term(o, t, in->teacher != NULL)) &&
            (term->open == NULL || in->state != NULL))
            CAB_TRY(term->record(in, &o->terms[t]));
    }
    return CAB_OK;
}

static void record_inputs(cab_objective *o, const cab_model *student)
{
    const int64_t shape[2] = {o->options.batch, o->options.seq_len};
    char name[CAB_NAME_MAX];
    cab_graph *g = o->graph;
    if (o->options.pictures != NULL)
        cab_image_feed_record(g, o->options.pictures, &o->feed);
    o->input = o->options.pictures != NULL ? o->feed.image : cab_model_input(g, student, shape[0], shape[1]);
    o->labels = cab_graph_input(g, "labels", CAB_I32, 2, shape);
    o->valid = cab_graph_input(g, "valid", CAB_I32, 2, shape);
    if (o->options.documents)
        o->starts = cab_graph_input(g, "starts", CAB_I32, 2, shape);
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        snprintf(name, sizeof name, "%s weight", cab_term_name((cab_term_id)t));
        o->weights[t] = cab_graph_scalar(g, name, 0);
    }
}

static void record_backward(cab_objective *o)
{
    cab_tensor **outputs = NULL, **seeds = NULL;
    const size_t capacity = (size_t)(o->n_results - RESULT_TERMS);
    int n = 0;
    if (CAB_NEW(&outputs, capacity, "loss terms") != CAB_OK || CAB_NEW(&seeds, capacity, "loss terms") != CAB_OK) {
        cab_graph_fail(o->graph, CAB_ENOMEM, "%s", cab_error_text());
        goto done;
    }
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        for (int i = 0; o->options.terms[t] && i < o->terms[t].count; i++) {
            outputs[n] = o->terms[t].scalars[i];
            seeds[n++] = o->weights[t];
        }
    cab_graph_backward(o->graph, n, outputs, seeds);
done:
    cab_free(outputs);
    cab_free(seeds);
}

static cab_status list_results(cab_objective *o)
{
    int n = RESULT_TERMS;
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        n += o->terms[t].count;
    CAB_TRY(CAB_NEW(&o->results, (size_t)n, "results"));
    CAB_TRY(CAB_NEW(&o->values, (size_t)n, "results"));
    o->results[RESULT_AGREEMENT] = o->losses.agreement;
    o->results[RESULT_COUNT] = o->losses.count;
    o->n_results = RESULT_TERMS;
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        for (int i = 0; i < o->terms[t].count; i++)
            o->results[o->n_results++] = o->terms[t].scalars[i];
    return CAB_OK;
}

/* What the batch gives of the teacher, where that is all of it that the terms ask for. */
static void record_words(cab_objective *o, const wishes *want)
{
    const int64_t shape[3] = {o->options.batch, o->options.seq_len, o->options.words};
    if (o->options.words == 0 || !want->teacher_head || want->teacher_taps != 0)
        return;
    o->words.ids = cab_graph_input(o->graph, "teacher's words", CAB_I32, 3, shape);
    o->words.top = cab_graph_input(o->graph, "teacher's log p", CAB_F32, 3, shape);
}

static cab_status objective_record(cab_objective *o, const cab_model *student, const cab_model *teacher,
                                   const cab_term_set *set)
{
    const wishes want = gather_wishes(o, teacher != NULL);
    tap_set student_taps = {0}, teacher_taps = {0};
    cab_term_inputs in = {.g = o->graph, .student = student, .teacher = teacher};
    cab_status status;
    record_inputs(o, student);
    record_words(o, &want);
    in.labels = o->labels;
    in.valid = o->valid;
    in.starts = o->starts;
    if (teacher != NULL && o->words.ids == NULL) {
        CAB_GOTO(taps_new(&teacher_taps, want.teacher_taps, teacher->config.n_layer));
        in.teacher_taps = &teacher_taps.taps;
        in.teacher_hidden = cab_model_record_documents(o->graph, teacher, o->input, o->starts, false, in.teacher_taps);
    }
    CAB_GOTO(taps_new(&student_taps, want.student_taps, student->config.n_layer));
    in.student_taps = &student_taps.taps;
    in.student_hidden =
        cab_model_record_documents(o->graph, student, o->input, o->starts, o->options.recompute, in.student_taps);
    CAB_GOTO(record_terms(o, &in, set, false));
    if (want.head) {
        record_head(o, &in, want.teacher_head);
        in.head = o->losses;
        CAB_GOTO(record_terms(o, &in, set, true));
    }
    CAB_GOTO(list_results(o));
    if (o->options.train) {
        record_backward(o);
        o->stores[0] = student->params;
        o->stores[1] = set != NULL ? set->params : NULL;
        cab_graph_reduce(o->graph, o->stores, o->stores[1] != NULL ? 2 : 1, o->options.scatter);
    }
done:
    cab_free(student_taps.block);
    cab_free(teacher_taps.block);
    return status;
}

/* ---- life --------------------------------------------------------------------------------------------------------------- */

cab_status cab_objective_new(cab_backend *backend, const cab_model *student, const cab_model *teacher,
                             const cab_term_set *terms, const cab_objective_options *options, cab_objective **objective)
{
    cab_objective *o = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&o, 1, "an objective"));
    o->options = *options;
    o->portion = (cab_portion){1, 1, 1};
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        o->terms[t].over = 1;
        o->written[t] = NAN;
    }
    CAB_GOTO(CAB_NEW(&o->all_valid, (size_t)(options->batch * options->seq_len), "a batch"));
    for (int64_t i = 0; i < options->batch * options->seq_len; i++)
        o->all_valid[i] = 1;
    CAB_GOTO(cab_graph_new(backend, &o->graph));
    CAB_GOTO(objective_record(o, student, teacher, terms));
    status = cab_readback_new(o->graph, o->n_results, o->results, &o->readback);
done:
    if (status != CAB_OK)
        cab_objective_free(o);
    else
        *objective = o;
    return status;
}

void cab_objective_free(cab_objective *o)
{
    if (o == NULL)
        return;
    cab_readback_free(o->readback);
    cab_graph_free(o->graph);
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        cab_free(o->terms[t].scalars);
    cab_free(o->results);
    cab_free(o->values);
    cab_free(o->all_valid);
    cab_free(o);
}

cab_status cab_objective_plan(cab_objective *o, cab_plan *plan)
{
    return cab_graph_plan(o->graph, plan);
}

cab_graph *cab_objective_graph(cab_objective *o)
{
    return o->graph;
}

void cab_objective_set_portion(cab_objective *o, const cab_portion *portion)
{
    o->portion = *portion;
}

/* Of the values that the term is a mean over, those that are on this rank. */
static double portion_of(const cab_portion *portion, int t)
{
    const unsigned needs = cab_term_at((cab_term_id)t)->needs;
    return needs & CAB_NEEDS_LABELS ? portion->labels : needs & CAB_NEEDS_HEAD ? portion->valid : portion->rows;
}

/* ---- running ------------------------------------------------------------------------------------------------------------ */

cab_status cab_objective_next(cab_objective *o, const cab_batch *batch)
{
    if (o->targets != NULL)
        CAB_TRY(cab_tensor_write_ahead(o->graph, o->targets, batch->targets));
    if (o->words.ids != NULL) {
        CAB_TRY(cab_tensor_write_ahead(o->graph, o->words.ids, batch->word_ids));
        CAB_TRY(cab_tensor_write_ahead(o->graph, o->words.top, batch->word_top));
    }
    if (batch->pictures != NULL)
        return cab_image_feed_write(o->graph, &o->feed, batch->pictures);
    return cab_tensor_write_ahead(o->graph, o->input, batch->input);
}

/* What the device has already is not sent again. */
static cab_status write_valid(cab_objective *o, const int32_t *valid)
{
    if (valid == NULL && o->valid_written)
        return CAB_OK;
    o->valid_written = valid == NULL;
    return cab_tensor_write(o->graph, o->valid, valid != NULL ? valid : o->all_valid);
}

static cab_status write_weights(cab_objective *o, const cab_term_weights *weights, int share)
{
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        const int over = o->terms[t].over;
        const float weight = over > 0 ? (float)(weights->of[t] * portion_of(&o->portion, t) / share / over) : 0;
        if (weight == o->written[t])
            continue;
        CAB_TRY(cab_scalar_write(o->graph, o->weights[t], weight));
        o->written[t] = weight;
    }
    return CAB_OK;
}

cab_status cab_objective_start(cab_objective *o, const cab_batch *batch, const cab_term_weights *weights, int share)
{
    cab_graph *g = o->graph;
    if (batch->pictures != NULL)
        CAB_TRY(cab_image_feed_write(g, &o->feed, batch->pictures));
    if (batch->input != NULL)
        CAB_TRY(cab_tensor_write(g, o->input, batch->input));
    if ((batch->input != NULL || batch->pictures != NULL) && o->targets != NULL)
        CAB_TRY(cab_tensor_write(g, o->targets, batch->targets));
    if (batch->input != NULL && o->words.ids != NULL) {
        CAB_TRY(cab_tensor_write(g, o->words.ids, batch->word_ids));
        CAB_TRY(cab_tensor_write(g, o->words.top, batch->word_top));
    }
    CAB_TRY(cab_tensor_write(g, o->labels, batch->labels));
    if (o->starts != NULL)
        CAB_TRY(cab_tensor_write(g, o->starts, batch->starts));
    CAB_TRY(write_valid(o, batch->valid));
    CAB_TRY(write_weights(o, weights, share));
    CAB_TRY(cab_graph_run(g));
    o->portions[o->started++ % CAB_READBACKS] = o->portion;
    return cab_readback_ask(o->readback);
}

bool cab_objective_full(const cab_objective *o)
{
    return o->started - o->finished == CAB_READBACKS;
}

/* Whether there was something that the term is a mean over. */
static bool counted(int t, const cab_term_output *term, const cab_term_values *v)
{
    const unsigned needs = cab_term_at((cab_term_id)t)->needs;
    if (term->count == 0 || term->over == 0)
        return false;
    return needs & CAB_NEEDS_LABELS ? v->labels > 0 : needs & CAB_NEEDS_HEAD ? v->valid > 0 : true;
}

cab_status cab_objective_finish(cab_objective *o, cab_term_values *values)
{
    CAB_TRY(cab_readback_take(o->readback, sizeof *o->values, o->values));
    const cab_portion *portion = &o->portions[o->finished++ % CAB_READBACKS];
    const float(*scalar)[2] = (const float(*)[2])o->values + RESULT_TERMS;
    const bool agreement = o->results[RESULT_AGREEMENT] != NULL;
    *values = (cab_term_values){.agreement =
                                    agreement ? portion->valid * (double)o->values[RESULT_AGREEMENT][0] : (double)NAN,
                                .labels = (int64_t)o->values[RESULT_COUNT][0],
                                .valid = (int64_t)o->values[RESULT_COUNT][1]};
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        const cab_term_output *term = &o->terms[t];
        double sum = 0;
        for (int i = 0; i < term->count; i++)
            sum += (double)(*scalar++)[0];
        values->of[t] = term->count > 0 && term->over > 0 ? portion_of(portion, t) * sum / term->over : (double)NAN;
        values->counted[t] = counted(t, term, values);
    }
    return CAB_OK;
}

cab_status cab_objective_term_scalars(const cab_objective *o, cab_term_id term, float *values, int most, int *count)
{
    int first = RESULT_TERMS;
    for (int t = 0; t < (int)term; t++)
        first += o->terms[t].count;
    *count = o->terms[term].count;
    for (int i = 0; i < *count && i < most; i++)
        values[i] = o->values[first + i][0];
    return CAB_OK;
}

cab_status cab_objective_run(cab_objective *o, const cab_batch *batch, const cab_term_weights *weights, int share,
                             cab_term_values *values)
{
    CAB_TRY(cab_objective_start(o, batch, weights, share));
    return cab_objective_finish(o, values);
}
