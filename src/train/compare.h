/* compare.h - how alike a teacher and a student mix tokens: per layer the cosine similarity between the teacher's attention
 * matrix and the student's implied one, and both matrices drawn for a few pictures or sentences.
 *
 *   similarity = <A, M> / (|A| |M|)     over all entries of both matrices
 *
 * A: softmax(scale Q K^T) of teacher layer g(l), averaged over heads. M: C_i (prod of decays) B_j of student layer l, averaged
 * over heads (Mamba-2) or channels (Mamba-1), signs kept, both directions added. g is the proportional map. One number per
 * sample and layer. */
#ifndef CAB_TRAIN_COMPARE_H
#define CAB_TRAIN_COMPARE_H

#include "base/json.h"
#include "data/image_set.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct cab_compare_options {
    const char *teacher, *student; /* directories */
    const char *const *files;      /* text, or images as of image_set.h */
    unsigned files_count;
    const char *classes; /* class map of images, for their names; NULL: none */
    cab_on_error on_error;
    const char *separator, *text_field, *cache; /* of text, as in cab_evaluate_options */
    cab_expand_limits limits;                   /* of packed files */
    bool bin_uint32;
    int64_t seq_len;             /* of text; 0: 256, or less where a model takes less */
    int64_t samples;             /* that are measured, evenly spaced over the data */
    int64_t maps;                /* how many of them are drawn where neither pictures nor text are given */
    const char *const *pictures; /* files to draw instead */
    unsigned pictures_count;
    const char *text; /* sentence to draw instead; NULL: none */
    cab_precision precision;
    const char *device;
} cab_compare_options;

/* Of one student layer. */
typedef struct cab_similarity {
    int layer, teacher_layer;
    double *values; /* one per sample */
    double min, q1, median, q3, max, mean;
} cab_similarity;

/* One layer of a drawing, (rows, columns): of an image what its class token takes from each patch; of text the matrix. */
typedef struct cab_heat_layer {
    int layer, teacher_layer;
    float *teacher, *student;
} cab_heat_layer;

typedef struct cab_heat_map {
    char *name;
    char *thumbnail; /* of an image: a JPEG in base64 of the part that the models see; else NULL */
    char **tokens;   /* of text: each token's; else NULL */
    int64_t rows, columns;
    cab_heat_layer *layers; /* some of the student's, evenly spaced */
    int n_layer;
} cab_heat_map;

typedef struct cab_comparison {
    char *teacher, *student;
    bool images;
    int64_t tokens, samples;
    cab_similarity *layers; /* one per student layer */
    int n_layer;
    cab_similarity all; /* the same statistics over all layers and samples; layer -1 */
    cab_heat_map *maps;
    int64_t n_map;
} cab_comparison;

/* Progress goes to stderr. *out must be zeroed; free it even after a failure. CAB_ESHAPE where the two do not have the same
 * tokens, CAB_ENUMERIC where a matrix is not finite. */
cab_status cab_compare(const cab_compare_options *options, cab_comparison *out);
void cab_comparison_free(cab_comparison *comparison);

/* Its name in a run directory, where the report looks for it. */
#define CAB_RUN_COMPARISON "compare.json"

/* The comparison as docs/formats.md has it; the caller puts it (json_object_put). */
cab_status cab_comparison_json(const cab_comparison *comparison, json_object **out);
/* Read back from a file, without the values of single samples. What is missing or makes no sense is CAB_EFORMAT. *out must be
 * zeroed; free it even after a failure. */
cab_status cab_comparison_load(const char *path, cab_comparison *out);

#endif
