/* vim.h - the parameters of the Vision Mamba student, for initialisations. */
#ifndef CAB_MODELS_VIM_H
#define CAB_MODELS_VIM_H

#include "models/model.h"
#include "nn/vim.h"

typedef struct cab_vim_layer {
    cab_norm norm;
    cab_vim_mixer mixer;
} cab_vim_layer;

typedef struct cab_vim {
    cab_dense patch_embed; /* (D, 3 p p): a convolution of stride p */
    cab_tensor *class_token, *positions;
    cab_norm final_norm;
    cab_dense head;
    cab_vim_layer layers[];
} cab_vim;

#endif
