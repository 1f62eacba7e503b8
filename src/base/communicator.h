/* communicator.h - the processes that carry out a run together. One is a rank, of 0 to size - 1; rank 0 writes.
 *
 * mpirun, srun and torchrun start ranks and tell each by its environment. A process that was started alone has no
 * communicator: everything here accepts NULL, which is a size of 1, and then does nothing.
 *
 * Collectives are called by all ranks in the same order, each by one thread. Sums are taken in the order of ranks, so
 * that they have the same bits on every rank and in every run. A rank that does not answer within the time limit is
 * named in the failure, CAB_EBACKEND. Data between GPUs is the backend's part (backend.h). */
#ifndef CAB_BASE_COMMUNICATOR_H
#define CAB_BASE_COMMUNICATOR_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct cab_communicator cab_communicator;

/* Meets the other ranks, if the environment says that there are some; else sets *out to NULL. CAB_EUNSUPPORTED if they
 * were started in a way that this build cannot serve. Of a process, the first call alone may find any. */
cab_status cab_communicator_open(cab_communicator **out);
/* Leaves the others; all ranks do this. */
void cab_communicator_close(cab_communicator *c);
/* Ends all ranks, this one first, with `status` as exit code, after a line of the error's text and this rank's name.
 * A rank that fails alone cannot end in another way: the others wait for it in a collective. Returns if c is NULL. */
void cab_communicator_abort(cab_communicator *c, cab_status status);

int cab_communicator_rank(const cab_communicator *c);
int cab_communicator_size(const cab_communicator *c);
/* Counted among the ranks of this host, and how many these are. */
int cab_communicator_local_rank(const cab_communicator *c);
int cab_communicator_local_size(const cab_communicator *c);
/* Seconds that one rank waits for another from here on; 0, as at the start: without end. */
void cab_communicator_limit(cab_communicator *c, double seconds);

/* That limit. */
double cab_communicator_patience(const cab_communicator *c);

/* Gives `bytes` of every rank to all, in the order of ranks; all: size * bytes. For small things. */
cab_status cab_communicator_gather(cab_communicator *c, const void *own, size_t bytes, void *all);
/* Gives what rank 0 has in data to all. */
cab_status cab_communicator_share(cab_communicator *c, void *data, size_t bytes);
/* Adds n values over the ranks. */
cab_status cab_communicator_sum(cab_communicator *c, double *values, int n);
/* From one rank to another. */
cab_status cab_communicator_send(cab_communicator *c, int to, const void *data, size_t bytes);
cab_status cab_communicator_receive(cab_communicator *c, int from, void *data, size_t bytes);

/* What follows cuts data, of `count` elements, into `size` equal pieces, one of each rank; size divides count.
 * CAB_EUNSUPPORTED without MPI and more than one rank. */
/* Replaces this rank's piece by the sum over all ranks. What is left in the other pieces is of no use. */
cab_status cab_communicator_sum_scatter(cab_communicator *c, float *data, size_t count);
/* Replaces every rank's piece by what that rank has there. */
cab_status cab_communicator_all_gather(cab_communicator *c, float *data, size_t count);

/* What this build can meet others by, one line, for cab version. Returns `buffer`. */
const char *cab_communicator_describe(char *buffer, size_t size);

#endif
