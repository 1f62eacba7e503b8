/* recall.c - what a model finds again in its context. Sequences of tokens drawn from the model's vocabulary, seed fixed:
 *
 *   retrieval   start  k1 : v1 \n  k2 : v2 \n  ...  kn : vn \n  kj :     -> vj       keys and values differ from one another
 *   induction   start  t1 t2 ... tn  t1 t2 ... tn                         -> every token of the second half but its first
 *
 * Whoever attends can look the answer up. A state of fixed size has to have kept it. Retrieval is also measured as a choice among the
 * right value and others of the same sequence, of which one is as likely as another where nothing is found again. */
#include "base/memory.h"
#include "base/random.h"
#include "data/text_bounds.h"
#include "train/tasks_internal.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { ITEMS = 100, SEED = 1, CHOICES = 8, WORDS = 1024 };

/* Tokens to draw from: words, where the vocabulary has enough of them. */
typedef struct words {
    int32_t *ids;
    size_t count;
    int32_t between, behind; /* ":" and a line's end, where the vocabulary has them; -1: nothing */
    int32_t start;           /* what a text begins with; -1: nothing */
} words;

/* A space and letters: what a text consists of. */
static bool is_word(const char *piece, size_t size)
{
    if (size < 3 || piece[0] != ' ')
        return false;
    for (size_t i = 1; i < size; i++)
        if (!isalpha((unsigned char)piece[i]))
            return false;
    return true;
}

static void collect(const cab_task_options *o, bool any, words *w)
{
    const int64_t most = cab_tokenizer_vocab_size(o->tokenizer);
    w->count = 0;
    for (int32_t id = 0; id < most && id < o->vocab_size; id++) {
        size_t size = 0;
        const char *piece = cab_tokenizer_piece(o->tokenizer, id, &size);
        if (w->count == WORDS)
            break;
        if (piece != NULL && !cab_tokenizer_is_special(o->tokenizer, id) && (any || is_word(piece, size)))
            w->ids[w->count++] = id;
    }
}

/* The one token that the text is; -1: it is several, or none. */
static int32_t mark(const cab_task_options *o, const char *text)
{
    cab_ids ids = {0};
    const bool one = cab_tokenizer_encode(o->tokenizer, text, strlen(text), &ids) == CAB_OK && ids.count == 1;
    const int32_t id = one && ids.data[0] < o->vocab_size ? ids.data[0] : -1;
    cab_ids_free(&ids);
    return id;
}

static cab_status open_words(const cab_task_options *o, words *w)
{
    cab_text_bounds bounds;
    CAB_TRY(cab_text_bounds_load(o->directory, o->tokenizer, o->vocab_size, &bounds));
    w->start = bounds.start;
    w->between = mark(o, ":");
    w->behind = mark(o, "\n");
    CAB_TRY(CAB_NEW(&w->ids, (size_t)o->vocab_size, "words"));
    collect(o, false, w);
    if (w->count < WORDS)
        collect(o, true, w);
    return CAB_OK;
}

/* n different tokens. */
static void draw(const words *w, cab_random *random, int32_t *out, size_t n)
{
    for (size_t i = 0; i < n;) {
        out[i] = w->ids[cab_random_below(random, w->count)];
        size_t same = 0;
        while (out[same] != out[i])
            same++;
        i += same == i;
    }
}

static cab_random random_of(uint32_t part, uint64_t item)
{
    return (cab_random){.seed = SEED, .stream = CAB_STREAM_TASK, .sub = part, .index = item << 32};
}

/* The choices: the right value, and others of the sequence, in the order of drawing. */
static cab_status add_choices(cab_task_set *set, int32_t *ids, size_t length, const int32_t *values, size_t pairs,
                              size_t right, cab_random *random)
{
    const size_t n = pairs < CHOICES ? pairs : CHOICES, label = cab_random_below(random, n);
    CAB_TRY(cab_task_question_begin(set, (unsigned)label));
    for (size_t i = 0; i < n; i++) {
        /* right, right + 1, ... around the list: n different places, the right one at `label` */
        ids[length] = values[(right + i + pairs - label) % pairs];
        CAB_TRY(cab_task_request_add(set, ids, length + 1, length, 1));
    }
    return CAB_OK;
}

