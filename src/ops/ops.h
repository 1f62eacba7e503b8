/* ops.h - every operation a model can record. One file per family beside this header; kernels in cpu/ and cuda/.
 *
 * B batch, L tokens, D width, E inner width, H heads, P head width, N state, G groups, V vocabulary. Activations are
 * BF16 or F32, all of one graph's the same unless said otherwise; parameters are F32 masters (or frozen, BF16 or F32);
 * matrix products read weights in the activations' dtype. Inputs may be column views (cab_split) unless said otherwise;
 * outputs are dense, but for cab_linear_padded(). In backward nodes gradients (gout and gin of activations) may be column
 * views too, with an ld of their own. NULL in, NULL out. Every op has a backward unless said otherwise. */
#ifndef CAB_OPS_OPS_H
#define CAB_OPS_OPS_H

#include "tensor/graph.h"
#include "tensor/params.h"

/* ---- matrix.c ------------------------------------------------------------------------------------------------- */

typedef enum cab_layout {
    CAB_OUT_IN, /* (out, in): torch.nn.Linear */
    CAB_IN_OUT  /* (in, out): GPT-2's Conv1D, used as stored */
} cab_layout;

/* y[..., o] = sum_i x[..., i] w[o, i] + b[o].   b may be NULL. */
cab_tensor *cab_linear(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, cab_layout layout);
/* The same with rows of y that begin at multiples of 8 elements, which GPUs are several times faster at where y is wide and its
 * width no such multiple. y is to be split, or read by its ld. */
cab_tensor *cab_linear_padded(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, cab_layout layout);

/* ---- embedding.c ----------------------------------------------------------------------------------------------- */

/* ids (B, L) I32, table (V, D), positions (max, D) or NULL -> (B, L, D) in `dtype`; row l gets positions[first + l],
 * where `first` is an I32 scalar input, or NULL for 0. Ids outside the table are an error at run time (CAB_EARG). */
cab_tensor *cab_embedding(cab_graph *g, cab_tensor *ids, cab_tensor *table, cab_tensor *positions, cab_tensor *first,
                          cab_dtype dtype);

/* ---- tokens.c: images as tokens --------------------------------------------------------------------------------- */

/* image (B, C, H, W) F32 -> (B, H/p * W/p, C * p * p) in `dtype`: its patches by rows, each in the order of a convolution's
 * filter, channel, row, column. No backward: images are inputs. Asked for again, the same tensor. */
cab_tensor *cab_patches(cab_graph *g, cab_tensor *image, int patch, cab_dtype dtype);

/* x (B, T, D) -> (B, T + n, D): tokens[i], D elements F32, stands in every sequence at at[i] (ascending, in the result),
 * and row l gets positions[l] added, (T + n) * D elements F32 or NULL. n <= 2. */
cab_tensor *cab_insert_tokens(cab_graph *g, cab_tensor *x, int n, cab_tensor *const *tokens, const int64_t *at,
                              cab_tensor *positions);

/* Tokens first .. first + n of every sequence: x (B, L, D) -> (B, n, D). */
cab_tensor *cab_select_tokens(cab_graph *g, cab_tensor *x, int64_t first, int64_t n);

/* ---- norm.c ------------------------------------------------------------------------------------------------------ */

/* (x - mean) / sqrt(var + eps) * w + b; statistics fp32. w, b (D) fp32. */
cab_tensor *cab_layer_norm(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, float eps);
/* x / sqrt(mean(x^2) + eps) * w */
cab_tensor *cab_rms_norm(cab_graph *g, cab_tensor *x, cab_tensor *w, float eps);
/* A residual stream in fp32 whatever the activations are: *sum = residual + x, (..., D) F32, and the RMS norm of it in
 * x's dtype is returned. residual: NULL for none. */
cab_tensor *cab_add_rms_norm(cab_graph *g, cab_tensor *x, cab_tensor *residual, cab_tensor *w, float eps,
                             cab_tensor **sum);

/* ---- elementwise.c ------------------------------------------------------------------------------------------------
 */

typedef enum cab_activation_kind { CAB_GELU_TANH, CAB_GELU_ERF, CAB_SILU, CAB_RELU, CAB_TANH } cab_activation_kind;

