/* scaled.h - matrices stored as 8-bit floats (F8_E4M3) with scales beside them, as safetensors of "fp8" and "compressed-tensors" models have
 * them: an element is its stored value times its scale. "NAME_scale" or "NAME_scale_inv" beside NAME has one scale for the matrix, one for
 * each row, or one for each 128 x 128 elements. */
#ifndef CAB_IO_SCALED_H
#define CAB_IO_SCALED_H

#include "base/json.h"
#include "io/safetensors.h"

/* Whether a configuration's quantization_config is of such a model. CAB_EUNSUPPORTED, by name: it is, in a way that is not read. */
cab_status cab_scaled_is(const cab_json *config, bool *scaled);

/* Whether the tensor's name is that of the scales of another, and the length of the other's name. */
bool cab_scaled_names(const char *name, size_t *length);

/* CAB_ESHAPE: the scales of `entry` fit none of the three ways. */
cab_status cab_scaled_check(const cab_safetensors_entry *entry, const cab_safetensors_entry *scales);

/* Multiplies `count` elements of `entry`, from its element `first` on, by their scales. */
cab_status cab_scaled_apply(const cab_safetensors_entry *entry, const cab_safetensors_entry *scales, int64_t first,
                            int64_t count, float *values);

#endif
