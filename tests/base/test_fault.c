/* test_fault.c - a mapped file that is truncated while it is read: the line names it, the code is that of a file. */
#include "base/fault.h"
#include "temp.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* Runs `act` as a process with the handler; its messages in text[size], its state from waitpid(). */
static int messages_of(void (*act)(const char *path), const char *path, char *text, size_t size)
{
    int ends[2], state = 0;
    size_t length = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        cab_fault_report();
        act(path);
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t got; (got = read(ends[0], text + length, size - 1 - length)) > 0;)
        length += (size_t)got;
    text[length] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(pid, &state, 0), pid);
    return state;
}

static void read_truncated(const char *path)
{
    cab_map other, map;
    volatile uint8_t byte = 0;
    if (cab_map_open("README.md", &other) != CAB_OK || cab_map_open(path, &map) != CAB_OK || truncate(path, 10) != 0)
        _exit(90);
    byte += map.data[60000];
    (void)byte;
}

static void raise_twice(const char *path)
{
    (void)path;
    raise(SIGBUS);
    raise(SIGBUS);
}

/* A file that is no longer mapped is not named, even if another mapping is now at its place. */
static void fault_after_close(const char *path)
{
    cab_map map;
    volatile uint8_t byte = 0;
    if (cab_map_open(path, &map) != CAB_OK)
        _exit(90);
    cab_map_close(&map);
    FILE *file = fopen(path, "r");
    uint8_t *data = file == NULL ? MAP_FAILED : mmap(NULL, 65536, PROT_READ, MAP_PRIVATE, fileno(file), 0);
    if (data == MAP_FAILED || truncate(path, 10) != 0)
        _exit(91);
    byte += data[60000];
    (void)byte;
}

static void truncated_files_are_named(void **state)
{
    static uint8_t zeros[65536];
    char text[2048];
    const char *path = temp_path(state, "shrinks");
    assert_ok(cab_file_write(path, zeros, sizeof zeros));
    int ended = messages_of(read_truncated, path, text, sizeof text);
    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), CAB_EIO);
    assert_non_null(strstr(text, path));
    assert_non_null(strstr(text, ": became shorter"));
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1); /* one line */
}

static void other_faults_stay_what_they_are(void **state)
{
    static uint8_t zeros[65536];
    char text[2048];
    int ended = messages_of(raise_twice, NULL, text, sizeof text);
    assert_true(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGBUS);
    assert_string_equal(text, "");
    const char *path = temp_path(state, "closed");
    assert_ok(cab_file_write(path, zeros, sizeof zeros));
    ended = messages_of(fault_after_close, path, text, sizeof text);
    assert_true(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGBUS);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(truncated_files_are_named),
        TEMP_TEST(other_faults_stay_what_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
