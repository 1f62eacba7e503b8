/* term.h - what a loss term is: what it needs, how it records, what it reports. terms.h lists them; each is a constant
 * cab_term_<name> in a file term_<name>.c.
 *
 * The objective records teacher and student once, with the taps that its terms ask for. Then every term records. A term
 * appends scalars. Its value is the sum of its scalars divided by `over`, and the gradient of each scalar is weight /
 * over. Terms that need the head read the outputs of one fused op (ops/head_loss.c), which the objective records before
 * them. */
#ifndef CAB_DISTILL_TERM_H
#define CAB_DISTILL_TERM_H

#include "distill/recipe.h"
#include "distill/terms.h"
#include "models/model.h"

enum {
    CAB_NEEDS_TEACHER = 1, /* the teacher runs */
    CAB_NEEDS_HEAD = 2,    /* the student's head runs, with CAB_NEEDS_TEACHER the teacher's too */
    CAB_NEEDS_LABELS = 4   /* only rows with a label count; with CAB_NEEDS_HEAD and not this, only valid rows */
};

/* A set of taps: CAB_TAP_BIT(CAB_TAP_KEY) | ... */
#define CAB_TAP_BIT(tap) (1u << (tap))

/* What a term opens its state from. The models have their sizes and parameters; the values of the student's parameters
 * may still change. */
typedef struct cab_term_setup {
    const cab_recipe *recipe;
    const cab_model *student, *teacher;
    const int *layer_map; /* for every student layer, the teacher layer that it learns from, or -1 */
    cab_params *params;   /* takes the term's own parameters: trained and saved beside the student, then discarded */
} cab_term_setup;

/* What a term records from. A pointer is NULL if nothing was recorded that would set it. */
typedef struct cab_term_inputs {
    cab_graph *g;
    const cab_model *student, *teacher;
    const cab_taps *student_taps, *teacher_taps; /* the taps that the term asked for, and perhaps others */
    cab_tensor *student_hidden, *teacher_hidden; /* behind the final norm: (B, L, D), of images (B, 1, D) */
    cab_tensor *labels, *valid;                  /* (B, L) I32 */
    cab_tensor *starts;   /* (B, L) I32, the first token of each token's document; NULL: one each */
    cab_head_losses head; /* if the term needs the head */
    void *state;          /* what open() made; NULL if the term has no open() */
} cab_term_inputs;

/* What a term records: scalars F32, kept. */
typedef struct cab_term_output {
    cab_tensor **scalars;
    int count;
    size_t capacity;
    int over; /* the value is the sum of the scalars divided by this; 0: no value and no gradient */
} cab_term_output;

typedef struct cab_term {
    unsigned needs;                      /* CAB_NEEDS_... */
    unsigned student_taps, teacher_taps; /* sets of taps */
    struct {
        const char *title, *note, *unit; /* %s: token or image */
        bool logarithmic;
    } chart; /* in the report */
    /* Makes the term's state for a pair of models: refuses a pair for which the term makes no sense (CAB_ESHAPE), and
     * adds the term's parameters. NULL: the term has no state. close() frees the state. */
    cab_status (*open)(const cab_term_setup *setup, void **state);
    void (*close)(void *state);
    /* Records the term: adds its scalars by cab_term_add(), and sets output->over, which is 1 at first. */
    cab_status (*record)(const cab_term_inputs *inputs, cab_term_output *output);
} cab_term;

/* cab_term_ce ... */
#define CAB_TERM_DECLARE(ID, name, ...) extern const cab_term cab_term_##name;
CAB_TERMS(CAB_TERM_DECLARE, )
#undef CAB_TERM_DECLARE

/* The row of a term. */
const cab_term *cab_term_at(cab_term_id term);
/* Appends an F32 scalar and keeps it for the host. Appends nothing if `scalar` is NULL: a tensor that was not recorded,
 * or a graph that has failed. CAB_ENOMEM. */
cab_status cab_term_add(cab_graph *g, cab_term_output *output, cab_tensor *scalar);

/* ---- in a recipe ---- */

typedef struct cab_term_span {
    double start, end; /* weights at the start and the end of the stage; end -1: as the start */
} cab_term_span;

/* The weight that a stage gives a term; and whether that weight is ever above zero, which means that the stage uses the
 * term. */
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

/* Opens the states of all terms that setup->recipe uses. setup->params is ignored: the set has a store of its own. *set
 * must be zeroed before, and closed even after a failure. The failures are those of the terms' open(), or
 * CAB_ENOMEM. */
cab_status cab_term_set_open(const cab_term_setup *setup, cab_term_set *set);
void cab_term_set_close(cab_term_set *set);

#endif
