/* model.h - a model is an architecture, its sizes and its parameters. Architectures stand in a registry; each is one file.
 *
 * Teachers and students share one set of words. Every layer has a query, a key and a value tap: in a student C plays the
 * part of Q, B of K and x of V. */
#ifndef CAB_MODELS_MODEL_H
#define CAB_MODELS_MODEL_H

#include "io/checkpoint.h"
#include "models/settings.h"
#include "nn/layers.h"

typedef struct cab_arch cab_arch;

/* Sizes, in the words of the field; 0 where an architecture has no such thing. */
typedef struct cab_config {
    int vocab_size, d_model, n_layer, d_mlp;
    int n_head, n_kv_head, head_dim;
    int max_length; /* positions a teacher can take; of a student: the sequence length it was trained on */
    int rotary_dim;
    double rope_theta;
    double norm_eps;
    cab_activation_kind activation;
    bool tied; /* the head is the embedding */
    bool scale_by_layer;
    bool scale_attention;
    int d_state, d_conv, n_group; /* students; P = d_model / n_head */
    int d_inner, dt_rank;         /* Mamba-1: E and R */
    bool tied_decay; /* Mamba-1: a channel's decay is the same in all states, A_log's rows are one number each */
    int image_size, patch_size; /* image models: pixels of a side */
    int n_classes;
    int n_special;            /* tokens beside the patches: the class token, DeiT's distillation token */
    bool class_middle;        /* they stand in the middle of the patches, as Vim's, not in front */
    int class_at;             /* the first of them, counted in tokens */
    bool qkv_bias;            /* ViT: whether Q, K and V have one */
    bool two_heads;           /* the class and the distillation token have a classifier each; their mean counts */
    bool timm;                /* names of timm, not of transformers */
    int bos_token, eos_token; /* -1: none */
} cab_config;

enum { CAB_IMAGE_MAX = 4096 }; /* pixels of a side */
/* For architectures: image_size, max_length and class_at for this image size, a multiple of c->patch_size. */
void cab_config_set_image(cab_config *c, int image_size);

/* Recorded per layer, on demand: NULL pointers are not filled in. Each array has n_layer entries. */
typedef struct cab_taps {
    cab_tensor **query, **key,
        **value;         /* (B, L, heads * width), as the mixer sees them (after rotation, convolution) */
    cab_tensor **hidden; /* (B, L, D): the input of each layer */
    cab_tensor **query_back, **key_back; /* of the second direction, rows in the order of the tokens */
    cab_tensor **decay, **decay_back;    /* students: what the decay comes from, a_log (B, L, H) or dt (B, L, E) */
} cab_taps;

typedef enum cab_tap {
    CAB_TAP_QUERY,
    CAB_TAP_KEY,
    CAB_TAP_VALUE,
    CAB_TAP_HIDDEN,
    CAB_TAP_QUERY_BACK,
    CAB_TAP_KEY_BACK,
    CAB_TAP_DECAY,
    CAB_TAP_DECAY_BACK,
    CAB_TAPS
} cab_tap;
/* For architectures: notes t as layer l's tap, if it is wanted. */
void cab_taps_set(const cab_taps *taps, int l, cab_tap tap, cab_tensor *t);

struct cab_model {
    const cab_arch *arch;
    cab_config config;
    cab_backend *backend;
    bool owns_backend;
    cab_precision precision;
    cab_params *params;
    cab_checkpoint *source; /* keeps mapped parameters alive; NULL for a fresh model */
    char *directory;        /* where it came from: the tokenizer lies there. NULL for a fresh model */
    void *layers;           /* the architecture's own struct of parameters, in one block */
};

/* Parts of a Transformer layer that an initialisation may copy, as (out, in) matrices and vectors in fp32. */
typedef enum cab_part {
    CAB_PART_EMBEDDING, /* (V, D); of images (D, 3 p p), the patches' */
    CAB_PART_POSITIONS, /* (max, D) */
    CAB_PART_HEAD_W,    /* (V, D) */
    CAB_PART_HEAD_B,
    CAB_PART_FINAL_NORM_W,
    CAB_PART_FINAL_NORM_B,
    CAB_PART_NORM_W, /* before the mixer */
    CAB_PART_NORM_B,
    CAB_PART_MLP_NORM_W, /* before the MLP, where it is another */
    CAB_PART_MLP_NORM_B,
    CAB_PART_Q_W,
    CAB_PART_Q_B,
    CAB_PART_K_W,
    CAB_PART_K_B,
    CAB_PART_V_W,
    CAB_PART_V_B,
    CAB_PART_OUT_W,
    CAB_PART_OUT_B,
    CAB_PART_FC1_W,
    CAB_PART_FC1_B,
    CAB_PART_FC2_W,
    CAB_PART_FC2_B,
    CAB_PART_EMBEDDING_B, /* (D): of images */
    CAB_PART_CLASS_TOKEN  /* (D) */
} cab_part;

