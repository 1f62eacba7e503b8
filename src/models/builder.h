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
    int image_size; /* pixels of a side that the source states; the model's may be another */
    bool *used;     /* by the source's tensors, in its order: what has been read */
};

/* The name as stored: with the first of the prefixes under which it is there, or the first of all. */
void cab_builder_name(const cab_builder *b, const char *name, char out[CAB_NAME_MAX]);

/* Notes that a tensor of the source, by its full name, has been read. */
void cab_builder_used(cab_builder *b, const char *name);
/* CAB_EUNSUPPORTED, naming a tensor of the source that nobody has read and that no pattern of `unread` (may be NULL) allows. */
cab_status cab_builder_finish(const cab_builder *b, const char *const *unread);

#endif
