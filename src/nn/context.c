#include "nn/context.h"

#include "base/memory.h"

#include <math.h>

void cab_context_tap(const cab_context *context, cab_tap tap, cab_tensor *t)
{
    const cab_taps *taps = context->taps;
    if (taps == NULL)
        return;
    cab_tensor **const arrays[CAB_TAPS] = {
        [CAB_TAP_QUERY] = taps->query,           [CAB_TAP_KEY] = taps->key,
        [CAB_TAP_VALUE] = taps->value,           [CAB_TAP_HIDDEN] = taps->hidden,
        [CAB_TAP_QUERY_BACK] = taps->query_back, [CAB_TAP_KEY_BACK] = taps->key_back,
        [CAB_TAP_DECAY] = taps->decay,           [CAB_TAP_DECAY_BACK] = taps->decay_back};
    if (arrays[tap] != NULL)
        arrays[tap][context->layer] = t;
}

/* inv_freq[i] = theta^(-2 i / dim), i < dim / 2, as an input of the graph. */
static cab_tensor *record_frequencies(cab_graph *g, const cab_rope *rope)
{
    int half = rope->dim / 2;
    cab_tensor *t = cab_graph_input(g, "inv_freq", CAB_F32, 1, (int64_t[]){half});
    float *values = NULL;
    if (t == NULL)
        return NULL;
    cab_status status = CAB_NEW(&values, (size_t)half, "rotary frequencies");
    for (int i = 0; status == CAB_OK && i < half; i++)
        values[i] = (float)pow(rope->theta, -2.0 * i / rope->dim);
    if (status == CAB_OK)
        status = cab_tensor_write(g, t, values);
    cab_free(values);
    return status == CAB_OK ? t : cab_graph_fail(g, status, "%s", cab_error_text());
}

static cab_tensor *frequencies(cab_graph *g, cab_context *context, const cab_rope *rope)
{
    for (int i = 0; i < context->n_rope; i++)
        if (context->ropes[i].rope.dim == rope->dim && context->ropes[i].rope.theta == rope->theta)
            return context->ropes[i].frequencies;
    if (context->n_rope == CAB_ROPES_MAX)
        return cab_graph_fail(g, CAB_EUNSUPPORTED, "more than %d rotary embeddings in one model", CAB_ROPES_MAX);
    context->ropes[context->n_rope].rope = *rope;
    return context->ropes[context->n_rope++].frequencies = record_frequencies(g, rope);
}

cab_tensor *cab_context_rotate(cab_graph *g, cab_context *context, cab_tensor *x, const cab_rope *rope, int n_head)
{
    return rope->dim == 0 ? x : cab_rotary(g, x, frequencies(g, context, rope), context->position, n_head);
}
