/* dataset.c - documents of several files as one stream of tokens.
 *
 *   order[0] </s> order[1] </s> ...        starts[i]: where document order[i] begins in the stream
 *
 * The identity order serves evaluation; each epoch of training has its own, and its own permutation of windows. A window
 * is found in the stream by bisection of `starts`. */
#include "data/dataset.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/cache.h"
#include "data/data_paths.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct source {
    cab_cache cache;
    cab_tokens tokens; /* of token files */
    char *path;
} source;

typedef struct document {
    const cab_tokens *ids;
    uint64_t begin, end;
    uint64_t bytes;        /* of text */
    const uint64_t *marks; /* of the tokens of `ids`; NULL: no conversation, or all tokens count */
} document;

struct cab_dataset {
    char *name; /* of the first file, for errors */
    source *sources;
    size_t sources_count;
    document *documents;
    size_t documents_capacity;
    uint64_t documents_count, documents_all;
    uint64_t bytes;
    bool bytes_known;
    int32_t end_id;
    uint64_t seed;
    bool same_windows;
    uint64_t *starts; /* file order; documents_count + 1 entries */
    /* training */
    uint64_t seq_len, sequences;
    uint64_t epoch; /* that the three below belong to; UINT64_MAX: none yet */
    uint64_t *order, *epoch_starts, *windows;
};

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

static cab_status add_document(cab_dataset *d, document item)
{
    CAB_TRY(CAB_GROW(&d->documents, &d->documents_capacity, d->documents_count + 1, "the table of documents"));
    d->documents[d->documents_count++] = item;
    return CAB_OK;
}

/* The cache's marks, if a document of it is a conversation: all tokens of a plain text are marked. */
static const uint64_t *marks_of(const cab_cache *cache, uint64_t begin, uint64_t end)
{
    bool all = true;
    for (uint64_t i = begin; cache->marks != NULL && all && i < end; i++)
        all = cache->marks[i / 64] >> i % 64 & 1;
    return all ? NULL : cache->marks;
}

static cab_status open_text(cab_dataset *d, source *s, const char *path, const cab_dataset_options *options)
{
    cab_cache_options cache = {options->cache,
                               {options->separator == NULL ? "<|endoftext|>" : options->separator,
                                options->text_field == NULL ? "text" : options->text_field, options->limits,
                                options->chat}};
    if (options->tokenizer == NULL || options->cache == NULL)
        return cab_fail(CAB_EARG, "%s: text needs a tokenizer and a cache directory", path);
    CAB_TRY(cab_tokenizer_check_vocab(options->tokenizer, options->vocab_size, "the model"));
    CAB_TRY(cab_cache_open(path, options->tokenizer, &cache, &s->cache));
    if (cab_tokenizer_vocab_size(options->tokenizer) > options->vocab_size)
        for (uint64_t i = 0; i < s->cache.tokens.count; i++)
            CAB_TRY(cab_tokenizer_check_id(options->tokenizer, (int32_t)cab_tokens_get(&s->cache.tokens, i),
                                           options->vocab_size, path));
    if (options->answers_only && s->cache.marks != NULL)
        d->bytes_known = false; /* of what is predicted */
    for (uint64_t i = 0; i < s->cache.documents; i++) {
        uint64_t begin = i == 0 ? 0 : s->cache.token_end[i - 1], bytes = i == 0 ? 0 : s->cache.byte_end[i - 1];
        if (begin == s->cache.token_end[i]) /* nothing in it that the vocabulary can write */
            continue;
        CAB_TRY(add_document(
            d, (document){&s->cache.tokens, begin, s->cache.token_end[i], s->cache.byte_end[i] - bytes,
                          options->answers_only ? marks_of(&s->cache, begin, s->cache.token_end[i]) : NULL}));
    }
    return CAB_OK;
}

static cab_status open_tokens(cab_dataset *d, source *s, const char *path, const cab_dataset_options *options)
{
    cab_status status = CAB_OK;
    cab_token_spans spans = {0};
    CAB_TRY(cab_tokens_open(path, options->bin_type, &s->tokens));
    CAB_GOTO(cab_tokens_split(&s->tokens, path, options->end_id, options->vocab_size, &spans));
    if (spans.count == 0)
        CAB_GOTO(cab_fail(CAB_EFORMAT, "%s: empty: holds no document", path));
    for (uint64_t i = 0; i < spans.count; i++)
        CAB_GOTO(add_document(d, (document){&s->tokens, spans.begin[i], spans.end[i], 0, NULL}));
    d->bytes_known = false;
done:
    cab_token_spans_free(&spans);
    return status;
}

