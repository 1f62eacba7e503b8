/* keep_trial.c - which heads or layers stay attention, by trial. A student that keeps head h of every layer, and one that keeps none, learn layer
 * by layer for a few steps (distill/term_layer.c). Then, on samples that no student has learned,
 *
 *   cost[l][h] = error of layer l where nothing is kept - error of layer l where head h is kept
 *
 * in shares of the variance of what attention gives. Layers learn apart from one another, so one student tries a head of every
 * layer at once. Of whole layers one trial says all: cost[l] is the error of layer l where nothing is kept. */
#include "train/keep_trial.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "train/optimizer.h"
#include "train/schedule.h"

typedef struct trial {
    const cab_domain_setup *setup;
    const cab_trial_data *data;
    cab_student_source source;
    cab_recipe recipe; /* the run's, with one stage: the layers */
    cab_stage stage;
    cab_kept kept; /* nothing, or the same head of every layer */
    int32_t *no_labels;
    int *layer_map; /* the run's; without one every layer is its own teacher */
    cab_model *student;
    cab_term_set terms;
    cab_objective *objective;
    cab_optimizer *optimizer;
} trial;

/* The stage of layers that the recipe has, or one of its first stage's rate. */
static void describe_stage(trial *t, const cab_recipe *recipe)
{
    unsigned index = recipe->stages_count;
    while (index-- > 1)
        if (cab_stage_uses(&recipe->stages[index], CAB_TERM_LAYER))
            break;
    t->stage = (cab_stage){.name = recipe->stages[index].name,
                           .lr = recipe->stages[index].lr,
                           .layer = 1,
                           .layer_end = -1,
                           .reused_rate = 1};
    t->recipe = *recipe;
    t->recipe.stages = &t->stage;
    t->recipe.stages_count = 1;
}

static cab_status trial_open(trial *t, const cab_domain_setup *setup, const cab_student_source *source,
                             const cab_trial_data *data, const cab_kept *kept)
{
    const size_t n = (size_t)(CAB_TRIAL_BATCH * data->seq_len);
    *t = (trial){.setup = setup, .data = data, .source = *source};
    describe_stage(t, source->recipe);
    CAB_TRY(CAB_NEW(&t->layer_map, (size_t)kept->n_layer, "a layer map"));
    CAB_TRY(CAB_NEW(&t->kept.units, (size_t)kept->n_layer, "kept attention"));
    CAB_TRY(CAB_NEW(&t->no_labels, n, "labels"));
    for (int l = 0; l < kept->n_layer; l++)
        t->layer_map[l] = source->layer_map != NULL ? source->layer_map[l] : l;
    for (size_t i = 0; i < n; i++)
        t->no_labels[i] = -1;
    t->source.recipe = &t->recipe;
    t->source.layer_map = t->layer_map;
    t->source.kept = &t->kept;
    return CAB_OK;
}

static void close_student(trial *t)
{
    cab_optimizer_free(t->optimizer);
    cab_objective_free(t->objective);
    cab_term_set_close(&t->terms);
    cab_model_free(t->student);
    t->optimizer = NULL;
    t->objective = NULL;
    t->student = NULL;
}

/* A student, what it learns, and how. */
static cab_status open_student(trial *t)
{
    const cab_recipe *r = &t->recipe;
    const cab_model *teacher = t->source.teacher;
    const double ranks = cab_communicator_size(t->setup->communicator);
    const cab_objective_options options = {.batch = CAB_TRIAL_BATCH,
                                           .seq_len = t->data->seq_len,
                                           .pictures = t->data->pictures,
                                           .terms = {[CAB_TERM_LAYER] = true},
                                           .temperature = 1,
                                           .train = true};
    const cab_optimizer_rates rates = {.decay = (float)r->train.weight_decay, .others = 1};
    const cab_adamw_options adamw = {.beta1 = (float)r->train.beta1,
                                     .beta2 = (float)r->train.beta2,
                                     .eps = (float)r->train.eps,
                                     .clip = (float)r->train.clip};
    const bool quiet = cab_log_is_quiet();
    float *const *const averages[1] = {NULL};
    CAB_TRY(cab_student_create(&t->source, t->setup->backend, t->setup->precision, &t->student));
    cab_log_quiet(true);
    const cab_status status = cab_student_initialise(t->student, &t->source);
    cab_log_quiet(quiet);
    CAB_TRY(status);
    const cab_term_setup setup = {.recipe = r, .student = t->student, .teacher = teacher, .layer_map = t->layer_map};
    CAB_TRY(cab_term_set_open(&setup, &t->terms));
    CAB_TRY(cab_objective_new(t->setup->backend, t->student, teacher, &t->terms, &options, &t->objective));
    cab_objective_set_portion(t->objective, &(cab_portion){1 / ranks, 1 / ranks, 1 / ranks}); /* all do the same */
    CAB_TRY(cab_objective_plan(t->objective, NULL));
    return cab_optimizer_new(cab_objective_graph(t->objective), &t->student->params, averages, 1, &rates, &adamw, false,
                             &t->optimizer);
}

