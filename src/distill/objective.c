#include "distill/objective.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

struct cab_objective {
    cab_objective_options options;
    cab_graph *graph;
    cab_tensor *input; /* ids or pixels */
    cab_tensor *labels, *valid, *targets;
    cab_head_losses losses;
    cab_tensor **align_terms; /* 2 per aligned layer, 4 with two directions */
    int n_align, n_aligned;
    cab_tensor *ce_weight, *kl_weight, *align_weight;
    cab_tensor **results; /* what a run gives, in the order of `enum result`; NULL where there is no such term */
    float (*values)[2];   /* of each of them */
    int32_t *all_valid;
};

enum result { RESULT_CE, RESULT_KL, RESULT_AGREEMENT, RESULT_COUNT, RESULT_ALIGN };

/* Taps of one model: arrays of n_layer tensors in one block. */
typedef struct tap_set {
    cab_tensor **block;
    cab_taps taps;
} tap_set;

static cab_status taps_new(tap_set *set, int n_layer)
{
    CAB_TRY(CAB_NEW(&set->block, 4 * (size_t)n_layer, "taps"));
    set->taps = (cab_taps){.query = set->block,
                           .key = set->block + n_layer,
                           .query_back = set->block + 2 * (size_t)n_layer,
                           .key_back = set->block + 3 * (size_t)n_layer};
    return CAB_OK;
}

/* A head loss needs the hidden states of whoever takes part in it. */
static void record_head(cab_objective *o, const cab_model *student, const cab_model *teacher,
                        cab_tensor *student_hidden, cab_tensor *teacher_hidden)
{
    const cab_head_side *given = &o->options.teacher_head;
    cab_head_side sides[2] = {student->arch->head(student), {0}};
    sides[0].hidden = student_hidden;
    if (teacher != NULL) {
        sides[1] = given->w != NULL ? *given : teacher->arch->head(teacher);
        sides[1].hidden = teacher_hidden;
    }
    if (o->options.targets)
        o->targets = cab_graph_input(o->graph, "targets", CAB_F32, 3,
                                     (int64_t[]){o->options.batch, o->options.seq_len, sides[0].w->shape[0]});
    o->losses = cab_head_loss_targets(o->graph, &sides[0], teacher != NULL ? &sides[1] : NULL, o->labels, o->targets,
                                      o->valid, o->options.temperature);
    cab_graph_keep(o->graph, o->losses.ce);
    cab_graph_keep(o->graph, o->losses.kl);
    cab_graph_keep(o->graph, o->losses.agreement);
    cab_graph_keep(o->graph, o->losses.count);
}

static void record_backward(cab_objective *o)
{
    cab_tensor **outputs = NULL, **seeds = NULL;
    size_t capacity = 2 + (size_t)o->n_align;
    int n = 0;
    if (CAB_NEW(&outputs, capacity, "loss terms") != CAB_OK || CAB_NEW(&seeds, capacity, "loss terms") != CAB_OK) {
        cab_graph_fail(o->graph, CAB_ENOMEM, "%s", cab_error_text());
        goto done;
    }
    if (o->options.ce) {
        outputs[n] = o->losses.ce;
        seeds[n++] = o->ce_weight;
    }
    if (o->options.kl) {
        outputs[n] = o->losses.kl;
        seeds[n++] = o->kl_weight;
    }
    for (int i = 0; i < o->n_align; i++) {
        outputs[n] = o->align_terms[i];
        seeds[n++] = o->align_weight;
    }
    cab_graph_backward(o->graph, n, outputs, seeds);
done:
    cab_free(outputs);
    cab_free(seeds);
}

static void record_inputs(cab_objective *o, const cab_model *student)
{
    const int64_t size = student->config.image_size, shape[2] = {o->options.batch, o->options.seq_len};
    cab_graph *g = o->graph;
    if (cab_model_reads_images(student))
        o->input = cab_graph_input(g, "pixels", CAB_F32, 4, (int64_t[]){o->options.batch, 3, size, size});
    else
        o->input = cab_graph_input(g, "ids", CAB_I32, 2, shape);
    o->labels = cab_graph_input(g, "labels", CAB_I32, 2, shape);
    o->valid = cab_graph_input(g, "valid", CAB_I32, 2, shape);
    o->ce_weight = cab_graph_scalar(g, "ce weight", 0);
    o->kl_weight = cab_graph_scalar(g, "kl weight", 0);
    o->align_weight = cab_graph_scalar(g, "align weight", 0);
}

static cab_status record_alignment(cab_objective *o, const cab_model *student, const cab_model *teacher,
                                   const cab_bridge *bridge, const cab_taps *s, const cab_taps *t)
{
    o->n_aligned = cab_bridge_aligned(bridge);
    o->n_align = cab_bridge_terms(bridge);
    CAB_TRY(CAB_NEW(&o->align_terms, (size_t)o->n_align, "alignment terms"));
    if (cab_model_reads_images(student)) {
        const cab_bridge_images sides = {
            .B = s->key,
            .C = s->query,
            .B_back = s->key_back,
            .C_back = s->query_back,
            .K = t->key,
            .Q = t->query,
            .rows = {.class_at = student->config.class_at, .skip = teacher->config.n_special - 1}};
        cab_bridge_record_images(o->graph, bridge, &sides, o->align_terms);
    } else {
        cab_bridge_record(o->graph, bridge, s->key, s->query, t->key, t->query, o->align_terms);
    }
    for (int i = 0; i < o->n_align; i++)
        cab_graph_keep(o->graph, o->align_terms[i]);
    return CAB_OK;
}

