/* communicator_tcp.c - ranks that torchrun's variables describe: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT. Every rank
 * has one connection, with rank 0, which listens at MASTER_PORT; where torchrun's agent keeps its store there
 * (TORCHELASTIC_USE_AGENT_STORE), at the port behind it. This carries what meets, counts and sums; large data go between
 * GPUs. */
#include "base/communicator_internal.h"
#include "base/memory.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const uint32_t magic = 0x43414231; /* "CAB1" */
static const double meeting = 120;        /* seconds until all ranks must have connected */

typedef struct tcp {
    int rank, size;
    int *sockets; /* by rank; -1: not connected */
} tcp;

typedef struct hello {
    uint32_t magic;
    int32_t rank, size;
} hello;

static void tcp_close(void *state)
{
    tcp *t = state;
    for (int r = 0; t != NULL && t->sockets != NULL && r < t->size; r++)
        if (t->sockets[r] >= 0)
            close(t->sockets[r]);
    if (t != NULL)
        cab_free(t->sockets);
    cab_free(t);
}

/* Waits until the socket can be read or written. */
static cab_status await(int socket, short events, double limit)
{
    struct pollfd p = {.fd = socket, .events = events};
    int ready;
    do
        ready = poll(&p, 1, limit > 0 ? (int)(limit * 1e3) : -1);
    while (ready < 0 && errno == EINTR);
    if (ready == 0)
        return cab_fail(CAB_EBACKEND, "no answer for %.0f s (train.timeout)", limit);
    return CAB_OK;
}

