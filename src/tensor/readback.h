/* readback.h - results of a list's runs that the host reads without stopping the device: those of a run are copied to host memory
 * behind it, while the next run may be on its way, and are taken in the order of the runs. */
#ifndef CAB_TENSOR_READBACK_H
#define CAB_TENSOR_READBACK_H

#include "tensor/graph.h"

enum { CAB_READBACKS = 8 }; /* runs whose results may wait to be taken */

typedef struct cab_readback cab_readback;

/* Of n tensors, a reference: inputs, states or kept ones of a planned graph, which must outlive this; NULLs are left out. */
cab_status cab_readback_new(cab_graph *g, int n, cab_tensor *const *tensors, cab_readback **readback);
void cab_readback_free(cab_readback *readback);
/* Asks for the results of the run that was asked for last; CAB_READBACKS at most may wait. */
cab_status cab_readback_ask(cab_readback *readback);
int cab_readback_waiting(const cab_readback *readback);
/* The oldest that wait: waits for their run; copies tensors[i] to `to` + i * stride bytes. */
cab_status cab_readback_take(cab_readback *readback, size_t stride, void *to);

#endif