static cab_status open_source(cab_dataset *d, source *s, const char *path, const cab_dataset_options *options)
{
    CAB_TRY(cab_strdup(&s->path, path));
    if (cab_tokens_is_tokens(path))
        return open_tokens(d, s, path, options);
    CAB_TRY(cab_data_paths_check_kind(path));
    return open_text(d, s, path, options);
}

static cab_status check_options(size_t count, const cab_dataset_options *options)
{
    if (count == 0)
        return cab_fail(CAB_EARG, "no data files were given");
    if (!(options->fraction > 0) || options->fraction > 1)
        return cab_fail(CAB_EARG, "fraction of the data is %g, expected more than 0 and at most 1", options->fraction);
    if (options->end_id >= options->vocab_size)
        return cab_fail(CAB_ESHAPE, "end-of-text id %" PRId32 " in a vocabulary of %" PRId64, options->end_id,
                        options->vocab_size);
    return CAB_OK;
}

typedef struct ranked {
    uint64_t hash;
    uint64_t index;
} ranked;

static int compare_ranked(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int compare_index(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Keeps the documents of least hash, in file order: a smaller fraction of the same seed is a subset of a larger one. */
static cab_status take_fraction(cab_dataset *d, double fraction)
{
    ranked *rank = NULL;
    uint64_t n = d->documents_count;
    /* the slack keeps 0.07 * 100 from becoming 8 */
    uint64_t kept = (uint64_t)ceil(fraction * (double)n - 1e-6);
    kept = kept < 1 ? 1 : kept;
    if (kept >= n)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&rank, n, "the choice of documents"));
    for (uint64_t i = 0; i < n; i++) {
        uint32_t words[4];
        cab_philox(d->seed, CAB_STREAM_SUBSET, 0, i, words);
        rank[i] = (ranked){(uint64_t)words[0] << 32 | words[1], i};
    }
    qsort(rank, n, sizeof *rank, compare_ranked);
    qsort(rank, kept, sizeof *rank, compare_index);
    for (uint64_t i = 0; i < kept; i++)
        d->documents[i] = d->documents[rank[i].index];
    d->documents_count = kept;
    cab_free(rank);
    return CAB_OK;
}

static uint64_t separator_tokens(const cab_dataset *d)
{
    return d->end_id >= 0;
}

/* order NULL: file order. */
static void fill_starts(const cab_dataset *d, const uint64_t *order, uint64_t *starts)
{
    starts[0] = 0;
    for (uint64_t i = 0; i < d->documents_count; i++) {
        const document *item = &d->documents[order == NULL ? i : order[i]];
        starts[i + 1] = starts[i] + (item->end - item->begin) + separator_tokens(d);
    }
}

cab_status cab_dataset_open(const char *const *paths, size_t count, const cab_dataset_options *options,
                            cab_dataset **out)
{
    cab_status status = CAB_OK;
    cab_dataset *d = NULL;
    cab_data_paths files = {0};
    *out = NULL;
    CAB_TRY(check_options(count, options));
    CAB_TRY(CAB_NEW(&d, 1, "a dataset"));
    for (size_t i = 0; i < count; i++)
        CAB_GOTO(cab_data_paths_add(&files, paths[i]));
    d->bytes_known = true;
    d->end_id = options->end_id;
    d->seed = options->seed;
    d->same_windows = options->same_windows;
    d->epoch = UINT64_MAX;
    CAB_GOTO(cab_strdup(&d->name, paths[0]));
    CAB_GOTO(CAB_NEW(&d->sources, files.count, "a dataset"));
    d->sources_count = files.count;
    for (size_t i = 0; i < files.count; i++)
        CAB_GOTO(open_source(d, &d->sources[i], files.items[i], options));
    d->documents_all = d->documents_count;
    CAB_GOTO(take_fraction(d, options->fraction));
    for (uint64_t i = 0; i < d->documents_count; i++)
        d->bytes += d->documents[i].bytes;
    CAB_GOTO(CAB_NEW(&d->starts, d->documents_count + 1, "the starts of documents"));
    fill_starts(d, NULL, d->starts);
    *out = d;
    d = NULL;
done:
    cab_data_paths_free(&files);
    cab_dataset_free(d);
    return status;
}

