/* fuzz_checkpoint.c - what a resumed run believes of a checkpoint and of recipe.yaml. The first byte chooses: a whole file; the metadata's texts, which
 * are then compared with a recipe and a list of inputs. Whatever is accepted must be accepted once more in return. */
#include "base/memory.h"
#include "io/safetensors_internal.h"
#include "train/identity.h"
#include "train/inputs.h"
#include "train/snapshot.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Its checksum, where it has a place for one, is made right. */
static void make_right(char *data, size_t size)
{
    char digits[CAB_SAFETENSORS_DIGITS + 1];
    const size_t at = cab_safetensors_find_digits(data, size);
    if (at == SIZE_MAX)
        return;
    memset(data + at, '0', CAB_SAFETENSORS_DIGITS);
    snprintf(digits, sizeof digits, "%016" PRIx64, cab_checksum_of(data, size));
    memcpy(data + at, digits, CAB_SAFETENSORS_DIGITS);
}

static void fuzz_file(char *data, size_t size)
{
    cab_safetensors *st = NULL;
    cab_snapshot_facts facts;
    make_right(data, size);
    if (cab_safetensors_parse(data, size, "fuzz", &st) != CAB_OK)
        return;
    if (cab_snapshot_facts_read(st, "fuzz", &facts) == CAB_OK &&
        (!(facts.seconds >= 0) || !isfinite(facts.train_seconds) || facts.recipe == NULL || facts.inputs == NULL))
        __builtin_trap();
    cab_safetensors_close(st);
}

static void fuzz_recipe(const char *text, size_t size)
{
    cab_recipe *then = NULL, *now = NULL;
    if (cab_recipe_preset("cab", &now) == CAB_OK && cab_recipe_parse("fuzz", text, size, &then) == CAB_OK) {
        const cab_status one = cab_identity_compare("fuzz", then, now, false);
        if (one != cab_identity_compare("fuzz", now, then, false) ||
            cab_identity_compare("fuzz", then, then, true) != CAB_OK)
            __builtin_trap();
    }
    cab_recipe_free(then);
    cab_recipe_free(now);
}

static void fuzz_inputs(const char *text)
{
    static const char now[] = "teacher.path/config.json 2 0123456789abcdef t/config.json\n"
                              "data.train[0] 5 0123456789abcdef a b.txt\n";
    const cab_status one = cab_inputs_compare("fuzz", text, now), same = cab_inputs_compare("fuzz", text, text);
    if ((one == CAB_OK && cab_inputs_compare("fuzz", now, text) != CAB_OK) || (one == CAB_OK && same != CAB_OK))
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = NULL; /* ended by a 0, at its exact size */
    if (size == 0)
        return 0;
    if (CAB_NEW(&text, size, "a text") != CAB_OK)
        return 0;
    memcpy(text, data + 1, size - 1);
    if (data[0] % 3 == 0)
        fuzz_file(text, size - 1);
    else if (data[0] % 3 == 1)
        fuzz_recipe(text, size - 1);
    else
        fuzz_inputs(text);
    cab_free(text);
    return 0;
}
