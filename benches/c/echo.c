/* The program that every contestant speaks to: what it reads it writes, a megabyte at a time. */

#include <unistd.h>

static char buffer[1 << 20];

int main(void)
{
    for (;;) {
        ssize_t got = read(0, buffer, sizeof buffer);
        if (got <= 0)
            return got < 0;
        for (ssize_t done = 0; done < got;) {
            ssize_t put = write(1, buffer + done, (size_t)(got - done));
            if (put < 0)
                return 1;
            done += put;
        }
    }
}
