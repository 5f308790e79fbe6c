/* verify.h - whether a copy holds what it was made of: both are read again, from beginning to end.
 *
 * A copy's workers do it (transfer.h), with reading and comparing in the place of writing: several pieces
 * at a time. What both sides say is zero is not read.
 *
 * Units      bytes.
 * Threads    coroutines of the loop that images and volumes belong to.
 * Errors     0 or -errno with a sentence that names both, and the offset.
 * Ownership  images and volumes stay the caller's.
 */
#pragma once
#include "server/transfer.h"

/* All of @from is in @to, and what is beyond it is zero. watch->verifying is true meanwhile.
 *
 * -EILSEQ     they differ: the sentence names the first such byte
 * -ECANCELED  so watch->cancelled says */
int co_verify(struct transfer_side from, struct transfer_side to, struct transfer_watch *watch,
              struct error *err);

/* The same of an image that was written and finished. A file is opened anew, by what is in it, and read from
 * its disk; others that belong to it come from @opener. An export is read over the connection that it
 * was written by, since its server may take no second one. */
int co_verify_image(struct transfer_side from, struct image *made, struct image_opener *opener,
                    struct transfer_watch *watch, struct error *err);
