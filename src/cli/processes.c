/* processes.c - runs of cab distill and the signals that stop them.
 *
 * Several methods: each run is a child process, since peak memory is counted per process; the child sends how it ended
 * through a pipe, in one write below PIPE_BUF. The parent waits with the signals blocked and takes them one by one, so
 * that nothing can be missed between a check and a wait. The child has a process group of its own: whatever is typed at
 * the terminal or sent to the group reaches the parent alone, which passes it on once (a second one would kill). A child whose parent was
 * killed saves and stops. */
#include "base/log.h"
#include "cli/distill.h"
#include "report/runs.h"
#include "train/claim.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TEXT_BYTES = 1024 };

/* What a child sends. */
struct message {
    cab_status status;
    char text[TEXT_BYTES];
};

static void stop(int signal_number)
{
    (void)signal_number;
    cab_distill_stop();
}

/* Signals that make a run save and stop. A user who sends one twice wants the process gone; batch systems announce the end of a job by
 * the other three, and SIGXCPU comes every second. */
static const struct {
    int number;
    bool second_kills;
} stopping[] = {{SIGINT, true}, {SIGTERM, true}, {SIGHUP, true}, {SIGUSR1, false}, {SIGUSR2, false}, {SIGXCPU, false}};
enum { STOPPING = sizeof stopping / sizeof *stopping };

/* What nohup ignores stays ignored. System calls that a signal interrupts are begun again. */
static void catch_signals(void)
{
    for (size_t i = 0; i < STOPPING; i++) {
        struct sigaction action = {.sa_handler = stop, .sa_flags = SA_RESTART}, before;
        if (stopping[i].second_kills)
            action.sa_flags |= (int)SA_RESETHAND;
        if (sigaction(stopping[i].number, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(stopping[i].number, &action, NULL);
    }
}

/* The result is read back from the run's directory. */
static cab_status distill(const cab_recipe *recipe, bool anew)
{
    cab_result result;
    return anew ? cab_distill_anew(recipe, NULL, &result) : cab_distill(recipe, NULL, &result);
}

cab_status cli_distill_here(const cab_recipe *recipe, bool anew, cab_communicator *communicator)
{
    catch_signals();
    return communicator != NULL ? cab_distill_ranks(recipe, anew, communicator) : distill(recipe, anew);
}

static sigset_t waited_signals(void)
{
    static const int others[] = {SIGQUIT, SIGTSTP, SIGCHLD};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < STOPPING; i++)
        sigaddset(&set, stopping[i].number);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        sigaddset(&set, others[i]);
    return set;
}

static _Noreturn void child(const cab_recipe *recipe, bool anew, pid_t parent, int pipe_end, const sigset_t *signals)
{
    struct message message;
    memset(&message, 0, sizeof message);
    setpgid(0, 0);
    catch_signals();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    sigprocmask(SIG_UNBLOCK, signals, NULL);
    message.status = distill(recipe, anew);
    if (message.status != CAB_OK)
        snprintf(message.text, sizeof message.text, "%s", cab_error_text());
    ssize_t sent;
    do
        sent = write(pipe_end, &message, sizeof message);
    while (sent < 0 && errno == EINTR);
    _exit(sent == (ssize_t)sizeof message ? 0
                                          : 1); /* not exit(): what the parent has buffered is the parent's to write */
}

/* Ctrl-Z: both, until the shell lets the parent go on. */
static void pause_with(pid_t pid)
{
    kill(pid, SIGSTOP);
    raise(SIGSTOP);
    kill(pid, SIGCONT);
}

/* Waits for the child to end and passes on the signals that arrive meanwhile. */
static cab_status wait_for(pid_t pid, const sigset_t *signals, const char *out, bool *stopped)
{
    int state, number;
    for (;;) {
        number = sigwaitinfo(signals, NULL);
        if (number == SIGTSTP) {
            pause_with(pid);
        } else if (number > 0 && number != SIGCHLD) {
            *stopped = true;
            kill(pid, number);
        }
        pid_t ended = waitpid(pid, &state, WNOHANG);
        if (ended == pid)
            break;
        if (ended < 0 && errno != EINTR)
            return cab_fail_errno(CAB_EIO, errno, "%s: cannot wait for its run", out);
    }
    if (WIFSIGNALED(state))
        return cab_fail(*stopped ? CAB_EINTERRUPTED : CAB_EBACKEND, "%s: its run was killed by signal %d%s", out,
                        WTERMSIG(state), WTERMSIG(state) == SIGKILL ? ", perhaps for want of memory" : "");
    return CAB_OK;
}

static cab_status run_child(const cab_recipe *recipe, bool anew, const sigset_t *signals, bool *stopped)
{
    int ends[2];
    struct message message;
    if (pipe(ends) != 0)
        return cab_fail_errno(CAB_EIO, errno, "cannot make a pipe");
    fflush(NULL);
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        close(ends[0]);
        child(recipe, anew, parent, ends[1], signals);
    }
    int reason = errno;
    close(ends[1]);
    cab_status status = pid < 0 ? cab_fail_errno(CAB_ENOMEM, reason, "cannot start a process")
                                : wait_for(pid, signals, recipe->out, stopped);
    ssize_t received = 0;
    while (status == CAB_OK && (received = read(ends[0], &message, sizeof message)) < 0 && errno == EINTR)
        continue;
    if (status == CAB_OK && received != (ssize_t)sizeof message)
        status = cab_fail(CAB_EBACKEND, "%s: its run ended without saying how", recipe->out);
    else if (status == CAB_OK && message.status != CAB_OK) {
        message.text[sizeof message.text - 1] = '\0';
        status = cab_fail(message.status, "%s", message.text);
    }
    close(ends[0]);
    return status;
}

/* What the other directories hold goes with the first run's. */
static cab_status clear_others(cab_recipe *const *recipes, unsigned count)
{
    if (!cab_report_is_run(recipes[0]->out))
        return CAB_OK;
    for (unsigned i = 1; i < count; i++)
        CAB_TRY(cab_claim_clear(recipes[i]));
    return CAB_OK;
}

cab_status cli_distill_each(cab_recipe *const *recipes, unsigned count, bool anew)
{
    sigset_t signals = waited_signals(), before;
    cab_status status = CAB_OK;
    bool stopped = false;
    signal(SIGCHLD, SIG_DFL); /* ignored, as some parents leave it, it would never come */
    sigprocmask(SIG_BLOCK, &signals, &before);
    for (unsigned i = 0; status == CAB_OK && i < count; i++) {
        char name[64];
        cab_recipe_method_name(recipes[i], name, sizeof name);
        const bool replace = anew && i == 0;
        if (!replace && cab_report_is_finished(recipes[i]->out)) {
            cab_log_info("method %u of %u: %s has ended already", i + 1, count, name);
            continue;
        }
        cab_log_info("method %u of %u: %s", i + 1, count, name);
        status = run_child(recipes[i], replace, &signals, &stopped);
        if (replace && (status == CAB_OK || status == CAB_EINTERRUPTED)) {
            cab_status cleared = clear_others(recipes, count);
            status = status == CAB_OK ? cleared : status;
        }
        if (status == CAB_OK && stopped && i + 1 < count)
            status = cab_fail(CAB_EINTERRUPTED, "interrupted after %s; --resume goes on with the next method", name);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return status;
}
