/* bridge.h - the attention bridge: per aligned student layer two small MLPs, phi_B and phi_C, that carry the student's
 * per-token B and C to the teacher's K and Q. Trained with the student, discarded after.
 *
 *   L_align = mean over aligned layers l of  mse(phi_B(B_l), psi(K_g(l))) + mse(phi_C(C_l), psi(Q_g(l)))
 *
 * or, relative, each sequence's error divided by the variance of its psi(K) or psi(Q): one weight then serves any width and map.
 *
 * A student of two directions has two more per layer, for the B and C of its second direction, and two more terms. Both
 * directions keep their rows in the order of the tokens, so that both are compared with the same rows of K and Q: reversing
 * B and K alike changes no mean. */
#ifndef CAB_NN_BRIDGE_H
#define CAB_NN_BRIDGE_H

#include "nn/layers.h"

enum { CAB_BRIDGE_MAX_LAYERS = 4 };

typedef struct cab_bridge_options {
    int n_layer; /* linear layers per MLP, 1 to 4 */
    int64_t hidden;
    cab_activation_kind activation;
    bool softmax;        /* psi: softmax over features for Q, over tokens for K */
    cab_feature_map map; /* otherwise: none, relu or exp for both */
    bool relative;       /* each error is a share of its target's variance */
    bool bidirectional;
} cab_bridge_options;

typedef struct cab_bridge cab_bridge;

/* Of one aligned layer: columns of the student's B and C, and of the K and Q of the teacher's layer. */
typedef struct cab_bridge_widths {
    int64_t B, C, K, Q;
} cab_bridge_widths;

/* layer_map[l] is the teacher layer that teaches student layer l, or -1; widths[l] are the sizes of this pair. Parameters are "bridge.B.<l>.<0|2|4|6>.weight|bias" in `params` (B, C, B_b, C_b), freshly drawn
 * (uniform in +-1/sqrt(fan in), as torch.nn.Linear) from `seed`, and trainable. */
cab_status cab_bridge_new(cab_params *params, const cab_bridge_options *options, const int *layer_map, int n_layer,
                          const cab_bridge_widths *widths, uint64_t seed, cab_bridge **bridge);
void cab_bridge_free(cab_bridge *bridge);

/* The number of student layers that have a teacher. */
int cab_bridge_aligned(const cab_bridge *bridge);

/* Records the errors: B[l], C[l] of the student, K[t], Q[t] of the teacher, all layers of each. terms receives
 * 2 * cab_bridge_aligned() scalars F32; L_align is their sum over cab_bridge_aligned(). They are summed by the host, and each
 * is seeded with weight / aligned, because a fused loss has its value only once its backward has run. */
void cab_bridge_record(cab_graph *g, const cab_bridge *bridge, cab_tensor *const *B, cab_tensor *const *C,
                       cab_tensor *const *K, cab_tensor *const *Q, cab_tensor **terms);

/* What the bridge of image models compares: all layers of each. B_back and C_back are read only where bidirectional. */
typedef struct cab_bridge_images {
    cab_tensor *const *B, *const *C, *const *B_back, *const *C_back;
    cab_tensor *const *K, *const *Q;
    cab_row_map rows;
} cab_bridge_images;

/* The terms of one recording, 2 or 4 per aligned layer. */
int cab_bridge_terms(const cab_bridge *bridge);
/* As cab_bridge_record(), with cab_bridge_terms() terms. */
void cab_bridge_record_images(cab_graph *g, const cab_bridge *bridge, const cab_bridge_images *images,
                              cab_tensor **terms);

#endif
