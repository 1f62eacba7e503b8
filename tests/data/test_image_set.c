/* test_image_set.c - sets out of folders, archives and lists are the same set; subsets, class maps, caches; and everything
 * that can be wrong with them: named and refused, or counted and skipped without a label changing. */
#include "base/log.h"
#include "base/memory.h"
#include "data/image_archive.h"
#include "data/image_set.h"
#include "data/scratch.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>

#define CORPUS "tests/corpora/images/"
#define TINY "../shared/data/tiny-imagenet"

/* ---- data ------------------------------------------------------------------------------------------------------------- */

/* Pictures, distinct by their orientation, under three classes. */
static const struct {
    const char *name, *file;
} tree[] = {{"train/cat/a.png", "turned1.png"},
            {"train/cat/b.PNG", "turned2.png"},
            {"train/ant/x.jpeg", "turned3.jpg"},
            {"train/ant/deep/y.jpg", "turned4.jpg"},
            {"train/bee/only.png", "turned5.png"}};
enum { TREE = sizeof tree / sizeof *tree };
/* By class name, then by name. */
static const char *const order[TREE] = {"train/ant/deep/y.jpg", "train/ant/x.jpeg", "train/bee/only.png",
                                        "train/cat/a.png", "train/cat/b.PNG"};
static const int32_t labels[TREE] = {0, 0, 1, 2, 2};

static void read_corpus(const char *file, cab_map *map)
{
    char path[CAB_PATH_MAX];
    assert_ok(cab_path_join(path, CORPUS, file));
    assert_ok(cab_map_open(path, map));
}

/* Copies a picture of the corpus to `name` below the scratch directory. */
static void put(void **state, const char *name, const char *file)
{
    char path[CAB_PATH_MAX], folder[CAB_PATH_MAX];
    const scratch *s = *state;
    cab_map map;
    assert_ok(cab_path_join(path, s->directory, name));
    snprintf(folder, sizeof folder, "%.*s", (int)(cab_path_name(path) - path), path);
    assert_ok(cab_directory_make(folder));
    read_corpus(file, &map);
    assert_ok(cab_file_write(path, map.data, map.size));
    cab_map_close(&map);
}

static const char *make_folder(void **state)
{
    for (int i = 0; i < TREE; i++)
        put(state, tree[i].name, tree[i].file);
    return scratch_path(state, "train");
}

static void add_entry(struct archive *a, const char *name, const void *data, size_t size)
{
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, data == NULL ? AE_IFDIR : AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, (la_int64_t)size);
    assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
    if (size > 0)
        assert_int_equal(archive_write_data(a, data, size), (la_ssize_t)size);
    archive_entry_free(entry);
}

/* Writes the tree, in its own order, and more; the format and filter follow from the name. */
static const char *make_archive(void **state, const char *name, const char *extra)
{
    const char *path = scratch_path(state, name);
    struct archive *a = archive_write_new();
    if (strstr(name, ".zip") != NULL) {
        archive_write_set_format_zip(a);
        if (strstr(name, "stored") != NULL)
            archive_write_zip_set_compression_store(a);
    } else {
        archive_write_set_format_pax_restricted(a);
        if (strstr(name, ".xz") != NULL)
            archive_write_add_filter_xz(a);
        else if (strstr(name, ".gz") != NULL)
            archive_write_add_filter_gzip(a);
        else if (strstr(name, ".zst") != NULL)
            archive_write_add_filter_zstd(a);
    }
    assert_int_equal(archive_write_open_filename(a, path), ARCHIVE_OK);
    add_entry(a, "./train/", NULL, 0);
    for (int i = 0; i < TREE; i++) {
        cab_map map;
        read_corpus(tree[i].file, &map);
        add_entry(a, tree[i].name, map.data, map.size);
        cab_map_close(&map);
    }
    if (extra != NULL)
        add_entry(a, extra, extra[strlen(extra) - 1] == '/' ? NULL : "", 0);
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
    return path;
}

static cab_status open_set(const char *path, const cab_image_set_options *options, cab_image_set **set)
{
    const cab_image_set_options none = {0};
    return cab_image_set_open(&path, 1, options == NULL ? &none : options, set);
}

/* The hash of all pixels, in order. */
static uint64_t pixels_of(cab_image_set *set)
{
    uint64_t hash = CAB_HASH_START;
    cab_image image = {0};
    for (uint64_t i = 0; i < cab_image_set_count(set); i++) {
        assert_ok(cab_image_set_load(set, i, &image));
        hash = cab_hash(hash, image.pixels, (size_t)image.width * (size_t)image.height * 3);
    }
    cab_image_free(&image);
    return hash;
}

