/* thumbnail.h - small pictures for reports: JPEG in base64, ready for a data URI. */
#ifndef CAB_DATA_THUMBNAIL_H
#define CAB_DATA_THUMBNAIL_H

#include "data/image_transform.h"

/* What a model sees of the picture under this transform, scaled down to at most `side` pixels. *base64 is owned by the
 * caller. */
cab_status cab_thumbnail(const cab_image *image, const cab_image_transform *transform, cab_image_scratch *scratch,
                         int side, char **base64);

#endif
