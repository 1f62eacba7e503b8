/* layouts.h - the formats that an in-place student may have to fit (student.layout), a row each: what a format can hold of a
 * teacher, and what it fixes of the mixers. */
#ifndef CAB_DISTILL_LAYOUTS_H
#define CAB_DISTILL_LAYOUTS_H

#include "models/model.h"

enum { CAB_WHY_MAX = 160 };

typedef struct cab_student_layout {
    const char *name; /* its word in student.layout */
    const cab_arch *arch;
    bool beside; /* attention and state space stand side by side in a layer: heads are kept; else whole layers are */
    int groups;  /* G that it fixes; 0: any */
    int expand;  /* E as a multiple of the width that it fixes; 0: any */
    bool gated_norm;  /* an RMS norm beside the gate */
    bool mlp_biases;  /* it can hold */
    bool multipliers; /* it has factors on the branches of a layer */
} cab_student_layout;

/* Row `index`, in the order of the words; NULL past the last. */
const cab_student_layout *cab_student_layout_at(unsigned index);

/* Whether the layout can hold the teacher's blocks, with some of the attention kept or without. If not, `why` names what it
 * cannot hold. */
bool cab_student_layout_holds(const cab_student_layout *layout, const cab_model *teacher, bool keeps,
                              char why[CAB_WHY_MAX]);

#endif