cab_tensor *cab_activate(cab_graph *g, cab_tensor *x, cab_activation_kind kind);
/* silu(gate) * up */
cab_tensor *cab_swiglu(cab_graph *g, cab_tensor *gate, cab_tensor *up);
/* xs[0] + ... + xs[n-1], 2 <= n <= 4, summed in fp32, in that order. */
cab_tensor *cab_add(cab_graph *g, int n, cab_tensor *const *xs);
/* factor * x; x itself where factor is 1. */
cab_tensor *cab_scale(cab_graph *g, cab_tensor *x, float factor);
/* (xs[0] + ... + xs[n-1]) / n, likewise. */
cab_tensor *cab_mean(cab_graph *g, int n, cab_tensor *const *xs);
/* y * silu(z + z_bias): the Mamba gate. y, z (B, L, E), z_bias (E) fp32 or NULL. */
cab_tensor *cab_gate(cab_graph *g, cab_tensor *y, cab_tensor *z, cab_tensor *z_bias);

/* ---- attention.c ----------------------------------------------------------------------------------------------------
 */

typedef struct cab_attention_shape {
    int n_head, n_kv_head; /* q has n_head, k and v n_kv_head; n_head is a multiple */
    int head_dim;
    float scale; /* of the logits, usually 1 / sqrt(head_dim) */
    bool causal;
    int window; /* tokens seen back, itself included; 0: all */
} cab_attention_shape;

/* Rotates the first `rotary_dim` of every head's head_dim features, half against half (the Hugging Face convention):
 *   (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin),  angle = (first + l) * inv_freq[i].
 * inv_freq (rotary_dim / 2) F32 input or parameter; first: I32 scalar input or NULL for 0. */
cab_tensor *cab_rotary(cab_graph *g, cab_tensor *x, cab_tensor *inv_freq, cab_tensor *first, int n_head);

/* softmax(scale * q k^T) v per head, q (B, L, n_head * head_dim), k and v (B, L, n_kv_head * head_dim) -> like q. Works
 * in blocks of rows: no L x L matrix for more than one head and block at a time. */
cab_tensor *cab_attention(cab_graph *g, cab_tensor *q, cab_tensor *k, cab_tensor *v, const cab_attention_shape *shape);

/* One decoding step, no backward: q, k, v (B, 1, ...); k_cache, v_cache (B, max, n_kv_head * head_dim) states;
 * `position` an I32 scalar input. Stores k, v at position and attends to 0..position. */
cab_tensor *cab_attention_step(cab_graph *g, cab_tensor *q, cab_tensor *k, cab_tensor *v, cab_tensor *k_cache,
                               cab_tensor *v_cache, cab_tensor *position, const cab_attention_shape *shape);

/* ---- conv1d.c
 * -------------------------------------------------------------------------------------------------------- */

/* Causal, depthwise: y[b, l, e] = bias[e] + sum_k w[e, k] x[b, l - (K - 1) + k, e], then SiLU if asked. x (B, L, E),
 * w (E, 1, K), bias (E) or NULL, fp32. */
cab_tensor *cab_conv1d(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *bias, bool silu);
/* w and bias of one direction, as above. */
typedef struct cab_conv1d_filter {
    cab_tensor *w, *bias;
} cab_conv1d_filter;
/* Both directions of x by filters of as many taps: y[0] as above, y[1] from the last token to the first, y[1][b, l] seeing
 * x[b, l .. l + K - 1]. y[0] and y[1] are NULL on failure. */
void cab_conv1d_both(cab_graph *g, cab_tensor *x, const cab_conv1d_filter filters[2], bool silu, cab_tensor *y[2]);
/* One token, no backward: x (B, 1, E), state (B, K - 1, E) F32 holds the last K - 1 inputs, oldest first. */
cab_tensor *cab_conv1d_step(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *bias, cab_tensor *state, bool silu);

/* ---- ssd.c: the discrete Mamba-2 recurrence of Phi-Mamba
 * ------------------------------------------------------------- */

/* Per head:  h[t] = a[t] h[t-1] + x[t] B[t]^T    y[t] = h[t] C[t] + D x[t]    a[t] = sigmoid(-a_log[t]) =
 * exp(-softplus(a_log[t])) x (B, L, H*P), Bm and Cm (B, L, G*N), a_log (B, L, H), D (H) fp32 -> (B, L, H*P). Head h
 * reads group h / (H / G). Training form: chunks of 64, matrix products within, the state carried between; h is fp32
 * (P, N) per head. */
