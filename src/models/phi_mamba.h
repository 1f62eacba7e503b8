/* phi_mamba.h - the parameters of the discrete Mamba-2 student, for initialisations. */
#ifndef CAB_MODELS_PHI_MAMBA_H
#define CAB_MODELS_PHI_MAMBA_H

#include "models/model.h"
#include "nn/mamba2.h"

typedef struct cab_phi_mamba_layer {
    cab_norm norm;
    cab_mamba2 mixer;
    cab_mlp mlp;
} cab_phi_mamba_layer;

typedef struct cab_phi_mamba {
    cab_tensor *embedding;
    cab_dense head;
    cab_norm final_norm;
    cab_phi_mamba_layer layers[];
} cab_phi_mamba;

#endif
