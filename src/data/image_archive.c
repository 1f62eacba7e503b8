/* image_archive.c - tar and zip by libarchive, over a mapping of the file.
 *
 * libarchive is given the mapping as one block and hands out pointers into it where nothing has to be decoded. Such data
 * are kept as they are; data that it decoded are copied. A packed tar comes block by block from an expander, which is read to
 * its end: libarchive stops at the mark of the tar's end, before the checksums. */
#include "data/image_archive.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "data/image.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { TAR_BLOCK = 512 };
static const uint64_t MEMBERS_MAX = UINT64_C(1) << 27;
static const double MEMORY_SHARE = 0.5; /* of what is free: the rest is for those who asked for the images */

typedef struct member {
    cab_member public; /* its name and, when expanded, its data are owned */
    bool expanded;
} member;

struct cab_archive {
    char *name;
    cab_map map; /* zero when parsed from somebody else's memory */
    const uint8_t *data;
    size_t size;
    cab_expander *expander; /* of a packed tar */
    cab_status expander_status;
    cab_expand_limits limits;
    uint64_t expanded, memory; /* bytes that members took, and may take */
    member *members;
    size_t count, capacity;
    uint32_t *by_name; /* indices of files, sorted by name */
    size_t files;
};

bool cab_archive_is_name(const char *path)
{
    static const char *const suffixes[] = {".tar",     ".tar.gz", ".tgz",     ".tar.xz", ".txz",
                                           ".tar.zst", ".tzst",   ".tar.bz2", ".tbz2",   ".zip"};
    size_t size = strlen(path);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t length = strlen(suffixes[i]);
        if (size > length && strcasecmp(path + size - length, suffixes[i]) == 0)
            return true;
    }
    return false;
}

static cab_status damaged(const cab_archive *a, struct archive *reader)
{
    const char *why = archive_error_string(reader);
    if (a->expander_status == CAB_EFORMAT && why != NULL) /* names the archive */
        return cab_fail(CAB_EFORMAT, "%s; cut short after %zu members", why, a->count);
    if (a->expander_status != CAB_OK)
        return a->expander_status;
    return cab_fail(CAB_EFORMAT, "%s: damaged or cut short after %zu members: %s", a->name, a->count,
                    why == NULL ? "not an archive" : why);
}

/* ---- one member ------------------------------------------------------------------------------------------------------- */

/* Whether `size` more bytes of the member may be expanded: asked before they are. */
static cab_status check_room(const cab_archive *a, const member *m, uint64_t size)
{
    const cab_expand_limits *limits = &a->limits;
    if (size > limits->member - m->public.size)
        return cab_fail(CAB_EFORMAT,
                        "%s: \"%s\" expands to more than %" PRIu64 " MiB; where that is meant, allow it by max_member",
                        a->name, m->public.name, limits->member >> 20);
    if (a->expanded > limits->total || size > limits->total - a->expanded)
        return cab_fail(CAB_EFORMAT,
                        "%s: \"%s\": the archive expands to more than %" PRIu64 " MiB from %zu KiB; where that is "
                        "meant, allow it by max_expanded",
                        a->name, m->public.name, limits->total >> 20, (a->size + 1023) >> 10);
    if (a->expanded > a->memory || size > a->memory - a->expanded)
        return cab_fail(CAB_ENOMEM,
                        "%s: \"%s\": its images need more than %" PRIu64 " MiB of memory when expanded; unpack it, or "
                        "store it as a plain .tar",
                        a->name, m->public.name, a->memory >> 20);
    return CAB_OK;
}

/* Grows the member's own copy by a block. */
static cab_status append(cab_archive *a, member *m, size_t *capacity, const void *block, size_t size)
{
    uint8_t *data = (uint8_t *)m->public.data;
    CAB_TRY(check_room(a, m, size));
    CAB_TRY(CAB_GROW(&data, capacity, m->public.size + size, "a member of an archive"));
    memcpy(data + m->public.size, block, size);
    m->public.data = data;
    m->public.size += size;
    m->expanded = true;
    a->expanded += size;
    return CAB_OK;
}

static bool is_inside(const cab_archive *a, const void *block, size_t size)
{
    uintptr_t begin = (uintptr_t)a->data, at = (uintptr_t)block;
    return at >= begin && at - begin <= a->size && size <= a->size - (at - begin);
}

static cab_status read_data(cab_archive *a, struct archive *reader, member *m)
{
    size_t capacity = 0;
    for (bool first = true;; first = false) {
        const void *block = NULL;
        size_t size = 0;
        la_int64_t offset = 0;
        int result = archive_read_data_block(reader, &block, &size, &offset);
        if (result == ARCHIVE_EOF)
            return CAB_OK;
        if (result != ARCHIVE_OK)
            return damaged(a, reader);
        if (size == 0)
            continue;
        if (offset < 0 || (uint64_t)offset != m->public.size)
            return cab_fail(CAB_EUNSUPPORTED, "%s: \"%s\" is stored with holes", a->name, m->public.name);
        if (first && is_inside(a, block, size)) {
            m->public.data = block;
            m->public.size = size;
            continue;
        }
        if (!m->expanded && m->public.size > 0) { /* in place so far, now it goes on elsewhere */
            const void *begin = m->public.data;
            size_t before = m->public.size;
            m->public.size = 0;
            m->public.data = NULL;
            CAB_TRY(append(a, m, &capacity, begin, before));
        }
        CAB_TRY(append(a, m, &capacity, block, size));
    }
}

