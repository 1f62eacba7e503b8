/* cache.c - builds and checks token caches; cache.h has the layout.
 *
 * Building streams: a batch of documents is read, its documents are encoded by all threads, the ids are written, the next
 * batch follows. Only the two tables of ends stay in memory until the end. The header, which holds the counts and the
 * checksum, is written last, over a blank one; the checksum takes it last as well, with zeros for itself. */
#include "data/cache.h"

#include "base/checksum.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/temporary.h"
#include "base/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <omp.h>
#include <string.h>

enum { VERSION = 3, HEADER_SIZE = 64, BATCH_BYTES = 8 << 20, BATCH_DOCUMENTS = 8192 };

static const char magic[8] = "CABTOKS\n";

typedef struct header {
    char magic[8];
    uint32_t version;
    uint32_t width;
    uint64_t key;
    uint64_t documents;
    uint64_t tokens;
    uint64_t checksum;
    uint64_t marked;
    uint64_t reserved;
} header;
_Static_assert(sizeof(header) == HEADER_SIZE, "the header is written as it lies in memory");

/* ---- building --------------------------------------------------------------------------------------------------------- */

typedef struct builder {
    const cab_tokenizer *tokenizer;
    const char *text_path;
    cab_text *text;
    cab_writer writer;
    header header;
    cab_checksum checksum; /* of what follows the header, so far */
    int threads;
    cab_encoder **encoders; /* by thread */
    cab_bytes batch;        /* texts back to back */
    uint64_t *text_end;     /* by document of the batch */
    cab_ids *ids;           /* likewise */
    size_t documents;       /* in the batch */
    cab_chat_span *spans;   /* of all conversations of the batch */
    size_t spans_count, spans_capacity;
    size_t *span_end;  /* by document of the batch */
    bool *chatted;     /* likewise */
    cab_bytes *marked; /* likewise: a byte for every token */
    uint64_t *marks;   /* of all tokens so far, where there has been a conversation */
    size_t marks_capacity;
    cab_bytes packed; /* ids as written */
    uint64_t *token_end, *byte_end;
    size_t token_end_capacity, byte_end_capacity;
    uint64_t bytes;
} builder;

static cab_status builder_init(builder *b)
{
    b->threads = cab_thread_count();
    CAB_TRY(CAB_NEW(&b->encoders, (size_t)b->threads, "encoders"));
    for (int i = 0; i < b->threads; i++)
        CAB_TRY(cab_encoder_new(b->tokenizer, &b->encoders[i]));
    CAB_TRY(CAB_NEW(&b->text_end, BATCH_DOCUMENTS, "a batch of documents"));
    CAB_TRY(CAB_NEW(&b->span_end, BATCH_DOCUMENTS, "a batch of documents"));
    CAB_TRY(CAB_NEW(&b->chatted, BATCH_DOCUMENTS, "a batch of documents"));
    CAB_TRY(CAB_NEW(&b->marked, BATCH_DOCUMENTS, "a batch of documents"));
    return CAB_NEW(&b->ids, BATCH_DOCUMENTS, "a batch of documents");
}

static void builder_free(builder *b)
{
    for (int i = 0; b->encoders != NULL && i < b->threads; i++)
        cab_encoder_free(b->encoders[i]);
    for (int i = 0; b->ids != NULL && i < BATCH_DOCUMENTS; i++)
        cab_ids_free(&b->ids[i]);
    for (int i = 0; b->marked != NULL && i < BATCH_DOCUMENTS; i++)
        cab_bytes_free(&b->marked[i]);
    cab_free(b->encoders);
    cab_free(b->text_end);
    cab_free(b->ids);
    cab_bytes_free(&b->batch);
    cab_bytes_free(&b->packed);
    cab_free(b->spans);
    cab_free(b->span_end);
    cab_free(b->chatted);
    cab_free(b->marked);
    cab_free(b->marks);
    cab_free(b->token_end);
    cab_free(b->byte_end);
    cab_text_close(b->text);
}

