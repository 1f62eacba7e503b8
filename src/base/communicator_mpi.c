/* communicator_mpi.c - ranks that mpirun or srun started. Every call of MPI that waits is made in two steps, so that it
 * has a time limit. MPI's own failures end all ranks. */
#ifdef CAB_WITH_MPI
#include "base/communicator_internal.h"

#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>

enum { TAG = 1, PART = 1 << 30 /* bytes of one message */ };

static cab_status finish(MPI_Request *request, double limit)
{
    const cab_patience patience = cab_patience_begin(limit);
    for (int done = 0;;) {
        MPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (done)
            return CAB_OK;
        CAB_TRY(cab_patience_wait(&patience));
    }
}

static cab_status mpi_open(const cab_launch *launch, int *rank, int *size, void **state)
{
    int begun = 0, ended = 0, provided = 0;
    (void)launch;
    *state = NULL;
    MPI_Finalized(&ended);
    if (ended)
        return cab_fail(CAB_EUNSUPPORTED, "a process can meet the other ranks once only");
    MPI_Initialized(&begun);
    if (!begun)
        MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, rank);
    MPI_Comm_size(MPI_COMM_WORLD, size);
    return CAB_OK;
}

static cab_status mpi_send(void *state, int to, const void *data, size_t bytes, double limit)
{
    (void)state;
    for (size_t done = 0; done < bytes; done += PART) {
        const int part = (int)(bytes - done < PART ? bytes - done : PART);
        MPI_Request request;
        MPI_Isend((const char *)data + done, part, MPI_BYTE, to, TAG, MPI_COMM_WORLD, &request);
        CAB_TRY(finish(&request, limit));
    }
    return CAB_OK;
}

static cab_status mpi_receive(void *state, int from, void *data, size_t bytes, double limit)
{
    (void)state;
    for (size_t done = 0; done < bytes; done += PART) {
        const int part = (int)(bytes - done < PART ? bytes - done : PART);
        MPI_Request request;
        MPI_Irecv((char *)data + done, part, MPI_BYTE, from, TAG, MPI_COMM_WORLD, &request);
        CAB_TRY(finish(&request, limit));
    }
    return CAB_OK;
}

static cab_status of_all(cab_status status)
{
    char text[256];
    if (status == CAB_OK)
        return CAB_OK;
    snprintf(text, sizeof text, "%s", cab_error_text());
    return cab_fail(status, "an exchange of all ranks: %s", text);
}

static cab_status mpi_exchange(void *state, const float *data, float *into, size_t piece, double limit)
{
    MPI_Request request;
    (void)state;
    if (piece > INT_MAX)
        return cab_fail(CAB_EARG, "pieces of %zu elements, expected up to %d", piece, INT_MAX);
    MPI_Ialltoall(data, (int)piece, MPI_FLOAT, into, (int)piece, MPI_FLOAT, MPI_COMM_WORLD, &request);
    return of_all(finish(&request, limit));
}

static cab_status mpi_collect(void *state, float *data, size_t piece, double limit)
{
    MPI_Request request;
    (void)state;
    if (piece > INT_MAX)
        return cab_fail(CAB_EARG, "pieces of %zu elements, expected up to %d", piece, INT_MAX);
    MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, (int)piece, MPI_FLOAT, MPI_COMM_WORLD, &request);
    return of_all(finish(&request, limit));
}

static void mpi_abort(void *state, int code)
{
    (void)state;
    MPI_Abort(MPI_COMM_WORLD, code);
}

static void mpi_close(void *state)
{
    (void)state;
    MPI_Finalize();
}

void cab_transport_mpi_describe(char *buffer, size_t size)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    MPI_Get_library_version(version, &length);
    snprintf(buffer, size, "%.*s", (int)strcspn(version, ",\n"), version);
}

const cab_transport cab_transport_mpi = {.name = "MPI",
                                         .open = mpi_open,
                                         .send = mpi_send,
                                         .receive = mpi_receive,
                                         .exchange = mpi_exchange,
                                         .collect = mpi_collect,
                                         .abort = mpi_abort,
                                         .close = mpi_close};
#else
typedef int cab_no_mpi; /* a file of ISO C is not empty */
#endif
