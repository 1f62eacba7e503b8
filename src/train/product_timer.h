/* product_timer.h - the matrix products of a model's linear layers alone, at the shapes that a list has them: what the rest of a pass is held
 * against. */
#ifndef CAB_TRAIN_PRODUCT_TIMER_H
#define CAB_TRAIN_PRODUCT_TIMER_H

#include "tensor/graph.h"

/* (m x k) (k x n), in `times` places of the list. */
typedef struct cab_product_time {
    int64_t m, n, k;
    bool bias;
    int times;
    double seconds; /* of one */
} cab_product_time;

enum { CAB_PRODUCT_TIMES = 64 };

/* The linear layers of a list that has been recorded and not been planned, shape by shape; *n of them. Of more than CAB_PRODUCT_TIMES the
 * rest is left out. */
void cab_products_of(const cab_graph *g, cab_product_time products[CAB_PRODUCT_TIMES], int *n);
/* Times each in a list of its own: several of them back to back, on one input and weights of their own, all random and in `dtype`; `steps`
 * runs after three to warm up. */
cab_status cab_products_time(cab_backend *backend, cab_dtype dtype, int steps, cab_product_time *products, int n);

#endif
