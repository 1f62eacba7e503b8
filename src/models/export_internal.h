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

/* Finds family and architecture by model_type, reads config.json by the latter, and writes the keys of the former. */
cab_status cab_export_keys(cab_exporter *x);

/* A model of several parts is exported without some: a line says so. */
void cab_export_say_left_out(const cab_checkpoint *source);

#endif
