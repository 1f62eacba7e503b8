/* image_feed.c - the bytes go as they are; what the device does with them is in ops/pixels.c.
 *
 * Picture i of a batch of B is mixed with picture B - 1 - i. So the partners of the M pictures from `first` on are the M pictures
 * from B - first - M on, backwards: another micro-batch's, or the same one's. */
#include "data/image_feed.h"

#include <string.h>

static cab_tensor *bytes_input(cab_graph *g, const char *name, const cab_image_feed_options *o)
{
    const int64_t size = o->transform->size;
    return cab_graph_input(g, name, CAB_U8, 4, (int64_t[]){o->batch, size, size, 3});
}

static cab_tensor *erasures_input(cab_graph *g, const char *name, const cab_image_feed_options *o)
{
    return o->erasures == 0
               ? NULL
               : cab_graph_input(g, name, CAB_I32, 3, (int64_t[]){o->batch, o->erasures, CAB_ERASURE_WORDS});
}

void cab_image_feed_record(cab_graph *g, const cab_image_feed_options *o, cab_image_feed *feed)
{
    const cab_image_transform *t = o->transform;
    cab_pixels_scale scale = {.divisor = t->divisor};
    memcpy(scale.mean, t->mean, sizeof scale.mean);
    memcpy(scale.std, t->std, sizeof scale.std);
    feed->inputs =
        (cab_pixels_inputs){.bytes = bytes_input(g, "bytes", o), .erasures = erasures_input(g, "erasures", o)};
    if (o->mixed)
        feed->inputs.blend = cab_graph_input(g, "blend", CAB_I32, 1, (int64_t[]){CAB_BLEND_WORDS});
    if (o->mixed && o->apart) {
        feed->inputs.partners = bytes_input(g, "partners", o);
        feed->inputs.partner_erasures = erasures_input(g, "partners' erasures", o);
    }
    feed->image = cab_pixels(g, &feed->inputs, &scale);
}

cab_image_rows cab_image_feed_rows(const cab_image_feed_options *o, const cab_image_batch *batch, int64_t batch_size,
                                   int64_t first)
{
    const int64_t picture = (int64_t)3 * o->transform->size * o->transform->size, other = batch_size - first - o->batch;
    const cab_erasure *erasures = batch->erasures;
    return (cab_image_rows){.bytes = batch->pixels + first * picture,
                            .partners = batch->pixels + other * picture,
                            .erasures = erasures == NULL ? NULL : erasures + first * o->erasures,
                            .partner_erasures = erasures == NULL ? NULL : erasures + other * o->erasures,
                            .blend = cab_mix_blend(&batch->mix, batch_size, first, o->batch)};
}

cab_status cab_image_feed_write(cab_graph *g, const cab_image_feed *feed, const cab_image_rows *rows)
{
    const cab_pixels_inputs *in = &feed->inputs;
    CAB_TRY(cab_tensor_lend(g, in->bytes, rows->bytes));
    if (in->partners != NULL)
        CAB_TRY(cab_tensor_lend(g, in->partners, rows->partners));
    if (in->erasures != NULL)
        CAB_TRY(cab_tensor_write_ahead(g, in->erasures, rows->erasures));
    if (in->partner_erasures != NULL)
        CAB_TRY(cab_tensor_write_ahead(g, in->partner_erasures, rows->partner_erasures));
    return in->blend == NULL ? CAB_OK : cab_tensor_write_ahead(g, in->blend, &rows->blend);
}
