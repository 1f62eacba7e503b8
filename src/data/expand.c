/* expand.c - gzip by zlib, which verifies the CRC and the length of every member (libarchive passes over both); xz, zstd
 * and bzip2 by libarchive, whose libraries verify theirs. */
#include "data/expand.h"

#include "base/memory.h"

#include <archive.h>
#include <archive_entry.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <zlib.h>

enum { BLOCK = 256 << 10, GZIP_WINDOW = 15 + 16 /* zlib's way to ask for gzip */ };
static const uint64_t MEMBER_DEFAULT = UINT64_C(1) << 30, TOTAL_LEAST = UINT64_C(64) << 20, RATIO = 256;

struct cab_expander {
    char *name;
    const uint8_t *data;
    size_t size;
    uint64_t total, expanded;
    cab_packing packing;
    struct archive *archive; /* all but gzip */
    z_stream gzip;
    bool inflating, ended;
    uint8_t *block;
};

static const struct {
    const char *name, *magic;
    size_t length;
    int (*support)(struct archive *);
} kinds[] = {
    [CAB_UNPACKED] = {"no", "", 0, NULL},
    [CAB_GZIP] = {"gzip", "\x1f\x8b", 2, NULL},
    [CAB_XZ] = {"xz", "\xFD\x37zXZ\0", 6, archive_read_support_filter_xz},
    [CAB_ZSTD] = {"zstd", "\x28\xB5\x2F\xFD", 4, archive_read_support_filter_zstd},
    [CAB_BZIP2] = {"bzip2", "BZh", 3, archive_read_support_filter_bzip2},
};

cab_packing cab_packing_of(const void *data, size_t size)
{
    for (cab_packing p = CAB_GZIP; p <= CAB_BZIP2; p++)
        if (size >= kinds[p].length && memcmp(data, kinds[p].magic, kinds[p].length) == 0)
            return p;
    return CAB_UNPACKED;
}

const char *cab_packing_name(cab_packing packing)
{
    return kinds[packing].name;
}

cab_expand_limits cab_expand_limits_mib(int64_t member, int64_t total)
{
    return (cab_expand_limits){(uint64_t)member << 20, (uint64_t)total << 20};
}

cab_expand_limits cab_expand_limits_of(const cab_expand_limits *limits, uint64_t size)
{
    uint64_t by_size = size > UINT64_MAX / RATIO ? UINT64_MAX : size * RATIO;
    by_size = by_size < TOTAL_LEAST ? TOTAL_LEAST : by_size;
    return (cab_expand_limits){limits->member != 0 ? limits->member : MEMBER_DEFAULT,
                               limits->total != 0 ? limits->total : by_size};
}

static cab_status damaged(const cab_expander *e, const char *why)
{
    return cab_fail(CAB_EFORMAT, "%s: damaged or truncated after %" PRIu64 " bytes of its %s data: %s", e->name,
                    e->expanded, kinds[e->packing].name, why == NULL ? "decompression failed" : why);
}

static cab_status open_archive(cab_expander *e)
{
    struct archive_entry *entry = NULL;
    e->archive = archive_read_new();
    if (e->archive == NULL)
        return cab_fail(CAB_ENOMEM, "out of memory: reading %s", e->name);
    if (kinds[e->packing].support(e->archive) != ARCHIVE_OK)
        return cab_fail(CAB_EUNSUPPORTED, "%s: libarchive was built without %s", e->name, kinds[e->packing].name);
    archive_read_support_format_raw(e->archive);
    archive_read_support_format_empty(e->archive);
    if (archive_read_open_memory(e->archive, e->data, e->size) != ARCHIVE_OK)
        return damaged(e, archive_error_string(e->archive));
    int result = archive_read_next_header(e->archive, &entry);
    if (result == ARCHIVE_EOF) /* nothing in it */
        e->ended = true;
    else if (result != ARCHIVE_OK)
        return damaged(e, archive_error_string(e->archive));
    return CAB_OK;
}

static cab_status open_gzip(cab_expander *e)
{
    if (inflateInit2(&e->gzip, GZIP_WINDOW) != Z_OK)
        return cab_fail(CAB_ENOMEM, "out of memory: reading %s", e->name);
    e->inflating = true;
    e->gzip.next_in = (Bytef *)e->data;
    return CAB_NEW(&e->block, BLOCK, "a block of a packed file");
}

