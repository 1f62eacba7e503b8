/* fibers.cpp - the threads of a block, one at a time: barriers, warps, launches, and graphs of them. */
#include "emulator.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <vector>

namespace
{
enum { STACK = 256 << 10, DYNAMIC = 228 << 10, MAX_THREADS = 1024, PATIENCE = 1000 };
enum state { RUNS, AT_BARRIER, IN_WARP, ENDED };

struct fiber {
    void *stack_pointer;
    uint3 place;
    state now;
    int warp, lane;
};

/* Lanes that come together by one mask. Gifts alternate between two tables: who reads the last has not given the next but one. */
struct meeting {
    uint32_t arrived = 0;
    unsigned turn = 0;
    int kind = 0;
    char gifts[2][EMULATOR_LANES][EMULATOR_BYTES];
};

struct warp {
    uint32_t live = 0, syncs = 0;
    std::map<uint32_t, meeting> meetings;
};

/* Four warps at a barrier of theirs. */
struct team {
    int arrived = 0, number = 0;
    uint32_t turn = 0;
};

/* The block that runs. */
struct block {
    std::vector<fiber> fibers;
    std::vector<warp> warps;
    std::vector<team> teams;
    fiber *current = nullptr;
    void *scheduler = nullptr; /* its stack pointer */
    const std::function<void()> *body = nullptr;
    int live = 0, waiting = 0, count = 0, last_count = 0;
    long progress = 0;
    uint64_t random = 0;
} now;

alignas(1024) char dynamic_shared[DYNAMIC];
uint32_t barriers; /* so far */
} // namespace

emulator_place emulator_here;
emulator_time emulator_now;

/* Keeps what a call must keep, and goes on with another stack. */
extern "C" void emulator_switch(void **save, void *to);
asm(R"(
.globl emulator_switch
emulator_switch:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
)");

static void fail(const char *what)
{
    fprintf(stderr, "emulator: %s\n", what);
    abort();
}

static void wait_as(state state)
{
    now.current->now = state;
    emulator_switch(&now.current->stack_pointer, now.scheduler);
}

static void begin_fiber()
{
    (*now.body)();
    wait_as(ENDED);
    abort(); /* nobody goes on with it */
}

int emulator_barrier(bool predicate)
{
    now.count += predicate;
    now.waiting++;
    wait_as(AT_BARRIER);
    return now.last_count;
}

void emulator_team_barrier(int number, int threads)
{
    fiber &mine = *now.current;
    const size_t which = (size_t)(&mine - now.fibers.data()) / EMULATOR_TEAM;
    team &t = now.teams[which];
    const uint32_t turn = t.turn;
    if (threads != EMULATOR_TEAM || now.fibers.size() % EMULATOR_TEAM != 0 || number < 1 || number > 15)
        fail("a barrier that is not of four neighbouring warps");
    if (t.arrived != 0 && t.number != number)
        fail("warps meet at barriers of different numbers");
    for (const team &other : now.teams)
        if (&other != &t && other.arrived != 0 && other.number == number)
            fail("two teams are at one barrier");
    t.number = number;
    t.arrived++;
    while (t.turn == turn) {
        if (t.arrived == EMULATOR_TEAM) {
            t.arrived = 0;
            t.turn++;
            now.progress++;
        } else {
            wait_as(IN_WARP);
        }
    }
    mine.now = RUNS;
    emulator_now.team = t.turn;
}

static bool complete(const meeting &m, const warp &w, uint32_t mask)
{
    return m.arrived == (mask & w.live);
}

emulator_gifts &emulator_exchange(uint32_t mask, const void *gift, size_t bytes, int kind)
{
    fiber &mine = *now.current;
    warp &w = now.warps[(size_t)mine.warp];
    meeting &m = w.meetings[mask];
    const unsigned turn = m.turn;
    if (!(mask >> mine.lane & 1) || bytes > EMULATOR_BYTES)
        fail("a lane outside its mask, or too large a gift");
    if (m.arrived != 0 && m.kind != kind)
        fail("lanes of a warp meet at different instructions");
    m.kind = kind;
    m.arrived |= 1u << mine.lane;
    memcpy(m.gifts[turn & 1][mine.lane], gift, bytes);
    while (m.turn == turn) {
        if (complete(m, w, mask)) {
            m.arrived = 0;
            m.turn++;
            w.syncs += kind == EMULATOR_SYNC && (mask & w.live) == w.live;
            now.progress++;
        } else {
            wait_as(IN_WARP);
        }
    }
    mine.now = RUNS;
    emulator_now.sync = w.syncs;
    return m.gifts[turn & 1];
}

static uint64_t next_random()
{
    now.random ^= now.random << 13;
    now.random ^= now.random >> 7;
    now.random ^= now.random << 17;
    return now.random;
}

