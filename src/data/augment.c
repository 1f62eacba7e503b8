/* augment.c - crop, jitter, erasing, mixing; randaugment.c has the rest. */
#include "data/augment.h"

#include "data/image_adjust.h"

#include <math.h>
#include <string.h>

enum { ATTEMPTS = 10, CHANNELS = 3 };

cab_augment cab_augment_basic(void)
{
    return (cab_augment){.scale_min = 0.08f,
                         .scale_max = 1.0f,
                         .ratio_min = 3.0f / 4.0f,
                         .ratio_max = 4.0f / 3.0f,
                         .flip = 0.5f,
                         .erase_count = 1,
                         .mix_probability = 1.0f,
                         .switch_probability = 0.5f,
                         .repeats = 1};
}

cab_augment cab_augment_deit(void)
{
    cab_augment a = cab_augment_basic();
    a.rand = (cab_randaugment){2, 0.5f, 9.0f, 0.5f, 10.0f, true};
    a.jitter = 0.3f;
    a.erase = 0.25f;
    a.erase_mode = CAB_ERASE_PIXEL;
    a.mixup = 0.8f;
    a.cutmix = 1.0f;
    a.smoothing = 0.1f;
    return a;
}

static cab_status check_range(const char *name, double low, double high, double from, double to)
{
    if (!(low >= from && low <= high && high <= to))
        return cab_fail(CAB_EARG, "augmentation: %s is %g to %g; expected within %g to %g", name, low, high, from, to);
    return CAB_OK;
}

cab_status cab_augment_check(const cab_augment *a)
{
    const struct {
        const char *name;
        double low, high, from, to;
    } checks[] = {
        {"scale", a->scale_min, a->scale_max, 0.0, 1.0},
        {"ratio", a->ratio_min, a->ratio_max, a->scale_max > 0.0f ? 1e-3 : 0.0, 1e3},
        {"flip", a->flip, a->flip, 0.0, 1.0},
        {"number of RandAugment operations", a->rand.operations, a->rand.operations, 0.0, 100.0},
        {"probability of RandAugment", a->rand.probability, a->rand.probability, 0.0, 1.0},
        {"magnitude of RandAugment", a->rand.magnitude, a->rand.magnitude, 0.0, 30.0},
        {"deviation of RandAugment", a->rand.deviation, a->rand.deviation, 0.0, 100.0},
        {"greatest magnitude of RandAugment", a->rand.max, a->rand.max, 0.0, 30.0},
        {"jitter", a->jitter, a->jitter, 0.0, 1.0},
        {"erasing", a->erase, a->erase, 0.0, 1.0},
        {"number of erased rectangles", a->erase_count, a->erase_count, 0.0, 1000.0},
        {"mixup", a->mixup, a->mixup, 0.0, 1000.0},
        {"cutmix", a->cutmix, a->cutmix, 0.0, 1000.0},
        {"probability of mixing", a->mix_probability, a->mix_probability, 0.0, 1.0},
        {"probability of cutmix", a->switch_probability, a->switch_probability, 0.0, 1.0},
        {"smoothing", a->smoothing, a->smoothing, 0.0, 1.0},
        {"repeats", a->repeats, a->repeats, 0.0, 1000.0},
    };
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        CAB_TRY(check_range(checks[i].name, checks[i].low, checks[i].high, checks[i].from, checks[i].to));
    return CAB_OK;
}

/* ---- draws ------------------------------------------------------------------------------------------------------------ */

static double uniform(cab_random *random, double low, double high)
{
    return low + (high - low) * (double)cab_random_uniform(random);
}

/* 0 .. last, both included. */
static int below(cab_random *random, int last)
{
    return (int)cab_random_below(random, (uint64_t)last + 1);
}