/* The set is the tree. */
static void check_tree(cab_image_set *set)
{
    const cab_classes *classes = cab_image_set_classes(set);
    char name[CAB_PATH_MAX];
    assert_int_equal(cab_image_set_count(set), TREE);
    assert_int_equal(classes->count, 3);
    assert_string_equal(classes->names[0], "ant");
    assert_string_equal(classes->names[2], "cat");
    for (int i = 0; i < TREE; i++) {
        cab_image_set_name(set, (uint64_t)i, name);
        const char *end = order[i] + strlen("train/"); /* what every kind of source has */
        assert_true(strlen(name) >= strlen(end));
        assert_string_equal(name + strlen(name) - strlen(end), end);
        assert_int_equal(cab_image_set_label(set, (uint64_t)i), labels[i]);
    }
    assert_int_equal(cab_image_set_class_begin(set, 1), 2);
    assert_int_equal(cab_image_set_class_begin(set, 3), TREE);
}

/* ---- sources ---------------------------------------------------------------------------------------------------------- */

static void test_sources(void **state)
{
    static const char *const archives[] = {"a.tar", "a.tar.gz", "a.tar.xz", "a.tar.zst", "a.zip", "stored.zip"};
    cab_image_set *set = NULL;
    const char *list = scratch_path(state, "list.csv");
    assert_ok(open_set(make_folder(state), NULL, &set));
    check_tree(set);
    const uint64_t expected = pixels_of(set);
    assert_ok(cab_image_set_write_list(set, list));
    cab_image_set_free(set);
    assert_ok(open_set(list, NULL, &set));
    check_tree(set);
    assert_true(pixels_of(set) == expected);
    cab_image_set_free(set);
    for (size_t i = 0; i < sizeof archives / sizeof *archives; i++) {
        const char *path = make_archive(state, archives[i], NULL);
        char inner[CAB_PATH_MAX];
        assert_ok(open_set(path, NULL, &set));
        check_tree(set);
        assert_true(pixels_of(set) == expected);
        assert_ok(cab_image_set_write_list(set, list)); /* a list that leads into the archive */
        cab_image_set_free(set);
        assert_ok(open_set(list, NULL, &set));
        check_tree(set);
        assert_true(pixels_of(set) == expected);
        cab_image_set_free(set);
        assert_ok(cab_path_join(inner, path, "train/"));
        assert_ok(open_set(inner, NULL, &set));
        check_tree(set);
        cab_image_set_free(set);
    }
}

/* Members of a plain tar and stored ones of a zip are not copied. */
static void test_in_place(void **state)
{
    static const struct {
        const char *name;
        bool in_place;
    } cases[] = {{"a.tar", true}, {"stored.zip", true}, {"a.tar.xz", false}};
    for (size_t i = 0; i < 3; i++) {
        cab_map map;
        cab_archive *archive = NULL;
        assert_ok(cab_map_open(make_archive(state, cases[i].name, NULL), &map));
        assert_ok(
            cab_archive_parse(map.data, map.size, cases[i].name, &(cab_expand_limits){.total = 1 << 20}, &archive));
        const cab_member *m = cab_archive_find(archive, "train/cat/a.png");
        assert_non_null(m);
        bool inside = (uintptr_t)m->data >= (uintptr_t)map.data && (uintptr_t)m->data < (uintptr_t)map.data + map.size;
        assert_int_equal(inside, cases[i].in_place);
        cab_archive_close(archive);
        cab_map_close(&map);
    }
}

static void test_expanded_limit(void **state)
{
    cab_map map;
    cab_archive *archive = NULL;
    assert_ok(cab_map_open(make_archive(state, "a.tar.xz", NULL), &map));
    check_error(cab_archive_parse(map.data, map.size, "a.tar.xz", &(cab_expand_limits){.total = 1000}, &archive),
                CAB_EFORMAT, "a.tar.xz", "max_expanded");
    assert_null(archive);
    cab_map_close(&map);
}

/* A flipped bit in a checksum behind the last member: libarchive would stop before it. What was read is kept for `skip`. */
static void test_damaged_checksums(void **state)
{
    static const struct {
        const char *name;
        size_t from_end;
    } cases[] = {{"g.tar.gz", 8}, {"g.tar.xz", 40}};
    for (size_t i = 0; i < 2; i++) {
        char *data = NULL;
        size_t size = 0;
        cab_archive *archive = NULL;
        const cab_expand_limits limits = {0};
        assert_ok(cab_file_read(make_archive(state, cases[i].name, NULL), 1 << 24, &data, &size));
        assert_ok(cab_archive_parse(data, size, cases[i].name, &limits, &archive));
        const size_t count = cab_archive_count(archive);
        cab_archive_close(archive);
        data[size - cases[i].from_end] ^= 1;
        check_error(cab_archive_parse(data, size, cases[i].name, &limits, &archive), CAB_EFORMAT, cases[i].name,
                    "damaged");
        if (i == 0) /* gzip's checksum stands behind the tar; xz gives nothing of a bad block */
            assert_int_equal(cab_archive_count(archive), count);
        cab_archive_close(archive);
        cab_free(data);
    }
}

