/* ops.h - every operation that a model can record. A family of ops is one file beside this header; its kernels are in a
 * folder per backend (cpu/, cuda/).
 *
 * Letters: B batch, L tokens, D width, E inner width, H heads, P head width, N state, G groups, V vocabulary, K taps.
 *
 * dtypes: activations are BF16 or F32, all of one graph the same unless a comment says otherwise. Parameters are F32,
 * or frozen and BF16 or F32. Matrix products read weights in the activations' dtype, sums are fp32.
 *
 * Layout: inputs may be column views (cab_split()) unless a comment says otherwise. Outputs are dense, except that of
 * cab_linear_padded(). In backward nodes the gradients of activations (gout and gin) may be column views too, each with
 * an ld of its own.
 *
 * Ownership and errors: the graph owns what a function returns. A tensor of a wrong shape or dtype makes the graph
 * fail: the function returns NULL, and cab_graph_plan() returns CAB_ESHAPE with a text that names the op. A function
 * that gets NULL for a tensor it needs returns NULL and reports nothing, so models need no checks. Every op has a
 * backward unless its comment says otherwise. */
#ifndef CAB_OPS_OPS_H
#define CAB_OPS_OPS_H

#include "tensor/graph.h"
#include "tensor/params.h"

/* ---- matrix.c ---------------------------------------------------------------------------------------------------- */

typedef enum cab_layout {
    CAB_OUT_IN, /* w is (out, in): torch.nn.Linear */
    CAB_IN_OUT  /* w is (in, out): GPT-2's Conv1D, used as it is stored */
} cab_layout;

/* y[..., o] = sum_i x[..., i] w[o, i] + b[o].   x (..., in), w (out, in) or, with CAB_IN_OUT, (in, out), b (out) or
 * NULL -> (..., out) in x's dtype. */
cab_tensor *cab_linear(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, cab_layout layout);
/* The same, but every row of y begins at a multiple of 8 elements: y->ld is the width rounded up. A GPU reads such rows
 * faster. For wide y whose width is no multiple of 8. Split y, or read it by its ld. */
cab_tensor *cab_linear_padded(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, cab_layout layout);
/* The same in F32, whatever x is: logits of which the largest is taken. Between 16 and 32 those of bf16 are multiples of 1/8, and words that are
 * a tenth apart in probability are equals. No gradient flows back. */
cab_tensor *cab_linear_logits(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, cab_layout layout);

/* ---- embedding.c ------------------------------------------------------------------------------------------------- */

/* y[b, l] = table[ids[b, l]] + positions[first + l - starts[b, l]] -> (B, L, D) in `dtype`. ids (B, L) I32, table (V, D), positions
 * (max, D) or NULL for none; `first` is an I32 scalar input, or NULL for 0. starts (B, L) I32 as of cab_ssd(), or NULL
 * for zeros; with it positions get no gradient. An id outside the table, or a position
 * outside `positions`, makes the run fail (CAB_EARG). */
cab_tensor *cab_embedding(cab_graph *g, cab_tensor *ids, cab_tensor *table, cab_tensor *positions, cab_tensor *first,
                          cab_tensor *starts, cab_dtype dtype);

/* ---- pixels.c: pictures as images ----------------------------------------------------------------------------------- */

typedef struct cab_pixels_inputs {
    cab_tensor *bytes;    /* (B, H, W, 3) U8 */
    cab_tensor *erasures; /* (B, n, 12) I32: n of ops/pixels.h's cab_erasure for each picture, in order; NULL: none */
    cab_tensor *partners; /* what row b of the batch is mixed with stands in row B - 1 - b; NULL: the batch itself */
    cab_tensor *partner_erasures; /* of the partners; NULL: none */
    cab_tensor *blend;            /* (8) I32, a cab_blend; NULL: nothing is mixed */
} cab_pixels_inputs;

