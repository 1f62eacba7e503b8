/* terms.h - the loss terms, one row each.
 *
 * A term is a file term_<name>.c, which defines cab_term_<name> (term.h), and a row here. The row gives the term an
 * index, its weight in a recipe's stages (`<name>` at the start, `<name>_end` at the end), a field of log.jsonl and a
 * word in the progress line. Schedule, objective, log and report loop over the rows. docs/adding-a-loss.md shows how to
 * add one. */
#ifndef CAB_DISTILL_TERMS_H
#define CAB_DISTILL_TERMS_H

#include <stdbool.h>
#include <stdint.h>

/* A row: index, name, what the weight is the weight of (for the help), and further keys of a stage that belong to the
 * term. The keys in recipe.yaml follow this order, so a new term goes last. */
#define CAB_TERMS(X, ...)                                                                                              \
    X(CE, ce, "the cross-entropy", CAB_TERM_NO_KEYS, __VA_ARGS__)                                                      \
    X(KL, kl, "KL(teacher || student)", CAB_TERM_KL_KEYS, __VA_ARGS__)                                                 \
    X(ALIGN, align, "the alignment loss", CAB_TERM_NO_KEYS, __VA_ARGS__)                                               \
    X(LAYER, layer, "the layer-wise error", CAB_TERM_NO_KEYS, __VA_ARGS__)                                             \
    X(MATRIX, matrix, "the matrix error", CAB_TERM_NO_KEYS, __VA_ARGS__)

/* Further keys, as rows of recipe.h. */
#define CAB_TERM_NO_KEYS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)
#define CAB_TERM_KL_KEYS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS) REAL(temperature, 1, 0.01, 100, "of the KL")

/* CAB_TERM_CE ... */
#define CAB_TERM_ID(ID, ...) CAB_TERM_##ID,
typedef enum cab_term_id { CAB_TERMS(CAB_TERM_ID, ) CAB_TERM_COUNT } cab_term_id;
#undef CAB_TERM_ID

/* The weights of the terms at one step, by index. */
typedef struct cab_term_weights {
    double of[CAB_TERM_COUNT];
} cab_term_weights;

/* The values of the terms after a run, unweighted, as means over the micro-batch; CE and KL in nats. NaN: the stage has
 * no such term. */
typedef struct cab_term_values {
    double of[CAB_TERM_COUNT];
    bool counted[CAB_TERM_COUNT]; /* there was something to take the mean of: a label, a valid row, an aligned layer */
    double agreement;             /* share of valid rows where student and teacher find the same likeliest */
    int64_t labels, valid;        /* rows with a label; valid rows */
} cab_term_values;

/* The name of a term: "ce" ... */
const char *cab_term_name(cab_term_id term);
/* Writes all names, "ce, kl or align", to out, a buffer of `size` bytes, and returns it. */
const char *cab_term_names(char *out, unsigned size);
/* The sum of weight times value over the terms that have both. */
double cab_terms_loss(const cab_term_weights *weights, const cab_term_values *values);

#endif
