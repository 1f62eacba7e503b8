/* image_sources.c - folders and archives to items: a name, a class, and where the bytes are. */
#include "base/log.h"
#include "base/memory.h"
#include "data/image_set_internal.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { DEPTH_MAX = 16 };

/* Pictures of kinds that are not read. Left out silently, a part of a class would be missing. */
static bool is_other_picture(const char *name)
{
    static const char *const suffixes[] = {".gif",  ".bmp", ".webp", ".tif", ".tiff", ".avif",
                                           ".heic", ".jp2", ".jfif", ".ppm", ".pgm"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot != NULL && i < sizeof suffixes / sizeof *suffixes; i++)
        if (strcasecmp(dot, suffixes[i]) == 0)
            return true;
    return false;
}

/* What a file means that is not taken as an image. */
static cab_status pass_over(cab_image_set *set, const char *source, const char *name)
{
    if (is_other_picture(name))
        return cab_image_set_problem(set,
                                     cab_fail(CAB_EUNSUPPORTED, "%s/%s: expected .jpg, .jpeg or .png", source, name));
    set->others++;
    return CAB_OK;
}

/* What systems and tools leave beside pictures, a folder or a file: neither a class nor a picture. */
static bool is_litter(const char *name, size_t size)
{
    static const char *const names[] = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == size && strncasecmp(names[i], name, size) == 0)
            return true;
    return size > 0 && name[0] == '.'; /* hidden from people: .DS_Store, ._x.jpg, .ipynb_checkpoints */
}

/* Whether a part of a member's name is. */
static bool has_litter(const char *name)
{
    for (const char *part = name; *part != '\0'; part += strspn(part, "/")) {
        const size_t size = strcspn(part, "/");
        if (is_litter(part, size))
            return true;
        part += size;
    }
    return false;
}

/* ---- folders ---------------------------------------------------------------------------------------------------------- */

typedef enum kind { KIND_FILE, KIND_FOLDER, KIND_OTHER } kind;

static cab_status kind_of(const char *path, kind *out)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot read", path);
    *out = S_ISREG(info.st_mode) ? KIND_FILE : S_ISDIR(info.st_mode) ? KIND_FOLDER : KIND_OTHER;
    return CAB_OK;
}

typedef struct walk {
    cab_image_set *set;
    uint32_t source;
    const char *class; /* NULL in the root */
    int depth;
} walk;

static cab_status walk_folder(const walk *w, const char *name);

static cab_status walk_entry(const walk *w, const char *name)
{
    cab_image_set *set = w->set;
    const char *root = set->sources[w->source].path;
    char path[CAB_PATH_MAX];
    kind what = KIND_OTHER;
    CAB_TRY(cab_path_join(path, root, name));
    cab_status status = kind_of(path, &what);
    if (status != CAB_OK)
        return cab_image_set_problem(set, status);
    if (what == KIND_FOLDER) {
        walk below = {set, w->source, w->class, w->depth + 1};
        if (w->class == NULL) {
            CAB_TRY(cab_strings_add(&set->strings, name, strlen(name), &below.class));
            CAB_TRY(cab_image_set_add_folder_name(set, below.class));
        }
        return walk_folder(&below, name);
    }
    if (what != KIND_FILE || !cab_image_is_name(name))
        return pass_over(set, root, name);
    if (w->class == NULL)
        return cab_image_set_problem(set, cab_fail(CAB_EFORMAT, "%s: lies in no folder of a class", path));
    cab_image_item item = {.class = w->class, .source = w->source};
    CAB_TRY(cab_strings_add(&set->strings, name, strlen(name), &item.name));
    return cab_image_set_add(set, item);
}

/* The folder `name` below the source; "" is the source itself. */
static cab_status walk_folder(const walk *w, const char *name)
{
    cab_status status = CAB_OK;
    char path[CAB_PATH_MAX], child[CAB_PATH_MAX];
    const char *root = w->set->sources[w->source].path;
    if (*name == '\0')
        CAB_TRY(cab_path_join(path, root, "."));
    else
        CAB_TRY(cab_path_join(path, root, name));
    if (w->depth > DEPTH_MAX)
        return cab_image_set_problem(
            w->set, cab_fail(CAB_EFORMAT, "%s: more than %d folders deep; a link in a circle?", path, (int)DEPTH_MAX));
    DIR *listing = opendir(path);
    if (listing == NULL)
        return cab_image_set_problem(w->set, cab_fail_errno(CAB_EIO, errno, "%s: cannot list", path));
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(listing);
        if (entry == NULL) {
            if (errno != 0)
                status = cab_image_set_problem(w->set, cab_fail_errno(CAB_EIO, errno, "%s: cannot list", path));
            break;
        }
        if (is_litter(entry->d_name, strlen(entry->d_name)))
            continue;
        if (*name == '\0')
            CAB_GOTO(walk_entry(w, entry->d_name));
        else {
            CAB_GOTO(cab_path_join(child, name, entry->d_name));
            CAB_GOTO(walk_entry(w, child));
        }
    }
done:
    closedir(listing);
    return status;
}

/* ---- archives --------------------------------------------------------------------------------------------------------- */

bool cab_image_split_archive(const char *path, char archive[CAB_PATH_MAX], const char **inner)
{
    size_t size = strlen(path);
    for (size_t end = 1; end <= size && end < CAB_PATH_MAX; end++) {
        if (path[end] != '/' && path[end] != '\0')
            continue;
        memcpy(archive, path, end);
        archive[end] = '\0';
        if (cab_archive_is_name(archive) && !cab_path_is_directory(archive)) {
            while (path[end] == '/')
                end++;
            *inner = path + end;
            return true;
        }
    }
    return false;
}

