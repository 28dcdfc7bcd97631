/* See wharf_port.h. */
#define _GNU_SOURCE
#include "wharf_port.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { REPLY = 2, ERROR = 3, HELLO = 0x10, READY, PING, PONG, EXIT = 0x15, LOG = 0x30, METRIC };
enum { FDS = 0x02, TRACE = 0x04, TO = 0x10, UNKNOWN = 0x60, CRITICAL = 0x80 };
enum { HEADER = 14, COUNTED = 10, STEP = 1 << 16, MAX_FRAME = 16 << 20 };

struct wharf_port {
    int in, out;
    uint32_t max_frame; /* what is taken */
    uint32_t largest;   /* what the manager takes */
    unsigned char *buffer;
    size_t room;
    char error[160];
};

static int fail(struct wharf_port *port, const char *format, ...)
{
    va_list words;
    va_start(words, format);
    vsnprintf(port->error, sizeof port->error, format, words);
    va_end(words);
    return -1;
}

const char *wharf_port_error(const struct wharf_port *port)
{
    return port->error;
}

static int write_all(struct wharf_port *port, struct iovec *parts, int count)
{
    while (count > 0) {
        ssize_t written = writev(port->out, parts, count);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            return fail(port, "cannot write: %s", strerror(errno));
        }
        while (count > 0 && (size_t)written >= parts->iov_len) {
            written -= parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (char *)parts->iov_base + written;
            parts->iov_len -= written;
        }
    }
    return 0;
}

static int send_frame(struct wharf_port *port, unsigned kind, unsigned flags, uint64_t id,
                      const void *payload, size_t size)
{
    unsigned char head[HEADER];
    if (size > port->largest)
        return fail(port, "%zu bytes, %u are allowed", size, (unsigned)port->largest);
    uint32_t length = (uint32_t)size + COUNTED;
    for (int i = 0; i < 4; i++)
        head[i] = (unsigned char)(length >> (24 - 8 * i));
    head[4] = (unsigned char)kind;
    head[5] = (unsigned char)flags;
    for (int i = 0; i < 8; i++)
        head[6 + i] = (unsigned char)(id >> (56 - 8 * i));
    struct iovec parts[2] = {{head, HEADER}, {(void *)payload, size}};
    return write_all(port, parts, size > 0 ? 2 : 1);
}

/* A text as a JSON string; memory of the caller's. */
static char *quoted(const char *text)
{
    char *json = malloc(6 * strlen(text) + 3), *at = json;
    if (json == NULL)
        return NULL;
    *at++ = '"';
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\')
            *at++ = '\\', *at++ = (char)byte;
        else if (byte < 0x20)
            at += sprintf(at, "\\u%04x", byte);
        else
            *at++ = (char)byte;
    }
    *at++ = '"';
    *at = 0;
    return json;
}

/* A control frame: an object of up to three texts, those that are NULL left out, and `more`, which
 * begins with a comma. */
static int send_object(struct wharf_port *port, unsigned kind, uint64_t id, const char *const keys[3],
                       const char *const texts[3], const char *more)
{
    char *json = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&json, &size);
    if (to == NULL)
        return fail(port, "no memory");
    fputc('{', to);
    const char *comma = "";
    for (int i = 0; i < 3; i++) {
        char *text = texts[i] ? quoted(texts[i]) : NULL;
        if (text != NULL) {
            fprintf(to, "%s\"%s\":%s", comma, keys[i], text);
            comma = ",";
        }
        free(text);
    }
    fputs(*comma ? more : *more ? more + 1 : more, to);
    fputc('}', to);
    int result = fclose(to) == 0 ? send_frame(port, kind, 0, id, json, size) : fail(port, "no memory");
    free(json);
    return result;
}

/* Reads so many bytes, with room as they come: 1, or 0 where the input ends before the first. */
static int exactly(struct wharf_port *port, size_t count)
{
    size_t have = 0;
    while (have < count) {
        size_t want = count - have < STEP ? count - have : STEP;
        if (port->room < have + want) {
            size_t room = port->room * 2 > have + want ? port->room * 2 : have + want;
            unsigned char *buffer = realloc(port->buffer, room);
            if (buffer == NULL)
                return fail(port, "no memory for a frame of %zu bytes", count);
            port->buffer = buffer;
            port->room = room;
        }
        ssize_t got = read(port->in, port->buffer + have, want);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail(port, "cannot read: %s", strerror(errno));
        if (got == 0)
            return have == 0 ? 0 : fail(port, "the input ended inside a frame");
        have += (size_t)got;
    }
    return 1;
}

static uint64_t number(const unsigned char *bytes, int count)
{
    uint64_t value = 0;
    for (int i = 0; i < count; i++)
        value = value << 8 | bytes[i];
    return value;
}

static int is_known(unsigned kind)
{
    return kind <= 6 || (kind >= HELLO && kind <= EXIT) || (kind >= 0x20 && kind <= 0x26) ||
           kind == LOG || kind == METRIC;
}