static cab_status run_batch(trial *t, int index, double weight)
{
    const cab_term_weights weights = {.of = {[CAB_TERM_LAYER] = weight}};
    cab_batch batch = {0};
    cab_term_values values;
    CAB_TRY(t->data->batch(t->data->data, index, &batch));
    batch.labels = t->no_labels;
    return cab_objective_run(t->objective, &batch, &weights, 1, &values);
}

/* error[n_layer]: of every layer, after learning with the head kept; -1: with none. */
static cab_status try_head(trial *t, int head, float *error)
{
    const int n_layer = t->kept.n_layer;
    double norm;
    int count;
    t->kept.count = head >= 0;
    for (int l = 0; l < n_layer && head >= 0; l++)
        t->kept.units[l] = head;
    CAB_TRY(open_student(t));
    for (int step = 0; step < CAB_TRIAL_STEPS; step++) {
        const double lr =
            cab_schedule_lr(&t->recipe, &t->stage, t->student->config.d_model, (uint64_t)step, CAB_TRIAL_STEPS);
        CAB_TRY(run_batch(t, step + 1, 1));
        CAB_TRY(cab_optimizer_step(t->optimizer, lr, (uint64_t)step + 1, &norm));
    }
    CAB_TRY(run_batch(t, 0, 0));
    CAB_TRY(cab_objective_term_scalars(t->objective, CAB_TERM_LAYER, error, n_layer, &count));
    close_student(t);
    return count == n_layer ? CAB_OK
                            : cab_fail(CAB_ESHAPE, "the layer-wise error has %d layers, expected %d", count, n_layer);
}

static cab_status measure(trial *t, cab_kept *kept, float *none, float *with)
{
    const int trials = kept->layers ? 0 : kept->n_head;
    cab_progress progress;
    cab_status status;
    cab_progress_begin(&progress, kept->layers ? "trying layers" : "trying heads", "trials", 0, (uint64_t)trials + 1);
    CAB_GOTO(try_head(t, -1, none));
    for (int l = 0; l < kept->n_layer && kept->layers; l++)
        kept->cost[l] = none[l];
    for (int h = 0; h < trials; h++) {
        cab_progress_update(&progress, (uint64_t)h + 1, "");
        CAB_GOTO(try_head(t, h, with));
        for (int l = 0; l < kept->n_layer; l++)
            kept->cost[l * kept->n_head + h] = none[l] - with[l];
    }
    status = CAB_OK;
done:
    cab_progress_end(&progress);
    return status;
}

static cab_status windows_batch(void *data, int index, cab_batch *batch)
{
    const cab_windows *w = data;
    *batch = (cab_batch){.input = w->ids + (int64_t)index * CAB_TRIAL_BATCH * w->length};
    return CAB_OK;
}

cab_trial_data cab_trial_windows(cab_windows *windows)
{
    return (cab_trial_data){.seq_len = windows->length, .batch = windows_batch, .data = windows};
}

cab_status cab_keep_trial(const cab_domain_setup *setup, const cab_student_source *source, const cab_trial_data *data,
                          cab_kept *kept)
{
    float *none = NULL, *with = NULL;
    trial t = {0};
    cab_status status;
    CAB_GOTO(CAB_NEW(&none, (size_t)kept->n_layer, "errors"));
    CAB_GOTO(CAB_NEW(&with, (size_t)kept->n_layer, "errors"));
    CAB_GOTO(trial_open(&t, setup, source, data, kept));
    t.kept.layers = kept->layers;
    t.kept.n_layer = kept->n_layer;
    t.kept.n_head = kept->n_head;
    CAB_GOTO(measure(&t, kept, none, with));
    cab_kept_decide(kept);
    status = CAB_OK;
done:
    close_student(&t);
    cab_kept_close(&t.kept);
    cab_free(t.layer_map);
    cab_free(t.no_labels);
    cab_free(none);
    cab_free(with);
    return status;
}

/* ---- in directories --------------------------------------------------------------------------------------------------- */

cab_status cab_kept_recall(const cab_domain_setup *setup, cab_kept *kept, bool *found)
{
    const cab_recipe *r = setup->recipe;
    const cab_config *t = &setup->teacher->config;
    char path[CAB_PATH_MAX];
    cab_kept k;
    *found = false;
    if (setup->anew || r->out[0] == '\0')
        return CAB_OK;
    CAB_TRY(cab_path_join(path, r->out, CAB_KEPT_FILE));
    if (!cab_path_exists(path))
        return CAB_OK;
    CAB_TRY(cab_kept_load(path, &k));
    *found = k.by == (int)r->student.keep_by && k.count == (int)r->student.keep &&
             k.n_layer == cab_kept_layers(setup->teacher, r, k.layers) && (k.layers || k.n_head == t->n_head);
    if (!*found) {
        cab_kept_close(&k);
        return CAB_OK;
    }
    k.n_head = t->n_head;
    *kept = k;
    return CAB_OK;
}

cab_status cab_kept_record(const cab_kept *kept, const char *directory)
{
    char path[CAB_PATH_MAX];
    CAB_TRY(cab_path_join(path, directory, CAB_KEPT_FILE));
    return cab_kept_save(kept, path);
}