/* A copy of the name without "./" in front and '/' at the end. */
static cab_status copy_name(const char *name, char **out)
{
    while (strncmp(name, "./", 2) == 0 || *name == '/')
        name += *name == '/' ? 1 : 2;
    CAB_TRY(cab_strdup(out, name));
    for (size_t size = strlen(*out); size > 0 && (*out)[size - 1] == '/'; size--)
        (*out)[size - 1] = '\0';
    return CAB_OK;
}

static cab_status add_member(cab_archive *a, struct archive *reader, struct archive_entry *entry)
{
    const char *name = archive_entry_pathname_utf8(entry);
    char *copy = NULL;
    if (name == NULL)
        name = archive_entry_pathname(entry);
    if (name == NULL)
        return cab_fail(CAB_EFORMAT, "%s: the name of member %zu cannot be read", a->name, a->count + 1);
    if (a->count >= MEMBERS_MAX)
        return cab_fail(CAB_EUNSUPPORTED, "%s: more than %" PRIu64 " members", a->name, MEMBERS_MAX);
    CAB_TRY(CAB_GROW(&a->members, &a->capacity, a->count + 1, "members of an archive"));
    CAB_TRY(copy_name(name, &copy));
    member *m = &a->members[a->count++];
    m->public = (cab_member){.name = copy, .directory = archive_entry_filetype(entry) == AE_IFDIR};
    if (m->public.directory || !cab_image_is_name(copy))
        return CAB_OK;
    /* One that is larger than the whole file must be expanded, and is refused by its header already. */
    const la_int64_t declared = archive_entry_size_is_set(entry) ? archive_entry_size(entry) : 0;
    cab_status status = declared > 0 && (uint64_t)declared > a->size ? check_room(a, m, (uint64_t)declared) : CAB_OK;
    if (status == CAB_OK)
        status = read_data(a, reader, m);
    if (status != CAB_OK) { /* half an image is none */
        if (m->expanded)
            cab_free((void *)m->public.data);
        cab_free(copy);
        *m = (member){0};
        a->count--;
    }
    return status;
}

/* ---- the whole -------------------------------------------------------------------------------------------------------- */

static la_ssize_t read_block(struct archive *reader, void *context, const void **block)
{
    cab_archive *a = context;
    size_t size = 0;
    a->expander_status = cab_expander_next(a->expander, block, &size);
    if (a->expander_status == CAB_OK)
        return (la_ssize_t)size;
    archive_set_error(reader, EIO, "%s", cab_error_text());
    return -1;
}

/* What is left of a packed tar after its end: the checksums. */
static cab_status read_out(cab_archive *a)
{
    const void *block = NULL;
    size_t size = 0;
    do
        CAB_TRY(cab_expander_next(a->expander, &block, &size));
    while (size > 0);
    return CAB_OK;
}

/* A tar ends with blocks of zeros. One cut between two members would otherwise pass for whole. */
static cab_status check_end(cab_archive *a, struct archive *reader)
{
    if (a->expander != NULL)
        return read_out(a);
    if ((archive_format(reader) & ARCHIVE_FORMAT_BASE_MASK) != ARCHIVE_FORMAT_TAR ||
        archive_filter_code(reader, 0) != ARCHIVE_FILTER_NONE)
        return CAB_OK;
    for (size_t i = 0; i < TAR_BLOCK; i++)
        if (a->size < TAR_BLOCK || a->data[a->size - 1 - i] != 0)
            return cab_fail(CAB_EFORMAT, "%s: cut short after %zu members: the mark of a tar's end is missing", a->name,
                            a->count);
    return CAB_OK;
}

/* *end: there was none left. */
static cab_status read_member(cab_archive *a, struct archive *reader, bool *end)
{
    struct archive_entry *entry = NULL;
    int result = archive_read_next_header(reader, &entry);
    *end = result == ARCHIVE_EOF;
    if (*end)
        return check_end(a, reader);
    if (result != ARCHIVE_OK && result != ARCHIVE_WARN)
        return damaged(a, reader);
    return add_member(a, reader, entry);
}

static cab_status read_members(cab_archive *a, struct archive *reader)
{
    cab_progress progress;
    cab_status status = CAB_OK;
    archive_read_support_format_tar(reader);
    if (cab_packing_of(a->data, a->size) != CAB_UNPACKED) {
        CAB_TRY(cab_expander_open(a->data, a->size, a->name, a->limits.total, &a->expander));
        if (archive_read_open(reader, a, NULL, read_block, NULL) != ARCHIVE_OK)
            return damaged(a, reader);
    } else {
        /* Not the streaming reader of zip: the directory at the end tells a whole archive from one cut short. */
        archive_read_support_format_zip_seekable(reader);
        if (archive_read_open_memory(reader, a->data, a->size) != ARCHIVE_OK)
            return damaged(a, reader);
    }
    cab_progress_begin(&progress, "reading the archive", "bytes", 0, a->size);
    for (bool end = false; !end && status == CAB_OK;) {
        status = read_member(a, reader, &end);
        const uint64_t done =
            a->expander != NULL ? cab_expander_position(a->expander) : (uint64_t)archive_filter_bytes(reader, -1);
        cab_progress_update(&progress, done, "");
    }
    cab_progress_end(&progress);
    return status;
}

