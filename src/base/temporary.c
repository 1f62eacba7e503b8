/* temporary.c - making temporary files, and sweeping up those of dead processes.
 *
 * A sweeper may find a file between its making and its locking. It locks what it removes, so either the maker cannot get the lock, or it
 * gets it on a file without a name; in both cases the maker takes another name. */
#include "base/temporary.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static const char mark[] = ".cab-tmp-";
enum { DIGITS = 16, ATTEMPTS = 100, FILE_MODE = 0666 };

/* Whether the file is ours alone now: locked, where there are locks, and still in its directory. */
static bool is_held(int fd)
{
    struct stat info;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return false;
    return fstat(fd, &info) == 0 && info.st_nlink > 0;
}

int cab_temporary_create(const char *target, char *path, int *descriptor)
{
    for (int i = 0; i < ATTEMPTS; i++) {
        uint64_t number = 0;
        if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
            return errno;
        int length = snprintf(path, CAB_PATH_MAX, "%s%s%016" PRIx64, target, mark, number);
        if (length < 0 || length >= CAB_PATH_MAX)
            return ENAMETOOLONG;
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
        if (fd < 0 && errno != EEXIST && errno != EINTR)
            return errno;
        if (fd < 0)
            continue;
        if (is_held(fd)) {
            *descriptor = fd;
            return 0;
        }
        close(fd);
        unlink(path);
    }
    return EEXIST;
}

static bool is_temporary(const char *name)
{
    const size_t length = strlen(name), tail = sizeof mark - 1 + DIGITS;
    return length > tail && memcmp(name + length - tail, mark, sizeof mark - 1) == 0 &&
           strspn(name + length - DIGITS, "0123456789abcdef") == DIGITS;
}

static void remove_if_dead(const char *path)
{
    struct stat info;
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && flock(fd, LOCK_EX | LOCK_NB) == 0)
        unlink(path);
    close(fd);
}

void cab_temporary_sweep(const char *directory)
{
    char path[CAB_PATH_MAX];
    DIR *stream = opendir(directory);
    if (stream == NULL)
        return;
    for (struct dirent *entry = readdir(stream); entry != NULL; entry = readdir(stream)) {
        int length = is_temporary(entry->d_name) ? snprintf(path, sizeof path, "%s/%s", directory, entry->d_name) : 0;
        if (length > 0 && length < CAB_PATH_MAX)
            remove_if_dead(path);
    }
    closedir(stream);
}
