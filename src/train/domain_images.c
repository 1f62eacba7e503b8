/* domain_images.c - distilling from images: sets instead of token files, classes instead of a vocabulary.
 *
 * Of a teacher of 1000 classes and data of 200, the class map says which are which. The student then has the data's 200, and
 * the teacher is heard on these alone: a head of 200 rows, gathered from its own. Or (student.classes: teacher) the student has
 * all 1000, and labels are the teacher's. */
#include "train/domain_images.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/temporary.h"
#include "base/thread.h"
#include "distill/augmentation.h"
#include "distill/layer_map.h"
#include "distill/students.h"
#include "train/compare_internal.h"
#include "train/evaluate_images.h"
#include "train/image_scorer.h"
#include "train/inputs.h"
#include "train/keep_trial.h"
#include "train/predictions.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PERIODIC_IMAGES = 2048, EVALUATION_BATCH = 64, PREDICTIONS = 24 };

/* ---- data --------------------------------------------------------------------------------------------------------- */

/* Decodes everything now, if the recipe wants that kept. One file per set of images. */
static cab_status keep_decoded(const cab_recipe *r, cab_image_set *set, const char *name)
{
    char directory[CAB_PATH_MAX], path[CAB_PATH_MAX], file[64];
    if (r->data.image_cache == CAB_IMAGE_CACHE_NONE)
        return CAB_OK;
    if (r->data.image_cache == CAB_IMAGE_CACHE_MEMORY)
        return cab_image_set_cache(set, NULL, cab_thread_count());
    uint64_t hash = CAB_HASH_START;
    for (uint64_t i = 0; i < cab_image_set_count(set); i++) {
        cab_image_set_name(set, i, path);
        hash = cab_hash(hash, path, strlen(path) + 1);
    }
    snprintf(file, sizeof file, "images-%s-%016" PRIx64, name, hash);
    CAB_TRY(cab_domain_cache(r, directory));
    CAB_TRY(cab_directory_make(directory));
    cab_temporary_sweep(directory);
    CAB_TRY(cab_path_join(path, directory, file));
    return cab_image_set_cache(set, path, cab_thread_count());
}

static cab_status images_open_set(const cab_image_data *i, const cab_list *paths, const cab_classes *classes,
                                  double fraction, const char *name, cab_image_set **set)
{
    const cab_recipe *r = i->setup.recipe;
    const cab_image_set_options options = {.classes = classes,
                                           .on_error = r->data.on_error == 0 ? CAB_ON_ERROR_STOP : CAB_ON_ERROR_SKIP,
                                           .limits = cab_expand_limits_mib(r->data.max_member, r->data.max_expanded),
                                           .fraction = fraction,
                                           .seed = (uint64_t)r->seed,
                                           .decode = {.min_side = (int)r->data.min_side}};
    CAB_TRY(cab_image_set_open((const char *const *)paths->items, paths->count, &options, set));
    return keep_decoded(r, *set, name);
}

/* Periodic evaluations look at a share of every class. */
static cab_status open_part(cab_image_data *i)
{
    const cab_recipe *r = i->setup.recipe;
    const double wanted = r->train.eval_tokens > 0 ? (double)r->train.eval_tokens : PERIODIC_IMAGES;
    const double count = (double)cab_image_set_count(i->eval);
    if (wanted >= count)
        return CAB_OK;
    CAB_TRY(cab_image_set_share(i->eval, wanted / count, (uint64_t)r->seed, &i->part));
    return keep_decoded(r, i->part, "part");
}

