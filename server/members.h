/* members.h - from what is known of a pool to its opened members.
 *
 * A pool is named by its name in the state folder or by the path of any member. Members are found
 * again by uuid: at the last path, in the folders where the other members lie, under
 * /dev/disk/by-id, among all disks of the kernel. The newest superblock decides who is a member; the state file only says where to look first.
 *
 * Units      times are milliseconds.
 * Threads    the loop whose coroutine calls.
 * Errors     0 or -errno with a sentence that names the member.
 * Ownership  ret_members is malloc'ed; each member is closed with member_close().
 */
#pragma once
#include "server/state.h"

/* How long to wait for a member that another process holds: commands are short, and a killed
 * server's locks go some 60 ms after it. */
#define MEMBERS_LOCK_WAIT_MS 30000u
/* Files looked at while searching for one that moved. */
#define MEMBERS_SEARCH_MAX 4096u

/* A pool's state by name, or by a member's path ("/..." or anything with a slash, or a file that
 * exists). A pool found by a path that is in no state file gets a state of what its label says.
 * Release with state_free().
 *
 * -ENOENT  no such pool, no such file */
int co_pool_resolve(struct loop *loop, const char *name_or_path, struct pool_state **ret_state,
                    struct error *err);
/* A state from the labels of @paths, all of one pool. Release with state_free().
 *
 * -EMEDIUMTYPE  they are of different pools
 * -ENODATA      one is not a member of any */
int co_state_from_paths(struct loop *loop, const char *const *paths, size_t n_paths,
                        struct pool_state **ret_state, struct error *err);
/* True while any member of @state can be found (its label is looked at, no lock is taken). */
bool co_state_alive(struct loop *loop, const struct pool_state *state);

/* Lock and open all members of @state's pool; where they were found is written into @state.
 * @cancelled is looked at while waiting; may be NULL.
 *
 * -EBUSY      held by another process for longer than @wait_ms
 * -ENXIO      a member cannot be found: named
 * -ECANCELED  *cancelled became true */
int co_members_open(struct loop *loop, struct pool_state *state, unsigned wait_ms,
                    const atomic_bool *cancelled, struct member ***ret_members, size_t *ret_n,
                    struct error *err);
/* The same of descriptors that another process opened and locked, which are taken over also on
 * failure; @paths are where they were.
 *
 * -EMEDIUMTYPE  one is not a member of the pool */
int co_members_take(struct loop *loop, struct pool_state *state, const int *fds,
                    const char *const *paths, size_t n, struct member ***ret_members,
                    struct error *err);
void members_close(struct member **members, size_t n);

/* The path under which a member is remembered: absolute, free of links where it is a file, as given
 * under /dev (where links are what stays the same over a restart). */
int member_path(const char *path, char *ret_path, size_t size, struct error *err);
