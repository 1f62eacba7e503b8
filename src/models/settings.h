/* settings.h - what configurations of transformers may say, whatever the architecture. */
#ifndef CAB_MODELS_SETTINGS_H
#define CAB_MODELS_SETTINGS_H

#include "base/settings.h"

/* The keys of every configuration of transformers. */
extern const cab_setting cab_settings_transformers[];

#endif