static cab_status record(cab_objective *o, const cab_model *student, const cab_model *teacher, const cab_bridge *bridge)
{
    const cab_objective_options *opt = &o->options;
    cab_graph *g = o->graph;
    tap_set student_taps = {0}, teacher_taps = {0};
    cab_status status;
    bool head = opt->ce || opt->kl || !opt->train;
    record_inputs(o, student);
    CAB_GOTO(taps_new(&student_taps, student->config.n_layer));
    cab_tensor *teacher_hidden = NULL;
    if (teacher != NULL) {
        CAB_GOTO(taps_new(&teacher_taps, teacher->config.n_layer));
        teacher_hidden = cab_model_record(g, teacher, o->input, false, &teacher_taps.taps);
    }
    cab_tensor *hidden = cab_model_record(g, student, o->input, opt->recompute, &student_taps.taps);
    if (opt->align && bridge != NULL && teacher != NULL)
        CAB_GOTO(record_alignment(o, student, teacher, bridge, &student_taps.taps, &teacher_taps.taps));
    if (head)
        record_head(o, student, opt->kl || !opt->train ? teacher : NULL, hidden, teacher_hidden);
    if (opt->train)
        record_backward(o);
    status = CAB_OK;
done:
    cab_free(student_taps.block);
    cab_free(teacher_taps.block);
    return status;
}

static cab_status list_results(cab_objective *o)
{
    const size_t n = RESULT_ALIGN + (size_t)o->n_align;
    CAB_TRY(CAB_NEW(&o->results, n, "results"));
    CAB_TRY(CAB_NEW(&o->values, n, "results"));
    o->results[RESULT_CE] = o->losses.ce;
    o->results[RESULT_KL] = o->losses.kl;
    o->results[RESULT_AGREEMENT] = o->losses.agreement;
    o->results[RESULT_COUNT] = o->losses.count;
    for (int i = 0; i < o->n_align; i++)
        o->results[RESULT_ALIGN + i] = o->align_terms[i];
    return CAB_OK;
}

cab_status cab_objective_new(cab_backend *backend, const cab_model *student, const cab_model *teacher,
                             const cab_bridge *bridge, const cab_objective_options *options, cab_objective **objective)
{
    cab_objective *o = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&o, 1, "an objective"));
    o->options = *options;
    CAB_GOTO(CAB_NEW(&o->all_valid, (size_t)(options->batch * options->seq_len), "a batch"));
    for (int64_t i = 0; i < options->batch * options->seq_len; i++)
        o->all_valid[i] = 1;
    CAB_GOTO(cab_graph_new(backend, &o->graph));
    CAB_GOTO(record(o, student, teacher, bridge));
    status = list_results(o);
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
    cab_graph_free(o->graph);
    cab_free(o->align_terms);
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

static double value_of(const cab_objective *o, enum result r)
{
    return o->results[r] != NULL ? (double)o->values[r][0] : (double)NAN;
}

cab_status cab_objective_finish(cab_objective *o, cab_term_values *values)
{
    CAB_TRY(cab_tensors_read(o->graph, RESULT_ALIGN + o->n_align, o->results, sizeof *o->values, o->values));
    double sum = 0;
    for (int i = 0; i < o->n_align; i++)
        sum += (double)o->values[RESULT_ALIGN + i][0];
    *values = (cab_term_values){.ce = value_of(o, RESULT_CE),
                                .kl = value_of(o, RESULT_KL),
                                .align = o->n_aligned > 0 ? sum / o->n_aligned : (double)NAN,
                                .agreement = value_of(o, RESULT_AGREEMENT),
                                .labels = (int64_t)o->values[RESULT_COUNT][0],
                                .valid = (int64_t)o->values[RESULT_COUNT][1]};
    return CAB_OK;
}

/* The input is there already. */
static cab_status start(cab_objective *o, const int32_t *labels, const int32_t *valid, const cab_term_weights *weights,
                        int share)
{
    cab_graph *g = o->graph;
    CAB_TRY(cab_tensor_write(g, o->labels, labels));
    CAB_TRY(cab_tensor_write(g, o->valid, valid != NULL ? valid : o->all_valid));
    CAB_TRY(cab_scalar_write(g, o->ce_weight, (float)(weights->ce / share)));
    CAB_TRY(cab_scalar_write(g, o->kl_weight, (float)(weights->kl / share)));
    CAB_TRY(
        cab_scalar_write(g, o->align_weight, o->n_aligned > 0 ? (float)(weights->align / share / o->n_aligned) : 0));
    return cab_graph_run(g);
}

cab_status cab_objective_run(cab_objective *o, const int32_t *ids, const int32_t *labels, const int32_t *valid,
                             const cab_term_weights *weights, int share, cab_term_values *values)
{
    CAB_TRY(cab_tensor_write(o->graph, o->input, ids));
    CAB_TRY(start(o, labels, valid, weights, share));
    return cab_objective_finish(o, values);
}

cab_status cab_objective_next_images(cab_objective *o, const cab_image_batch *batch)
{
    if (o->targets != NULL)
        CAB_TRY(cab_tensor_write_ahead(o->graph, o->targets, batch->targets));
    return cab_tensor_write_ahead(o->graph, o->input, batch->pixels);
}

cab_status cab_objective_start_images(cab_objective *o, const cab_image_batch *batch, const cab_term_weights *weights,
                                      int share)
{
    if (batch->pixels != NULL)
        CAB_TRY(cab_objective_next_images(o, batch));
    return start(o, batch->labels, batch->valid, weights, share);
}

cab_status cab_objective_run_images(cab_objective *o, const cab_image_batch *batch, const cab_term_weights *weights,
                                    int share, cab_term_values *values)
{
    CAB_TRY(cab_objective_start_images(o, batch, weights, share));
    return cab_objective_finish(o, values);
}