static size_t put(int32_t *ids, size_t at, int32_t id)
{
    if (id < 0)
        return at;
    ids[at] = id;
    return at + 1;
}

static cab_status add_retrieval(const words *w, uint64_t items, size_t pairs, cab_task_set *set)
{
    int32_t *drawn = NULL, *ids = NULL;
    char name[64];
    cab_status status;
    snprintf(name, sizeof name, CAB_TASK_RECALL ", %zu pairs", pairs);
    CAB_GOTO(CAB_NEW(&drawn, 2 * pairs, "a sequence"));
    CAB_GOTO(CAB_NEW(&ids, 4 * pairs + 4, "a sequence"));
    CAB_GOTO(cab_task_part_begin(set, name, CAB_MEASURE_CHOICE | CAB_MEASURE_WORD));
    for (uint64_t item = 0; item < items; item++) {
        cab_random random = random_of((uint32_t)pairs, item);
        size_t length = 0;
        draw(w, &random, drawn, 2 * pairs); /* keys, then values */
        length = put(ids, length, w->start);
        for (size_t i = 0; i < pairs; i++) {
            ids[length++] = drawn[i];
            length = put(ids, length, w->between);
            ids[length++] = drawn[pairs + i];
            length = put(ids, length, w->behind);
        }
        const size_t right = cab_random_below(&random, pairs);
        ids[length++] = drawn[right];
        length = put(ids, length, w->between);
        CAB_GOTO(add_choices(set, ids, length, drawn + pairs, pairs, right, &random));
    }
done:
    cab_free(drawn);
    cab_free(ids);
    return status;
}

static cab_status add_induction(const words *w, uint64_t items, size_t tokens, cab_task_set *set)
{
    int32_t *ids = NULL;
    char name[64];
    cab_status status;
    snprintf(name, sizeof name, "induction, %zu tokens", tokens);
    CAB_GOTO(CAB_NEW(&ids, 2 * tokens + 1, "a sequence"));
    CAB_GOTO(cab_task_part_begin(set, name, CAB_MEASURE_TOKENS));
    for (uint64_t item = 0; item < items; item++) {
        cab_random random = random_of((uint32_t)tokens | 1u << 31, item);
        const size_t lead = w->start >= 0;
        ids[0] = w->start;
        draw(w, &random, ids + lead, tokens);
        for (size_t i = 0; i < tokens; i++)
            ids[lead + tokens + i] = ids[lead + i];
        CAB_GOTO(cab_task_question_begin(set, 0));
        CAB_GOTO(cab_task_request_add(set, ids, lead + 2 * tokens, lead + tokens + 1, 1));
    }
done:
    cab_free(ids);
    return status;
}

cab_status cab_recall_add(const cab_task_options *o, cab_task_set *set)
{
    static const size_t sizes[] = {4, 16, 64, 256};
    const uint64_t items = o->items > 0 ? o->items : ITEMS;
    words w = {0};
    size_t parts = set->n_parts;
    cab_status status;
    CAB_GOTO(open_words(o, &w));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if ((int64_t)(4 * sizes[i] + 3) <= o->longest && 4 * sizes[i] <= w.count)
            CAB_GOTO(add_retrieval(&w, items, sizes[i], set));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if ((int64_t)(2 * sizes[i] + 1) <= o->longest && 4 * sizes[i] <= w.count)
            CAB_GOTO(add_induction(&w, items, sizes[i], set));
    if (set->n_parts == parts)
        status = cab_fail(CAB_EUNSUPPORTED,
                          "%s: " CAB_TASK_RECALL " needs a context of 10 tokens and 16 tokens that "
                          "are words, found %" PRId64 " and %zu",
                          o->directory, o->longest, w.count);
done:
    cab_free(w.ids);
    return status;
}
