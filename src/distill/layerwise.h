/* layerwise.h - what loss terms share that compare layer by layer: every student layer with a state-space mixer is given what the
 * mixers of its teacher layer read. No layer hears of another. */
#ifndef CAB_DISTILL_LAYERWISE_H
#define CAB_DISTILL_LAYERWISE_H

#include "distill/term.h"

typedef struct cab_layerwise {
    int count;
    bool ordered; /* the tokens of both stand in the same order; else rows says how */
    cab_row_map rows;
    int *teacher; /* of every student layer; -1: it takes no part, because it has no mixer or no teacher */
} cab_layerwise;

/* CAB_ESHAPE for a pair whose widths or tokens differ, or where no layer takes part. The caller frees it. */
cab_status cab_layerwise_open(const cab_term_setup *setup, cab_layerwise **layers);
void cab_layerwise_close(void *layers);

/* The teacher's taps that cab_layerwise_record() reads. */
enum { CAB_LAYERWISE_TAPS = CAB_TAP_BIT(CAB_TAP_MIXER_IN) | CAB_TAP_BIT(CAB_TAP_HIDDEN) };

/* The mixers of student layer l: what they give. They are given what the teacher's mixers read, where the student has the teacher's
 * norms (in place); elsewhere what the student's own norm makes of the teacher's hidden state, which is what they will read in the whole.
 * taps may be NULL, or arrays of one entry, of this layer. */
cab_tensor *cab_layerwise_record(const cab_term_inputs *inputs, int l, const cab_taps *taps);

#endif
