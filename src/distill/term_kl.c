/* term_kl.c - distillation: mean over valid rows of T^2 KL(softmax(teacher / T) || softmax(student / T)), T the stage's
 * temperature. An output of the fused head loss. */
#include "distill/term.h"

static cab_status kl_record(const cab_term_inputs *in, cab_term_output *out)
{
    return cab_term_add(in->g, out, in->head.kl);
}

const cab_term cab_term_kl = {
    .needs = CAB_NEEDS_TEACHER | CAB_NEEDS_HEAD,
    .chart = {.title = "KL, training", .note = "from the teacher", .unit = "nats per %s", .logarithmic = true},
    .record = kl_record,
};