/* 80 MiB of zeros under the name of an image, in 80 kB of zip: its header alone says that it is too much. */
static void test_expanding_member(void **state)
{
    enum { MEBIBYTES = 80 };
    static char zeros[1 << 20];
    const char *path = scratch_path(state, "bomb.zip");
    struct archive *a = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    cab_archive *archive = NULL;
    assert_int_equal(archive_write_set_format_zip(a), ARCHIVE_OK);
    assert_int_equal(archive_write_open_filename(a, path), ARCHIVE_OK);
    archive_entry_set_pathname(entry, "cat/a.png");
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_size(entry, (la_int64_t)sizeof zeros * MEBIBYTES);
    assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
    for (int i = 0; i < MEBIBYTES; i++)
        assert_int_equal(archive_write_data(a, zeros, sizeof zeros), sizeof zeros);
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_entry_free(entry);
    archive_write_free(a);
    const double before = cab_peak_memory();
    check_error(cab_archive_open(path, &(cab_expand_limits){0}, &archive), CAB_EFORMAT, path,
                "expands to more than 64 MiB");
    assert_true(cab_peak_memory() - before < 16e6);
    assert_null(archive);
    check_error(cab_archive_open(path, &(cab_expand_limits){.member = 1 << 20}, &archive), CAB_EFORMAT, path,
                "max_member");
    assert_ok(cab_archive_open(path, &(cab_expand_limits){.total = 100 << 20}, &archive));
    assert_int_equal(cab_archive_at(archive, 0)->size, (size_t)MEBIBYTES << 20);
    cab_archive_close(archive);
}

/* Pictures in a list that are no files: refused at once, by name. */
static void test_lists_of_no_files(void **state)
{
    const char *list = scratch_text(state, "l.csv", "x.jpg,cat\n");
    cab_image image = {0};
    cab_image_set *set = NULL;
    assert_int_equal(mkfifo(scratch_path(state, "x.jpg"), 0600), 0);
    assert_ok(open_set(list, NULL, &set));
    check_error(cab_image_set_load(set, 0, &image), CAB_EIO, "x.jpg", "is a device, pipe or socket");
    cab_image_set_free(set);
    assert_ok(open_set(scratch_text(state, "z.csv", "\xEF\xBB\xBFpath,class\r\n/dev/zero,cat\r\n"), NULL, &set));
    assert_int_equal(cab_image_set_count(set), 1);
    check_error(cab_image_set_load(set, 0, &image), CAB_EIO, "/dev/zero", "is a device, pipe or socket");
    cab_image_set_free(set);
}

/* Names in UTF-8 are read whatever the locale: tests run in "C". */
static void test_utf8_names(void **state)
{
    static const char *const paths[] = {CORPUS "utf8-names.tar", CORPUS "utf8-names.zip"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        cab_image_set *set = NULL;
        char name[CAB_PATH_MAX];
        assert_ok(open_set(paths[i], NULL, &set));
        assert_string_equal(cab_image_set_classes(set)->names[0], "caf\xC3\xA9");
        cab_image_set_name(set, 0, name);
        assert_non_null(strstr(name, "/train/caf\xC3\xA9/na\xC3\xAFve.png"));
        cab_image_set_free(set);
    }
}

static void test_several_paths(void **state)
{
    put(state, "one/cat/1.png", "turned1.png");
    put(state, "two/dog/2.png", "turned2.png");
    put(state, "two/cat/3.png", "turned3.png");
    const char *paths[] = {scratch_path(state, "one"), scratch_path(state, "two")};
    cab_image_set *set = NULL;
    const cab_image_set_options options = {0};
    assert_ok(cab_image_set_open(paths, 2, &options, &set));
    assert_int_equal(cab_image_set_count(set), 3);
    assert_int_equal(cab_image_set_class_begin(set, 1), 2);
    cab_image_set_free(set);
}

/* ---- lists ------------------------------------------------------------------------------------------------------------ */

