/* A program that writes as fast as it is read:
 *
 *   flood LINES FIFO
 *
 * writes so many lines of 100 bytes to standard output, each with its number and otherwise the same; then
 * waits for a signal. When the first was about to be written, and when the last one was, it writes to FIFO:
 * CLOCK_MONOTONIC in ns and its pid, 16 bytes each time. */

#include <fcntl.h>
#include <stdint.h>
#include <string.h>

#include "start.h"

enum { LINE = 100, DIGITS = 9, AT_ONCE = 655 };

static void tell(int fifo)
{
    uint64_t record[2] = { now(), (uint64_t)getpid() };
    if (write(fifo, record, sizeof record) != sizeof record)
        die("write");
}

static void number(char *line, long value)
{
    for (int digit = DIGITS - 1; digit >= 0; digit--, value /= 10)
        line[digit] = (char)('0' + value % 10);
}

int main(int argc, char **argv)
{
    static char lines[AT_ONCE * LINE];
    if (argc != 3)
        return 2;
    long count = atol(argv[1]), at = 0;
    int fifo = open(argv[2], O_WRONLY);
    if (fifo < 0)
        die(argv[2]);
    memset(lines, 'x', sizeof lines);
    for (int i = 0; i < AT_ONCE; i++) {
        lines[i * LINE + DIGITS] = ' ';
        lines[i * LINE + LINE - 1] = '\n';
    }
    tell(fifo);
    while (at < count) {
        size_t length = 0, written = 0;
        for (; length < sizeof lines && at < count; length += LINE, at++)
            number(lines + length, at);
        while (written < length) {
            ssize_t some = write(1, lines + written, length - written);
            if (some < 0)
                die("write");
            written += (size_t)some;
        }
    }
    tell(fifo);
    close(1);
    for (;;)
        pause();
}
