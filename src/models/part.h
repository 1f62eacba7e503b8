/* part.h - what an initialisation may copy of a model, as (out, in) matrices and vectors in fp32. */
#ifndef CAB_MODELS_PART_H
#define CAB_MODELS_PART_H

#include "models/model.h"

typedef enum cab_part {
    CAB_PART_EMBEDDING, /* (V, D); of images (D, 3 p p), the patches' */
    CAB_PART_POSITIONS, /* (max, D) */
    CAB_PART_HEAD_W,    /* (V, D); of several tokens side by side their sum, as if one stood for all */
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
    CAB_PART_Q_NORM, /* of one head, or of all together */
    CAB_PART_K_NORM,
    CAB_PART_FC1_W, /* of an MLP without gate */
    CAB_PART_FC1_B,
    CAB_PART_GATE_W, /* of one with a gate */
    CAB_PART_GATE_B,
    CAB_PART_UP_W,
    CAB_PART_UP_B,
    CAB_PART_FC2_W,
    CAB_PART_FC2_B,
    CAB_PART_EMBEDDING_B, /* (D): of images */
    CAB_PART_CLASS_TOKEN  /* (D) */
} cab_part;

typedef struct cab_part_values {
    float *values;         /* owned by the receiver (cab_free); NULL when the model has no such part */
    int64_t rows, columns; /* columns 1 for vectors */
} cab_part_values;

/* layer: of parts that every layer has. */
cab_status cab_model_part(const cab_model *model, cab_part part, int layer, cab_part_values *out);

#endif
