#include "train/snapshot.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/thread.h"
#include "train/identity.h"
#include "train/inputs.h"
#include "train/ranks.h"
#include "train/saver.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const layout_version = "2";
static const char advice[] = "put back a copy of the checkpoint, or start anew with --overwrite";

enum { NAME_MAX_LENGTH = CAB_NAME_MAX + 16 };

static cab_status snapshot_path(const cab_run *run, char path[CAB_PATH_MAX])
{
    return cab_path_join(path, run->recipe->out, CAB_RUN_CHECKPOINT);
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

static const char *precision_name(const cab_run *run)
{
    return run->precision == CAB_PRECISION_BF16 ? "bf16" : "fp32";
}

/* A checkpoint belongs to one recipe and to the files that the run was given. */
static cab_status add_recipe(const cab_run *run, cab_safetensors_writer *writer)
{
    char *text = NULL;
    size_t size = 0;
    CAB_TRY(cab_recipe_print(run->recipe, &text, &size));
    cab_status status = cab_safetensors_writer_metadata(writer, "recipe", text);
    cab_free(text);
    return status;
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
    snprintf(text, sizeof text, "%d", cab_thread_count());
    CAB_TRY(cab_safetensors_writer_metadata(writer, "threads", text));
    snprintf(text, sizeof text, "%d", cab_communicator_size(run->communicator));
    CAB_TRY(cab_safetensors_writer_metadata(writer, "ranks", text));
    CAB_TRY(cab_safetensors_writer_metadata(writer, "precision", precision_name(run)));
    CAB_TRY(cab_safetensors_writer_metadata(writer, "inputs", run->inputs));
    return add_recipe(run, writer);
}

static cab_status add_tensors(const cab_run *run, cab_safetensors_writer *writer, float *const *moments)
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
    for (size_t i = 0; moments == NULL && i < cab_optimizer_count(run->optimizer); i++) {
        const cab_optimized *o = cab_optimizer_at(run->optimizer, i);
        CAB_TRY(add_values(writer, run->backend, "m.", o->parameter, o->m));
        CAB_TRY(add_values(writer, run->backend, "v.", o->parameter, o->v));
    }
    return CAB_OK;
}

/* Moments that are divided among ranks, on the host: m and v of every parameter in turn. */
static cab_status add_moments(const cab_run *run, cab_safetensors_writer *writer, float *const *moments)
{
    char name[NAME_MAX_LENGTH];
    for (size_t i = 0; i < 2 * cab_optimizer_count(run->optimizer); i++) {
        const cab_tensor *t = cab_optimizer_at(run->optimizer, i / 2)->parameter;
        snprintf(name, sizeof name, "%s%s", i % 2 == 0 ? "m." : "v.", t->name);
        CAB_TRY(cab_safetensors_writer_add(writer, name, CAB_F32, t->n_dim, t->shape, moments[i]));
    }
    return CAB_OK;
}

/* All ranks take part; rank 0 keeps them until they are written. */
static cab_status gather_moments(const cab_run *run, float **moments)
{
    for (size_t i = 0; i < cab_optimizer_count(run->optimizer); i++) {
        const cab_tensor *t = cab_optimizer_at(run->optimizer, i)->parameter;
        float **m = &moments[2 * i], **v = m + 1;
        CAB_TRY(CAB_NEW(m, (size_t)cab_elements(t), "a checkpoint"));
        CAB_TRY(CAB_NEW(v, (size_t)cab_elements(t), "a checkpoint"));
        CAB_TRY(cab_optimizer_read_moments(run->optimizer, i, *m, *v));
        for (int k = 0; !cab_run_writes(run) && k < 2; k++) {
            cab_free(m[k]);
            m[k] = NULL;
        }
    }
    return CAB_OK;
}

/* A copy of the state must leave as much memory free again. */
static bool can_hold(const cab_safetensors_writer *writer)
{
    return 2.0 * (double)cab_safetensors_writer_bytes(writer) < cab_available_memory();
}

