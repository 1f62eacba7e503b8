/* graph.h - a training step is a list: record once, append backward, plan, run.
 *
 *   cab_graph *g;  cab_graph_new(backend, &g);
 *   ... model code records ops (src/ops/ops.h); nothing runs, the first shape error sticks to the graph ...
 *   cab_graph_backward(g, ...);   appends one fused backward node per node that needs one
 *   cab_graph_plan(g, &plan);     lifetimes -> offsets in one arena; the plan can be printed before anything runs
 *   cab_graph_run(g);             as often as wanted; inputs may be rewritten between runs
 *
 * Recorders are the functions that record ops. Once the graph has failed they return NULL, and they accept NULL, so
 * model code needs no checks. cab_graph_plan() returns the failure. The graph owns all tensors that it makes; they live
 * until cab_graph_free(). */
#ifndef CAB_TENSOR_GRAPH_H
#define CAB_TENSOR_GRAPH_H

#include "tensor/backend.h"
#include "tensor/params.h"
#include "tensor/tensor.h"

/* Inputs and outputs of a recorded node, at most. A backend that rewrites the list may give a node CAB_MORE_IN more
 * inputs (rewrite.h). */
enum { CAB_MAX_IN = 16, CAB_MAX_OUT = 6, CAB_MORE_IN = 2 };

typedef struct cab_graph cab_graph;
typedef struct cab_node cab_node;
typedef struct cab_op cab_op;

/* What is true of an op on any device; see docs/adding-an-op.md. Its kernels stand in the tables of the backends
 * (kernel.h). */
struct cab_op {
    const char *name;
    /* Bit i: backward reads in[i]; bit 16 + i: backward reads out[i]. What is not named here is NULL in the backward
     * node, and its memory may be gone by then. */
    uint32_t saves;
    /* The backward kernel computes the outputs as well, so that the forward node is dropped once backward is appended.
     * For fused losses, which produce values and gradients in one pass. */
    bool backward_computes_outputs;
    /* The op changes memory that outlives a run, other than inputs of kind CAB_STATE. Such a node is never dead, and in
     * eager mode it runs in cab_graph_run() only. */
    bool effect;
    /* Floating-point operations of this node's matrix products, 2 per multiply-add; of a backward node
     * (node->backward), of the gradients that are wanted. For benchmarks. NULL: none. */
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
    const struct cab_kernel_row *kernel; /* computes the node */
    size_t scratch_bytes;
    void *scratch; /* the node's own while it runs, in the arena; NULL: none */
    size_t prepared_bytes;
    void *prepared; /* what kernel->prepare writes, as long as the graph lives; NULL: none */
};

/* An empty graph on a backend, which must outlive it. CAB_ENOMEM. */
cab_status cab_graph_new(cab_backend *backend, cab_graph **graph);
/* Frees the graph, its tensors and its memory; parameters belong to their store and stay. NULL is ignored. */
void cab_graph_free(cab_graph *graph);
cab_backend *cab_graph_backend(const cab_graph *graph);
/* Whether the backend has a kernel for such a node, for ops that can be recorded in more than one way. Of the node, op,
 * in, n_in and attributes are set. Its inputs may be descriptions of tensors that are not recorded yet. */
bool cab_graph_supports(const cab_graph *g, const cab_node *node);

/* ---- recording --------------------------------------------------------------------------------------------------- */

/* A tensor that the host writes before runs, and may read. Its memory exists from here on. */
cab_tensor *cab_graph_input(cab_graph *g, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape);
/* One F32 number that the host may change between runs: the learning rate, a loss weight. */
cab_tensor *cab_graph_scalar(cab_graph *g, const char *name, float value);
/* Zeroed memory that runs read and write: a recurrent state, a cache. */
cab_tensor *cab_graph_state(cab_graph *g, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape);

/* For ops: a fresh activation, to be the output of the node recorded next. */
cab_tensor *cab_graph_activation(cab_graph *g, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape);
/* The same, but every row begins at a multiple of `multiple` elements. */
cab_tensor *cab_graph_padded(cab_graph *g, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape,
                             int64_t multiple);
/* For ops: appends a node. attributes are copied. In eager mode (CAB_EAGER=1) the node also runs at once, so that an
 * error shows where it is made; unless it changes memory that outlives a run (states, gradients of parameters,
 * cab_op.effect). cab_graph_run() runs the whole list again, with these nodes. */
void cab_graph_append(cab_graph *g, const cab_op *op, int n_in, cab_tensor *const *in, int n_out,
                      cab_tensor *const *out, const void *attributes, size_t attributes_size);
/* For ops: makes the graph fail with a status and a text, which begins with the op's name. Always returns NULL, so that
 * `return cab_graph_fail(g, ...)` ends a recorder. The first failure stays; later ones are ignored. */
void *cab_graph_fail(cab_graph *g, cab_status status, const char *format, ...) CAB_PRINTF(3, 4);
/* Whether the graph has failed. Recorders ask this first. */
bool cab_graph_failed(const cab_graph *g);
/* A parameter in the dtype that a matrix product reads: the parameter itself, or its bf16 copy, which is made on first
 * demand and belongs to the parameter. One in blocks (blocks.h) is read as it is: the product expands it. */
