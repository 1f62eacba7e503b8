/* term.h - what a loss term is: what it needs, how it records, what it reports. terms.h lists them; each is a constant
 * cab_term_<name> in a file term_<name>.c.
 *
 * The objective records teacher and student once, with the taps that its terms ask for, then lets every term record. A term
 * appends scalars; its value is their sum over `over`, and each is seeded with weight / over. Terms that need the head are
 * outputs of one fused op (ops/head_loss.c), which is recorded before they are asked. */
#ifndef CAB_DISTILL_TERM_H
#define CAB_DISTILL_TERM_H

#include "distill/recipe.h"
#include "distill/terms.h"
#include "models/model.h"

enum {
    CAB_NEEDS_TEACHER = 1, /* the teacher runs */
    CAB_NEEDS_HEAD = 2,    /* the head runs: of the student, and of the teacher where that is needed too */
    CAB_NEEDS_LABELS = 4   /* rows without a label do not count; with CAB_NEEDS_HEAD alone, rows that are not valid */
};

/* A set of taps: CAB_TAP_BIT(CAB_TAP_KEY) | ... */
#define CAB_TAP_BIT(tap) (1u << (tap))

/* What a term may open its state from. The models have their sizes and parameters; the student's values may change yet. */
typedef struct cab_term_setup {
    const cab_recipe *recipe;
    const cab_model *student, *teacher;
    const int *layer_map; /* by student layer the teacher's, or -1 */
    cab_params *params;   /* for parameters of the term's own: trained and saved beside the student, then discarded */
} cab_term_setup;

/* What a term records from. Pointers are NULL where nothing that was recorded gives them. */
typedef struct cab_term_inputs {
    cab_graph *g;
    const cab_model *student, *teacher;
    const cab_taps *student_taps, *teacher_taps; /* those that the term asked for, and perhaps others */
    cab_tensor *student_hidden, *teacher_hidden; /* after the final norm: (B, L, D), of images (B, 1, D) */
    cab_tensor *labels, *valid;                  /* (B, L) I32 */
    cab_head_losses head;                        /* where the term needs the head */
    void *state;                                 /* what open() made; NULL without */
} cab_term_inputs;

/* What a term records: scalars F32, kept. */
typedef struct cab_term_output {
    cab_tensor **scalars;
    int count;
    size_t capacity;
    int over; /* the value is the sum of the scalars over this; 0: there is none, and no gradient */
} cab_term_output;

typedef struct cab_term {
    unsigned needs;                      /* CAB_NEEDS_... */
    unsigned student_taps, teacher_taps; /* sets of taps */
    struct {
        const char *title, *note, *unit; /* of its chart in the report; %s: token or image */
        bool logarithmic;
    } chart;
    /* The term's state for a pair of models: checks that the term makes sense for them (CAB_ESHAPE), adds parameters. NULL: it
     * has none. */
    cab_status (*open)(const cab_term_setup *setup, void **state);
    void (*close)(void *state);
    /* Adds what it computes, by cab_term_add(), and sets output->over, which is 1 before. */
    cab_status (*record)(const cab_term_inputs *inputs, cab_term_output *output);
} cab_term;

/* cab_term_ce ... */
#define CAB_TERM_DECLARE(ID, name, ...) extern const cab_term cab_term_##name;
CAB_TERMS(CAB_TERM_DECLARE, )
#undef CAB_TERM_DECLARE

const cab_term *cab_term_at(cab_term_id term);
/* Appends a scalar and keeps it for the host. NULL (not recorded, or a sticky error): appends nothing. */
cab_status cab_term_add(cab_graph *g, cab_term_output *output, cab_tensor *scalar);

/* ---- in a recipe ---- */

typedef struct cab_term_span {
    double start, end; /* end -1: as the start */
} cab_term_span;

/* The weight that a stage gives a term, and whether it is ever above zero. */
cab_term_span cab_stage_weight(const cab_stage *stage, cab_term_id term);
bool cab_stage_uses(const cab_stage *stage, cab_term_id term);
/* Whether a stage, or any stage of a recipe, uses a term that needs all of `needs`. */
bool cab_stage_needs(const cab_stage *stage, unsigned needs);
bool cab_recipe_needs(const cab_recipe *recipe, unsigned needs);

/* ---- of a pair of models ---- */

/* The states of the terms that a recipe uses. */
typedef struct cab_term_set {
    cab_params *params; /* of all terms; NULL: none has any */
    void *state[CAB_TERM_COUNT];
} cab_term_set;

/* setup->params is ignored. Close even after a failure; *set must be zeroed. */
cab_status cab_term_set_open(const cab_term_setup *setup, cab_term_set *set);
void cab_term_set_close(cab_term_set *set);

#endif
