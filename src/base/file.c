/* file.c - mapping, whole-file reads, atomic replacement, paths. */
#include "base/file.h"

#include "base/encoding.h"
#include "base/fault.h"
#include "base/memory.h"
#include "base/temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_STEP = 1 << 16, FILE_MODE = 0666, DIRECTORY_MODE = 0777 };

/* An open descriptor of a regular file and its size. */
static cab_status open_regular(const char *path, int *descriptor, size_t *size)
{
    struct stat info;
    /* O_NONBLOCK: a FIFO without a writer would block here, before fstat can refuse it */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot open", path);
    if (fstat(fd, &info) != 0) {
        int reason = errno;
        close(fd);
        return cab_fail_errno(CAB_EIO, reason, "%s: cannot read its size", path);
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        return cab_fail(CAB_EIO, "%s: is %s, expected a regular file", path,
                        S_ISDIR(info.st_mode) ? "a directory" : "a device, pipe or socket");
    }
    *descriptor = fd;
    *size = (size_t)info.st_size;
    return CAB_OK;
}

cab_status cab_map_open(const char *path, cab_map *map)
{
    int fd = -1;
    size_t size = 0;
    *map = (cab_map){0};
    CAB_TRY(open_regular(path, &fd, &size));
    if (size > 0) {
        void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            int reason = errno;
            close(fd);
            return cab_fail_errno(CAB_EIO, reason, "%s: cannot map %zu bytes", path, size);
        }
        map->data = data;
        map->size = size;
        cab_fault_watch(data, size, path);
    }
    close(fd);
    return CAB_OK;
}

void cab_map_close(cab_map *map)
{
    if (map->data != NULL) {
        cab_fault_forget(map->data);
        munmap((void *)map->data, map->size);
    }
    *map = (cab_map){0};
}

cab_status cab_file_open(const char *path, FILE **stream)
{
    int fd = -1;
    size_t size = 0;
    *stream = NULL;
    CAB_TRY(open_regular(path, &fd, &size));
    *stream = fdopen(fd, "rb");
    if (*stream != NULL)
        return CAB_OK;
    int reason = errno;
    close(fd);
    return cab_fail_errno(CAB_EIO, reason, "%s: cannot open", path);
}

cab_status cab_file_append(const char *path, bool keep, FILE **stream)
{
    struct stat info;
    const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK;
    const int fd = open(path, flags | (keep ? 0 : O_TRUNC), FILE_MODE);
    *stream = NULL;
    /* ENXIO: a FIFO that nobody reads */
    if ((fd < 0 && errno == ENXIO) || (fd >= 0 && fstat(fd, &info) == 0 && !S_ISREG(info.st_mode))) {
        if (fd >= 0)
            close(fd);
        return cab_fail(CAB_EIO, "%s: is a device, pipe or socket, expected a regular file", path);
    }
    if (fd >= 0)
        *stream = fdopen(fd, "ab");
    if (*stream != NULL)
        return CAB_OK;
    const int reason = errno;
    if (fd >= 0)
        close(fd);
    return cab_fail_errno(CAB_EIO, reason, "%s: cannot be opened for writing", path);
}

/* The size at open is not trusted: files under /proc say 0, others may grow. One byte is kept for the final NUL. */
static cab_status read_stream(const char *path, FILE *stream, size_t max_bytes, char **buffer, size_t *length)
{
    size_t capacity = 0;
    for (;;) {
        CAB_TRY(CAB_GROW(buffer, &capacity, *length + READ_STEP + 1, "a file's text"));
        size_t got = fread(*buffer + *length, 1, capacity - *length - 1, stream);
        *length += got;
        if (*length > max_bytes)
            return cab_fail(CAB_EFORMAT, "%s: larger than the %zu bytes allowed for it", path, max_bytes);
        if (got == 0)
            break;
    }
    if (ferror(stream))
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot read", path);
    (*buffer)[*length] = '\0';
    return CAB_OK;
}

