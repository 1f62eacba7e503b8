/* graph.h - a training step is a list: record once, append backward, plan, run.
 *
 *   cab_graph *g;  cab_graph_new(backend, &g);
 *   ... model code records ops (src/ops/ops.h); nothing runs, the first shape error sticks to the graph ...
 *   cab_graph_backward(g, ...);   appends one fused backward node per node that needs one
 *   cab_graph_plan(g, &plan);     lifetimes -> offsets in one arena; the plan can be printed before anything runs
 *   cab_graph_run(g);             as often as wanted; inputs may be rewritten between runs
 *
 * Recorders return NULL once the graph has failed and accept NULL, so model code stays free of checks; the failure
 * comes out of cab_graph_plan(). */
#ifndef CAB_TENSOR_GRAPH_H
#define CAB_TENSOR_GRAPH_H

#include "tensor/backend.h"
#include "tensor/tensor.h"

/* Of a recorded node; a backend may make one of CAB_MORE_IN more inputs of it (rewrite.h). */
enum { CAB_MAX_IN = 16, CAB_MAX_OUT = 6, CAB_MORE_IN = 2 };

typedef struct cab_graph cab_graph;
typedef struct cab_node cab_node;
typedef struct cab_op cab_op;

/* What is true of an op on any device; see docs/adding-an-op.md. Its kernels stand in the tables of the backends (kernel.h). */
struct cab_op {
    const char *name;
    /* Bit i: backward reads in[i]; bit 16 + i: backward reads out[i]. What is not named here is NULL in the backward
     * node, and its memory may be gone by then. */
    uint32_t saves;
    /* The backward kernel computes the outputs as well, so that the forward node is dropped once backward is appended.
     * For fused losses, which produce values and gradients in one pass. */
    bool backward_computes_outputs;
    /* Changes memory that outlives a run, other than its inputs of kind CAB_STATE: never dead, and in eager mode left to
     * cab_graph_run(). */
    bool effect;
    /* Floating-point operations of this node's matrix products (2 per multiply-add), forward or backward as
     * node->backward says, counting only the gradients asked for; for benchmarks. NULL: none. */
    double (*flops)(const cab_node *node);
};
#define CAB_SAVE_IN(i) (UINT32_C(1) << (i))
#define CAB_SAVE_OUT(i) (UINT32_C(1) << (16 + (i)))

struct cab_node {
    const cab_op *op;
    bool backward;
    bool skip; /* dead, computed by other nodes (rewrite.h), or its outputs are computed by its backward node */
    int n_in, n_out;
    int segment; /* recompute segment, -1 for none */
    cab_tensor *in[CAB_MAX_IN + CAB_MORE_IN];
    cab_tensor *out[CAB_MAX_OUT];
    cab_tensor *gout[CAB_MAX_OUT]; /* backward: gradient of out[i], may be a view; NULL: nothing flows back (zero) */
    /* backward: where the gradient of in[i] goes; NULL when nobody wants it. Same shape as in[i]. Of an activation:
     * same dtype, and when in[i] is a column view so is gin[i] (mind gin[i]->ld, which need not equal in[i]->ld). Of a
     * parameter: fp32, dense. */
    cab_tensor *gin[CAB_MAX_IN + CAB_MORE_IN];
    uint32_t accumulate;    /* bit i: gin[i] += , else gin[i] = . Parameters always accumulate. */
    const void *attributes; /* the op's own struct, copied when recorded */
    size_t attributes_size;
    const struct cab_kernel_row *kernel; /* that computes it */
    size_t scratch_bytes;
    void *scratch;
    size_t prepared_bytes;
    void *prepared; /* what kernel->prepare writes, or NULL */
};

cab_status cab_graph_new(cab_backend *backend, cab_graph **graph);
void cab_graph_free(cab_graph *graph);
cab_backend *cab_graph_backend(const cab_graph *graph);
/* For ops that can be recorded in more than one way: whether the backend has a kernel for such a node, of which op, in, n_in and
 * attributes are set. Its inputs may be descriptions of tensors that are not recorded yet. */
bool cab_graph_supports(const cab_graph *g, const cab_node *node);

/* ---- recording --------------------------------------------------------------------------------------------------- */

/* A tensor the host writes before runs (and may read). Its memory exists from here on. */
cab_tensor *cab_graph_input(cab_graph *g, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape);
/* One fp32 the host may change between runs: learning rate, a loss weight. */
cab_tensor *cab_graph_scalar(cab_graph *g, const char *name, float value);
/* Zeroed memory that runs read and write: a recurrent state, a cache. */
cab_tensor *cab_graph_state(cab_graph *g, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape);

/* For ops: a fresh activation, to be the output of the node recorded next. */
cab_tensor *cab_graph_activation(cab_graph *g, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape);
/* The same with rows that begin at multiples of so many elements. */
cab_tensor *cab_graph_padded(cab_graph *g, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape,
                             int64_t multiple);
/* For ops: appends a node. attributes are copied. In eager mode the node runs at once, unless it changes memory that
 * outlives a run (states, gradients of parameters, cab_op.effect): that is left to cab_graph_run(), which runs the whole
 * list again. */
