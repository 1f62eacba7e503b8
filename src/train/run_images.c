/* run_images.c - distilling from images: sets instead of token files, classes instead of a vocabulary.
 *
 * Of a teacher of 1000 classes and data of 200, the class map says which are which. The student then has the data's 200, and
 * the teacher is heard on these alone: a head of 200 rows, gathered from its own. Or (student.classes: teacher) the student has
 * all 1000, and labels are the teacher's. */
#include "train/run_images.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/temporary.h"
#include "base/thread.h"
#include "distill/augmentation.h"
#include "train/image_scorer.h"
#include "train/predictions.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PERIODIC_IMAGES = 2048, EVALUATION_BATCH = 64, RANK_SHARE = 16, PREDICTIONS = 24 };

/* ---- data --------------------------------------------------------------------------------------------------------- */

/* Decodes everything now, if the recipe wants that kept. One file per set of images. */
static cab_status keep_decoded(const struct cab_recipe *r, cab_image_set *set, const char *name)
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
    CAB_TRY(cab_run_cache_directory(r, directory));
    CAB_TRY(cab_directory_make(directory));
    cab_temporary_sweep(directory);
    CAB_TRY(cab_path_join(path, directory, file));
    return cab_image_set_cache(set, path, cab_thread_count());
}

static cab_status open_set(const cab_run *run, const cab_list *paths, const cab_classes *classes, double fraction,
                           const char *name, cab_image_set **set)
{
    const struct cab_recipe *r = run->recipe;
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
static cab_status open_part(cab_run *run)
{
    const struct cab_recipe *r = run->recipe;
    const double wanted = r->train.eval_tokens > 0 ? (double)r->train.eval_tokens : PERIODIC_IMAGES;
    const double count = (double)cab_image_set_count(run->images.eval);
    if (wanted >= count)
        return CAB_OK;
    return open_set(run, &r->data.eval, cab_image_set_classes(run->images.train), wanted / count, "part",
                    &run->images.part);
}

/* Which of the teacher's classes the data's are. Without an answer only methods without KL can do. */
static cab_status map_classes(cab_run *run)
{
    const cab_classes *classes = cab_image_set_classes(run->images.train);
    const cab_config *t = &run->teacher->config;
    const bool stated = run->recipe->data.classes[0] != '\0';
    const int32_t *map = NULL;
    if (!stated && (int64_t)classes->count != t->n_classes) {
        if (cab_recipe_needs(run->recipe, CAB_NEEDS_TEACHER | CAB_NEEDS_HEAD) ||
            run->recipe->student.classes == CAB_CLASSES_TEACHER || run->recipe->init.weights == CAB_INIT_TEACHER)
            return cab_fail(
                CAB_EARG,
                "data.classes is missing: the data has %zu classes, the teacher %s has %d; a class map says "
                "which of them these are (--classes)",
                classes->count, run->recipe->teacher.path, t->n_classes);
        return CAB_OK;
    }
    CAB_TRY(cab_image_classes_for(classes, run->teacher, &map));
    run->images.compared = true;
    if (map == NULL)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&run->images.map, classes->count, "a class map"));
    memcpy(run->images.map, map, classes->count * sizeof *map);
    return CAB_OK;
}

/* Rows map[0], map[1] ... of `values`, each of `columns`, as a parameter of the run's own. */
static cab_status gather(cab_run *run, const cab_tensor *from, int64_t n, const char *name, cab_tensor **out)
{
    const int64_t columns = from->n_dim == 1 ? 1 : cab_columns(from), shape[2] = {n, columns};
    const size_t row = (size_t)columns * sizeof(float);
    float *all = NULL, *some = NULL;
    cab_status status;
    CAB_GOTO(CAB_NEW(&all, (size_t)cab_elements(from), name));
    CAB_GOTO(CAB_NEW(&some, (size_t)(n * columns), name));
    CAB_GOTO(cab_params_read(run->teacher->params, from, all));
    for (int64_t i = 0; i < n; i++)
        memcpy(some + i * columns, all + run->images.map[i] * columns, row);
    CAB_GOTO(cab_params_add(run->images.head, name, from->dtype, from->n_dim, shape, CAB_NO_DECAY, out));
    status = cab_params_write(run->images.head, *out, some);
done:
    cab_free(all);
    cab_free(some);
    return status;
}

