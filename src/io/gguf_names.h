/* gguf_names.h - what llama.cpp calls architectures and tensors, and what transformers calls them: one table, for reading and for writing. */
#ifndef CAB_IO_GGUF_NAMES_H
#define CAB_IO_GGUF_NAMES_H

#include <stdbool.h>
#include <stdint.h>

enum { CAB_GGUF_NAME_MAX = 96 }; /* bytes of a tensor's name, as in tensor.h */

/* How the file's tensor is made from transformers'. */
typedef enum cab_gguf_form {
    CAB_GGUF_SAME,       /* both names are followed by ".weight" or ".bias" */
    CAB_GGUF_FILTER,     /* and (C, 1, K) becomes (C, K) */
    CAB_GGUF_GROUPS,     /* and (E) becomes (G, E / G) */
    CAB_GGUF_FIRST_HALF, /* and these are the first of its rows; the next row of the table has the others */
    CAB_GGUF_SECOND_HALF,
    CAB_GGUF_WHOLE,     /* both names are whole */
    CAB_GGUF_COLUMN,    /* and (H) becomes (H, 1) */
    CAB_GGUF_DECAY,     /* and A_log becomes -exp(A_log) */
    CAB_GGUF_DECAY_HEAD /* and (H) becomes (H, 1) besides */
} cab_gguf_form;

/* "%d" stands for the layer. A table ends with a name of NULL. */
typedef struct cab_gguf_name {
    const char *gguf, *transformers;
    cab_gguf_form form;
} cab_gguf_name;

/* Keys of config.json for the sizes of a state-space mixer; NULL: not said there. */
typedef struct cab_gguf_mixer {
    const char *conv, *state, *rank, *groups; /* of the same number in the file; rank: heads of Mamba-2, R of Mamba */
    const char *inner, *expand, *head;        /* the inner width, that over hidden_size, that over heads */
    const char *conv_bias, *norm;             /* whether the file has such tensors */
    const char *eps;                          /* in the place of rms_norm_eps */
    bool attends;                             /* there may be attention beside such mixers */
} cab_gguf_mixer;

/* One architecture of llama.cpp. */
typedef struct cab_gguf_family {
    const char *name, *model_type;
    const cab_gguf_name *names; /* before the common ones */
    bool permuted;              /* rows of q and k are in the order of rotated pairs */
    bool norms_plus_one;        /* norms' weights are stored as 1 + w */
    int wide_layers; /* a model of so many layers scales attention by hidden_size / heads, not by the head's width */
    const char *constants; /* more of config.json, as JSON; NULL: files of it are written, not read */
    const cab_gguf_mixer *mixer;
} cab_gguf_family;

/* Ends with a name of NULL. Where two have one name, files are read by the first. */
extern const cab_gguf_family cab_gguf_families[];
extern const cab_gguf_name cab_gguf_common_names[];

/* Whether this row of a table has a tensor of that name; then `out` is the other name. */
bool cab_gguf_to_transformers(const cab_gguf_name *row, const char *name, char out[CAB_GGUF_NAME_MAX]);
bool cab_gguf_from_transformers(const cab_gguf_name *row, const char *name, char out[CAB_GGUF_NAME_MAX]);

/* What a value of the file has to go through to be transformers'. */
typedef struct cab_gguf_change {
    int heads; /* rows come head by head, and within each, row i of the first half of transformers' is row 2 i, of the second 2 i + 1; 0:
                    as they are */
    float added; /* to every element */
    bool decay;  /* elements are -exp() of transformers' */
} cab_gguf_change;

/* Of the file's tensor of that name; `decay` is for the caller. */
cab_gguf_change cab_gguf_change_of(const cab_gguf_family *family, const char *name, int heads, int kv_heads);

/* Row of the file that is row `row` of transformers' tensor, of `rows`. */
int64_t cab_gguf_row(const cab_gguf_change *change, int64_t rows, int64_t row);
/* And back. */
int64_t cab_gguf_row_back(const cab_gguf_change *change, int64_t rows, int64_t row);

#endif
