/* writing.c - texts out of the decoder, many at a time; n-grams counted by sorting their hashes; perplexity by the scorer. */
#include "train/writing.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "train/decode.h"
#include "train/scorer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 64, JUDGED_CONTEXT = 1024 };

/* n texts of `length` tokens, one behind the other. */
typedef struct texts {
    int32_t *ids;
    uint64_t n, length;
} texts;

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

static cab_status write_batch(const cab_model *m, const cab_writing_options *o, uint64_t first, int64_t n, texts *t,
                              cab_progress *progress)
{
    const cab_sampling sampling = {.temperature = o->temperature, .top_p = o->top_p, .seed = o->seed};
    cab_decode_row rows[BATCH];
    int32_t tokens[BATCH];
    cab_decode *decode = NULL;
    cab_status status;
    for (int64_t b = 0; b < n; b++)
        rows[b] = (cab_decode_row){&o->start, 1, (int32_t)(first + (uint64_t)b)};
    CAB_TRY(cab_decode_new(m, rows, n, &sampling, &decode));
    for (uint64_t at = 0; at < t->length; at++) {
        CAB_GOTO(cab_decode_step(decode));
        CAB_GOTO(cab_decode_tokens(decode, tokens));
        for (int64_t b = 0; b < n; b++)
            t->ids[(first + (uint64_t)b) * t->length + at] = tokens[b];
        cab_progress_update(progress, first * t->length + (at + 1) * (uint64_t)n, "");
    }
    status = CAB_OK;
done:
    cab_decode_free(decode);
    return status;
}

static cab_status write_texts(const cab_model *m, const cab_writing_options *o, texts *t)
{
    const uint64_t longest = cab_network_bounded(&m->network) ? (uint64_t)m->network.step_length : UINT64_MAX;
    cab_progress progress;
    cab_status status = CAB_OK;
    t->length = o->tokens < longest ? o->tokens : longest;
    t->n = (o->texts * o->tokens + t->length - 1) / t->length;
    CAB_TRY(CAB_NEW(&t->ids, t->n * t->length, "texts"));
    cab_progress_begin(&progress, "writing", "tokens", 0, t->n * t->length);
    for (uint64_t first = 0; status == CAB_OK && first < t->n; first += BATCH)
        status = write_batch(m, o, first, (int64_t)(t->n - first < BATCH ? t->n - first : BATCH), t, &progress);
    cab_progress_end(&progress);
    return status;
}

/* ---- how varied ---------------------------------------------------------------------------------------------------------- */

