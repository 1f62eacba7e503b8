/* images.h - small runs on real pictures: four classes of Tiny-ImageNet's validation set at 48 pixels, a tenth to validate on;
 * the pretrained ViT-Tiny teaches a Vim of two layers. */
#ifndef TEST_IMAGES_H
#define TEST_IMAGES_H

#include "data/image_archive.h"
#include "runs.h"
#include "train/run.h"

static const char *const images_teacher = "../shared/teachers/vit-tiny";
static const char *const images_archive = "../shared/data/tiny-imagenet/val.tar.xz";
static const char *const images_map = "../shared/data/tiny-imagenet/classes.tsv";

/* goldfish, king penguin, school bus, lemon */
static const char *const images_classes[4] = {"n01443537", "n02056570", "n04146614", "n07749582"};

/* False, said so, where the data or the teacher are absent. */
static inline bool images_present(void)
{
    if (cab_path_exists(images_teacher) && cab_path_exists(images_archive) && cab_path_exists(images_map))
        return true;
    print_message("skipped: %s and %s are not here\n", images_teacher, images_archive);
    return false;
}

/* Unpacks the images into <directory>/train/<class> and, every tenth of a class, <directory>/val/<class>, and writes the lines of
 * the class map that they need into <directory>/classes.tsv. */
static inline void images_unpack(const char *directory)
{
    cab_archive *archive = NULL;
    char path[CAB_PATH_MAX];
    static const char map[] = "0\tn01443537\t1\tgoldfish\n1\tn02056570\t145\tking penguin\n"
                              "2\tn04146614\t779\tschool bus\n3\tn07749582\t951\tlemon\n";
    int counts[4] = {0};
    assert_ok(cab_archive_open(images_archive, &(cab_expand_limits){0}, &archive));
    for (size_t i = 0; i < cab_archive_count(archive); i++) {
        const cab_member *m = cab_archive_at(archive, i);
        for (int c = 0; c < 4; c++) {
            if (m->directory || strstr(m->name, images_classes[c]) == NULL)
                continue;
            const char *name = strrchr(m->name, '/') + 1, *split = counts[c]++ % 10 == 9 ? "val" : "train";
            snprintf(path, sizeof path, "%s/%s/%s", directory, split, images_classes[c]);
            assert_ok(cab_directory_make(path));
            snprintf(path, sizeof path, "%s/%s/%s/%s", directory, split, images_classes[c], name);
            assert_ok(cab_file_write(path, m->data, m->size));
        }
    }
    cab_archive_close(archive);
    snprintf(path, sizeof path, "%s/classes.tsv", directory);
    assert_ok(cab_file_write(path, map, sizeof map - 1));
}

/* Setup of a group: *state is a directory for all its tests, with the pictures in it. */
static inline int images_setup(void **state)
{
    if (temp_setup(state) != 0)
        return -1;
    if (images_present())
        images_unpack(*state);
    return 0;
}

/* A recipe of the method into <out>: one pass of 16 images a step, evaluated at the end only. */
static inline cab_recipe *images_recipe(void **state, const char *method, const char *out, const char *const *settings)
{
    static const char *const common[] = {"student.architecture=vim",
                                         "student.n_layer=2",
                                         "student.d_model=48",
                                         "student.d_state=8",
                                         "data.image_size=48",
                                         "data.image_cache=memory",
                                         "augment.preset=basic",
                                         "train.batch=16",
                                         "train.passes=1",
                                         "train.eval_every=10000",
                                         "train.lr=2e-3",
                                         "bridge.hidden=32",
                                         "data.on_error=stop",
                                         NULL};
    cab_recipe *recipe = NULL;
    assert_ok(cab_recipe_preset(method, &recipe));
    runs_set(recipe, common);
    assert_ok(cab_recipe_set(recipe, "teacher.path", images_teacher));
    assert_ok(cab_recipe_set(recipe, "data.train", temp_path(state, "train")));
    assert_ok(cab_recipe_set(recipe, "data.eval", temp_path(state, "val")));
    assert_ok(cab_recipe_set(recipe, "data.classes", temp_path(state, "classes.tsv")));
    assert_ok(cab_recipe_set(recipe, "out", temp_path(state, out)));
    assert_ok(cab_recipe_set(recipe, "device", test_device()));
    if (settings != NULL)
        runs_set(recipe, settings);
    return recipe;
}

#endif
