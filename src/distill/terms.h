/* terms.h - the loss terms, one row each.
 *
 * A term is a file term_<name>.c, which defines cab_term_<name> (term.h), and a row here. The row gives the term its index, its
 * weight in a recipe's stages (`<name>` at the start, `<name>_end` at the end), its field in log.jsonl and its word in the
 * progress line. Everything else goes through the table: schedule, objective, log, report. docs/adding-a-loss.md adds one. */
#ifndef CAB_DISTILL_TERMS_H
#define CAB_DISTILL_TERMS_H

#include <stdbool.h>
#include <stdint.h>

/* Index, name, what its weight is the weight of, further keys of a stage that belong to it. A new term goes last: the order is
 * that of the keys in recipe.yaml. */
#define CAB_TERMS(X, ...)                                                                                              \
    X(CE, ce, "the cross-entropy", CAB_TERM_NO_KEYS, __VA_ARGS__)                                                      \
    X(KL, kl, "KL(teacher || student)", CAB_TERM_KL_KEYS, __VA_ARGS__)                                                 \
    X(ALIGN, align, "the alignment loss", CAB_TERM_NO_KEYS, __VA_ARGS__)

/* Keys in the rows of recipe.h. */
#define CAB_TERM_NO_KEYS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)
#define CAB_TERM_KL_KEYS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS) REAL(temperature, 1, 0.01, 100, "of the KL")

/* CAB_TERM_CE ... */
#define CAB_TERM_ID(ID, ...) CAB_TERM_##ID,
typedef enum cab_term_id { CAB_TERMS(CAB_TERM_ID, ) CAB_TERM_COUNT } cab_term_id;
#undef CAB_TERM_ID

/* Weights of the terms at one step, by index. */
typedef struct cab_term_weights {
    double of[CAB_TERM_COUNT];
} cab_term_weights;

/* Values of the terms after a run, unweighted, means over the micro-batch. A term that is not there is NaN. */
typedef struct cab_term_values {
    double of[CAB_TERM_COUNT];
    bool counted[CAB_TERM_COUNT]; /* the term had something to be a mean over: a label, a valid row, an aligned layer */
    double agreement;             /* rows for which student and teacher find the same most likely */
    int64_t labels, valid;        /* rows that counted */
} cab_term_values;

/* "ce" ... */
const char *cab_term_name(cab_term_id term);
/* "ce, kl or align", in out; returns it. */
const char *cab_term_names(char *out, unsigned size);
/* Sum of weight times value, of terms that have both. */
double cab_terms_loss(const cab_term_weights *weights, const cab_term_values *values);

#endif
