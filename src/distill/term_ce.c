/* term_ce.c - cross-entropy against the labels: mean over rows with a label of -log p_student(label), or of
 * -sum_v y_v log p_student(v) where the data mixes labels into targets y. An output of the fused head loss. */
#include "distill/term.h"

static cab_status ce_record(const cab_term_inputs *in, cab_term_output *out)
{
    return cab_term_add(in->g, out, in->head.ce);
}

const cab_term cab_term_ce = {
    .needs = CAB_NEEDS_HEAD | CAB_NEEDS_LABELS,
    .chart = {.title = "Cross-entropy, training", .note = "on the labels", .unit = "nats per %s"},
    .record = ce_record,
};
