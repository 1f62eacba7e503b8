#include "train/saver.h"

#include "base/file.h"
#include "base/memory.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

enum { ERROR_MAX = 1024 };

struct cab_saver {
    pthread_t thread;
    cab_safetensors_writer *writer;
    char path[CAB_PATH_MAX];
    uint64_t step;
    cab_status status;
    char text[ERROR_MAX]; /* of its failure: error texts belong to threads */
    atomic_bool done;
};

static void *run_saver(void *given)
{
    cab_saver *s = given;
    s->status = cab_safetensors_writer_save(s->writer, s->path);
    if (s->status != CAB_OK)
        snprintf(s->text, sizeof s->text, "%s", cab_error_text());
    atomic_store(&s->done, true);
    return NULL;
}

static void saver_free(cab_saver *s)
{
    cab_safetensors_writer_free(s->writer);
    cab_free(s);
}

cab_status cab_saver_start(cab_safetensors_writer *writer, const char *path, uint64_t step, cab_saver **out)
{
    cab_saver *s = NULL;
    sigset_t all, before;
    cab_status status = CAB_NEW(&s, 1, "a writer of checkpoints");
    if (status != CAB_OK) {
        cab_safetensors_writer_free(writer);
        return status;
    }
    s->writer = writer;
    s->step = step;
    snprintf(s->path, sizeof s->path, "%s", path);
    sigfillset(&all); /* signals are for the threads that were there before */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const bool started = pthread_create(&s->thread, NULL, run_saver, s) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started) {
        *out = s;
        return CAB_OK;
    }
    status = cab_safetensors_writer_save(writer, path);
    saver_free(s);
    return status;
}

bool cab_saver_is_done(const cab_saver *s)
{
    return s != NULL && atomic_load(&s->done);
}

cab_status cab_saver_end(cab_saver **saver, uint64_t *step)
{
    cab_saver *s = *saver;
    if (s == NULL)
        return CAB_OK;
    *saver = NULL;
    pthread_join(s->thread, NULL);
    const cab_status status = s->status;
    if (status == CAB_OK)
        *step = s->step;
    else
        cab_error_set_text(s->text);
    saver_free(s);
    return status;
}