/* What the reader says of its last document. */
static cab_status take_spans(builder *b)
{
    size_t count = 0;
    const cab_chat_span *spans = cab_text_spans(b->text, &count);
    b->chatted[b->documents] = spans != NULL;
    CAB_TRY(CAB_GROW(&b->spans, &b->spans_capacity, b->spans_count + count, "a batch of documents"));
    if (count > 0)
        memcpy(b->spans + b->spans_count, spans, count * sizeof *spans);
    b->spans_count += count;
    b->span_end[b->documents] = b->spans_count;
    return CAB_OK;
}

static cab_status read_batch(builder *b, bool *last)
{
    b->batch.count = 0;
    b->documents = b->spans_count = 0;
    while (b->batch.count < BATCH_BYTES && b->documents < BATCH_DOCUMENTS) {
        const char *document = NULL;
        size_t size = 0;
        CAB_TRY(cab_text_next(b->text, &document, &size));
        *last = document == NULL;
        if (*last)
            break;
        CAB_TRY(cab_bytes_append(&b->batch, document, size));
        CAB_TRY(take_spans(b));
        b->text_end[b->documents++] = b->batch.count;
    }
    return CAB_OK;
}

/* Which tokens of a conversation are answers'. */
static cab_status mark_document(builder *b, size_t i, uint64_t begin)
{
    const size_t first = i == 0 ? 0 : b->span_end[i - 1];
    CAB_TRY(CAB_GROW(&b->marked[i].data, &b->marked[i].capacity, b->ids[i].count, "a conversation"));
    cab_chat_mark(b->tokenizer, b->batch.data + begin, b->text_end[i] - begin, b->spans + first, b->span_end[i] - first,
                  &b->ids[i], (uint8_t *)b->marked[i].data);
    return CAB_OK;
}

/* Threads take documents as they come; the order of the results is that of the documents. The first document that fails is
 * the one reported, whichever thread met it. */
static cab_status encode_batch(builder *b)
{
    cab_status failed = CAB_OK;
    size_t failed_at = SIZE_MAX;
    char why[1024] = "";
#pragma omp parallel for schedule(dynamic, 1) num_threads(b->threads)
    for (size_t i = 0; i < b->documents; i++) {
        uint64_t begin = i == 0 ? 0 : b->text_end[i - 1];
        b->ids[i].count = 0;
        cab_status status = cab_encoder_encode(b->encoders[omp_get_thread_num()], b->batch.data + begin,
                                               b->text_end[i] - begin, &b->ids[i]);
        if (status == CAB_OK && b->chatted[i])
            status = mark_document(b, i, begin);
        if (status != CAB_OK) {
#pragma omp critical(cab_cache_failed)
            if (i < failed_at) {
                failed = status;
                failed_at = i;
                snprintf(why, sizeof why, "%s", cab_error_text());
            }
        }
    }
    if (failed != CAB_OK)
        return cab_fail(failed, "%s: document %" PRIu64 ": %s", b->text_path, b->header.documents + failed_at + 1, why);
    return CAB_OK;
}

static cab_status write_hashed(builder *b, const void *data, size_t size)
{
    cab_checksum_add(&b->checksum, data, size);
    return cab_writer_write(&b->writer, data, size);
}

static cab_status write_ids(builder *b, const cab_ids *ids)
{
    size_t size = ids->count * b->header.width;
    CAB_TRY(CAB_GROW(&b->packed.data, &b->packed.capacity, size, "packed ids"));
    if (b->header.width == 4)
        return write_hashed(b, ids->data, size);
    for (size_t i = 0; i < ids->count; i++) {
        uint16_t narrow = (uint16_t)ids->data[i];
        memcpy(b->packed.data + 2 * i, &narrow, sizeof narrow);
    }
    return write_hashed(b, b->packed.data, size);
}

