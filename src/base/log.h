/* log.h - messages for people, on stderr. Results go to stdout and are not messages. */
#ifndef CAB_BASE_LOG_H
#define CAB_BASE_LOG_H

#include "base/error.h"

#include <stdbool.h>

/* What happened, one line, no prefix. Silenced by cab_log_quiet(true). */
void cab_log_info(const char *format, ...) CAB_PRINTF(1, 2);
/* "warning: ..." - the run goes on, but somebody should know. Never silenced. */
void cab_log_warn(const char *format, ...) CAB_PRINTF(1, 2);
void cab_log_quiet(bool quiet);
bool cab_log_is_quiet(void);

/* Room that the formatters below need in their buffers. */
enum { CAB_FORMAT_MAX = 32 };

/* Seconds since an arbitrary start, monotonic. */
double cab_seconds(void);
/* "1.2 GiB", "640 KiB" in a buffer of CAB_FORMAT_MAX bytes; returns it. */
const char *cab_format_bytes(double bytes, char *buffer);
/* "1h02m", "3m20s", "12s", "0.4s" likewise; "?" for what is no duration. */
const char *cab_format_seconds(double seconds, char *buffer);
/* Peak resident set of this process in bytes. */
double cab_peak_memory(void);
/* Bytes the machine can still give without swapping (MemAvailable, or what a cgroup limit leaves if that is
 * less); INFINITY where the system does not say. */
double cab_available_memory(void);

#endif
