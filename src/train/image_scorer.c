/* image_scorer.c - pixels (B, S, S, 3) -> the model -> its head -> logits (B, classes), read back as fp32. */
#include "train/image_scorer.h"

#include "base/memory.h"
#include "data/image_feed.h"

struct cab_image_scorer {
    cab_graph *graph;
    cab_image_feed feed;
    cab_tensor *logits;
    void *raw;     /* the logits in the model's dtype */
    float *values; /* and as fp32 */
};

cab_status cab_image_scorer_new(const cab_model *model, const cab_image_transform *transform, int batch,
                                cab_image_scorer **out)
{
    const cab_image_feed_options options = {.transform = transform, .batch = batch};
    const size_t count = (size_t)batch * (size_t)model->config.n_classes;
    cab_image_scorer *s = NULL;
    cab_status status;
    *out = NULL;
    CAB_TRY(CAB_NEW(&s, 1, "an image scorer"));
    CAB_GOTO(CAB_NEW(&s->values, count, "logits"));
    CAB_GOTO(cab_alloc(&s->raw, count, cab_dtype_size(cab_model_dtype(model)), "logits"));
    CAB_GOTO(cab_graph_new(model->backend, &s->graph));
    cab_image_feed_record(s->graph, &options, &s->feed);
    s->logits = cab_model_record_logits(s->graph, model, cab_model_record(s->graph, model, s->feed.image, false, NULL));
    cab_graph_keep(s->graph, s->logits);
    CAB_GOTO(cab_graph_plan(s->graph, NULL));
    *out = s;
    s = NULL;
done:
    cab_image_scorer_free(s);
    return status;
}

void cab_image_scorer_free(cab_image_scorer *s)
{
    if (s == NULL)
        return;
    cab_graph_free(s->graph);
    cab_free(s->raw);
    cab_free(s->values);
    cab_free(s);
}

cab_status cab_image_scorer_run(cab_image_scorer *s, const uint8_t *pixels, const float **logits)
{
    CAB_TRY(cab_image_scorer_start(s, pixels));
    return cab_image_scorer_finish(s, logits);
}

cab_status cab_image_scorer_start(cab_image_scorer *s, const uint8_t *pixels)
{
    const cab_image_rows rows = {.bytes = pixels};
    CAB_TRY(cab_image_feed_write(s->graph, &s->feed, &rows));
    return cab_graph_run(s->graph);
}

cab_status cab_image_scorer_finish(cab_image_scorer *s, const float **logits)
{
    CAB_TRY(cab_tensor_read(s->graph, s->logits, s->raw));
    cab_convert(s->values, CAB_F32, s->raw, s->logits->dtype, (size_t)cab_elements(s->logits));
    *logits = s->values;
    return CAB_OK;
}

cab_status cab_image_transform_of(const cab_model *model, cab_image_transform *transform)
{
    *transform = cab_image_transform_default();
    if (model->directory != NULL)
        CAB_TRY(cab_image_transform_load(model->directory, transform));
    if (model->directory != NULL && transform->size != model->stated_size && !model->config.timm)
        return cab_fail(CAB_ESHAPE, "%s: pictures are prepared at %d pixels a side, but the model reads %d",
                        model->directory, transform->size, model->stated_size);
    transform->size = model->config.image_size;
    return CAB_OK;
}
