/* randaugment.c - RandAugment as timm defines it.
 *
 * With level = magnitude / 10, +- a drawn sign, and the "increasing" set of operations in brackets where it differs:
 *
 *   AutoContrast, Equalize, Invert    no parameter
 *   Rotate        +- 30 level degrees
 *   Posterize     keeps int(4 level) bits                [4 - int(4 level)]
 *   Solarize      from int(256 level) on                 [256 - int(256 level)]
 *   SolarizeAdd   adds int(110 level) below 128
 *   Color, Contrast, Brightness, Sharpness
 *                 by the factor 1.8 level + 0.1          [max(0.1, 1 +- 0.9 level)]
 *   ShearX, ShearY                  +- 0.3 level
 *   TranslateXRel, TranslateYRel    +- 0.45 level of the size */
#include "data/augment.h"
#include "data/image_adjust.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum operation {
    AUTO_CONTRAST,
    EQUALIZE,
    INVERT,
    ROTATE,
    POSTERIZE,
    SOLARIZE,
    SOLARIZE_ADD,
    COLOR,
    CONTRAST,
    BRIGHTNESS,
    SHARPNESS,
    SHEAR_X,
    SHEAR_Y,
    TRANSLATE_X,
    TRANSLATE_Y,
    OPERATIONS
} operation;

enum { FULL_MAGNITUDE = 10, SOLARIZE_ADD_BELOW = 128, KEY_MAX = 8 };

/* ---- the text --------------------------------------------------------------------------------------------------------- */

static cab_status set_key(const char *text, const char *key, float value, cab_randaugment *out)
{
    if (strcmp(key, "m") == 0)
        out->magnitude = value;
    else if (strcmp(key, "n") == 0 && value == (float)(int)value)
        out->operations = (int)value;
    else if (strcmp(key, "p") == 0)
        out->probability = value;
    else if (strcmp(key, "mstd") == 0)
        out->deviation = value;
    else if (strcmp(key, "mmax") == 0)
        out->max = value;
    else if (strcmp(key, "inc") == 0)
        out->increasing = value != 0.0f;
    else
        return cab_fail(CAB_EARG, "RandAugment \"%s\": \"%s%g\" is not known; known: m, n, p, mstd, mmax, inc", text,
                        key, (double)value);
    return CAB_OK;
}

cab_status cab_randaugment_parse(const char *text, cab_randaugment *out)
{
    *out = (cab_randaugment){0};
    if (*text == '\0' || strcmp(text, "none") == 0)
        return CAB_OK;
    if (strncmp(text, "rand", 4) != 0 || (text[4] != '-' && text[4] != '\0'))
        return cab_fail(CAB_EARG, "RandAugment \"%s\": expected rand-m9-mstd0.5-inc1 or the like", text);
    *out = (cab_randaugment){2, 0.5f, 10.0f, 0.0f, FULL_MAGNITUDE, false};
    for (const char *at = text + 4; *at == '-';) {
        char key[KEY_MAX] = "", *end = NULL;
        size_t length = strcspn(++at, "-0123456789");
        if (length >= sizeof key || at[length] < '0' || at[length] > '9')
            return cab_fail(CAB_EARG, "RandAugment \"%s\": expected a word and a number at \"%s\"", text, at);
        memcpy(key, at, length);
        float value = strtof(at + length, &end);
        if (*end != '-' && *end != '\0')
            return cab_fail(CAB_EARG, "RandAugment \"%s\": \"%s\" follows a number", text, end);
        CAB_TRY(set_key(text, key, value, out));
        at = end;
    }
    return CAB_OK;
}

/* ---- applying --------------------------------------------------------------------------------------------------------- */

static double signed_draw(cab_random *random, double value)
{
    return cab_random_uniform(random) < 0.5f ? -value : value;
}

static float enhancement(const cab_randaugment *r, cab_random *random, double level)
{
    if (r->increasing)
        return (float)fmax(0.1, 1.0 + signed_draw(random, 0.9 * level));
    return (float)(1.8 * level + 0.1);
}

typedef struct canvas {
    cab_image *image, *spare;
    cab_filter filter;
    const uint8_t *fill;
} canvas;

static cab_status move(const canvas *c, double xy, double x0, double yx, double y0)
{
    const double m[6] = {1.0, xy, x0, yx, 1.0, y0};
    return cab_adjust_affine(c->image, m, c->filter, c->fill, c->spare);
}

static int clamp_bits(int bits)
{
    return bits < 0 ? 0 : bits > 8 ? 8 : bits;
}

static cab_status apply(const cab_randaugment *r, cab_random *random, const canvas *c, operation which, double level)
{
    switch (which) {
    case AUTO_CONTRAST:
        cab_adjust_autocontrast(c->image);
        break;
    case EQUALIZE:
        cab_adjust_equalize(c->image);
        break;
    case INVERT:
        cab_adjust_invert(c->image);
        break;
    case ROTATE:
        return cab_adjust_rotate(c->image, signed_draw(random, 30.0 * level), c->filter, c->fill, c->spare);
    case POSTERIZE: {
        int bits = (int)(4.0 * level);
        cab_adjust_posterize(c->image, clamp_bits(r->increasing ? 4 - bits : bits));
        break;
    }
    case SOLARIZE: {
        int threshold = (int)(256.0 * level);
        cab_adjust_solarize(c->image, r->increasing ? 256 - threshold : threshold);
        break;
    }
    case SOLARIZE_ADD:
        cab_adjust_solarize_add(c->image, SOLARIZE_ADD_BELOW, (int)(110.0 * level));
        break;
    case COLOR:
        cab_adjust_colour(c->image, enhancement(r, random, level));
        break;
    case CONTRAST:
        cab_adjust_contrast(c->image, enhancement(r, random, level));
        break;
    case BRIGHTNESS:
        cab_adjust_brightness(c->image, enhancement(r, random, level));
        break;
    case SHARPNESS:
        return cab_adjust_sharpness(c->image, enhancement(r, random, level), c->spare);
    case SHEAR_X:
        return move(c, signed_draw(random, 0.3 * level), 0.0, 0.0, 0.0);
    case SHEAR_Y:
        return move(c, 0.0, 0.0, signed_draw(random, 0.3 * level), 0.0);
    case TRANSLATE_X:
        return move(c, 0.0, signed_draw(random, 0.45 * level) * c->image->width, 0.0, 0.0);
    case TRANSLATE_Y:
        return move(c, 0.0, 0.0, 0.0, signed_draw(random, 0.45 * level) * c->image->height);
    case OPERATIONS:
        break;
    }
    return CAB_OK;
}

cab_status cab_randaugment_apply(const cab_randaugment *r, cab_random *random, cab_filter filter, const uint8_t fill[3],
                                 cab_image *image, cab_image *spare)
{
    const canvas c = {image, spare, filter, fill};
    for (int i = 0; i < r->operations; i++) {
        operation which = (operation)cab_random_below(random, OPERATIONS);
        if (cab_random_uniform(random) >= r->probability)
            continue;
        double magnitude = (double)r->magnitude + (double)r->deviation * (double)cab_random_normal(random);
        magnitude = fmax(0.0, fmin(magnitude, (double)r->max));
        CAB_TRY(apply(r, random, &c, which, magnitude / FULL_MAGNITUDE));
    }
    return CAB_OK;
}