typedef struct named {
    const char *name;
    uint32_t index;
} named;

static int compare_named(const void *left, const void *right)
{
    const named *a = left, *b = right;
    int order = strcmp(a->name, b->name);
    return order != 0 ? order : a->index < b->index ? -1 : a->index > b->index;
}

static cab_status sort_names(cab_archive *a)
{
    named *sorted = NULL;
    CAB_TRY(CAB_NEW(&a->by_name, a->count, "names of an archive"));
    CAB_TRY(CAB_NEW(&sorted, a->count, "names of an archive"));
    for (size_t i = 0; i < a->count; i++)
        if (!a->members[i].public.directory)
            sorted[a->files++] = (named){a->members[i].public.name, (uint32_t)i};
    qsort(sorted, a->files, sizeof *sorted, compare_named);
    for (size_t i = 0; i < a->files; i++)
        a->by_name[i] = sorted[i].index;
    cab_free(sorted);
    return CAB_OK;
}

/* Reads all of the archive; members before a damage are kept. */
static cab_status read_all(cab_archive *a)
{
    if (a->size == 0)
        return cab_fail(CAB_EFORMAT, "%s: is empty; expected a tar or zip archive", a->name);
    struct archive *reader = archive_read_new();
    if (reader == NULL)
        return cab_fail(CAB_ENOMEM, "out of memory: reading %s", a->name);
    /* libarchive turns names into this thread's character set, and gives none where that cannot be done. */
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0), before = (locale_t)0;
    if (utf8 != (locale_t)0)
        before = uselocale(utf8);
    cab_status status = read_members(a, reader);
    archive_read_free(reader);
    if (utf8 != (locale_t)0) {
        uselocale(before);
        freelocale(utf8);
    }
    if ((status == CAB_OK || status == CAB_EFORMAT) && a->count > 0) {
        cab_status sorted = sort_names(a);
        status = sorted == CAB_OK ? status : sorted;
    }
    return status;
}

/* `a` owns the map from here on. */
static cab_status parse(cab_archive *a, const char *name, const cab_expand_limits *limits, cab_archive **out)
{
    a->limits = cab_expand_limits_of(limits, a->size);
    cab_status status = cab_strdup(&a->name, name);
    if (status == CAB_OK)
        status = read_all(a);
    if (status == CAB_OK || (status == CAB_EFORMAT && a->count > 0))
        *out = a;
    else
        cab_archive_close(a);
    return status;
}

cab_status cab_archive_parse(const void *data, size_t size, const char *name, const cab_expand_limits *limits,
                             cab_archive **out)
{
    cab_archive *a = NULL;
    *out = NULL;
    CAB_TRY(CAB_NEW(&a, 1, "an archive"));
    a->data = data;
    a->size = size;
    a->memory = UINT64_MAX;
    return parse(a, name, limits, out);
}

cab_status cab_archive_open(const char *path, const cab_expand_limits *limits, cab_archive **out)
{
    cab_archive *a = NULL;
    const double available = cab_available_memory() * MEMORY_SHARE;
    *out = NULL;
    CAB_TRY(CAB_NEW(&a, 1, "an archive"));
    cab_status status = cab_map_open(path, &a->map);
    if (status != CAB_OK) {
        cab_archive_close(a);
        return status;
    }
    a->data = a->map.data;
    a->size = a->map.size;
    a->memory = available < 0x1p62 ? (uint64_t)available : UINT64_C(1) << 62;
    return parse(a, path, limits, out);
}

void cab_archive_close(cab_archive *a)
{
    if (a == NULL)
        return;
    for (size_t i = 0; i < a->count; i++) {
        cab_free((void *)a->members[i].public.name);
        if (a->members[i].expanded)
            cab_free((void *)a->members[i].public.data);
    }
    cab_expander_close(a->expander);
    cab_free(a->members);
    cab_free(a->by_name);
    cab_free(a->name);
    cab_map_close(&a->map);
    cab_free(a);
}

size_t cab_archive_count(const cab_archive *a)
{
    return a->count;
}

const cab_member *cab_archive_at(const cab_archive *a, size_t i)
{
    return &a->members[i].public;
}

const cab_member *cab_archive_find(const cab_archive *a, const char *name)
{
    size_t low = 0, high = a->files; /* the first name greater than this one */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(a->members[a->by_name[middle]].public.name, name) > 0)
            high = middle;
        else
            low = middle + 1;
    }
    if (low == 0)
        return NULL;
    const cab_member *m = &a->members[a->by_name[low - 1]].public;
    return strcmp(m->name, name) == 0 ? m : NULL;
}
