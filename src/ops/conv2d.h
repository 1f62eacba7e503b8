/* conv2d.h - what the recorder of the convolution over a grid tells its kernels. */
#ifndef CAB_OPS_CONV2D_H
#define CAB_OPS_CONV2D_H

#include "tensor/graph.h"

extern const cab_op cab_op_conv2d;

enum { CAB_CONV2D_X, CAB_CONV2D_W, CAB_CONV2D_BIAS, CAB_CONV2D_INPUTS };
enum {
    CAB_CONV2D_MAX_SIDE = 7, /* of a filter */
    CAB_CONV2D_BLOCK = 128   /* channels of a task of the CPU */
};

typedef struct cab_conv2d_attributes {
    int64_t first; /* tokens in front of the grid */
    int64_t width; /* tokens of a row of the grid */
} cab_conv2d_attributes;

/* The sizes of a node: `images` grids of height x width tokens, each behind `first` others; E channels, filters of side x side. */
typedef struct cab_conv2d_shape {
    int64_t images, first, height, width, E;
    int side;
} cab_conv2d_shape;

static inline cab_conv2d_shape cab_conv2d_shape_of(const cab_node *node)
{
    const cab_conv2d_attributes *a = (const cab_conv2d_attributes *)node->attributes;
    const cab_tensor *x = node->in[CAB_CONV2D_X], *w = node->in[CAB_CONV2D_W];
    cab_conv2d_shape s;
    s.images = x->shape[0];
    s.first = a->first;
    s.height = (x->shape[1] - a->first) / a->width;
    s.width = a->width;
    s.E = w->shape[0];
    s.side = (int)cab_columns(w);
    return s;
}

#endif
