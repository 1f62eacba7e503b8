/* dispatch.c - cab_X_cpu() calls X_v1, X_v3 or X_v4, whichever the backend was opened for. */
#include "device/cpu.h"
#include "ops/cpu/cpu.h"

#define DEFINE_DISPATCH(name)                                                                                          \
    cab_status name##_v1(const cab_node *node, cab_backend *backend);                                                  \
    cab_status name##_v3(const cab_node *node, cab_backend *backend);                                                  \
    cab_status name##_v4(const cab_node *node, cab_backend *backend);                                                  \
    cab_status name##_cpu(const cab_node *node, cab_backend *backend)                                                  \
    {                                                                                                                  \
        static const cab_kernel table[CAB_ISAS] = {name##_v1, name##_v3, name##_v4};                                   \
        return table[cab_cpu_isa(backend)](node, backend);                                                             \
    }

CAB_ALL_KERNELS(DEFINE_DISPATCH)