/* Of the bytes 0..255; red, green, blue. */
typedef struct cab_pixels_scale {
    float divisor, mean[3], std[3];
} cab_pixels_scale;

/* The image that a model reads: (v / divisor - mean) / std of every byte, then rectangles erased, then each picture mixed with its
 * partner -> (B, 3, H, W) F32. No backward: pictures are inputs. */
cab_tensor *cab_pixels(cab_graph *g, const cab_pixels_inputs *inputs, const cab_pixels_scale *scale);

/* ---- tokens.c: images as tokens ---------------------------------------------------------------------------------- */

/* The square patches of images, p = `patch` pixels a side: image (B, C, H, W) F32 -> (B, H/p * W/p, C * p * p) in
 * `dtype`. Patches follow one another by rows of the image. The elements of one patch are in the order of a
 * convolution's filter: channel, row, column. No backward: images are inputs. A second call for the same image returns
 * the same tensor. */
cab_tensor *cab_patches(cab_graph *g, cab_tensor *image, int patch, cab_dtype dtype);

/* Inserts n <= 2 tokens into every sequence: x (B, T, D) -> (B, T + n, D). tokens[i], D elements F32, becomes row at[i]
 * of the result; at is ascending. Then positions[l], if positions is not NULL, is added to row l: (T + n) * D elements
 * F32. */
cab_tensor *cab_insert_tokens(cab_graph *g, cab_tensor *x, int n, cab_tensor *const *tokens, const int64_t *at,
                              cab_tensor *positions);

/* Tokens first .. first + n of every sequence: x (B, L, D) -> (B, n, D). */
cab_tensor *cab_select_tokens(cab_graph *g, cab_tensor *x, int64_t first, int64_t n);

/* x (B, L, D) -> (B, 2, D): the first token of every sequence, and the mean of those from `first` on, summed in fp32. */
cab_tensor *cab_pool_tokens(cab_graph *g, cab_tensor *x, int64_t first);

/* Which of an image teacher's tokens each of a student's is. The teacher's are the class token, then `skip` others (DeiT's
 * distillation token), then the patches; the student's the patches, with the class token at row class_at among them. */
typedef struct cab_row_map {
    int64_t class_at; /* row of the student's class token */
    int64_t skip;     /* the teacher's rows behind its first that the student has not */
} cab_row_map;

/* x (B, L + rows->skip, D), in the order of the teacher's tokens -> (B, L, D) in that of the student's. No backward: teachers are frozen. */
cab_tensor *cab_order_tokens(cab_graph *g, cab_tensor *x, const cab_row_map *rows);

/* ---- norm.c ------------------------------------------------------------------------------------------------------ */

/* y = (x - mean) / sqrt(var + eps) * w + b over the last dimension; mean and var in fp32. x (..., D), w and b (D) F32
 * -> like x. */
cab_tensor *cab_layer_norm(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *b, float eps);
/* y = x / sqrt(mean(x^2) + eps) * w, likewise. The columns are n_group equal groups, and the mean is taken over each;
 * n_group is 1 where there are none, and divides D. */
cab_tensor *cab_rms_norm(cab_graph *g, cab_tensor *x, cab_tensor *w, int n_group, float eps);
/* A residual stream that is fp32 whatever the activations are. *sum = residual + x, (..., D) F32; residual (..., D)
 * F32, or NULL for zero. Returns the RMS norm of *sum, in x's dtype. */
cab_tensor *cab_add_rms_norm(cab_graph *g, cab_tensor *x, cab_tensor *residual, cab_tensor *w, float eps,
                             cab_tensor **sum);

/* ---- elementwise.c ----------------------------------------------------------------------------------------------- */

typedef enum cab_activation_kind { CAB_GELU_TANH, CAB_GELU_ERF, CAB_SILU, CAB_RELU, CAB_TANH } cab_activation_kind;