/* The teacher's head for the data's classes. */
static cab_status restrict_head(cab_run *run)
{
    cab_run_images *i = &run->images;
    const cab_head_side own = cab_model_head(run->teacher);
    const int64_t n = (int64_t)cab_image_set_classes(i->train)->count;
    if (i->map == NULL || run->recipe->student.classes == CAB_CLASSES_TEACHER)
        return CAB_OK;
    CAB_TRY(cab_params_new(run->backend, &i->head));
    CAB_TRY(gather(run, own.w, n, "head of the data's classes", &i->side.w));
    return own.b == NULL ? CAB_OK : gather(run, own.b, n, "its bias", &i->side.b);
}

cab_status cab_run_images_open_data(cab_run *run)
{
    const struct cab_recipe *r = run->recipe;
    cab_run_images *i = &run->images;
    cab_classes given = {0};
    cab_augment augment;
    cab_status status;
    CAB_TRY(cab_image_transform_of(run->teacher, &i->transform));
    CAB_TRY(cab_recipe_augment(r, &augment));
    i->mixed = augment.mixup > 0 || augment.cutmix > 0 || augment.smoothing > 0;
    if (r->data.classes[0] != '\0')
        CAB_TRY(cab_classes_load(r->data.classes, &given));
    CAB_GOTO(open_set(run, &r->data.train, given.count > 0 ? &given : NULL, r->data.fraction, "train", &i->train));
    CAB_GOTO(open_set(run, &r->data.eval, cab_image_set_classes(i->train), 1, "eval", &i->eval));
    CAB_GOTO(open_part(run));
    CAB_GOTO(map_classes(run));
    status = restrict_head(run);
done:
    cab_classes_free(&given);
    return status;
}

/* ---- student ------------------------------------------------------------------------------------------------------ */

static int chosen(int64_t value, int fallback)
{
    return value > 0 ? (int)value : fallback;
}

/* Master, gradient, bf16 copy and two moments of every parameter, said before any is allocated. */
static cab_status check_fits(const cab_run *run, const cab_config *c)
{
    const double bytes_per_parameter = 4 + 4 + 2 + 8;
    const double D = c->d_model, E = c->d_inner, N = c->d_state, R = c->dt_rank;
    const double direction = E * (N + 1 + c->d_conv + 1 + (R + 2 * N) + R + 1), layer = 3 * E * D + 2 * direction + D;
    const double parameters = c->n_layer * layer + D * (3.0 * c->patch_size * c->patch_size + c->max_length + 3) +
                              (double)c->n_classes * (D + 1);
    const double available = run->backend->available(run->backend);
    char need[CAB_FORMAT_MAX], have[CAB_FORMAT_MAX];
    if (parameters * bytes_per_parameter <= available)
        return CAB_OK;
    return cab_fail(
        CAB_ENOMEM, "the student has %.0f M parameters; training needs %s for them and the optimizer, %s are available",
        parameters * 1e-6, cab_format_bytes(parameters * bytes_per_parameter, need), cab_format_bytes(available, have));
}

static int student_classes(const cab_run *run)
{
    return run->recipe->student.classes == CAB_CLASSES_TEACHER ? run->teacher->config.n_classes
                                                               : (int)cab_image_set_classes(run->images.train)->count;
}

