/* temporary.h - the files that are written beside their destination, and what is left of them when a process is killed.
 *
 * A temporary file is "<target>.cab-tmp-<16 random hex digits>", made with O_EXCL and locked (flock) while it is being written: two
 * processes never share one, not even with the same process number in two containers, and one without a lock belongs to nobody. */
#ifndef CAB_BASE_TEMPORARY_H
#define CAB_BASE_TEMPORARY_H

/* Makes one for `target`: its name in path[CAB_PATH_MAX], its descriptor in *descriptor. Returns 0, or an errno value. The lock ends when
 * the descriptor is closed: rename it before. */
int cab_temporary_create(const char *target, char *path, int *descriptor);
/* Removes what dead processes left in a directory, whatever file they belong to. Temporary files that are being written stay, and all
 * of them where the file system has no locks. A directory that cannot be read is left alone. */
void cab_temporary_sweep(const char *directory);

#endif
