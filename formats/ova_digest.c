/* ova_digest.c - digests for manifests. */
#include <errno.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/offload.h"
#include "formats/ova.h"

struct ova_hash {
        gnutls_hash_hd_t handle;
        enum ova_digest digest;
        const void *data;
        size_t length;
        bool failed;
};

int ova_hash_new(enum ova_digest digest, struct ova_hash **ret, struct error *err)
{
        struct ova_hash *h = calloc(1, sizeof(*h));
        gnutls_digest_algorithm_t algorithm =
            digest == OVA_SHA1 ? GNUTLS_DIG_SHA1 : GNUTLS_DIG_SHA256;

        if (!h || gnutls_hash_init(&h->handle, algorithm) < 0) {
                free(h);
                return error_set(err, -ENOMEM, "out of memory");
        }
        h->digest = digest;
        *ret = h;
        return 0;
}

static void add(void *arg)
{
        struct ova_hash *h = arg;

        h->failed = h->failed || gnutls_hash(h->handle, h->data, h->length) < 0;
}

void co_ova_hash_add(struct ova_hash *hash, struct offload *offload, const void *data,
                     size_t length)
{
        hash->data = data;
        hash->length = length;
        co_offload(offload, add, hash);
}

/* What could not be computed is a digest that none equals. */
void ova_hash_end(struct ova_hash *hash, char text[OVA_DIGEST_TEXT])
{
        uint8_t bytes[32] = {0};
        size_t n = hash->digest == OVA_SHA1 ? 20 : 32;

        gnutls_hash_deinit(hash->handle, bytes);
        for (size_t i = 0; text && i < n; i++)
                snprintf(text + 2 * i, 3, "%02x", bytes[i]);
        if (text && hash->failed)
                text[0] = 0;
        free(hash);
}