/* y = f(x), element by element -> like x. */
cab_tensor *cab_activate(cab_graph *g, cab_tensor *x, cab_activation_kind kind);
/* y = f(gate) * up, f by `kind`: SwiGLU with CAB_SILU, GeGLU with a GELU; gate and up of one shape -> like up. */
cab_tensor *cab_glu(cab_graph *g, cab_tensor *gate, cab_tensor *up, cab_activation_kind kind);
/* y = xs[0] + ... + xs[n-1], 2 <= n <= 4, all of one shape; summed in fp32, in that order, and rounded once. */
cab_tensor *cab_add(cab_graph *g, int n, cab_tensor *const *xs);
/* y = factor * x. Returns x itself where factor is 1. */
cab_tensor *cab_scale(cab_graph *g, cab_tensor *x, float factor);
/* y = (xs[0] + ... + xs[n-1]) / n; n and the sum as in cab_add(). */
cab_tensor *cab_mean(cab_graph *g, int n, cab_tensor *const *xs);
/* The Mamba gate, y * silu(z + z_bias). y and z (B, L, E), z_bias (E) F32 or NULL -> (B, L, E). */
cab_tensor *cab_gate(cab_graph *g, cab_tensor *y, cab_tensor *z, cab_tensor *z_bias);

/* ---- attention.c ------------------------------------------------------------------------------------------------- */

typedef struct cab_attention_shape {
    int n_head, n_kv_head; /* heads of q; heads of k and v, which divide those of q */
    int head_dim;          /* features of a head */
    float scale;           /* of the logits, usually 1 / sqrt(head_dim) */
    bool causal;           /* a token sees itself and the tokens before it, none behind it */
    int window;            /* a token sees so many tokens back, itself included; 0: all */
    float cap;             /* logits s become cap tanh(s / cap); 0: they stay */
} cab_attention_shape;

/* Rotary positions. The first R features of every head are two halves, x1 and x2 (the Hugging Face convention); feature
 * i of x1 and feature i of x2 are rotated by the angle (first + l) * inv_freq[i], in radians:
 *
 *   (x1, x2) -> scale (x1 cos - x2 sin, x2 cos + x1 sin)
 *
 * The features behind R are copied. x (B, L, n_head * P) -> like x. inv_freq (R / 2) F32, an input or a parameter.
 * `first`, the position of token 0, is an I32 scalar input, or NULL for 0. */
cab_tensor *cab_rotary(cab_graph *g, cab_tensor *x, cab_tensor *inv_freq, cab_tensor *first, int n_head, float scale);

/* softmax(scale * q k^T) v, head by head. q (B, L, n_head * head_dim), k and v (B, L, n_kv_head * head_dim) -> like q.
 * Head h of q reads head h / (n_head / n_kv_head) of k and v. starts (B, L) I32 or NULL, as of cab_ssd(): a token sees none
 * before its document; only where it is causal. Kernels work in blocks of rows: the whole L x L matrix of
 * scores is never in memory. */
cab_tensor *cab_attention(cab_graph *g, cab_tensor *q, cab_tensor *k, cab_tensor *v, cab_tensor *starts,
                          const cab_attention_shape *shape);

/* One decoding step: writes k and v to the caches at `position`, then attends to positions 0 .. position (fewer with a
 * window). q, k, v (B, 1, ...) as above; k_cache and v_cache (B, max, n_kv_head * head_dim) are states; `position` is
 * an I32 scalar input or state. A position outside the caches makes the run fail (CAB_EARG). No backward. */
cab_tensor *cab_attention_step(cab_graph *g, cab_tensor *q, cab_tensor *k, cab_tensor *v, cab_tensor *k_cache,
                               cab_tensor *v_cache, cab_tensor *position, const cab_attention_shape *shape);

/* ---- conv1d.c ---------------------------------------------------------------------------------------------------- */

