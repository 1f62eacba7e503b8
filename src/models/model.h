/* model.h - a model is an architecture, its sizes and its parameters. Architectures stand in a registry; each is one file.
 *
 * Teachers and students share one set of words. Every layer has a query, a key and a value tap: in a student C plays the
 * part of Q, B of K and x of V. */
#ifndef CAB_MODELS_MODEL_H
#define CAB_MODELS_MODEL_H

#include "io/checkpoint.h"
#include "models/settings.h"
#include "nn/network.h"

typedef struct cab_arch cab_arch;

enum { CAB_LAYERS_MAX = 1024, CAB_PAIRS_MAX = 512 /* of rotated features of a head */ };
/* What is particular of a layer among those of its model. */
typedef enum cab_layer_kind { CAB_LAYER_SLIDING = 1, CAB_LAYER_NO_ROPE = 2, CAB_LAYER_STATE_SPACE = 4 } cab_layer_kind;

/* What stored weights are multiplied by when they are read, so that the model's own need no factors; 1 in what is saved. */
typedef struct cab_multipliers {
    double attention_in, key, attention_out; /* of what attention reads, of K, of what it gives */
    double state_in, state_parts[5],
        state_out;     /* of what the state-space mixer reads, of its z, x, B, C, dt, of what it gives */
    double gate, down; /* of two outputs in the MLP */
} cab_multipliers;

/* Sizes, in the words of the field; 0 where an architecture has no such thing. */
typedef struct cab_config {
    int vocab_size, d_model, n_layer, d_mlp;
    int n_head, n_kv_head, head_dim;
    int max_length; /* positions a teacher can take; of a student: the sequence length it was trained on */
    cab_rope rope,
        local_rope; /* without the factors of longrope; local_rope: of sliding layers, where they have their own; dim 0: they have not */
    float rope_factors[2][CAB_PAIRS_MAX]; /* longrope: of sequences up to rope.original tokens, and of longer ones */
    double norm_eps;
    cab_activation_kind activation;
    bool tied; /* the head is the embedding */
    bool scale_by_layer;
    bool scale_attention;
    bool attention_bias, mlp_bias;
    double embedding_scale, attention_scale, branch_scale, head_scale; /* 0: 1, or as usual */
    double attention_cap, logit_cap;     /* soft caps of the logits of attention and of the head; 0: none */
    bool parallel;                       /* mixer and MLP side by side, where a family has both forms */
    int window;                          /* tokens that sliding layers see back, themselves included; 0: all */
    uint8_t layer_kinds[CAB_LAYERS_MAX]; /* bits of cab_layer_kind */
    int d_state, d_conv, n_group;        /* state-space mixers: N, K, G */
    int d_inner, dt_rank;                /* their inner width E; Mamba-1: R */
    int n_state_head;                    /* Mamba-2: heads of the state-space mixer, of d_inner / n_state_head */
    bool in_bias, conv_bias, out_bias;   /* of a state-space mixer's projections and convolution */
    bool gated_norm;                     /* Mamba-2: an RMS norm beside the gate, */
    bool norm_first;                     /* which it then reads; else the norm reads what is gated */
    bool both_ways;                      /* Mamba-2: in both directions, */
    int grid_conv;               /* with a convolution over the grid of patches, of this side; 0: without one, */
    bool shared_decay;           /* which have the same decays, */
    double token_scale;          /* with a mean over tokens times this in the place of the sum */
    bool residual_fp32;          /* the residual sum is fp32 whatever the activations are */
    cab_multipliers multipliers; /* Falcon-H1 */
    bool tied_decay; /* Mamba-1: a channel's decay is the same in all states, A_log's rows are one number each */
    int image_size, patch_size; /* image models: pixels of a side */
    int n_classes;
    int n_special;            /* tokens beside the patches: the class token, DeiT's distillation token, registers */
    int n_register;           /* of these the last, which have no position */
    bool class_middle;        /* they stand in the middle of the patches, as Vim's, not in front */
    int class_at;             /* the first of them, counted in tokens */
    bool smooth_positions;    /* those of another size are made with antialiasing */
    bool qkv_bias;            /* ViT: whether Q, K and V have one */
    bool gated;               /* image models: whether the MLP is */
    bool two_heads;           /* the class and the distillation token have a classifier each; their mean counts */
    bool timm;                /* names of timm, not of transformers */
    int bos_token, eos_token; /* -1: none */
    double input_scale;       /* Mamba-2: of what the mixer reads; 0: 1 */
    const cab_arch *base;     /* in-place (in_place.h): the family whose blocks these are, */
    json_object
        *in_place; /* and what its config.json says of teacher and kept heads. Borrowed; a model has a reference */
} cab_config;

/* Tokens that decoding one by one takes. */
int cab_config_steps(const cab_config *c);
/* Its attention, causal: all heads, logits times `scale`. */
cab_attention_shape cab_config_attention(const cab_config *c, double scale);

enum { CAB_IMAGE_MAX = 4096 }; /* pixels of a side */
/* For architectures: image_size, max_length and class_at for this image size, a multiple of c->patch_size. */
void cab_config_set_image(cab_config *c, int image_size);

struct cab_model {
    const cab_arch *arch;
    cab_config config;
    cab_backend *backend;
    bool owns_backend;
    cab_precision precision; /* FP32 or BF16 */
    bool as_is;              /* matrices stay as quantised as they are stored */
    cab_params *params;
    cab_checkpoint *source; /* keeps mapped parameters alive; NULL for a fresh model */
    char *directory;        /* where it came from: the tokenizer lies there. NULL for a fresh model */
    int stated_size;        /* the image size of that directory; config.image_size may be what was asked for */
    cab_network network;    /* what it computes; its tensors are of params, its blocks owned */
};