/* Marsaglia and Tsang 2000; a shape below 1 is drawn as Gamma(a + 1) u^(1/a). */
static double gamma_draw(cab_random *random, double shape)
{
    double d = (shape < 1.0 ? shape + 1.0 : shape) - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d), value;
    for (;;) {
        double x = (double)cab_random_normal(random), v = 1.0 + c * x;
        v = v * v * v;
        double u = 1.0 - (double)cab_random_uniform(random); /* in (0, 1] */
        value = d * v;
        if (v > 0.0 && log(u) < 0.5 * x * x + d - d * v + d * log(v))
            break;
    }
    return shape < 1.0 ? value * pow(1.0 - (double)cab_random_uniform(random), 1.0 / shape) : value;
}

static double beta_draw(cab_random *random, double shape)
{
    double a = gamma_draw(random, shape), b = gamma_draw(random, shape);
    return a + b > 0.0 ? a / (a + b) : 0.5; /* both underflow for tiny shapes only */
}

/* ---- one image -------------------------------------------------------------------------------------------------------- */

/* Ten tries at an area and a shape that fit; then the largest middle part of an allowed shape. */
cab_box cab_augment_crop(const cab_augment *a, cab_random *random, int width, int height)
{
    const double area = (double)width * height;
    for (int i = 0; i < ATTEMPTS; i++) {
        double target = uniform(random, (double)a->scale_min, (double)a->scale_max) * area;
        double ratio = exp(uniform(random, log((double)a->ratio_min), log((double)a->ratio_max)));
        double w = rint(sqrt(target * ratio)), h = rint(sqrt(target / ratio));
        if (w >= 1.0 && h >= 1.0 && w <= width && h <= height) {
            int top = below(random, height - (int)h), left = below(random, width - (int)w);
            return (cab_box){left, top, (int)w, (int)h};
        }
    }
    double ratio = (double)width / height;
    int w = width, h = height;
    if (ratio < (double)a->ratio_min)
        h = (int)rint(width / (double)a->ratio_min);
    else if (ratio > (double)a->ratio_max)
        w = (int)rint(height * (double)a->ratio_max);
    w = w < 1 ? 1 : w > width ? width : w;
    h = h < 1 ? 1 : h > height ? height : h;
    return (cab_box){(width - w) / 2, (height - h) / 2, w, h};
}

/* Brightness, contrast and colour in a drawn order. */
void cab_augment_jitter(float strength, cab_random *random, cab_image *image)
{
    void (*const adjust[3])(cab_image *, float) = {cab_adjust_brightness, cab_adjust_contrast, cab_adjust_colour};
    uint64_t order[3];
    cab_random_permutation(random, order, 3);
    for (int i = 0; i < 3; i++) {
        double low = 1.0 - (double)strength;
        adjust[order[i]](image, (float)uniform(random, low < 0.0 ? 0.0 : low, 1.0 + (double)strength));
    }
}

int cab_augment_erasures(const cab_augment *a)
{
    return a->erase <= 0.0f ? 0 : a->erase_count > 1 ? a->erase_count : 1;
}

/* The numbers of its noise lie between those drawn before and those drawn behind. */
static cab_erasure erasure_of(cab_erase fill, cab_random *random, int x, int y, int width, int height)
{
    const cab_erasure e = {.x = x, .y = y, .width = width, .height = height, .fill = (int32_t)fill, .random = *random};
    const uint64_t steps = ((uint64_t)width + 3) / 4 * (uint64_t)height;
    random->index += (uint64_t)CHANNELS * (fill == CAB_ERASE_PIXEL ? steps : fill == CAB_ERASE_RAND ? 1 : 0);
    return e;
}

void cab_augment_erase(const cab_augment *a, cab_random *random, int size, cab_erasure *erasures)
{
    const double area_min = 0.02, area_max = 1.0 / 3.0, ratio_min = 0.3;
    memset(erasures, 0, (size_t)cab_augment_erasures(a) * sizeof *erasures);
    if ((double)cab_random_uniform(random) >= (double)a->erase)
        return;
    int count = a->erase_count > 1 ? 1 + below(random, a->erase_count - 1) : 1;
    for (int i = 0; i < count; i++)
        for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
            double target = uniform(random, area_min, area_max) * size * size / count;
            double ratio = exp(uniform(random, log(ratio_min), -log(ratio_min)));
            int h = (int)rint(sqrt(target * ratio)), w = (int)rint(sqrt(target / ratio));
            if (w < size && h < size) {
                int top = below(random, size - h), left = below(random, size - w);
                erasures[i] = erasure_of(a->erase_mode, random, left, top, w, h);
                break;
            }
        }
}