/* Causal, a filter per channel: y[b, l, e] = bias[e] + sum_k w[e, k] x[b, l - (K - 1) + k, e], then SiLU if `silu`; x
 * is zero before the sequence, and before the token's document where there are `starts`. x (B, L, E), w (E, 1, K) F32,
 * bias (E) F32 or NULL, starts (B, L) I32 or NULL, as of cab_ssd() -> (B, L, E). */
cab_tensor *cab_conv1d(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *bias, cab_tensor *starts, bool silu);
/* w and bias of one direction, as above. */
typedef struct cab_conv1d_filter {
    cab_tensor *w, *bias;
} cab_conv1d_filter;
/* Both directions of x; the two filters have the same K. y[0] is cab_conv1d() by filters[0]. y[1] runs from the last
 * token to the first by filters[1]: y[1][b, l] sees x[b, l .. l + K - 1]. y[0] and y[1] are NULL on failure. */
void cab_conv1d_both(cab_graph *g, cab_tensor *x, const cab_conv1d_filter filters[2], bool silu, cab_tensor *y[2]);
/* One token: x (B, 1, E) -> (B, 1, E). state (B, K - 1, E) F32 holds the last K - 1 inputs, the oldest first, and takes
 * x in. No backward. */
cab_tensor *cab_conv1d_step(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *bias, cab_tensor *state, bool silu);

/* ---- conv2d.c ---------------------------------------------------------------------------------------------------- */

/* Over a grid of patches, a filter per channel, then SiLU: y = silu(u), u[b, r, c, e] = bias[e] + sum_ij w[e, i, j]
 * x[b, r + i - h, c + j - h, e], h = (K - 1) / 2; x is zero outside the grid. Row r, column c is token first + r * width + c.
 * Of the `first` tokens before the grid y = silu(x). x (B, L, E), w (E, 1, K, K) F32, K 3, 5 or 7, bias (E) F32 or
 * NULL -> (B, L, E). */
cab_tensor *cab_conv2d(cab_graph *g, cab_tensor *x, cab_tensor *w, cab_tensor *bias, int64_t first, int64_t width);

/* ---- ssd.c: the recurrence of Mamba-2 ---------------------------------------------------------------------------- */

typedef struct cab_ssd_inputs {
    cab_tensor *x;       /* (B, L, H * P) */
    cab_tensor *B, *C;   /* (B, L, G * N) */
    cab_tensor *dt;      /* (B, L, H) */
    cab_tensor *dt_bias; /* (H) F32 or NULL: none */
    cab_tensor *A_log;   /* (H) F32 or NULL: the discrete recurrence of Phi-Mamba */
    cab_tensor *D;       /* (H) F32 */
    cab_tensor *starts;  /* (B, L) I32 or NULL: every sequence is one document */
} cab_ssd_inputs;

/* Per head, with h of (P, N) fp32:
 *
 *   h[t] = a[t] h[t-1] + u[t] B[t]^T      y[t] = h[t] C[t] + D x[t]      delta[t] = softplus(dt[t] + dt_bias)
 *
 *   as Dao and Gu wrote it    a = exp(-delta exp(A_log))    u = delta x
 *   discrete                  a = exp(-delta)               u = x
 *
 * -> (B, L, H*P). H is n_head, G is n_group and divides H. Head h reads group h / (H / G). h is zero before the
 * sequence. starts[b, t] is the index in the sequence of the first token of the document that token t belongs to,
 * 0 <= starts[b, t] <= t: h is zero before that token. */
cab_tensor *cab_ssd(cab_graph *g, const cab_ssd_inputs *in, int n_head, int n_group);
/* Both directions in one node, over the same B, C and x: forward as cab_ssd(), and from the last token to the first, where no token
 * sees itself, so that each counts once:
 *
 *   y[t] = sum over s <= t of <C[t], B[s]> a[s+1] ... a[t] u[s]
 *        + sum over s > t  of <C[t], B[s]> a'[t] ... a'[s-1] u'[s]  + D x[t]
 *
 * dt (B, L, 2 H), dt_bias and A_log (2 H): a and u of the H heads forward, then a' and u' of the H heads backward. Or
 * dt (B, L, H), dt_bias and A_log (H), which are those of both. starts NULL. */
