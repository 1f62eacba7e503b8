/* architectures.h - the list of architectures: each is a file of this folder that defines cab_arch_<name>. */
#ifndef CAB_MODELS_ARCHITECTURES_H
#define CAB_MODELS_ARCHITECTURES_H

#include "models/model.h"

#define CAB_ARCHITECTURES(X) X(gpt2) X(phi) X(llama) X(phi_mamba) X(vit) X(deit) X(vim)

#define CAB_ARCHITECTURE_DECLARE(name) extern const cab_arch cab_arch_##name;
CAB_ARCHITECTURES(CAB_ARCHITECTURE_DECLARE)
#undef CAB_ARCHITECTURE_DECLARE

#endif
