/* cache.c - builds and checks token caches; cache.h has the layout.
 *
 * Building streams: a batch of documents is read, its documents are encoded by all threads, the ids are written, the next
 * batch follows. Only the two tables of ends stay in memory until the end. The header, which holds the counts and the
 * checksum, is written last, over a blank one. */
#include "data/cache.h"

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

enum { VERSION = 2, HEADER_SIZE = 64, BATCH_BYTES = 8 << 20, BATCH_DOCUMENTS = 8192 };

static const char magic[8] = "CABTOKS\n";

typedef struct header {
    char magic[8];
    uint32_t version;
    uint32_t width;
    uint64_t key;
    uint64_t documents;
    uint64_t tokens;
    uint64_t checksum;
    uint64_t reserved[2];
} header;
_Static_assert(sizeof(header) == HEADER_SIZE, "the header is written as it lies in memory");

/* ---- building --------------------------------------------------------------------------------------------------------- */

typedef struct builder {
    const cab_tokenizer *tokenizer;
    const char *text_path;
    cab_text *text;
    cab_writer writer;
    header header;
    int threads;
    cab_encoder **encoders; /* by thread */
    cab_bytes batch;        /* texts back to back */
    uint64_t *text_end;     /* by document of the batch */
    cab_ids *ids;           /* likewise */
    size_t documents;       /* in the batch */
    cab_bytes packed;       /* ids as written */
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
    return CAB_NEW(&b->ids, BATCH_DOCUMENTS, "a batch of documents");
}

static void builder_free(builder *b)
{
    for (int i = 0; b->encoders != NULL && i < b->threads; i++)
        cab_encoder_free(b->encoders[i]);
    for (int i = 0; b->ids != NULL && i < BATCH_DOCUMENTS; i++)
        cab_ids_free(&b->ids[i]);
    cab_free(b->encoders);
    cab_free(b->text_end);
    cab_free(b->ids);
    cab_bytes_free(&b->batch);
    cab_bytes_free(&b->packed);
    cab_free(b->token_end);
    cab_free(b->byte_end);
    cab_text_close(b->text);
}

static cab_status read_batch(builder *b, bool *last)
{
    b->batch.count = 0;
    b->documents = 0;
    while (b->batch.count < BATCH_BYTES && b->documents < BATCH_DOCUMENTS) {
        const char *document = NULL;
        size_t size = 0;
        CAB_TRY(cab_text_next(b->text, &document, &size));
        *last = document == NULL;
        if (*last)
            break;
        CAB_TRY(cab_bytes_append(&b->batch, document, size));
        b->text_end[b->documents++] = b->batch.count;
    }
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
    b->header.checksum = cab_hash(b->header.checksum, data, size);
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

static cab_status write_batch(builder *b)
{
    for (size_t i = 0; i < b->documents; i++) {
        size_t n = b->header.documents;
        CAB_TRY(CAB_GROW(&b->token_end, &b->token_end_capacity, n + 1, "the table of documents"));
        CAB_TRY(CAB_GROW(&b->byte_end, &b->byte_end_capacity, n + 1, "the table of documents"));
        CAB_TRY(write_ids(b, &b->ids[i]));
        b->header.tokens += b->ids[i].count;
        b->token_end[n] = b->header.tokens;
        b->byte_end[n] = b->bytes + b->text_end[i];
        b->header.documents++;
    }
    b->bytes += b->batch.count;
    return CAB_OK;
}

static cab_status write_tables(builder *b)
{
    static const char zeros[8];
    uint64_t odd = b->header.tokens * b->header.width % 8;
    CAB_TRY(write_hashed(b, zeros, odd == 0 ? 0 : 8 - odd));
    CAB_TRY(write_hashed(b, b->token_end, b->header.documents * sizeof *b->token_end));
    CAB_TRY(write_hashed(b, b->byte_end, b->header.documents * sizeof *b->byte_end));
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
    b.header.checksum = CAB_HASH_START;
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

cab_status cab_cache_key(const char *text_path, const cab_tokenizer *tokenizer, const cab_cache_options *options,
                         uint64_t *key)
{
    cab_map map = {0};
    uint64_t parts[2] = {VERSION, cab_tokenizer_hash(tokenizer)};
    CAB_TRY(cab_map_open(text_path, &map));
    uint64_t hash = cab_hash(CAB_HASH_START, parts, sizeof parts);
    hash = cab_text_key(hash, text_path, &options->text);
    *key = cab_hash(hash, map.data, map.size);
    cab_map_close(&map);
    return CAB_OK;
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
    if ((h->width != 2 && h->width != 4) || h->documents == 0 || h->tokens > UINT64_MAX / 8 ||
        __builtin_mul_overflow(h->documents, 2 * sizeof(uint64_t), &tables))
        return cab_fail(CAB_EFORMAT, "%s: damaged header", path);
    *ids_size = (h->tokens * h->width + 7) / 8 * 8;
    if (__builtin_add_overflow(*ids_size, tables, &total) || total != map->size - HEADER_SIZE)
        return cab_fail(CAB_EFORMAT, "%s: %zu bytes, truncated or damaged", path, map->size);
    return CAB_OK;
}

cab_status cab_cache_parse(const char *path, const cab_map *map, uint64_t key, int64_t vocab_size, cab_cache *cache)
{
    header h;
    uint64_t ids_size = 0;
    CAB_TRY(check_header(path, map, key, &h, &ids_size));
    if (cab_hash(CAB_HASH_START, map->data + HEADER_SIZE, map->size - HEADER_SIZE) != h.checksum)
        return cab_fail(CAB_EFORMAT, "%s: checksum does not match", path);
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
    *cache = (cab_cache){tokens, h.documents, token_end, byte_end};
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

cab_status cab_cache_open(const char *text_path, const cab_tokenizer *tokenizer, const cab_cache_options *options,
                          cab_cache *cache)
{
    char path[CAB_PATH_MAX], name[32];
    uint64_t key = 0;
    int64_t vocab_size = cab_tokenizer_vocab_size(tokenizer);
    *cache = (cab_cache){0};
    CAB_TRY(cab_cache_key(text_path, tokenizer, options, &key));
    snprintf(name, sizeof name, "%016" PRIx64 ".tok", key);
    CAB_TRY(cab_path_join(path, options->directory, name));
    cab_temporary_sweep(options->directory);
    if (cab_path_exists(path)) {
        if (open_existing(path, key, vocab_size, cache) == CAB_OK)
            return CAB_OK;
        cab_log_warn("%s; tokenising %s again", cab_error_text(), text_path);
    }
    CAB_TRY(cab_directory_make(options->directory));
    CAB_TRY(cab_cache_build(path, text_path, key, tokenizer, options));
    return open_existing(path, key, vocab_size, cache);
}

void cab_cache_close(cab_cache *cache)
{
    cab_tokens_close(&cache->tokens);
    *cache = (cab_cache){0};
}
