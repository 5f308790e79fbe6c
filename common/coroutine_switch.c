/* coroutine_switch.c - first frames of coroutines, and the switch where the machine has none of its
 * own. */
#include "common/coroutine_switch.h"
#include <stdint.h>
#include <string.h>

#if COROUTINE_SWITCH_NATIVE

/* What coroutine_switch.S pops, lowest address first. */
#if defined(__x86_64__)
#define FRAME_WORDS  7 /* r15 r14 r13 r12 rbx rbp, return address */
#define FRAME_RETURN 6
/* System V ABI 3.2.2: at a function's first instruction rsp + 8 is a multiple of 16. */
#define ENTRY_MISALIGN 8
#else
#define FRAME_WORDS    20 /* x19-x28, x29 (frame), x30 (return), d8-d15 */
#define FRAME_RETURN   11
#define ENTRY_MISALIGN 0
#endif

void co_context_init(struct co_context *context, void *stack, size_t stack_bytes,
                     void (*entry)(void))
{
        uint8_t *top = (uint8_t *)stack + stack_bytes;
        uint64_t frame[FRAME_WORDS] = {0}; /* a zero frame pointer ends backtraces */

        top -= (uintptr_t)top % 16 + 16;
        memset(top, 0, 16); /* a zero return address for entry(), for the same reason */
        top += ENTRY_MISALIGN;
        frame[FRAME_RETURN] = (uint64_t)(uintptr_t)entry;
        top -= sizeof(frame);
        memcpy(top, frame, sizeof(frame));
        context->stack_pointer = top;
}

#else

void co_context_init(struct co_context *context, void *stack, size_t stack_bytes,
                     void (*entry)(void))
{
        getcontext(&context->context); /* cannot fail on Linux */
        context->context.uc_stack.ss_sp = stack;
        context->context.uc_stack.ss_size = stack_bytes;
        context->context.uc_link = NULL;
        makecontext(&context->context, entry, 0);
}

void co_context_switch(struct co_context *from, struct co_context *to)
{
        swapcontext(&from->context, &to->context);
}

#endif
