/* layouts.h - the formats that an in-place student may have to fit (student.layout), a row each: what a format can hold of a
 * teacher, and what it fixes of the mixers. */
#ifndef CAB_DISTILL_LAYOUTS_H
#define CAB_DISTILL_LAYOUTS_H

#include "models/model.h"

enum { CAB_WHY_MAX = 160 };

/* What of a layer's attention can stay. */
typedef enum cab_keep_unit { CAB_KEEP_HEADS = 1, CAB_KEEP_LAYERS = 2 } cab_keep_unit;

typedef struct cab_student_layout {
    const char *name; /* its word in student.layout */
    const cab_arch *arch;
    int keeps;        /* bits of cab_keep_unit; with both, heads unless the recipe says otherwise */
    bool automatic;   /* layout auto may choose it */
    bool own;         /* it holds whatever the teacher has, a head's attention included */
    bool no_mlp;      /* mixers alone: no attention, no MLP */
    int groups;       /* G that it fixes; 0: any */
    int expand;       /* E as a multiple of the width that it fixes; 0: any */
    bool gated_norm;  /* an RMS norm beside the gate */
    bool mlp_biases;  /* it can hold */
    bool multipliers; /* it has factors on the branches of a layer */
} cab_student_layout;

/* Whether heads can be kept beside a mixer; else whole layers are. */
static inline bool cab_student_layout_beside(const cab_student_layout *layout)
{
    return (layout->keeps & CAB_KEEP_HEADS) != 0;
}

/* Row `index`, in the order of the words; NULL past the last. */
const cab_student_layout *cab_student_layout_at(unsigned index);

/* Whether the layout can hold the teacher's blocks, with heads or layers kept or, keeps 0, without any attention. If not, `why` names
 * what it cannot hold. */
bool cab_student_layout_holds(const cab_student_layout *layout, const cab_model *teacher, int keeps,
                              char why[CAB_WHY_MAX]);

#endif