/* What is left of a member's name below the folder `inner`; NULL: it is not in it, or litter. */
static const char *below(const char *name, const char *inner)
{
    size_t size = strlen(inner);
    while (size > 0 && inner[size - 1] == '/')
        size--;
    if (size > 0) {
        if (strncmp(name, inner, size) != 0 || name[size] != '/')
            return NULL;
        name += size + 1;
    }
    return has_litter(name) ? NULL : name;
}

static size_t folders_in(const char *name)
{
    size_t count = 0;
    for (; *name != '\0'; name++)
        count += *name == '/';
    return count;
}

/* Bytes that two names share as whole folders, the last '/' included. */
static size_t shared_folders(const char *a, const char *b, size_t limit)
{
    size_t shared = 0;
    for (size_t i = 0; i < limit && a[i] == b[i] && a[i] != '\0'; i++)
        if (a[i] == '/')
            shared = i + 1;
    return shared;
}

/* The folders in front of the classes: all that the images share, as long as each keeps one folder as its class. */
static size_t common_prefix(const cab_archive *archive, const char *inner, const char **prefix)
{
    size_t size = 0, least = SIZE_MAX;
    *prefix = NULL;
    for (size_t i = 0; i < cab_archive_count(archive); i++) {
        const cab_member *m = cab_archive_at(archive, i);
        const char *name = below(m->name, inner);
        if (name == NULL || m->directory || !cab_image_is_name(name) || folders_in(name) == 0)
            continue; /* one in no folder of a class says nothing */
        if (*prefix == NULL) {
            *prefix = name;
            size = (size_t)(strrchr(name, '/') - name) + 1;
        }
        size = shared_folders(*prefix, name, size);
        least = folders_in(name) < least ? folders_in(name) : least;
    }
    size_t folders = 0, kept = 0;
    for (size_t i = 0; i < size; i++)
        if ((*prefix)[i] == '/' && ++folders < least)
            kept = i + 1;
    return kept;
}

/* One member; *class is the class of the one before, and becomes this one's. */
static cab_status add_member(cab_image_set *set, uint32_t source, const cab_member *m, const char *name,
                             const char **class)
{
    const char *path = set->sources[source].path;
    size_t size = strcspn(name, "/");
    bool in_folder = name[size] == '/';
    if (!m->directory && !cab_image_is_name(name))
        return pass_over(set, path, m->name);
    if (!m->directory && !in_folder)
        return cab_image_set_problem(set, cab_fail(CAB_EFORMAT, "%s/%s: lies in no folder of a class", path, m->name));
    if (size == 0 || name[0] == '.')
        return CAB_OK;
    if (*class == NULL || strncmp(*class, name, size) != 0 || (*class)[size] != '\0')
        CAB_TRY(cab_strings_add(&set->strings, name, size, class));
    if (m->directory)
        return in_folder ? CAB_OK : cab_image_set_add_folder_name(set, *class);
    if (m->size == 0)
        return cab_image_set_problem(
            set, cab_fail(CAB_EFORMAT, "%s/%s: is empty; expected a JPEG or PNG image", path, m->name));
    return cab_image_set_add(set, (cab_image_item){m->name, *class, m->data, m->size, source, -1});
}

static cab_status add_archive(cab_image_set *set, const char *path, const char *inner)
{
    uint32_t source = 0;
    const char *prefix = NULL, *class = NULL;
    CAB_TRY(cab_image_set_source(set, path, true, &source));
    const cab_archive *archive = set->sources[source].archive;
    if (archive == NULL) /* damaged from the start, and skipped */
        return CAB_OK;
    size_t prefix_size = common_prefix(archive, inner, &prefix);
    for (size_t i = 0; i < cab_archive_count(archive); i++) {
        const cab_member *m = cab_archive_at(archive, i);
        const char *name = below(m->name, inner);
        if (name == NULL)
            continue;
        if (prefix_size > 0 && strncmp(name, prefix, prefix_size) == 0)
            name += prefix_size;
        else if (prefix_size > 0 && (m->directory || cab_image_is_name(name) == false))
            continue; /* the shared folders themselves, and what lies beside them */
        CAB_TRY(add_member(set, source, m, name, &class));
    }
    return CAB_OK;
}

/* ---- any path --------------------------------------------------------------------------------------------------------- */

static bool is_list(const char *path)
{
    size_t size = strlen(path);
    return size > 4 && strcasecmp(path + size - 4, ".csv") == 0;
}

cab_status cab_image_set_add_path(cab_image_set *set, const char *path)
{
    char archive[CAB_PATH_MAX];
    const char *inner = NULL;
    if (is_list(path))
        return cab_image_set_add_list(set, path);
    set->only_lists = false;
    if (cab_path_is_directory(path)) {
        walk root = {.set = set};
        CAB_TRY(cab_image_set_source(set, path, false, &root.source));
        return walk_folder(&root, "");
    }
    if (cab_image_split_archive(path, archive, &inner))
        return add_archive(set, archive, inner);
    if (!cab_path_exists(path))
        return cab_fail(CAB_EIO, "%s: no such file or folder", path);
    return cab_fail(CAB_EUNSUPPORTED, "%s: expected a folder of classes, an archive of one, or a .csv list", path);
}
