/* fault.c - the table of mapped files, and the handler of SIGBUS that reads it.
 *
 * The handler may interrupt anything, so the table has no lock: a slot is taken by an atomic exchange of its address, and is seen by the
 * handler once path and size are written. Mappings beyond the table's size go unnamed. */
#include "base/fault.h"

#include "base/error.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SLOTS = 256, PATH_SHOWN = 512 };

typedef struct slot {
    atomic_uintptr_t data; /* 0: free; TAKEN: being written */
    size_t size;
    char path[PATH_SHOWN];
} slot;
static const uintptr_t TAKEN = 1;

static slot slots[SLOTS]; /* outside of any object: a signal handler has nothing else to reach */

void cab_fault_watch(const void *data, size_t size, const char *path)
{
    for (int i = 0; i < SLOTS; i++) {
        uintptr_t expected = 0;
        if (!atomic_compare_exchange_strong(&slots[i].data, &expected, TAKEN))
            continue;
        slots[i].size = size;
        snprintf(slots[i].path, sizeof slots[i].path, "%s", path);
        atomic_store(&slots[i].data, (uintptr_t)data);
        return;
    }
}

void cab_fault_forget(const void *data)
{
    for (int i = 0; i < SLOTS; i++) {
        uintptr_t expected = (uintptr_t)data;
        if (data != NULL && atomic_compare_exchange_strong(&slots[i].data, &expected, 0))
            return;
    }
}

static void say(const char *text)
{
    size_t length = strlen(text);
    while (length > 0) {
        ssize_t written = write(STDERR_FILENO, text, length);
        if (written <= 0)
            return;
        text += written;
        length -= (size_t)written;
    }
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    static atomic_flag reported = ATOMIC_FLAG_INIT;
    const uintptr_t at = (uintptr_t)info->si_addr;
    (void)context;
    for (int i = 0; i < SLOTS; i++) {
        const uintptr_t begin = atomic_load(&slots[i].data);
        if (begin <= TAKEN || at < begin || at - begin >= slots[i].size)
            continue;
        if (!atomic_flag_test_and_set(&reported)) {
            say("cab: ");
            say(slots[i].path);
            say(": became shorter, or could not be read, while it was in use; nothing was saved from it\n");
        }
        _exit(CAB_EIO);
    }
    signal(number, SIG_DFL); /* the access is tried again, and ends the process */
}

void cab_fault_report(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}
