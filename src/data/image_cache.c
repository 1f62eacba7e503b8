/* image_cache.c - every image of a set decoded once: to see whether it can be, and to keep the result.
 *
 * The file, little-endian, mapped when complete:
 *
 *   0   "CABIMGS\n"        8 bytes
 *   8   u32 version        2
 *   12  u32 reserved       0
 *   16  u64 key            of names, classes, sizes, times of change, decode options
 *   24  u64 images         N
 *   32  u64 size           of the file
 *   40  u64 checksum       XXH64 of the header, with zeros here, and of the table
 *   48  reserved           0
 *   64  N times            u64 offset, u32 width, u32 height, u64 XXH64 of the pixels; offset 0: could not be decoded
 *   ..  pixels             (height, width, 3) of each, in the order in which they were decoded
 *
 * A damaged file is built anew, with a warning; one of other images, or of an older version, silently. */
#include "base/checksum.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/thread.h"
#include "data/image_set_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER = 64, VERSION = 2, THREADS_MAX = 256, PROGRESS_STEP = 64 };
static const char MAGIC[8] = "CABIMGS\n";
static const double MEMORY_SHARE = 0.8; /* of what is free may be filled with images */

typedef struct header {
    char magic[8];
    uint32_t version, reserved;
    uint64_t key, images, size, checksum;
    uint8_t rest[HEADER - 48];
} header;
_Static_assert(sizeof(header) == HEADER && sizeof(cab_cached_image) == 24, "both are written as they lie in memory");

/* ---- every image once, by several threads ------------------------------------------------------------------------------ */

typedef struct pass {
    cab_image_set *set;
    cab_image *memory;       /* where the images are to stay, or NULL */
    cab_cached_image *table; /* of the file, or NULL */
    int fd;
    double memory_max;
    atomic_uint_fast64_t next, bytes; /* the image to take; bytes of images so far, or the end of the file */
    atomic_bool stop;
    pthread_mutex_t lock;
    cab_status status; /* the first failure and its text, under the lock */
    char text[1024];
    cab_progress progress; /* the first thread draws it */
} pass;

