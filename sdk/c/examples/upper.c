/* A port that answers a text with the same in capitals, and an empty one with an error. */
#include "wharf_port.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int answer(struct wharf_port *port, const struct wharf_frame *frame)
{
    if (frame->flags & WHARF_NOREPLY)
        return 0;
    if (frame->size == 0)
        return wharf_port_fail(port, frame->id, "bad_request", "there is nothing to write large", "never");
    unsigned char *text = malloc(frame->size);
    if (text == NULL)
        return wharf_port_fail(port, frame->id, "internal", "no memory", "safe");
    for (size_t i = 0; i < frame->size; i++)
        text[i] = (unsigned char)toupper(frame->payload[i]);
    int result = wharf_port_reply(port, frame->id, text, frame->size, 0);
    free(text);
    return result;
}

int main(void)
{
    struct wharf_hello hello = {.name = "upper", .version = "0.1.0", .enc = "text", .concurrency = 4};
    struct wharf_port *port = wharf_port_open(&hello);
    if (port == NULL) {
        fprintf(stderr, "cannot speak with a manager: %s; run it under wharf\n", strerror(errno));
        return 2;
    }
    struct wharf_frame frame;
    int more = wharf_port_ready(port, NULL) == 0 ? 1 : -1;
    while (more == 1 && (more = wharf_port_next(port, &frame)) == 1) {
        if (frame.kind == WHARF_CALL && answer(port, &frame) < 0)
            more = -1;
        else if (frame.kind == WHARF_DATA)
            wharf_port_log(port, "info", "something was sent");
        else if (frame.kind == WHARF_DRAIN)
            more = 0;
    }
    if (more < 0) {
        fprintf(stderr, "cannot go on: %s\n", wharf_port_error(port));
        return 1;
    }
    return wharf_port_exit(port, "returned", NULL) < 0;
}