static void test_lists(void **state)
{
    cab_image_set *set = NULL;
    make_folder(state);
    const char *list = scratch_text(state, "l.csv",
                                    "path,class\r\n\"train/cat/a.png\",\"say \"\"cat\"\", please\"\r\n\r\n"
                                    "train/bee/only.png,bee\n");
    assert_ok(open_set(list, NULL, &set));
    assert_string_equal(cab_image_set_classes(set)->names[1], "say \"cat\", please");
    const char *again = scratch_path(state, "again.csv");
    assert_ok(cab_image_set_write_list(set, again));
    cab_image_set_free(set);
    assert_ok(open_set(again, NULL, &set));
    assert_string_equal(cab_image_set_classes(set)->names[1], "say \"cat\", please");
    cab_image_set_free(set);
    /* numbers are labels, not names: 10 does not come before 2 */
    const cab_image_set_options skip = {.on_error = CAB_ON_ERROR_SKIP};
    list = scratch_text(state, "n.csv", "train/cat/a.png,10\ntrain/bee/only.png,2\n");
    check_error(open_set(list, NULL, &set), CAB_EFORMAT, "", "the class \"0\" has no image");
    assert_ok(open_set(list, &skip, &set));
    assert_int_equal(cab_image_set_classes(set)->count, 11);
    assert_int_equal(cab_image_set_label(set, 0), 2);
    assert_int_equal(cab_image_set_label(set, 1), 10);
    cab_image_set_free(set);
    static const struct {
        const char *text, *words;
        cab_status status;
    } wrong[] = {{"train/cat/a.png\n", ":1: fewer than two fields", CAB_EFORMAT},
                 {"a,b,c\n", ":1: more than two fields", CAB_EFORMAT},
                 {"x,y\n\"a,b\n", "no such file", CAB_EIO},
                 {"\"a,b\n", ":1: a double quote without its end", CAB_EFORMAT},
                 {"path,class\n,b\n", ":2: the path is empty", CAB_EFORMAT},
                 {"train/none.png,b\n", "no such file", CAB_EIO},
                 {"path,class\n", "no image found", CAB_EFORMAT}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check_error(open_set(scratch_text(state, "w.csv", wrong[i].text), NULL, &set), wrong[i].status, "",
                    wrong[i].words);
}

/* ---- class maps -------------------------------------------------------------------------------------------------------- */

static void test_class_map(void **state)
{
    cab_classes map = {0};
    cab_image_set *set = NULL;
    const char *path =
        scratch_text(state, "classes.tsv",
                     "label\tname\tteacher\twords\r\n1\tant\t310\tant, emmet\n0\tcat\t281\n2\tbee\t309\tbee\n");
    assert_ok(cab_classes_load(path, &map));
    assert_string_equal(map.names[0], "cat");
    assert_string_equal(map.words[1], "ant, emmet");
    assert_null(map.words[0]);
    assert_int_equal(map.teacher[2], 309);
    assert_ok(cab_classes_check_teacher(&map, 311));
    check_error(cab_classes_check_teacher(&map, 310), CAB_EFORMAT, "\"ant\"", "310; expected 0 to 309");
    const cab_image_set_options options = {.classes = &map};
    assert_ok(open_set(make_folder(state), &options, &set));
    assert_int_equal(cab_image_set_label(set, 0), 0);
    assert_string_equal(cab_image_set_classes(set)->names[0], "cat");
    assert_int_equal(cab_image_set_classes(set)->teacher[1], 310);
    assert_int_equal(cab_image_set_class_begin(set, 1), 2); /* cats first */
    cab_image_set_free(set);
    cab_classes_free(&map);
    static const char *const wrong[][2] = {{"0\ta\n", "2 fields"},
                                           {"0\ta\t1\n0\tb\t2\n", "label 0 stands there twice"},
                                           {"0\ta\t1\n2\tb\t2\n", "label \"2\"; expected 0 to 1"},
                                           {"0\ta\t1\n1\ta\t2\n", "\"a\" stands there twice"},
                                           {"0\ta\tx\n", "teacher's class \"x\""},
                                           {"", "expected a text"},
                                           {"0\t\t1\n", "the name of the class is empty"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        path = scratch_text(state, "wrong.tsv", wrong[i][0]);
        check_error(cab_classes_load(path, &map), CAB_EFORMAT, "wrong.tsv", wrong[i][1]);
        assert_int_equal(map.count, 0);
    }
}

/* A validation set without a class of the training set, or with one more, must not shift the others. */
static void test_no_shift(void **state)
{
    cab_image_set *train = NULL, *val = NULL;
    assert_ok(open_set(make_folder(state), NULL, &train));
    put(state, "val/cat/1.png", "turned1.png");
    put(state, "val/zebra/2.png", "turned2.png");
    const char *path = scratch_path(state, "val");
    cab_image_set_options options = {.classes = cab_image_set_classes(train)};
    check_error(open_set(path, &options, &val), CAB_EFORMAT, "zebra/2.png", "\"zebra\" is not among the 3 given");
    options.on_error = CAB_ON_ERROR_SKIP;
    assert_ok(open_set(path, &options, &val));
    assert_int_equal(cab_image_set_count(val), 1);
    assert_int_equal(cab_image_set_label(val, 0), 2);
    assert_int_equal(cab_image_set_skipped(val), 3); /* the zebra; no ant, no bee */
    cab_image_set_free(val);
    cab_image_set_free(train);
}

/* ---- what is wrong with folders and archives ---------------------------------------------------------------------------- */

/* What systems leave beside pictures is no class and no picture, in a folder and in an archive. */
static void test_litter(void **state)
{
    static const char *const folders[] = {"__MACOSX", "@eaDir", ".ipynb_checkpoints", "$RECYCLE.BIN"};
    static const char *const files[] = {"Thumbs.db", ".DS_Store", "desktop.ini", "._1.png"};
    cab_image_set *set = NULL;
    char name[64];
    const char *path = make_folder(state);
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(name, sizeof name, "train/%s", folders[i]);
        assert_ok(cab_directory_make(scratch_path(state, name)));
        snprintf(name, sizeof name, "train/%s/x.png", folders[i]);
        scratch_text(state, name, "no picture");
    }
    assert_ok(cab_directory_make(scratch_path(state, "train/wasp")));
    put(state, "train/wasp/1.png", "turned1.png");
    assert_ok(cab_directory_make(scratch_path(state, "train/wasp/@eaDir")));
    scratch_text(state, "train/wasp/@eaDir/1.png", "a thumbnail of a kind of its own");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(name, sizeof name, "train/wasp/%s", files[i]);
        scratch_text(state, name, "x");
    }
    assert_ok(open_set(path, NULL, &set));
    assert_int_equal(cab_image_set_classes(set)->count, 4);
    assert_int_equal(cab_image_set_count(set), TREE + 1);
    assert_int_equal(cab_image_set_skipped(set), 0);
    cab_image_set_free(set);
}

