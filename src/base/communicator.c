/* communicator.c - finding the other ranks, and collectives made of messages between two.
 *
 * Small collectives go by rank 0, which hears the ranks one after another: the first that does not answer is the one to
 * be named. Large ones are cut into pieces, one of each rank: every rank sends its piece of the data to the others, and
 * adds up what it got in the order of ranks. */
#include "base/communicator_internal.h"
#include "base/log.h"
#include "base/memory.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { HOST_MAX = 64, RANKS_MAX = 1 << 16 };

/* Who a rank is. */
typedef struct identity {
    char host[HOST_MAX];
    long process;
} identity;

struct cab_communicator {
    const cab_transport *transport;
    void *state;
    int rank, size, local_rank, local_size;
    double limit;
    identity *ranks;
    float *scratch;
    size_t scratch_capacity;
};

/* ---- waiting ------------------------------------------------------------------------------------------------------ */

static const double yielding = 0.005; /* seconds of waiting, after which it sleeps in between */

cab_patience cab_patience_begin(double limit)
{
    return (cab_patience){.begun = cab_seconds(), .limit = limit};
}

cab_status cab_patience_wait(const cab_patience *patience)
{
    const double waited = cab_seconds() - patience->begun;
    if (patience->limit > 0 && waited > patience->limit)
        return cab_fail(CAB_EBACKEND, "no answer for %.0f s (train.timeout)", patience->limit);
    if (waited < yielding)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    return CAB_OK;
}

/* ---- what the environment says ------------------------------------------------------------------------------------ */

/* A whole number in the environment; -1: there is none. */
static int number_of(const char *name)
{
    const char *text = getenv(name);
    char *end = NULL;
    if (text == NULL || text[0] < '0' || text[0] > '9')
        return -1;
    const long value = strtol(text, &end, 10);
    return *end == '\0' && value >= 0 && value <= RANKS_MAX ? (int)value : -1;
}