/* Which of the teacher's classes the data's are. Without an answer only methods without KL can do, with a head that is new. */
static cab_status map_classes(cab_image_data *i)
{
    const cab_recipe *r = i->setup.recipe;
    const cab_classes *classes = cab_image_set_classes(i->train);
    const cab_config *t = &i->setup.teacher->config;
    const bool stated = r->data.classes[0] != '\0';
    const int32_t *map = NULL;
    if (!stated && (int64_t)classes->count != t->n_classes) {
        if (cab_recipe_needs(r, CAB_NEEDS_TEACHER | CAB_NEEDS_HEAD) || r->student.classes == CAB_CLASSES_TEACHER)
            return cab_fail(
                CAB_EARG,
                "data.classes is missing: the data has %zu classes, the teacher %s has %d; a class map says "
                "which of them these are (--classes)",
                classes->count, r->teacher.path, t->n_classes);
        return CAB_OK;
    }
    CAB_TRY(cab_image_classes_for(classes, i->setup.teacher, &map));
    i->compared = true;
    if (map == NULL)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&i->map, classes->count, "a class map"));
    memcpy(i->map, map, classes->count * sizeof *map);
    return CAB_OK;
}

/* Rows map[0], map[1] ... of `values`, each of `columns`, as a parameter of the run's own. */
static cab_status gather(cab_image_data *i, const cab_tensor *from, int64_t n, const char *name, cab_tensor **out)
{
    const int64_t columns = from->n_dim == 1 ? 1 : cab_columns(from), shape[2] = {n, columns};
    const size_t row = (size_t)columns * sizeof(float);
    float *all = NULL, *some = NULL;
    cab_status status;
    CAB_GOTO(CAB_NEW(&all, (size_t)cab_elements(from), name));
    CAB_GOTO(CAB_NEW(&some, (size_t)(n * columns), name));
    CAB_GOTO(cab_params_read(i->setup.teacher->params, from, all));
    for (int64_t k = 0; k < n; k++)
        memcpy(some + k * columns, all + i->map[k] * columns, row);
    CAB_GOTO(cab_params_add(i->head, name, from->dtype, from->n_dim, shape, CAB_NO_DECAY, out));
    status = cab_params_write(i->head, *out, some);
done:
    cab_free(all);
    cab_free(some);
    return status;
}

/* The teacher's head for the data's classes. */
static cab_status restrict_head(cab_image_data *i)
{
    const cab_head_side own = cab_model_head(i->setup.teacher);
    const int64_t n = (int64_t)cab_image_set_classes(i->train)->count;
    if (i->map == NULL || i->setup.recipe->student.classes == CAB_CLASSES_TEACHER)
        return CAB_OK;
    CAB_TRY(cab_params_new(i->setup.backend, &i->head));
    CAB_TRY(gather(i, own.w, n, "head of the data's classes", &i->side.w));
    return own.b == NULL ? CAB_OK : gather(i, own.b, n, "its bias", &i->side.b);
}

static cab_status images_open_sets(cab_image_data *i)
{
    const cab_recipe *r = i->setup.recipe;
    cab_classes given = {0};
    cab_augment augment;
    cab_status status;
    CAB_TRY(cab_image_transform_of(i->setup.teacher, &i->transform));
    CAB_TRY(cab_recipe_augment(r, &augment));
    i->mixed = augment.mixup > 0 || augment.cutmix > 0 || augment.smoothing > 0;
    if (r->data.classes[0] != '\0')
        CAB_TRY(cab_classes_load(r->data.classes, &given));
    CAB_GOTO(images_open_set(i, &r->data.train, given.count > 0 ? &given : NULL, r->data.fraction, "train", &i->train));
    CAB_GOTO(images_open_set(i, &r->data.eval, cab_image_set_classes(i->train), 1, "eval", &i->eval));
    CAB_GOTO(open_part(i));
    CAB_GOTO(map_classes(i));
    status = restrict_head(i);
done:
    cab_classes_free(&given);
    return status;
}

static void images_close(void *data)
{
    cab_image_data *i = data;
    if (i == NULL)
        return;
    cab_image_loader_free(i->loader);
    cab_image_set_free(i->train);
    cab_image_set_free(i->part);
    cab_image_set_free(i->eval);
    cab_params_free(i->head);
    cab_kept_close(&i->kept);
    cab_free(i->map);
    cab_free(i);
}

