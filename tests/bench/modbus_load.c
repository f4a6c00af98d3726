/* A Modbus TCP server that costs next to nothing: the other side of a benchmark. Any number of clients, one epoll.
 * Prints its port. Answers function 3 with registers that hold their own address; ends when its input is closed. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST 12
#define LONGEST 259

struct client {
    int fd;
    size_t held;
    uint8_t buffer[64 * REQUEST];
};

static void die(const char *what) {
    perror(what);
    exit(1);
}

static size_t answer(const uint8_t *in, uint8_t *out) {
    unsigned first = in[8] << 8 | in[9], count = in[10] << 8 | in[11];
    memcpy(out, in, 4); /* transaction, protocol */
    out[6] = in[6];
    if (in[7] != 3 || count < 1 || count > 125) {
        out[4] = 0, out[5] = 3, out[7] = in[7] | 0x80, out[8] = 1;
        return 9;
    }
    out[4] = 0, out[5] = 3 + 2 * count, out[7] = 3, out[8] = 2 * count;
    for (unsigned i = 0; i < count; i++) {
        out[9 + 2 * i] = (first + i) >> 8;
        out[10 + 2 * i] = (first + i) & 0xff;
    }
    return 9 + 2 * count;
}

static int serve(struct client *c) {
    static uint8_t out[64 * LONGEST];
    ssize_t n = read(c->fd, c->buffer + c->held, sizeof c->buffer - c->held);
    if (n <= 0) return 0;
    c->held += n;
    size_t at = 0, size = 0;
    for (; c->held - at >= REQUEST; at += REQUEST) size += answer(c->buffer + at, out + size);
    memmove(c->buffer, c->buffer + at, c->held -= at);
    for (size_t sent = 0; sent < size; sent += n)
        if ((n = write(c->fd, out + sent, size - sent)) < 0) return 0;
    return 1;
}

int main(void) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 16)) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    event.data.u64 = 1;
    epoll_ctl(poll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    for (;;) {
        struct epoll_event ready[16];
        int count = epoll_wait(poll, ready, 16, -1);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.u64 == 1) return 0;
            if (ready[i].data.u64 == 0) {
                struct client *c = calloc(1, sizeof *c);
                c->fd = accept(listener, NULL, NULL);
                setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                event.data.ptr = c;
                epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event);
            } else if (!serve(ready[i].data.ptr)) {
                struct client *c = ready[i].data.ptr;
                close(c->fd);
                free(c);
            }
        }
    }
}
