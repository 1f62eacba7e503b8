/* embed.c - the whole journey inside another program: start from a method, point it at a teacher and a corpus, distil,
 * save, generate. Run it in the root of the repository: embed DIRECTORY [TOKENS]. */
#include <cab.h>
#include <stdio.h>
#include <stdlib.h>

static bool print(void *user, const char *text, size_t size)
{
    return fwrite(text, 1, size, (FILE *)user) == size;
}

static cab_status prepare(cab_recipe *recipe, const char *directory, const char *tokens)
{
    const char *const settings[][2] = {
        {"teacher.path", "examples/tales/teacher"},
        {"data.train", "examples/tales/train.txt"},
        {"data.eval", "examples/tales/val.txt"},
        {"data.fraction", "0.05"},
        {"train.tokens", tokens},
        {"out", directory},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        cab_status status = cab_recipe_set(recipe, settings[i][0], settings[i][1]);
        if (status != CAB_OK)
            return status;
    }
    return cab_recipe_validate(recipe);
}

int main(int argc, char **argv)
{
    const char *directory = argc > 1 ? argv[1] : "runs/embed";
    char saved[4096];
    snprintf(saved, sizeof saved, "%s/saved", directory);
    cab_recipe *recipe = NULL;
    cab_model *student = NULL;
    cab_result result;
    cab_generate_options options = cab_generate_defaults();
    options.max_tokens = 40;

    cab_status status = cab_recipe_preset("cab-best", &recipe);
    if (status == CAB_OK)
        status = prepare(recipe, directory, argc > 2 ? argv[2] : "20480");
    if (status == CAB_OK)
        status = cab_distill(recipe, &student, &result);
    if (status == CAB_OK)
        status = cab_model_save(student, saved);
    if (status == CAB_OK) {
        printf("perplexity %.2f after %.0f s\n", result.perplexity, result.seconds);
        status = cab_generate(student, "Once upon a time", &options, print, stdout);
    }
    if (status == CAB_OK)
        puts("");
    else
        fprintf(stderr, "embed: %s\n", cab_error_text());
    cab_model_free(student);
    cab_recipe_free(recipe);
    return status;
}