/* The next frame of any kind that is known. */
static int next_frame(struct wharf_port *port, unsigned *kind, struct wharf_frame *frame)
{
    for (;;) {
        int got = exactly(port, 4);
        if (got <= 0)
            return got;
        uint64_t length = number(port->buffer, 4);
        if (length < COUNTED || length - COUNTED > port->max_frame)
            return fail(port, "a frame announces %llu bytes", (unsigned long long)length);
        if (exactly(port, COUNTED) != 1)
            return fail(port, "the input ended inside a frame");
        unsigned flags = port->buffer[1];
        *kind = port->buffer[0];
        frame->id = number(port->buffer + 2, 8);
        size_t size = (size_t)length - COUNTED, skip = 0;
        if (size > 0 && exactly(port, size) != 1)
            return fail(port, "the input ended inside a frame");
        if (*kind >= 0x80)
            continue;
        if (!is_known(*kind))
            return fail(port, "the kind %#04x is not known", *kind);
        if ((flags & FDS) || ((flags & CRITICAL) && (flags & UNKNOWN)))
            return fail(port, "the flags %#04x cannot be heeded", flags);
        if (flags & TRACE)
            skip += 25;
        if ((flags & TO) && skip + 2 <= size)
            skip += 2 + (size_t)number(port->buffer + skip, 2);
        if (skip > size)
            return fail(port, "a frame ends inside what stands before its payload");
        frame->flags = flags & (WHARF_MORE | WHARF_NOREPLY);
        frame->payload = port->buffer + skip;
        frame->size = size - skip;
        return 1;
    }
}

/* The manager's limit, from its HELLO. A key inside of a text would have its quotes escaped. */
static void learn_largest(struct wharf_port *port, const struct wharf_frame *hello)
{
    static const char key[] = "\"max_frame\"";
    const unsigned char *end = hello->payload + hello->size;
    const unsigned char *at = memmem(hello->payload, hello->size, key, sizeof key - 1);
    if (at == NULL)
        return;
    uint64_t value = 0;
    at += sizeof key - 1;
    while (at < end && (*at == ' ' || *at == ':'))
        at++;
    for (; at < end && *at >= '0' && *at <= '9' && value < UINT32_MAX; at++)
        value = value * 10 + (uint64_t)(*at - '0');
    port->largest = value < UINT32_MAX - COUNTED ? (uint32_t)value : UINT32_MAX - COUNTED;
}

static int open_channel(struct wharf_port *port)
{
    const char *channel = getenv("PORT_CHANNEL");
    if (channel != NULL && strcmp(channel, "3") == 0) {
        port->in = port->out = 3;
        return 0;
    }
    port->in = fcntl(0, F_DUPFD_CLOEXEC, 3);
    port->out = fcntl(1, F_DUPFD_CLOEXEC, 3);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (port->in < 0 || port->out < 0 || null < 0 || dup2(null, 0) < 0 || dup2(2, 1) < 0)
        return -1;
    close(null);
    return 0;
}

struct wharf_port *wharf_port_open(const struct wharf_hello *hello)
{
    static const char *const keys[3] = {"name", "version", "enc"};
    const char *proto = getenv("PORT_PROTO");
    if (proto == NULL || strcmp(proto, "1") != 0) {
        errno = ENOTCONN;
        return NULL;
    }
    struct wharf_port *port = calloc(1, sizeof *port);
    if (port == NULL)
        return NULL;
    port->max_frame = hello->max_frame ? hello->max_frame : MAX_FRAME;
    port->largest = MAX_FRAME;
    const char *texts[3] = {hello->name, hello->version, hello->enc ? hello->enc : "raw"};
    char more[96];
    snprintf(more, sizeof more, ",\"proto\":1,\"concurrency\":%u,\"max_frame\":%u", hello->concurrency,
             (unsigned)port->max_frame);
    struct wharf_frame frame;
    unsigned kind;
    if (open_channel(port) == 0 && send_object(port, HELLO, 0, keys, texts, more) == 0 &&
        next_frame(port, &kind, &frame) == 1 && kind == HELLO) {
        learn_largest(port, &frame);
        return port;
    }
    free(port->buffer);
    free(port);
    errno = EPROTO;
    return NULL;
}

int wharf_port_ready(struct wharf_port *port, const char *failed)
{
    static const char *const keys[3] = {"failed", "", ""};
    const char *texts[3] = {failed, NULL, NULL};
    return send_object(port, READY, 0, keys, texts, "");
}

int wharf_port_next(struct wharf_port *port, struct wharf_frame *frame)
{
    unsigned kind;
    int got;
    while ((got = next_frame(port, &kind, frame)) == 1) {
        switch (kind) {
        case WHARF_DATA:
        case WHARF_CALL:
        case WHARF_CANCEL:
        case WHARF_DRAIN:
            frame->kind = (enum wharf_kind)kind;
            return 1;
        case PING:
            if (send_frame(port, PONG, 0, frame->id, NULL, 0) < 0)
                return -1;
            break;
        default:
            break; /* nothing that a program without further features has to act on */
        }
    }
    return got;
}

int wharf_port_reply(struct wharf_port *port, uint64_t id, const void *payload, size_t size, int more)
{
    return send_frame(port, REPLY, more ? WHARF_MORE : 0, id, payload, size);
}

int wharf_port_fail(struct wharf_port *port, uint64_t id, const char *code, const char *message,
                    const char *retry)
{
    static const char *const keys[3] = {"code", "message", "retry"};
    const char *texts[3] = {code, message, retry};
    return send_object(port, ERROR, id, keys, texts, "");
}

int wharf_port_send(struct wharf_port *port, const void *payload, size_t size)
{
    return send_frame(port, WHARF_DATA, 0, 0, payload, size);
}

int wharf_port_log(struct wharf_port *port, const char *level, const char *message)
{
    static const char *const keys[3] = {"level", "message", ""};
    const char *texts[3] = {level, message, NULL};
    return send_object(port, LOG, 0, keys, texts, "");
}

int wharf_port_exit(struct wharf_port *port, const char *reason, const char *message)
{
    static const char *const keys[3] = {"reason", "message", ""};
    const char *texts[3] = {reason, message, NULL};
    int result = send_object(port, EXIT, 0, keys, texts, "");
    free(port->buffer);
    free(port);
    return result;
}