/* Of several launchers the innermost counts: Open MPI's and PMI's variables, then a step of Slurm's, then torchrun's. */
static cab_launch find_launch(void)
{
    static const struct {
        const char *size, *rank;
        bool torchrun, alone; /* alone: a size of 1 says that there is nothing to meet */
    } known[] = {{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", false, false},
                 {"PMI_SIZE", "PMI_RANK", false, false},
                 {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", false, true},
                 {"WORLD_SIZE", "RANK", true, false}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const int size = number_of(known[i].size), rank = number_of(known[i].rank);
        if (size >= 1 && rank >= 0 && !(known[i].alone && size == 1))
            return (cab_launch){.by = known[i].size, .rank = rank, .size = size, .torchrun = known[i].torchrun};
    }
    return (cab_launch){0};
}

static cab_status choose_transport(const cab_launch *launch, const cab_transport **transport)
{
    *transport = &cab_transport_tcp;
    if (launch->torchrun || launch->size == 1)
        return CAB_OK;
#ifdef CAB_WITH_MPI
    *transport = &cab_transport_mpi;
    return CAB_OK;
#else
    return cab_fail(
        CAB_EUNSUPPORTED,
        "%s says that this is one of %d processes, and this build has no MPI to meet the others; build with "
        "MPI (Debian: libopenmpi-dev), start them by torchrun, or start one",
        launch->by, launch->size);
#endif
}

/* ---- opening and closing ------------------------------------------------------------------------------------------ */

static cab_status meet(cab_communicator *c)
{
    identity own = {.process = (long)getpid()};
    if (gethostname(own.host, sizeof own.host - 1) != 0)
        snprintf(own.host, sizeof own.host, "?");
    CAB_TRY(CAB_NEW(&c->ranks, (size_t)c->size, "ranks"));
    CAB_TRY(cab_communicator_gather(c, &own, sizeof own, c->ranks));
    for (int r = 0; r < c->size; r++) {
        const bool here = strcmp(c->ranks[r].host, own.host) == 0;
        c->local_size += here;
        c->local_rank += here && r < c->rank;
    }
    return CAB_OK;
}

cab_status cab_communicator_open(cab_communicator **out)
{
    const cab_launch launch = find_launch();
    const cab_transport *transport = NULL;
    cab_communicator *c = NULL;
    cab_status status;
    *out = NULL;
    if (launch.by == NULL)
        return CAB_OK;
    CAB_TRY(choose_transport(&launch, &transport));
    CAB_TRY(CAB_NEW(&c, 1, "a communicator"));
    CAB_GOTO(transport->open(&launch, &c->rank, &c->size, &c->state));
    c->transport = transport;
    if (c->size != launch.size)
        CAB_GOTO(
            cab_fail(CAB_EUNSUPPORTED,
                     "%s says that this is one of %d processes, %s sees %d; with Slurm, srun --mpi=pmix tells them of "
                     "each other",
                     launch.by, launch.size, transport->name, c->size));
    status = meet(c);
done:
    if (status != CAB_OK)
        cab_communicator_close(c);
    else
        *out = c;
    return status;
}

void cab_communicator_close(cab_communicator *c)
{
    if (c == NULL)
        return;
    if (c->transport != NULL)
        c->transport->close(c->state);
    cab_free(c->ranks);
    cab_free(c->scratch);
    cab_free(c);
}

/* Where all ranks fail alike, rank 0 says it, and the others are ended before they do. */
void cab_communicator_abort(cab_communicator *c, cab_status status)
{
    if (c == NULL)
        return;
    char text[1024];
    snprintf(text, sizeof text, "%s", cab_error_text());
    signal(SIGTERM, SIG_DFL);
    if (c->rank > 0)
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    fprintf(stderr, "cab: rank %d of %d (%s, process %ld): %s\n", c->rank, c->size, c->ranks[c->rank].host,
            c->ranks[c->rank].process, text);
    fflush(stderr);
    c->transport->abort(c->state, status);
    _exit(status);
}

/* ---- the ranks ---------------------------------------------------------------------------------------------------- */

int cab_communicator_rank(const cab_communicator *c)
{
    return c != NULL ? c->rank : 0;
}

int cab_communicator_size(const cab_communicator *c)
{
    return c != NULL ? c->size : 1;
}

int cab_communicator_local_rank(const cab_communicator *c)
{
    return c != NULL ? c->local_rank : 0;
}

int cab_communicator_local_size(const cab_communicator *c)
{
    return c != NULL ? c->local_size : 1;
}

void cab_communicator_limit(cab_communicator *c, double seconds)
{
    if (c != NULL)
        c->limit = seconds;
}

double cab_communicator_patience(const cab_communicator *c)
{
    return c != NULL ? c->limit : 0;
}

/* ---- messages ----------------------------------------------------------------------------------------------------- */

/* Adds to a failure whose it is. */
static cab_status of_rank(const cab_communicator *c, int rank, cab_status status)
{
    char text[512];
    if (status == CAB_OK)
        return CAB_OK;
    snprintf(text, sizeof text, "%s", cab_error_text());
    if (c->ranks == NULL || c->ranks[rank].process == 0)
        return cab_fail(status, "rank %d of %d: %s", rank, c->size, text);
    return cab_fail(status, "rank %d of %d (%s, process %ld): %s", rank, c->size, c->ranks[rank].host,
                    c->ranks[rank].process, text);
}

/* Rank 0 hears all; who waits for rank 0 waits longer, so that rank 0 is the first to say who is missing. */
static double limit_of(const cab_communicator *c, int peer)
{
    return peer == 0 && c->limit > 0 ? 1.5 * c->limit + 5 : c->limit;
}

cab_status cab_communicator_send(cab_communicator *c, int to, const void *data, size_t bytes)
{
    return of_rank(c, to, c->transport->send(c->state, to, data, bytes, limit_of(c, to)));
}

cab_status cab_communicator_receive(cab_communicator *c, int from, void *data, size_t bytes)
{
    return of_rank(c, from, c->transport->receive(c->state, from, data, bytes, limit_of(c, from)));
}

cab_status cab_communicator_share(cab_communicator *c, void *data, size_t bytes)
{
    if (c == NULL)
        return CAB_OK;
    if (c->rank > 0)
        return cab_communicator_receive(c, 0, data, bytes);
    for (int r = 1; r < c->size; r++)
        CAB_TRY(cab_communicator_send(c, r, data, bytes));
    return CAB_OK;
}

cab_status cab_communicator_gather(cab_communicator *c, const void *own, size_t bytes, void *all)
{
    const int rank = cab_communicator_rank(c), size = cab_communicator_size(c);
    memcpy((char *)all + (size_t)rank * bytes, own, bytes);
    if (size == 1)
        return CAB_OK;
    if (rank > 0)
        CAB_TRY(cab_communicator_send(c, 0, own, bytes));
    for (int r = 1; rank == 0 && r < size; r++)
        CAB_TRY(cab_communicator_receive(c, r, (char *)all + (size_t)r * bytes, bytes));
    return cab_communicator_share(c, all, (size_t)size * bytes);
}

cab_status cab_communicator_sum(cab_communicator *c, double *values, int n)
{
    const size_t count = (size_t)n, size = (size_t)cab_communicator_size(c);
    double *all = NULL;
    if (size == 1)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&all, size * count, "sums over ranks"));
    cab_status status = cab_communicator_gather(c, values, count * sizeof *values, all);
    for (size_t i = 0; status == CAB_OK && i < count; i++) {
        values[i] = 0;
        for (size_t r = 0; r < size; r++)
            values[i] += all[r * count + i];
    }
    cab_free(all);
    return status;
}

