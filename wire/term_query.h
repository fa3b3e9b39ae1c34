/* term_query.h -- takes the questions that programs ask a terminal out of output that is replayed. Somebody
 * answered them when they were asked, or nobody will read the answer: a terminal that sees them again
 * would answer again, and that answer would be typed into the shell.
 *
 * Taken out:
 *   CSI 5n 6n ?6n ... (all DSR), c >c =c (DA), >q (XTVERSION), x (DECREQTPARM), ?u (keyboard flags),
 *   $p ?$p (DECRQM), $u $w &u "v *y '| #R #| (other reports), ?S (graphics), ?m (XTQMODKEYS),
 *   11t 13t 14t 15t 16t 18t 19t 20t 21t (XTWINOPS that report)
 *   OSC 4 5 10 to 19 21 22 52 with a "?", OSC 1337;Report...
 *   DCS $q +q +Q (DECRQSS, XTGETTCAP, XTGETXRES), APC G with a=q (graphics)
 *   ENQ, ESC Z (DECID)
 *   CSI ?1004h, which is answered at once by a focus report
 * in 7-bit form and with the C1 characters U+0090 and so on. All else stays, to the byte.
 * Source: xterm's ctlseqs, ECMA-48, xterm.js. Pure. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A longer sequence is no question: it is let through. */
#define TERM_QUERY_BYTES_MAX 1024

/* Copies data to out (which holds size bytes) without the questions. Returns the bytes written. *taken says
 * how many bytes of data that covers: what is left, less than TERM_QUERY_BYTES_MAX, is the start of a
 * sequence, to be given again together with what follows. With last nothing follows: it is copied. */
size_t term_query_remove(uint8_t *out, const uint8_t *data, size_t size, bool last, size_t *taken);
