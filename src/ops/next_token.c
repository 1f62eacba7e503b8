/* next_token.c - what a decoding step ends with: the token that comes next in every sequence.
 *
 *   p = position + 1
 *   tokens[b] = prompts[b, p]                                        while p < lengths[b]
 *             = arg max of logits[b], the first of equals            temperature 0
 *             = a draw from softmax(logits[b] / temperature)         of the top_k likeliest, of these the fewest that hold
 *                                                                    top_p of the probability, and of these again those
 *                                                                    that have min_p of the likeliest's
 *   position = p
 *
 * With a repeat penalty r the logit of a token that has been fed counts as x / r above 0 and as x r below (Keskar et al.,
 * CTRL, arXiv 1909.05858): tokens[b] is marked in seen[b] first.
 *
 * A draw takes the candidates from the likeliest down, equals by id, to the first whose cumulative probability exceeds u;
 * u in [0, 1) is a function of (seed, samples[b], p - lengths[b]) alone, so that neither the batch nor how the sequence came
 * about changes it. */
#include "ops/next_token.h"

#include "ops/record.h"

const cab_op cab_op_next_token = {
    .name = "next_token", /* in: logits prompts lengths samples tokens position */
};

static bool is_list(cab_graph *g, const cab_tensor *t, int64_t n)
{
    char text[96];
    if (t->dtype == CAB_I32 && cab_elements(t) == n && t->ld == cab_columns(t))
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "next_token: \"%s\" is %s, expected %" PRId64 " elements I32", t->name,
                   cab_shape_text(t, text), n);
    return false;
}

void cab_next_token(cab_graph *g, const cab_next_token_inputs *in, const cab_sampling *sampling)
{
    cab_tensor *list[CAB_NEXT_INPUTS] = {in->logits, in->prompts,  in->lengths, in->samples,
                                         in->tokens, in->position, in->seen};
    char text[96];
    for (int i = 0; i < CAB_NEXT_SEEN; i++)
        if (list[i] == NULL)
            return;
    if (cab_graph_failed(g) || !cab_expect_dtype(g, "next_token", in->logits, CAB_DTYPES))
        return;
    const int64_t B = cab_rows(in->logits);
    if (in->prompts->dtype != CAB_I32 || in->prompts->n_dim != 2 || in->prompts->shape[0] != B) {
        cab_graph_fail(g, CAB_ESHAPE, "next_token: prompts are %s, expected (%" PRId64 ", P) I32",
                       cab_shape_text(in->prompts, text), B);
        return;
    }
    if ((in->seen != NULL) != (sampling->repeat_penalty > 0 && sampling->repeat_penalty != 1)) {
        cab_graph_fail(g, CAB_ESHAPE, "next_token: a repeat penalty of %g %s", (double)sampling->repeat_penalty,
                       in->seen ? "needs no tensor of what has been fed" : "needs a tensor of what has been fed");
        return;
    }
    if (in->seen != NULL && !is_list(g, in->seen, B * ((cab_columns(in->logits) + 31) / 32)))
        return;
    if (is_list(g, in->lengths, B) && is_list(g, in->samples, B) && is_list(g, in->tokens, B) &&
        cab_expect_index(g, "next_token", in->position))
        cab_graph_append(g, &cab_op_next_token, CAB_NEXT_INPUTS, list, 0, NULL, sampling, sizeof *sampling);
}
