/* architectures.h - the list of architectures: each is a file of this folder that defines cab_arch_<name>. */
#ifndef CAB_MODELS_ARCHITECTURES_H
#define CAB_MODELS_ARCHITECTURES_H

#include "models/model.h"

/* clang-format off */
#define CAB_ARCHITECTURES(X)                                                                                           \
    X(gpt2) X(phi) X(llama) X(mistral) X(qwen2) X(qwen3) X(phi3) X(stablelm) X(olmo2) X(smollm3) X(starcoder2)         \
    X(granite) X(gpt_neox) X(opt) X(gemma2) X(gemma3_text)                                                             \
    X(phi_mamba) X(mamba) X(mamba2) X(falcon_h1) X(granitemoehybrid) X(in_place)                                                     \
    X(vit) X(deit) X(dinov2) X(dinov2_with_registers)                                                                  \
    X(vim)
/* clang-format on */

#define CAB_ARCHITECTURE_DECLARE(name) extern const cab_arch cab_arch_##name;
CAB_ARCHITECTURES(CAB_ARCHITECTURE_DECLARE)
#undef CAB_ARCHITECTURE_DECLARE

#endif
