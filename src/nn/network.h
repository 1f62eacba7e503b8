/* network.h - a whole model as data: what it makes of its input, its layers, and what the head reads.
 *
 *   text       x = embedding[ids] + positions            -> blocks -> final_norm(x)
 *   images     x = patches(pixels), with tokens of its own among them, + positions -> blocks -> final_norm(x[tokens]) */
#ifndef CAB_NN_NETWORK_H
#define CAB_NN_NETWORK_H

#include "nn/block.h"

enum { CAB_SPECIAL_MAX = 2, CAB_REGISTERS_MAX = 16 };

typedef struct cab_network {
    cab_tensor *embedding; /* text: (V, D) */
    float embedding_scale; /* text: of the embedding; 0: 1 */
    cab_dense patches;     /* images: (D, 3 p p), a convolution of stride p */
    int patch_size;
    int n_special; /* tokens beside the patches, (D) each, and where they stand */
    cab_tensor *special[CAB_SPECIAL_MAX];
    int64_t special_at[CAB_SPECIAL_MAX];
    cab_tensor *positions; /* (max, D) added to x; NULL: none */
    int n_register;        /* images: tokens without a position, (D) each, behind the first of all */
    cab_tensor *registers[CAB_REGISTERS_MAX];
    int n_layer;
    cab_block *blocks;
    int64_t max_length; /* tokens that it takes */
    int64_t
        step_length; /* tokens that decoding takes, one by one: fewer with longrope, which has other keys from there on */
    int64_t read_at;    /* images: the head reads read_count tokens from here on, side by side */
    int64_t read_count; /* 0: every token has an output */
    int64_t pool_from;  /* images: in their place the first token, and the mean of those from here on; 0: none */
    cab_norm final_norm;
    float head_scale; /* of what the head reads; 0: 1 */
    float logit_cap;  /* the head's logits s become cap tanh(s / cap); 0: they stay */
    cab_dense head;
} cab_network;

/* ids (B, L) I32, or pixels (B, 3, H, W) F32 -> what the head reads, (B, L, D) or (B, 1, read_count * D). The first `recompute`
 * layers are computed again in the backward pass instead of kept. taps may be NULL. starts (B, L) I32, as of cab_ssd(): documents that
 * know nothing of each other; or NULL. */
cab_tensor *cab_network_record(cab_graph *g, const cab_network *network, cab_dtype dtype, cab_tensor *input,
                               cab_tensor *starts, int recompute, const cab_taps *taps);
/* Parts of the same, whole sequences without taps, for networks whose layers pass on x alone (no block is x_apart): what the first layer reads;
 * x after layers first .. first + count - 1; what the head reads of x after the last layer. */
cab_tensor *cab_network_record_input(cab_graph *g, const cab_network *network, cab_dtype dtype, cab_tensor *input);
cab_tensor *cab_network_record_layers(cab_graph *g, const cab_network *network, cab_dtype dtype, cab_tensor *x,
                                      int first, int count);
cab_tensor *cab_network_record_output(cab_graph *g, const cab_network *network, cab_tensor *x);
/* One token of text: ids (B, 1), position an I32 scalar -> (B, 1, D). States live in the graph. */
cab_tensor *cab_network_record_step(cab_graph *g, const cab_network *network, cab_dtype dtype, cab_tensor *ids,
                                    cab_tensor *position);
/* Whether it takes no more than max_length tokens: it attends to them, or has a table of positions. */
bool cab_network_bounded(const cab_network *network);
/* Whether it does such steps. */
bool cab_network_steps(const cab_network *network);
/* Whether its layers have a second direction, from the last token to the first, with taps of its own. */
bool cab_network_bidirectional(const cab_network *network);

/* Calls `visit` with the place of every parameter, in one order for all networks; the place holds NULL where there is none. A tensor that
 * stands in two places, such as a tied head, is visited twice. Ends with the first failure. */
typedef cab_status cab_parameter_visit(void *user, cab_tensor **place);
cab_status cab_network_parameters(cab_network *network, cab_parameter_visit *visit, void *user);
/* The same of one block. */
cab_status cab_block_parameters(cab_block *block, cab_parameter_visit *visit, void *user);
/* The same of what a network has beside its blocks. */
cab_status cab_network_ends(cab_network *network, cab_parameter_visit *visit, void *user);

/* Logits of the head, with the cap if there is one. */
cab_tensor *cab_network_cap(cab_graph *g, const cab_network *network, cab_tensor *logits);

#endif