static int by_value(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

/* Tokens first .. first + n of every text. */
static double distinct_share(const texts *t, uint64_t first, uint64_t n, uint64_t gram, uint64_t *hashes)
{
    size_t count = 0, different = 0;
    for (uint64_t i = 0; i < t->n; i++)
        for (uint64_t at = first; at + gram <= first + n; at++)
            hashes[count++] = cab_hash(CAB_HASH_START, t->ids + i * t->length + at, gram * sizeof *t->ids);
    qsort(hashes, count, sizeof *hashes, by_value);
    for (size_t i = 0; i < count; i++)
        different += i == 0 || hashes[i] != hashes[i - 1];
    return count > 0 ? (double)different / (double)count : (double)NAN;
}

/* Whether the 4 tokens that end at `at` stood before, ending at most 256 tokens earlier. */
static bool repeats(const int32_t *ids, uint64_t at)
{
    const int32_t *end = ids + at + 1 - CAB_WRITING_GRAMS;
    for (uint64_t back = 1; back <= CAB_WRITING_NEAR && back + CAB_WRITING_GRAMS <= at + 1; back++)
        if (memcmp(end, end - back, CAB_WRITING_GRAMS * sizeof *ids) == 0)
            return true;
    return false;
}

static double repetition_share(const texts *t, uint64_t first, uint64_t n)
{
    uint64_t repeated = 0;
    for (uint64_t i = 0; i < t->n; i++)
        for (uint64_t at = first; at < first + n; at++)
            repeated += at + 1 >= CAB_WRITING_GRAMS && repeats(t->ids + i * t->length, at);
    return (double)repeated / (double)(n * t->n);
}

/* ---- how likely ---------------------------------------------------------------------------------------------------------- */

/* Pieces of a block of one text: half a context each, behind the other half of what stands before. */
static size_t add_pieces(const int32_t *text, uint64_t first, uint64_t n, uint64_t context, cab_request *out)
{
    const uint64_t half = context / 2 > 0 ? context / 2 : 1;
    size_t count = 0;
    for (uint64_t at = first > 0 ? first : 1; at < first + n;) { /* nothing comes before the first of all */
        const uint64_t end = at + half < first + n ? at + half : first + n;
        const uint64_t begin = end > context ? end - context : 0;
        if (out != NULL)
            out[count] = (cab_request){text + begin, (size_t)(end - begin), (size_t)(at - begin)};
        count++;
        at = end;
    }
    return count;
}

static cab_status judge_block(const texts *t, const cab_model *judge, uint64_t first, uint64_t n, double *perplexity)
{
    const uint64_t most = cab_network_bounded(&judge->network) ? (uint64_t)judge->config.max_length : JUDGED_CONTEXT;
    const uint64_t context = most < JUDGED_CONTEXT ? most : JUDGED_CONTEXT;
    cab_request *requests = NULL;
    cab_score *scores = NULL;
    size_t count = 0, tokens = 0;
    double logp = 0;
    cab_status status;
    const size_t each = add_pieces(t->ids, first, n, context, NULL);
    CAB_GOTO(CAB_NEW(&requests, each * t->n + 1, "pieces"));
    CAB_GOTO(CAB_NEW(&scores, each * t->n + 1, "pieces"));
    for (uint64_t i = 0; i < t->n; i++)
        count += add_pieces(t->ids + i * t->length, first, n, context, requests + count);
    CAB_GOTO(cab_score_requests(judge, requests, count, "judging", scores, NULL));
    for (size_t i = 0; i < count; i++) {
        logp += scores[i].logp;
        tokens += requests[i].count - requests[i].context;
    }
    *perplexity = tokens > 0 ? exp(-logp / (double)tokens) : (double)NAN;
done:
    cab_free(requests);
    cab_free(scores);
    return status;
}

/* ---- both ---------------------------------------------------------------------------------------------------------------- */

static cab_status measure_block(const texts *t, const cab_model *judge, uint64_t first, cab_writing_block *block)
{
    const uint64_t left = t->length - first, n = left < CAB_WRITING_BLOCK ? left : CAB_WRITING_BLOCK;
    uint64_t *hashes = NULL;
    *block = (cab_writing_block){.first = first, .texts = t->n, .tokens = n * t->n, .perplexity = NAN};
    CAB_TRY(CAB_NEW(&hashes, n * t->n, "sequences of tokens"));
    for (uint64_t gram = 1; gram <= CAB_WRITING_GRAMS; gram++)
        block->distinct[gram - 1] = distinct_share(t, first, n, gram, hashes);
    cab_free(hashes);
    block->repetition = repetition_share(t, first, n);
    return judge != NULL ? judge_block(t, judge, first, n, &block->perplexity) : CAB_OK;
}

cab_status cab_writing_measure(const cab_model *writer, const cab_model *judge, const cab_writing_options *options,
                               cab_writing_block **blocks, size_t *count)
{
    texts t = {0};
    cab_status status;
    *blocks = NULL;
    *count = 0;
    if (options->texts == 0 || options->tokens == 0)
        return cab_fail(CAB_EARG, "nothing to write: %llu texts of %llu tokens", (unsigned long long)options->texts,
                        (unsigned long long)options->tokens);
    if (options->start < 0)
        return cab_fail(CAB_EARG, "%s: nothing says which token starts a text",
                        writer->directory != NULL ? writer->directory : writer->arch->name);
    CAB_GOTO(write_texts(writer, options, &t));
    CAB_GOTO(CAB_NEW(blocks, (t.length + CAB_WRITING_BLOCK - 1) / CAB_WRITING_BLOCK, "blocks"));
    for (uint64_t first = 0; first < t.length; first += CAB_WRITING_BLOCK)
        CAB_GOTO(measure_block(&t, judge, first, &(*blocks)[(*count)++]));
done:
    cab_free(t.ids);
    if (status != CAB_OK) {
        cab_free(*blocks);
        *blocks = NULL;
    }
    return status;
}
