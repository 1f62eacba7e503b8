/* test_communicator.c - three processes that meet by torchrun's variables: collectives, a stranger at the port, ranks that are gone or late. */
#include "base/communicator.h"
#include "base/memory.h"

/* cmocka wants the four before it. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RANKS = 3 };

/* A port that nobody uses now. */
static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    const int s = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(s, (struct sockaddr *)&address, &size), 0);
    close(s);
    return ntohs(address.sin_port);
}

static void describe(int rank, int size, int port)
{
    char text[16];
    snprintf(text, sizeof text, "%d", rank);
    setenv("RANK", text, 1);
    snprintf(text, sizeof text, "%d", size);
    setenv("WORLD_SIZE", text, 1);
    snprintf(text, sizeof text, "%d", port);
    setenv("MASTER_PORT", text, 1);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
}

/* What every rank does; rank 0 is the test, and sees the others' exit codes. */
typedef int (*part)(cab_communicator *c);

static int run_child(int rank, int port, part act)
{
    cab_communicator *c = NULL;
    describe(rank, RANKS, port);
    if (cab_communicator_open(&c) != CAB_OK)
        return 9;
    const int code = act(c);
    cab_communicator_close(c);
    return code;
}

static void start(int port, pid_t children[RANKS], part act)
{
    for (int r = 1; r < RANKS; r++) {
        children[r] = fork();
        assert_true(children[r] >= 0);
        if (children[r] == 0)
            _exit(run_child(r, port, act));
    }
}

static int code_of(pid_t child)
{
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* 0, or the number of what is wrong. */
static int use(cab_communicator *c)
{
    const int rank = cab_communicator_rank(c);
    const double own[2] = {rank, 10.0 * rank};
    double all[RANKS][2], sums[2] = {own[0], 0.25}, shared = rank == 0 ? 7 : 0;
    if (cab_communicator_size(c) != RANKS || cab_communicator_local_size(c) != RANKS)
        return 1;
    if (cab_communicator_local_rank(c) != rank)
        return 2;
    if (cab_communicator_gather(c, own, sizeof own, all) != CAB_OK)
        return 3;
    for (int r = 0; r < RANKS; r++)
        if (all[r][0] != (double)r || all[r][1] != 10.0 * r)
            return 4;
    if (cab_communicator_sum(c, sums, 2) != CAB_OK || sums[0] != 3 || sums[1] != 0.75)
        return 5;
    if (cab_communicator_share(c, &shared, sizeof shared) != CAB_OK || shared != 7)
        return 6;
    float data[RANKS] = {0}; /* large data go between GPUs */
    return cab_communicator_sum_scatter(c, data, RANKS) == CAB_EUNSUPPORTED ? 0 : 7;
}

static void test_collectives(void **state)
{
    (void)state;
    pid_t children[RANKS];
    cab_communicator *c = NULL;
    const int port = free_port();
    start(port, children, use);
    describe(0, RANKS, port);
    assert_int_equal(cab_communicator_open(&c), CAB_OK);
    assert_int_equal(use(c), 0);
    for (int r = 1; r < RANKS; r++)
        assert_int_equal(code_of(children[r]), 0);
    cab_communicator_close(c);
}

/* Whoever connects and is no rank is sent away. */
static void stranger(int port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char answer;
    for (int i = 0; i < 200; i++) {
        const int s = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(s, (const struct sockaddr *)&address, sizeof address) == 0) {
            const bool away = send(s, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL) == 18 && recv(s, &answer, 1, 0) <= 0;
            close(s);
            _exit(away ? 0 : 1);
        }
        close(s);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    _exit(2);
}

static void test_stranger(void **state)
{
    (void)state;
    pid_t children[RANKS];
    cab_communicator *c = NULL;
    const int port = free_port();
    const pid_t other = fork();
    if (other == 0)
        stranger(port);
    const pid_t late = fork(); /* the ranks come after it */
    if (late == 0) {
        nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
        start(port, children, use);
        _exit(code_of(children[1]) + code_of(children[2]));
    }
    describe(0, RANKS, port);
    assert_int_equal(cab_communicator_open(&c), CAB_OK);
    assert_int_equal(use(c), 0);
    assert_int_equal(code_of(other), 0);
    assert_int_equal(code_of(late), 0);
    cab_communicator_close(c);
}

static int leave_at_once(cab_communicator *c)
{
    return cab_communicator_rank(c) == 1 ? 0 : use(c) != 0;
}

static void test_gone(void **state)
{
    (void)state;
    pid_t children[RANKS];
    cab_communicator *c = NULL;
    double sum = 0;
    const int port = free_port();
    start(port, children, leave_at_once);
    describe(0, RANKS, port);
    assert_int_equal(cab_communicator_open(&c), CAB_OK);
    assert_int_equal(cab_communicator_sum(c, &sum, 1), CAB_EBACKEND);
    assert_non_null(strstr(cab_error_text(), "rank 1 of 3 ("));
    assert_non_null(strstr(cab_error_text(), "is gone"));
    cab_communicator_close(c);
    for (int r = 1; r < RANKS; r++)
        code_of(children[r]);
}

static int sleep_on(cab_communicator *c)
{
    if (cab_communicator_rank(c) == 2)
        pause();
    return use(c) != 0;
}

static void test_late(void **state)
{
    (void)state;
    pid_t children[RANKS];
    cab_communicator *c = NULL;
    double own[2] = {0}, all[RANKS][2];
    char expected[64];
    const int port = free_port();
    start(port, children, sleep_on);
    describe(0, RANKS, port);
    assert_int_equal(cab_communicator_open(&c), CAB_OK);
    cab_communicator_limit(c, 0.3);
    assert_int_equal(cab_communicator_gather(c, own, sizeof own, all), CAB_EBACKEND);
    snprintf(expected, sizeof expected, "process %ld): no answer for 0 s (train.timeout)", (long)children[2]);
    assert_non_null(strstr(cab_error_text(), "rank 2 of 3 ("));
    assert_non_null(strstr(cab_error_text(), expected));
    cab_communicator_close(c);
    kill(children[2], SIGKILL);
    for (int r = 1; r < RANKS; r++)
        code_of(children[r]);
}

static void test_environment(void **state)
{
    (void)state;
    static const char *const names[] = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"};
    cab_communicator *c = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    assert_int_equal(cab_communicator_open(&c), CAB_OK);
    assert_null(c);
    assert_int_equal(cab_communicator_size(c), 1);
    setenv("RANK", "0", 1);
    setenv("WORLD_SIZE", "2", 1);
    assert_int_equal(cab_communicator_open(&c), CAB_EARG);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    setenv("MASTER_PORT", "65536", 1);
    assert_int_equal(cab_communicator_open(&c), CAB_EARG);
    describe(2, 2, 1024);
    assert_int_equal(cab_communicator_open(&c), CAB_EARG);
    assert_string_equal(cab_error_text(), "RANK is 2 of WORLD_SIZE 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_environment), cmocka_unit_test(test_collectives), cmocka_unit_test(test_stranger),
        cmocka_unit_test(test_gone),        cmocka_unit_test(test_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
