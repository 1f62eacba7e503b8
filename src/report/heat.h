/* heat.h - small matrices as pictures: PNG in base64, one pixel an entry, transparent where there is nothing. Internal to
 * this folder. */
#ifndef CAB_REPORT_HEAT_H
#define CAB_REPORT_HEAT_H

#include "base/error.h"

#include <stdint.h>

typedef enum cab_heat_palette {
    CAB_HEAT_OVERLAY, /* dark violet to yellow, over a picture */
    CAB_HEAT_PLAIN    /* one colour that shows on light and on dark paper */
} cab_heat_palette;

/* Magnitudes of `values`, (rows, columns); full colour stands for *full, the largest, outliers (one in 50) apart. *base64 is
 * owned by the caller. */
cab_status cab_heat_png(const float *values, int64_t rows, int64_t columns, cab_heat_palette palette, double *full,
                        char **base64);

#endif