cab_tensor *cab_ssd_both(cab_graph *g, const cab_ssd_inputs *in, int n_head, int n_group);
/* One token, the recurrence itself: inputs with L = 1, starts NULL; state (B, H, P * N) F32 holds h and is brought up to
 * date. No backward. */
cab_tensor *cab_ssd_step(cab_graph *g, const cab_ssd_inputs *in, cab_tensor *state, int n_head, int n_group);

/* ---- scan.c: the selective scan of Mamba-1 ----------------------------------------------------------------------- */

typedef struct cab_scan_inputs {
    cab_tensor *u, *dt;  /* (B, L, E) */
    cab_tensor *A_log;   /* (E, N) F32 */
    cab_tensor *B, *C;   /* (B, L, N) */
    cab_tensor *D;       /* (E) F32 */
    cab_tensor *z;       /* (B, L, E) or NULL: no gate */
    cab_tensor *dt_bias; /* (E) F32 or NULL: none */
} cab_scan_inputs;

/* Per channel, with h of N <= 256 numbers in fp32, zero before the first token:
 *
 *   delta = softplus(dt + dt_bias)     A = -exp(A_log)
 *   h[t] = exp(delta[t] A) h[t-1] + delta[t] u[t] B[t]     y[t] = (<C[t], h[t]> + D u[t]) silu(z[t])
 *
 * -> (B, L, E). reverse: t runs from the last token to the first. */
cab_tensor *cab_scan(cab_graph *g, const cab_scan_inputs *in, bool reverse);
/* The mean of two scans of the same shapes with the same z: `forward` from the first token to the last, `backward` from
 * the last to the first. -> (B, L, E). */
cab_tensor *cab_scan_both(cab_graph *g, const cab_scan_inputs *forward, const cab_scan_inputs *backward);
/* One token, the recurrence itself: inputs with L = 1; state (B, E, N) F32 holds h and is brought up to date. No
 * backward. -> (B, 1, E). */
cab_tensor *cab_scan_step(cab_graph *g, const cab_scan_inputs *in, cab_tensor *state);

/* ---- feature.c: feature maps and the alignment loss -------------------------------------------------------------- */

typedef enum cab_feature_map {
    CAB_MAP_NONE,
    CAB_MAP_SOFTMAX_FEATURES, /* softmax over the columns of each token: Q */
    CAB_MAP_SOFTMAX_TOKENS,   /* softmax over the tokens of each column, per sequence: K */
    CAB_MAP_RELU,
    CAB_MAP_EXP
} cab_feature_map;

/* How a prediction is compared with its target. */
typedef struct cab_alignment {
    cab_feature_map map;     /* psi */
    const cab_row_map *rows; /* NULL: row by row */
    bool relative;           /* each sequence's error is a share of the variance of its psi(target) */
} cab_alignment;

/* mean over all elements of (pred - psi(target))^2 -> scalar F32; if it is relative, each divided by the variance of psi(target)
 * over its sequence, and 0 where that is 0. pred (B, L, D), target (B, L, D) or, with rows, (B, L + rows->skip, D), of one dtype. A
 * softmax over tokens leaves the skipped rows out. The target gets no gradient and is not copied. Value and gradient come
 * from one pass (backward_computes_outputs). */
cab_tensor *cab_align_loss(cab_graph *g, cab_tensor *pred, cab_tensor *target, const cab_alignment *how);

/* 1 / var(psi(target)) of every sequence, over what is compared of it -> (B) F32; 0 if all elements are equal. No backward.
 * Recorded once for every target and map. */
cab_tensor *cab_inverse_variance(cab_graph *g, cab_tensor *target, const cab_alignment *how);

