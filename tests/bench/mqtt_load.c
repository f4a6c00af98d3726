/* A load generator for MQTT 3.1.1 brokers on one thread: publishers and subscribers, any QoS, closed loop.
 *
 *   mqtt_load PORT PUBLISHERS SUBSCRIBERS QOS PAYLOAD COUNT WINDOW RATE [PAIRS]
 *
 * COUNT messages are published in all. Subscribers take "b/#"; with PAIRS=1 subscriber i takes publisher i alone.
 * WINDOW: with QoS 1 and 2 the messages each publisher has in flight; with QoS 0 what may be on its way to the slowest
 * subscriber, so that no broker is driven into dropping. RATE: messages a second over all publishers, 0 = as fast as
 * the window allows. The first 8 bytes of a payload are the time it was due or sent at, in ns.
 *
 * Prints one line of JSON: seconds, published, delivered, duplicates are counted as deliveries, p50_us, p99_us, cpu_s.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_SIZE (256 * 1024)
#define OUT_SIZE (1024 * 1024)

struct peer {
    int fd, is_publisher, number, wants_out;
    unsigned char *in, *out;
    size_t in_len, out_from, out_len;
    uint16_t next_id;
    long in_flight, received, sent;
};

static int port, publishers, subscribers, qos, payload_size, pairs, ep;
static long count, window_size, published, delivered, *latency, latencies;
static double rate;
static struct peer *peers;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(struct peer *p, int out) {
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = p};
    if (epoll_ctl(ep, EPOLL_CTL_MOD, p->fd, &e)) fail("epoll_ctl");
    p->wants_out = out;
}

static void flush(struct peer *p) {
    while (p->out_from < p->out_len) {
        ssize_t n = send(p->fd, p->out + p->out_from, p->out_len - p->out_from, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!p->wants_out) watch(p, 1);
            return;
        }
        if (n <= 0) fail("send");
        p->out_from += n;
    }
    p->out_from = p->out_len = 0;
    if (p->wants_out) watch(p, 0);
}

static unsigned char *room(struct peer *p, size_t n) {
    if (p->out_len + n > OUT_SIZE) {
        memmove(p->out, p->out + p->out_from, p->out_len - p->out_from);
        p->out_len -= p->out_from;
        p->out_from = 0;
        if (p->out_len + n > OUT_SIZE) return NULL;
    }
    unsigned char *at = p->out + p->out_len;
    p->out_len += n;
    return at;
}

static void answer(struct peer *p, unsigned char first, const unsigned char *id) {
    unsigned char *at = room(p, 4);
    if (!at) fail("output is full");
    at[0] = first, at[1] = 2, at[2] = id[0], at[3] = id[1];
}

static int publish(struct peer *p, int64_t stamp) {
    char topic[32];
    int t = snprintf(topic, sizeof topic, "b/%d", p->number);
    size_t rest = 2 + t + (qos ? 2 : 0) + payload_size;
    size_t head = rest < 128 ? 2 : rest < 16384 ? 3 : 4;
    unsigned char *at = room(p, head + rest);
    if (!at) return 0;
    *at++ = 0x30 | qos << 1;
    for (size_t left = rest; head > 1; head--, left >>= 7) *at++ = (left & 127) | (head > 2 ? 128 : 0);
    *at++ = 0, *at++ = t;
    memcpy(at, topic, t), at += t;
    if (qos) {
        if (!++p->next_id) ++p->next_id;
        *at++ = p->next_id >> 8, *at++ = p->next_id;
    }
    memset(at, 'x', payload_size);
    memcpy(at, &stamp, sizeof stamp);
    p->in_flight++, p->sent++, published++;
    return 1;
}

static void packet(struct peer *p, unsigned char first, unsigned char *body, size_t len) {
    switch (first >> 4) {
    case 3: {
        int q = first >> 1 & 3, t = body[0] << 8 | body[1];
        unsigned char *rest = body + 2 + t;
        if (q == 1) answer(p, 0x40, rest);
        if (q == 2) answer(p, 0x50, rest);
        if (q) rest += 2;
        int64_t stamp;
        memcpy(&stamp, rest, sizeof stamp);
        if (latencies < count * subscribers) latency[latencies++] = now_ns() - stamp;
        p->received++, delivered++;
        break;
    }
    case 4: p->in_flight--; break;
    case 5: answer(p, 0x62, body); break;
    case 6: answer(p, 0x70, body); break;
    case 7: p->in_flight--; break;
    default: break;
    }
    (void)len;
}

static void receive(struct peer *p) {
    ssize_t n = recv(p->fd, p->in + p->in_len, IN_SIZE - p->in_len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        fprintf(stderr, "%s %d: connection closed by the broker\n", p->is_publisher ? "publisher" : "subscriber", p->number);
        exit(1);
    }
    p->in_len += n;
    size_t at = 0;
    for (;;) {
        size_t left = p->in_len - at, len = 0, h = 1;
        if (left < 2) break;
        int shift = 0, whole = 0;
        while (h < left && h < 5) {
            len |= (size_t)(p->in[at + h] & 127) << shift, shift += 7;
            if (!(p->in[at + h++] & 128)) { whole = 1; break; }
        }
        if (!whole || left < h + len) break;
        packet(p, p->in[at], p->in + at + h, len);
        at += h + len;
    }
    memmove(p->in, p->in + at, p->in_len - at);
    p->in_len -= at;
}

static void dial(struct peer *p, int number, int is_publisher) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    unsigned char b[128], answer_[4];
    p->number = number, p->is_publisher = is_publisher;
    p->in = malloc(IN_SIZE), p->out = malloc(OUT_SIZE);
    p->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (p->fd < 0 || connect(p->fd, (void *)&a, sizeof a)) fail("connect");
    setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    char id[32];
    int n = snprintf(id, sizeof id, "%c%d", is_publisher ? 'p' : 's', number);
    memcpy(b, "\x10\0\0\4MQTT\4\2\0\0\0", 13);
    b[1] = 12 + n, b[13] = n, memcpy(b + 14, id, n);
    if (send(p->fd, b, 14 + n, 0) != 14 + n) fail("send");
    if (recv(p->fd, answer_, 4, MSG_WAITALL) != 4 || answer_[0] != 0x20 || answer_[3]) fail("CONNACK");
    if (!is_publisher) {
        char filter[32];
        int t = pairs ? snprintf(filter, sizeof filter, "b/%d", number) : snprintf(filter, sizeof filter, "b/#");
        unsigned char suback[5];
        memcpy(b, "\x82\0\0\1\0\0", 6);
        b[1] = 5 + t, b[5] = t, memcpy(b + 6, filter, t), b[6 + t] = qos;
        if (send(p->fd, b, 7 + t, 0) != 7 + t) fail("send");
        if (recv(p->fd, suback, 5, MSG_WAITALL) != 5 || suback[0] != 0x90 || suback[4] > 2) fail("SUBACK");
    }
    fcntl(p->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = p};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, p->fd, &e)) fail("epoll_ctl");
}

static int by_size(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static long slowest(void) {
    long least = -1;
    for (int i = publishers; i < publishers + subscribers; i++)
        if (least < 0 || peers[i].received < least) least = peers[i].received;
    return least < 0 ? published : least * (pairs ? subscribers : 1);
}

static void produce(int64_t start) {
    long due = rate ? (long)((now_ns() - start) / 1e9 * rate) + 1 : count;
    long low = qos ? 0 : slowest();
    for (int moved = 1; moved && published < count && published < due;) {
        moved = 0;
        for (int i = 0; i < publishers && published < count && published < due; i++) {
            struct peer *p = &peers[i];
            for (int burst = 0; burst < 8 && published < count && published < due; burst++) {
                if (qos ? p->in_flight >= window_size : published - low >= window_size) break;
                if (!publish(p, rate ? start + (int64_t)(published / rate * 1e9) : now_ns())) break;
                moved = 1;
            }
        }
    }
}

int main(int argc, char **argv) {
    if (argc < 9) return fprintf(stderr, "see the head of mqtt_load.c\n"), 2;
    port = atoi(argv[1]), publishers = atoi(argv[2]), subscribers = atoi(argv[3]), qos = atoi(argv[4]);
    payload_size = atoi(argv[5]), count = atol(argv[6]), window_size = atol(argv[7]), rate = atof(argv[8]);
    pairs = argc > 9 && atoi(argv[9]);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* else each wait ends 50 us late, which would count as the broker's */
    ep = epoll_create1(0);
    peers = calloc(publishers + subscribers, sizeof *peers);
    latency = malloc(sizeof *latency * (count * subscribers + 1));
    for (int i = 0; i < subscribers; i++) dial(&peers[publishers + i], i, 0);
    for (int i = 0; i < publishers; i++) dial(&peers[i], i, 1);
    long wanted = count * (pairs ? 1 : subscribers), in_flight = 1;
    int64_t start = now_ns(), heard = start;
    while (delivered < wanted || in_flight) {
        struct epoll_event events[256];
        produce(start);
        for (int i = 0; i < publishers + subscribers; i++)
            if (peers[i].out_len && !peers[i].wants_out) flush(&peers[i]);
        int64_t wait = 100000000;
        if (rate && published < count) {
            int64_t next = start + (int64_t)(published / rate * 1e9) - now_ns();
            wait = next < 0 ? 0 : next < wait ? next : wait;
        }
        struct timespec pause = {wait / 1000000000, wait % 1000000000};
        int n = epoll_pwait2(ep, events, 256, &pause, NULL);
        for (int i = 0; i < n; i++) {
            struct peer *p = events[i].data.ptr;
            if (events[i].events & EPOLLIN) receive(p);
            if (events[i].events & EPOLLOUT) flush(p);
            if (events[i].events & (EPOLLERR | EPOLLHUP)) fail("a connection broke");
        }
        if (n) heard = now_ns();
        if (published >= count && now_ns() - heard > 3000000000LL) break; /* the rest was dropped */
        in_flight = 0;
        if (qos) for (int i = 0; i < publishers; i++) in_flight += peers[i].in_flight;
    }
    double seconds = ((delivered < wanted ? heard : now_ns()) - start) / 1e9;
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    qsort(latency, latencies, sizeof *latency, by_size);
    printf("{\"seconds\":%.4f,\"published\":%ld,\"delivered\":%ld,\"p50_us\":%.1f,\"p99_us\":%.1f,\"cpu_s\":%.3f}\n", seconds,
           published, delivered, latencies ? latency[latencies / 2] / 1e3 : 0.0,
           latencies ? latency[latencies * 99 / 100] / 1e3 : 0.0,
           use.ru_utime.tv_sec + use.ru_stime.tv_sec + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6);
    return 0;
}
