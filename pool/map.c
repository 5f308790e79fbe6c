/* map.c - changes to a root's map: what was written takes its place, what was discarded goes. */
#include <errno.h>
#include <stdlib.h>
#include "pool/engine.h"

int co_map_load(struct pool *pool, const struct entry *missing)
{
        struct node *node;
        int r = co_node_get(pool, missing, &node);
        if (r == 0)
                node_unpin(pool, node);
        return r;
}

int map_write(struct pool *pool, struct root *root, uint64_t block, uint32_t n, uint64_t address,
              const uint32_t *crc, struct entry *ret_missing)
{
        struct root_body *body = root->body;
        struct node *leaf;
        /* before: a failure half way leaves nodes that the next cut must seal */
        root_dirty(pool, root);
        int r = tree_leaf_writable(pool, root, &body->map, block, &leaf, ret_missing);
        if (r < 0)
                return r;
        struct entry_disk *at = ((struct node_disk *)leaf->page)->entry + block % LEAF_BLOCKS;
        for (uint32_t i = 0; i < n; i++, at++) {
                struct entry old = entry_get(at);
                if (!entry_is_hole(&old)) {
                        r = old.type == ENTRY_DATA ? root_supersede(pool, root, &old) : -EUCLEAN;
                        if (r < 0)
                                return pool_fail(pool, r == -EUCLEAN
                                                           ? "a map holds an entry of unknown type"
                                                           : "out of memory for a deadlist");
                } else {
                        body->data_blocks++;
                }
                struct entry e = {.address = address + i,
                                  .birth = pool->epoch,
                                  .crc = crc[i],
                                  .type = ENTRY_DATA};
                entry_put(at, &e);
        }
        body->own_blocks += n;
        space_commit(pool, address, n);
        return 0;
}

/* Nodes that a clear needs are pinned until it has them all. */
struct pinned {
        struct node **node;
        size_t n, room;
};

static int co_pin_missing(struct pool *pool, struct pinned *p, const struct entry *missing)
{
        if (p->n == p->room) {
                size_t room = p->room ? p->room * 2 : 16;
                struct node **grown = realloc(p->node, room * sizeof(*grown));
                if (!grown)
                        return -ENOMEM;
                p->node = grown;
                p->room = room;
        }
        int r = co_node_get(pool, missing, &p->node[p->n]);
        if (r == 0)
                p->n++;
        return r;
}

int co_map_clear(struct pool *pool, struct root *root, uint64_t first, uint64_t n, uint8_t type,
                 bool *ret_changed)
{
        struct pinned pinned = {0};
        struct entry missing;
        int r;
        while ((r = tree_clear(pool, root, &root->body->map, first, n, type, ret_changed,
                               &missing)) == -EAGAIN) {
                r = co_pin_missing(pool, &pinned, &missing);
                if (r < 0)
                        break;
        }
        for (size_t i = 0; i < pinned.n; i++)
                node_unpin(pool, pinned.node[i]);
        free(pinned.node);
        if (*ret_changed)
                root_dirty(pool, root);
        return r;
}
