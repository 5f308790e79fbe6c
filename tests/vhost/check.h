/* check.h - what the cmocka tests of a device share: a call that must succeed, and requests that
 * must be answered.
 *
 * Units      bytes; sectors of 512 bytes.
 * Threads    one.
 * Errors     whatever fails fails the running test, with its sentence.
 * Ownership  check_open()'s disk is the caller's.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "tests/vhost/disk.h"

extern struct error check_err; /* of the last call in ok() or refused() */

/* @call, which takes &check_err, succeeds. */
#define ok(call)                                                                                   \
        do {                                                                                       \
                check_err = ERROR_INIT;                                                            \
                if ((call) < 0)                                                                    \
                        fail_msg("%s: %s", #call, check_err.message);                              \
        } while (0)
/* It fails with @code. */
#define refused(code, call)                                                                        \
        do {                                                                                       \
                check_err = ERROR_INIT;                                                            \
                assert_int_equal(call, code);                                                      \
        } while (0)

/* The socket under test: VHOST_SOCKET, unless check_set_path() has named another. */
const char *check_path(void);
void check_set_path(const char *path);
/* @options.path may be NULL: the socket under test. */
struct disk *check_open(struct disk_options options);

/* Bytes that @seed determines. */
void check_pattern(uint8_t *data, size_t n_bytes, uint64_t seed);
/* Requests on queue 0 in the plain shape, which must end with status 0. */
void check_write(struct disk *d, uint64_t sector, const void *data, uint32_t n_bytes);
void check_read(struct disk *d, uint64_t sector, void *data, uint32_t n_bytes);
void check_flush(struct disk *d);
/* What one request comes to: its status. */
uint8_t check_status(struct disk *d, uint32_t type, uint64_t sector, void *data, uint32_t n_bytes);
/* The device serves requests: a write is read back. */
void check_alive(struct disk *d);
/* A disk of its own on the socket under test is served: the server lives. */
void check_server_alive(void);