static cab_status images_open(const cab_domain_setup *setup, void **data, cab_domain_sizes *sizes)
{
    cab_image_data *i = NULL;
    CAB_TRY(CAB_NEW(&i, 1, "the data of a run"));
    i->setup = *setup;
    cab_status status = images_open_sets(i);
    if (status != CAB_OK) {
        images_close(i);
        return status;
    }
    *sizes = (cab_domain_sizes){.length = 1,
                                .pass = cab_image_set_count(i->train),
                                .eval = cab_image_set_count(i->eval),
                                .part = cab_image_set_count(i->part != NULL ? i->part : i->eval)};
    *data = i;
    return CAB_OK;
}

static cab_status add_set(cab_input_list *list, const char *key, const cab_image_set *set, const cab_list *paths)
{
    cab_fingerprint content;
    CAB_TRY(cab_image_set_fingerprint(set, &content));
    return cab_input_add(list, key, paths->count > 0 ? paths->items[0] : "", &content);
}

static cab_status images_inputs(const void *data, cab_input_list *list)
{
    const cab_image_data *i = data;
    const cab_recipe *r = i->setup.recipe;
    CAB_TRY(add_set(list, "data.train", i->train, &r->data.train));
    return add_set(list, "data.eval", i->eval, &r->data.eval);
}

/* ---- student ------------------------------------------------------------------------------------------------------ */

static int student_classes(const cab_image_data *i)
{
    return i->setup.recipe->student.classes == CAB_CLASSES_TEACHER ? i->setup.teacher->config.n_classes
                                                                   : (int)cab_image_set_classes(i->train)->count;
}

static cab_status open_given(const cab_image_data *i, cab_model **student)
{
    const cab_domain_setup *setup = &i->setup;
    const char *path = setup->recipe->student.path;
    CAB_TRY(
        cab_model_open_sized(path, setup->teacher->config.image_size, setup->backend, setup->precision, true, student));
    const cab_model *s = *student;
    if (!cab_student_can_be(s) || cab_domain_of(s) != &cab_domain_images)
        return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" cannot be a student of images", path, s->arch->name);
    if (s->config.n_classes != student_classes(i))
        return cab_fail(CAB_ESHAPE, "%s: tells %d classes apart, expected %d", path, s->config.n_classes,
                        student_classes(i));
    return CAB_OK;
}

/* What the trials see: pictures varied as in training, but apart from one another and whole. */
typedef struct trial {
    cab_image_loader *loader;
    cab_image_feed_options feed;
    cab_image_batch lent;
    cab_image_rows rows;
} trial;

static cab_status trial_batch(void *data, int index, cab_batch *batch)
{
    trial *t = data;
    CAB_TRY(cab_image_loader_batch(t->loader, (uint64_t)index, &t->lent));
    t->rows = cab_image_feed_rows(&t->feed, &t->lent, CAB_TRIAL_BATCH, 0);
    *batch = (cab_batch){.pictures = &t->rows};
    return CAB_OK;
}

/* Each of the student's layers by the layer of the teacher that it is. */
static cab_status try_layers(cab_image_data *i, const cab_student_source *source, const cab_trial_data *data)
{
    const struct cab_recipe_bridge *b = &i->setup.recipe->bridge;
    const int n = i->kept.n_layer;
    cab_student_source mapped = *source;
    int *map = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&map, (size_t)n, "a layer map"));
    CAB_GOTO(
        cab_layer_map((int)b->layer_map, b->layers.items, b->layers.count, n, source->teacher->config.n_layer, map));
    mapped.layer_map = map;
    status = cab_keep_trial(&i->setup, &mapped, data, &i->kept);
done:
    cab_free(map);
    return status;
}

