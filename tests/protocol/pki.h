/* pki.h - certificates and keys for tests of TLS, made anew in a folder of their own: good ones, and
 * bad ones of each kind.
 *
 * Files      ca.pem, other-ca.pem; of ca.pem NAME.pem with NAME.key: server, client, expired and
 *            future (of today), for-servers (not for clients), server2; stranger, of other-ca.pem;
 *            keys.psk with "alice" (PKI_KEY) and "bob"; locked.key, with a password; chain.pem, the
 *            server's certificate and its CA's.
 *
 * Threads    the test's.
 * Errors     fail the test.
 * Ownership  pki_free() removes the folder.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

extern const uint8_t PKI_KEY[32]; /* alice's */

struct pki;
struct pki *pki_new(void);
void pki_free(struct pki *pki);
/* Of a file in the folder; good until the eighth call from here. */
const char *pki_path(struct pki *pki, const char *name);
/* Make or replace a file. */
void pki_write(struct pki *pki, const char *name, const void *data, size_t length);
