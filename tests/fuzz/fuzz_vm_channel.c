/* fuzz_vm_channel.c - what a virtual machine's process says to its supervisor: a guest may have taken
 * it over. */
#include <assert.h>
#include <string.h>
#include "vm/channel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text, size_t size)
{
        size_t n = strnlen(text, size);

        assert(n < size);
        for (size_t i = 0; i < n; i++)
                assert(text[i] >= ' ' && text[i] <= '~');
}

/* @data as it is; and laid over a message that is right, from its end, as most of it is text. */
static void check(const void *bytes, size_t size)
{
        struct channel_message m;
        struct error e = ERROR_INIT;

        if (channel_check_event(bytes, size, &m) != 1)
                return;
        assert(m.kind >= CHANNEL_READY && m.result <= 0);
        check_text(m.id, sizeof(m.id));
        assert(!strpbrk(m.id, "/. %"));
        check_text(m.text, sizeof(m.text));
        check_text(m.hint, sizeof(m.hint));
        if (m.result < 0)
                assert(channel_error(&m, &e) == m.result && e.message[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct channel_message m = {.kind = CHANNEL_READY};

        check(data, size);
        if (size <= sizeof(m)) {
                memcpy(&m, data, size);
                check(&m, sizeof(m));
        }
        return 0;
}