static cab_status put_all(int socket, const void *data, size_t bytes, double limit)
{
    for (size_t done = 0; done < bytes;) {
        CAB_TRY(await(socket, POLLOUT, limit));
        const ssize_t n = send(socket, (const char *)data + done, bytes - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return cab_fail_errno(CAB_EBACKEND, errno, "is gone");
        done += n > 0 ? (size_t)n : 0;
    }
    return CAB_OK;
}

static cab_status get_all(int socket, void *data, size_t bytes, double limit)
{
    for (size_t done = 0; done < bytes;) {
        CAB_TRY(await(socket, POLLIN, limit));
        const ssize_t n = recv(socket, (char *)data + done, bytes - done, MSG_DONTWAIT);
        if (n == 0)
            return cab_fail(CAB_EBACKEND, "is gone");
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return cab_fail_errno(CAB_EBACKEND, errno, "is gone");
        done += n > 0 ? (size_t)n : 0;
    }
    return CAB_OK;
}

static cab_status tcp_send(void *state, int to, const void *data, size_t bytes, double limit)
{
    return put_all(((const tcp *)state)->sockets[to], data, bytes, limit);
}

static cab_status tcp_receive(void *state, int from, void *data, size_t bytes, double limit)
{
    return get_all(((const tcp *)state)->sockets[from], data, bytes, limit);
}

/* Peers see the closed connections. */
static void tcp_abort(void *state, int code)
{
    (void)code;
    tcp_close(state);
}

/* ---- meeting ------------------------------------------------------------------------------------------------------ */

static cab_status find_address(const char **address, char port[16])
{
    const char *text = getenv("MASTER_PORT"), *store = getenv("TORCHELASTIC_USE_AGENT_STORE");
    char *end = NULL;
    *address = getenv("MASTER_ADDR");
    const long number = text != NULL ? strtol(text, &end, 10) : 0;
    if (*address == NULL || text == NULL || *end != '\0' || number < 1 || number > 65534)
        return cab_fail(
            CAB_EARG,
            "WORLD_SIZE is set, but MASTER_ADDR is \"%.64s\" and MASTER_PORT \"%.16s\"; expected the host and a "
            "port of rank 0",
            *address != NULL ? *address : "", text != NULL ? text : "");
    snprintf(port, 16, "%ld", number + (store != NULL && strcmp(store, "True") == 0));
    return CAB_OK;
}

static void hurry(int socket)
{
    const int on = 1;
    (void)setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* A socket that is connected to, or bound to and listening at, the address; -1 and errno. */
static int open_socket(const struct addrinfo *list, bool listening, int backlog)
{
    int last = EADDRNOTAVAIL;
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        const int on = 1, s = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (s < 0)
            continue;
        if (listening)
            (void)setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (listening ? bind(s, a->ai_addr, a->ai_addrlen) == 0 && listen(s, backlog) == 0
                      : connect(s, a->ai_addr, a->ai_addrlen) == 0)
            return s;
        last = errno;
        close(s);
    }
    errno = last;
    return -1;
}

/* Takes one connection; a stranger's is closed again. */
static cab_status admit(tcp *t, int listener, double limit)
{
    hello h;
    CAB_TRY(await(listener, POLLIN, limit));
    const int s = accept(listener, NULL, NULL);
    if (s < 0)
        return CAB_OK;
    if (get_all(s, &h, sizeof h, 5) != CAB_OK || h.magic != magic) {
        close(s);
        return CAB_OK;
    }
    if (h.size != t->size || h.rank < 1 || h.rank >= t->size || t->sockets[h.rank] >= 0) {
        close(s);
        return cab_fail(CAB_EARG, "a process says that it is rank %d of %d; expected another of 1 to %d of %d",
                        (int)h.rank, (int)h.size, t->size - 1, t->size);
    }
    hurry(s);
    t->sockets[h.rank] = s;
    return CAB_OK;
}

static cab_status admit_all(tcp *t, const struct addrinfo *list, const char *address, const char *port)
{
    const int listener = open_socket(list, true, t->size);
    if (listener < 0)
        return cab_fail_errno(CAB_EBACKEND, errno, "rank 0 cannot listen at %s, port %s", address, port);
    cab_status status = CAB_OK;
    for (int r = 1; r < t->size && status == CAB_OK;) {
        status = t->sockets[r] >= 0 ? CAB_OK : admit(t, listener, meeting);
        r += t->sockets[r] >= 0;
    }
    close(listener);
    return status;
}

static cab_status reach_first(tcp *t, const struct addrinfo *list, const char *address, const char *port)
{
    const hello h = {magic, t->rank, t->size};
    for (double waited = 0; waited < meeting; waited += 0.05) {
        t->sockets[0] = open_socket(list, false, 0);
        if (t->sockets[0] >= 0) {
            hurry(t->sockets[0]);
            return put_all(t->sockets[0], &h, sizeof h, meeting);
        }
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    return cab_fail_errno(CAB_EBACKEND, errno, "rank 0 does not listen at %s, port %s", address, port);
}

static cab_status tcp_open(const cab_launch *launch, int *rank, int *size, void **state)
{
    struct addrinfo *list = NULL, hints = {.ai_socktype = SOCK_STREAM};
    const char *address = NULL;
    char port[16];
    tcp *t = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&t, 1, "a communicator"));
    *state = t;
    t->rank = *rank = launch->rank;
    t->size = *size = launch->size;
    if (t->rank >= t->size)
        CAB_GOTO(cab_fail(CAB_EARG, "RANK is %d of WORLD_SIZE %d", t->rank, t->size));
    CAB_GOTO(CAB_NEW(&t->sockets, (size_t)t->size, "a communicator"));
    for (int r = 0; r < t->size; r++)
        t->sockets[r] = -1;
    if (t->size == 1)
        return CAB_OK;
    CAB_GOTO(find_address(&address, port));
    if (getaddrinfo(address, port, &hints, &list) != 0)
        CAB_GOTO(cab_fail(CAB_EARG, "MASTER_ADDR: \"%.64s\" is no host", address));
    status = t->rank == 0 ? admit_all(t, list, address, port) : reach_first(t, list, address, port);
    freeaddrinfo(list);
done:
    if (status != CAB_OK) {
        tcp_close(t);
        *state = NULL;
    }
    return status;
}

const cab_transport cab_transport_tcp = {.name = "torchrun",
                                         .open = tcp_open,
                                         .send = tcp_send,
                                         .receive = tcp_receive,
                                         .abort = tcp_abort,
                                         .close = tcp_close};