static cab_status new_student(cab_run *run)
{
    const struct cab_recipe_student *s = &run->recipe->student;
    const cab_config *t = &run->teacher->config;
    const cab_arch *arch = NULL;
    cab_config c = {.d_model = chosen(s->d_model, t->d_model),
                    .n_layer = chosen(s->n_layer, t->n_layer),
                    .d_state = chosen(s->d_state, RANK_SHARE),
                    .d_conv = (int)s->d_conv,
                    .patch_size = chosen(s->patch_size, t->patch_size),
                    .n_classes = student_classes(run),
                    .n_group = 1,
                    .n_special = 1,
                    .tied_decay = s->tied_decay,
                    .class_middle = true,
                    .norm_eps = 1e-5};
    c.d_inner = (int)s->expand * c.d_model;
    c.dt_rank = chosen(s->dt_rank, (c.d_model + RANK_SHARE - 1) / RANK_SHARE);
    if (t->image_size % c.patch_size != 0)
        return cab_fail(CAB_ESHAPE, "student.patch_size is %d, images have %d pixels a side: not a multiple",
                        c.patch_size, t->image_size);
    cab_config_set_image(&c, t->image_size);
    CAB_TRY(cab_architecture_find("vim", "student.architecture", &arch));
    CAB_TRY(check_fits(run, &c));
    return cab_model_create(arch, &c, run->backend, run->precision, &run->student);
}

static cab_status open_given(cab_run *run)
{
    const char *path = run->recipe->student.path;
    CAB_TRY(
        cab_model_open_sized(path, run->teacher->config.image_size, run->backend, run->precision, true, &run->student));
    if (!run->student->arch->student || !cab_model_reads_images(run->student))
        return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" cannot be a student of images", path,
                        run->student->arch->name);
    if (run->student->config.n_classes != student_classes(run))
        return cab_fail(CAB_ESHAPE, "%s: tells %d classes apart, expected %d", path, run->student->config.n_classes,
                        student_classes(run));
    return CAB_OK;
}

cab_status cab_run_images_open_student(cab_run *run)
{
    return run->recipe->student.path[0] != '\0' ? open_given(run) : new_student(run);
}

/* ---- training ----------------------------------------------------------------------------------------------------- */

cab_status cab_run_images_open_loader(cab_run *run)
{
    cab_run_images *i = &run->images;
    const size_t batch = (size_t)run->batch, size = (size_t)i->transform.size;
    cab_augment augment;
    CAB_TRY(cab_recipe_augment(run->recipe, &augment));
    const cab_image_loader_options options = {.transform = i->transform,
                                              .augment = &augment,
                                              .batch = (int)run->batch,
                                              .seed = (uint64_t)run->recipe->seed,
                                              .target_map =
                                                  run->recipe->student.classes == CAB_CLASSES_TEACHER ? i->map : NULL,
                                              .classes = run->student->config.n_classes};
    CAB_TRY(CAB_NEW(&i->pixels, batch * 3 * size * size, "a batch of images"));
    CAB_TRY(CAB_NEW(&i->labels, batch, "a batch of labels"));
    if (i->mixed)
        CAB_TRY(CAB_NEW(&i->targets, batch * (size_t)run->student->config.n_classes, "a batch of labels"));
    return cab_image_loader_open(i->train, &options, &i->loader);
}

void cab_run_images_close(cab_run *run)
{
    cab_run_images *i = &run->images;
    cab_image_evaluator_free(i->evaluator);
    cab_image_evaluator_free(i->part_evaluator);
    cab_image_loader_free(i->loader);
    cab_image_set_free(i->train);
    cab_image_set_free(i->eval);
    cab_image_set_free(i->part);
    cab_params_free(i->head);
    cab_free(i->map);
    cab_free(i->pixels);
    cab_free(i->labels);
    cab_free(i->targets);
}

static cab_status load(cab_run *run, uint64_t step)
{
    cab_run_images *i = &run->images;
    if (i->loaded == step + 1)
        return CAB_OK;
    i->loaded = 0;
    CAB_TRY(cab_image_loader_batch(i->loader, step, i->pixels, i->targets, i->labels));
    i->loaded = step + 1;
    return CAB_OK;
}

