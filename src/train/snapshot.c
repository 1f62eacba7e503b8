#include "train/snapshot.h"

#include "base/file.h"
#include "base/memory.h"
#include "io/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const layout_version = "1";

enum { NAME_MAX_LENGTH = CAB_NAME_MAX + 16 };

static cab_status snapshot_path(const cab_run *run, char path[CAB_PATH_MAX])
{
    return cab_path_join(path, run->recipe->out, CAB_RUN_CHECKPOINT);
}

/* A checkpoint belongs to one recipe: what is written beside the run. */
static cab_status recipe_hash(const cab_run *run, char text[32])
{
    char *content = NULL;
    size_t size = 0;
    CAB_TRY(cab_recipe_print(run->recipe, &content, &size));
    snprintf(text, 32, "%016" PRIx64, cab_hash(CAB_HASH_START, content, size));
    cab_free(content);
    return CAB_OK;
}

static cab_status download(void *backend, const void *from, void *out, size_t bytes)
{
    return ((cab_backend *)backend)->download(backend, out, from, bytes);
}

/* Values of the shape of a parameter; they are copied from the device when they are written. */
static cab_status add_values(cab_safetensors_writer *writer, cab_backend *backend, const char *prefix,
                             const cab_tensor *shape, const void *data)
{
    char name[NAME_MAX_LENGTH];
    snprintf(name, sizeof name, "%s%s", prefix, shape->name);
    return cab_safetensors_writer_add_from(writer, name, CAB_F32, shape->n_dim, shape->shape, download, backend, data);
}

static cab_status add_metadata(const cab_run *run, cab_safetensors_writer *writer)
{
    char text[64];
    CAB_TRY(cab_safetensors_writer_metadata(writer, "version", layout_version));
    snprintf(text, sizeof text, "%" PRIu64, run->step);
    CAB_TRY(cab_safetensors_writer_metadata(writer, "step", text));
    snprintf(text, sizeof text, "%.17g", run->seconds);
    CAB_TRY(cab_safetensors_writer_metadata(writer, "seconds", text));
    snprintf(text, sizeof text, "%.17g", run->train_seconds);
    CAB_TRY(cab_safetensors_writer_metadata(writer, "train_seconds", text));
    CAB_TRY(recipe_hash(run, text));
    return cab_safetensors_writer_metadata(writer, "recipe", text);
}

static cab_status add_tensors(const cab_run *run, cab_safetensors_writer *writer)
{
    const cab_params *student = run->student->params;
    for (size_t i = 0; i < cab_params_count(student); i++) {
        const cab_tensor *t = cab_params_at(student, i);
        CAB_TRY(add_values(writer, run->backend, "student.", t, t->data));
        if (run->averages != NULL)
            CAB_TRY(add_values(writer, run->backend, "average.", t, run->averages[i]));
    }
    for (size_t i = 0; run->terms.params != NULL && i < cab_params_count(run->terms.params); i++) {
        const cab_tensor *t = cab_params_at(run->terms.params, i);
        CAB_TRY(add_values(writer, run->backend, "", t, t->data));
    }
    for (size_t i = 0; i < cab_optimizer_count(run->optimizer); i++) {
        const cab_optimized *o = cab_optimizer_at(run->optimizer, i);
        CAB_TRY(add_values(writer, run->backend, "m.", o->parameter, o->m));
        CAB_TRY(add_values(writer, run->backend, "v.", o->parameter, o->v));
    }
    return CAB_OK;
}

cab_status cab_snapshot_save(const cab_run *run)
{
    char path[CAB_PATH_MAX];
    cab_safetensors_writer *writer = NULL;
    cab_status status;
    CAB_TRY(snapshot_path(run, path));
    CAB_GOTO(cab_safetensors_writer_new(&writer));
    CAB_GOTO(add_metadata(run, writer));
    CAB_GOTO(add_tensors(run, writer));
    status = cab_safetensors_writer_save(writer, path);
done:
    cab_safetensors_writer_free(writer);
    return status;
}

