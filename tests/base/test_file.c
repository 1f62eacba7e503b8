/* test_file.c - what is refused, and that a file is either the old one or the new one. */
#include "base/memory.h"
#include "temp.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void assert_content(const char *path, const char *expected)
{
    char *text = NULL;
    size_t size = 0;
    assert_ok(cab_file_read(path, 1 << 20, &text, &size));
    assert_int_equal(size, strlen(expected));
    assert_string_equal(text, expected);
    cab_free(text);
}

static void map_gives_the_bytes(void **state)
{
    cab_map map;
    const char *path = temp_path(state, "data");
    assert_ok(cab_file_write(path, "a\0b", 3));
    assert_ok(cab_map_open(path, &map));
    assert_int_equal(map.size, 3);
    assert_memory_equal(map.data, "a\0b", 3);
    cab_map_close(&map);
    assert_null(map.data);
    cab_map_close(&map);
}

static void map_of_nothing(void **state)
{
    cab_map map;
    const char *path = temp_path(state, "empty");
    assert_ok(cab_file_write(path, NULL, 0));
    assert_ok(cab_map_open(path, &map));
    assert_null(map.data);
    assert_int_equal(map.size, 0);
    cab_map_close(&map);
}

static void map_refuses_what_is_no_file(void **state)
{
    cab_map map;
    const char *pipe_path = temp_path(state, "pipe");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_fails(cab_map_open(temp_path(state, "absent"), &map), CAB_EIO, "absent: cannot open: No such file");
    assert_fails(cab_map_open(*state, &map), CAB_EIO, "is a directory, expected a regular file");
    assert_fails(cab_map_open(pipe_path, &map), CAB_EIO, "pipe: is a device, pipe or socket");
}

static void read_keeps_its_limit(void **state)
{
    char *text = NULL;
    size_t size = 0;
    const char *path = temp_path(state, "text");
    assert_ok(cab_file_write(path, "12345", 5));
    assert_ok(cab_file_read(path, 5, &text, &size));
    assert_string_equal(text, "12345");
    cab_free(text);
    assert_fails(cab_file_read(path, 4, &text, &size), CAB_EFORMAT, "text: larger than the 4 bytes");
    assert_null(text);
    assert_fails(cab_file_read(*state, 4, &text, &size), CAB_EIO, "is a directory, expected a regular file");
}

/* None of these may be waited for, and none read to its end. */
static void read_refuses_what_is_no_file(void **state)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = NULL;
    const char *pipe_path = temp_path(state, "pipe");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_fails(cab_file_read(pipe_path, 100, &text, &size), CAB_EIO, "pipe: is a device, pipe or socket, expected");
    assert_fails(cab_file_read_text(pipe_path, 100, &text, &size), CAB_EIO, "pipe: is a device");
    assert_fails(cab_file_read("/dev/zero", 100, &text, &size), CAB_EIO, "/dev/zero: is a device");
    assert_fails(cab_file_open(pipe_path, &stream), CAB_EIO, "pipe: is a device");
    assert_null(stream);
    assert_fails(cab_file_append(pipe_path, false, &stream), CAB_EIO, "pipe: is a device");
    assert_null(stream);
}

static void append_keeps_or_empties(void **state)
{
    FILE *stream = NULL;
    const char *path = temp_path(state, "log");
    for (int round = 0; round < 3; round++) {
        assert_ok(cab_file_append(path, round != 2, &stream));
        assert_true(fputs("line\n", stream) >= 0);
        assert_int_equal(fclose(stream), 0);
        assert_content(path, round == 1 ? "line\nline\n" : "line\n");
    }
    assert_fails(cab_file_append(*state, true, &stream), CAB_EIO, "cannot be opened for writing");
}

static void text_loses_its_mark(void **state)
{
    char *text = NULL;
    size_t size = 0;
    const char *path = temp_path(state, "text");
    assert_ok(cab_file_write(path,
                             "\xEF\xBB\xBF"
                             "a",
                             4));
    assert_ok(cab_file_read_text(path, 100, &text, &size));
    assert_int_equal(size, 1);
    assert_string_equal(text, "a");
    cab_free(text);
    assert_ok(cab_file_write(path, "a\0b\0c\0", 6));
    assert_fails(cab_file_read_text(path, 100, &text, &size), CAB_EFORMAT, "text: is UTF-16LE, expected UTF-8");
    assert_null(text);
}