static cab_status rank_layers(cab_image_data *i, const cab_student_source *source)
{
    cab_augment augment;
    trial t = {.feed = {.transform = &i->transform, .batch = CAB_TRIAL_BATCH}};
    const cab_trial_data data = {.seq_len = 1, .pictures = &t.feed, .batch = trial_batch, .data = &t};
    CAB_TRY(cab_recipe_augment(i->setup.recipe, &augment));
    augment.erase = augment.mixup = augment.cutmix = augment.smoothing = 0;
    const cab_image_loader_options options = {.transform = i->transform,
                                              .augment = &augment,
                                              .batch = CAB_TRIAL_BATCH,
                                              .seed = (uint64_t)i->setup.recipe->seed,
                                              .backend = i->setup.backend};
    CAB_TRY(cab_image_loader_open(i->train, &options, &t.loader));
    const cab_status status = try_layers(i, source, &data);
    cab_image_loader_free(t.loader);
    return status;
}

/* Which layers stay attention, where the student can have some. */
static cab_status choose_kept(cab_image_data *i, const cab_student_source *source)
{
    const cab_student *row = cab_student_of(source->recipe);
    bool found = false;
    if (row->keeps != NULL)
        CAB_TRY(cab_kept_recall(&i->setup, &i->kept, &found));
    if (row->keeps == NULL || found)
        return CAB_OK;
    CAB_TRY(row->keeps(source, NULL, &i->kept));
    if (i->kept.open)
        CAB_TRY(rank_layers(i, source));
    cab_kept_print(&i->kept);
    return CAB_OK;
}

/* From which the student is made; images_initialise() adds the layer map. */
static cab_student_source source_of(const cab_image_data *i)
{
    const cab_recipe *r = i->setup.recipe;
    return (cab_student_source){.teacher = i->setup.teacher,
                                .recipe = r,
                                .n_classes = student_classes(i),
                                .kept = &i->kept,
                                .class_map = r->student.classes == CAB_CLASSES_DATA ? i->map : NULL};
}

static cab_status images_student(void *data, cab_model **student)
{
    cab_image_data *i = data;
    const cab_domain_setup *setup = &i->setup;
    const cab_student_source source = source_of(i);
    if (setup->recipe->student.path[0] != '\0')
        return open_given(i, student);
    CAB_TRY(choose_kept(i, &source));
    return cab_student_create(&source, setup->backend, setup->precision, student);
}

static cab_status images_record(const void *data, const char *out)
{
    const cab_image_data *i = data;
    return i->kept.cost != NULL ? cab_kept_record(&i->kept, out) : CAB_OK; /* else named, or nothing */
}

static cab_status images_initialise(void *data, cab_model *student, const int *layer_map)
{
    cab_student_source source = source_of(data);
    source.layer_map = layer_map;
    return cab_student_initialise(student, &source);
}

/* ---- training ----------------------------------------------------------------------------------------------------- */

/* The rows of a step that are on this rank, of a micro-batch as many on each. Sample j and its partner in mixing, at the same distance
 * from the other end of the batch, are on the same rank: of a micro-batch of m rows, rows / 2 from the front and as many from the back. */
static cab_status choose_rows(const cab_image_data *i, int64_t micro_batch, int32_t **out)
{
    const int64_t q = i->rank_rows, half = q / 2, rank = cab_communicator_rank(i->setup.communicator);
    int32_t *rows = NULL;
    *out = NULL;
    if (q == micro_batch)
        return CAB_OK;
    if (i->feed.mixed && q % 2 != 0)
        return cab_fail(CAB_ESHAPE,
                        "of %" PRId64 " images at once (train.micro_batch) each of %d ranks has %" PRId64
                        ", an odd number: mixup and cutmix need pairs",
                        micro_batch, cab_communicator_size(i->setup.communicator), q);
    CAB_TRY(CAB_NEW(&rows, (size_t)i->rank_batch, "the rows of a batch"));
    for (int64_t k = 0; k < i->rank_batch; k++) {
        const int64_t first = k / q * micro_batch, at = k % q;
        const int64_t row = q % 2 != 0  ? rank * q + at
                            : at < half ? rank * half + at
                                        : micro_batch - (rank + 1) * half + at - half;
        rows[k] = (int32_t)(first + row);
    }
    *out = rows;
    return CAB_OK;
}