typedef struct cab_part_values {
    float *values;         /* owned by the receiver (cab_free); NULL when the model has no such part */
    int64_t rows, columns; /* columns 1 for vectors */
} cab_part_values;

/* Collects an architecture's parameters: from a checkpoint, or zeros to be initialised. */
typedef struct cab_builder cab_builder;

struct cab_arch {
    const char *name; /* model_type in config.json */
    const char *timm; /* what timm's names of it begin with; NULL: timm has none */
    bool teacher, student;
    bool bidirectional; /* students: a second direction, from the last token to the first, with taps of its own */
    size_t layers_size; /* bytes of model->layers for n layers: header + n * per_layer */
    size_t per_layer;
    const cab_setting *const
        *settings; /* tables of what config.json may say, what configure() reads included; NULL: unchecked */
    bool strict;   /* a key of none of these tables is refused */
    const char *const
        *unread; /* patterns (shell wildcards) of tensors that change nothing and may be left over; NULL: none */
    cab_status (*configure)(const cab_json *json, cab_config *config);
    /* Sizes that config.json leaves to the tensors' shapes; NULL: none. */
    cab_status (*measure)(const cab_checkpoint *source, cab_config *config);
    cab_status (*describe)(const cab_config *config, json_object *json); /* the reverse; NULL: never saved */
    cab_status (*build)(cab_builder *builder, cab_model *model);
    /* ids (B, L) I32 -> the hidden state after the final norm (B, L, D). taps may be NULL. Image models: pixels
     * (B, 3, image_size, image_size) F32, normalised -> what the head reads, (B, 1, D). recompute: so many of the first
     * layers are computed again in the backward pass instead of kept. */
    cab_tensor *(*record)(cab_graph *g, const cab_model *model, cab_tensor *ids, int recompute, const cab_taps *taps);
    /* ids (B, 1), position an I32 scalar -> (B, 1, D). States live in the graph. */
    cab_tensor *(*record_step)(cab_graph *g, const cab_model *model, cab_tensor *ids, cab_tensor *position);
    /* What attention computes with in layer l; NULL: the architecture has none. */
    cab_attention_shape (*attention)(const cab_config *config, int l);
    /* The head's weights; hidden is left NULL. */
    cab_head_side (*head)(const cab_model *model);
    /* *values NULL when there is no such part. */
    cab_status (*part)(const cab_model *model, cab_part part, int layer, cab_part_values *out);
};

/* Whether the model reads images, not token ids. */
bool cab_model_reads_images(const cab_model *model);

/* All architectures, NULL-terminated. */
const cab_arch *const *cab_architectures(void);
/* CAB_EUNSUPPORTED naming the file, the type found and those that are supported. */
cab_status cab_architecture_find(const char *name, const char *file, const cab_arch **arch);
/* What a config.json calls its architecture: transformers' "model_type", or timm's "architecture". */
cab_status cab_architecture_name(const cab_json *json, const char **name);
/* The same, found. */
cab_status cab_architecture_of(const cab_json *json, const cab_arch **arch);
/* arch->configure() after arch->settings: what a config.json says, or CAB_EUNSUPPORTED naming the setting that is not computed with. */
cab_status cab_architecture_configure(const cab_arch *arch, const cab_json *json, cab_config *config);

/* The sizes of the model in a directory, without loading it: image_size is 0 for a model of text. */
cab_status cab_model_sizes(const char *directory, cab_config *config);
/* cab_model_load() on a given backend. trainable: parameters are fp32 masters (students to go on from); otherwise they are
 * frozen, matrices in the model's precision and used where they lie in the file if they are stored so. */
cab_status cab_model_open(const char *directory, cab_backend *backend, cab_precision precision, bool trainable,
                          cab_model **model);
/* The same for images of another size than the model was trained on: its positions are interpolated. 0: its own. */
cab_status cab_model_open_sized(const char *directory, int image_size, cab_backend *backend, cab_precision precision,
                                bool trainable, cab_model **model);
/* A model without values: every parameter fp32 and zero, trainable. */
cab_status cab_model_create(const cab_arch *arch, const cab_config *config, cab_backend *backend,
                            cab_precision precision, cab_model **model);
