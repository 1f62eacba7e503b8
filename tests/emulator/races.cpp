/* races.cpp - accesses to shared memory that nothing keeps apart.
 *
 * Kernels are compiled with -fsanitize=thread: every read and write of memory calls a function of the names below, which are not those of
 * its library. Shared memory is the part of the program's data that kernels write. Two threads' accesses to a byte, one of them a
 * write, are in order if a barrier of the block lies between them or, in a team of four warps, one of theirs or, in a warp, a __syncwarp(). Shuffles and matrix instructions order
 * nothing, as the CUDA guide has it. A copy behind the program's back (cp.async) is a write of the thread that asked for it, at the time
 * when this thread waited for it; until then nobody may read it. A product of four warps (wgmma) reads when it is begun and when it is waited for, and what
 * threads wrote before a fence.proxy.async only. Atomic operations are not looked at. */
#include "emulator.h"

#include <cstdio>
#include <cstdlib>
#include <unistd.h>
#include <vector>

extern "C" char __data_start, _end;

namespace
{
enum { MAX_THREADS = 1024 };
enum readers : uint8_t { ONE, OF_A_WARP, OF_A_TEAM, OF_SEVERAL };

struct touch {
    emulator_time at = {0, 0, 0, 0}; /* barrier 0: never */
    uint32_t copy = 0;               /* the thread's how manieth, 0: a plain write */
    uint32_t fences = 0;             /* of the thread before it */
    const void *code = nullptr;
};

struct cell {
    touch write, read;
    readers by = ONE;
};

/* The copies of a thread, in the block that runs. */
struct copies {
    uint32_t asked = 0;
    struct wait {
        uint32_t asked, fences;
        emulator_time at;
    };
    std::vector<wait> waits;
    std::vector<uint32_t> groups;      /* asked by the end of each */
    std::vector<emulator_time> fences; /* fence.proxy.async */
};

struct memory {
    std::vector<cell> cells;
    std::vector<copies> threads{MAX_THREADS};
    uint32_t first = 0; /* barrier of the block that runs */
};

memory &shared()
{
    static memory m;
    if (m.cells.empty())
        m.cells.resize((size_t)(&_end - &__data_start));
    return m;
}
} // namespace

/* When a write was made, and after how many fences of its thread; false: this thread has not waited for it yet. */
static bool made_at(const touch &write, emulator_time *at, uint32_t *fences)
{
    *at = write.at;
    *fences = write.fences;
    if (write.copy == 0 || write.at.barrier < shared().first)
        return true;
    for (const copies::wait &wait : shared().threads[write.at.thread].waits)
        if (wait.asked >= write.copy) {
            *at = wait.at;
            *fences = wait.fences;
            return true;
        }
    return false;
}

static bool of_one_team(const emulator_time &a, const emulator_time &b)
{
    return a.thread / EMULATOR_TEAM == b.thread / EMULATOR_TEAM;
}

static bool of_one_warp(const emulator_time &a, const emulator_time &b)
{
    return a.thread / EMULATOR_LANES == b.thread / EMULATOR_LANES;
}

static bool in_order(const emulator_time &before, const emulator_time &now)
{
    return before.barrier == 0 || before.thread == now.thread || before.barrier != now.barrier ||
           (of_one_team(before, now) && before.team != now.team) ||
           (of_one_warp(before, now) && before.sync != now.sync);
}

[[noreturn]] static void report(const char *what, const char *earlier, const touch &before, const emulator_time &now,
                                const void *code)
{
    char command[256], program[128] = {0};
    if (readlink("/proc/self/exe", program, sizeof program - 1) < 0)
        program[0] = '\0';
    fprintf(stderr, "emulator: a race: thread %d of the block %s what thread %d %s, at %p and %p\n", now.thread, what,
            before.at.thread, earlier, code, before.code);
    snprintf(command, sizeof command, "addr2line -Cpfi -e '%s' %p %p >&2", program, code, before.code);
    if (system(command) != 0)
        fprintf(stderr, "emulator: addr2line is not here\n");
    abort();
}

/* Who has read the byte since the last barrier, if the thread that runs reads it too: of its team, since the team's last one, and of its
 * warp, since the last __syncwarp(). */
static readers readers_with(const cell &c, const emulator_time &now)
{
    const emulator_time &last = c.read.at;
    if (last.barrier != now.barrier)
        return ONE;
    if (c.by == OF_SEVERAL || !of_one_team(last, now))
        return OF_SEVERAL;
    if (last.team != now.team)
        return ONE;
    if (c.by == OF_A_TEAM || !of_one_warp(last, now))
        return OF_A_TEAM;
    return last.sync != now.sync || (c.by == ONE && last.thread == now.thread) ? ONE : OF_A_WARP;
}

/* Whether asynchronous reads see a write: a fence of its thread lies behind it, and something that orders this fence and the read. */
static bool fenced(const touch &write, uint32_t before, const emulator_time &now)
{
    if (write.at.barrier < shared().first)
        return true;
    const std::vector<emulator_time> &fences = shared().threads[write.at.thread].fences;
    return before < fences.size() && in_order(fences[before], now);
}

