#include "distill/students.h"

#include "base/log.h"
#include "distill/student_list.h"
#include "models/synthetic.h"

#include <string.h>

#define DECLARE(name, word) extern const cab_student cab_student_##name;
CAB_STUDENTS(DECLARE, DECLARE, DECLARE)
#define POINTER(name, word) &cab_student_##name,
static const cab_student *const students[] = {CAB_STUDENTS(POINTER, POINTER, POINTER)};

const cab_student *cab_student_of(const cab_recipe *recipe)
{
    const cab_recipe_domain *domain = cab_student_domain(recipe);
    const cab_student *found = NULL;
    char word[32];
    cab_words_get(CAB_STUDENT_WORDS, (unsigned)recipe->student.architecture, word, sizeof word);
    for (size_t i = 0; i < sizeof students / sizeof *students; i++)
        if (strcmp(students[i]->name, word) == 0 && (found == NULL || students[i]->domain == domain))
            found = students[i];
    return found;
}

const cab_recipe_domain *cab_student_domain(const cab_recipe *recipe)
{
    return recipe->student.reads == CAB_READS_IMAGES ? &cab_recipe_images : &cab_recipe_text;
}

const cab_student *cab_student_namesake(const cab_student *student)
{
    for (size_t i = 0; i < sizeof students / sizeof *students; i++)
        if (students[i] != student && strcmp(students[i]->name, student->name) == 0)
            return students[i];
    return NULL;
}

const cab_student *cab_student_at(unsigned index)
{
    return index < sizeof students / sizeof *students ? students[index] : NULL;
}

const cab_student *cab_student_for(const cab_recipe_domain *domain)
{
    size_t i = 0;
    while (i + 1 < sizeof students / sizeof *students && students[i]->domain != domain)
        i++;
    return students[i];
}

const cab_student *cab_student_of_model(const cab_model *model)
{
    for (size_t i = 0; i < sizeof students / sizeof *students; i++)
        if (students[i]->is(model))
            return students[i];
    return NULL;
}

bool cab_student_can_be(const cab_model *model)
{
    return model->arch->student || cab_student_of_model(model) != NULL;
}

int cab_student_chosen(int64_t value, int fallback)
{
    return value > 0 ? (int)value : fallback;
}

/* Master, gradient and two moments of every parameter, and the bf16 copy of every matrix. */
static cab_status check_fits(const cab_arch *arch, const cab_config *config, cab_backend *backend,
                             cab_precision precision)
{
    cab_model_count count;
    char need[CAB_FORMAT_MAX], have[CAB_FORMAT_MAX];
    CAB_TRY(cab_model_count_parameters(arch, config, &count));
    const double copies = precision == CAB_PRECISION_BF16 ? 2.0 * (double)count.matrices : 0;
    const double bytes = (4 + 4 + 8) * (double)count.parameters + copies, available = backend->available(backend);
    if (bytes <= available)
        return CAB_OK;
    return cab_fail(CAB_ENOMEM,
                    "the student has %.0f M parameters; training needs %s for them and the optimizer, %s are available",
                    (double)count.parameters * 1e-6, cab_format_bytes(bytes, need), cab_format_bytes(available, have));
}

cab_status cab_student_create(const cab_student_source *source, cab_backend *backend, cab_precision precision,
                              cab_model **student)
{
    const cab_arch *arch = NULL;
    cab_config config = {0};
    cab_status status;
    CAB_GOTO(cab_student_of(source->recipe)->derive(source, &arch, &config));
    CAB_GOTO(check_fits(arch, &config, backend, precision));
    status = cab_model_create(arch, &config, backend, precision, student);
done:
    json_object_put(config.in_place);
    return status;
}

cab_status cab_student_initialise(cab_model *student, const cab_student_source *source)
{
    return cab_student_of(source->recipe)->initialise(student, source);
}

cab_status cab_student_synthetic(const cab_model *teacher, int n_layer, bool trainable, cab_model **student)
{
    const cab_arch *arch = NULL;
    cab_student_source source = {.teacher = teacher, .seq_len = teacher->config.max_length};
    cab_recipe *recipe = NULL;
    cab_config config = {0};
    cab_status status;
    if (cab_model_reads_images(teacher))
        return cab_fail(CAB_EARG, "a student of images: give --student-config");
    CAB_TRY(cab_recipe_new(&recipe));
    recipe->student.n_layer = n_layer;
    source.recipe = recipe;
    CAB_GOTO(cab_student_for(&cab_recipe_text)->derive(&source, &arch, &config));
    CAB_GOTO(cab_model_create_as(arch, &config, teacher->backend, teacher->precision, trainable, student));
    status = cab_model_randomise(*student);
    if (status != CAB_OK) {
        cab_model_free(*student);
        *student = NULL;
    }
done:
    json_object_put(config.in_place);
    cab_recipe_free(recipe);
    return status;
}
