/* image_scorer.h - a model as a function from a batch of pictures to logits, recorded once. */
#ifndef CAB_TRAIN_IMAGE_SCORER_H
#define CAB_TRAIN_IMAGE_SCORER_H

#include "data/image_transform.h"
#include "models/model.h"

typedef struct cab_image_scorer cab_image_scorer;

/* Plans the graph; nothing runs. The model must outlive the scorer and read images. Of the transform only the scale counts. */
cab_status cab_image_scorer_new(const cab_model *model, const cab_image_transform *transform, int batch,
                                cab_image_scorer **out);
void cab_image_scorer_free(cab_image_scorer *scorer);

/* pixels: (batch, S, S, 3), the cropped pictures. *logits: (batch, classes) fp32 of the scorer's, until its next run. */
cab_status cab_image_scorer_run(cab_image_scorer *scorer, const uint8_t *pixels, const float **logits);

/* The same in two calls. Pixels must stay as they are until the second, which waits for the device; *logits hold until the next second
 * call. */
cab_status cab_image_scorer_start(cab_image_scorer *scorer, const uint8_t *pixels);
cab_status cab_image_scorer_finish(cab_image_scorer *scorer, const float **logits);

/* How a model wants its pictures: what its directory states, at the size that the model reads. */
cab_status cab_image_transform_of(const cab_model *model, cab_image_transform *transform);

#endif
