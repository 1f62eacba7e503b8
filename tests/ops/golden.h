/* golden.h - reads tensors of ../shared/golden/<name>.safetensors for tests of ops. Those tests stand below src/io, whose
 * reader they may not use; this one trusts its files. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include "ops/check.h"

#include <json-c/json.h>

typedef struct golden {
    json_object *header;
    FILE *file;
    long body;
} golden;

/* False, with a message, where the file is absent. */
static inline bool golden_open(golden *g, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "../shared/golden/%s.safetensors", name);
    g->file = fopen(path, "rb");
    if (!g->file) {
        print_message("skipped: %s is not there\n", path);
        return false;
    }
    uint64_t size = 0;
    assert_int_equal(fread(&size, sizeof size, 1, g->file), 1);
    char *text = calloc(size + 1, 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, size, g->file), size);
    g->header = json_tokener_parse(text);
    g->body = (long)(sizeof size + size);
    free(text);
    assert_non_null(g->header);
    return true;
}

static inline void golden_close(golden *g)
{
    json_object_put(g->header);
    fclose(g->file);
}

/* `count` elements of four bytes (F32 or I32), as stored; freed by the caller. */
static inline void *golden_read(const golden *g, const char *name, size_t count)
{
    json_object *entry = NULL, *offsets = NULL;
    if (!json_object_object_get_ex(g->header, name, &entry))
        fail_msg("the reference has no \"%s\"", name);
    assert_true(json_object_object_get_ex(entry, "data_offsets", &offsets));
    const long begin = (long)json_object_get_int64(json_object_array_get_idx(offsets, 0));
    const long end = (long)json_object_get_int64(json_object_array_get_idx(offsets, 1));
    assert_int_equal(end - begin, count * 4);
    void *data = calloc(count, 4);
    assert_non_null(data);
    assert_int_equal(fseek(g->file, g->body + begin, SEEK_SET), 0);
    assert_int_equal(fread(data, 4, count, g->file), count);
    return data;
}

/* ||a - b|| / ||b|| */
static inline double golden_distance(const float *a, const float *b, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / norm);
}

#endif
