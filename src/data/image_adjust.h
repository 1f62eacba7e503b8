/* image_adjust.h - what augmentation does to the colours and the geometry of a picture, in place, as Pillow computes it. */
#ifndef CAB_DATA_IMAGE_ADJUST_H
#define CAB_DATA_IMAGE_ADJUST_H

#include "data/image.h"
#include "data/resample.h"

/* ImageEnhance: 1 leaves the picture alone, 0 gives black, the mean gray, the gray picture, the smoothed picture; above 1
 * moves away from those. `spare` is scratch. */
void cab_adjust_brightness(cab_image *image, float factor);
void cab_adjust_contrast(cab_image *image, float factor);
void cab_adjust_colour(cab_image *image, float factor);
cab_status cab_adjust_sharpness(cab_image *image, float factor, cab_image *spare);

/* ImageOps, each channel by itself. */
void cab_adjust_autocontrast(cab_image *image); /* stretched from its least and greatest value to 0 .. 255 */
void cab_adjust_equalize(cab_image *image);     /* to a flat histogram */
void cab_adjust_invert(cab_image *image);
void cab_adjust_posterize(cab_image *image, int bits);     /* the `bits` highest bits are kept, 0 to 8 */
void cab_adjust_solarize(cab_image *image, int threshold); /* values from the threshold on are inverted */
void cab_adjust_solarize_add(cab_image *image, int threshold, int added); /* values below it are raised, up to 255 */

void cab_adjust_mirror(cab_image *image); /* left becomes right */

/* Pixel (x, y) becomes what lies at (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5]), pixels being centred at halves, and
 * `fill` where that is outside. The filters interpolate between neighbours and do not widen. */
cab_status cab_adjust_affine(cab_image *image, const double m[6], cab_filter filter, const uint8_t fill[3],
                             cab_image *spare);
/* Counter-clockwise about the middle. */
cab_status cab_adjust_rotate(cab_image *image, double degrees, cab_filter filter, const uint8_t fill[3],
                             cab_image *spare);

#endif
