/* pixels.h - what the recorder of `pixels` tells its kernels, and what the host writes for them. */
#ifndef CAB_OPS_PIXELS_H
#define CAB_OPS_PIXELS_H

#include "base/random.h"
#include "ops/ops.h"

extern const cab_op cab_op_pixels;

/* Inputs of the node; all but the first may be NULL. */
enum { CAB_PIXELS_BYTES, CAB_PIXELS_ERASURES, CAB_PIXELS_PARTNERS, CAB_PIXELS_PARTNER_ERASURES, CAB_PIXELS_BLEND };

/* What an erased rectangle is filled with, after normalising. */
typedef enum cab_erase {
    CAB_ERASE_CONST, /* 0, the mean */
    CAB_ERASE_RAND,  /* a normally distributed colour */
    CAB_ERASE_PIXEL  /* normally distributed pixels */
} cab_erase;

/* One rectangle of one picture. With CAB_ERASE_RAND channel c has the first number of cab_random_normals() at step c behind
 * `random`. With CAB_ERASE_PIXEL row r of channel c has `width` numbers, from step (c height + r) ceil(width / 4) on. */
typedef struct cab_erasure {
    int32_t x, y, width, height; /* height 0: nothing is erased */
    int32_t fill;                /* a cab_erase */
    int32_t unused;
    cab_random random;
} cab_erasure;

/* How the rows of a batch are mixed with their partners. */
typedef struct cab_blend {
    float share;                 /* that a picture keeps; 1: nothing is mixed */
    int32_t cut;                 /* 1: the partner's rectangle is pasted; 0: all pixels are averaged */
    int32_t x, y, width, height; /* the rectangle */
    int32_t alone;               /* the row that stays as it is, being its own partner; -1: none */
    int32_t unused;
} cab_blend;

enum { CAB_ERASURE_WORDS = sizeof(cab_erasure) / 4, CAB_BLEND_WORDS = sizeof(cab_blend) / 4 };

#endif
