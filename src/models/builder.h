/* builder.h - the state behind cab_builder_matrix() and its kin; for the files that place
 * parameters themselves. */
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

/* The name as stored: with the first of the prefixes under which it is there, or the first of all. */
void cab_builder_name(const cab_builder *b, const char *name, char out[CAB_NAME_MAX]);

#endif