/* The same, frozen where not trainable: matrices in the model's precision. */
cab_status cab_model_create_as(const cab_arch *arch, const cab_config *config, cab_backend *backend,
                               cab_precision precision, bool trainable, cab_model **model);
/* cab_model_save() with other values for the parameters (an EMA), in store order; NULL: their own. */
cab_status cab_model_export(const cab_model *model, const char *directory, const char *tokenizer_directory,
                            const float *const *values);

/* Frozen bf16 models on a GPU: linear layers within the numbered layers multiply 8-bit floats from here on (ops/fp8.h); head,
 * embeddings, norms and attention stay as they are. Says once which matrices do not fit. CAB_EUNSUPPORTED elsewhere. */
cab_status cab_model_quantise(cab_model *model);

cab_dtype cab_model_dtype(const cab_model *model);
/* bf16 where the device (as for cab_backend_open()) multiplies it in hardware: any GPU, some processors. */
cab_precision cab_precision_auto(const char *device);
/* What the model reads, as an input of the graph: ids (batch, length) I32, or pixels (batch, 3, S, S) F32, normalised; then
 * length is ignored. */
cab_tensor *cab_model_input(cab_graph *g, const cab_model *model, int64_t batch, int64_t length);
cab_tensor *cab_model_record(cab_graph *g, const cab_model *model, cab_tensor *ids, int recompute,
                             const cab_taps *taps);
/* hidden (B, L, D) -> logits (B, L, V) in the model's dtype. */
cab_tensor *cab_model_record_logits(cab_graph *g, const cab_model *model, cab_tensor *hidden);
/* Width of the query / key / value taps. */
int64_t cab_model_query_width(const cab_model *model);
int64_t cab_model_key_width(const cab_model *model);
int64_t cab_model_value_width(const cab_model *model);

/* ---- for architectures (builder.c) ---- */

/* Names tried in front of every name, until one gives a tensor: "transformer.", "". */
void cab_builder_prefixes(cab_builder *b, const char *const *prefixes);
/* Matrices are read by products: they take the model's precision when frozen. Vectors are always fp32. `format` with its
 * arguments makes the name. Missing or misshapen tensors are errors naming the directory and the tensor. */
cab_status cab_builder_matrix(cab_builder *b, cab_tensor **out, int64_t rows, int64_t columns, const char *format, ...)
    CAB_PRINTF(5, 6);
cab_status cab_builder_vector(cab_builder *b, cab_tensor **out, int64_t n, const char *format, ...) CAB_PRINTF(4, 5);
/* A convolution's filter, stored as (out, ...) and computed with as the matrix (out, product of the rest). */
cab_status cab_builder_filter(cab_builder *b, cab_tensor **out, int n_dim, const int64_t *shape, const char *format,
                              ...) CAB_PRINTF(5, 6);
/* Position embedding of an image model, (1, T + n_special, D) fp32 without decay, T = grid * grid. Stored for the image size that
 * the checkpoint states; where the model was asked for with another, it is interpolated (bicubic). class_at is where the n_special
 * tokens stand, in both at the same part. */
cab_status cab_builder_positions(cab_builder *b, cab_tensor **out, const cab_config *c, const char *name);
/* The matrix that is embedding and head at once, stored under either name, or under both with equal values. */
cab_status cab_builder_tied(cab_builder *b, cab_tensor **out, int64_t rows, int64_t columns, const char *embedding,
                            const char *head);
/* Whether the checkpoint has it; false for fresh parameters. */
bool cab_builder_has(const cab_builder *b, const char *name);
/* A vector of n elements stored with another shape, such as (n, 1, k). Always fp32. */
cab_status cab_builder_shaped(cab_builder *b, cab_tensor **out, cab_decay decay, int n_dim, const int64_t *shape,
                              const char *format, ...) CAB_PRINTF(6, 7);

/* Attention of one decoding step over a cache of config.max_length positions, kept in the graph. */
cab_tensor *cab_cached_attention(cab_graph *g, const cab_model *model, cab_tensor *const qkv[3], cab_tensor *position,
                                 const cab_attention_shape *shape);
/* The same parts table for every architecture: which tensor, how it is laid out, which rows. t NULL: no such part. */
typedef struct cab_part_place {
    cab_tensor *t;
    cab_layout layout;
    int64_t first, rows;
} cab_part_place;

/* A copy of rows [first, first + rows) of a parameter as fp32 (out, in), transposed if its layout is CAB_IN_OUT (then
 * "rows" are its columns). Vectors: n = rows, columns 1. */
cab_status cab_part_copy(const cab_params *params, const cab_part_place *place, cab_part_values *out);

#endif
