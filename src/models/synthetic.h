/* synthetic.h - a model of the sizes that a config.json states, with random weights: for timing, which does not depend on
 * them. */
#ifndef CAB_MODELS_SYNTHETIC_H
#define CAB_MODELS_SYNTHETIC_H

#include "models/model.h"

/* `config_file` is a config.json; image_size 0: the one it states. Matrices are uniform in +-1/sqrt(columns), vectors in
 * 0 .. 1. trainable as in cab_model_open(). */
cab_status cab_model_synthetic(const char *config_file, int image_size, cab_backend *backend, cab_precision precision,
                               bool trainable, cab_model **model);
/* The same weights for a model that exists. */
cab_status cab_model_randomise(cab_model *model);

#endif