size_t cab_dataset_files(const cab_dataset *d)
{
    return d->sources_count;
}

const char *cab_dataset_file(const cab_dataset *d, size_t index, cab_fingerprint *content)
{
    const source *s = &d->sources[index];
    const bool tokens = s->tokens.map.data != NULL;
    *content = tokens ? cab_fingerprint_of(s->tokens.map.data, s->tokens.map.size) : s->cache.text;
    return s->path;
}

void cab_dataset_free(cab_dataset *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; i < d->sources_count; i++) {
        cab_cache_close(&d->sources[i].cache);
        cab_tokens_close(&d->sources[i].tokens);
        cab_free(d->sources[i].path);
    }
    cab_free(d->sources);
    cab_free(d->documents);
    cab_free(d->starts);
    cab_free(d->order);
    cab_free(d->epoch_starts);
    cab_free(d->windows);
    cab_free(d->name);
    cab_free(d);
}

uint64_t cab_dataset_documents(const cab_dataset *d)
{
    return d->documents_count;
}

uint64_t cab_dataset_documents_all(const cab_dataset *d)
{
    return d->documents_all;
}

uint64_t cab_dataset_tokens(const cab_dataset *d)
{
    return d->starts[d->documents_count];
}

uint64_t cab_dataset_text_bytes(const cab_dataset *d)
{
    return d->bytes_known ? d->bytes : 0;
}

/* ---- the stream ------------------------------------------------------------------------------------------------------- */