/* Collects an architecture's parameters: from a checkpoint, or zeros to be initialised. */
typedef struct cab_builder cab_builder;

struct cab_arch {
    const char *name; /* model_type in config.json */
    const char *timm; /* what timm's names of it begin with; NULL: timm has none */
    bool teacher, student;
    const cab_setting *const
        *settings; /* tables of what config.json may say, what configure() reads included; NULL: unchecked */
    bool strict;   /* a key of none of these tables is refused */
    const char *const
        *unread; /* patterns (shell wildcards) of tensors that change nothing and may be left over; NULL: none */
    cab_status (*configure)(const cab_json *json, cab_config *config);
    /* Sizes that config.json leaves to the tensors' shapes; NULL: none. */
    cab_status (*measure)(const cab_checkpoint *source, cab_config *config);
    cab_status (*describe)(const cab_config *config, json_object *json); /* the reverse; NULL: never saved */
    /* Fills the network with what it computes and the builder's tensors. n_layer, zeroed blocks, max_length are set. */
    cab_status (*build)(cab_builder *builder, const cab_config *config, cab_network *network);
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

/* The sizes of the model in a directory, without loading it: image_size is 0 for a model of text; in_place is NULL. */
cab_status cab_model_sizes(const char *directory, cab_config *config);
/* cab_model_load() on a given backend. trainable: parameters are fp32 masters (students to go on from); otherwise they are
 * frozen, matrices in the model's precision and used where they lie in the file if they are stored so. CAB_EUNSUPPORTED: precision has
 * CAB_PRECISION_AS_IS, and parameters are trainable or the file has no quantised matrix. */
cab_status cab_model_open(const char *directory, cab_backend *backend, cab_precision precision, bool trainable,
                          cab_model **model);
/* What decodes fastest: cab_precision_auto(), and as-is of a .gguf file on the processor if its embedding is quantised. A file that cannot be
 * read has none; opening it says why. */
cab_precision cab_precision_of_file(const char *device, const char *path);
/* The same for images of another size than the model was trained on: its positions are interpolated. 0: its own. */
cab_status cab_model_open_sized(const char *directory, int image_size, cab_backend *backend, cab_precision precision,
                                bool trainable, cab_model **model);
/* What a model of these sizes would hold, counted by building it without allocating anything. */
typedef struct cab_model_count {
    uint64_t parameters;
    uint64_t matrices; /* of these, in matrices that products read */
} cab_model_count;
cab_status cab_model_count_parameters(const cab_arch *arch, const cab_config *config, cab_model_count *count);
/* A model without values: every parameter fp32 and zero, trainable. */
cab_status cab_model_create(const cab_arch *arch, const cab_config *config, cab_backend *backend,
                            cab_precision precision, cab_model **model);
/* The same, frozen where not trainable: matrices in the model's precision. */
cab_status cab_model_create_as(const cab_arch *arch, const cab_config *config, cab_backend *backend,
                               cab_precision precision, bool trainable, cab_model **model);
/* cab_model_save() with other values for the parameters (an EMA), in store order; NULL: their own. */
cab_status cab_model_export(const cab_model *model, const char *directory, const char *tokenizer_directory,
                            const float *const *values);

/* Writes what is there of a tokenizer beside (or in) the model `from` into the directory `to`: tokenizer.json and its kin, and where texts
 * begin and end. NULL or the same directory: nothing. */
cab_status cab_model_copy_tokenizer(const char *from, const char *to);

/* Frozen bf16 models on a GPU: linear layers within the numbered layers multiply 8-bit floats from here on (ops/fp8.h); head,
 * embeddings, norms and attention stay as they are. Says once which matrices do not fit. CAB_EUNSUPPORTED elsewhere. */
cab_status cab_model_quantise(cab_model *model);

cab_dtype cab_model_dtype(const cab_model *model);
/* bf16 where the device (as for cab_backend_open()) multiplies it in hardware: any GPU, some processors. */
cab_precision cab_precision_auto(const char *device);
/* What the model reads, as an input of the graph: ids (batch, length) I32, or pixels (batch, 3, S, S) F32, normalised; then
 * length is ignored. */
cab_tensor *cab_model_input(cab_graph *g, const cab_model *model, int64_t batch, int64_t length);
/* Tokens that its layers see of one sample: of a text `length`, of an image its patches and special tokens. */
int64_t cab_model_tokens(const cab_model *model, int64_t length);
cab_tensor *cab_model_record(cab_graph *g, const cab_model *model, cab_tensor *ids, int recompute,
                             const cab_taps *taps);
/* The same of sequences of several documents, each as if it were alone: starts (B, L) I32, the index of the first token of each token's
 * document; NULL: every sequence is one. */
cab_tensor *cab_model_record_documents(cab_graph *g, const cab_model *model, cab_tensor *ids, cab_tensor *starts,
                                       int recompute, const cab_taps *taps);
/* One token, as cab_network_record_step(). */
cab_tensor *cab_model_record_step(cab_graph *g, const cab_model *model, cab_tensor *ids, cab_tensor *position);
/* The head's weights; hidden is left NULL. */
cab_head_side cab_model_head(const cab_model *model);
/* hidden (B, L, D) -> logits (B, L, V) in the model's dtype. */
cab_tensor *cab_model_record_logits(cab_graph *g, const cab_model *model, cab_tensor *hidden);
/* Whether all layers mix by attention. */
bool cab_model_attends(const cab_model *model);
/* Width of a layer's tap: CAB_TAP_QUERY, CAB_TAP_KEY or CAB_TAP_VALUE. */
int64_t cab_model_tap_width(const cab_model *model, int layer, cab_tap tap);

#endif
