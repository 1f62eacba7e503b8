/* cudnn.h - operation graphs for cuDNN, written with its backend interface (cuDNN 9, no C++ frontend).
 *
 *   cab_cudnn_graph *g;  cab_cudnn_graph_new(&g);
 *   p = cab_cudnn_virtual(g, CUDNN_DATA_FLOAT, dims);  cab_cudnn_matmul(g, q, k, p); ...
 *   cab_cudnn_graph_plan(g, handle)       CAB_EUNSUPPORTED when no engine of the library takes the graph
 *   cab_cudnn_graph_run(g, handle, n, ids, data, workspace)
 *
 * Recorders keep the first failure and do nothing after it; it comes out of cab_cudnn_graph_plan(). A tensor is a dense or
 * strided array of four dimensions, the outermost first. */
#ifndef CAB_OPS_CUDA_CUDNN_H
#define CAB_OPS_CUDA_CUDNN_H

#include "base/error.h"

#include <cudnn.h>
#include <stdbool.h>

enum { CAB_CUDNN_DIMS = 4, CAB_CUDNN_ALIGNMENT = 16 /* bytes, of every tensor's first element */ };

/* The oldest version with which the tests of attention have passed, those of lengths that are no multiple of its tiles among
 * them. */
enum { CAB_CUDNN_OLDEST = 91400 };

typedef struct cab_cudnn_graph cab_cudnn_graph;
/* Belongs to its graph; NULL once a recorder has failed. */
typedef const struct cab_cudnn_tensor cab_cudnn_tensor;

cab_status cab_cudnn_graph_new(cab_cudnn_graph **graph);
void cab_cudnn_graph_free(cab_cudnn_graph *graph);

/* Memory that a run is given under `id`, 1 and up. strides NULL: dense. */
cab_cudnn_tensor *cab_cudnn_memory(cab_cudnn_graph *g, int64_t id, cudnnDataType_t type, const int64_t *dims,
                                   const int64_t *strides);
/* A value between two operations, which cuDNN need not store. */
cab_cudnn_tensor *cab_cudnn_virtual(cab_cudnn_graph *g, cudnnDataType_t type, const int64_t *dims,
                                    const int64_t *strides);
/* One fp32 constant; the graph remembers it. */
cab_cudnn_tensor *cab_cudnn_constant(cab_cudnn_graph *g, float value);

/* y = mode(x), mode(x, b) or, for CUDNN_POINTWISE_BINARY_SELECT, select ? x : b. b and select may be NULL. */
void cab_cudnn_pointwise(cab_cudnn_graph *g, cudnnPointwiseMode_t mode, cab_cudnn_tensor *x, cab_cudnn_tensor *b,
                         cab_cudnn_tensor *select, cab_cudnn_tensor *y);
/* y, I32, of x's dimensions: each element's index along `axis`. */
void cab_cudnn_index(cab_cudnn_graph *g, int axis, cab_cudnn_tensor *x, cab_cudnn_tensor *y);
/* c = a b over the last two dimensions, sums in fp32. */
void cab_cudnn_matmul(cab_cudnn_graph *g, cab_cudnn_tensor *a, cab_cudnn_tensor *b, cab_cudnn_tensor *c);
/* Over the dimensions of which y has one. */
void cab_cudnn_reduce(cab_cudnn_graph *g, cudnnReduceTensorOp_t mode, cab_cudnn_tensor *x, cab_cudnn_tensor *y);
/* y: the elements of x under other dimensions and strides. */
void cab_cudnn_reshape(cab_cudnn_graph *g, cab_cudnn_tensor *x, cab_cudnn_tensor *y);

/* Chooses an engine for the handle's device. CAB_EUNSUPPORTED with cuDNN's words when there is none. */
cab_status cab_cudnn_graph_plan(cab_cudnn_graph *g, cudnnHandle_t handle);
/* Bytes a run needs, after planning. */
size_t cab_cudnn_graph_workspace(const cab_cudnn_graph *g);
/* data[i]: device address of the tensor with id ids[i]. Runs on the handle's stream; may be captured. */
cab_status cab_cudnn_graph_run(const cab_cudnn_graph *g, cudnnHandle_t handle, int n, const int64_t *ids,
                               void *const *data, void *workspace);

/* CAB_OK, or CAB_EBACKEND with what cuDNN says; `what` names the call. */
cab_status cab_cudnn_check(cudnnStatus_t status, const char *what);

#endif
