/* registry.c - finding architectures. A new one is a file beside this one and a word of architectures.h. */
#include "models/architectures.h"

#include <stdio.h>
#include <string.h>

#define POINTER(name) &cab_arch_##name,
static const cab_arch *const architectures[] = {CAB_ARCHITECTURES(POINTER) NULL};
#undef POINTER

const cab_arch *const *cab_architectures(void)
{
    return architectures;
}

cab_status cab_architecture_find(const char *name, const char *file, const cab_arch **arch)
{
    char known[512] = "";
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

cab_status cab_architecture_name(const cab_json *json, const char **name)
{
    const char *timm = NULL;
    CAB_TRY(cab_json_string_or(json, NULL, "architecture", NULL, &timm));
    if (timm == NULL)
        return cab_json_string(json, NULL, "model_type", name);
    return cab_json_string_or(json, NULL, "model_type", timm, name);
}

cab_status cab_architecture_configure(const cab_arch *arch, const cab_json *json, cab_config *config)
{
    if (arch->settings != NULL)
        CAB_TRY(cab_settings_check(json, NULL, arch->settings, arch->strict));
    return arch->configure(json, config);
}

cab_status cab_architecture_of(const cab_json *json, const cab_arch **arch)
{
    const char *name = NULL, *type = NULL;
    CAB_TRY(cab_architecture_name(json, &name));
    CAB_TRY(cab_json_string_or(json, NULL, "model_type", NULL, &type));
    for (int i = 0; type == NULL && architectures[i] != NULL; i++) {
        const char *start = architectures[i]->timm;
        if (start != NULL && strncmp(name, start, strlen(start)) == 0) {
            *arch = architectures[i];
            return CAB_OK;
        }
    }
    return cab_architecture_find(name, json->name, arch);
}