cab_tensor *cab_ssd(cab_graph *g, cab_tensor *x, cab_tensor *Bm, cab_tensor *Cm, cab_tensor *a_log, cab_tensor *D,
                    int n_head, int n_group);
/* One token, no backward: the recurrence itself. state (B, H, P * N) F32. */
cab_tensor *cab_ssd_step(cab_graph *g, cab_tensor *x, cab_tensor *Bm, cab_tensor *Cm, cab_tensor *a_log, cab_tensor *D,
                         cab_tensor *state, int n_head, int n_group);

/* ---- scan.c: the selective scan of Mamba-1
 * -------------------------------------------------------------------------------- */

typedef struct cab_scan_inputs {
    cab_tensor *u, *dt;  /* (B, L, E) */
    cab_tensor *A_log;   /* (E, N) F32 */
    cab_tensor *B, *C;   /* (B, L, N) */
    cab_tensor *D;       /* (E) F32 */
    cab_tensor *z;       /* (B, L, E) or NULL: no gate */
    cab_tensor *dt_bias; /* (E) F32 or NULL: none */
} cab_scan_inputs;

/* h[t] = exp(delta[t] A) h[t-1] + delta[t] u[t] B[t]    y[t] = (<C[t], h[t]> + D u[t]) silu(z[t]) -> (B, L, E), with
 * delta = softplus(dt + dt_bias) and A = -exp(A_log), N <= 256. reverse: from the last token to the first. h is fp32. */
cab_tensor *cab_scan(cab_graph *g, const cab_scan_inputs *in, bool reverse);
/* The mean of two scans over the same tokens with the same z, one from the first token to the last and one back. */
cab_tensor *cab_scan_both(cab_graph *g, const cab_scan_inputs *forward, const cab_scan_inputs *backward);

/* ---- feature.c: feature maps and the alignment loss
 * -------------------------------------------------------------------- */

typedef enum cab_feature_map {
    CAB_MAP_NONE,
    CAB_MAP_SOFTMAX_FEATURES, /* softmax over the columns of each token: Q */
    CAB_MAP_SOFTMAX_TOKENS,   /* softmax over the tokens of each column, per sequence: K */
    CAB_MAP_RELU,
    CAB_MAP_EXP
} cab_feature_map;

/* mean over all elements of (pred - psi(target))^2 -> scalar F32. pred, target (B, L, D). No gradient goes to the
 * target and no copy of it is made. Value and gradient come from one pass (backward_computes_outputs). */
cab_tensor *cab_align_loss(cab_graph *g, cab_tensor *pred, cab_tensor *target, cab_feature_map map);

/* Which row of an image teacher's Q or K a row of pred is compared with. The teacher's tokens are its class token, `skip`
 * others (DeiT's distillation token), and the patches; pred's are the patches with the class token among them. */
typedef struct cab_row_map {
    int64_t class_at; /* where pred's class token stands */
    int64_t skip;     /* rows of the target that nothing is compared with, after the first */
} cab_row_map;

/* The same with target (B, L + rows->skip, D) read through the map; softmax over tokens takes no skipped row in. */
cab_tensor *cab_align_loss_mapped(cab_graph *g, cab_tensor *pred, cab_tensor *target, cab_feature_map map,
                                  const cab_row_map *rows);

/* ---- bridge_loss.c --------------------------------------------------------------------------------------------------- */

/* w1 (hidden, in), b1 (hidden), w2 (out, hidden), b2 (out); biases may be NULL. */
typedef struct cab_bridge_layers {
    cab_tensor *w1, *b1, *w2, *b2;
    cab_activation_kind activation;
} cab_bridge_layers;

/* cab_align_loss(), or with rows cab_align_loss_mapped(), of f(x w1^T + b1) w2^T + b2: x (B, L, in). One node where a GPU has a
 * kernel of these sizes (in 16, hidden 128, out a multiple of 64 up to 768, bf16), else four. */
cab_tensor *cab_bridge_loss(cab_graph *g, cab_tensor *x, const cab_bridge_layers *layers, cab_tensor *target,
                            cab_feature_map map, const cab_row_map *rows);

/* ---- next_token.c: the end of a decoding step
 * -------------------------------------------------------------------------------------- */

typedef struct cab_sampling {
    float temperature; /* 0: the most likely token */
    uint32_t top_k;    /* 0: all */
    float top_p;       /* 1: all */
    uint64_t seed;
    float min_p;          /* least probability, as a share of the largest; 0: all */
    float repeat_penalty; /* what has been fed: logits above 0 divided by it, others multiplied; 0 or 1: none */
} cab_sampling;