/* moments: NULL where they are the optimizer's own. */
static cab_status write_snapshot(cab_run *run, bool beside, float *const *moments)
{
    char path[CAB_PATH_MAX];
    cab_safetensors_writer *writer = NULL;
    cab_status status;
    CAB_TRY(cab_snapshot_wait(run));
    CAB_TRY(snapshot_path(run, path));
    CAB_GOTO(cab_safetensors_writer_new(&writer));
    CAB_GOTO(add_metadata(run, writer));
    CAB_GOTO(add_tensors(run, writer, moments));
    if (moments != NULL)
        CAB_GOTO(add_moments(run, writer, moments));
    if (beside && can_hold(writer)) {
        CAB_GOTO(cab_safetensors_writer_hold(writer));
        return cab_saver_start(writer, path, run->step, &run->saver);
    }
    status = cab_safetensors_writer_save(writer, path);
    run->saved_step = status == CAB_OK ? run->step : run->saved_step;
done:
    cab_safetensors_writer_free(writer);
    return status;
}

/* All ranks come here together. */
static cab_status take_snapshot(cab_run *run, bool beside)
{
    const size_t n = 2 * cab_optimizer_count(run->optimizer);
    float **moments = NULL;
    cab_status status = CAB_OK;
    if (cab_optimizer_divided(run->optimizer)) {
        CAB_TRY(CAB_NEW(&moments, n, "a checkpoint"));
        status = gather_moments(run, moments);
    }
    if (status == CAB_OK && cab_run_writes(run))
        status = write_snapshot(run, beside, moments);
    for (size_t i = 0; moments != NULL && i < n; i++)
        cab_free(moments[i]);
    cab_free(moments);
    return status;
}

cab_status cab_snapshot_save(cab_run *run)
{
    return take_snapshot(run, false);
}

cab_status cab_snapshot_begin(cab_run *run)
{
    return take_snapshot(run, true);
}

cab_status cab_snapshot_wait(cab_run *run)
{
    return cab_saver_end(&run->saver, &run->saved_step);
}

cab_status cab_snapshot_check(cab_run *run)
{
    return cab_saver_is_done(run->saver) ? cab_snapshot_wait(run) : CAB_OK;
}

static cab_status load_values(const cab_safetensors *st, const char *prefix, const cab_tensor *shape, float **values)
{
    char name[NAME_MAX_LENGTH];
    snprintf(name, sizeof name, "%s%s", prefix, shape->name);
    CAB_TRY(CAB_NEW(values, (size_t)cab_elements(shape), "a checkpoint"));
    return cab_safetensors_read_f32(st, name, shape->n_dim, shape->shape, *values);
}

static cab_status load_into(const cab_run *run, const cab_safetensors *st, const char *prefix, const cab_tensor *shape,
                            void *data)
{
    float *values = NULL;
    cab_status status = load_values(st, prefix, shape, &values);
    if (status == CAB_OK)
        status = run->backend->upload(run->backend, data, values, (size_t)cab_elements(shape) * sizeof *values);
    cab_free(values);
    return status;
}

/* A whole number, or not negative and finite, as add_metadata() writes them. */
static bool read_whole(const char *text, uint64_t *out)
{
    char *end = NULL;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
}

static bool read_seconds(const char *text, double *out)
{
    char *end = NULL;
    *out = strtod(text, &end);
    return text[0] != '\0' && *end == '\0' && isfinite(*out) && *out >= 0;
}

cab_status cab_snapshot_facts_read(const cab_safetensors *st, const char *path, cab_snapshot_facts *out)
{
    static const char *const keys[] = {"step", "seconds", "train_seconds", "recipe", "inputs", "threads", "precision"};
    enum { KEYS = sizeof keys / sizeof *keys };
    const char *values[KEYS], *version = cab_safetensors_metadata(st, "version");
    if (version != NULL && strcmp(version, "1") == 0)
        return cab_fail(CAB_EFORMAT,
                        "%s: of an earlier version of cab, which did not note what the run was given; end it with that "
                        "version, or start anew with --overwrite",
                        path);
    if (version == NULL || strcmp(version, layout_version) != 0)
        return cab_fail(CAB_EFORMAT, "%s: not a checkpoint of a run: version is \"%.20s\", expected %s; %s", path,
                        version == NULL ? "" : version, layout_version, advice);
    if (cab_safetensors_metadata(st, "cab_checksum") == NULL)
        return cab_fail(CAB_EFORMAT, "%s: damaged: it has no checksum; %s", path, advice);
    for (int i = 0; i < KEYS; i++) {
        values[i] = cab_safetensors_metadata(st, keys[i]);
        if (values[i] == NULL)
            return cab_fail(CAB_EFORMAT, "%s: not a checkpoint of a run: its metadata lack %s; %s", path, keys[i],
                            advice);
    }
    const char *ranks = cab_safetensors_metadata(st, "ranks"); /* earlier versions had one, and did not note it */
    *out = (cab_snapshot_facts){.recipe = values[3], .inputs = values[4], .precision = values[6]};
    if (!read_whole(values[0], &out->step) || !read_seconds(values[1], &out->seconds) ||
        !read_seconds(values[2], &out->train_seconds) || !read_whole(values[5], &out->threads) ||
        !read_whole(ranks != NULL ? ranks : "1", &out->ranks))
        return cab_fail(CAB_EFORMAT, "%s: step, seconds, train_seconds, threads or ranks is no number; %s", path,
                        advice);
    return CAB_OK;
}