/* ---- bridge_loss.c ----------------------------------------------------------------------------------------------- */

/* w1 (hidden, in), b1 (hidden), w2 (out, hidden), b2 (out); biases may be NULL. */
typedef struct cab_bridge_layers {
    cab_tensor *w1, *b1, *w2, *b2;
    cab_activation_kind activation;
} cab_bridge_layers;

/* The alignment loss of a bridge: pred = f(x w1^T + b1) w2^T + b2, then cab_align_loss(). x (B, L, in) -> scalar F32. One
 * node where the backend has a kernel for it, else four. */
cab_tensor *cab_bridge_loss(cab_graph *g, cab_tensor *x, const cab_bridge_layers *layers, cab_tensor *target,
                            const cab_alignment *how);

/* ---- mixer_matrix.c: the matrix of a mixer against that of attention ------------------------------------------------ */

/* Of every token and head, (B, L, H) F32. */
typedef struct cab_mixer_decays {
    cab_tensor *log_a; /* logarithm of what the state is multiplied by */
    cab_tensor *step;  /* delta; NULL: 1 */
} cab_mixer_decays;

/* delta = softplus(dt + dt_bias), log a = -delta exp(A_log); where A_log is NULL, the discrete recurrence, log a = -delta, and the step is
 * 1. dt (B, L, H), dt_bias (H) F32 or NULL, A_log (H) F32 or, if it is tied, (H, N). */
cab_mixer_decays cab_mixer_decay(cab_graph *g, cab_tensor *dt, cab_tensor *dt_bias, cab_tensor *A_log);

typedef struct cab_mixer_direction {
    cab_tensor *C, *B; /* (B, L, G * N), N at most 256 */
    cab_mixer_decays decays;
    cab_tensor *D; /* (H) F32, on the diagonal; NULL: zero */
} cab_mixer_direction;

typedef struct cab_mixer_matrix {
    /* From the first token to the last; and, if `both`, back. The second may be empty: it then has C and B of the first, its decays are
     * columns H .. 2 H of the first's, or, where these have H columns, the same, and the diagonal is the first's alone. */
    cab_mixer_direction directions[2];
    bool both;
    int n_head, n_group; /* head h reads group h / (n_head / n_group) */
    /* `share` heads, one behind the other, stand for the same columns of attention: for width / of of its heads. */
    int share, width, of;
    float scale; /* of the matrix */
    cab_tensor *q, *k;
    cab_tensor *starts; /* as of cab_ssd(), or NULL */
    cab_attention_shape attention;
    const cab_row_map *rows; /* which rows of q and k are compared; NULL: row by row */
} cab_mixer_matrix;

/* The mean over sequences and over pairs of a head of the mixer and a head of attention that it stands for, of ||M - A||^2 / ||A||^2: M
 * is what the mixer multiplies x by, A the softmax (Frobenius norms; 1 is no better than no mixer) -> scalar F32. q and k get no gradient.
 * No matrix of L x L elements is ever in memory. Value and gradient come from one pass (backward_computes_outputs). */
cab_tensor *cab_mixer_matrix_loss(cab_graph *g, const cab_mixer_matrix *matrix);

/* ---- next_token.c: the end of a decoding step -------------------------------------------------------------------- */

typedef struct cab_sampling {
    float temperature;    /* 0: the most likely token */
    uint32_t top_k;       /* only the k likeliest tokens; 0: all */
    float top_p;          /* only the likeliest tokens that make up this probability; 1: all */
    uint64_t seed;        /* of the draws */
    float min_p;          /* least probability, as a share of the largest; 0: all */
    float repeat_penalty; /* of tokens that were fed: divides logits above 0, multiplies the others; 0 or 1: none */
} cab_sampling;

