/* relayout.h - a student with state-space mixers written again in another of the formats that hold such students (layouts.h). */
#ifndef CAB_DISTILL_RELAYOUT_H
#define CAB_DISTILL_RELAYOUT_H

#include "models/export.h"

/* As cab_export_directory(), in the layout of that word. The new model computes what the old one did. Falcon-H1's holds those of the others
 * whose blocks are a Llama's. CAB_EUNSUPPORTED, naming what the layout cannot hold. */
cab_status cab_relayout(const cab_export *what, const char *layout, const char *directory, cab_exported *out);

#endif
