/* coroutine_switch.h - the machine's part of a coroutine: a stack and a switch. For coroutine.c.
 *
 * On x86-64 and aarch64 a switch saves what the ABI lets a called function keep and changes the
 * stack pointer (coroutine_switch.S): some 2 ns. Elsewhere, and with -DTARN_COROUTINE_UCONTEXT, it
 * is swapcontext(3), which makes a system call.
 *
 * Units      stack_bytes are bytes.
 * Threads    both ends of a switch are on one thread.
 * Errors     none.
 * Ownership  contexts and stacks are the caller's memory.
 */
#pragma once
#include <stddef.h>

#if !defined(TARN_COROUTINE_UCONTEXT) && (defined(__x86_64__) || defined(__aarch64__))
#define COROUTINE_SWITCH_NATIVE 1
struct co_context {
        void *stack_pointer;
};
#else
#define COROUTINE_SWITCH_NATIVE 0
#include <ucontext.h>
struct co_context {
        ucontext_t context;
};
#endif

/* Make @context start entry() on this stack when it is first switched to.
 * entry() must not return. */
void co_context_init(struct co_context *context, void *stack, size_t stack_bytes,
                     void (*entry)(void));

/* Save where we are in @from and go on where @to was saved. */
void co_context_switch(struct co_context *from, struct co_context *to);
