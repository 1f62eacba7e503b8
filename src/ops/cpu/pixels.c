/* pixels.c - bytes to normalised, erased and mixed images on the CPU, a line of a picture at a time.
 *
 * Every product and every sum is rounded by itself, whatever the instruction set: loops over memory lie between them, so that none
 * becomes one rounding of both. */
#include "ops/pixels.h"

#include "ops/cpu/cpu.h"
#include "ops/cpu/vec.h"

#include <omp.h>

enum { CHANNELS = 3, LEVELS = 256 };

typedef float level_table[CHANNELS][LEVELS];

static void fill_table(const cab_pixels_scale *s, level_table table)
{
    for (int c = 0; c < CHANNELS; c++)
        for (int v = 0; v < LEVELS; v++)
            table[c][v] = ((float)v / s->divisor - s->mean[c]) / s->std[c];
}

/* Row y of channel c of an erased rectangle that covers it. */
static void erase_row(const cab_erasure *e, int c, int64_t y, float *row)
{
    cab_random random = e->random;
    const uint64_t steps = ((uint64_t)e->width + 3) / 4;
    float colour = 0.0f;
    if (e->fill == CAB_ERASE_PIXEL) {
        random.index += ((uint64_t)c * (uint64_t)e->height + (uint64_t)(y - e->y)) * steps;
        cab_random_normals(&random, row + e->x, (size_t)e->width);
        return;
    }
    random.index += (uint64_t)c;
    if (e->fill == CAB_ERASE_RAND)
        cab_random_normals(&random, &colour, 1);
    for (int32_t x = e->x; x < e->x + e->width; x++)
        row[x] = colour;
}

/* Line y of picture b, whose channels lie `plane` floats apart in `out`. */
static void make_line(const cab_tensor *bytes, const cab_tensor *erasures, level_table table, int64_t b, int64_t y,
                      float *out, int64_t plane)
{
    const int64_t width = bytes->shape[2], n = erasures ? erasures->shape[1] : 0;
    const uint8_t *from = (const uint8_t *)bytes->data + (b * bytes->shape[1] + y) * width * CHANNELS;
    const cab_erasure *erased = erasures ? (const cab_erasure *)erasures->data + b * n : NULL;
    for (int64_t x = 0; x < width; x++)
        for (int c = 0; c < CHANNELS; c++)
            out[c * plane + x] = table[c][from[x * CHANNELS + c]];
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < CHANNELS && y >= erased[i].y && y < erased[i].y + erased[i].height; c++)
            erase_row(&erased[i], c, y, out + c * plane);
}

/* out = share out + (1 - share) other, or a piece of other. */
static void mix_line(const cab_blend *blend, int64_t y, float *out, float *other, int64_t width)
{
    if (blend->cut) {
        if (y >= blend->y && y < blend->y + blend->height)
            memcpy(out + blend->x, other + blend->x, (size_t)blend->width * sizeof *out);
        return;
    }
    const float share = blend->share, rest = 1.0f - share;
    for (int64_t x = 0; x < width; x++)
        out[x] *= share;
    for (int64_t x = 0; x < width; x++)
        other[x] *= rest;
    cab_axpy(out, 1.0f, other, width);
}

cab_status CAB_ISA(cab_pixels_forward)(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *const *in = (const cab_tensor *const *)node->in;
    const cab_tensor *image = node->out[0];
    const cab_blend *blend = in[CAB_PIXELS_BLEND] ? in[CAB_PIXELS_BLEND]->data : NULL;
    const int64_t B = image->shape[0], H = image->shape[2], W = image->shape[3], plane = H * W;
    const bool mixed = blend != NULL && blend->share != 1.0f;
    level_table table;
    fill_table(node->attributes, table);
#pragma omp parallel for num_threads(backend->threads) schedule(static)
    for (int64_t row = 0; row < B * H; row++) {
        const int64_t b = row / H, y = row % H;
        float *out = (float *)image->data + b * CHANNELS * plane + y * W;
        make_line(in[CAB_PIXELS_BYTES], in[CAB_PIXELS_ERASURES], table, b, y, out, plane);
        if (!mixed || blend->alone == b)
            continue;
        float *other = (float *)node->scratch + (int64_t)omp_get_thread_num() * CHANNELS * W;
        make_line(in[CAB_PIXELS_PARTNERS], in[CAB_PIXELS_PARTNER_ERASURES], table, B - 1 - b, y, other, W);
        for (int c = 0; c < CHANNELS; c++)
            mix_line(blend, y, out + c * plane, other + c * W, W);
    }
    return CAB_OK;
}
