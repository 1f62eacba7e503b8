/* pair.h - a tiny teacher and a tiny student over the same 23 words. */
#ifndef PAIR_H
#define PAIR_H

#include "models/tiny.h"

typedef struct pair {
    cab_backend *backend;
    cab_model *teacher, *student;
} pair;

/* Opens both from <test>/teacher and <test>/student. */
static inline void pair_open(void **state, const tiny *teacher, const tiny *student, cab_precision precision, pair *p)
{
    char *directories[2] = {strdup(temp_path(state, "teacher")), strdup(temp_path(state, "student"))};
    assert_true(directories[0] != NULL && directories[1] != NULL);
    assert_ok(cab_backend_open(test_device(), &p->backend));
    p->backend->threads = 1;
    for (int i = 0; i < 2; i++) {
        void *directory = directories[i];
        assert_ok(cab_directory_make(directory));
        tiny_write(&directory, i == 0 ? teacher : student, 1);
        assert_ok(cab_model_open(directory, p->backend, precision, i == 1, i == 0 ? &p->teacher : &p->student));
        free(directories[i]);
    }
}

static inline void pair_close(pair *p)
{
    cab_model_free(p->teacher);
    cab_model_free(p->student);
    cab_backend_close(p->backend);
}

#endif