static void test_bad_folders(void **state)
{
    cab_image_set *set = NULL;
    const cab_image_set_options skip = {.on_error = CAB_ON_ERROR_SKIP};
    const char *path = make_folder(state);
    const scratch *s = *state;
    check_error(open_set(s->directory, NULL, &set), CAB_EFORMAT, s->directory, "parts of a data set, not classes");
    assert_ok(cab_directory_make(scratch_path(state, "train/wasp")));
    check_error(open_set(path, NULL, &set), CAB_EFORMAT, path, "the class \"wasp\" has no image");
    assert_ok(open_set(path, &skip, &set));
    assert_int_equal(cab_image_set_classes(set)->count, 4); /* it keeps its label */
    assert_int_equal(cab_image_set_skipped(set), 1);
    cab_image_set_free(set);
    put(state, "train/wasp/1.png", "turned1.png");
    put(state, "train/stray.png", "turned1.png");
    check_error(open_set(path, NULL, &set), CAB_EFORMAT, "stray.png", "lies in no folder of a class");
    assert_int_equal(unlink(scratch_path(state, "train/stray.png")), 0);
    put(state, "train/wasp/2.gif", "gif.jpg");
    check_error(open_set(path, NULL, &set), CAB_EUNSUPPORTED, "2.gif", "expected .jpg, .jpeg or .png");
    assert_ok(open_set(path, &skip, &set));
    assert_int_equal(cab_image_set_skipped(set), 1);
    cab_image_set_free(set);
    assert_int_equal(unlink(scratch_path(state, "train/wasp/2.gif")), 0);
    scratch_text(state, "train/wasp/notes.txt", "no image, and nobody minds");
    scratch_text(state, "train/wasp/.hidden.png", "");
    cab_log_quiet(true);
    assert_ok(open_set(path, NULL, &set));
    cab_log_quiet(false);
    assert_int_equal(cab_image_set_count(set), TREE + 1);
    cab_image_set_free(set);
    assert_ok(cab_directory_make(scratch_path(state, "nothing")));
    check_error(open_set(scratch_path(state, "nothing"), NULL, &set), CAB_EFORMAT, "nothing", "no image found");
    check_error(open_set("/nowhere/at/all", NULL, &set), CAB_EIO, "/nowhere/at/all", "no such file");
    check_error(open_set(CORPUS "base.png", NULL, &set), CAB_EUNSUPPORTED, "base.png", "expected a folder of classes");
    assert_int_equal(symlink(path, scratch_path(state, "train/wasp/loop")), 0);
    check_error(open_set(path, NULL, &set), CAB_EFORMAT, "loop", "a link in a circle?");
}

/* Cut anywhere, an archive is never taken for whole. */
static void test_cut_archives(void **state)
{
    static const char *const names[] = {"c.tar", "c.tar.xz", "c.zip"};
    for (size_t n = 0; n < 3; n++) {
        cab_map map;
        assert_ok(cab_map_open(make_archive(state, names[n], NULL), &map));
        size_t end = map.size; /* of what cannot be missed: a tar ends with zeros */
        while (n == 0 && end > 0 && map.data[end - 1] == 0)
            end--;
        for (size_t size = 0; size < end; size += size % 512 == 0 ? 41 : 512 - size % 512) {
            cab_archive *archive = NULL;
            cab_status status =
                cab_archive_parse(map.data, size, "cut", &(cab_expand_limits){.total = 1 << 20}, &archive);
            if (status != CAB_EFORMAT || strstr(cab_error_text(), "cut") == NULL)
                fail_msg("%s: %zu of %zu bytes: status %d, %s", names[n], size, map.size, (int)status,
                         cab_error_text());
            cab_archive_close(archive);
        }
        cab_map_close(&map);
    }
}