cab_status cab_augment_apply(const cab_augment *a, const cab_image_transform *t, cab_random *random,
                             cab_image_scratch *s, const cab_image *image, uint8_t *pixels, cab_erasure *erasures)
{
    if (a->scale_max > 0.0f)
        CAB_TRY(cab_resample(&s->resampler, image, cab_augment_crop(a, random, image->width, image->height), t->filter,
                             t->size, t->size, NULL, &s->image));
    else
        CAB_TRY(cab_image_transform_crop(t, s, image, &s->image));
    if (cab_random_uniform(random) < a->flip)
        cab_adjust_mirror(&s->image);
    if (a->rand.operations > 0) {
        uint8_t fill[3];
        for (int c = 0; c < CHANNELS; c++)
            fill[c] = (uint8_t)fmin(255.0, rint((double)t->divisor * (double)t->mean[c]));
        CAB_TRY(cab_randaugment_apply(&a->rand, random, t->filter, fill, &s->image, &s->spare));
    } else if (a->jitter > 0.0f) {
        cab_augment_jitter(a->jitter, random, &s->image);
    }
    memcpy(pixels, s->image.pixels, (size_t)t->size * (size_t)t->size * CHANNELS);
    if (a->erase > 0.0f)
        cab_augment_erase(a, random, t->size, erasures);
    return CAB_OK;
}

/* ---- batches ---------------------------------------------------------------------------------------------------------- */

/* A square of share 1 - lambda about a point drawn anywhere; what falls outside is lost, and the share set right. */
static cab_mix draw_cut(cab_random *random, double lambda, int size)
{
    const int half = (int)(size * sqrt(1.0 - lambda)) / 2;
    const int y = below(random, size - 1), x = below(random, size - 1);
    const int top = y < half ? 0 : y - half, left = x < half ? 0 : x - half;
    const int bottom = y + half > size ? size : y + half, right = x + half > size ? size : x + half;
    cab_box box = {left, top, right - left, bottom - top};
    double pasted = (double)box.width * box.height / ((double)size * size);
    return (cab_mix){(float)(1.0 - pasted), true, box};
}

cab_mix cab_mix_draw(const cab_augment *a, cab_random *random, int size)
{
    const bool cuts = a->cutmix > 0.0f, averages = a->mixup > 0.0f;
    if ((!cuts && !averages) || cab_random_uniform(random) >= a->mix_probability)
        return (cab_mix){.share = 1.0f};
    if (cuts && (!averages || cab_random_uniform(random) < a->switch_probability))
        return draw_cut(random, beta_draw(random, (double)a->cutmix), size);
    return (cab_mix){.share = (float)beta_draw(random, (double)a->mixup)};
}

cab_blend cab_mix_blend(const cab_mix *mix, int64_t batch, int64_t first, int64_t count)
{
    const int64_t middle = (batch - 1) / 2; /* of an odd batch: its own partner */
    const bool inside = batch % 2 == 1 && middle >= first && middle < first + count;
    return (cab_blend){.share = mix->share,
                       .cut = mix->cut,
                       .x = mix->box.x,
                       .y = mix->box.y,
                       .width = mix->box.width,
                       .height = mix->box.height,
                       .alone = inside ? (int32_t)(middle - first) : -1};
}

void cab_mix_targets(const cab_mix *mix, float smoothing, const int32_t *labels, int batch, int32_t classes,
                     float *targets)
{
    const float off = smoothing / (float)classes, on = 1.0f - smoothing + off;
    for (int i = 0; i < batch; i++) {
        float *row = targets + (size_t)i * (size_t)classes;
        int32_t own = labels[i], partner = labels[batch - 1 - i];
        for (int32_t c = 0; c < classes; c++) {
            float first = c == own ? on : off, second = c == partner ? on : off;
            row[c] = own < 0 ? 0.0f : first * mix->share + second * (1.0f - mix->share);
        }
    }
}