static cab_status open_training(cab_image_data *i, const cab_augment *augment, const int32_t *rows)
{
    const cab_recipe *r = i->setup.recipe;
    const cab_image_loader_options options = {.transform = i->transform,
                                              .augment = augment,
                                              .batch = (int)i->rank_batch,
                                              .whole = (int)i->batch,
                                              .rows = rows,
                                              .seed = (uint64_t)r->seed,
                                              .target_map = r->student.classes == CAB_CLASSES_TEACHER ? i->map : NULL,
                                              .classes = (int32_t)i->classes,
                                              .targets = i->mixed,
                                              .backend = i->setup.backend};
    return cab_image_loader_open(i->train, &options, &i->loader);
}

static cab_status images_start(void *data, const cab_model *student, int64_t batch, int64_t micro_batch)
{
    cab_image_data *i = data;
    const int64_t ranks = cab_communicator_size(i->setup.communicator);
    cab_augment augment;
    int32_t *rows = NULL;
    CAB_TRY(cab_recipe_augment(i->setup.recipe, &augment));
    i->batch = batch;
    i->rank_rows = micro_batch / ranks;
    i->rank_batch = batch / ranks;
    i->classes = (size_t)student->config.n_classes;
    i->feed = (cab_image_feed_options){.transform = &i->transform,
                                       .batch = i->rank_rows,
                                       .erasures = cab_augment_erasures(&augment),
                                       .mixed = augment.mixup > 0 || augment.cutmix > 0,
                                       .apart = micro_batch != batch};
    cab_status status = choose_rows(i, micro_batch, &rows);
    if (status == CAB_OK)
        status = open_training(i, &augment, rows);
    cab_free(rows);
    return status;
}

static void images_objective(const void *data, cab_objective_options *options)
{
    const cab_image_data *i = data;
    options->teacher_head = i->side;
    options->targets = i->mixed;
    options->pictures = &i->feed;
}

static cab_status load_step(cab_image_data *i, uint64_t step)
{
    if (i->loaded == step + 1)
        return CAB_OK;
    i->loaded = 0;
    CAB_TRY(cab_image_loader_batch(i->loader, step, &i->lent));
    i->loaded = step + 1;
    return CAB_OK;
}

static cab_status images_batch(void *data, uint64_t step, int index, cab_batch *batch)
{
    cab_image_data *i = data;
    const int64_t first = index * i->rank_rows;
    CAB_TRY(load_step(i, step));
    i->rows = cab_image_feed_rows(&i->feed, &i->lent, i->rank_batch, first);
    *batch = (cab_batch){.pictures = &i->rows, .labels = i->lent.labels + first};
    if (i->mixed)
        batch->targets = i->lent.targets + (size_t)first * i->classes;
    return CAB_OK;
}

/* ---- evaluation --------------------------------------------------------------------------------------------------- */

struct cab_evaluator {
    const cab_image_data *data;
    const cab_model *model, *teacher;
    cab_image_evaluator *whole, *part; /* made on first use */
};

/* How a model is asked: the student of some of the teacher's classes by its own. */
static cab_image_judge judge_of(const cab_image_data *i, const cab_model *model)
{
    const bool all = model == i->setup.teacher || i->setup.recipe->student.classes == CAB_CLASSES_TEACHER;
    return (cab_image_judge){model, i->transform, all ? i->map : NULL};
}

static cab_status images_evaluator(void *data, const cab_model *model, const cab_model *teacher, cab_evaluator **out)
{
    cab_evaluator *e = NULL;
    CAB_TRY(CAB_NEW(&e, 1, "an evaluator"));
    *e = (cab_evaluator){.data = data, .model = model, .teacher = teacher};
    *out = e;
    return CAB_OK;
}

static void images_evaluator_free(cab_evaluator *e)
{
    if (e == NULL)
        return;
    cab_image_evaluator_free(e->whole);
    cab_image_evaluator_free(e->part);
    cab_free(e);
}