static void run_fiber(fiber &f)
{
    if (f.now != RUNS && f.now != IN_WARP)
        return;
    const state before = f.now;
    now.current = &f;
    emulator_here.thread = f.place;
    emulator_now.thread = (int)(&f - now.fibers.data());
    emulator_now.sync = now.warps[(size_t)f.warp].syncs;
    emulator_now.team = now.teams[(size_t)(&f - now.fibers.data()) / EMULATOR_TEAM].turn;
    emulator_switch(&now.scheduler, f.stack_pointer);
    now.progress += f.now != IN_WARP || before != IN_WARP;
    if (f.now == ENDED) {
        now.live--;
        now.warps[(size_t)f.warp].live &= ~(1u << f.lane);
    }
}

/* `count` fibers from `first` on, each once; with a seed most of them, and from anywhere on. */
static void run_some(size_t first, size_t count)
{
    const size_t from = now.random != 0 ? next_random() % count : 0;
    const bool backward = now.random != 0 && next_random() % 2 == 0;
    for (size_t i = 0; i < count; i++)
        if (now.random == 0 || next_random() % 4 != 0)
            run_fiber(now.fibers[first + (from + (backward ? count - i : i)) % count]);
}

/* A warp as far as it comes without the others. */
static void run_warp(size_t w)
{
    const size_t first = w * EMULATOR_LANES, count = std::min<size_t>(EMULATOR_LANES, now.fibers.size() - first);
    int idle = 0;
    while (idle < 8) {
        const long before = now.progress;
        run_some(first, count);
        idle = now.progress != before ? 0 : idle + 1;
    }
}

/* All threads side by side or, with a seed, in half of the rounds warp after warp: what a barrier keeps apart lies far apart then. */
static void run_round()
{
    if (now.random == 0 || next_random() % 2 == 0) {
        run_some(0, now.fibers.size());
        return;
    }
    const size_t n = now.warps.size(), from = next_random() % n;
    const bool backward = next_random() % 2 == 0;
    for (size_t i = 0; i < n; i++)
        run_warp((from + (backward ? n - i : i)) % n);
}

static void release_barrier()
{
    emulator_now.barrier = ++barriers;
    now.last_count = now.count;
    now.count = now.waiting = 0;
    now.progress++;
    for (fiber &f : now.fibers)
        if (f.now == AT_BARRIER)
            f.now = RUNS;
}

static void run_block()
{
    int idle = 0;
    emulator_now.barrier = ++barriers;
    emulator_copies_begin(now.fibers.size());
    emulator_wgmma_reset(now.fibers.size());
    while (now.live > 0) {
        const long before = now.progress;
        run_round();
        if (now.live > 0 && now.waiting == now.live)
            release_barrier();
        idle = now.progress != before ? 0 : idle + 1;
        if (idle > PATIENCE)
            fail("threads wait for one another for ever");
    }
    emulator_now.barrier = 0;
}

/* Fresh fibers, on stacks that are kept from launch to launch. */
static void make_fibers(dim3 threads)
{
    static std::vector<char *> stacks;
    const size_t n = (size_t)threads.x * threads.y * threads.z;
    if (n == 0 || n > MAX_THREADS)
        fail("a block of no threads, or of too many");
    while (stacks.size() < n)
        stacks.push_back((char *)aligned_alloc(64, STACK));
    now.fibers.assign(n, fiber{});
    now.warps.assign((n + EMULATOR_LANES - 1) / EMULATOR_LANES, warp{});
    now.teams.assign((n + EMULATOR_TEAM - 1) / EMULATOR_TEAM, team{});
    now.live = (int)n;
    now.waiting = now.count = 0;
    for (size_t i = 0; i < n; i++) {
        fiber &f = now.fibers[i];
        void **top = (void **)(stacks[i] + STACK - 64);
        *--top = nullptr; /* where begin_fiber() would return to */
        *--top = (void *)begin_fiber;
        for (int saved = 0; saved < 6; saved++)
            *--top = nullptr;
        f.stack_pointer = top;
        f.place = {(unsigned)(i % threads.x), (unsigned)(i / threads.x % threads.y),
                   (unsigned)(i / threads.x / threads.y)};
        f.warp = (int)(i / EMULATOR_LANES);
        f.lane = (int)(i % EMULATOR_LANES);
        now.warps[(size_t)f.warp].live |= 1u << f.lane;
    }
}

static void run_grid(dim3 blocks, dim3 threads, const std::function<void()> &body)
{
    const char *seed = getenv("EMULATOR_SEED");
    now.random = seed != nullptr ? 88172645463325252u + strtoull(seed, nullptr, 10) : 0;
    now.body = &body;
    emulator_here.threads = threads;
    emulator_here.blocks = blocks;
    for (unsigned z = 0; z < blocks.z; z++)
        for (unsigned y = 0; y < blocks.y; y++)
            for (unsigned x = 0; x < blocks.x; x++) {
                emulator_here.block = {x, y, z};
                memset(dynamic_shared, 0xff, sizeof dynamic_shared);
                make_fibers(threads);
                run_block();
            }
}

void emulator_launch(dim3 blocks, dim3 threads, size_t shared, cudaStream_t stream, std::function<void()> body)
{
    (void)stream;
    if (shared > sizeof dynamic_shared)
        fail("more shared memory than there is");
    emulator_do([=] { run_grid(blocks, threads, body); });
}

void *emulator_dynamic_shared()
{
    return dynamic_shared;
}
