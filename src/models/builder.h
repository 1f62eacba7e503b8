/* builder.h - the state behind cab_builder_matrix() and its kin; for builder.c and model.c. */
#ifndef CAB_MODELS_BUILDER_H
#define CAB_MODELS_BUILDER_H

#include "models/model.h"

struct cab_builder {
    cab_backend *backend;
    cab_params *params;
    const cab_checkpoint *source; /* NULL: fresh parameters */
    const char *const *prefixes;
    cab_dtype dtype; /* of frozen matrices */
    bool trainable;
};

#endif