static cab_status load_into(const cab_run *run, const cab_safetensors *st, const char *prefix, const cab_tensor *shape,
                            void *data)
{
    char name[NAME_MAX_LENGTH];
    float *values = NULL;
    size_t n = (size_t)cab_elements(shape);
    snprintf(name, sizeof name, "%s%s", prefix, shape->name);
    CAB_TRY(CAB_NEW(&values, n, "a checkpoint"));
    cab_status status = cab_safetensors_read_f32(st, name, shape->n_dim, shape->shape, values);
    if (status == CAB_OK)
        status = run->backend->upload(run->backend, data, values, n * sizeof *values);
    cab_free(values);
    return status;
}

static cab_status load_metadata(cab_run *run, const cab_safetensors *st, const char *path)
{
    char hash[64];
    const char *recipe = cab_safetensors_metadata(st, "recipe"), *step = cab_safetensors_metadata(st, "step");
    const char *seconds = cab_safetensors_metadata(st, "seconds"),
               *train = cab_safetensors_metadata(st, "train_seconds"),
               *version = cab_safetensors_metadata(st, "version");
    char *end = NULL;
    if (recipe == NULL || step == NULL || seconds == NULL || train == NULL || version == NULL)
        return cab_fail(CAB_EFORMAT,
                        "%s: not a checkpoint of a run: metadata version, recipe, step or seconds is missing", path);
    if (strcmp(version, layout_version) != 0)
        return cab_fail(CAB_EFORMAT, "%s: version is \"%s\", expected %s", path, version, layout_version);
    CAB_TRY(recipe_hash(run, hash));
    if (strcmp(hash, recipe) != 0)
        return cab_fail(CAB_EARG, "%s: belongs to a run with another recipe (%s, this one is %s)", path, recipe, hash);
    run->step = strtoull(step, &end, 10);
    run->seconds = strtod(seconds, NULL);
    run->train_seconds = strtod(train, NULL);
    if (*end != '\0' || run->step > run->total_steps)
        return cab_fail(CAB_EFORMAT, "%s: step is \"%s\", expected a number up to %" PRIu64, path, step,
                        run->total_steps);
    return CAB_OK;
}

static cab_status load_parameters(cab_run *run, const cab_safetensors *st)
{
    cab_params *student = run->student->params;
    for (size_t i = 0; i < cab_params_count(student); i++) {
        const cab_tensor *t = cab_params_at(student, i);
        CAB_TRY(load_into(run, st, "student.", t, t->data));
        if (run->averages != NULL)
            CAB_TRY(load_into(run, st, "average.", t, run->averages[i]));
    }
    CAB_TRY(cab_params_refresh(student));
    if (run->terms.params == NULL)
        return CAB_OK;
    for (size_t i = 0; i < cab_params_count(run->terms.params); i++) {
        const cab_tensor *t = cab_params_at(run->terms.params, i);
        CAB_TRY(load_into(run, st, "", t, t->data));
    }
    return cab_params_refresh(run->terms.params);
}

cab_status cab_snapshot_load(cab_run *run, bool *found)
{
    char path[CAB_PATH_MAX];
    cab_safetensors *st = NULL;
    CAB_TRY(snapshot_path(run, path));
    *found = cab_path_exists(path);
    if (!*found)
        return CAB_OK;
    CAB_TRY(cab_safetensors_open(path, &st));
    cab_status status = load_metadata(run, st, path);
    if (status == CAB_OK)
        status = load_parameters(run, st);
    cab_safetensors_close(st);
    return status;
}

cab_status cab_snapshot_moments(cab_run *run)
{
    char path[CAB_PATH_MAX];
    cab_safetensors *st = NULL;
    cab_status status = CAB_OK;
    CAB_TRY(snapshot_path(run, path));
    CAB_TRY(cab_safetensors_open(path, &st));
    for (size_t i = 0; status == CAB_OK && i < cab_optimizer_count(run->optimizer); i++) {
        const cab_optimized *o = cab_optimizer_at(run->optimizer, i);
        status = load_into(run, st, "m.", o->parameter, o->m);
        if (status == CAB_OK)
            status = load_into(run, st, "v.", o->parameter, o->v);
    }
    cab_safetensors_close(st);
    return status;
}

cab_status cab_snapshot_remove(const cab_run *run)
{
    char path[CAB_PATH_MAX];
    CAB_TRY(snapshot_path(run, path));
    if (unlink(path) != 0 && errno != ENOENT)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot be removed", path);
    return CAB_OK;
}
