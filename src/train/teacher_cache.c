/* teacher_cache.c - the table is in memory, records are written in place and read out of a mapping. */
#include "train/teacher_cache.h"

#include "base/checksum.h"
#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER = 64, VERSION = 1, SMALL_VOCABULARY = 65536 };
static const char magic[8] = {'C', 'A', 'B', 'T', 'E', 'A', 'C', 'H'};
static const double STEPS = 2048; /* of a log-probability in one nat */

typedef struct line {
    uint64_t tokens, checksum;
} line;

typedef struct header {
    char magic[8];
    uint32_t version, k;
    uint64_t vocab_size, length, windows, teacher, zero, checksum;
} header;
_Static_assert(sizeof(header) == HEADER, "the header's layout");

struct cab_teacher_cache {
    char path[CAB_PATH_MAX];
    cab_teacher_cache_key key;
    int file;
    line *table;
    uint8_t *record; /* one */
    cab_map map;     /* once it is ready */
};

/* ---- sizes ---------------------------------------------------------------------------------------------------------------- */

static uint64_t id_bytes(const cab_teacher_cache_key *key)
{
    return key->vocab_size <= SMALL_VOCABULARY ? sizeof(uint16_t) : sizeof(uint32_t);
}

static uint64_t record_bytes(const cab_teacher_cache_key *key)
{
    return key->length * key->k * (id_bytes(key) + sizeof(uint16_t));
}

static uint64_t records_at(const cab_teacher_cache_key *key)
{
    return (HEADER + key->windows * sizeof(line) + 63) / 64 * 64;
}

uint64_t cab_teacher_cache_bytes(const cab_teacher_cache_key *key)
{
    return records_at(key) + key->windows * record_bytes(key);
}

/* ---- opening -------------------------------------------------------------------------------------------------------------- */

static cab_status io_error(const cab_teacher_cache *c, const char *what)
{
    return cab_fail_errno(CAB_EIO, errno, "%s: cannot be %s", c->path, what);
}

static cab_status write_at(const cab_teacher_cache *c, const void *data, uint64_t size, uint64_t at)
{
    for (uint64_t done = 0; done < size;) {
        const ssize_t n = pwrite(c->file, (const char *)data + done, size - done, (off_t)(at + done));
        if (n < 0 && errno != EINTR)
            return io_error(c, "written");
        done += n > 0 ? (uint64_t)n : 0;
    }
    return CAB_OK;
}

static cab_status read_at(const cab_teacher_cache *c, void *data, uint64_t size, uint64_t at)
{
    for (uint64_t done = 0; done < size;) {
        const ssize_t n = pread(c->file, (char *)data + done, size - done, (off_t)(at + done));
        if (n == 0)
            return cab_fail(CAB_EFORMAT, "%s: ends at byte %" PRIu64 ", expected a teacher's cache of %" PRIu64,
                            c->path, at + done, cab_teacher_cache_bytes(&c->key));
        if (n < 0 && errno != EINTR)
            return io_error(c, "read");
        done += n > 0 ? (uint64_t)n : 0;
    }
    return CAB_OK;
}

static header header_of(const cab_teacher_cache_key *key)
{
    header h = {.version = VERSION,
                .k = (uint32_t)key->k,
                .vocab_size = key->vocab_size,
                .length = key->length,
                .windows = key->windows,
                .teacher = key->teacher};
    memcpy(h.magic, magic, sizeof magic);
    h.checksum = cab_checksum_of(&h, offsetof(header, checksum));
    return h;
}

