/* test_temporary.c - temporary files of several writers, and of dead ones. */
#include "base/memory.h"
#include "base/temporary.h"
#include "temp.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* Two writers of one file have a temporary file each, and the later commit stands whole. */
static void writers_of_one_file_do_not_meet(void **state)
{
    cab_writer one, two;
    char *text = NULL;
    size_t size = 0;
    const char *path = temp_path(state, "file");
    assert_ok(cab_writer_open(&one, path));
    assert_ok(cab_writer_open(&two, path)); /* sweeps, and leaves what is being written */
    assert_string_not_equal(one.temporary, two.temporary);
    assert_ok(cab_writer_write(&one, "of the first", 12));
    assert_ok(cab_writer_write(&two, "second", 6));
    assert_ok(cab_writer_commit(&two));
    assert_ok(cab_writer_commit(&one));
    assert_ok(cab_file_read(path, 100, &text, &size));
    assert_string_equal(text, "of the first");
    cab_free(text);
    assert_int_equal(temp_count_files(*state), 1);
}

/* A process that opens a writer, says so and waits to be killed. */
static pid_t start_writer(const char *path, int say)
{
    cab_writer writer;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    const bool opened = cab_writer_open(&writer, path) == CAB_OK && cab_writer_write(&writer, "half", 4) == CAB_OK;
    if (write(say, opened ? "y" : "n", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

static void what_a_kill_leaves_is_swept_up(void **state)
{
    int ends[2];
    char answer = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = start_writer(temp_path(state, "killed"), ends[1]);
    assert_int_equal(read(ends[0], &answer, 1), 1);
    assert_int_equal(answer, 'y');
    assert_int_equal(temp_count_files(*state), 1);
    cab_temporary_sweep(*state);
    assert_int_equal(temp_count_files(*state), 1); /* its writer lives */
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(temp_count_files(*state), 1);
    assert_ok(cab_file_write(temp_path(state, "another"), "x", 1)); /* whatever file it belonged to */
    assert_int_equal(temp_count_files(*state), 1);
    close(ends[0]);
    close(ends[1]);
}

/* Names that are only like ours, and what is no file. */
static void strangers_stay(void **state)
{
    static const char *const names[] = {"a.cab-tmp-0123456789abcde",  "a.cab-tmp-0123456789abcdefg",
                                        "a.cab-tmp-0123456789ABCDEF", "a.tmp.0123456789abcdef",
                                        ".cab-tmp-0123456789abcdef",  "cab-tmp-0123456789abcdef"};
    const size_t count = sizeof names / sizeof *names;
    for (size_t i = 0; i < count; i++) {
        int fd = open(temp_path(state, names[i]), O_CREAT | O_WRONLY, 0600);
        assert_true(fd >= 0);
        close(fd);
    }
    assert_int_equal(mkfifo(temp_path(state, "f.cab-tmp-0123456789abcdef"), 0600), 0);
    assert_int_equal(mkdir(temp_path(state, "d.cab-tmp-0123456789abcdef"), 0700), 0);
    assert_int_equal(symlink(names[0], temp_path(state, "l.cab-tmp-0123456789abcdef")), 0);
    cab_temporary_sweep(*state);
    assert_int_equal(temp_count_files(*state), count + 3);
    cab_temporary_sweep(temp_path(state, "none"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(writers_of_one_file_do_not_meet),
        TEMP_TEST(what_a_kill_leaves_is_swept_up),
        TEMP_TEST(strangers_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