static cab_status open_evaluator(const cab_evaluator *e, cab_image_set *set, cab_image_evaluator **out)
{
    const cab_image_data *i = e->data;
    const int64_t batch = i->rank_rows < EVALUATION_BATCH ? i->rank_rows : EVALUATION_BATCH;
    const cab_image_evaluator_options options = {.batch = (int)batch, .communicator = i->setup.communicator};
    const bool compared = e->teacher != NULL && i->compared;
    const cab_image_judge model = judge_of(i, e->model), teacher = judge_of(i, compared ? e->teacher : e->model);
    return cab_image_evaluator_new(&model, compared ? &teacher : NULL, set, &options, out);
}

static cab_status images_evaluate(cab_evaluator *e, uint64_t most, cab_run_evaluation *out)
{
    const cab_image_data *i = e->data;
    const bool part = most > 0 && i->part != NULL;
    cab_image_evaluator **evaluator = part ? &e->part : &e->whole;
    cab_image_evaluation found = {0};
    if (*evaluator == NULL)
        CAB_TRY(open_evaluator(e, part ? i->part : i->eval, evaluator));
    cab_status status = cab_image_evaluator_run(*evaluator, &found);
    if (status == CAB_OK)
        *out = (cab_run_evaluation){.loss = found.loss,
                                    .perplexity = NAN,
                                    .kl = found.kl,
                                    .agreement = found.agreement,
                                    .top1 = found.top1,
                                    .top5 = found.top5,
                                    .teacher_top1 = found.teacher_top1,
                                    .teacher_top5 = found.teacher_top5,
                                    .tokens = found.images};
    cab_image_evaluation_free(&found);
    return status;
}

/* ---- words -------------------------------------------------------------------------------------------------------- */

static void images_describe(const void *data, const cab_model *student, uint64_t steps)
{
    const cab_image_data *i = data;
    const cab_config *s = &student->config;
    cab_log_info("student  %s, %.2f M parameters, %d layers, width %d, inner %d, state %d, patches of %d%s",
                 student->arch->name, (double)cab_model_parameters(student) * 1e-6, s->n_layer, s->d_model, s->d_inner,
                 s->d_state, s->patch_size, s->tied_decay ? ", one decay per channel" : "");
    cab_log_info("data     %" PRIu64 " images of %zu classes, %" PRIu64 " to validate on, %d x %d pixels; %" PRIu64
                 " steps of %" PRId64 " images, %.1f passes, %s",
                 cab_image_set_count(i->train), cab_image_set_classes(i->train)->count, cab_image_set_count(i->eval),
                 i->transform.size, i->transform.size, steps, i->batch,
                 (double)steps * (double)i->batch / (double)cab_image_set_count(i->train),
                 i->setup.precision == CAB_PRECISION_BF16 ? "bf16" : "fp32");
    if (!i->compared)
        cab_log_info("         no class map: the student is not compared with the teacher's answers");
}

static void images_found(const cab_run_evaluation *e, char *out, size_t size)
{
    snprintf(out, size, "top-1 %.2f %%, top-5 %.2f %%", 100 * e->top1, 100 * e->top5);
}

/* A model that knows nothing is right once in as many times as there are classes. */
static bool images_by_chance(const void *data, const cab_run_evaluation *e, char *out, size_t size)
{
    const cab_image_data *i = data;
    const size_t classes = cab_image_set_classes(i->eval)->count;
    snprintf(out, size, "top-1 %.2f %% of %zu classes", 100 * e->top1, classes);
    return e->top1 < 1.0 / (double)classes;
}

static void images_progress(double done, double per_second, char *out, size_t size)
{
    snprintf(out, size, "%.1fk images  %.1f images/s", done / 1e3, per_second);
}

/* ---- at the end --------------------------------------------------------------------------------------------------- */

