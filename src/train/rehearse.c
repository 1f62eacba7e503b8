/* rehearse.c - a run without its end: everything is opened and planned, and a few steps are taken to see how long they take. */
#include "train/rehearse.h"

#include "base/file.h"
#include "base/log.h"
#include "train/run.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t timed_steps = 3;
static const double enough_seconds = 10; /* of a stage's steps */

/* The run makes its directory in the nearest that is there. */
static cab_status check_directory(const char *out)
{
    char path[CAB_PATH_MAX];
    CAB_TRY(cab_path_join(path, out, "."));
    for (char *slash = strrchr(path, '/'); slash != NULL && !cab_path_exists(path); slash = strrchr(path, '/'))
        *slash = '\0';
    if (!cab_path_exists(path))
        memcpy(path, path[0] == '\0' && out[0] == '/' ? "/" : ".", 2);
    if (!cab_path_is_directory(path))
        return cab_fail(CAB_EIO, "%s: %s is no directory", out, path);
    if (access(path, W_OK | X_OK) != 0)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot be made in %s", out, path);
    return CAB_OK;
}

/* The first step makes what later ones reuse, and counts only where there is no other. */
static cab_status time_steps(cab_run *run, uint64_t steps, double *seconds, uint64_t *measured)
{
    double spent = 0, sum = 0;
    *measured = 0;
    for (uint64_t i = 0; i < steps && i <= timed_steps && spent < enough_seconds; i++) {
        cab_term_values values;
        cab_term_weights weights;
        double lr, norm;
        const double started = cab_seconds();
        CAB_TRY(cab_run_advance(run, &values, &weights, &lr, &norm));
        const double step = cab_seconds() - started;
        spent += step;
        if (i <= 1)
            sum = 0, *measured = 0;
        sum += step;
        ++*measured;
    }
    *seconds = sum / (double)*measured;
    return CAB_OK;
}

static cab_status rehearse_stage(cab_run *run, unsigned stage, cab_rehearsal *out)
{
    double seconds = 0;
    uint64_t measured = 0, first = 0;
    for (unsigned i = 0; i < stage; i++)
        first += run->stage_steps[i];
    run->step = first;
    CAB_TRY(cab_run_enter_stage(run, stage));
    out->memory = fmax(out->memory, run->peak);
    CAB_TRY(time_steps(run, run->stage_steps[stage], &seconds, &measured));
    out->training += seconds * (double)run->stage_steps[stage];
    out->measured += measured;
    return CAB_OK;
}

/* An evaluation goes forward alone, which takes about a third of a step per token or image; at the end the student, and where the teacher is
 * scored by itself the teacher, are measured on everything, before it a tenth of the time at most. */
static double evaluations(const cab_run *run, const cab_rehearsal *r)
{
    const double per_token = r->training / ((double)run->total_steps * (double)(run->batch * run->seq_len)) / 3;
    const double last = (run->domain->teacher_alone ? 2.0 : 1.0) * (double)run->sizes.eval;
    return last * per_token + fmin(0.1 * r->training, 10 * per_token * (double)run->sizes.part);
}

static cab_status rehearse(cab_run *run, void *user)
{
    cab_rehearsal *out = user;
    for (unsigned i = 0; i < run->recipe->stages_count; i++)
        CAB_TRY(rehearse_stage(run, i, out));
    out->steps = run->total_steps;
    out->evaluation = evaluations(run, out);
    return CAB_OK;
}

cab_status cab_rehearse(const cab_recipe *recipe, cab_rehearsal *out)
{
    *out = (cab_rehearsal){0};
    return cab_rehearse_with(recipe, rehearse, out);
}

cab_status cab_rehearse_with(const cab_recipe *recipe, cab_status (*act)(cab_run *, void *), void *user)
{
    cab_run run = {0};
    CAB_TRY(cab_recipe_validate(recipe));
    CAB_TRY(check_directory(recipe->out));
    const bool there = cab_path_exists(recipe->out);
    cab_status status = cab_run_open(recipe, &run);
    if (status == CAB_OK)
        status = act(&run, user);
    cab_run_close(&run);
    if (!there)
        rmdir(recipe->out); /* a cache beside it was reached through it */
    return status;
}
