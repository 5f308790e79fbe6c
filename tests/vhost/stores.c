/* stores.c - the calls that -fsanitize=thread makes, as gcc and clang name them. */
#include "tests/vhost/stores.h"
#include <assert.h>
#include <stdbool.h>

#define HELD_MAX 64u

static struct {
        const uint8_t *start;
        size_t n_bytes;
        void (*before)(void *arg);
        void *arg;
        bool busy;
} watch;

static struct {
        bool on;
        unsigned n;
        struct held {
                void *at;
                unsigned n_bytes;
                uint64_t value;
        } stores[HELD_MAX];
} buffer;

void stores_watch(const void *start, size_t n_bytes, void (*before)(void *arg), void *arg)
{
        watch.start = start;
        watch.n_bytes = n_bytes;
        watch.before = before;
        watch.arg = arg;
}

void stores_unwatch(void)
{
        watch.before = NULL;
}

static void about_to(void)
{
        if (!watch.before || watch.busy)
                return;
        watch.busy = true;
        watch.before(watch.arg);
        watch.busy = false;
}

static void about_to_access(const volatile void *at)
{
        if ((uintptr_t)at - (uintptr_t)watch.start < watch.n_bytes)
                about_to();
}

/* ---- the store buffer ---- */

static void store(void *at, unsigned n_bytes, uint64_t value)
{
        switch (n_bytes) {
        case 1:
                __atomic_store_n((uint8_t *)at, (uint8_t)value, __ATOMIC_RELEASE);
                break;
        case 2:
                __atomic_store_n((uint16_t *)at, (uint16_t)value, __ATOMIC_RELEASE);
                break;
        case 4:
                __atomic_store_n((uint32_t *)at, (uint32_t)value, __ATOMIC_RELEASE);
                break;
        default:
                __atomic_store_n((uint64_t *)at, value, __ATOMIC_RELEASE);
        }
}

static void drain(void)
{
        for (unsigned i = 0; i < buffer.n; i++)
                store(buffer.stores[i].at, buffer.stores[i].n_bytes, buffer.stores[i].value);
        buffer.n = 0;
}

void stores_hold(void)
{
        buffer.on = true;
}

void stores_let_go(void)
{
        drain();
        buffer.on = false;
}

static void atomic_store_of(volatile void *at, unsigned n_bytes, uint64_t value)
{
        about_to_access(at);
        if (!buffer.on) {
                store((void *)at, n_bytes, value);
                return;
        }
        assert(buffer.n < HELD_MAX);
        buffer.stores[buffer.n++] = (struct held){(void *)at, n_bytes, value};
}

/* What the code under test has stored itself is what it sees. */
static bool load_held(const volatile void *at, uint64_t *ret_value)
{
        for (unsigned i = buffer.n; i-- > 0;)
                if (buffer.stores[i].at == at) {
                        *ret_value = buffer.stores[i].value;
                        return true;
                }
        return false;
}

/* ---- what the compiler calls ---- */

void __tsan_init(void);
void __tsan_func_entry(void *caller);
void __tsan_func_exit(void);
void __tsan_atomic_thread_fence(int order);
void __tsan_atomic_signal_fence(int order);

void __tsan_init(void)
{
}
void __tsan_func_entry(void *caller)
{
        (void)caller;
}
void __tsan_func_exit(void)
{
}
void __tsan_atomic_signal_fence(int order)
{
        (void)order;
}
void __tsan_atomic_thread_fence(int order)
{
        about_to();
        if (order == __ATOMIC_SEQ_CST)
                drain();
}

#define ACCESS(name)                                                                               \
        void __tsan_##name(void *at);                                                              \
        void __tsan_##name(void *at)                                                               \
        {                                                                                          \
                about_to_access(at);                                                               \
        }
#define RANGE(name)                                                                                \
        void __tsan_##name(void *at, unsigned long n_bytes);                                       \
        void __tsan_##name(void *at, unsigned long n_bytes)                                        \
        {                                                                                          \
                (void)n_bytes;                                                                     \
                about_to_access(at);                                                               \
        }
#define ATOMIC(bits)                                                                               \
        uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *at, int order);   \
        uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *at, int order)    \
        {                                                                                          \
                uint64_t value;                                                                    \
                                                                                                   \
                (void)order;                                                                       \
                about_to_access(at);                                                               \
                return load_held(at, &value) ? (uint##bits##_t)value                               \
                                             : __atomic_load_n(at, __ATOMIC_ACQUIRE);              \
        }                                                                                          \
        void __tsan_atomic##bits##_store(volatile uint##bits##_t *at, uint##bits##_t value,        \
                                         int order);                                               \
        void __tsan_atomic##bits##_store(volatile uint##bits##_t *at, uint##bits##_t value,        \
                                         int order)                                                \
        {                                                                                          \
                (void)order;                                                                       \
                atomic_store_of(at, bits / 8, value);                                              \
        }

ACCESS(read1)
ACCESS(read2)
ACCESS(read4)
ACCESS(read8)
ACCESS(read16)
ACCESS(write1)
ACCESS(write2)
ACCESS(write4)
ACCESS(write8)
ACCESS(write16)
ACCESS(unaligned_read2)
ACCESS(unaligned_read4)
ACCESS(unaligned_read8)
ACCESS(unaligned_read16)
ACCESS(unaligned_write2)
ACCESS(unaligned_write4)
ACCESS(unaligned_write8)
ACCESS(unaligned_write16)
RANGE(read_range)
RANGE(write_range)
ATOMIC(8)
ATOMIC(16)
ATOMIC(32)
ATOMIC(64)