static void test_bad_archives(void **state)
{
    cab_image_set *set = NULL, *whole = NULL;
    cab_image_set_options options = {.on_error = CAB_ON_ERROR_SKIP};
    cab_map map;
    assert_ok(open_set(make_archive(state, "whole.tar", NULL), NULL, &whole));
    assert_ok(cab_map_open(scratch_path(state, "whole.tar"), &map));
    const char *cut = scratch_data(state, "cut.tar", map.data, 3000);
    cab_map_close(&map);
    check_error(open_set(cut, NULL, &set), CAB_EFORMAT, "cut.tar", "cut short after");
    check_error(open_set(cut, &options, &set), CAB_EFORMAT, "cut.tar", "only where the classes are given");
    options.classes = cab_image_set_classes(whole);
    assert_ok(open_set(cut, &options, &set));
    assert_true(cab_image_set_count(set) > 0 && cab_image_set_count(set) < TREE);
    assert_int_equal(cab_image_set_label(set, 0), 2); /* a cat is a cat */
    cab_image_set_free(set);
    cab_image_set_free(whole);
    check_error(open_set(make_archive(state, "e.zip", "train/ant/empty.png"), NULL, &set), CAB_EFORMAT, "empty.png",
                "is empty");
    check_error(open_set(make_archive(state, "d.tar", "train/moth/"), NULL, &set), CAB_EFORMAT, "d.tar",
                "\"moth\" has no image");
    check_error(open_set(scratch_text(state, "text.zip", "no archive"), NULL, &set), CAB_EFORMAT, "text.zip",
                "damaged");
    check_error(open_set(scratch_text(state, "empty.tar", ""), NULL, &set), CAB_EFORMAT, "empty.tar", "is empty");
}

/* Undecodable images: found by a check, by loading, by building a cache; once each. */
static void test_bad_images(void **state)
{
    static const char *const bad[] = {"cut.jpg", "empty.jpg", "text.jpg", "bomb.png", "damaged.png"};
    enum { BAD = 5, GOOD = 2 };
    cab_image_set *set = NULL;
    cab_image image = {0}, expected = {0};
    cab_image_set_options options = {0};
    for (int i = 0; i < BAD; i++) {
        char name[64];
        snprintf(name, sizeof name, "d/only/%d-%s", i, bad[i]);
        put(state, name, bad[i]);
    }
    put(state, "d/only/6-good.jpg", "turned1.jpg");
    put(state, "d/only/7-png-inside.jpg", "png-inside.jpg");
    const char *path = scratch_path(state, "d");
    assert_ok(open_set(path, &options, &set));
    check_error(cab_image_set_check(set, 2), CAB_EFORMAT, "d/only/", "");
    check_error(cab_image_set_cache(set, NULL, 2), CAB_EFORMAT, "d/only/", "");
    check_error(cab_image_set_load(set, 0, &image), CAB_EFORMAT, "0-cut.jpg", "truncated");
    assert_int_equal(cab_image_set_skipped(set), 0);
    cab_image_set_free(set);
    options.on_error = CAB_ON_ERROR_SKIP;
    assert_ok(open_set(path, &options, &set));
    assert_ok(cab_image_set_check(set, 2));
    assert_int_equal(cab_image_set_skipped(set), BAD);
    assert_int_equal(cab_image_set_count(set), BAD + GOOD);
    assert_true(cab_image_set_is_bad(set, 3) && !cab_image_set_is_bad(set, BAD));
    assert_ok(cab_image_set_cache(set, NULL, 2));
    assert_int_equal(cab_image_set_load(set, 3, &image), CAB_EFORMAT);
    assert_ok(cab_image_set_load(set, BAD, &expected));
    assert_ok(cab_image_set_load_training(set, 1, &image)); /* the next that can be decoded */
    assert_int_equal(image.width, expected.width);
    assert_memory_equal(image.pixels, expected.pixels, 9 * 6 * 3);
    assert_int_equal(cab_image_set_skipped(set), BAD);
    cab_image_free(&image);
    cab_image_free(&expected);
    cab_image_set_free(set);
}

static void test_unreadable(void **state)
{
    cab_image_set *set = NULL;
    cab_image image = {0};
    const char *path = make_folder(state);
    assert_ok(open_set(path, NULL, &set));
    assert_int_equal(unlink(scratch_path(state, "train/cat/a.png")), 0);
    check_error(cab_image_set_load(set, 3, &image), CAB_EIO, "cat/a.png", "cannot open");
    cab_image_set_free(set);
    assert_int_equal(symlink("nowhere", scratch_path(state, "train/cat/a.png")), 0);
    check_error(open_set(path, NULL, &set), CAB_EIO, "cat/a.png", "cannot read");
    const cab_image_set_options skip = {.on_error = CAB_ON_ERROR_SKIP};
    assert_ok(open_set(path, &skip, &set));
    assert_int_equal(cab_image_set_skipped(set), 1);
    cab_image_set_free(set);
}

/* ---- subsets ---------------------------------------------------------------------------------------------------------- */

static uint64_t kept(const cab_image_set *set, size_t class)
{
    return cab_image_set_class_begin(set, (int32_t) class + 1) - cab_image_set_class_begin(set, (int32_t) class);
}

