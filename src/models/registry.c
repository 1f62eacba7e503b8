/* registry.c - the architectures. A new one is a file beside this one and a row here. */
#include "models/architectures.h"

#include <stdio.h>
#include <string.h>

static const cab_arch *const architectures[] = {&cab_arch_gpt2, &cab_arch_phi, &cab_arch_phi_mamba, NULL};

const cab_arch *const *cab_architectures(void)
{
    return architectures;
}

cab_status cab_architecture_find(const char *name, const char *file, const cab_arch **arch)
{
    char known[256] = "";
    size_t used = 0;
    for (int i = 0; architectures[i] != NULL; i++) {
        if (strcmp(architectures[i]->name, name) == 0) {
            *arch = architectures[i];
            return CAB_OK;
        }
        int n = snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", architectures[i]->name);
        if (n > 0 && used + (size_t)n < sizeof known)
            used += (size_t)n;
    }
    return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" is not supported; supported are %s", file, name, known);
}