/* Document i's marks behind those of all before; of plain text every token counts. */
static cab_status add_marks(builder *b, size_t i)
{
    const uint64_t first = b->header.tokens, n = b->ids[i].count;
    if (b->header.marked == 0 && !b->chatted[i])
        return CAB_OK;
    const uint64_t from = b->header.marked == 0 ? 0 : first, words = (first + n + 63) / 64;
    const size_t had = b->marks_capacity;
    CAB_TRY(CAB_GROW(&b->marks, &b->marks_capacity, words, "marks of tokens"));
    if (b->marks_capacity > had)
        memset(b->marks + had, 0, (b->marks_capacity - had) * sizeof *b->marks);
    b->header.marked = 1;
    for (uint64_t k = from; k < first + n; k++)
        if (k < first || !b->chatted[i] || b->marked[i].data[k - first])
            b->marks[k / 64] |= UINT64_C(1) << k % 64;
    return CAB_OK;
}

static cab_status write_batch(builder *b)
{
    for (size_t i = 0; i < b->documents; i++) {
        size_t n = b->header.documents;
        CAB_TRY(CAB_GROW(&b->token_end, &b->token_end_capacity, n + 1, "the table of documents"));
        CAB_TRY(CAB_GROW(&b->byte_end, &b->byte_end_capacity, n + 1, "the table of documents"));
        CAB_TRY(write_ids(b, &b->ids[i]));
        CAB_TRY(add_marks(b, i));
        b->header.tokens += b->ids[i].count;
        b->token_end[n] = b->header.tokens;
        b->byte_end[n] = b->bytes + b->text_end[i];
        b->header.documents++;
    }
    b->bytes += b->batch.count;
    return CAB_OK;
}

/* `body`: the checksum of all that follows the header. */
static uint64_t finish_checksum(cab_checksum body, const header *h)
{
    header blank = *h;
    blank.checksum = 0;
    cab_checksum_add(&body, &blank, sizeof blank);
    return cab_checksum_end(&body);
}

static cab_status write_tables(builder *b)
{
    static const char zeros[8];
    uint64_t odd = b->header.tokens * b->header.width % 8;
    CAB_TRY(write_hashed(b, zeros, odd == 0 ? 0 : 8 - odd));
    CAB_TRY(write_hashed(b, b->token_end, b->header.documents * sizeof *b->token_end));
    CAB_TRY(write_hashed(b, b->byte_end, b->header.documents * sizeof *b->byte_end));
    if (b->header.marked)
        CAB_TRY(write_hashed(b, b->marks, (b->header.tokens + 63) / 64 * sizeof *b->marks));
    b->header.checksum = finish_checksum(b->checksum, &b->header);
    if (fseek(b->writer.stream, 0, SEEK_SET) != 0)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot write", b->writer.path);
    return cab_writer_write(&b->writer, &b->header, sizeof b->header);
}

static cab_status encode_all(builder *b, cab_progress *progress)
{
    for (bool last = false; !last;) {
        char detail[64];
        CAB_TRY(read_batch(b, &last));
        CAB_TRY(encode_batch(b));
        CAB_TRY(write_batch(b));
        snprintf(detail, sizeof detail, "%" PRIu64 " tokens", b->header.tokens);
        cab_progress_update(progress, cab_text_position(b->text), detail);
    }
    if (b->header.tokens == 0)
        return cab_fail(CAB_EFORMAT, "%s: empty: holds no document", b->text_path);
    return CAB_OK;
}