/* A share of the whole set, seed 3, is the set that was opened with that fraction. */
static void expect_shared(const char *path, double fraction, cab_image_set *opened)
{
    cab_image_set *whole = NULL, *share = NULL;
    cab_image a = {0}, b = {0};
    assert_ok(open_set(path, NULL, &whole));
    assert_ok(cab_image_set_share(whole, fraction, 3, &share));
    assert_int_equal(cab_image_set_count(share), cab_image_set_count(opened));
    assert_int_equal(cab_image_set_classes(share)->count, cab_image_set_classes(opened)->count);
    for (uint64_t i = 0; i < cab_image_set_count(share); i++) {
        char name[CAB_PATH_MAX], same[CAB_PATH_MAX];
        cab_image_set_name(share, i, name);
        cab_image_set_name(opened, i, same);
        assert_string_equal(name, same);
        assert_int_equal(cab_image_set_label(share, i), cab_image_set_label(opened, i));
    }
    assert_ok(cab_image_set_load(share, 0, &a));
    assert_ok(cab_image_set_load(opened, 0, &b));
    assert_memory_equal(a.pixels, b.pixels, (size_t)a.width * (size_t)a.height * 3);
    cab_image_free(&a);
    cab_image_free(&b);
    cab_image_set_free(share);
    cab_image_set_free(whole);
}

/* 1, 5, 10 and 20 % of every class, each a part of the next; another seed takes others. */
static void test_subset(void **state)
{
    static const double fractions[] = {0.01, 0.05, 0.1, 0.2};
    enum { IMAGES = 100, SMALL = 7 };
    cab_map map;
    read_corpus("turned1.png", &map);
    const char *path = scratch_path(state, "s.tar");
    struct archive *a = archive_write_new();
    archive_write_set_format_ustar(a);
    assert_int_equal(archive_write_open_filename(a, path), ARCHIVE_OK);
    for (int i = 0; i < IMAGES + SMALL; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s/%03d.png", i < IMAGES ? "large" : "small", i);
        add_entry(a, name, map.data, map.size);
    }
    archive_write_close(a);
    archive_write_free(a);
    cab_map_close(&map);
    bool before[IMAGES + SMALL] = {0};
    for (size_t f = 0; f < 4; f++) {
        cab_image_set *set = NULL, *again = NULL, *other = NULL;
        cab_image_set_options options = {.fraction = fractions[f], .seed = 3};
        bool now[IMAGES + SMALL] = {0};
        int differ = 0;
        assert_ok(open_set(path, &options, &set));
        assert_int_equal(kept(set, 0), (int)(fractions[f] * IMAGES + 0.5));
        assert_int_equal(kept(set, 1), fractions[f] * SMALL <= 1.0 ? 1 : 2);
        const char *list = scratch_path(state, "subset.csv");
        assert_ok(cab_image_set_write_list(set, list));
        assert_ok(open_set(list, NULL, &again));
        options.seed = 4;
        assert_ok(open_set(path, &options, &other));
        assert_int_equal(cab_image_set_count(again), cab_image_set_count(set));
        for (uint64_t i = 0; i < cab_image_set_count(set); i++) {
            char name[CAB_PATH_MAX], same[CAB_PATH_MAX], seeded[CAB_PATH_MAX];
            cab_image_set_name(set, i, name);
            cab_image_set_name(again, i, same);
            cab_image_set_name(other, i, seeded);
            assert_string_equal(cab_path_name(name), cab_path_name(same));
            differ += strcmp(cab_path_name(name), cab_path_name(seeded)) != 0;
            now[atoi(cab_path_name(name))] = true;
        }
        for (int i = 0; i < IMAGES + SMALL; i++)
            assert_true(now[i] || !before[i]);
        memcpy(before, now, sizeof before);
        assert_true(differ > 0);
        expect_shared(path, fractions[f], set);
        cab_image_set_free(set);
        cab_image_set_free(again);
        cab_image_set_free(other);
    }
    cab_image_set *set = NULL;
    const cab_image_set_options wrong = {.fraction = 1.5};
    check_error(open_set(path, &wrong, &set), CAB_EARG, "", "the fraction of the images is 1.5");
}

/* ---- caches ----------------------------------------------------------------------------------------------------------- */

static void test_cache(void **state)
{
    cab_image_set *set = NULL;
    const char *path = make_folder(state), *cache = scratch_path(state, "images.cache");
    assert_ok(open_set(path, NULL, &set));
    const uint64_t expected = pixels_of(set);
    assert_ok(cab_image_set_cache(set, NULL, 3));
    assert_true(pixels_of(set) == expected);
    assert_ok(cab_image_set_cache(set, cache, 3));
    assert_true(pixels_of(set) == expected);
    cab_image_set_free(set);
    struct stat built, used;
    assert_int_equal(stat(cache, &built), 0);
    assert_ok(open_set(path, NULL, &set));
    assert_ok(cab_image_set_cache(set, cache, 1));
    assert_true(pixels_of(set) == expected);
    assert_int_equal(stat(cache, &used), 0);
    assert_true(built.st_ino == used.st_ino); /* not written again */
    cab_image_set_free(set);
    put(state, "train/cat/a.png", "turned8.png"); /* another picture under the same name */
    assert_ok(open_set(path, NULL, &set));
    assert_ok(cab_image_set_cache(set, cache, 1));
    assert_true(pixels_of(set) != expected);
    cab_image_set_free(set);
}