/* The last i with starts[i] <= at. */
static uint64_t bisect(const uint64_t *starts, uint64_t count, uint64_t at)
{
    uint64_t low = 0, high = count;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (starts[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Tokens skip .. skip + count of a document as labels. */
static void copy_labels(const document *item, uint64_t skip, uint64_t count, int32_t *labels)
{
    cab_tokens_copy(item->ids, item->begin + skip, count, labels);
    for (uint64_t i = 0; item->marks != NULL && i < count; i++) {
        const uint64_t at = item->begin + skip + i;
        if (!(item->marks[at / 64] >> at % 64 & 1))
            labels[i] = -1;
    }
}

/* Copies `count` tokens of the stream from `at`, or the labels that they are; they must exist. */
static void copy_stream(const cab_dataset *d, const uint64_t *order, const uint64_t *starts, uint64_t at,
                        uint64_t count, bool labels, int32_t *ids)
{
    for (uint64_t i = bisect(starts, d->documents_count, at); count > 0; i++) {
        const document *item = &d->documents[order == NULL ? i : order[i]];
        uint64_t skip = at - starts[i], length = item->end - item->begin;
        uint64_t take = skip < length ? length - skip : 0;
        take = take < count ? take : count;
        if (labels)
            copy_labels(item, skip, take, ids);
        else
            cab_tokens_copy(item->ids, item->begin + skip, take, ids);
        ids += take;
        at += take;
        count -= take;
        if (count > 0 && at < starts[i + 1]) {
            *ids++ = labels && item->marks != NULL ? -1 : d->end_id;
            at++;
            count--;
        }
    }
}

/* starts, and labels, of `count` tokens of the stream from `at`; tokens past the end are of the last document. */
static void fill_documents(const cab_dataset *d, const uint64_t *starts, uint64_t at, uint64_t count, int32_t *out,
                           int32_t *labels)
{
    uint64_t i = bisect(starts, d->documents_count, at);
    for (uint64_t k = 0; k < count; k++) {
        while (i + 1 < d->documents_count && starts[i + 1] <= at + k)
            i++;
        out[k] = starts[i] > at ? (int32_t)(starts[i] - at) : 0;
        if (starts[i + 1] == at + k + 1)
            labels[k] = -1;
    }
}

/* ---- training --------------------------------------------------------------------------------------------------------- */

cab_status cab_dataset_set_sequence(cab_dataset *d, uint64_t seq_len)
{
    uint64_t tokens = cab_dataset_tokens(d);
    if (seq_len == 0)
        return cab_fail(CAB_EARG, "sequence length is 0");
    if (tokens <= seq_len)
        return cab_fail(CAB_EFORMAT,
                        "%s: the data is shorter than one sequence: %" PRIu64 " tokens in %" PRIu64
                        " documents, a sequence of %" PRIu64 " needs %" PRIu64,
                        d->name, tokens, d->documents_count, seq_len, seq_len + 1);
    cab_free(d->windows);
    d->windows = NULL;
    d->seq_len = seq_len;
    d->sequences = (tokens - 1) / seq_len;
    d->epoch = UINT64_MAX;
    return CAB_NEW(&d->windows, d->sequences, "the order of sequences");
}

uint64_t cab_dataset_sequences(const cab_dataset *d)
{
    return d->sequences;
}

/* Two draws per epoch, told apart by the stream's counter. */
static void draw(const cab_dataset *d, uint64_t epoch, unsigned which, uint64_t *order, uint64_t n)
{
    cab_random random = {.seed = d->seed, .stream = CAB_STREAM_SHUFFLE, .sub = (uint32_t)(2 * epoch + which)};
    cab_random_permutation(&random, order, n);
}

static cab_status begin_epoch(cab_dataset *d, uint64_t epoch)
{
    if (d->order == NULL)
        CAB_TRY(CAB_NEW(&d->order, d->documents_count, "the order of documents"));
    if (d->epoch_starts == NULL)
        CAB_TRY(CAB_NEW(&d->epoch_starts, d->documents_count + 1, "the order of documents"));
    for (uint64_t i = 0; d->same_windows && i < d->documents_count; i++)
        d->order[i] = i;
    if (!d->same_windows)
        draw(d, epoch, 0, d->order, d->documents_count);
    draw(d, epoch, 1, d->windows, d->sequences);
    fill_starts(d, d->order, d->epoch_starts);
    d->epoch = epoch;
    return CAB_OK;
}

cab_status cab_dataset_train_sequence(cab_dataset *d, uint64_t index, int32_t *ids, int32_t *labels)
{
    if (d->sequences == 0)
        return cab_fail(CAB_EARG, "the sequence length was not set");
    uint64_t epoch = index / d->sequences;
    if (epoch != d->epoch)
        CAB_TRY(begin_epoch(d, epoch));
    uint64_t at = d->windows[index % d->sequences] * d->seq_len;
    copy_stream(d, d->order, d->epoch_starts, at, d->seq_len, false, ids);
    copy_stream(d, d->order, d->epoch_starts, at + 1, d->seq_len, true, labels);
    return CAB_OK;
}

uint64_t cab_dataset_train_window(const cab_dataset *d, uint64_t index)
{
    return d->windows[index % d->sequences];
}

void cab_dataset_train_starts(const cab_dataset *d, uint64_t index, int32_t *starts, int32_t *labels)
{
    fill_documents(d, d->epoch_starts, d->windows[index % d->sequences] * d->seq_len, d->seq_len, starts, labels);
}

/* ---- evaluation ------------------------------------------------------------------------------------------------------- */

uint64_t cab_dataset_eval_windows(const cab_dataset *d, uint64_t seq_len)
{
    uint64_t predicted = cab_dataset_tokens(d) - 1;
    return predicted / seq_len + (predicted % seq_len != 0);
}

uint64_t cab_dataset_eval_window(const cab_dataset *d, uint64_t seq_len, uint64_t window, int32_t *ids, int32_t *labels)
{
    uint64_t at = window * seq_len, left = cab_dataset_tokens(d) - 1 - at;
    uint64_t valid = left < seq_len ? left : seq_len;
    copy_stream(d, NULL, d->starts, at, valid, false, ids);
    copy_stream(d, NULL, d->starts, at + 1, valid, true, labels);
    for (uint64_t i = valid; i < seq_len; i++) {
        ids[i] = 0;
        labels[i] = -1;
    }
    return valid;
}

uint64_t cab_dataset_document_tokens(const cab_dataset *d, uint64_t i)
{
    return d->documents[i].end - d->documents[i].begin;
}

void cab_dataset_document_copy(const cab_dataset *d, uint64_t i, uint64_t begin, uint64_t count, int32_t *ids)
{
    cab_tokens_copy(d->documents[i].ids, d->documents[i].begin + begin, count, ids);
}

void cab_dataset_document_labels(const cab_dataset *d, uint64_t i, uint64_t begin, uint64_t count, int32_t *labels)
{
    copy_labels(&d->documents[i], begin, count, labels);
}

void cab_dataset_eval_starts(const cab_dataset *d, uint64_t seq_len, uint64_t window, int32_t *starts, int32_t *labels)
{
    fill_documents(d, d->starts, window * seq_len, seq_len, starts, labels);
}
