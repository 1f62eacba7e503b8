/* error.h - one status out, the text once at the place that knows it.
 *
 * A function that can fail returns cab_status. The place that finds the failure calls cab_fail() with the sentence a
 * user should read: the file, the place in it, what was found, what was expected. Callers pass the status up and add
 * nothing. The text lives per thread until the next cab_fail() on that thread. */
#ifndef CAB_BASE_ERROR_H
#define CAB_BASE_ERROR_H

#include <cab.h>
#include <stddef.h>

#if defined(__GNUC__)
#define CAB_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define CAB_PRINTF(f, a)
#endif

/* Stores the text and returns `code`, so that `return cab_fail(...)` reads as one thought. */
cab_status cab_fail(cab_status code, const char *format, ...) CAB_PRINTF(2, 3);

/* As cab_fail(), with ": <strerror(errno_value)>" appended. */
cab_status cab_fail_errno(cab_status code, int errno_value, const char *format, ...) CAB_PRINTF(3, 4);

/* `text`, from outside, fit for a message: control characters and bytes that are no UTF-8 are written \x1b, \n, \u202e;
 * what does not fit in `size` bytes is cut off. Returns out. The texts of cab_fail() and of log.h go through it. */
const char *cab_printable(const char *text, char *out, size_t size);

#ifdef __clang_analyzer__
/* The analyser sees one file at a time and would think that a failure may be CAB_OK. */
#define cab_fail(code, ...) ((void)(cab_fail)((code), __VA_ARGS__), (code))
#define cab_fail_errno(code, ...) ((void)(cab_fail_errno)((code), __VA_ARGS__), (code))
#endif

/* Copies this thread's text into another thread's slot: worker threads hand their failure to the thread that joins. */
void cab_error_set_text(const char *text);

/* Leaves the function when `call` fails. For functions that own nothing yet; others use `goto done`. */
#define CAB_TRY(call)                                                                                                  \
    do {                                                                                                               \
        cab_status cab_try_status = (call);                                                                            \
        if (cab_try_status != CAB_OK)                                                                                  \
            return cab_try_status;                                                                                     \
    } while (0)

/* The same for functions with a `done:` label and a variable `status`. */
#define CAB_GOTO(call)                                                                                                 \
    do {                                                                                                               \
        status = (call);                                                                                               \
        if (status != CAB_OK)                                                                                          \
            goto done;                                                                                                 \
    } while (0)

#endif