/* Lines that a call writes to standard error, in text[size]. */
static cab_status cache_with_messages(cab_image_set *set, const char *cache, const char *log, char *text, size_t size)
{
    const int before = dup(STDERR_FILENO), file = open(log, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(before >= 0 && file >= 0);
    dup2(file, STDERR_FILENO);
    cab_status status = cab_image_set_cache(set, cache, 2);
    fflush(stderr);
    dup2(before, STDERR_FILENO);
    const ssize_t got = pread(file, text, size - 1, 0);
    text[got < 0 ? 0 : got] = '\0';
    close(file);
    close(before);
    return status;
}

/* Whatever is damaged is told in one line and decoded again. */
static void test_damaged_cache(void **state)
{
    cab_image_set *set = NULL;
    const char *path = make_folder(state), *cache = scratch_path(state, "images.cache");
    const char *log = scratch_path(state, "log");
    char *sound = NULL, text[1024];
    size_t size = 0;
    assert_ok(open_set(path, NULL, &set));
    assert_ok(cab_image_set_cache(set, cache, 3));
    const uint64_t expected = pixels_of(set);
    assert_ok(cab_file_read(cache, 1 << 24, &sound, &size));
    for (size_t i = 0; i < size + 3; i += i < 96 ? 1 : size / 61) {
        char *again = NULL;
        size_t again_size = 0;
        const size_t kept = i < size ? size : i - size == 0 ? 0 : (i - size) * 60; /* at the end: cut short */
        if (i < size)
            sound[i] = (char)(sound[i] ^ 1 << i % 8);
        assert_ok(cab_file_write(cache, sound, kept));
        if (i < size)
            sound[i] = (char)(sound[i] ^ 1 << i % 8);
        cab_status status = cache_with_messages(set, cache, log, text, sizeof text);
        assert_int_equal(status, CAB_OK);
        if (strncmp(text, "warning: ", 9) != 0 || strstr(text, "; decoding the images again\n") == NULL)
            fail_msg("byte %zu of %zu: \"%s\"", i, size, text);
        assert_true(pixels_of(set) == expected);
        assert_ok(cab_file_read(cache, 1 << 24, &again, &again_size));
        assert_int_equal(again_size, size);
        cab_free(again);
    }
    sound[8] = 1; /* as an earlier version wrote it: no damage, and of no use */
    assert_ok(cab_file_write(cache, sound, size));
    assert_ok(cache_with_messages(set, cache, log, text, sizeof text));
    assert_string_equal(text, "");
    assert_true(pixels_of(set) == expected);
    cab_free(sound);
    cab_image_set_free(set);
}

/* ---- real data -------------------------------------------------------------------------------------------------------- */

static void test_tiny_imagenet(void **state)
{
    cab_classes map = {0};
    cab_image_set *set = NULL;
    char name[CAB_PATH_MAX];
    (void)state;
    if (!cab_path_exists(TINY "/val.tar.xz")) {
        print_message("skipped: " TINY " is absent\n");
        skip();
    }
    assert_ok(cab_classes_load(TINY "/classes.tsv", &map));
    assert_int_equal(map.count, 200);
    assert_ok(cab_classes_check_teacher(&map, 1000));
    assert_int_equal(map.teacher[cab_classes_find(&map, "n01443537")], 1);
    const cab_image_set_options options = {.classes = &map, .fraction = 0.1};
    assert_ok(open_set(TINY "/val.tar.xz", &options, &set));
    assert_int_equal(cab_image_set_count(set), 1000);
    for (uint64_t i = 0; i < 1000; i++) {
        cab_image_set_name(set, i, name);
        assert_non_null(strstr(name, map.names[cab_image_set_label(set, i)]));
    }
    assert_ok(cab_image_set_check(set, 1));
    cab_image_set_free(set);
    cab_classes_free(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        scratch_test(test_sources),
        scratch_test(test_in_place),
        scratch_test(test_expanded_limit),
        scratch_test(test_damaged_checksums),
        scratch_test(test_expanding_member),
        scratch_test(test_lists_of_no_files),
        cmocka_unit_test(test_utf8_names),
        scratch_test(test_several_paths),
        scratch_test(test_lists),
        scratch_test(test_class_map),
        scratch_test(test_no_shift),
        scratch_test(test_litter),
        scratch_test(test_bad_folders),
        scratch_test(test_cut_archives),
        scratch_test(test_bad_archives),
        scratch_test(test_bad_images),
        scratch_test(test_unreadable),
        scratch_test(test_subset),
        scratch_test(test_cache),
        scratch_test(test_damaged_cache),
        scratch_test(test_tiny_imagenet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