cab_status cab_cache_build(const char *path, const char *text_path, uint64_t key, const cab_tokenizer *tokenizer,
                           const cab_cache_options *options)
{
    cab_status status = CAB_OK;
    builder b = {.tokenizer = tokenizer, .text_path = text_path};
    cab_progress progress;
    cab_map map = {0};
    char label[48];
    CAB_TRY(cab_map_open(text_path, &map)); /* for its size */
    uint64_t file_size = map.size;
    cab_map_close(&map);
    snprintf(label, sizeof label, "tokenising %s", cab_path_name(text_path));
    cab_progress_begin(&progress, label, "bytes", 0, file_size);
    memcpy(b.header.magic, magic, sizeof magic);
    b.header.version = VERSION;
    b.header.width = cab_tokenizer_vocab_size(tokenizer) <= UINT16_MAX + 1 ? 2 : 4;
    b.header.key = key;
    b.checksum = cab_checksum_begin();
    CAB_GOTO(builder_init(&b));
    CAB_GOTO(cab_text_open(text_path, &options->text, &b.text));
    CAB_GOTO(cab_writer_open(&b.writer, path));
    CAB_GOTO(cab_writer_write(&b.writer, &(header){0}, HEADER_SIZE));
    CAB_GOTO(encode_all(&b, &progress));
    CAB_GOTO(write_tables(&b));
    CAB_GOTO(cab_writer_commit(&b.writer));
done:
    cab_writer_abort(&b.writer);
    cab_progress_end(&progress);
    builder_free(&b);
    return status;
}

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

static cab_status find_key(const char *text_path, const cab_tokenizer *tokenizer, const cab_cache_options *options,
                           uint64_t *key, cab_fingerprint *text)
{
    cab_map map = {0};
    uint64_t parts[2] = {VERSION, cab_tokenizer_hash(tokenizer)};
    CAB_TRY(cab_map_open(text_path, &map));
    uint64_t hash = cab_hash(CAB_HASH_START, parts, sizeof parts);
    hash = cab_text_key(hash, text_path, &options->text);
    *text = (cab_fingerprint){map.size, cab_checksum_of(map.data, map.size)};
    *key = cab_hash(hash, &text->checksum, sizeof text->checksum);
    cab_map_close(&map);
    return CAB_OK;
}

cab_status cab_cache_key(const char *text_path, const cab_tokenizer *tokenizer, const cab_cache_options *options,
                         uint64_t *key)
{
    cab_fingerprint text;
    return find_key(text_path, tokenizer, options, key, &text);
}

/* Both tables rise; token_end ends at the number of tokens. */
static bool tables_are_sound(const header *h, const uint64_t *token_end, const uint64_t *byte_end)
{
    for (uint64_t i = 1; i < h->documents; i++)
        if (token_end[i] < token_end[i - 1] || byte_end[i] < byte_end[i - 1])
            return false;
    return token_end[h->documents - 1] == h->tokens;
}

/* Checks the header and finds the size of the ids with their padding. */
static cab_status check_header(const char *path, const cab_map *map, uint64_t key, header *h, uint64_t *ids_size)
{
    uint64_t tables = 0, total = 0;
    if (map->size < HEADER_SIZE || memcmp(map->data, magic, sizeof magic) != 0)
        return cab_fail(CAB_EFORMAT, "%s: not a token cache", path);
    memcpy(h, map->data, sizeof *h);
    if (h->version != VERSION || h->key != key)
        return cab_fail(CAB_EFORMAT,
                        "%s: a token cache of version %" PRIu32 " and key %016" PRIx64 ", expected %d and %016" PRIx64,
                        path, h->version, h->key, VERSION, key);
    if ((h->width != 2 && h->width != 4) || h->documents == 0 || h->marked > 1 || h->tokens > UINT64_MAX / 8 ||
        __builtin_mul_overflow(h->documents, 2 * sizeof(uint64_t), &tables))
        return cab_fail(CAB_EFORMAT, "%s: damaged header", path);
    *ids_size = (h->tokens * h->width + 7) / 8 * 8;
    const uint64_t marks = h->marked ? (h->tokens + 63) / 64 * sizeof(uint64_t) : 0;
    if (__builtin_add_overflow(tables, marks, &tables) || __builtin_add_overflow(*ids_size, tables, &total) ||
        total != map->size - HEADER_SIZE)
        return cab_fail(CAB_EFORMAT, "%s: %zu bytes, truncated or damaged", path, map->size);
    return CAB_OK;
}