cab_tensor *cab_graph_weight(cab_graph *g, cab_tensor *parameter, cab_dtype dtype);

/* Splits the columns of x into n parts of sizes[i] columns each, as views: nothing is copied. From here on use the
 * parts, not x, nor another shape of x made by cab_reshape(). Parameters cannot be split or reshaped. */
void cab_split(cab_graph *g, cab_tensor *x, int n, const int64_t *sizes, cab_tensor **parts);
/* The same memory under another shape of the same number of elements; x must be dense. */
cab_tensor *cab_reshape(cab_graph *g, cab_tensor *x, int n_dim, const int64_t *shape);

/* Marks t as read by the host after runs. NULL is ignored. */
void cab_graph_keep(cab_graph *g, cab_tensor *t);

/* A segment: the activations of nodes recorded between begin and end are not kept for the backward pass but computed
 * again in it. What a node outside the segment reads is kept. The results are the same bits as without segments.
 * Segments do not nest. */
void cab_graph_segment_begin(cab_graph *g);
void cab_graph_segment_end(cab_graph *g);

/* Appends the backward pass of sum_i <seeds[i], outputs[i]>, once per graph. A scalar loss has a scalar seed, its
 * weight. Seeds are inputs or parameters of the outputs' shapes and dtypes. No output is a view, appears in `outputs`
 * twice, or is read by another node: its seed is its whole gradient. Gradients of trainable parameters are added to
 * parameter->grad. */
void cab_graph_backward(cab_graph *g, int n, cab_tensor *const *outputs, cab_tensor *const *seeds);
/* Before cab_graph_backward(): asks for the gradient of the input `t`, which is no parameter. It is kept. For tests. */
void cab_graph_want_gradient(cab_graph *g, cab_tensor *t);
/* After cab_graph_backward(): the gradient of `t`, which is no parameter, or NULL if it has none. */
cab_tensor *cab_graph_gradient(const cab_graph *g, const cab_tensor *t);
/* After cab_graph_plan(): whether a node that runs adds to this parameter's gradient. */
bool cab_graph_trains(const cab_graph *g, const cab_tensor *parameter);

/* For ranks that train together (backend->communicator): gradients of the parameters of these n stores are added up over
 * ranks, bucket by bucket, each as soon as the list has written its last part. Called before cab_graph_plan(); `stores`
 * must outlive the graph. With `scatter` a rank gets the sums of its own piece of each bucket alone, and what is left in
 * the others is of no use. No effect where the backend has no communicator. */
void cab_graph_reduce(cab_graph *g, cab_params *const *stores, int n, bool scatter);
/* Whether runs from here on add up gradients: of several micro-batches the last one does. Off at the start. */
void cab_graph_set_reducing(cab_graph *g, bool on);

/* ---- planning and running ---------------------------------------------------------------------------------------- */

typedef struct cab_plan {
    size_t arena;          /* bytes of the arena: the peak of activations, gradients of activations and scratch */
    size_t arena_unshared; /* bytes that the arena would have if no two tensors shared memory */
    size_t inputs;         /* bytes of inputs and states */
    int nodes, dropped;    /* nodes that run; dead nodes, which do not */
    int tensors;
    double flops; /* floating-point operations of the matrix products of one run */
} cab_plan;

/* Drops dead nodes and computes lifetimes and offsets. Allocates no arena yet. If recording failed, returns that
 * failure. plan may be NULL. */
cab_status cab_graph_plan(cab_graph *g, cab_plan *plan);
/* Runs the list. The first run allocates the arena; CAB_ENOMEM, with the plan's numbers, when memory is short. */
cab_status cab_graph_run(cab_graph *g);

/* Copies a whole tensor from or to the host, in the tensor's dtype: cab_tensor_bytes() bytes, the padding of rows
 * included. Only inputs, states, kept tensors and parameters. */
cab_status cab_tensor_write(cab_graph *g, cab_tensor *t, const void *from);
cab_status cab_tensor_read(cab_graph *g, const cab_tensor *t, void *to);
/* Writes what input t will hold in the next run. The last run may still be under way; on a device that can, the copy
 * goes on beside it, which takes a second copy of t in device memory. `from` may be used again on return. */
cab_status cab_tensor_write_ahead(cab_graph *g, cab_tensor *t, const void *from);
/* The same without a copy on the host: `from`, host_allocate()'s memory, is read where it lies. On the processor t has its
 * memory there from now on. On a device `from` must stay as it is until cab_backend.sent, on the processor until t is written or lent again. */
cab_status cab_tensor_lend(cab_graph *g, cab_tensor *t, const void *from);
/* One F32 scalar. */
cab_status cab_scalar_write(cab_graph *g, cab_tensor *t, float value);
cab_status cab_scalar_read(cab_graph *g, const cab_tensor *t, float *value);

/* For tests, benchmarks and printing: the list as it is, and the seconds that each node took while timing is on. */
int cab_graph_nodes(const cab_graph *g);
double cab_node_flops(const cab_node *node);
/* Bytes that the node reads and writes, counting every tensor once. */
double cab_node_bytes(const cab_node *node);
const cab_node *cab_graph_node(const cab_graph *g, int index);
void cab_graph_time(cab_graph *g, bool on);
double cab_graph_node_seconds(const cab_graph *g, int index);

#endif
