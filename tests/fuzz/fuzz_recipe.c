/* fuzz_recipe.c - any bytes as a recipe: an answer with a sentence; what is accepted prints, and loads back to the same. */
#include "base/memory.h"
#include "distill/recipe.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cab_recipe *recipe = NULL, *again = NULL;
    char *first = NULL, *second = NULL;
    size_t length;
    if (cab_recipe_parse("r.yaml", (const char *)data, size, &recipe) != CAB_OK) {
        if (recipe || !cab_error_text()[0])
            abort();
        return 0;
    }
    cab_recipe_validate(recipe);
    if (cab_recipe_print(recipe, &first, &length) == CAB_OK) {
        if (cab_recipe_parse("again.yaml", first, length, &again) != CAB_OK ||
            cab_recipe_print(again, &second, &length) != CAB_OK || strcmp(first, second) != 0)
            abort();
    }
    cab_free(first);
    cab_free(second);
    cab_recipe_free(recipe);
    cab_recipe_free(again);
    return 0;
}
