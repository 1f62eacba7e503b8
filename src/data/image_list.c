/* image_list.c - lists of images as comma-separated values (RFC 4180): path,class.
 *
 * A field may stand in double quotes, and a quote in it is written twice. Lists written here can be read here. */
#include "base/memory.h"
#include "data/csv.h"
#include "data/image_set_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const size_t LIST_BYTES_MAX = (size_t)4 << 30;
enum { FIELDS = 2 };

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

typedef struct list {
    cab_image_set *set;
    const char *path;
    char folder[CAB_PATH_MAX]; /* that relative paths start from */
    size_t line;
    const char *class;          /* of the line before */
    char archive[CAB_PATH_MAX]; /* of the line before, and its source */
    uint32_t archive_source, folder_source;
} list;

static cab_status add_from_archive(list *l, const char *full, const char *archive, const char *inner,
                                   cab_image_item item)
{
    if (strcmp(archive, l->archive) != 0) {
        CAB_TRY(cab_image_set_source(l->set, archive, true, &l->archive_source));
        memcpy(l->archive, archive, strlen(archive) + 1);
    }
    const cab_archive *opened = l->set->sources[l->archive_source].archive;
    const cab_member *m = opened == NULL ? NULL : cab_archive_find(opened, inner);
    if (m == NULL || m->data == NULL)
        return cab_image_set_problem(l->set,
                                     cab_fail(CAB_EFORMAT, "%s:%zu: %s: %s", l->path, l->line, full,
                                              m == NULL                    ? "the archive has no such file"
                                              : cab_image_is_name(m->name) ? "is empty; expected a JPEG or PNG image"
                                                                           : "expected .jpg, .jpeg or .png"));
    item.name = m->name;
    item.data = m->data;
    item.size = m->size;
    item.source = l->archive_source;
    return cab_image_set_add(l->set, item);
}

static cab_status add_line(list *l, const char *path, const char *class)
{
    char full[CAB_PATH_MAX], archive[CAB_PATH_MAX];
    const char *inner = NULL;
    if (l->class == NULL || strcmp(class, l->class) != 0)
        CAB_TRY(cab_strings_add(&l->set->strings, class, strlen(class), &l->class));
    cab_image_item item = {.class = l->class};
    if (*path == '/' && strlen(path) < sizeof full)
        memcpy(full, path, strlen(path) + 1);
    else
        CAB_TRY(cab_path_join(full, l->folder, path));
    if (cab_image_split_archive(full, archive, &inner))
        return add_from_archive(l, full, archive, inner, item);
    if (!cab_path_exists(full))
        return cab_image_set_problem(l->set, cab_fail(CAB_EIO, "%s:%zu: %s: no such file", l->path, l->line, full));
    CAB_TRY(cab_strings_add(&l->set->strings, path, strlen(path), &item.name));
    item.source = l->folder_source;
    return cab_image_set_add(l->set, item);
}

static bool is_heading(const char *field)
{
    static const char *const words[] = {"path", "image", "file", "filename", "name", "image_path", "file_name"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(field, words[i]) == 0)
            return true;
    return false;
}

static cab_status read_line(list *l, char *line)
{
    char *fields[FIELDS] = {0};
    int count = 0;
    char *end = line + strlen(line);
    for (size_t size = 0; line != NULL && count < FIELDS; count++) {
        if (!cab_csv_field(&line, end, ',', &fields[count], &size))
            return cab_fail(CAB_EFORMAT, "%s:%zu: a double quote without its end", l->path, l->line);
        fields[count][size] = '\0';
    }
    if (count < FIELDS || line != NULL)
        return cab_fail(CAB_EFORMAT, "%s:%zu: %s than two fields; expected path,class", l->path, l->line,
                        line != NULL ? "more" : "fewer");
    if (l->line == 1 && is_heading(fields[0]))
        return CAB_OK;
    if (*fields[0] == '\0' || *fields[1] == '\0')
        return cab_fail(CAB_EFORMAT, "%s:%zu: the %s is empty; expected path,class", l->path, l->line,
                        *fields[0] == '\0' ? "path" : "class");
    return add_line(l, fields[0], fields[1]);
}