static cab_status check_header(const cab_teacher_cache *c, const header *found, uint64_t size)
{
    const header wanted = header_of(&c->key);
    const struct {
        const char *what;
        uint64_t found, wanted;
    } rows[] = {{"words a token", found->k, wanted.k},
                {"a vocabulary", found->vocab_size, wanted.vocab_size},
                {"tokens a window", found->length, wanted.length},
                {"windows", found->windows, wanted.windows}};
    if (memcmp(found->magic, magic, sizeof magic) != 0)
        return cab_fail(CAB_EFORMAT, "%s: is no teacher's cache", c->path);
    if (found->checksum != cab_checksum_of(found, offsetof(header, checksum)))
        return cab_fail(CAB_EFORMAT, "%s: its header is damaged", c->path);
    if (found->version != VERSION)
        return cab_fail(CAB_EFORMAT, "%s: version %" PRIu32 ", expected %d", c->path, found->version, VERSION);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].found != rows[i].wanted)
            return cab_fail(CAB_EFORMAT, "%s: of %s: %" PRIu64 ", expected %" PRIu64, c->path, rows[i].what,
                            rows[i].found, rows[i].wanted);
    if (found->teacher != wanted.teacher)
        return cab_fail(CAB_EFORMAT,
                        "%s: of another teacher, or of one that was asked otherwise (data.reset, precision)", c->path);
    if (size != cab_teacher_cache_bytes(&c->key))
        return cab_fail(CAB_EFORMAT, "%s: has %" PRIu64 " bytes, expected %" PRIu64, c->path, size,
                        cab_teacher_cache_bytes(&c->key));
    return CAB_OK;
}

/* The header comes last: without it the file is as good as empty. */
static cab_status create(const cab_teacher_cache *c)
{
    const header h = header_of(&c->key);
    if (ftruncate(c->file, 0) != 0 || ftruncate(c->file, (off_t)cab_teacher_cache_bytes(&c->key)) != 0)
        return io_error(c, "made as long as it has to be");
    return write_at(c, &h, sizeof h, 0);
}

static cab_status open_existing(cab_teacher_cache *c, uint64_t size)
{
    static const char nothing[HEADER] = {0};
    header found = {0};
    if (size >= HEADER)
        CAB_TRY(read_at(c, &found, HEADER, 0));
    if (size == 0 || (size >= HEADER && memcmp(&found, nothing, HEADER) == 0))
        return create(c);
    CAB_TRY(check_header(c, &found, size));
    return read_at(c, c->table, c->key.windows * sizeof(line), HEADER);
}

static cab_status check_key(const char *path, const cab_teacher_cache_key *key)
{
    uint64_t entries, bytes;
    if (key->k == 0 || key->length == 0 || key->windows == 0 ||
        __builtin_mul_overflow(key->length, key->k * 6, &entries) ||
        __builtin_mul_overflow(entries + 64, key->windows, &bytes) || bytes > INT64_MAX / 2)
        return cab_fail(CAB_EARG, "%s: %" PRIu64 " windows of %" PRIu64 " tokens with %" PRIu64 " words are too many",
                        path, key->windows, key->length, key->k);
    return CAB_OK;
}