cab_status cab_file_read(const char *path, size_t max_bytes, char **text, size_t *size)
{
    FILE *stream = NULL;
    *text = NULL;
    *size = 0;
    CAB_TRY(cab_file_open(path, &stream));
    cab_status status = read_stream(path, stream, max_bytes, text, size);
    fclose(stream);
    if (status != CAB_OK) {
        cab_free(*text);
        *text = NULL;
        *size = 0;
    }
    return status;
}

cab_status cab_file_read_text(const char *path, size_t max_bytes, char **text, size_t *size)
{
    size_t mark = 0;
    CAB_TRY(cab_file_read(path, max_bytes, text, size));
    cab_status status = cab_encoding_check(path, *text, *size, &mark);
    if (status == CAB_OK) {
        *size -= mark;
        memmove(*text, *text + mark, *size + 1);
        return CAB_OK;
    }
    cab_free(*text);
    *text = NULL;
    *size = 0;
    return status;
}

/* Where the file is to stand: what links lead to, which may not exist yet; *old: what is there now, or of mode 0. */
static cab_status resolve(cab_writer *writer, const char *path, struct stat *old)
{
    char *real = realpath(path, NULL);
    const char *target = real != NULL ? real : path;
    const bool fits = strlen(path) < CAB_PATH_MAX && strlen(target) < CAB_PATH_MAX;
    if (fits) {
        memcpy(writer->path, path, strlen(path) + 1);
        memcpy(writer->target, target, strlen(target) + 1);
    }
    free(real);
    if (stat(path, old) != 0)
        old->st_mode = 0;
    return fits ? CAB_OK : cab_fail(CAB_EARG, "%.64s...: path is longer than %d bytes", path, CAB_PATH_MAX);
}

/* Where a file's name stands in its directory: "dir/." or ".". */
static void parent_of(const char *path, char parent[CAB_PATH_MAX])
{
    size_t length = (size_t)(cab_path_name(path) - path);
    memcpy(parent, path, length);
    memcpy(parent + length, ".", 2);
}

/* A temporary file beside the target, in a directory that holds no dead ones. 0, or an errno value. */
static int open_beside(cab_writer *writer, int *fd)
{
    char parent[CAB_PATH_MAX];
    parent_of(writer->target, parent);
    cab_temporary_sweep(parent);
    int reason = cab_temporary_create(writer->target, writer->temporary, fd);
    if (reason != 0)
        writer->temporary[0] = '\0';
    return reason;
}

static int open_directly(const char *path, int *fd)
{
    *fd = open(path, O_WRONLY | O_CLOEXEC);
    return *fd < 0 ? errno : 0;
}

cab_status cab_writer_open(cab_writer *writer, const char *path)
{
    struct stat old;
    int fd = -1;
    *writer = (cab_writer){0};
    CAB_TRY(resolve(writer, path, &old));
    const bool beside = old.st_mode == 0 || S_ISREG(old.st_mode) || S_ISDIR(old.st_mode);
    int reason = beside ? open_beside(writer, &fd) : open_directly(path, &fd);
    if (reason != 0)
        return cab_fail_errno(CAB_EIO, reason, "%s: cannot create", path);
    if (S_ISREG(old.st_mode))
        (void)fchmod(fd, old.st_mode & 07777); /* a file of ours has our mode where this is not allowed */
    writer->stream = fdopen(fd, "wb");
    if (writer->stream == NULL) {
        reason = errno;
        close(fd);
        cab_writer_abort(writer);
        return cab_fail_errno(CAB_EIO, reason, "%s: cannot create", path);
    }
    return CAB_OK;
}

cab_status cab_writer_write(cab_writer *writer, const void *data, size_t size)
{
    if (size > 0 && fwrite(data, 1, size, writer->stream) != size)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot write", writer->path);
    return CAB_OK;
}

/* Makes the rename itself durable. Some file systems cannot sync directories; the file's data is safe all the same. */
static void sync_parent(const char *path)
{
    char parent[CAB_PATH_MAX];
    parent_of(path, parent);
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}

/* 0, or why not everything is on the disk. After a failed write the stream is tried once more: it tells the reason again. */
static int finish_stream(FILE *stream, bool durable)
{
    const bool failed = ferror(stream) != 0;
    errno = 0;
    if (fflush(stream) != 0 || failed)
        return errno != 0 ? errno : EIO;
    return durable && fsync(fileno(stream)) != 0 ? errno : 0;
}

