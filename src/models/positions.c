/* positions.c - position embeddings of image models, for another image size than they were trained with.
 *
 * (1, n + s * s, D) as stored: n tokens beside the patches (at the front, or in the middle of the patches), and a square grid
 * of patches. A grid of another size is interpolated by Keys' cubic convolution, row i of s' at x = (i + 1/2) s / s' - 1/2:
 * torch's "bicubic" with align_corners=False, as transformers has it. There are two kinds:
 *
 *   plain          a = -0.75, the four samples around x, the border repeated
 *   antialiased    a = -0.5, all samples less than 2 max(s / s', 1) from x, the filter as wide; what is outside has no weight, and
 *                  the weights add up to 1 (DINOv2 with registers) */
#include "base/memory.h"
#include "models/builder.h"

#include <math.h>
#include <string.h>

/* For every row of the new grid the rows of the old one that it is made of, `most` or fewer, and their weights. */
typedef struct samples {
    int64_t most, *count, *at;
    double *w;
} samples;

/* Weights of the four samples around a point that lies t behind the second. */
static void cubic(double t, double w[4])
{
    const double a = -0.75;
    const double far = 1 + t, near = t, next = 1 - t, last = 2 - t;
    w[0] = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a;
    w[1] = ((a + 2) * near - (a + 3)) * near * near + 1;
    w[2] = ((a + 2) * next - (a + 3)) * next * next + 1;
    w[3] = ((a * last - 5 * a) * last + 8 * a) * last - 4 * a;
}

static int64_t sample_plain(int64_t i, int64_t from, int64_t to, int64_t *at, double *w)
{
    const double x = ((double)i + 0.5) * (double)from / (double)to - 0.5, floor_x = floor(x);
    cubic(x - floor_x, w);
    for (int k = 0; k < 4; k++) {
        const int64_t j = (int64_t)floor_x - 1 + k;
        at[k] = j < 0 ? 0 : j >= from ? from - 1 : j;
    }
    return 4;
}

/* Keys' filter, a = -0.5. */
static double smooth_cubic(double x)
{
    x = fabs(x);
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

static int64_t sample_smoothly(int64_t i, int64_t from, int64_t to, int64_t *at, double *w)
{
    const double scale = (double)from / (double)to, width = scale > 1 ? scale : 1, center = ((double)i + 0.5) * scale;
    const int64_t first = (int64_t)(center - 2 * width + 0.5), end = (int64_t)(center + 2 * width + 0.5);
    double sum = 0;
    int64_t n = 0;
    for (int64_t j = first > 0 ? first : 0; j < end && j < from; j++) {
        at[n] = j;
        sum += w[n++] = smooth_cubic(((double)j + 0.5 - center) / width);
    }
    for (int64_t k = 0; k < n; k++)
        w[k] /= sum;
    return n;
}

static void samples_close(samples *s)
{
    cab_free(s->count);
    cab_free(s->at);
    cab_free(s->w);
}

static cab_status samples_open(int64_t from, int64_t to, bool smooth, samples *s)
{
    *s = (samples){.most = smooth ? from : 4};
    CAB_TRY(CAB_NEW(&s->count, (size_t)to, "position embedding"));
    CAB_TRY(CAB_NEW(&s->at, (size_t)(to * s->most), "position embedding"));
    CAB_TRY(CAB_NEW(&s->w, (size_t)(to * s->most), "position embedding"));
    for (int64_t i = 0; i < to; i++)
        s->count[i] = (smooth ? sample_smoothly : sample_plain)(i, from, to, s->at + i * s->most, s->w + i * s->most);
    return CAB_OK;
}

/* grid (from * from, D) -> (to * to, D); a row of the grid starts at rows[i]. */
static void interpolate(const samples *s, const float *const *rows, int64_t from, float *const *out, int64_t to,
                        int64_t D)
{
    for (int64_t y = 0; y < to; y++)
        for (int64_t x = 0; x < to; x++) {
            const int64_t *row = s->at + y * s->most, *column = s->at + x * s->most;
            const double *wy = s->w + y * s->most, *wx = s->w + x * s->most;
            for (int64_t d = 0; d < D; d++) {
                double sum = 0;
                for (int64_t i = 0; i < s->count[y]; i++)
                    for (int64_t j = 0; j < s->count[x]; j++)
                        sum += wy[i] * wx[j] * (double)rows[row[i] * from + column[j]][d];
                out[y * to + x][d] = (float)sum;
            }
        }
}

/* Row `patch` of an embedding of `patches` patches whose n tokens stand at the front or in the middle. */
static int64_t patch_row(int64_t patch, int64_t patches, int n, bool middle)
{
    return patch < (middle ? patches / 2 : 0) ? patch : patch + n;
}

static cab_status resized(const cab_config *c, const float *stored, int64_t from, float *out)
{
    const bool middle = c->class_middle;
    const int n = c->n_special;
    const int64_t D = c->d_model, to = c->image_size / c->patch_size;
    const float **rows = NULL;
    float **places = NULL;
    samples s = {0};
    cab_status status;
    CAB_GOTO(samples_open(from, to, c->smooth_positions, &s));
    CAB_GOTO(CAB_NEW(&rows, (size_t)(from * from), "position embedding"));
    CAB_GOTO(CAB_NEW(&places, (size_t)(to * to), "position embedding"));
    for (int64_t i = 0; i < from * from; i++)
        rows[i] = stored + patch_row(i, from * from, n, middle) * D;
    for (int64_t i = 0; i < to * to; i++)
        places[i] = out + patch_row(i, to * to, n, middle) * D;
    interpolate(&s, rows, from, places, to, D);
    memcpy(out + (middle ? to * to / 2 : 0) * D, stored + (middle ? from * from / 2 : 0) * D,
           (size_t)(n * D) * sizeof *out);
done:
    samples_close(&s);
    cab_free(rows);
    cab_free(places);
    return status;
}

cab_status cab_builder_positions(cab_builder *b, cab_tensor **out, const cab_config *c, const char *short_name)
{
    const int64_t shape[3] = {1, c->max_length, c->d_model}, side = b->image_size / c->patch_size;
    char name[CAB_NAME_MAX];
    float *stored = NULL, *values = NULL;
    cab_status status;
    cab_builder_name(b, short_name, name);
    if (b->image_size == c->image_size)
        return cab_builder_shaped(b, out, CAB_NO_DECAY, 3, shape, "%s", short_name);
    const int64_t from[3] = {1, side * side + c->n_special, c->d_model};
    const void *data = NULL; /* checks the shape before sizes of a file are allocated */
    CAB_TRY(cab_checkpoint_view(b->source, name, 3, from, CAB_F32, &data));
    CAB_GOTO(CAB_NEW(&stored, (size_t)(from[1] * from[2]), name));
    CAB_GOTO(CAB_NEW(&values, (size_t)(shape[1] * shape[2]), name));
    CAB_GOTO(cab_checkpoint_read_f32(b->source, name, 3, from, stored));
    cab_builder_used(b, name);
    CAB_GOTO(resized(c, stored, side, values));
    CAB_GOTO(cab_params_add(b->params, name, CAB_F32, 3, shape, CAB_NO_DECAY, out));
    status = cab_params_write(b->params, *out, values);
done:
    cab_free(stored);
    cab_free(values);
    return status;
}