/* ---- large data --------------------------------------------------------------------------------------------------- */

static cab_status check_pieces(const cab_communicator *c, size_t count)
{
    if (count % (size_t)c->size != 0)
        return cab_fail(CAB_EARG, "%zu elements do not divide into %d pieces", count, c->size);
    if (c->transport->exchange == NULL)
        return cab_fail(
            CAB_EUNSUPPORTED,
            "ranks that torchrun's variables describe train on GPUs (device: cuda); on processors start them "
            "by mpirun or srun");
    return CAB_OK;
}

/* After an exchange that did not end: whose fault it is. Who is alive has run out of time, too, and comes here; rank 0 hears them and
 * tells the others. Gives the failure with a name. */
static cab_status call_roll(const cab_communicator *c, cab_status failure)
{
    const double enough = 3;
    char here = 0, text[256];
    int missing = -1;
    snprintf(text, sizeof text, "%s", cab_error_text());
    if (c->rank > 0) {
        if (c->transport->send(c->state, 0, &here, sizeof here, enough) != CAB_OK ||
            c->transport->receive(c->state, 0, &missing, sizeof missing, enough * c->size) != CAB_OK)
            missing = 0;
    } else {
        for (int r = 1; r < c->size; r++)
            if (c->transport->receive(c->state, r, &here, sizeof here, enough) != CAB_OK && missing < 0)
                missing = r;
        for (int r = 1; r < c->size; r++)
            if (r != missing)
                (void)c->transport->send(c->state, r, &missing, sizeof missing, enough);
    }
    if (missing < 0)
        return cab_fail(failure, "%s", text);
    return of_rank(c, missing, cab_fail(failure, "no answer for %.0f s (train.timeout)", c->limit));
}

cab_status cab_communicator_sum_scatter(cab_communicator *c, float *data, size_t count)
{
    if (cab_communicator_size(c) == 1)
        return CAB_OK;
    CAB_TRY(check_pieces(c, count));
    const size_t size = (size_t)c->size, piece = count / size;
    CAB_TRY(CAB_GROW(&c->scratch, &c->scratch_capacity, count, "an exchange between ranks"));
    const cab_status status = c->transport->exchange(c->state, data, c->scratch, piece, c->limit);
    if (status != CAB_OK)
        return call_roll(c, status);
    float *own = data + (size_t)c->rank * piece;
    memcpy(own, c->scratch, piece * sizeof *own);
    for (size_t r = 1; r < size; r++) {
        const float *other = c->scratch + r * piece;
        for (size_t i = 0; i < piece; i++)
            own[i] += other[i];
    }
    return CAB_OK;
}

cab_status cab_communicator_all_gather(cab_communicator *c, float *data, size_t count)
{
    if (cab_communicator_size(c) == 1)
        return CAB_OK;
    CAB_TRY(check_pieces(c, count));
    const cab_status status = c->transport->collect(c->state, data, count / (size_t)c->size, c->limit);
    return status == CAB_OK ? CAB_OK : call_roll(c, status);
}

const char *cab_communicator_describe(char *buffer, size_t size)
{
#ifdef CAB_WITH_MPI
    cab_transport_mpi_describe(buffer, size);
#else
    snprintf(buffer, size, "torchrun's variables alone (built without MPI)");
#endif
    return buffer;
}