static cab_batch micro_batch(const cab_run *run, int index)
{
    const cab_run_images *i = &run->images;
    const size_t first = (size_t)(index * run->micro_batch), size = (size_t)i->transform.size;
    cab_batch batch = {.input = i->pixels + first * 3 * size * size, .labels = i->labels + first};
    if (i->mixed)
        batch.targets = i->targets + first * (size_t)run->student->config.n_classes;
    return batch;
}

/* What follows micro-batch `index` is loaded and sent while the device computes. A failure comes again when it is its turn. */
static void send_next(cab_run *run, int index, int share)
{
    cab_run_images *i = &run->images;
    uint64_t first = 0;
    const uint64_t step = run->step + (index + 1 < share ? 0 : 1);
    if (step >= run->total_steps || load(run, step) != CAB_OK)
        return;
    const cab_batch next = micro_batch(run, index + 1 < share ? index + 1 : 0);
    if (cab_run_stage(run, step, &first) == cab_run_stage(run, run->step, &first))
        i->ahead = cab_objective_next(run->objective, &next) == CAB_OK;
}

cab_status cab_run_images_train(cab_run *run, int index, const cab_term_weights *weights, int share,
                                cab_term_values *values)
{
    cab_run_images *i = &run->images;
    CAB_TRY(load(run, run->step));
    cab_batch batch = micro_batch(run, index);
    if (i->ahead)
        batch.input = NULL;
    i->ahead = false;
    CAB_TRY(cab_objective_start(run->objective, &batch, weights, share));
    send_next(run, index, share);
    return cab_objective_finish(run->objective, values);
}

/* ---- evaluation --------------------------------------------------------------------------------------------------- */

static void name_judges(const cab_run *run, cab_image_judge *student, cab_image_judge *teacher)
{
    const cab_run_images *i = &run->images;
    const bool all = run->recipe->student.classes == CAB_CLASSES_TEACHER;
    *student = (cab_image_judge){run->student, i->transform, all ? i->map : NULL};
    *teacher = (cab_image_judge){run->teacher, i->transform, i->map};
}

static cab_status open_evaluator(cab_run *run, cab_image_set *set, bool quiet, cab_image_evaluator **evaluator)
{
    const cab_run_images *i = &run->images;
    const int64_t batch = run->micro_batch < EVALUATION_BATCH ? run->micro_batch : EVALUATION_BATCH;
    const cab_image_evaluator_options options = {.batch = (int)batch, .quiet = quiet};
    cab_image_judge student, teacher;
    name_judges(run, &student, &teacher);
    return cab_image_evaluator_new(&student, i->compared ? &teacher : NULL, set, &options, evaluator);
}

cab_status cab_run_images_evaluate(cab_run *run, bool all, cab_run_evaluation *out)
{
    cab_run_images *i = &run->images;
    const bool part = !all && i->part != NULL;
    cab_image_evaluator **evaluator = part ? &i->part_evaluator : &i->evaluator;
    cab_image_evaluation e = {0};
    if (*evaluator == NULL)
        CAB_TRY(open_evaluator(run, part ? i->part : i->eval, !all, evaluator));
    cab_status status = cab_image_evaluator_run(*evaluator, &e);
    if (status == CAB_OK)
        *out = (cab_run_evaluation){.loss = e.loss,
                                    .kl = e.kl,
                                    .agreement = e.agreement,
                                    .top1 = e.top1,
                                    .top5 = e.top5,
                                    .teacher_top1 = e.teacher_top1,
                                    .teacher_top5 = e.teacher_top5,
                                    .tokens = e.images};
    cab_image_evaluation_free(&e);
    return status;
}

cab_status cab_run_images_predict(const cab_run *run)
{
    cab_image_judge student, teacher;
    name_judges(run, &student, &teacher);
    return cab_predictions_write(run->recipe->out, &student, run->images.compared ? &teacher : NULL, run->images.eval,
                                 PREDICTIONS);
}