cab_status cab_image_set_add_list(cab_image_set *set, const char *path)
{
    cab_status status = CAB_OK;
    char *text = NULL;
    size_t size = 0;
    list l = {.set = set, .path = path};
    size_t folder = (size_t)(cab_path_name(path) - path);
    if (folder >= sizeof l.folder)
        return cab_fail(CAB_EARG, "%.64s...: path is longer than %d bytes", path, CAB_PATH_MAX);
    memcpy(l.folder, folder == 0 ? "." : path, folder == 0 ? 1 : folder);
    CAB_TRY(cab_file_read_text(path, LIST_BYTES_MAX, &text, &size));
    if (strlen(text) != size)
        CAB_GOTO(cab_fail(CAB_EFORMAT, "%s: is no text: byte %zu is 0", path, strlen(text)));
    CAB_GOTO(cab_image_set_source(set, l.folder, false, &l.folder_source));
    for (char *next = text; next != NULL;) {
        char *line = next;
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        line[strcspn(line, "\r")] = '\0';
        l.line++;
        if (*line != '\0')
            CAB_GOTO(read_line(&l, line));
    }
done:
    cab_free(text);
    return status;
}

/* ---- writing ---------------------------------------------------------------------------------------------------------- */

static void write_field(FILE *stream, const char *field)
{
    if (strpbrk(field, ",\"\r\n") == NULL) {
        fputs(field, stream);
        return;
    }
    fputc('"', stream);
    for (; *field != '\0'; field++) {
        if (*field == '"')
            fputc('"', stream);
        fputc(*field, stream);
    }
    fputc('"', stream);
}

/* The absolute path of each source, with '/' at its end. Freed by free_roots(). */
static cab_status find_roots(const cab_image_set *set, char **roots)
{
    for (size_t i = 0; i < set->sources_count; i++) {
        char *real = realpath(set->sources[i].path, NULL);
        if (real == NULL)
            return cab_fail(CAB_EIO, "%s: is no longer there", set->sources[i].path);
        cab_status status = CAB_NEW(&roots[i], strlen(real) + 2, "a path");
        if (status == CAB_OK)
            sprintf(roots[i], "%s%s", real, strcmp(real, "/") == 0 ? "" : "/");
        free(real);
        CAB_TRY(status);
    }
    return CAB_OK;
}

static cab_status write_items(const cab_image_set *set, char **roots, const char *folder, FILE *stream)
{
    const size_t size = strlen(folder);
    fputs("path,class\n", stream);
    for (size_t i = 0; i < set->count; i++) {
        const cab_image_item *item = &set->items[i];
        const char *root = *item->name == '/' ? "" : roots[item->source];
        const char *class = set->classes.names[item->label];
        char full[CAB_PATH_MAX];
        int length = snprintf(full, sizeof full, "%s%s", root, item->name);
        if (length < 0 || (size_t)length >= sizeof full)
            return cab_fail(CAB_EARG, "%.64s...: path is longer than %d bytes", full, CAB_PATH_MAX);
        if (strpbrk(full, "\r\n") != NULL || strpbrk(class, "\r\n") != NULL)
            return cab_fail(CAB_EUNSUPPORTED, "%s: a line break in a name cannot stand in a list", full);
        write_field(stream, strncmp(full, folder, size) == 0 ? full + size : full);
        fputc(',', stream);
        write_field(stream, class);
        fputc('\n', stream);
    }
    return CAB_OK;
}

cab_status cab_image_set_write_list(const cab_image_set *set, const char *path)
{
    cab_status status = CAB_OK;
    char **roots = NULL, *real = NULL;
    char folder[CAB_PATH_MAX];
    cab_writer writer = {0};
    size_t size = (size_t)(cab_path_name(path) - path);
    if (size + 2 >= sizeof folder)
        return cab_fail(CAB_EARG, "%.64s...: path is longer than %d bytes", path, CAB_PATH_MAX);
    memcpy(folder, path, size);
    memcpy(folder + size, ".", 2);
    CAB_TRY(CAB_NEW(&roots, set->sources_count, "paths"));
    CAB_GOTO(find_roots(set, roots));
    real = realpath(folder, NULL);
    if (real == NULL || strlen(real) + 2 > sizeof folder)
        CAB_GOTO(cab_fail(CAB_EIO, "%s: there is no such folder to write to", folder));
    snprintf(folder, sizeof folder, "%s%s", real, strcmp(real, "/") == 0 ? "" : "/");
    CAB_GOTO(cab_writer_open(&writer, path));
    CAB_GOTO(write_items(set, roots, folder, writer.stream));
    CAB_GOTO(cab_writer_commit(&writer));
done:
    if (status != CAB_OK && writer.stream != NULL)
        cab_writer_abort(&writer);
    for (size_t i = 0; roots != NULL && i < set->sources_count; i++)
        cab_free(roots[i]);
    cab_free(roots);
    free(real);
    return status;
}