/* Asking what stands in the way must not hide why nothing could be made. */
static void directory_tells_the_reason(void **state)
{
    (void)state;
    assert_fails(cab_directory_make("/sys/cab-test"), CAB_EIO, "/sys/cab-test: cannot make the directory: ");
    assert_null(strstr(cab_error_text(), "No such file"));
}

static void read_grows_past_its_first_buffer(void **state)
{
    char *text = NULL, *big = malloc(300001);
    size_t size = 0;
    const char *path = temp_path(state, "big");
    for (size_t i = 0; i < 300001; i++)
        big[i] = (char)('a' + i % 23);
    assert_ok(cab_file_write(path, big, 300001));
    assert_ok(cab_file_read(path, 1 << 20, &text, &size));
    assert_int_equal(size, 300001);
    assert_memory_equal(text, big, size);
    assert_int_equal(text[size], '\0');
    cab_free(text);
    free(big);
}

static void old_file_stands_until_commit(void **state)
{
    cab_writer writer;
    const char *path = temp_path(state, "file");
    assert_ok(cab_file_write(path, "old", 3));
    assert_ok(cab_writer_open(&writer, path));
    assert_ok(cab_writer_write(&writer, "new text", 8));
    assert_content(path, "old");
    cab_writer_abort(&writer);
    assert_content(path, "old");
    assert_int_equal(temp_count_files(*state), 1);

    assert_ok(cab_writer_open(&writer, path));
    assert_ok(cab_writer_write(&writer, "new text", 8));
    assert_ok(cab_writer_commit(&writer));
    cab_writer_abort(&writer); /* after a commit: nothing */
    assert_content(path, "new text");
    assert_int_equal(temp_count_files(*state), 1);
}

/* A limit on file sizes stands for a full disk: the write fails part of the way. */
static void failed_write_leaves_the_old_file(void **state)
{
    static char big[100000];
    struct rlimit before, small;
    const char *path = temp_path(state, "file");
    assert_ok(cab_file_write(path, "old", 3));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 5000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    cab_status large = cab_file_write(path, big, sizeof big);
    cab_writer writer;
    assert_ok(cab_writer_open(&writer, path));
    for (int i = 0; i < 6; i++) /* each fits the stream's buffer or not: the error may show late */
        (void)cab_writer_write(&writer, big, 1000);
    cab_status late = cab_writer_commit(&writer);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(large, CAB_EIO);
    assert_fails(late, CAB_EIO, "file: cannot write");
    assert_content(path, "old");
    assert_int_equal(temp_count_files(*state), 1);
}

static void writer_names_where_it_cannot(void **state)
{
    char longest[CAB_PATH_MAX + 8];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    assert_fails(cab_file_write(temp_path(state, "no/such/file"), "x", 1), CAB_EIO, "cannot create: No such file");
    assert_fails(cab_file_write(longest, "x", 1), CAB_EARG, "longer than 4096 bytes");
    assert_int_equal(mkdir(temp_path(state, "directory"), 0700), 0);
    assert_fails(cab_file_write(temp_path(state, "directory"), "x", 1), CAB_EIO, "cannot replace");
    assert_int_equal(temp_count_files(*state), 1);
}

