/* test_log.c - messages, progress lines, numbers for people, clocks, memory and threads. */
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/thread.h"
#include "temp.h"

#include <math.h>
#include <omp.h>

static int saved_stderr = -1;

/* From here to capture_end() stderr goes to a file, which is no terminal. */
static void capture_begin(void **state)
{
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    assert_non_null(freopen(temp_path(state, "stderr"), "w", stderr));
}

static char *capture_end(void **state)
{
    char *text = NULL;
    size_t size = 0;
    fflush(stderr);
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    assert_ok(cab_file_read(temp_path(state, "stderr"), 1 << 16, &text, &size));
    return text;
}

static void messages(void **state)
{
    capture_begin(state);
    cab_log_info("read %d files", 3);
    cab_log_quiet(true);
    cab_log_info("not shown");
    cab_log_warn("disk %s", "low");
    cab_log_quiet(false);
    char *text = capture_end(state);
    assert_string_equal(text, "read 3 files\nwarning: disk low\n");
    cab_free(text);
}

/* Time is moved by moving the start back. */
static void progress_lines(void **state)
{
    cab_progress progress;
    capture_begin(state);
    cab_progress_begin(&progress, "train", "steps", 100, 300);
    cab_progress_update(&progress, 101, "too early");
    progress.started -= 5;
    progress.drawn -= 10;
    cab_progress_update(&progress, 200, "loss 2.5");
    cab_progress_update(&progress, 201, "too soon");
    cab_progress_end(&progress);
    char *text = capture_end(state);
    assert_non_null(strstr(text, "train  66.7%  200/300 steps  20.0 steps/s"));
    assert_non_null(strstr(text, "5.0s left  loss 2.5\n"));
    assert_null(strstr(text, "too"));
    cab_free(text);

    capture_begin(state);
    cab_progress_begin(&progress, "read", "bytes", 0, 0);
    progress.started -= 4;
    progress.drawn -= 10;
    cab_progress_update(&progress, 8 << 20, "");
    cab_log_quiet(true);
    progress.drawn -= 10;
    cab_progress_update(&progress, 9 << 20, "");
    cab_log_quiet(false);
    text = capture_end(state);
    assert_non_null(strstr(text, "read  8.0 MiB   2.0 MiB/s"));
    assert_null(strstr(text, "9.0 MiB"));
    assert_null(strchr(text, '%'));
    cab_free(text);
}

static void numbers_for_people(void **state)
{
    (void)state;
    char buffer[CAB_FORMAT_MAX];
    assert_string_equal(cab_format_bytes(0, buffer), "0 B");
    assert_string_equal(cab_format_bytes(1023, buffer), "1023 B");
    assert_string_equal(cab_format_bytes(1024, buffer), "1.0 KiB");
    assert_string_equal(cab_format_bytes(640 * 1024.0, buffer), "640 KiB");
    assert_string_equal(cab_format_bytes(1.2 * 1024 * 1024 * 1024, buffer), "1.2 GiB");
    assert_string_equal(cab_format_bytes(1048575, buffer), "1.0 MiB");
    assert_string_equal(cab_format_seconds(0.44, buffer), "0.4s");
    assert_string_equal(cab_format_seconds(12.2, buffer), "12s");
    assert_string_equal(cab_format_seconds(59.6, buffer), "1m00s");
    assert_string_equal(cab_format_seconds(200, buffer), "3m20s");
    assert_string_equal(cab_format_seconds(3599.7, buffer), "1h00m");
    assert_string_equal(cab_format_seconds(3720, buffer), "1h02m");
    assert_string_equal(cab_format_seconds(-1, buffer), "?");
    assert_string_equal(cab_format_seconds(NAN, buffer), "?");
    assert_string_equal(cab_format_seconds(INFINITY, buffer), "?");
}

static void clock_and_memory(void **state)
{
    (void)state;
    enum { MIB_64 = 64 << 20 };
    double start = cab_seconds(), peak = cab_peak_memory();
    volatile char *block = NULL;
    assert_ok(cab_alloc((void **)&block, MIB_64, 1, "a large block")); /* zeroed, hence touched */
    assert_true(cab_peak_memory() >= peak + MIB_64 / 2);
    assert_true(cab_peak_memory() < 1e12);
    cab_free((void *)block);
    double available = cab_available_memory();
    assert_true(available > 0 && available < (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE));
    assert_true(cab_seconds() > start && cab_seconds() < start + 60);
}

static void threads(void **state)
{
    int all = cab_thread_count();
    assert_true(all >= 1);
    cab_thread_limit(1);
    assert_int_equal(cab_thread_count(), 1);
    cab_thread_limit(0);
    assert_int_equal(cab_thread_count(), 1);
    cab_thread_limit(all);
    assert_int_equal(cab_thread_count(), all);
    const int processors = cab_thread_processors();
    assert_true(processors >= 1 && processors <= sysconf(_SC_NPROCESSORS_ONLN));
    capture_begin(state);
    cab_thread_limit(100000);
    char *text = capture_end(state);
    assert_non_null(strstr(text, "warning: 100000 threads were asked for, but this process has "));
    cab_free(text);
    assert_int_equal(cab_thread_count(), processors);
    omp_set_num_threads(200000); /* as OMP_NUM_THREADS would */
    assert_int_equal(cab_thread_count(), processors);
    assert_int_equal(omp_get_max_threads(), processors);
    cab_thread_limit(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(messages),
        TEMP_TEST(progress_lines),
        cmocka_unit_test(numbers_for_people),
        cmocka_unit_test(clock_and_memory),
        TEMP_TEST(threads),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