static void read_cell(cell &c, const emulator_time &now, const void *code, bool asynchronously)
{
    emulator_time written;
    uint32_t fences;
    if (!made_at(c.write, &written, &fences))
        report("reads", "copies and has not waited for", c.write, now, code);
    if (!in_order(written, now))
        report("reads", "has written", c.write, now, code);
    if (asynchronously && !fenced(c.write, fences, now))
        report("reads asynchronously", "has written without a fence", c.write, now, code);
    c.by = readers_with(c, now);
    c.read.at = now;
    c.read.code = code;
}

/* Whether a read before this write by another thread than its own is not in order with it. */
static bool disturbs(const cell &c, const emulator_time &now)
{
    const emulator_time &last = c.read.at;
    if (last.barrier != now.barrier)
        return false;
    if (c.by == OF_SEVERAL)
        return true;
    if (of_one_team(last, now) && last.team != now.team)
        return false;
    if (c.by == OF_A_TEAM)
        return true;
    if (c.by == OF_A_WARP)
        return !of_one_warp(last, now) || last.sync == now.sync;
    return !in_order(last, now);
}

static void write_cell(cell &c, const emulator_time &now, uint32_t copy, const void *code)
{
    emulator_time written;
    uint32_t fences;
    if (!made_at(c.write, &written, &fences))
        report("writes", "copies and has not waited for", c.write, now, code);
    if (!in_order(written, now))
        report("writes", "has written", c.write, now, code);
    if (disturbs(c, now))
        report("writes", "has read", c.read, now, code);
    c.write.at = now;
    c.write.copy = copy;
    c.write.fences = (uint32_t)shared().threads[now.thread].fences.size();
    c.write.code = code;
}

/* NULL: not shared memory, or no thread of a block. */
static cell *cells_at(const void *p, size_t bytes)
{
    const uintptr_t offset = (uintptr_t)p - (uintptr_t)&__data_start, all = (uintptr_t)(&_end - &__data_start);
    const bool place = (uintptr_t)p - (uintptr_t)&emulator_here < sizeof emulator_here;
    return offset >= all || bytes > all - offset || place || emulator_now.barrier == 0 ? nullptr
                                                                                       : &shared().cells[offset];
}

void emulator_reads(const void *p, size_t bytes, const void *code)
{
    cell *c = cells_at(p, bytes);
    for (size_t i = 0; c != nullptr && i < bytes; i++)
        read_cell(c[i], emulator_now, code, false);
}

void emulator_reads_asynchronously(const void *p, size_t bytes, const void *code)
{
    cell *c = cells_at(p, bytes);
    for (size_t i = 0; c != nullptr && i < bytes; i++)
        read_cell(c[i], emulator_now, code, true);
}

void emulator_proxy_fence()
{
    shared().threads[emulator_now.thread].fences.push_back(emulator_now);
}

void emulator_writes(const void *p, size_t bytes, const void *code)
{
    cell *c = cells_at(p, bytes);
    for (size_t i = 0; c != nullptr && i < bytes; i++)
        write_cell(c[i], emulator_now, 0, code);
}

void emulator_copies(const void *p, size_t bytes, const void *code)
{
    cell *c = cells_at(p, bytes);
    const uint32_t copy = ++shared().threads[emulator_now.thread].asked;
    for (size_t i = 0; c != nullptr && i < bytes; i++)
        write_cell(c[i], emulator_now, copy, code);
}

void emulator_copies_commit()
{
    copies &mine = shared().threads[emulator_now.thread];
    mine.groups.push_back(mine.asked);
}

static void wait_for(copies &mine, uint32_t asked)
{
    if ((mine.waits.empty() ? 0 : mine.waits.back().asked) < asked)
        mine.waits.push_back({asked, (uint32_t)mine.fences.size(), emulator_now});
}

void emulator_copies_wait()
{
    copies &mine = shared().threads[emulator_now.thread];
    wait_for(mine, mine.asked);
}

void emulator_copies_wait_but(size_t groups)
{
    copies &mine = shared().threads[emulator_now.thread];
    if (mine.groups.size() > groups)
        wait_for(mine, mine.groups[mine.groups.size() - 1 - groups]);
}

void emulator_copies_begin(size_t threads)
{
    shared().first = emulator_now.barrier;
    for (size_t i = 0; i < threads; i++)
        shared().threads[i] = copies{};
}

/* ---- what -fsanitize=thread calls ------------------------------------------------------------------------------------ */

#define HERE __builtin_return_address(0)
#define ACCESSES(bytes)                                                                                                \
    void __tsan_read##bytes(void *p)                                                                                   \
    {                                                                                                                  \
        emulator_reads(p, bytes, HERE);                                                                                \
    }                                                                                                                  \
    void __tsan_write##bytes(void *p)                                                                                  \
    {                                                                                                                  \
        emulator_writes(p, bytes, HERE);                                                                               \
    }                                                                                                                  \
    void __tsan_unaligned_read##bytes(void *p)                                                                         \
    {                                                                                                                  \
        emulator_reads(p, bytes, HERE);                                                                                \
    }                                                                                                                  \
    void __tsan_unaligned_write##bytes(void *p)                                                                        \
    {                                                                                                                  \
        emulator_writes(p, bytes, HERE);                                                                               \
    }

extern "C" {
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void *p, size_t bytes)
{
    emulator_reads(p, bytes, HERE);
}
void __tsan_write_range(void *p, size_t bytes)
{
    emulator_writes(p, bytes, HERE);
}
void __tsan_vptr_update(void *, void *)
{
}
void __tsan_vptr_read(void *)
{
}
void __tsan_init()
{
}
}