typedef struct cab_next_token_inputs {
    cab_tensor *logits;   /* (B, 1, V) */
    cab_tensor *prompts;  /* (B, P) I32, P the longest prompt */
    cab_tensor *lengths;  /* (B) I32: how many tokens of each prompt count, 1 to P */
    cab_tensor *samples;  /* (B) I32: sequences of one prompt with different numbers are drawn independently */
    cab_tensor *tokens;   /* (B, 1) I32, a state: the tokens that the step was fed; becomes the next ones */
    cab_tensor *position; /* I32 scalar, a state: the position of these tokens; becomes one more, at most INT32_MAX */
    /* (B, (V + 31) / 32) I32, a state: bit v % 32 of word v / 32 says that token v has been fed. NULL without a repeat
     * penalty. */
    cab_tensor *seen;
} cab_next_token_inputs;

/* Sets `tokens` for the next step: the prompt's next token while there is one, then a token drawn from the logits. No
 * output, no backward. */
void cab_next_token(cab_graph *g, const cab_next_token_inputs *in, const cab_sampling *sampling);

/* ---- head_loss.c: vocabulary losses ------------------------------------------------------------------------------ */

typedef struct cab_head_side {
    cab_tensor *hidden; /* (B, L, D) after the final norm; student and teacher may differ in D */
    cab_tensor *w;      /* (V, D) */
    cab_tensor *b;      /* (V) or NULL */
    float cap;          /* logits s become cap tanh(s / cap); 0: they stay */
} cab_head_side;

typedef struct cab_head_losses {
    /* The mean over rows with label >= 0 of -log p_student(label), in nats. */
    cab_tensor *ce;
    /* The mean over valid rows of T^2 KL(softmax(teacher / T) || softmax(student / T)), in nats. NULL without a
     * teacher. */
    cab_tensor *kl;
    /* The share, 0 to 1, of valid rows where both models find the same word likeliest. NULL without a teacher. No
     * gradient. */
    cab_tensor *agreement;
    /* 2 elements: the number of rows with label >= 0, and of valid rows. No gradient. */
    cab_tensor *count;
} cab_head_losses;

/* The heads of both models, cross-entropy and KL in one pass over chunks of rows: logits of all rows, (B, L, V), are
 * never in memory. labels (B, L) I32, -1: no label. valid (B, L) I32, 0: the row takes no part in KL; NULL: all rows
 * do. T is `temperature`. teacher may be NULL. The student's hidden, w and b get gradients, scaled by the seeds of ce
 * and kl; the teacher's get none. All outputs are F32. */
cab_head_losses cab_head_loss(cab_graph *g, const cab_head_side *student, const cab_head_side *teacher,
                              cab_tensor *labels, cab_tensor *valid, float temperature);
/* The same, with cross-entropy against a distribution per row, for mixed and smoothed labels: -sum_v targets[v]
 * log p_student(v), for rows with label >= 0. targets (B, L, V) F32, an input without a gradient; NULL: the labels. */
cab_head_losses cab_head_loss_targets(cab_graph *g, const cab_head_side *student, const cab_head_side *teacher,
                                      cab_tensor *labels, cab_tensor *targets, cab_tensor *valid, float temperature);

/* What is left of a teacher that has been asked before: its k likeliest words per row and their probabilities. */
typedef struct cab_head_words {
    cab_tensor *ids; /* (B, L, k) I32, an input; no word twice in a row */
    cab_tensor *top; /* (B, L, k) F32, an input: log p of each, over the whole vocabulary */
} cab_head_words;

/* KL from those words in place of a teacher's head. What they leave, r = 1 - sum of p, is one event: the teacher gave it r, the student
 * gives it the sum P of its other words:
 *
 *   KL = sum of p (log p - log p_student) over the k words + r (log r - log P)
 *
 * which is the teacher's KL where k = V, and below it elsewhere. T other than 1: the rest is taken to be spread as the student spreads it.
 * agreement is with the first of the words. */
cab_head_losses cab_head_loss_words(cab_graph *g, const cab_head_side *student, const cab_head_words *teacher,
                                    cab_tensor *labels, cab_tensor *valid, float temperature);