/* What a link names is replaced, with its mode; the link stays. */
static void links_and_modes_stay(void **state)
{
    struct stat info;
    assert_ok(cab_file_write(temp_path(state, "target"), "old", 3));
    assert_int_equal(chmod(temp_path(state, "target"), 0640), 0);
    assert_int_equal(symlink("target", temp_path(state, "link")), 0);
    assert_ok(cab_file_write(temp_path(state, "link"), "new", 3));
    assert_content(temp_path(state, "target"), "new");
    assert_int_equal(lstat(temp_path(state, "link"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(stat(temp_path(state, "target"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
}

/* Pipes and devices are written to, not replaced by files. */
static void pipes_are_written_to(void **state)
{
    char got[8] = "";
    struct stat info;
    const char *path = temp_path(state, "pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    int end = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(end >= 0);
    assert_ok(cab_file_write(path, "text", 4));
    assert_int_equal(read(end, got, sizeof got), 4);
    assert_string_equal(got, "text");
    close(end);
    assert_int_equal(stat(path, &info), 0);
    assert_true(S_ISFIFO(info.st_mode));
    assert_ok(cab_file_check_writable(path));
    assert_fails(cab_file_write("/dev/full", "text", 4), CAB_EIO, "/dev/full: cannot write: No space left");
    assert_ok(cab_file_check_writable(temp_path(state, "new")));
    assert_false(cab_path_exists(temp_path(state, "new")));
    assert_fails(cab_file_check_writable(temp_path(state, "no/file")), CAB_EIO, "no/file: cannot create");
}

static void copy_copies(void **state)
{
    assert_ok(cab_file_write(temp_path(state, "from"), "text", 4));
    assert_ok(cab_file_copy(temp_path(state, "from"), temp_path(state, "to")));
    assert_content(temp_path(state, "to"), "text");
    assert_fails(cab_file_copy(temp_path(state, "absent"), temp_path(state, "to")), CAB_EIO, "absent");
    assert_content(temp_path(state, "to"), "text");
}

static void paths(void **state)
{
    (void)state;
    char out[CAB_PATH_MAX], longest[CAB_PATH_MAX];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    assert_ok(cab_path_join(out, "a", "b"));
    assert_string_equal(out, "a/b");
    assert_ok(cab_path_join(out, "a/", "b"));
    assert_string_equal(out, "a/b");
    assert_ok(cab_path_join(out, "", "b"));
    assert_string_equal(out, "b");
    assert_fails(cab_path_join(out, longest, "b"), CAB_EARG, "longer than 4096 bytes");
    assert_string_equal(cab_path_name("a/b/c"), "c");
    assert_string_equal(cab_path_name("c"), "c");
    assert_string_equal(cab_path_name("c/"), "");
}

static void directories(void **state)
{
    assert_ok(cab_directory_make(temp_path(state, "a/b/c")));
    assert_true(cab_path_is_directory(temp_path(state, "a/b/c")));
    assert_ok(cab_directory_make(temp_path(state, "a/b/c/")));
    assert_ok(cab_file_write(temp_path(state, "a/file"), "x", 1));
    assert_true(cab_path_exists(temp_path(state, "a/file")));
    assert_false(cab_path_is_directory(temp_path(state, "a/file")));
    assert_fails(cab_directory_make(temp_path(state, "a/file")), CAB_EIO,
                 "a/file: cannot make the directory: Not a dir");
    assert_fails(cab_directory_make(temp_path(state, "a/file/b")), CAB_EIO, "cannot make the directory: Not a dir");
    assert_ok(cab_directory_check_writable(temp_path(state, "a/b/c")));
    assert_int_equal(temp_count_files(temp_path(state, "a/b/c")), 0);
    assert_fails(cab_directory_check_writable(temp_path(state, "none")), CAB_EIO, "none: cannot create files");
}

/* Published FNV-1a values. */
static void hash_is_fnv1a(void **state)
{
    (void)state;
    assert_true(cab_hash(CAB_HASH_START, "", 0) == UINT64_C(0xcbf29ce484222325));
    assert_true(cab_hash(CAB_HASH_START, "a", 1) == UINT64_C(0xaf63dc4c8601ec8c));
    assert_true(cab_hash(cab_hash(CAB_HASH_START, "foo", 3), "bar", 3) == UINT64_C(0x85944171f73967e8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(map_gives_the_bytes),
        TEMP_TEST(map_of_nothing),
        TEMP_TEST(map_refuses_what_is_no_file),
        TEMP_TEST(read_keeps_its_limit),
        TEMP_TEST(read_refuses_what_is_no_file),
        TEMP_TEST(append_keeps_or_empties),
        TEMP_TEST(text_loses_its_mark),
        TEMP_TEST(directory_tells_the_reason),
        TEMP_TEST(read_grows_past_its_first_buffer),
        TEMP_TEST(old_file_stands_until_commit),
        TEMP_TEST(failed_write_leaves_the_old_file),
        TEMP_TEST(writer_names_where_it_cannot),
        TEMP_TEST(links_and_modes_stay),
        TEMP_TEST(pipes_are_written_to),
        TEMP_TEST(copy_copies),
        cmocka_unit_test(paths),
        TEMP_TEST(directories),
        cmocka_unit_test(hash_is_fnv1a),
    };
    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
