/* open.h - how each device opens and closes; device.c picks by name. */
#ifndef CAB_DEVICE_OPEN_H
#define CAB_DEVICE_OPEN_H

#include "tensor/backend.h"

cab_status cab_cpu_open(cab_backend **backend);
void cab_cpu_close(cab_backend *backend);

#endif