void cab_graph_append(cab_graph *g, const cab_op *op, int n_in, cab_tensor *const *in, int n_out,
                      cab_tensor *const *out, const void *attributes, size_t attributes_size);
/* For ops: the sticky failure. Always returns NULL, so that `return cab_graph_fail(g, ...)` ends a recorder. Without a
 * format prefix; the op's name belongs into the text. Later failures are ignored. */
void *cab_graph_fail(cab_graph *g, cab_status status, const char *format, ...) CAB_PRINTF(3, 4);
/* True when the graph has failed or any of the tensors is NULL: recorders begin with it. */
bool cab_graph_failed(const cab_graph *g);
/* A parameter in the dtype a matrix product reads: itself, or its bf16 copy, made on first demand. */
cab_tensor *cab_graph_weight(cab_graph *g, cab_tensor *parameter, cab_dtype dtype);

/* Splits the columns of x into n parts of the given sizes, as views: no copy. The parts stand for x from here on: x, and
 * what x reshapes or is reshaped from, must not be used again. Parameters cannot be split or reshaped. */
void cab_split(cab_graph *g, cab_tensor *x, int n, const int64_t *sizes, cab_tensor **parts);
/* The same memory under another shape of the same number of elements; x must be dense. */
cab_tensor *cab_reshape(cab_graph *g, cab_tensor *x, int n_dim, const int64_t *shape);

/* Marks t as read by the host after runs. NULL is ignored. */
void cab_graph_keep(cab_graph *g, cab_tensor *t);

/* Nodes recorded between begin and end are recomputed in the backward pass instead of keeping their activations; what
 * leaves the segment (is used by a node outside) stays. Bitwise equal to no recompute. Segments do not nest. */
void cab_graph_segment_begin(cab_graph *g);
void cab_graph_segment_end(cab_graph *g);

/* Appends the backward pass of sum_i <seeds[i], outputs[i]>, once per graph. A scalar loss has a scalar seed: its weight.
 * Seeds are inputs or parameters of the outputs' shapes and dtypes. An output is no view, stands in the list once and is
 * read by no other node: its seed is its whole gradient. Gradients of trainable parameters are accumulated into
 * parameter->grad. cab_graph_gradient() afterwards gives the gradient tensor of any non-parameter that got one. */
void cab_graph_backward(cab_graph *g, int n, cab_tensor *const *outputs, cab_tensor *const *seeds);
/* Before backward: asks that a gradient for input `t`, not a parameter, be computed (tests). It is kept. */
void cab_graph_want_gradient(cab_graph *g, cab_tensor *t);
cab_tensor *cab_graph_gradient(const cab_graph *g, const cab_tensor *t);
/* After planning: whether a node that runs adds to this parameter's gradient. */
bool cab_graph_trains(const cab_graph *g, const cab_tensor *parameter);

/* ---- planning and running ---------------------------------------------------------------------------------------- */

typedef struct cab_plan {
    size_t arena;          /* bytes of the arena: the peak of activations, gradients of activations and scratch */
    size_t arena_unshared; /* what it would be if nothing shared memory */
    size_t inputs;         /* inputs and states */
    int nodes, dropped;    /* nodes that run; nodes that turned out to be dead */
    int tensors;
    double flops; /* of the matrix products of one run */
} cab_plan;

/* Drops dead nodes, computes lifetimes and offsets. Nothing is allocated yet. The first recording failure comes out
 * here. plan may be NULL. */
cab_status cab_graph_plan(cab_graph *g, cab_plan *plan);
/* Allocates the arena (fails with the plan's numbers when memory is short) and runs the list. */
cab_status cab_graph_run(cab_graph *g);

/* Whole tensors in their own dtype, cab_tensor_bytes() of them: rows that are padded come with their padding. Inputs, states,
 * kept tensors and parameters only. */
cab_status cab_tensor_write(cab_graph *g, cab_tensor *t, const void *from);
cab_status cab_tensor_read(cab_graph *g, const cab_tensor *t, void *to);
/* What input t will hold in the next run, while the last one may still be under way: the copy goes on beside it. Takes as much
 * device memory again as t on a device where that helps. */
cab_status cab_tensor_write_ahead(cab_graph *g, cab_tensor *t, const void *from);
/* Tensor i to `to` + i * stride bytes, n of them; NULLs are left out. Kept tensors of up to 256 bytes stand together: where
 * all are such, the device is waited for once. */
cab_status cab_tensors_read(cab_graph *g, int n, cab_tensor *const *tensors, size_t stride, void *to);
/* One fp32 scalar. */
cab_status cab_scalar_write(cab_graph *g, cab_tensor *t, float value);
cab_status cab_scalar_read(cab_graph *g, const cab_tensor *t, float *value);

/* For tests, benchmarks and printing: the list as it stands, and seconds spent per node when timing is on. */
int cab_graph_nodes(const cab_graph *g);
double cab_node_flops(const cab_node *node);
/* What the node reads and writes, everything once. */
double cab_node_bytes(const cab_node *node);
const cab_node *cab_graph_node(const cab_graph *g, int index);
void cab_graph_time(cab_graph *g, bool on);
double cab_graph_node_seconds(const cab_graph *g, int index);

#endif
