/* fault.h - a mapped file that becomes shorter while it is read: the kernel sends SIGBUS, and the file should be named. */
#ifndef CAB_BASE_FAULT_H
#define CAB_BASE_FAULT_H

#include <stddef.h>

/* Notes that these bytes are the file's, until they are forgotten. cab_map_open() and cab_map_close() do both. */
void cab_fault_watch(const void *data, size_t size, const char *path);
void cab_fault_forget(const void *data);
/* For programs, not for the library: from here on SIGBUS within a mapped file prints one line to standard error, which
 * names program and file, and ends the process with the code of CAB_EIO. Any other SIGBUS does what it did. */
void cab_fault_report(void);

#endif
