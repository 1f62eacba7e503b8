#include "nn/context.h"

#include "base/memory.h"

#include <math.h>

void cab_context_tap(const cab_context *context, cab_tap tap, cab_tensor *t)
{
    const cab_taps *taps = context->taps;
    if (taps == NULL)
        return;
    cab_tensor **const arrays[CAB_TAPS] = {
        [CAB_TAP_QUERY] = taps->query,
        [CAB_TAP_KEY] = taps->key,
        [CAB_TAP_VALUE] = taps->value,
        [CAB_TAP_C] = taps->C,
        [CAB_TAP_B] = taps->B,
        [CAB_TAP_X] = taps->x,
        [CAB_TAP_HIDDEN] = taps->hidden,
        [CAB_TAP_MIXER_IN] = taps->mixer_in,
        [CAB_TAP_MIXER_OUT] = taps->mixer_out,
        [CAB_TAP_QUERY_BACK] = taps->query_back,
        [CAB_TAP_KEY_BACK] = taps->key_back,
        [CAB_TAP_DECAY] = taps->decay,
        [CAB_TAP_DECAY_BACK] = taps->decay_back,
    };
    if (arrays[tap] != NULL)
        arrays[tap][context->layer] = t;
}

void cab_context_tap_state(const cab_context *context, cab_tensor *C, cab_tensor *B, cab_tensor *x)
{
    cab_context_tap(context, CAB_TAP_C, C);
    cab_context_tap(context, CAB_TAP_B, B);
    cab_context_tap(context, CAB_TAP_X, x);
    if (context->attends)
        return;
    cab_context_tap(context, CAB_TAP_QUERY, C);
    cab_context_tap(context, CAB_TAP_KEY, B);
    cab_context_tap(context, CAB_TAP_VALUE, x);
}

static const double two_pi = 6.283185307179586;

/* The pair of features that turns so many times in the original length. */
static double pair_of(const cab_rope *rope, double turns)
{
    return rope->dim * log(rope->original / (turns * two_pi)) / (2 * log(rope->theta));
}

/* How much of pair i's frequency is left as it is: 1 all, 0 nothing, which divides it by the factor. */
static double kept(const cab_rope *rope, int i, double frequency)
{
    const double turns = rope->original * frequency / two_pi;
    const double first = fmax(floor(pair_of(rope, rope->high)), 0);
    const double last = fmin(ceil(pair_of(rope, rope->low)), rope->dim - 1);
    switch (rope->kind) {
    case CAB_ROPE_DEFAULT:
    case CAB_ROPE_LONGROPE:
        return 1;
    case CAB_ROPE_LINEAR:
        return 0;
    case CAB_ROPE_LLAMA3:
        return fmin(fmax((turns - rope->low) / (rope->high - rope->low), 0), 1);
    case CAB_ROPE_YARN:
        return 1 - fmin(fmax((i - first) / (last == first ? 0.001 : last - first), 0), 1);
    }
    return 1;
}

/* f[i], i < dim / 2, as an input of the graph. longer: of sequences of more than `original` tokens. */
static cab_tensor *record_frequencies(cab_graph *g, const cab_rope *rope, bool longer)
{
    int half = rope->dim / 2;
    cab_tensor *t = cab_graph_input(g, "inv_freq", CAB_F32, 1, (int64_t[]){half});
    float *values = NULL;
    if (t == NULL)
        return NULL;
    cab_status status = CAB_NEW(&values, (size_t)half, "rotary frequencies");
    for (int i = 0; status == CAB_OK && i < half; i++) {
        const double frequency = pow(rope->theta, -2.0 * i / rope->dim), part = kept(rope, i, frequency);
        values[i] = (float)(part == 1 ? frequency : part * frequency + (1 - part) * frequency / rope->factor);
        if (rope->kind == CAB_ROPE_LONGROPE)
            values[i] = (float)(frequency / (double)rope->factors[longer][i]);
    }
    if (status == CAB_OK)
        status = cab_tensor_write(g, t, values);
    cab_free(values);
    return status == CAB_OK ? t : cab_graph_fail(g, status, "%s", cab_error_text());
}

static bool same(const cab_rope *a, const cab_rope *b)
{
    return a->theta == b->theta && a->dim == b->dim && a->kind == b->kind && a->factor == b->factor &&
           a->low == b->low && a->high == b->high && a->original == b->original && a->factors[0] == b->factors[0] &&
           a->factors[1] == b->factors[1];
}

static cab_tensor *frequencies(cab_graph *g, cab_context *context, const cab_rope *rope, bool longer)
{
    for (int i = 0; i < context->n_rope; i++)
        if (same(&context->ropes[i].rope, rope) && context->ropes[i].longer == longer)
            return context->ropes[i].frequencies;
    if (context->n_rope == CAB_ROPES_MAX)
        return cab_graph_fail(g, CAB_EUNSUPPORTED, "more than %d rotary embeddings in one model", CAB_ROPES_MAX);
    context->ropes[context->n_rope].rope = *rope;
    context->ropes[context->n_rope].longer = longer;
    return context->ropes[context->n_rope++].frequencies = record_frequencies(g, rope, longer);
}

cab_tensor *cab_context_rotate(cab_graph *g, cab_context *context, cab_tensor *x, const cab_rope *rope, int n_head)
{
    if (rope->dim == 0 || x == NULL)
        return x;
    const bool longer = context->position == NULL && x->shape[1] > rope->original;
    return cab_rotary(g, x, frequencies(g, context, rope, longer && rope->kind == CAB_ROPE_LONGROPE), context->position,
                      n_head, rope->scale > 0 ? (float)rope->scale : 1);
}