/* The run that the checkpoint was made by is this one: the same recipe, given the same. */
static cab_status check_identity(const cab_run *run, const cab_snapshot_facts *facts, const char *path)
{
    cab_recipe *then = NULL;
    CAB_TRY(cab_recipe_parse(path, facts->recipe, strlen(facts->recipe), &then));
    cab_status status = cab_identity_compare(path, then, run->recipe, false);
    cab_recipe_free(then);
    return status == CAB_OK ? cab_inputs_compare(path, facts->inputs, run->inputs) : status;
}

/* What may change the last bits is no other run, but it is told. */
static void tell_differences(const cab_run *run, const cab_snapshot_facts *facts)
{
    const int ranks = cab_communicator_size(run->communicator);
    if (!cab_run_writes(run))
        return;
    if (facts->ranks != (uint64_t)ranks)
        cab_log_warn("the run had %" PRIu64
                     " ranks and goes on with %d: its bits will differ from those of an unbroken run",
                     facts->ranks, ranks);
    else if (facts->threads != (uint64_t)cab_thread_count())
        cab_log_warn("the run had %" PRIu64
                     " threads and goes on with %d: its bits may differ from those of an unbroken run",
                     facts->threads, cab_thread_count());
    if (strcmp(facts->precision, precision_name(run)) != 0)
        cab_log_warn("the run had precision %.16s, and this machine gives %s: precision: %.16s keeps it",
                     facts->precision, precision_name(run), facts->precision);
}

static cab_status load_metadata(cab_run *run, const cab_safetensors *st, const char *path)
{
    cab_snapshot_facts facts;
    CAB_TRY(cab_snapshot_facts_read(st, path, &facts));
    CAB_TRY(check_identity(run, &facts, path));
    if (facts.step > run->total_steps)
        return cab_fail(CAB_EFORMAT, "%s: step is %" PRIu64 ", expected a number up to %" PRIu64, path, facts.step,
                        run->total_steps);
    tell_differences(run, &facts);
    run->step = facts.step;
    run->seconds = facts.seconds;
    run->train_seconds = facts.train_seconds;
    return CAB_OK;
}

/* Its checksum is verified. */
static cab_status open_checkpoint(const char *path, cab_safetensors **st)
{
    char text[CAB_PATH_MAX];
    cab_status status = cab_safetensors_open(path, st);
    if (status != CAB_EFORMAT)
        return status;
    snprintf(text, sizeof text, "%s", cab_error_text());
    return cab_fail(CAB_EFORMAT, "%s; %s", text, advice);
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
    CAB_TRY(open_checkpoint(path, &st));
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
    CAB_TRY(open_checkpoint(path, &st));
    for (size_t i = 0; status == CAB_OK && i < cab_optimizer_count(run->optimizer); i++) {
        const cab_tensor *t = cab_optimizer_at(run->optimizer, i)->parameter;
        float *m = NULL, *v = NULL;
        status = load_values(st, "m.", t, &m);
        if (status == CAB_OK)
            status = load_values(st, "v.", t, &v);
        if (status == CAB_OK)
            status = cab_optimizer_write_moments(run->optimizer, i, m, v);
        cab_free(m);
        cab_free(v);
    }
    cab_safetensors_close(st);
    return status;
}

cab_status cab_snapshot_remove(cab_run *run)
{
    char path[CAB_PATH_MAX];
    CAB_TRY(cab_snapshot_wait(run));
    CAB_TRY(snapshot_path(run, path));
    if (unlink(path) != 0 && errno != ENOENT)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot be removed", path);
    return CAB_OK;
}
