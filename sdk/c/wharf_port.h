/* Programs that speak wharf's wire protocol 1: see docs/PROTOCOL.md of wharf.
 *
 * One thread, no allocation but one buffer that grows with what has come. A call is answered whenever
 * its id is at hand, so that several may be open at once.
 *
 * Functions return 0 or more on success and -1 on failure; wharf_port_error() then says why. */
#ifndef WHARF_PORT_H
#define WHARF_PORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What wharf_port_next() gives. HELLO, READY, PING and what a later version may add are seen to. */
enum wharf_kind {
    WHARF_DATA = 0x00,   /* a message that nobody answers */
    WHARF_CALL = 0x01,   /* to be answered, unless it has WHARF_NOREPLY */
    WHARF_CANCEL = 0x04, /* nobody waits for the answer to `id` any more */
    WHARF_DRAIN = 0x14   /* no more calls will come: answer what is open, then wharf_port_exit() */
};

enum wharf_flags { WHARF_MORE = 0x01, WHARF_NOREPLY = 0x08 };

struct wharf_frame {
    enum wharf_kind kind;
    unsigned flags;
    uint64_t id;
    const unsigned char *payload; /* until the next call of wharf_port_next() */
    size_t size;
};

struct wharf_hello {
    const char *name;
    const char *version;
    const char *enc;      /* "raw" (or NULL), "text", "json", "msgpack" or "cbor" */
    unsigned concurrency; /* how many calls are worked on at once; 0 takes none */
    uint32_t max_frame;   /* the largest payload, in bytes; 0 means 16 MiB */
};

struct wharf_port;

/* Says HELLO and waits for the manager's. From here on standard output is standard error, for whoever
 * prints, and standard input is empty. NULL where it fails; outside of wharf errno is ENOTCONN. */
struct wharf_port *wharf_port_open(const struct wharf_hello *hello);

/* The program can be called; or, with a reason, never will be. */
int wharf_port_ready(struct wharf_port *port, const char *failed);

/* Waits for the next frame: 1 where there is one, 0 at the end of the input. */
int wharf_port_next(struct wharf_port *port, struct wharf_frame *frame);

/* Answers a call. With `more` another part of the same answer follows. */
int wharf_port_reply(struct wharf_port *port, uint64_t id, const void *payload, size_t size, int more);

/* Answers a call with an error. `retry` is "safe", "unsafe" or "never". */
int wharf_port_fail(struct wharf_port *port, uint64_t id, const char *code, const char *message,
                    const char *retry);

/* Says something to whoever listens. */
int wharf_port_send(struct wharf_port *port, const void *payload, size_t size);

/* A line for the program's log: "trace", "debug", "info", "warn" or "error". */
int wharf_port_log(struct wharf_port *port, const char *level, const char *message);

/* Says why the program ends, "returned" or "returned_error", and lets go of the port. */
int wharf_port_exit(struct wharf_port *port, const char *reason, const char *message);

/* What went wrong last, as a sentence. */
const char *wharf_port_error(const struct wharf_port *port);

#ifdef __cplusplus
}
#endif
#endif
