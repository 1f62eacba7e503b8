/* timm.h - the sizes of a Vision Transformer saved by timm: config.json names a function of timm's, "architecture", with its
 * arguments, "model_args"; the tensors show the rest. */
#ifndef CAB_MODELS_TIMM_H
#define CAB_MODELS_TIMM_H

#include "models/model.h"

/* Heads and activation, from the name and the arguments. CAB_EUNSUPPORTED for a variant that is not computed. */
cab_status cab_timm_configure(const cab_json *json, cab_config *config);
/* The other sizes, off the tensors. What config.json says of them must agree: CAB_ESHAPE. */
cab_status cab_timm_measure(const cab_checkpoint *source, cab_config *config);

#endif
