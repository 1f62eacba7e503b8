/* export_internal.h - what the files of the exporter share: export.c has the tensors, export_keys.c the metadata. */
#ifndef CAB_MODELS_EXPORT_INTERNAL_H
#define CAB_MODELS_EXPORT_INTERNAL_H

#include "io/checkpoint.h"
#include "io/gguf_names.h"
#include "io/gguf_writer.h"
#include "models/export.h"
#include "models/model.h"

typedef struct cab_exporter {
    const cab_export *what;
    cab_checkpoint *source;
    const cab_json *json; /* config.json */
    const cab_gguf_family *family;
    const cab_arch *arch;
    cab_config config;
    const float
        *factors[3]; /* of rotary frequencies, of config: for all lengths, for short texts, for long; NULL: none */
    uint64_t zeros;  /* parameters that are left out because they are zero */
    cab_gguf_writer *file;
} cab_exporter;

/* A tensor of a directory to write: elements of the source's entry from `first` on, as many as the shape has, or zeros (NULL). */
typedef struct cab_export_tensor {
    char name[CAB_NAME_MAX];
    const cab_safetensors_entry *entry;
    int64_t first;
    int n_dim;
    int64_t shape[CAB_MAX_DIMS];
    cab_dtype dtype; /* set by cab_export_weights() */
} cab_export_tensor;

/* CAB_EARG: a dtype that directories do not hold, or the model's own directory. */
cab_status cab_export_check(const cab_export *what, const char *directory);
/* model.safetensors of these tensors, matrices of `dtype`. */
cab_status cab_export_weights(cab_checkpoint *source, cab_export_tensor *tensors, size_t count, cab_dtype dtype,
                              const char *directory, cab_exported *out);
/* config.json of this, with the name of the dtype added. */
cab_status cab_export_config(json_object *config, cab_dtype dtype, const char *directory);

/* What rows of a tensor are multiplied by: `rows` of each of n parts. n 0: 1. */
enum { CAB_FACTORS_MAX = 5 };
typedef struct cab_export_factors {
    int n;
    int64_t rows[CAB_FACTORS_MAX];
    float factor[CAB_FACTORS_MAX];
} cab_export_factors;

/* Whether llama.cpp's architecture leaves multipliers to the weights; and those of a tensor, by its name in transformers. */
bool cab_export_multiplies(const cab_exporter *x);
cab_export_factors cab_export_factors_of(const cab_exporter *x, const char *name);
float cab_export_factor(const cab_export_factors *factors, int64_t row);

/* Finds family and architecture by model_type, reads config.json by the latter, and writes the keys of the former. */
cab_status cab_export_keys(cab_exporter *x);

/* A model of several parts is exported without some: a line says so. */
void cab_export_say_left_out(const cab_checkpoint *source);

#endif
