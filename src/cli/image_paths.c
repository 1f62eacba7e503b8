/* image_paths.c - files, folders and patterns to a list of files. */
#include "cli/image_paths.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/image.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 16 };

void cli_image_paths_free(cli_image_paths *p)
{
    for (size_t i = 0; i < p->count; i++)
        cab_free(p->items[i]);
    cab_free(p->items);
    *p = (cli_image_paths){0};
}

static cab_status append(cli_image_paths *p, const char *path)
{
    CAB_TRY(CAB_GROW(&p->items, &p->capacity, p->count + 1, "the list of images"));
    CAB_TRY(cab_strdup(&p->items[p->count], path));
    p->count++;
    return CAB_OK;
}

static int by_name(const struct dirent **left, const struct dirent **right)
{
    return strcmp((*left)->d_name, (*right)->d_name);
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static cab_status walk(cli_image_paths *p, const char *folder, int depth)
{
    struct dirent **entries = NULL;
    char path[CAB_PATH_MAX];
    cab_status status = CAB_OK;
    if (depth > DEPTH_MAX)
        return cab_fail(CAB_EFORMAT, "%s: more than %d folders deep; a link in a circle?", folder, (int)DEPTH_MAX);
    int count = scandir(folder, &entries, is_visible, by_name);
    if (count < 0)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot list", folder);
    for (int i = 0; i < count; i++) {
        if (status == CAB_OK)
            status = cab_path_join(path, folder, entries[i]->d_name);
        if (status == CAB_OK && cab_path_is_directory(path))
            status = walk(p, path, depth + 1);
        else if (status == CAB_OK && cab_image_is_name(path))
            status = append(p, path);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static cab_status add_folder(cli_image_paths *p, const char *folder)
{
    const size_t before = p->count;
    CAB_TRY(walk(p, folder, 0));
    if (p->count == before)
        return cab_fail(CAB_EFORMAT, "%s: no image found; expected .jpg, .jpeg or .png", folder);
    return CAB_OK;
}

static cab_status add_pattern(cli_image_paths *p, const char *pattern)
{
    glob_t found = {0};
    cab_status status = CAB_OK;
    int failed = glob(pattern, 0, NULL, &found);
    if (failed == GLOB_NOMATCH)
        status = cab_fail(CAB_EIO, "%s: no such file, and no file that it would match", pattern);
    else if (failed != 0)
        status = cab_fail(failed == GLOB_NOSPACE ? CAB_ENOMEM : CAB_EIO, "%s: its matches cannot be listed", pattern);
    for (size_t i = 0; failed == 0 && i < found.gl_pathc && status == CAB_OK; i++)
        status =
            cab_path_is_directory(found.gl_pathv[i]) ? add_folder(p, found.gl_pathv[i]) : append(p, found.gl_pathv[i]);
    globfree(&found);
    return status;
}

cab_status cli_image_paths_add(cli_image_paths *p, const char *word)
{
    if (cab_path_is_directory(word))
        return add_folder(p, word);
    if (!cab_path_exists(word) && strpbrk(word, "*?[") != NULL)
        return add_pattern(p, word);
    if (!cab_path_exists(word))
        return cab_fail(CAB_EIO, "%s: no such file or folder", word);
    return append(p, word);
}
