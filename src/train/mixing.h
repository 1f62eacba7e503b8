/* mixing.h - the matrices by which a layer mixes the tokens of one sequence, written out: row i of M says how much of the value
 * of every token j goes into token i.
 *
 *   attention    M[i, j] = softmax_j(scale q_i . k_j)
 *   Mamba-2      M[i, j] = (C_i . B_j) delta_j prod over j < t <= i of a_t,  a_t = exp(-delta_t exp(A_log))   per head
 *     both ways  the same for j < i and j = i, and for j > i the product over i <= t < j of the second direction's a_t
 *   discrete     M[i, j] = (C_i . B_j) prod over j < t <= i of a_t,  a_t = exp(-delta_t)                  per head
 *   Mamba-1      M[i, j] = sum_n C_i[n] exp(A[n] sum over j < t <= i of delta_t) delta_j B_j[n]           per channel
 *
 * with M x the layer's output before its skip connection D x and its gate. This takes O(L^2) memory, which training never does:
 * it is for looking at trained models. Everything is fp32 on the host and dense; sums over tokens are fp64. All heads (channels)
 * first .. first + count are averaged, one after another, so that no more than one matrix exists. */
#ifndef CAB_TRAIN_MIXING_H
#define CAB_TRAIN_MIXING_H

#include "ops/ops.h"

/* M of heads first .. first + count of shape->n_head. q: (L, n_head * head_dim), k: (L, n_kv_head * head_dim), M: (L, L). */
cab_status cab_mixing_attention(const float *q, const float *k, int64_t L, const cab_attention_shape *shape, int first,
                                int count, float *M);

/* B, C: (L, G * N), head h in group h / (H / G); dt: (L, H), delta = softplus(dt + dt_bias). dt_bias: (H) or NULL for none, A_log: (H)
 * or NULL for the discrete form. Of both directions all three have 2 H columns, the second direction's last, or H, which are both's. */
typedef struct cab_mixing_ssd_inputs {
    const float *B, *C, *dt, *dt_bias, *A_log;
    int64_t L;
    int H, G, N;
    bool both, shared_decay;
} cab_mixing_ssd_inputs;

cab_status cab_mixing_ssd(const cab_mixing_ssd_inputs *in, int first, int count, float *M);

/* B, C: (L, N), dt: (L, E), dt_bias: (E), A_log: (E, N). reverse: from the last token to the first. */
typedef struct cab_mixing_scan_inputs {
    const float *B, *C, *dt, *dt_bias, *A_log;
    int64_t L, E;
    int N;
    bool reverse;
} cab_mixing_scan_inputs;

cab_status cab_mixing_scan(const cab_mixing_scan_inputs *in, int64_t first, int64_t count, float *M);

#endif
