/* communicator_internal.h - how two ranks reach one another, shared by communicator*.c only. */
#ifndef CAB_BASE_COMMUNICATOR_INTERNAL_H
#define CAB_BASE_COMMUNICATOR_INTERNAL_H

#include "base/communicator.h"

/* What the environment says of this process. */
typedef struct cab_launch {
    const char *by; /* the variable that says so, for errors; NULL: started alone */
    int rank, size; /* rank -1: the transport finds it */
    bool torchrun;
} cab_launch;

/* The functions of a way to reach other ranks. `limit` are seconds, 0: without end. Failures, CAB_EBACKEND, say what
 * happened ("no answer for 60 s"); the caller says of whom. */
typedef struct cab_transport {
    const char *name;
    cab_status (*open)(const cab_launch *launch, int *rank, int *size, void **state);
    cab_status (*send)(void *state, int to, const void *data, size_t bytes, double limit);
    cab_status (*receive)(void *state, int from, void *data, size_t bytes, double limit);
    /* Of data, `size` pieces of `piece` elements. exchange: into[r * piece ...] becomes this rank's piece of rank r's data.
     * collect: data's pieces become what each rank has in its own. NULL: there is none. */
    cab_status (*exchange)(void *state, const float *data, float *into, size_t piece, double limit);
    cab_status (*collect)(void *state, float *data, size_t piece, double limit);
    void (*abort)(void *state, int code); /* ends all ranks, as far as it can; the caller ends this process */
    void (*close)(void *state);
} cab_transport;

extern const cab_transport cab_transport_tcp;
#ifdef CAB_WITH_MPI
extern const cab_transport cab_transport_mpi;
/* "Open MPI 4.1.4" */
void cab_transport_mpi_describe(char *buffer, size_t size);
#endif

/* Waiting without holding a processor: at once, then soon, then every tenth of a millisecond. Returns CAB_EBACKEND
 * past `limit` seconds. */
typedef struct cab_patience {
    double begun, limit;
} cab_patience;
cab_patience cab_patience_begin(double limit);
cab_status cab_patience_wait(const cab_patience *patience);

#endif