/* ---- words -------------------------------------------------------------------------------------------------------- */

void cab_run_images_print(const cab_run *run)
{
    const cab_config *s = &run->student->config;
    const cab_run_images *i = &run->images;
    cab_log_info("student  %s, %.2f M parameters, %d layers, width %d, inner %d, state %d, patches of %d%s",
                 run->student->arch->name, (double)cab_model_parameters(run->student) * 1e-6, s->n_layer, s->d_model,
                 s->d_inner, s->d_state, s->patch_size, s->tied_decay ? ", one decay per channel" : "");
    cab_log_info("data     %" PRIu64 " images of %zu classes, %" PRIu64 " to validate on, %d x %d pixels; %" PRIu64
                 " steps of %" PRId64 " images, %.1f passes, %s",
                 cab_image_set_count(i->train), cab_image_set_classes(i->train)->count, cab_image_set_count(i->eval),
                 i->transform.size, i->transform.size, run->total_steps, run->batch,
                 (double)run->total_steps * (double)run->batch / (double)cab_image_set_count(i->train),
                 run->precision == CAB_PRECISION_BF16 ? "bf16" : "fp32");
    if (!i->compared)
        cab_log_info("         no class map: the student is not compared with the teacher's answers");
}

static json_object *triple(const float v[3])
{
    json_object *array = json_object_new_array();
    for (int i = 0; i < 3; i++) {
        char text[32];
        snprintf(text, sizeof text, "%.9g", (double)v[i]);
        json_object_array_add(array, json_object_new_double_s(strtod(text, NULL), text));
    }
    return array;
}

static json_object *square(int side)
{
    json_object *size = json_object_new_object();
    json_object_object_add(size, "height", json_object_new_int(side));
    json_object_object_add(size, "width", json_object_new_int(side));
    return size;
}

/* As cab_image_transform_load() reads it: the shorter side to size, the middle crop_size of it. */
static cab_status write_transform(const cab_image_transform *t, const char *directory)
{
    static const int codes[] = {[CAB_FILTER_NEAREST] = 0, [CAB_FILTER_BILINEAR] = 2, [CAB_FILTER_BICUBIC] = 3};
    char path[CAB_PATH_MAX];
    CAB_TRY(cab_path_join(path, directory, "preprocessor_config.json"));
    json_object *json = json_object_new_object(), *edge = json_object_new_object();
    json_object_object_add(edge, "shortest_edge", json_object_new_int(cab_image_transform_edge(t)));
    json_object_object_add(json, "size", edge);
    json_object_object_add(json, "do_center_crop", json_object_new_boolean(1));
    json_object_object_add(json, "crop_size", square(t->size));
    json_object_object_add(json, "resample", json_object_new_int(codes[t->filter]));
    json_object_object_add(json, "image_mean", triple(t->mean));
    json_object_object_add(json, "image_std", triple(t->std));
    cab_status status = cab_json_save(json, path);
    json_object_put(json);
    return status;
}

/* A class map of the student's own: its labels are the data's, or the teacher's. */
static cab_status write_classes(const cab_run *run, const char *directory)
{
    const cab_classes *classes = cab_image_set_classes(run->images.train);
    const bool all = run->recipe->student.classes == CAB_CLASSES_TEACHER;
    char path[CAB_PATH_MAX], line[CAB_PATH_MAX];
    cab_writer writer;
    cab_status status = CAB_OK;
    CAB_TRY(cab_path_join(path, directory, "classes.tsv"));
    CAB_TRY(cab_writer_open(&writer, path));
    for (size_t i = 0; i < classes->count; i++) {
        int own = all && run->images.map != NULL ? run->images.map[i] : (int)i;
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

cab_status cab_run_images_describe(const cab_run *run, const char *directory)
{
    CAB_TRY(write_transform(&run->images.transform, directory));
    return write_classes(run, directory);
}