cab_status cab_cache_parse(const char *path, const cab_map *map, uint64_t key, int64_t vocab_size, cab_cache *cache)
{
    header h;
    uint64_t ids_size = 0;
    CAB_TRY(check_header(path, map, key, &h, &ids_size));
    cab_checksum checksum = cab_checksum_begin();
    cab_checksum_add(&checksum, map->data + HEADER_SIZE, map->size - HEADER_SIZE);
    if (finish_checksum(checksum, &h) != h.checksum)
        return cab_fail(CAB_EFORMAT, "%s: damaged: its checksum does not match", path);
    cab_tokens tokens = {*map, map->data + HEADER_SIZE, h.width == 2 ? CAB_TOKEN_U16 : CAB_TOKEN_U32, h.tokens};
    /* aligned: mappings begin on a page, the header and the padded ids are multiples of 8 */
    const uint64_t *token_end = (const uint64_t *)(const void *)(map->data + HEADER_SIZE + ids_size);
    const uint64_t *byte_end = token_end + h.documents;
    if (!tables_are_sound(&h, token_end, byte_end))
        return cab_fail(CAB_EFORMAT, "%s: damaged table of documents", path);
    for (uint64_t i = 0; i < h.tokens; i++)
        if (cab_tokens_get(&tokens, i) >= vocab_size)
            return cab_fail(CAB_EFORMAT, "%s: token %" PRIu64 ": id %" PRId64 ", but the vocabulary has %" PRId64, path,
                            i, cab_tokens_get(&tokens, i), vocab_size);
    *cache = (cab_cache){.tokens = tokens,
                         .documents = h.documents,
                         .token_end = token_end,
                         .byte_end = byte_end,
                         .marks = h.marked ? byte_end + h.documents : NULL};
    return CAB_OK;
}

static cab_status open_existing(const char *path, uint64_t key, int64_t vocab_size, cab_cache *cache)
{
    cab_map map = {0};
    CAB_TRY(cab_map_open(path, &map));
    cab_status status = cab_cache_parse(path, &map, key, vocab_size, cache);
    if (status != CAB_OK)
        cab_map_close(&map);
    return status;
}

/* The cache at `path`, built or built anew where need be. */
static cab_status open_or_build(const char *path, const char *text_path, uint64_t key, const cab_tokenizer *tokenizer,
                                const cab_cache_options *options, cab_cache *cache)
{
    const int64_t vocab_size = cab_tokenizer_vocab_size(tokenizer);
    if (cab_path_exists(path)) {
        if (open_existing(path, key, vocab_size, cache) == CAB_OK)
            return CAB_OK;
        cab_log_warn("%s; tokenising %s again", cab_error_text(), text_path);
    }
    CAB_TRY(cab_directory_make(options->directory));
    CAB_TRY(cab_cache_build(path, text_path, key, tokenizer, options));
    return open_existing(path, key, vocab_size, cache);
}

cab_status cab_cache_open(const char *text_path, const cab_tokenizer *tokenizer, const cab_cache_options *options,
                          cab_cache *cache)
{
    char path[CAB_PATH_MAX], name[32];
    uint64_t key = 0;
    cab_fingerprint text;
    *cache = (cab_cache){0};
    CAB_TRY(find_key(text_path, tokenizer, options, &key, &text));
    snprintf(name, sizeof name, "%016" PRIx64 ".tok", key);
    CAB_TRY(cab_path_join(path, options->directory, name));
    cab_temporary_sweep(options->directory);
    CAB_TRY(open_or_build(path, text_path, key, tokenizer, options, cache));
    cache->text = text;
    return CAB_OK;
}

void cab_cache_close(cab_cache *cache)
{
    cab_tokens_close(&cache->tokens);
    *cache = (cab_cache){0};
}
