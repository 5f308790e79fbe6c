/* fuzz_words.c - words that people and other programs write: sizes, names, uuids, properties of volumes,
 * and the limits that the engine reads out of these. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/size.h"
#include "pool/throttle.h"
#include "pool/usage.h"
#include "server/property.h"
#include "server/state.h"
#include "tests/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const words[] = {
    "iops",     "iops-burst", "bandwidth",   "bandwidth-burst",
    "on-full",  "discard",    "compression", "0",
    "1",        "9",          ".",           "5",
    "K",        "M",          "G",           "T",
    "P",        "iB",         "B",           "k",
    "none",     "wait",       "enospc",      "auto",
    "on",       "off",        "zstd",        "-",
    "+",        " ",          "a",           "@",
    "/",        "%s",         "_",           "8388608",
    "00112233", "-0011-",     "ffeeddcc",    "18446744073709551615"};

static void read_size(const char *text)
{
        struct error err = ERROR_INIT;
        char shown[SIZE_TEXT_MAX];
        uint64_t bytes;
        int r = size_parse(text, &bytes, &err);

        assert(r == 0 ? bytes <= INT64_MAX : err.message[0]);
        if (r < 0)
                return;
        size_format(bytes, shown);
        assert(strlen(shown) < sizeof(shown));
}

/* A number in plain digits is itself. */
static void read_number(uint64_t number)
{
        char text[32];
        uint64_t bytes;

        snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
        int r = size_parse(text, &bytes, NULL);
        assert(number > INT64_MAX ? r < 0 : r == 0 && bytes == number);
}

static void read_name(const char *text)
{
        struct error err = ERROR_INIT;
        int r = pool_name_check(text, "pool", &err);

        assert(r == 0 ? strlen(text) <= POOL_NAME_MAX && !strpbrk(text, "/@ %") : err.message[0]);
}

static void read_uuid(const char *text)
{
        char again[UUID_TEXT_SIZE];
        uint8_t uuid[16];

        if (uuid_parse_text(text, uuid) < 0)
                return;
        uuid_format(uuid, again);
        assert(strcasecmp(text, again) == 0);
}

static void read_property(const char *key, const char *value)
{
        struct error err = ERROR_INIT;
        char note[256] = "";

        assert(property_check(key, value, note, sizeof(note), &err) == 0 || err.message[0]);
        assert(strlen(note) < sizeof(note));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct output first, second;
        struct input in = {data, size};
        uint8_t n_words = input_u8(&in) % 8;

        read_number(input_u64(&in));
        first.n = second.n = 0;
        for (unsigned i = 0; i < n_words; i++)
                input_words(&in, words, sizeof(words) / sizeof(words[0]), &first);
        while (in.left > 0)
                input_words(&in, words, sizeof(words) / sizeof(words[0]), &second);
        /* Texts of the very length, so that reading past the end is seen. */
        char *a = strndup((const char *)first.bytes, first.n);
        char *b = strndup((const char *)second.bytes, second.n);
        if (!a || !b)
                abort();
        read_size(a);
        read_name(a);
        read_uuid(a);
        read_property(a, b);
        free(a);
        free(b);
        return 0;
}
