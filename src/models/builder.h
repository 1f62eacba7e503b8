/* builder.h - how an architecture comes by its parameters: from a checkpoint, or zeros to be initialised. For the files of
 * this folder. */
#ifndef CAB_MODELS_BUILDER_H
#define CAB_MODELS_BUILDER_H

#include "models/model.h"

/* A parameter to be added, under the shape it is computed with and the one it is stored with. */
typedef struct cab_declaration {
    cab_dtype dtype;
    cab_decay decay;
    int n_dim, stored_dim;
    const int64_t *shape, *stored_shape;
    float offset; /* added to what is stored, of tensors that are converted */
    bool blocks;  /* read by products, and row by row, alone: may stay in blocks of few bits */
} cab_declaration;

struct cab_outline;

struct cab_builder {
    cab_backend *backend;
    cab_params *params;
    const cab_checkpoint *source; /* NULL: fresh parameters */
    const char *const *prefixes;
    char scope[CAB_NAME_MAX];
    cab_dtype dtype; /* of frozen matrices */
    float
        norm_offset; /* 1 where norms multiply by 1 + w of the stored w, which becomes the parameter; else 0. Never saved back */
    bool trainable;
    bool as_is;                  /* matrices that are stored in blocks of few bits stay so */
    size_t *in_blocks;           /* as_is: counts them */
    int image_size;              /* pixels of a side that the source states; the model's may be another */
    cab_model_count *count;      /* a dry build: parameters are counted, not made; NULL: they are made */
    cab_tensor counted;          /* what stands for each of them in a dry build */
    struct cab_outline *outline; /* parameters are only noted there (outline.h); NULL: they are made */
    bool *used;                  /* by the source's tensors, in its order: what has been read */
};

/* Names tried in front of every name, until one gives a tensor: "transformer.", "". */
void cab_builder_prefixes(cab_builder *b, const char *const *prefixes);
/* What stands before every name from here on: `format` with l in it, "h.%d."; then nothing again. */
void cab_builder_layer(cab_builder *b, const char *format, int l);
void cab_builder_no_layer(cab_builder *b);
/* The name as stored: with the first of the prefixes under which it is there, or the first of all. */
void cab_builder_name(const cab_builder *b, const char *name, char out[CAB_NAME_MAX]);
/* Whether the checkpoint has it; false for fresh parameters. */
bool cab_builder_has(const cab_builder *b, const char *name);

/* Matrices are read by products: they take the model's precision when frozen, or stay as quantised as they
 * are stored (as_is). Vectors are always fp32. `format` with its
 * arguments makes the name. Missing or misshapen tensors are errors naming the directory and the tensor. */
cab_status cab_builder_matrix(cab_builder *b, cab_tensor **out, int64_t rows, int64_t columns, const char *format, ...)
    CAB_PRINTF(5, 6);
cab_status cab_builder_vector(cab_builder *b, cab_tensor **out, int64_t n, const char *format, ...) CAB_PRINTF(4, 5);
/* A convolution's filter, stored as (out, ...) and computed with as the matrix (out, product of the rest). */
cab_status cab_builder_filter(cab_builder *b, cab_tensor **out, int n_dim, const int64_t *shape, const char *format,
                              ...) CAB_PRINTF(5, 6);
/* A vector of n elements stored with another shape, such as (n, 1, k). Always fp32. */
cab_status cab_builder_shaped(cab_builder *b, cab_tensor **out, cab_decay decay, int n_dim, const int64_t *shape,
                              const char *format, ...) CAB_PRINTF(6, 7);
/* Position embedding of an image model, (1, T + n_special, D) fp32 without decay, T = grid * grid. Stored for the image size that
 * the checkpoint states; where the model was asked for with another, it is interpolated (bicubic, with smooth_positions antialiased). class_at is where the n_special
 * tokens stand, in both at the same part. */
cab_status cab_builder_positions(cab_builder *b, cab_tensor **out, const cab_config *c, const char *name);

/* Adds what is declared; the others below come down to this. */
cab_status cab_builder_declare(cab_builder *b, cab_tensor **out, const cab_declaration *declaration, const char *name);

/* Marks a parameter, (rows, columns), as one of a number per row (tied_decay), which a checkpoint's must be. */
cab_status cab_builder_tie(const cab_builder *b, cab_tensor *t);

/* "name.weight", and where biased "name.bias". A dense's layout is the one it has already: 0 is CAB_OUT_IN. */
cab_status cab_builder_dense(cab_builder *b, cab_dense *dense, int64_t n_in, int64_t n_out, bool biased,
                             const char *name);
cab_status cab_builder_norm(cab_builder *b, cab_norm *norm, int64_t n, double eps, bool biased, const char *name);
/* A dense with a bias, whose outputs are multiplied by the stored vector `scale` (n_out): of a checkpoint its parameters are
 * diag(scale) W and scale b. NULL: it is a plain one. */
cab_status cab_builder_scaled_dense(cab_builder *b, cab_dense *dense, int64_t n_in, int64_t n_out, const char *name,
                                    const char *scale);
/* A dense of all rows of `parts`, n of them: of a checkpoint each row's weights are multiplied by `in` and its part's factor,
 * its bias by the factor alone. */
typedef struct cab_multiplied_rows {
    int64_t rows;
    double factor;
} cab_multiplied_rows;
cab_status cab_builder_multiplied_dense(cab_builder *b, cab_dense *dense, int64_t n_in, bool biased, const char *name,
                                        double in, int n, const cab_multiplied_rows *parts);
/* The same of one part: n_out rows, multiplied by `out`. Here factors of 0 are 1: the configuration has none. */
cab_status cab_builder_dense_times(cab_builder *b, cab_dense *dense, int64_t n_in, int64_t n_out, bool biased,
                                   double in, double out, const char *name);
/* Row r of the parameter, (rows, columns) or of columns 0 a vector of rows, is row order[r] of the stored one, which has
 * stored_rows. */
cab_status cab_builder_picked(cab_builder *b, cab_tensor **out, int64_t rows, int64_t columns, int64_t stored_rows,
                              const int64_t *order, const char *name);
/* The rows of a stored (1, n, width), each a vector of its own, fp32, in out[n]. */
cab_status cab_builder_rows(cab_builder *b, cab_tensor **out, int n, int64_t width, const char *name);
/* Embedding (V, D) and head of a model of text. Tied, they are one matrix, stored under either name or under both with equal
 * values. */
cab_status cab_builder_embedding(cab_builder *b, cab_network *n, const cab_config *c, const char *name,
                                 const char *head);
cab_status cab_builder_head(cab_builder *b, cab_network *n, const cab_config *c, bool biased, const char *name);

/* Notes that a tensor of the source, by its full name, has been read. */
void cab_builder_used(cab_builder *b, const char *name);
/* CAB_EUNSUPPORTED, naming a tensor of the source that nobody has read and that no pattern of `unread` (may be NULL) allows. */
cab_status cab_builder_finish(const cab_builder *b, const char *const *unread);

#endif
