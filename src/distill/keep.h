/* keep.h - which heads of a teacher, or which layers, stay attention in an in-place student.
 *
 * They are named, or ranked in one of two ways. By error: what mixers leave unexplained without them, which needs training
 * (train/keep_trial.h). By KL: what the teacher loses without them, KL(teacher || teacher without it) per token, over some windows of the
 * training data; a head is left out by zeroing its columns of the output projection, a layer by zeroing all of them. */
#ifndef CAB_DISTILL_KEEP_H
#define CAB_DISTILL_KEEP_H

#include "distill/recipe.h"
#include "models/model.h"

/* Windows of tokens, (count, length) I32, of the training data. */
typedef struct cab_windows {
    const int32_t *ids;
    int64_t count, length;
} cab_windows;

typedef struct cab_kept {
    bool layers; /* whole layers are kept, else heads of every layer */
    int n_layer,
        n_head;  /* of the teacher; n_layer: of whole layers, the student's, each of which is one of the teacher's */
    int count;   /* heads kept in each layer, or layers kept */
    int *units;  /* heads, (n_layer, count), or layers, (count); rising */
    int by;      /* what the cost is: CAB_KEEP_BY_ERROR, in shares of variance, or CAB_KEEP_BY_KL, in nats per token */
    float *cost; /* of leaving one out: (n_layer, n_head), or (n_layer); NULL: not measured */
    bool open;   /* the cost is still to be measured, and to be followed by cab_kept_decide() */
} cab_kept;

/* Layers to choose from, or in which heads are chosen: cab_kept's n_layer. */
int cab_kept_layers(const cab_model *teacher, const cab_recipe *recipe, bool layers);
/* What the recipe says: student.keep_list, or student.keep of them, ranked by KL; if they are to be ranked by error, kept->open.
 * windows may have no ids if nothing is ranked. CAB_ESHAPE for units that the teacher has not. The caller closes it, also after a failure. */
cab_status cab_kept_choose(const cab_model *teacher, const cab_recipe *recipe, bool layers, const cab_windows *windows,
                           cab_kept *kept);
/* Takes the units of the highest costs. */
void cab_kept_decide(cab_kept *kept);
void cab_kept_close(cab_kept *kept);

/* The i-th head kept in a layer. */
static inline int cab_kept_head(const cab_kept *kept, int layer, int i)
{
    return kept->units[(size_t)layer * (size_t)kept->count + (size_t)i];
}
/* Whether a head of a layer, or a layer (head 0), is kept. */
bool cab_kept_has(const cab_kept *kept, int layer, int head);
/* Heads of K and V that the kept heads need: one where all that are kept in a layer share theirs, in every layer; else each has
 * its own. `share` heads of the teacher share one. */
int cab_kept_kv_heads(const cab_kept *kept, int share);
/* What the cost is, in a word: "error" or "kl". */
const char *cab_kept_by(const cab_kept *kept);
/* The table of costs as lines of the log. */
void cab_kept_print(const cab_kept *kept);
/* The same as JSON: {"unit": "heads", "by": "error", "cost": [[...], ...], "kept": [[...], ...]}. */
cab_status cab_kept_save(const cab_kept *kept, const char *path);
/* Reads that back. cost is NULL, and units too, where nothing was ranked. The caller closes it; a failure leaves nothing. */
cab_status cab_kept_load(const char *path, cab_kept *kept);
/* Where a student has it. */
#define CAB_KEPT_FILE "kept_attention.json"

#endif