static cab_status write_at(int fd, const uint8_t *data, size_t size, uint64_t offset)
{
    while (size > 0) {
        ssize_t written = pwrite(fd, data, size, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return cab_fail_errno(CAB_EIO, written < 0 ? errno : ENOSPC, "the cache of images: cannot write");
        data += written;
        size -= (size_t)written;
        offset += (uint64_t)written;
    }
    return CAB_OK;
}

static cab_status keep(pass *p, uint64_t i, cab_image *image)
{
    size_t bytes = (size_t)image->width * (size_t)image->height * 3;
    uint64_t before = atomic_fetch_add(&p->bytes, bytes);
    if (p->memory != NULL) {
        if ((double)(before + bytes) > p->memory_max)
            return cab_fail(CAB_ENOMEM,
                            "the decoded images need more than %.1f GiB, %.0f %% of the memory that is free; let the "
                            "cache be a file",
                            p->memory_max / 0x1p30, 100.0 * MEMORY_SHARE);
        p->memory[i] = *image; /* and the next one gets new memory */
        *image = (cab_image){0};
    }
    if (p->table != NULL) {
        CAB_TRY(write_at(p->fd, image->pixels, bytes, before));
        p->table[i] = (cab_cached_image){before, (uint32_t)image->width, (uint32_t)image->height,
                                         cab_checksum_of(image->pixels, bytes)};
    }
    return CAB_OK;
}

static cab_status take(pass *p, uint64_t i, cab_image *image)
{
    cab_status status = cab_image_set_decode(p->set, i, image);
    if (status == CAB_OK)
        return keep(p, i, image);
    status = cab_image_set_bad(p->set, i, status);
    return cab_image_set_is_bad(p->set, i) ? CAB_OK : status;
}

static void work(pass *p, bool draws)
{
    cab_image image = {0};
    uint64_t i = 0;
    while (!atomic_load(&p->stop) && (i = atomic_fetch_add(&p->next, 1)) < p->set->count) {
        cab_status status = take(p, i, &image);
        if (status != CAB_OK) {
            pthread_mutex_lock(&p->lock);
            if (p->status == CAB_OK) {
                p->status = status;
                snprintf(p->text, sizeof p->text, "%s", cab_error_text());
            }
            pthread_mutex_unlock(&p->lock);
            atomic_store(&p->stop, true);
        }
        if (draws && i % PROGRESS_STEP == 0)
            cab_progress_update(&p->progress, i, "");
    }
    cab_image_free(&image);
}

static void *run_thread(void *given)
{
    work(given, false);
    return NULL;
}

/* Decodes all images, and keeps them where `p` says. */
static cab_status run(pass *p, const char *label, int threads)
{
    pthread_t others[THREADS_MAX];
    int started = 0;
    threads = threads < 1 ? cab_thread_count() : threads;
    pthread_mutex_init(&p->lock, NULL);
    cab_progress_begin(&p->progress, label, "images", 0, p->set->count);
    while (started < threads - 1 && started < THREADS_MAX && pthread_create(&others[started], NULL, run_thread, p) == 0)
        started++;
    work(p, true);
    for (int i = 0; i < started; i++)
        pthread_join(others[i], NULL);
    cab_progress_end(&p->progress);
    pthread_mutex_destroy(&p->lock);
    if (p->status != CAB_OK)
        cab_error_set_text(p->text);
    return p->status;
}

cab_status cab_image_set_check(cab_image_set *set, int threads)
{
    pass p = {.set = set};
    return run(&p, "checking images", threads);
}

/* ---- in memory -------------------------------------------------------------------------------------------------------- */

static cab_status cache_in_memory(cab_image_set *set, int threads)
{
    pass p = {.set = set, .memory_max = cab_available_memory() * MEMORY_SHARE};
    CAB_TRY(CAB_NEW(&p.memory, set->count, "decoded images"));
    cab_status status = run(&p, "decoding images", threads);
    set->cache_memory = p.memory;
    if (status != CAB_OK)
        cab_image_cache_close(set);
    return status;
}

/* ---- in a file -------------------------------------------------------------------------------------------------------- */

static uint64_t hash_text(uint64_t hash, const char *text)
{
    return cab_hash(hash, text, strlen(text) + 1);
}

/* What tells one version of a file from another without reading it. */
static cab_status hash_file(uint64_t *hash, const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot read", path);
    int64_t numbers[3] = {(int64_t)info.st_size, (int64_t)info.st_mtim.tv_sec, (int64_t)info.st_mtim.tv_nsec};
    *hash = cab_hash(*hash, numbers, sizeof numbers);
    return CAB_OK;
}

static uint64_t cache_key(const cab_image_set *set)
{
    uint64_t options[2] = {set->decode.max_pixels, (uint64_t)set->decode.min_side};
    uint64_t hash = cab_hash(CAB_HASH_START, options, sizeof options);
    for (size_t i = 0; i < set->sources_count; i++) {
        hash = hash_text(hash, set->sources[i].path);
        if (set->sources[i].archive != NULL)
            (void)hash_file(&hash, set->sources[i].path);
    }
    for (size_t i = 0; i < set->count; i++) {
        const cab_image_item *item = &set->items[i];
        char path[CAB_PATH_MAX];
        cab_image_set_name(set, i, path);
        hash = hash_text(hash, path);
        hash = cab_hash(hash, &item->label, sizeof item->label);
        if (item->data == NULL) /* a file that has gone is found when it is decoded */
            (void)hash_file(&hash, path);
    }
    return hash;
}

static uint64_t checksum_of(header h, const void *table, size_t size)
{
    h.checksum = 0;
    cab_checksum checksum = cab_checksum_begin();
    cab_checksum_add(&checksum, &h, sizeof h);
    cab_checksum_add(&checksum, table, size);
    return cab_checksum_end(&checksum);
}

static cab_status check_header(const char *path, const cab_map *map, uint64_t key, uint64_t images, bool *stale)
{
    header h;
    size_t table = 0;
    if (map->size < HEADER || memcmp(map->data, MAGIC, sizeof MAGIC) != 0)
        return cab_fail(CAB_EFORMAT, "%s: not a cache of images", path);
    memcpy(&h, map->data, sizeof h);
    *stale = h.version < VERSION;
    if (h.version != VERSION)
        return cab_fail(CAB_EFORMAT, "%s: a cache of images of version %" PRIu32 ", expected %d", path, h.version,
                        VERSION);
    if (h.size != map->size || __builtin_mul_overflow(h.images, sizeof(cab_cached_image), &table) ||
        table > map->size - HEADER)
        return cab_fail(CAB_EFORMAT, "%s: %zu bytes, truncated or damaged", path, map->size);
    if (checksum_of(h, map->data + HEADER, table) != h.checksum)
        return cab_fail(CAB_EFORMAT, "%s: damaged: the checksum of its table does not match", path);
    *stale = h.key != key || h.images != images;
    return *stale ? cab_fail(CAB_EFORMAT, "%s: a cache of other images", path) : CAB_OK;
}

/* Whether image i's pixels lie in the file, and are those that were decoded. */
static bool is_sound(const cab_map *map, const cab_cached_image *image)
{
    const uint64_t pixels = (uint64_t)image->width * image->height; /* below 2^64 */
    if (image->offset == 0)
        return true;
    if (pixels == 0 || image->width > INT32_MAX || image->height > INT32_MAX || image->offset > map->size ||
        pixels > (map->size - image->offset) / 3)
        return false;
    return cab_checksum_of(map->data + image->offset, 3 * pixels) == image->checksum;
}

cab_status cab_image_cache_parse(const char *path, const cab_map *map, uint64_t key, uint64_t images, int threads,
                                 const cab_cached_image **table, bool *stale)
{
    uint64_t damaged = 0, first = UINT64_MAX;
    *stale = false;
    CAB_TRY(check_header(path, map, key, images, stale));
    const cab_cached_image *all = (const void *)(map->data + HEADER); /* aligned: a mapping begins on a page */
#pragma omp parallel for schedule(dynamic, 16) num_threads(threads) reduction(+ : damaged) reduction(min : first)
    for (uint64_t i = 0; i < images; i++) {
        if (is_sound(map, &all[i]))
            continue;
        damaged++;
        first = i < first ? i : first;
    }
    if (damaged > 0)
        return cab_fail(CAB_EFORMAT,
                        "%s: damaged: %" PRIu64 " of %" PRIu64
                        " images are not as they were decoded, the first is %" PRIu64,
                        path, damaged, images, first);
    *table = all;
    return CAB_OK;
}

/* False: there is none that can be used, and damage has been told. */
static bool adopt(cab_image_set *set, const char *path, uint64_t key, int threads)
{
    cab_map map;
    bool stale = false;
    if (!cab_path_exists(path))
        return false;
    cab_status status = cab_map_open(path, &map);
    if (status == CAB_OK) {
        status = cab_image_cache_parse(path, &map, key, set->count, threads, &set->cached, &stale);
        if (status != CAB_OK)
            cab_map_close(&map);
    }
    if (status == CAB_OK)
        set->cache_file = map;
    else if (!stale)
        cab_log_warn("%s; decoding the images again", cab_error_text());
    return status == CAB_OK;
}

static cab_status build_file(cab_image_set *set, const char *path, uint64_t key, int threads)
{
    cab_status status = CAB_OK;
    cab_writer writer = {0};
    pass p = {.set = set};
    const size_t table = set->count * sizeof *p.table;
    header h = {.version = VERSION, .key = key, .images = set->count};
    CAB_TRY(CAB_NEW(&p.table, set->count, "the table of decoded images"));
    CAB_GOTO(cab_writer_open(&writer, path));
    p.fd = fileno(writer.stream);
    atomic_store(&p.bytes, HEADER + table);
    CAB_GOTO(run(&p, "decoding images", threads));
    h.size = atomic_load(&p.bytes);
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    h.checksum = checksum_of(h, p.table, table);
    CAB_GOTO(cab_writer_write(&writer, &h, sizeof h));
    CAB_GOTO(cab_writer_write(&writer, p.table, table));
    CAB_GOTO(cab_writer_commit(&writer));
done:
    if (status != CAB_OK && writer.stream != NULL)
        cab_writer_abort(&writer);
    cab_free(p.table);
    return status;
}

cab_status cab_image_set_cache(cab_image_set *set, const char *path, int threads)
{
    cab_image_cache_close(set);
    if (path == NULL)
        return cache_in_memory(set, threads);
    uint64_t key = cache_key(set);
    threads = threads < 1 ? cab_thread_count() : threads;
    if (adopt(set, path, key, threads))
        return CAB_OK;
    CAB_TRY(build_file(set, path, key, threads));
    if (!adopt(set, path, key, threads))
        return cab_fail(CAB_EIO, "%s: the cache of images cannot be read back", path);
    return CAB_OK;
}

bool cab_image_cache_lend(const cab_image_set *set, uint64_t i, cab_image *image)
{
    cab_image lent = {0};
    if (set->cache_memory != NULL)
        lent = set->cache_memory[i];
    else if (set->cached != NULL && set->cached[i].offset != 0)
        lent = (cab_image){(uint8_t *)set->cache_file.data + set->cached[i].offset, (int)set->cached[i].width,
                           (int)set->cached[i].height, 0};
    if (lent.pixels == NULL)
        return false;
    lent.capacity = 0; /* borrowed */
    cab_image_free(image);
    *image = lent;
    return true;
}

void cab_image_cache_close(cab_image_set *set)
{
    for (size_t i = 0; set->cache_memory != NULL && i < set->count; i++)
        cab_image_free(&set->cache_memory[i]);
    cab_free(set->cache_memory);
    set->cache_memory = NULL;
    set->cached = NULL;
    cab_map_close(&set->cache_file);
}