cab_status cab_teacher_cache_open(const char *path, const cab_teacher_cache_key *key, cab_teacher_cache **out)
{
    cab_teacher_cache *c = NULL;
    struct stat info;
    cab_status status;
    CAB_TRY(check_key(path, key));
    CAB_TRY(CAB_NEW(&c, 1, "a teacher's cache"));
    c->key = *key;
    c->file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    snprintf(c->path, sizeof c->path, "%s", path);
    if (c->file < 0) {
        status = io_error(c, "opened");
        goto done;
    }
    if (fstat(c->file, &info) != 0 || !S_ISREG(info.st_mode))
        CAB_GOTO(cab_fail(CAB_EIO, "%s: is no regular file", path));
    if (flock(c->file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        CAB_GOTO(cab_fail(CAB_EARG, "%s: another process is at work on it", path));
    CAB_GOTO(CAB_NEW(&c->table, key->windows, "a teacher's cache"));
    CAB_GOTO(cab_alloc((void **)&c->record, record_bytes(key), 1, "a teacher's cache"));
    status = open_existing(c, (uint64_t)info.st_size);
done:
    if (status != CAB_OK)
        cab_teacher_cache_close(c);
    else
        *out = c;
    return status;
}

void cab_teacher_cache_close(cab_teacher_cache *c)
{
    if (c == NULL)
        return;
    cab_map_close(&c->map);
    if (c->file >= 0)
        close(c->file);
    cab_free(c->table);
    cab_free(c->record);
    cab_free(c);
}

/* ---- records -------------------------------------------------------------------------------------------------------------- */

bool cab_teacher_cache_has(const cab_teacher_cache *c, uint64_t window, uint64_t tokens)
{
    return c->table[window].checksum != 0 && c->table[window].tokens == tokens;
}

/* Never 0, which stands for what is not there. */
static uint64_t checksum_of(const void *record, uint64_t size)
{
    const uint64_t sum = cab_checksum_of(record, size);
    return sum != 0 ? sum : 1;
}

static void encode(const cab_teacher_cache *c, const int32_t *ids, const float *top, uint8_t *record)
{
    const uint64_t n = c->key.length * c->key.k;
    uint16_t *small = (uint16_t *)(void *)record, *logs = (uint16_t *)(void *)(record + n * id_bytes(&c->key));
    uint32_t *large = (uint32_t *)(void *)record;
    for (uint64_t i = 0; i < n; i++) {
        const double code = -(double)top[i] * STEPS + 0.5;
        logs[i] = (uint16_t)(code < 65535 ? code > 0 ? code : 0 : 65535);
        if (id_bytes(&c->key) == sizeof *small)
            small[i] = (uint16_t)ids[i];
        else
            large[i] = (uint32_t)ids[i];
    }
}

cab_status cab_teacher_cache_put(cab_teacher_cache *c, uint64_t window, uint64_t tokens, const int32_t *ids,
                                 const float *top)
{
    const uint64_t size = record_bytes(&c->key);
    encode(c, ids, top, c->record);
    const line entry = {tokens, checksum_of(c->record, size)};
    CAB_TRY(write_at(c, c->record, size, records_at(&c->key) + window * size));
    CAB_TRY(write_at(c, &entry, sizeof entry, HEADER + window * sizeof entry));
    c->table[window] = entry;
    return CAB_OK;
}

cab_status cab_teacher_cache_ready(cab_teacher_cache *c)
{
    if (fdatasync(c->file) != 0)
        return io_error(c, "written");
    flock(c->file, LOCK_SH | LOCK_NB);
    return cab_map_open(c->path, &c->map);
}

cab_status cab_teacher_cache_get(const cab_teacher_cache *c, uint64_t window, uint64_t tokens, int32_t *ids, float *top)
{
    const uint64_t size = record_bytes(&c->key), n = c->key.length * c->key.k;
    const uint64_t at = records_at(&c->key) + window * size;
    if (!cab_teacher_cache_has(c, window, tokens))
        return cab_fail(CAB_EFORMAT,
                        "%s: window %" PRIu64 " is of other tokens: another text, tokenizer, or share of it", c->path,
                        window);
    if (at + size > c->map.size)
        return cab_fail(CAB_EFORMAT, "%s: has become shorter", c->path);
    const uint8_t *record = c->map.data + at;
    if (checksum_of(record, size) != c->table[window].checksum)
        return cab_fail(CAB_EFORMAT, "%s: window %" PRIu64 " is damaged; remove the file to have it computed again",
                        c->path, window);
    const uint8_t *logs = record + n * id_bytes(&c->key);
    for (uint64_t i = 0; i < n; i++) {
        uint16_t code, small;
        uint32_t large;
        memcpy(&code, logs + i * sizeof code, sizeof code);
        memcpy(&small, record + i * sizeof small, sizeof small);
        if (id_bytes(&c->key) == sizeof large)
            memcpy(&large, record + i * sizeof large, sizeof large);
        else
            large = small;
        ids[i] = (int32_t)large;
        top[i] = (float)(-(double)code / STEPS);
    }
    return CAB_OK;
}
