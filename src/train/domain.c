#include "train/domain.h"

#include <stdio.h>
#include <stdlib.h>

const cab_domain *cab_domain_of(const cab_model *model)
{
    return cab_model_reads_images(model) ? &cab_domain_images : &cab_domain_text;
}

const cab_domain *cab_domain_of_recipe(const cab_recipe *recipe)
{
    return cab_recipe_domain_of(recipe) == cab_domain_images.recipes ? &cab_domain_images : &cab_domain_text;
}

cab_status cab_domain_cache(const cab_recipe *r, char out[CAB_PATH_MAX])
{
    if (r->data.cache[0] != '\0') {
        if (snprintf(out, CAB_PATH_MAX, "%s", r->data.cache) >= CAB_PATH_MAX)
            return cab_fail(CAB_EARG, "data.cache: the path is too long");
        return CAB_OK;
    }
    const char *home = getenv("XDG_CACHE_HOME");
    if (home != NULL && home[0] != '\0')
        return cab_path_join(out, home, "cab");
    return cab_path_join(out, r->out, "../cache");
}