cab_status cab_writer_commit(cab_writer *writer)
{
    const bool beside = writer->temporary[0] != '\0';
    const char *what = "write";
    int reason = finish_stream(writer->stream, beside);
    if (reason == 0 && beside && rename(writer->temporary, writer->target) != 0) {
        reason = errno;
        what = "replace";
    }
    if (reason == 0)
        writer->temporary[0] = '\0'; /* it has the target's name; closing the stream ends the lock */
    if (fclose(writer->stream) != 0 && reason == 0 && !beside)
        reason = errno; /* what was synced is on the disk */
    writer->stream = NULL;
    if (reason != 0) {
        cab_writer_abort(writer);
        return cab_fail_errno(CAB_EIO, reason, "%s: cannot %s", writer->path, what);
    }
    if (beside)
        sync_parent(writer->target);
    return CAB_OK;
}

void cab_writer_abort(cab_writer *writer)
{
    if (writer->stream != NULL)
        fclose(writer->stream);
    writer->stream = NULL;
    if (writer->temporary[0] != '\0')
        unlink(writer->temporary);
    writer->temporary[0] = '\0';
}

cab_status cab_file_write(const char *path, const void *data, size_t size)
{
    cab_writer writer;
    CAB_TRY(cab_writer_open(&writer, path));
    cab_status status = cab_writer_write(&writer, data, size);
    if (status == CAB_OK)
        status = cab_writer_commit(&writer);
    cab_writer_abort(&writer);
    return status;
}

cab_status cab_file_copy(const char *from, const char *to)
{
    cab_map map;
    CAB_TRY(cab_map_open(from, &map));
    cab_status status = cab_file_write(to, map.data, map.size);
    cab_map_close(&map);
    return status;
}

cab_status cab_path_join(char *out, const char *directory, const char *name)
{
    size_t length = strlen(directory);
    const char *slash = length > 0 && directory[length - 1] != '/' ? "/" : "";
    int written = snprintf(out, CAB_PATH_MAX, "%s%s%s", directory, slash, name);
    if (written < 0 || written >= CAB_PATH_MAX)
        return cab_fail(CAB_EARG, "%.64s.../%.64s: path is longer than %d bytes", directory, name, CAB_PATH_MAX);
    return CAB_OK;
}

const char *cab_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

bool cab_path_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool cab_path_is_directory(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* Each prefix that ends before a '/' in turn, then the whole; those that exist already are fine. */
cab_status cab_directory_make(const char *path)
{
    char prefix[CAB_PATH_MAX];
    CAB_TRY(cab_path_join(prefix, path, ""));
    for (char *slash = strchr(prefix + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const int reason = mkdir(prefix, DIRECTORY_MODE) == 0 ? 0 : errno; /* asking what is there changes errno */
        if (reason != 0 && !cab_path_is_directory(prefix))
            return cab_fail_errno(CAB_EIO, reason == EEXIST ? ENOTDIR : reason, "%s: cannot make the directory",
                                  prefix);
        *slash = '/';
    }
    return CAB_OK;
}

/* Permission bits do not tell (read-only mounts, quotas, root): creating a file does. */
cab_status cab_directory_check_writable(const char *path)
{
    char target[CAB_PATH_MAX], probe[CAB_PATH_MAX];
    int fd = -1;
    CAB_TRY(cab_path_join(target, path, "probe"));
    cab_temporary_sweep(path);
    int reason = cab_temporary_create(target, probe, &fd);
    if (reason != 0)
        return cab_fail_errno(CAB_EIO, reason, "%s: cannot create files in this directory", path);
    unlink(probe);
    close(fd);
    return CAB_OK;
}

cab_status cab_file_check_writable(const char *path)
{
    cab_writer writer;
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))
        return CAB_OK; /* whoever reads a pipe would take this for its end */
    CAB_TRY(cab_writer_open(&writer, path));
    cab_writer_abort(&writer);
    return CAB_OK;
}

uint64_t cab_hash(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}
