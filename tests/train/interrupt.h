/* interrupt.h - a run that is stopped while it trains. */
#ifndef INTERRUPT_H
#define INTERRUPT_H

#include "base/file.h"
#include "runs.h"

#include <pthread.h>
#include <time.h>

typedef struct interruption {
    char log[CAB_PATH_MAX];
    int lines;
    _Atomic bool over;
} interruption;

static inline int interruption_lines(const char *path)
{
    int lines = 0;
    FILE *file = fopen(path, "r");
    for (int c = 0; file != NULL && (c = fgetc(file)) != EOF;)
        lines += c == '\n';
    if (file != NULL)
        fclose(file);
    return lines;
}

static inline void *interruption_wait(void *user)
{
    interruption *i = user;
    while (!i->over && interruption_lines(i->log) < i->lines)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    if (!i->over)
        cab_distill_stop();
    return NULL;
}

/* Runs r until its log has so many lines. On a busy machine the run may be over before it is stopped: then once more, from the start. */
static inline void runs_interrupt(const cab_recipe *r, int lines)
{
    cab_status status = CAB_OK;
    for (int attempt = 0; attempt < 5 && status == CAB_OK; attempt++) {
        interruption i = {.lines = lines};
        pthread_t thread;
        if (attempt > 0)
            temp_remove(r->out);
        assert_ok(cab_path_join(i.log, r->out, CAB_RUN_LOG));
        assert_int_equal(pthread_create(&thread, NULL, interruption_wait, &i), 0);
        status = cab_distill(r, NULL, NULL);
        i.over = true;
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    assert_int_equal(status, CAB_EINTERRUPTED);
}

#endif
