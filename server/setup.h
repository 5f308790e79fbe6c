/* setup.h - making pools, making them known, forgetting and destroying them: what happens to a pool
 * that is not open, and so never behind a server.
 *
 * Units      bytes.
 * Threads    the loop whose coroutine calls.
 * Errors     0 or -errno with a sentence. A pool_setup that fails removes the files that it made.
 * Ownership  strings stay the caller's; a ret_state is released with state_free().
 */
#pragma once
#include "server/members.h"

#define SETUP_NOTE_SIZE 256

struct pool_setup {
        const char *name;
        const char *const *paths;
        size_t n_paths;
        enum pool_layout layout;
        /* size of files to make where there is nothing; 0: all must be there */
        uint64_t file_bytes;
        bool force; /* take disks that hold data, and members of other pools */
};

/* Make a pool and its state file. ret_note: something the user should know; or left as it is. */
int co_setup_create(struct loop *loop, const struct pool_setup *setup,
                    char ret_note[SETUP_NOTE_SIZE], struct error *err);

/* Find out whether a disk may become a member; nothing is changed or kept locked.
 *
 * -EEXIST  it holds data, or is a member: the sentence says of what */
int co_setup_check_disk(struct loop *loop, const char *path, struct error *err);

/* -EBUSY where @path is a file that a loop device is made of. */
int setup_refuse_backing(const char *path, struct error *err);

/* Whether what is at @path may be overwritten by something else than a pool, however much it is
 * asked for. -EBUSY  it is a member of a pool */
int co_setup_refuse_member(struct loop *loop, const char *path, struct error *err);

/* Make the pool of @paths known; members not named are searched for. */
int co_setup_import(struct loop *loop, const char *const *paths, size_t n_paths,
                    const atomic_bool *cancelled, struct pool_state **ret_state,
                    char ret_note[SETUP_NOTE_SIZE], struct error *err);

/* Remove the state file. The members stay as they are.
 *
 * -EBUSY  it is being served */
int setup_forget(const char *name, struct error *err);

/* Make the members no members any more. On success *state is released. */
int co_setup_destroy(struct loop *loop, struct pool_state **state, const atomic_bool *cancelled,
                     struct error *err);

/* Make sparse files where there is nothing, for members that are added; ret_made[i] says which. On
 * failure none is left. */
int setup_make_files(const char *const *paths, size_t n_paths, uint64_t file_bytes, bool *ret_made,
                     struct error *err);
void setup_remove_files(const char *const *paths, size_t n_paths, const bool *made);

/* -EEXIST  two of the paths are the same disk */
int setup_check_distinct(const char *const *paths, size_t n_paths, struct error *err);
