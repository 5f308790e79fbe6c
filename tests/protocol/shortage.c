/* shortage.c - see shortage.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "tests/protocol/shortage.h"
#include "tests/protocol/wire.h"

/* ---- allocations that fail ---- */

static _Thread_local bool counted; /* this thread's allocations are */
static unsigned n_until_failure;   /* 0: none fails */
static bool failed;

static bool fails(void)
{
        if (!counted || n_until_failure == 0 || --n_until_failure > 0)
                return false;
        failed = true;
        errno = ENOMEM;
        return true;
}

void *__real_malloc(size_t length);
void *__real_calloc(size_t n, size_t length);
void *__real_realloc(void *old, size_t length);
void *__real_aligned_alloc(size_t alignment, size_t length);
void *__real_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset);
void *__wrap_malloc(size_t length);
void *__wrap_calloc(size_t n, size_t length);
void *__wrap_realloc(void *old, size_t length);
void *__wrap_aligned_alloc(size_t alignment, size_t length);
void *__wrap_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset);

void *__wrap_malloc(size_t length)
{
        return fails() ? NULL : __real_malloc(length);
}

void *__wrap_calloc(size_t n, size_t length)
{
        return fails() ? NULL : __real_calloc(n, length);
}

void *__wrap_realloc(void *old, size_t length)
{
        return fails() ? NULL : __real_realloc(old, length);
}

void *__wrap_aligned_alloc(size_t alignment, size_t length)
{
        return fails() ? NULL : __real_aligned_alloc(alignment, length);
}

void *__wrap_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
        return fails() ? MAP_FAILED : __real_mmap(at, length, protection, flags, fd, offset);
}

void shortage_fail(void *arg)
{
        counted = true;
        failed = false;
        n_until_failure = *(unsigned *)arg;
}

void shortage_off(void)
{
        counted = false;
}

bool shortage_has_struck(void)
{
        return failed;
}

/* ---- a conversation ---- */

static uint8_t *put_option(uint8_t *at, uint32_t option, const void *data, size_t length)
{
        struct nbd_option header = {be64_make(NBD_OPTION_MAGIC), be32_make(option),
                                    be32_make((uint32_t)length)};

        at = (uint8_t *)memcpy(at, &header, sizeof(header)) + sizeof(header);
        return length ? (uint8_t *)memcpy(at, data, length) + length : at;
}

static uint8_t *put_request(uint8_t *at, uint16_t type, uint32_t length)
{
        struct nbd_request_header header = {.magic = be32_make(NBD_REQUEST_MAGIC),
                                            .type = be16_make(type),
                                            .length = be32_make(length)};

        at = (uint8_t *)memcpy(at, &header, sizeof(header)) + sizeof(header);
        return type == NBD_CMD_WRITE ? (uint8_t *)memset(at, 7, length) + length : at;
}

size_t shortage_conversation(uint8_t *stream)
{
        static const char *const queries[] = {"base:allocation", NULL};
        static const uint16_t requests[] = {NBD_INFO_BLOCK_SIZE};
        be32 flags = be32_make(NBD_FLAG_FIXED_NEWSTYLE);
        uint8_t data[256], *at = stream;

        at = (uint8_t *)memcpy(at, &flags, sizeof(flags)) + sizeof(flags);
        at = put_option(at, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
        at = put_option(at, NBD_OPT_SET_META_CONTEXT, data, wire_meta_data(data, "vol", queries));
        at = put_option(at, NBD_OPT_LIST, NULL, 0);
        at = put_option(at, NBD_OPT_INFO, data, wire_info_data(data, "vol", requests, 1));
        at = put_option(at, NBD_OPT_GO, data, wire_info_data(data, "vol", NULL, 0));
        at = put_request(at, NBD_CMD_WRITE, 4096);
        at = put_request(at, NBD_CMD_WRITE, 100000);
        at = put_request(at, NBD_CMD_READ, 300000);
        at = put_request(at, NBD_CMD_BLOCK_STATUS, 300000);
        at = put_request(at, NBD_CMD_FLUSH, 0);
        at = put_request(at, NBD_CMD_DISC, 0);
        return (size_t)(at - stream);
}