/* ---- head_score.c: what a head says of single rows ---------------------------------------------------------------- */

/* Of R = B L rows. */
typedef struct cab_head_scores {
    cab_tensor *label; /* (R) F32: log p(label), in nats; 0 where the label is -1 */
    cab_tensor *ids;   /* (R, k) I32: the likeliest words, the likeliest first, of equals the smaller id */
    cab_tensor *top;   /* (R, k) F32: their log p */
} cab_head_scores;

/* side->hidden (B, L, D), labels (B, L) I32, -1 for none; 1 <= k <= V, at most 1024. Logits of all rows are never in memory. No
 * backward. */
cab_head_scores cab_head_score(cab_graph *g, const cab_head_side *side, cab_tensor *labels, int64_t k);

/* ---- optimizer.c: nodes without inputs or outputs, over lists of parameters -------------------------------------- */

typedef struct cab_optimized {
    cab_tensor *parameter; /* F32 with ->grad; ->low, if there is one, is brought up to date */
    int64_t first, count;  /* which of its elements; count 0: all. first is a multiple of 64 */
    float *m, *v;          /* moments, one number per such element, in the backend's memory; the caller's */
    float *average;        /* moving average of the parameter, likewise, or NULL */
    float decay;           /* weight decay of this parameter */
    float rate;            /* factor on lr for this parameter */
} cab_optimized;

typedef struct cab_adamw_options {
    float beta1, beta2, eps;
    float clip;      /* gradients are scaled down until their global norm is at most this; 0: no clipping */
    float ema_decay; /* average = ema_decay average + (1 - ema_decay) p */
    /* For cab_adopt(): the gradient's place takes the new value instead of zero, and copies and averages stay. */
    bool publish;
} cab_adamw_options;

/* One update of all parameters of a list. Computes the global norm of the gradients (in fp64, in a fixed order), clips,
 * updates the moments, and then
 *
 *   p -= rate * lr * (m_hat / (sqrt(v_hat) + eps) + decay * p)
 *
 * It updates averages and bf16 copies, raises the parameters' versions, and clears the gradients. `list` must outlive
 * the graph. lr is an F32 scalar input, step an I32 scalar input, 1 in the first update. Returns the norm before
 * clipping, a kept F32 scalar. If the norm is not finite, gradients are cleared, and parameters, moments and averages
 * stay. No backward. */
cab_tensor *cab_adamw(cab_graph *g, const cab_optimized *list, size_t n, const cab_adamw_options *options,
                      cab_tensor *lr, cab_tensor *step);

/* The same for ranks, of which every one has a part of all elements in its list. `norms` are those of all ranks. */
cab_tensor *cab_adamw_part(cab_graph *g, const cab_optimized *list, size_t n, const cab_adamw_options *options,
                           cab_tensor *lr, cab_tensor *step, cab_tensor *norms);
/* Norms of the gradients in the lists of all ranks, (ranks) F32. */
cab_tensor *cab_adamw_norms(cab_graph *g, const cab_optimized *list, size_t n);
/* Takes parameters from their gradients' places, where cab_adamw_options.publish left them; updates averages, if the norm
 * that the update returned is finite, and bf16 copies; clears the gradients. `list` names whole parameters and must
 * outlive the graph. */
void cab_adopt(cab_graph *g, const cab_optimized *list, size_t n, const cab_adamw_options *options, cab_tensor *norm);

/* ---- collective.c: between ranks (backend->communicator) ------------------------------------------------------------ */

/* y (ranks * n) F32: x (n) F32 of every rank. */
cab_tensor *cab_gather(cab_graph *g, cab_tensor *x);
/* Gives every rank's pieces of the buckets of these n stores to all. `stores` must outlive the graph. */
void cab_collect(cab_graph *g, cab_params *const *stores, int n);

#endif