typedef struct cab_next_token_inputs {
    cab_tensor *logits;   /* (B, 1, V) */
    cab_tensor *prompts;  /* (B, P) I32, and how much of each row counts: */
    cab_tensor *lengths;  /* (B) I32, 1 to P */
    cab_tensor *samples;  /* (B) I32: sequences of one prompt that differ in it are drawn independently */
    cab_tensor *tokens;   /* (B, 1) I32, a state: what the step was fed, and then the next ones */
    cab_tensor *position; /* I32 scalar, a state: where these stood, and then one more; stays at INT32_MAX */
    cab_tensor
        *seen; /* (B, (V + 31) / 32) I32, a state: bit v % 32 of word v / 32 says that v has been fed. Where there
                             is a repeat penalty; else NULL */
} cab_next_token_inputs;

/* The prompt's next token while there is one, then one drawn from the logits. No output, no backward. */
void cab_next_token(cab_graph *g, const cab_next_token_inputs *in, const cab_sampling *sampling);

/* ---- head_loss.c: vocabulary losses
 * -------------------------------------------------------------------------------------- */

typedef struct cab_head_side {
    cab_tensor *hidden; /* (B, L, D) after the final norm; student and teacher may differ in D */
    cab_tensor *w;      /* (V, D) */
    cab_tensor *b;      /* (V) or NULL */
} cab_head_side;

typedef struct cab_head_losses {
    cab_tensor *ce; /* mean over rows with label >= 0 of -log p_student(label) */
    cab_tensor
        *kl; /* mean over valid rows of T^2 KL(softmax(teacher / T) || softmax(student / T)); NULL without a teacher */
    cab_tensor *agreement; /* fraction of valid rows where the arg max of both is the same; NULL without a teacher. No
                              gradient */
    cab_tensor *count;     /* (2): rows with label >= 0, valid rows. No gradient */
} cab_head_losses;

/* Head, cross-entropy and KL of both models in one pass over chunks of rows: neither (B, L, V) exists. labels (B, L)
 * I32, -1: no label. valid (B, L) I32, 0: the row takes no part in KL; NULL: all do. teacher may be NULL. Gradients go
 * to the student's hidden, w and b, scaled by the seeds of ce and kl. All outputs scalar F32 (count has 2 elements). */
cab_head_losses cab_head_loss(cab_graph *g, const cab_head_side *student, const cab_head_side *teacher,
                              cab_tensor *labels, cab_tensor *valid, float temperature);
/* The same with cross-entropy against a distribution per row, -sum_v targets[v] log p_student(v), for rows with label >= 0:
 * mixed and smoothed labels. targets (B, L, V) F32, an input; NULL: the labels. No gradient goes to them. */
cab_head_losses cab_head_loss_targets(cab_graph *g, const cab_head_side *student, const cab_head_side *teacher,
                                      cab_tensor *labels, cab_tensor *targets, cab_tensor *valid, float temperature);

/* ---- optimizer.c: nodes without inputs or outputs, over lists of parameters
 * --------------------------------------------- */

typedef struct cab_optimized {
    cab_tensor *parameter; /* F32 with ->grad; its ->low, if any, is refreshed as well */
    float *m, *v;          /* moments, of the parameter's size, on the graph's device */
    float *average;        /* EMA of the parameter, or NULL */
    float decay;           /* weight decay of this one */
} cab_optimized;

typedef struct cab_adamw_options {
    float beta1, beta2, eps;
    float clip;      /* global gradient norm is scaled down to this; 0: no clipping */
    float ema_decay; /* for those with an average */
} cab_adamw_options;

/* Records: global gradient norm (fixed order, fp32 partial sums in fp64), clipping, AdamW with decoupled decay
 *   p -= lr * (m_hat / (sqrt(v_hat) + eps) + decay * p),
 * EMA, refresh of bf16 copies, version bumps, and clearing of the gradients. `list` must outlive the graph. lr is a
 * scalar input, step an I32 scalar input (1 for the first update). Returns the gradient norm before clipping, scalar
 * F32, kept; a norm that is not finite leaves parameters, moments and averages untouched. No backward. */
cab_tensor *cab_adamw(cab_graph *g, const cab_optimized *list, size_t n, const cab_adamw_options *options,
                      cab_tensor *lr, cab_tensor *step);

#endif
