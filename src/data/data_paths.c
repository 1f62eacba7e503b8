/* data_paths.c - files, folders and patterns to a list of files. */
#include "data/data_paths.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/image.h"
#include "data/text.h"
#include "data/tokens.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 16, KIND_MAX = 16 };

void cab_data_paths_free(cab_data_paths *p)
{
    for (size_t i = 0; i < p->count; i++)
        cab_free(p->items[i]);
    cab_free(p->items);
    *p = (cab_data_paths){0};
}

static cab_status append(cab_data_paths *p, const char *path)
{
    CAB_TRY(CAB_GROW(&p->items, &p->capacity, p->count + 1, "the list of data files"));
    CAB_TRY(cab_strdup(&p->items[p->count], path));
    p->count++;
    return CAB_OK;
}

/* ---- files that are not read ------------------------------------------------------------------------------------------ */

static bool ends_in(const char *path, const char *suffix)
{
    const size_t size = strlen(path), length = strlen(suffix);
    return size > length && strcmp(path + size - length, suffix) == 0;
}

/* Apache Parquet begins and ends with "PAR1", whatever the name. */
static bool is_parquet(const char *path)
{
    char magic[4] = "";
    FILE *stream = NULL;
    if (ends_in(path, ".parquet"))
        return true;
    if (cab_file_open(path, &stream) != CAB_OK)
        return false;
    const bool found = fread(magic, 1, sizeof magic, stream) == sizeof magic && memcmp(magic, "PAR1", 4) == 0;
    fclose(stream);
    return found;
}

/* The line can be pasted: the names are its arguments, quoted for the shell. */
static cab_status refuse_parquet(const char *path)
{
    char from[CAB_PATH_MAX], to[CAB_PATH_MAX], name[CAB_PATH_MAX];
    const size_t length = strlen(path) - (ends_in(path, ".parquet") ? strlen(".parquet") : 0);
    snprintf(name, sizeof name, "%.*s.jsonl", (int)length, path);
    return cab_fail(CAB_EUNSUPPORTED,
                    "%s: is a parquet file; convert it (with pandas and pyarrow): python3 -c \"import sys, pandas; "
                    "pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], orient='records', lines=True)\" %s %s",
                    path, cab_path_quoted(path, from), cab_path_quoted(name, to));
}

cab_status cab_data_paths_check_kind(const char *path)
{
    if (is_parquet(path))
        return refuse_parquet(path);
    if (cab_text_is_text(path) || cab_tokens_is_tokens(path))
        return CAB_OK;
    return cab_fail(CAB_EUNSUPPORTED,
                    "%s: not a kind of data file; expected " CAB_TEXT_KINDS ", or token ids as .npy or .bin", path);
}

/* ---- folders ---------------------------------------------------------------------------------------------------------- */

static int by_name(const struct dirent **left, const struct dirent **right)
{
    return strcmp((*left)->d_name, (*right)->d_name);
}

/* Neither hidden nor made by file managers and notebooks. */
static int is_meant(const struct dirent *entry)
{
    static const char *const others[] = {"__MACOSX", "@eaDir"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(entry->d_name, others[i]) == 0)
            return 0;
    return entry->d_name[0] != '.';
}

/* The kind in a name, without what packs it: ".txt" of "a.txt.gz". */
static void kind_of(const char *path, char kind[KIND_MAX])
{
    static const char *const filters[] = {".gz", ".xz", ".zst"};
    size_t end = strlen(path);
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (ends_in(path, filters[i]))
            end -= strlen(filters[i]);
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '.' && path[begin - 1] != '/')
        begin--;
    snprintf(kind, KIND_MAX, ".%.*s", (int)(end - begin), path + begin);
}

/* What was found in a folder: the first data file's kind, and a file of a kind that is not read. */
typedef struct found {
    char kind[KIND_MAX];
    char parquet[CAB_PATH_MAX];
    bool pictures;
} found;

static cab_status add_found(cab_data_paths *p, const char *folder, const char *path, found *f)
{
    char kind[KIND_MAX];
    if (f->parquet[0] == '\0' && ends_in(path, ".parquet"))
        snprintf(f->parquet, sizeof f->parquet, "%s", path);
    f->pictures = f->pictures || cab_image_is_name(path);
    if (!cab_text_is_text(path) && !cab_tokens_is_tokens(path))
        return CAB_OK;
    kind_of(path, kind);
    if (f->kind[0] != '\0' && strcmp(kind, f->kind) != 0)
        return cab_fail(CAB_EFORMAT, "%s: holds %s and %s files; say which are meant by a pattern: '%s/*%s'", folder,
                        f->kind, kind, folder, f->kind);
    memcpy(f->kind, kind, sizeof kind);
    return append(p, path);
}

static cab_status walk(cab_data_paths *p, const char *root, const char *folder, int depth, found *f)
{
    struct dirent **entries = NULL;
    char path[CAB_PATH_MAX];
    cab_status status = CAB_OK;
    if (depth > DEPTH_MAX)
        return cab_fail(CAB_EFORMAT, "%s: more than %d folders deep; a link in a circle?", folder, (int)DEPTH_MAX);
    const int count = scandir(folder, &entries, is_meant, by_name);
    if (count < 0)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot list", folder);
    for (int i = 0; i < count; i++) {
        if (status == CAB_OK)
            status = cab_path_join(path, folder, entries[i]->d_name);
        if (status == CAB_OK && cab_path_is_directory(path))
            status = walk(p, root, path, depth + 1, f);
        else if (status == CAB_OK)
            status = add_found(p, root, path, f);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static cab_status add_folder(cab_data_paths *p, const char *folder)
{
    found f = {.kind = ""};
    const size_t before = p->count;
    CAB_TRY(walk(p, folder, folder, 0, &f));
    if (p->count > before)
        return CAB_OK;
    if (f.parquet[0] != '\0')
        return cab_data_paths_check_kind(f.parquet);
    return cab_fail(CAB_EFORMAT, "%s: holds %s; expected " CAB_TEXT_KINDS ", or token ids as .npy or .bin", folder,
                    f.pictures ? "images" : "no data file");
}

/* ---- words ------------------------------------------------------------------------------------------------------------ */

static cab_status add_pattern(cab_data_paths *p, const char *pattern)
{
    glob_t matches = {0};
    cab_status status = CAB_OK;
    const int failed = glob(pattern, 0, NULL, &matches);
    if (failed == GLOB_NOMATCH)
        status = cab_fail(CAB_EIO, "%s: no such file, and no file that it would match", pattern);
    else if (failed != 0)
        status = cab_fail(failed == GLOB_NOSPACE ? CAB_ENOMEM : CAB_EIO, "%s: its matches cannot be listed", pattern);
    for (size_t i = 0; failed == 0 && i < matches.gl_pathc && status == CAB_OK; i++) {
        const char *path = matches.gl_pathv[i];
        status = cab_path_is_directory(path) ? add_folder(p, path) : append(p, path);
    }
    globfree(&matches);
    return status;
}

static bool is_pattern(const char *word)
{
    return !cab_path_exists(word) && strpbrk(word, "*?[") != NULL;
}

bool cab_data_paths_exist(const char *word)
{
    glob_t matches = {0};
    if (!is_pattern(word))
        return cab_path_exists(word);
    const bool matched = glob(word, GLOB_NOSORT, NULL, &matches) == 0;
    globfree(&matches);
    return matched;
}

cab_status cab_data_paths_add(cab_data_paths *p, const char *word)
{
    if (cab_path_is_directory(word))
        return add_folder(p, word);
    if (is_pattern(word))
        return add_pattern(p, word);
    return append(p, word);
}
