/* pixels.c - the bytes of pictures as the numbers that models read: normalised, erased, mixed.
 *
 *   v[b, c, y, x] = (bytes[b, y, x, c] / divisor - mean[c]) / std[c], or the noise of the last rectangle that covers (y, x)
 *   image[b]      = share v[b] + (1 - share) v'[B - 1 - b]                 averaged
 *                 = v'[B - 1 - b] inside of the blend's rectangle, else v[b]   cut
 *
 * v' is made of the partners' bytes and rectangles as v is of the batch's own.
 *
 * bytes: (B, H, W, 3) U8    erasures: (B, n, 12) I32, each a cab_erasure    blend: (8) I32, a cab_blend    image: (B, 3, H, W) F32 */
#include "ops/pixels.h"

#include "ops/record.h"

enum { CHANNELS = 3 };

const cab_op cab_op_pixels = {
    .name = "pixels", /* in: bytes erasures partners partner_erasures blend   out: image */
};

static bool bytes_fit(cab_graph *g, const cab_tensor *t, const cab_tensor *like)
{
    char a[96], b[96];
    if (t->dtype == CAB_U8 && t->n_dim == 4 && t->shape[3] == CHANNELS &&
        memcmp(t->shape, like->shape, sizeof t->shape) == 0)
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "pixels: \"%s\" is %s, expected (B, H, W, 3) U8%s%s", t->name, cab_shape_text(t, a),
                   t == like ? "" : " like ", t == like ? "" : cab_shape_text(like, b));
    return false;
}

static bool erasures_fit(cab_graph *g, const cab_tensor *t, int64_t batch)
{
    char a[96];
    if (!t || (t->dtype == CAB_I32 && t->n_dim == 3 && t->shape[0] == batch && t->shape[2] == CAB_ERASURE_WORDS))
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "pixels: \"%s\" is %s, expected (%" PRId64 ", n, %d) I32", t->name,
                   cab_shape_text(t, a), batch, (int)CAB_ERASURE_WORDS);
    return false;
}

static bool blend_fits(cab_graph *g, const cab_tensor *t)
{
    char a[96];
    if (!t || (t->dtype == CAB_I32 && cab_elements(t) == CAB_BLEND_WORDS))
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "pixels: \"%s\" is %s, expected (%d) I32", t->name, cab_shape_text(t, a),
                   (int)CAB_BLEND_WORDS);
    return false;
}

cab_tensor *cab_pixels(cab_graph *g, const cab_pixels_inputs *given, const cab_pixels_scale *scale)
{
    cab_tensor *bytes = given->bytes;
    if (cab_graph_failed(g) || !bytes || !bytes_fit(g, bytes, bytes) ||
        !erasures_fit(g, given->erasures, bytes->shape[0]) || !blend_fits(g, given->blend))
        return NULL;
    if (given->partners &&
        (!bytes_fit(g, given->partners, bytes) || !erasures_fit(g, given->partner_erasures, bytes->shape[0])))
        return NULL;
    cab_tensor *in[] = {[CAB_PIXELS_BYTES] = bytes,
                        [CAB_PIXELS_ERASURES] = given->erasures,
                        [CAB_PIXELS_PARTNERS] = given->partners,
                        [CAB_PIXELS_PARTNER_ERASURES] = given->partner_erasures,
                        [CAB_PIXELS_BLEND] = given->blend};
    if (given->blend && !given->partners) { /* the batch is mixed with itself */
        in[CAB_PIXELS_PARTNERS] = bytes;
        in[CAB_PIXELS_PARTNER_ERASURES] = given->erasures;
    }
    const int64_t shape[] = {bytes->shape[0], CHANNELS, bytes->shape[1], bytes->shape[2]};
    cab_tensor *image = cab_graph_activation(g, "image", CAB_F32, 4, shape);
    cab_graph_append(g, &cab_op_pixels, sizeof in / sizeof *in, in, 1, &image, scale, sizeof *scale);
    return cab_graph_failed(g) ? NULL : image;
}