cab_status cab_expander_open(const void *data, size_t size, const char *name, uint64_t total, cab_expander **out)
{
    cab_status status = CAB_OK;
    cab_expander *e = NULL;
    *out = NULL;
    CAB_TRY(CAB_NEW(&e, 1, "an expander"));
    e->data = data;
    e->size = size;
    e->total = total;
    e->packing = cab_packing_of(data, size);
    CAB_GOTO(cab_strdup(&e->name, name));
    if (e->packing == CAB_UNPACKED)
        CAB_GOTO(cab_fail(CAB_EFORMAT, "%s: is not gzip, xz, zstd or bzip2 data", name));
    CAB_GOTO(e->packing == CAB_GZIP ? open_gzip(e) : open_archive(e));
    *out = e;
    e = NULL;
done:
    cab_expander_close(e);
    return status;
}

void cab_expander_close(cab_expander *e)
{
    if (e == NULL)
        return;
    if (e->inflating)
        inflateEnd(&e->gzip);
    archive_read_free(e->archive);
    cab_free(e->block);
    cab_free(e->name);
    cab_free(e);
}

uint64_t cab_expander_position(const cab_expander *e)
{
    return e->archive != NULL ? (uint64_t)archive_filter_bytes(e->archive, -1)
                              : (uint64_t)((const uint8_t *)e->gzip.next_in - e->data);
}

/* After a member of a gzip file: another may follow, or zeros that fill a tape's block, or nothing. */
static cab_status end_member(cab_expander *e)
{
    const size_t left = e->size - (size_t)cab_expander_position(e);
    const uint8_t *rest = e->gzip.next_in;
    if (cab_packing_of(rest, left) == CAB_GZIP)
        return inflateReset(&e->gzip) == Z_OK ? CAB_OK : damaged(e, "zlib cannot go on");
    e->ended = true;
    for (size_t i = 0; i < left; i++)
        if (rest[i] != 0)
            return damaged(e, "other bytes follow its end");
    return CAB_OK;
}

static cab_status next_gzip(cab_expander *e, const void **block, size_t *size)
{
    while (*size == 0 && !e->ended) {
        const size_t left = e->size - (size_t)cab_expander_position(e);
        e->gzip.avail_in = left < UINT_MAX ? (uInt)left : UINT_MAX;
        e->gzip.next_out = e->block;
        e->gzip.avail_out = BLOCK;
        const int result = inflate(&e->gzip, Z_NO_FLUSH);
        *size = BLOCK - e->gzip.avail_out;
        if (result == Z_STREAM_END)
            CAB_TRY(end_member(e));
        else if (*size > 0) /* what came before a damage is given first; the next call meets it again */
            break;
        else if (result == Z_MEM_ERROR)
            return cab_fail(CAB_ENOMEM, "out of memory: reading %s", e->name);
        else if (result == Z_BUF_ERROR || (result == Z_OK && left == 0))
            return damaged(e, "it ends too early");
        else if (result != Z_OK)
            return damaged(e, e->gzip.msg);
    }
    *block = e->block;
    return CAB_OK;
}

static cab_status next_archive(cab_expander *e, const void **block, size_t *size)
{
    la_int64_t offset = 0;
    const int result = e->ended ? ARCHIVE_EOF : archive_read_data_block(e->archive, block, size, &offset);
    e->ended = result == ARCHIVE_EOF;
    if (e->ended)
        *size = 0;
    else if (result != ARCHIVE_OK)
        return damaged(e, archive_error_string(e->archive));
    else if (*size == 0)
        return damaged(e, NULL);
    return CAB_OK;
}

cab_status cab_expander_next(cab_expander *e, const void **block, size_t *size)
{
    *block = NULL;
    *size = 0;
    CAB_TRY(e->packing == CAB_GZIP ? next_gzip(e, block, size) : next_archive(e, block, size));
    e->expanded += *size;
    if (e->total != 0 && e->expanded > e->total)
        return cab_fail(CAB_EFORMAT,
                        "%s: expands to more than %" PRIu64 " MiB from %" PRIu64
                        " KiB; where that is meant, allow it by max_expanded",
                        e->name, e->total >> 20, (cab_expander_position(e) + 1023) >> 10);
    return CAB_OK;
}
