/* claim.c - the directory of a run, held by one process at a time: an advisory lock on the directory itself, which ends with the
 * process however it ends. File systems that lock no directories (NFS) go without. */
#include "train/claim.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/temporary.h"
#include "distill/keep.h"
#include "train/compare.h"
#include "train/identity.h"
#include "train/log.h"
#include "train/predictions.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static cab_status lock(const char *directory, cab_claim *claim)
{
    claim->directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (claim->directory < 0)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot open", directory);
    if (flock(claim->directory, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return cab_fail(CAB_EARG, "%s: another process is at work on the run there", directory);
    return CAB_OK;
}

/* Refuses what the directory holds unless it is this run, unfinished. Where there is a checkpoint, it tells whether the inputs are the
 * same, wherever they lie now (snapshot.h); before the first one their paths must do. */
static cab_status check_contents(const cab_recipe *recipe)
{
    char path[CAB_PATH_MAX], result[CAB_PATH_MAX], checkpoint[CAB_PATH_MAX], text[1024];
    cab_recipe *old = NULL;
    CAB_TRY(cab_path_join(path, recipe->out, CAB_RUN_RECIPE));
    CAB_TRY(cab_path_join(result, recipe->out, CAB_RUN_RESULT));
    CAB_TRY(cab_path_join(checkpoint, recipe->out, CAB_RUN_CHECKPOINT));
    if (!cab_path_exists(path))
        return CAB_OK;
    CAB_TRY(cab_recipe_load(path, &old));
    cab_status status = cab_identity_compare(path, old, recipe, !cab_path_exists(checkpoint));
    cab_recipe_free(old);
    if (status == CAB_EARG) {
        snprintf(text, sizeof text, "%s", cab_error_text());
        return cab_fail(CAB_EARG, "%s: holds another run (%s); choose another directory or remove it", recipe->out,
                        text);
    }
    if (status == CAB_OK && cab_path_exists(result))
        status = cab_fail(CAB_EARG, "%s: holds this run, finished; choose another directory or remove it", recipe->out);
    return status;
}

cab_status cab_claim_take(const cab_recipe *recipe, bool anew, cab_claim *claim)
{
    char student[CAB_PATH_MAX];
    *claim = (cab_claim){.directory = -1};
    const bool there = cab_path_exists(recipe->out);
    CAB_TRY(cab_directory_make(recipe->out));
    CAB_TRY(lock(recipe->out, claim));
    claim->made = !there;
    CAB_TRY(cab_directory_check_writable(recipe->out));
    CAB_TRY(cab_path_join(student, recipe->out, "student"));
    cab_temporary_sweep(student);
    if (cab_path_exists(student) && !cab_path_is_directory(student))
        return cab_fail(CAB_EIO, "%s: is no directory, but the student is to go there", student);
    return anew ? CAB_OK : check_contents(recipe);
}

/* result.json first: without it the rest is an interrupted run. */
static cab_status remove_run(const char *directory)
{
    static const char *const files[] = {CAB_RUN_RESULT,      CAB_RUN_CHECKPOINT, CAB_RUN_LOG,   CAB_RUN_COMPARISON,
                                        CAB_RUN_PREDICTIONS, CAB_KEPT_FILE,      CAB_RUN_RECIPE};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[CAB_PATH_MAX];
        CAB_TRY(cab_path_join(path, directory, files[i]));
        if (unlink(path) != 0 && errno != ENOENT)
            return cab_fail_errno(CAB_EIO, errno, "%s: cannot be removed", path);
    }
    return CAB_OK;
}

cab_status cab_claim_begin(const cab_recipe *recipe, bool anew, cab_claim *claim)
{
    char path[CAB_PATH_MAX];
    if (anew)
        CAB_TRY(remove_run(recipe->out));
    CAB_TRY(cab_path_join(path, recipe->out, CAB_RUN_RECIPE));
    claim->begun = !cab_path_exists(path);
    return CAB_OK;
}

cab_status cab_claim_record(const cab_recipe *recipe)
{
    char path[CAB_PATH_MAX];
    CAB_TRY(cab_path_join(path, recipe->out, CAB_RUN_RECIPE));
    return cab_identity_save(recipe, path);
}

cab_status cab_claim_clear(const cab_recipe *recipe)
{
    cab_claim claim;
    if (!cab_path_exists(recipe->out))
        return CAB_OK;
    cab_status status = cab_claim_take(recipe, true, &claim);
    if (status == CAB_OK)
        status = remove_run(recipe->out);
    cab_claim_release(recipe, false, &claim);
    return status;
}

void cab_claim_release(const cab_recipe *recipe, bool fruitless, cab_claim *claim)
{
    static const char *const files[] = {CAB_RUN_RECIPE, CAB_RUN_LOG, CAB_KEPT_FILE};
    char path[CAB_PATH_MAX];
    for (size_t i = 0; fruitless && claim->begun && i < sizeof files / sizeof *files; i++)
        if (cab_path_join(path, recipe->out, files[i]) == CAB_OK)
            unlink(path);
    if (fruitless && claim->made)
        rmdir(recipe->out); /* not if anything else is in it */
    if (claim->directory >= 0)
        close(claim->directory);
    *claim = (cab_claim){.directory = -1};
}
