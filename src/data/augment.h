/* augment.h - random variations of training images and of their labels.
 *
 * The steps and their numbers are those of timm (create_transform, Mixup), in its order:
 *
 *   random resized crop, flip, RandAugment (or colour jitter where that is off), normalise, random erasing,
 *   then, per batch, mixup or cutmix, and label smoothing
 *
 * All up to RandAugment is computed here, in bytes. Of what follows only the numbers are drawn here; the device that trains computes
 * it (ops/pixels.h). Everything drawn comes from the cab_random that is passed in, so equal counters give equal pixels. */
#ifndef CAB_DATA_AUGMENT_H
#define CAB_DATA_AUGMENT_H

#include "base/random.h"
#include "data/image_transform.h"
#include "ops/pixels.h"

/* RandAugment (Cubuk et al. 2020): `operations` drawn with repetition, each applied with `probability`, at a magnitude drawn
 * from a normal distribution and cut to 0 .. max, where 10 is the full range of the operation. */
typedef struct cab_randaugment {
    int operations; /* 0: off */
    float probability;
    float magnitude, deviation, max;
    bool increasing; /* variants whose effect grows with the magnitude for every operation */
} cab_randaugment;

/* timm's words: "rand-m9-mstd0.5-inc1" and the keys n, p, mmax; "" or "none" is off. */
cab_status cab_randaugment_parse(const char *text, cab_randaugment *out);

typedef struct cab_augment {
    float scale_min, scale_max; /* share of the picture's area that is cropped; 0, 0: the crop of evaluation */
    float ratio_min, ratio_max; /* width over height of the crop */
    float flip;                 /* probability of exchanging left and right */
    cab_randaugment rand;
    float jitter; /* brightness, contrast and colour by factors within 1 -+ this; not applied beside RandAugment */
    float erase;  /* probability of erasing rectangles */
    cab_erase erase_mode;
    int erase_count;          /* 1 .. this many; their area is 2 % to 33 % of the image, together */
    float mixup, cutmix;      /* parameters of Beta(a, a); 0: off */
    float mix_probability;    /* of mixing a batch at all */
    float switch_probability; /* of cutmix where both are on */
    float smoothing;          /* share of the label that is spread over all classes */
    int repeats; /* an image stands this many times in a row in an epoch of as many samples; 0 or 1: once */
} cab_augment;

/* Only the resized crop (0.08 .. 1, 3/4 .. 4/3) and the flip (1/2); the rest off. */
cab_augment cab_augment_basic(void);
/* The schedule of DeiT that the paper trains with: the above, rand-m9-mstd0.5-inc1, jitter 0.3, erasing 0.25 by pixels,
 * mixup 0.8, cutmix 1, smoothing 0.1. Repeats are left at 1. */
cab_augment cab_augment_deit(void);
/* Probabilities within 0 .. 1, ranges that are ranges. */
cab_status cab_augment_check(const cab_augment *augment);

/* Rectangles that one image may lose. */
int cab_augment_erasures(const cab_augment *augment);
/* One image: pixels (S, S, 3) in bytes, and the cab_augment_erasures() rectangles that it loses; those of height 0 are none. */
cab_status cab_augment_apply(const cab_augment *augment, const cab_image_transform *transform, cab_random *random,
                             cab_image_scratch *scratch, const cab_image *image, uint8_t *pixels,
                             cab_erasure *erasures);

/* The steps one by one. */
cab_box cab_augment_crop(const cab_augment *augment, cab_random *random, int width, int height);
cab_status cab_randaugment_apply(const cab_randaugment *rand, cab_random *random, cab_filter filter,
                                 const uint8_t fill[3], cab_image *image, cab_image *spare);
void cab_augment_jitter(float strength, cab_random *random, cab_image *image);
void cab_augment_erase(const cab_augment *augment, cab_random *random, int size, cab_erasure *erasures);

/* How a batch is mixed with itself in reverse: image i keeps `share`, image B - 1 - i gives the rest. */
typedef struct cab_mix {
    float share; /* 1: nothing is mixed */
    bool cut;    /* `box` is pasted; otherwise all pixels are averaged */
    cab_box box;
} cab_mix;

cab_mix cab_mix_draw(const cab_augment *augment, cab_random *random, int size);
/* The same for rows first .. first + count of a batch of `batch`. */
cab_blend cab_mix_blend(const cab_mix *mix, int64_t batch, int64_t first, int64_t count);
/* targets: (B, classes): share on the image's smoothed label, the rest on its partner's. A label of -1 gives zeros. */
void cab_mix_targets(const cab_mix *mix, float smoothing, const int32_t *labels, int batch, int32_t classes,
                     float *targets);

#endif
