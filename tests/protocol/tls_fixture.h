/* tls_fixture.h - NBD servers with TLS (fixture.h), and clients that they take or refuse.
 *
 * Threads    the test's.
 * Errors     what fails fails the running cmocka test.
 * Ownership  servers are released by fixture_stop(), clients by tls_client_close().
 */
#pragma once
#include "tests/protocol/fixture.h"
#include "tests/protocol/tls_client.h"

extern struct pki *tls_pki; /* made once for all tests of a program: nothing changes it */
/* For cmocka: of a group. */
int tls_make_pki(void **state);
int tls_drop_pki(void **state);

enum { WITH_PSK = 1, WITH_CA = 2, VERIFY_PEER = 4 };
/* The server's certificate, and more as the bits say. */
struct nbd_tls *tls_credentials(unsigned with);
struct fixture *tls_start(enum nbd_tls_mode mode, unsigned with);
struct fixture *tls_start_with(enum nbd_tls_mode mode, unsigned with,
                               struct nbd_server_options options);

extern const struct tls_client_options tls_anonymous, tls_alice;
/* Greeted, with TLS. */
struct tls_client *tls_upgraded(struct fixture *f, const struct tls_client_options *options);
/* "vol" is open, with structured replies and base:allocation. */
struct tls_client *tls_opened(struct fixture *f, const struct tls_client_options *options);
void tls_expect_serving(struct fixture *f, const struct tls_client_options *options);
/* The server does not take this client: at once, or at the first thing that it says. */
void tls_expect_refused(struct fixture *f, const struct tls_client_options *options);
