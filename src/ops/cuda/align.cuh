/* align.cuh - what the kernels of the alignment losses share: the row map of the target, and the sum of squares over
 * all blocks.
 *
 * Layout: a block works on some elements of pred (B, L, D) and of the target (B, target_L, D).
 * align_term::target_row() maps row l of pred to a row of the target. Each thread brings its sum of squares to
 * finish(). The block adds them in shared memory and writes one fp64 number to `partial`, scratch in device memory.
 * The block that draws the last ticket adds the numbers of all blocks in the order of the blocks, so that the sum has
 * one order.
 *
 * Arithmetic:
 *
 *   loss = sum scale[b] (pred - psi(target))^2 / (B L D)     dpred = seed * 2 scale[b] (pred - psi(target)) / (B L D)
 *
 * factor() scale_of(b) is the number before (pred - psi(target)) in dpred. Squares are brought with their scale. */
#ifndef CAB_OPS_CUDA_ALIGN_CUH
#define CAB_OPS_CUDA_ALIGN_CUH

#include "ops/cuda/activation.cuh"

extern "C" {
#include "ops/feature.h"
}

constexpr int ALIGN_THREADS = 256, ALIGN_WARPS = ALIGN_THREADS / 32;

/* What the end of a block of THREADS threads takes of shared memory. */
template <int THREADS = ALIGN_THREADS> struct align_end {
    double sums[THREADS / 32];
    bool last;
};

/* Sum over the block; thread 0 gets it. */
template <int WARPS> __device__ __forceinline__ double block_total(double sum, double (&shared)[WARPS])
{
    for (int lanes = 16; lanes > 0; lanes /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = sum;
    __syncthreads();
    for (int i = 1; i < WARPS && threadIdx.x == 0; i++)
        sum += shared[i];
    return sum;
}

/* A term of the loss, (B, L, D): where its target's rows are, its seed, and where the squares go. */
struct align_term {
    int64_t B, L, D;
    int64_t target_L, class_at, skip;
    bool mapped;
    const float *seed; /* NULL: zero */
    const float *scale; /* of each sequence's squares; NULL: 1 */
    double *partial;   /* per block */
    int64_t earlier;   /* blocks of launches before this one that left theirs in front of it */
    float *out;
    unsigned *ticket;

    void describe_target(const cab_tensor *target, const cab_align_attributes *attributes)
    {
        mapped = attributes->mapped;
        class_at = attributes->rows.class_at;
        skip = attributes->rows.skip;
        B = target->shape[0];
        L = target->shape[1] - (mapped ? skip : 0);
        D = cab_columns(target);
        target_L = target->shape[1];
    }

    /* All but `partial`; nothing earlier. */
    void describe(const cab_node *node, const cab_tensor *target, const cab_align_attributes *attributes,
                  cab_backend *backend)
    {
        describe_target(target, attributes);
        earlier = 0;
        scale = NULL;
        seed = node->backward && node->gout[0] != NULL ? (const float *)node->gout[0]->data : NULL;
        out = (float *)node->out[0]->data;
        ticket = cab_cuda_of(backend)->ticket;
    }

    /* The target's row for pred's token l of sequence b: cab_align_token() on the device. */
    __device__ __forceinline__ int64_t target_row(int64_t b, int64_t l) const
    {
        const int64_t token = !mapped ? l : l == class_at ? 0 : 1 + skip + (l < class_at ? l : l - 1);
        return b * target_L + token;
    }

    /* Of pred - psi(target) in the gradient, beside scale_of() its sequence. */
    __device__ __forceinline__ float factor() const
    {
        return (float)(2.0 * (seed != NULL ? (double)*seed : 0.0) / ((double)(B * L) * (double)D));
    }

    __device__ __forceinline__ float scale_of(int64_t b) const
    {
        return scale != NULL ? __ldg(scale + b) : 1.0f;
    }

    /* Leaves this block's squares; the last block of the last launch makes the loss of them. */
    template <int THREADS>
    __device__ __forceinline__ void finish(float squares, bool last_launch, align_end<THREADS> &shared) const
    {
        const int64_t blocks = earlier + gridDim.x * (int64_t)gridDim.y;
        const int64_t block = earlier + blockIdx.y * (int64_t)gridDim.x + blockIdx.x;
        const double mine = block_total((double)squares, shared.sums);
        if (threadIdx.x == 0)
            partial[block] = mine;
        if (!arrives_last(ticket, shared.last) || !last_launch)
            return;
        double sum = 0.0;
        for (int64_t i = threadIdx.x; i < blocks; i += THREADS)
            sum += __ldcg(partial + i);
        const double total = block_total(sum, shared.sums);
        if (threadIdx.x == 0)
            *out = (float)(total / ((double)(B * L) * (double)D));
    }

    __device__ __forceinline__ void finish(float squares, bool last_launch = true) const
    {
        __shared__ align_end<> shared;
        finish(squares, last_launch, shared);
    }
};

#endif