/* A class map of the student's own: its labels are the data's, or the teacher's. */
static cab_status write_classes(const cab_image_data *d, const char *directory)
{
    const cab_classes *classes = cab_image_set_classes(d->train);
    const bool all = d->setup.recipe->student.classes == CAB_CLASSES_TEACHER;
    char path[CAB_PATH_MAX], line[CAB_PATH_MAX];
    cab_writer writer;
    cab_status status = CAB_OK;
    CAB_TRY(cab_path_join(path, directory, "classes.tsv"));
    CAB_TRY(cab_writer_open(&writer, path));
    for (size_t i = 0; i < classes->count; i++) {
        int own = all && d->map != NULL ? d->map[i] : (int)i;
        int n = snprintf(line, sizeof line, "%zu\t%s\t%d\t%s\n", i, classes->names[i], own,
                         classes->words[i] != NULL ? classes->words[i] : classes->names[i]);
        if (n < 0 || (size_t)n >= sizeof line)
            CAB_GOTO(cab_fail(CAB_EFORMAT, "%s: the name of class %zu is too long", path, i));
        CAB_GOTO(cab_writer_write(&writer, line, (size_t)n));
    }
    return cab_writer_commit(&writer);
done:
    cab_writer_abort(&writer);
    return status;
}

static cab_status images_export(const void *data, const cab_model *student, const char *directory)
{
    const cab_image_data *i = data;
    CAB_TRY(cab_model_export(student, directory, NULL, NULL));
    CAB_TRY(cab_image_transform_save(&i->transform, directory));
    if (i->kept.count > 0)
        CAB_TRY(cab_kept_record(&i->kept, directory));
    return write_classes(i, directory);
}

/* predictions.json: what the student makes of a few validation images. */
static cab_status images_show(const void *data, cab_model *student, char **sample)
{
    const cab_image_data *i = data;
    const cab_image_judge judge = judge_of(i, student), teacher = judge_of(i, i->setup.teacher);
    *sample = NULL;
    return cab_predictions_write(i->setup.recipe->out, &judge, i->compared ? &teacher : NULL, i->eval, PREDICTIONS);
}

/* ---- for timing --------------------------------------------------------------------------------------------------- */

static const char *const images_distillation[] = {"kl", NULL};

static cab_status images_length(const cab_model *teacher, int64_t wanted, int64_t *length)
{
    (void)teacher;
    (void)wanted;
    *length = 1;
    return CAB_OK;
}

static cab_status images_draw(const cab_model *student, int64_t batch, int64_t length, void **input, int32_t **labels)
{
    const cab_config *c = &student->config;
    const size_t n = (size_t)(batch * length), pixels = n * 3 * (size_t)c->image_size * (size_t)c->image_size;
    cab_random random = {.seed = 1, .stream = CAB_STREAM_TEST};
    CAB_TRY(CAB_NEW(labels, n, "a batch"));
    CAB_TRY(cab_alloc(input, pixels, sizeof(float), "a batch"));
    float *values = *input;
    for (size_t i = 0; i < n; i++)
        (*labels)[i] = (int32_t)cab_random_below(&random, (uint64_t)c->n_classes);
    for (size_t i = 0; i < pixels; i++)
        values[i] = 2.0f * cab_random_uniform(&random) - 1.0f;
    return CAB_OK;
}

static void images_sample_size(const cab_model *student, int64_t length, char *out, size_t size)
{
    (void)length;
    snprintf(out, size, "%d px", student->config.image_size);
}

const cab_domain cab_domain_images = {
    .recipes = &cab_recipe_images,
    .smaller = "data.image_size",
    .open = images_open,
    .close = images_close,
    .inputs = images_inputs,
    .student = images_student,
    .record = images_record,
    .initialise = images_initialise,
    .start = images_start,
    .objective = images_objective,
    .batch = images_batch,
    .evaluator = images_evaluator,
    .evaluate = images_evaluate,
    .evaluator_free = images_evaluator_free,
    .describe = images_describe,
    .found = images_found,
    .by_chance = images_by_chance,
    .progress = images_progress,
    .export_student = images_export,
    .show = images_show,
    .compare = &cab_compare_images,
    .distillation = images_distillation,
    .length = images_length,
    .draw = images_draw,
    .sample_size = images_sample_size,
};
