/* short_conv.h - the short causal convolution before a state-space recurrence, over whole sequences or one token. */
#ifndef CAB_NN_SHORT_CONV_H
#define CAB_NN_SHORT_CONV_H

#include "nn/context.h"

/* x (B, L, E) -> (B, L, E): cab_conv1d() by w (E, 1, K) and b (E) or NULL. Of a context with a position one token, the window of the
 * last K - 1 inputs kept in the graph. */
cab_tensor *cab_short_conv_record(cab_graph *g, const cab_context *context, cab_tensor *w, cab_tensor *b, cab_tensor *x,
                                  bool silu);

#endif
