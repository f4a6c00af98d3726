/* A Modbus server on libmodbus for tests: gcc modbus_server.c $(pkg-config --cflags --libs libmodbus)
 *
 * Without arguments it speaks Modbus TCP and prints the port it listens on (127.0.0.1, any free one). With a path and a
 * unit it speaks RTU there as that unit, 115200 8N1, prints 0, and ends when the line does. Each line on its input is a
 * command, answered with "ok":
 *   set TABLE ADDRESS HEX...      registers or bits (TABLE: holding input coil discrete)
 *   get TABLE ADDRESS COUNT       answered with as many numbers in hex, as others have written them
 *   float ADDRESS ORDER           answered with the float in holding registers, as libmodbus itself reads that order
 *                                 (its functions that set one mix bytes on little-endian machines: libmodbus#807)
 *   refuse TABLE FIRST LAST CODE  answer exception CODE to a read that touches one of these
 *   limit COUNT CODE              answer exception CODE to a read of more than COUNT
 *   pause MS                      wait before each answer
 *   heal                          forget refuse, limit and pause
 * It ends when its input does. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>
#include <modbus.h>

#define ALL 65536
#define HOLES 64

static struct { int function, first, last, code; } holes[HOLES];
static int hole_count, limit_count, limit_code, pause_ms;

static int function_of(const char *table) {
    if (!strcmp(table, "coil")) return 1;
    if (!strcmp(table, "discrete")) return 2;
    return !strcmp(table, "holding") ? 3 : 4;
}

static void set(modbus_mapping_t *map, char *rest) {
    char *word = strtok(rest, " \n");
    int function = function_of(word), at = atoi(strtok(NULL, " \n"));
    while ((word = strtok(NULL, " \n")) != NULL) {
        unsigned value = strtoul(word, NULL, 16);
        if (function == 1) map->tab_bits[at++] = value;
        if (function == 2) map->tab_input_bits[at++] = value;
        if (function == 3) map->tab_registers[at++] = value;
        if (function == 4) map->tab_input_registers[at++] = value;
    }
}

static void get(const modbus_mapping_t *map, const char *rest) {
    char table[16];
    int at, count;
    if (sscanf(rest, "%15s %d %d", table, &at, &count) != 3) return;
    for (int i = at; i < at + count; i++) {
        int function = function_of(table);
        printf("%x ", function == 1 ? map->tab_bits[i] : function == 2 ? map->tab_input_bits[i]
                    : function == 3 ? map->tab_registers[i] : map->tab_input_registers[i]);
    }
    printf("\n");
}

static void show_float(const modbus_mapping_t *map, const char *rest) {
    int at;
    char order[8];
    if (sscanf(rest, "%d %7s", &at, order) != 2) return;
    const uint16_t *words = map->tab_registers + at;
    if (!strcmp(order, "ABCD")) printf("%.9g\n", modbus_get_float_abcd(words));
    if (!strcmp(order, "CDAB")) printf("%.9g\n", modbus_get_float_cdab(words));
    if (!strcmp(order, "BADC")) printf("%.9g\n", modbus_get_float_badc(words));
    if (!strcmp(order, "DCBA")) printf("%.9g\n", modbus_get_float_dcba(words));
}

static void obey(modbus_mapping_t *map, char *line) {
    char table[16];
    if (!strncmp(line, "set ", 4)) set(map, line + 4);
    if (!strncmp(line, "get ", 4)) {
        get(map, line + 4);
        return;
    }
    if (!strncmp(line, "float ", 6)) {
        show_float(map, line + 6);
        return;
    }
    if (sscanf(line, "refuse %15s %d %d %d", table, &holes[hole_count].first, &holes[hole_count].last,
               &holes[hole_count].code) == 4 && hole_count < HOLES - 1)
        holes[hole_count++].function = function_of(table);
    sscanf(line, "limit %d %d", &limit_count, &limit_code);
    sscanf(line, "pause %d", &pause_ms);
    if (!strncmp(line, "heal", 4)) hole_count = limit_count = pause_ms = 0;
    printf("ok\n");
}

static void answer(modbus_t *ctx, modbus_mapping_t *map, const uint8_t *query, int length) {
    const uint8_t *pdu = query + modbus_get_header_length(ctx);
    int function = pdu[0], first = pdu[1] << 8 | pdu[2], count = pdu[3] << 8 | pdu[4], code = 0;
    for (int i = 0; i < hole_count; i++)
        if (holes[i].function == function && first <= holes[i].last && first + count > holes[i].first)
            code = holes[i].code;
    if (limit_count && count > limit_count) code = limit_code;
    if (pause_ms) usleep(pause_ms * 1000);
    if (code) modbus_reply_exception(ctx, query, code);
    else modbus_reply(ctx, query, length, map);
}

static int serve_rtu(const char *path, int unit, modbus_mapping_t *map) {
    modbus_t *ctx = modbus_new_rtu(path, 115200, 'N', 8, 1);
    modbus_set_slave(ctx, unit);
    if (modbus_connect(ctx)) return 1;
    printf("0\n");
    for (int fd = modbus_get_socket(ctx);;) {
        fd_set ready;
        FD_ZERO(&ready);
        FD_SET(fd, &ready);
        FD_SET(0, &ready);
        if (select(fd + 1, &ready, NULL, NULL, NULL) < 0) return 1;
        if (FD_ISSET(0, &ready)) {
            char line[4096];
            if (!fgets(line, sizeof line, stdin)) return 0;
            obey(map, line);
        }
        if (FD_ISSET(fd, &ready)) {
            uint8_t query[MODBUS_RTU_MAX_ADU_LENGTH];
            int length = modbus_receive(ctx, query);
            if (length > 0) answer(ctx, map, query, length);
            else if (length < 0 && errno != EMBBADCRC && errno != ETIMEDOUT) return 0;
        }
    }
}

int main(int argc, char **argv) {
    setvbuf(stdin, NULL, _IONBF, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 3) return serve_rtu(argv[1], atoi(argv[2]), modbus_mapping_new(ALL, ALL, ALL, ALL));
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", 0);
    modbus_mapping_t *map = modbus_mapping_new(ALL, ALL, ALL, ALL);
    int listener = modbus_tcp_listen(ctx, 8), top = listener;
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    if (!map || listener < 0 || getsockname(listener, (struct sockaddr *)&name, &size)) return 1;
    printf("%d\n", ntohs(name.sin_port));
    fd_set all;
    FD_ZERO(&all);
    FD_SET(listener, &all);
    FD_SET(0, &all);
    for (;;) {
        fd_set ready = all;
        if (select(top + 1, &ready, NULL, NULL, NULL) < 0) return 1;
        for (int fd = 0; fd <= top; fd++) {
            if (!FD_ISSET(fd, &ready)) continue;
            if (fd == 0) {
                char line[4096];
                if (!fgets(line, sizeof line, stdin)) return 0;
                obey(map, line);
            } else if (fd == listener) {
                int client = modbus_tcp_accept(ctx, &listener);
                if (client < 0) continue;
                FD_SET(client, &all);
                if (client > top) top = client;
            } else {
                uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
                modbus_set_socket(ctx, fd);
                int length = modbus_receive(ctx, query);
                if (length > 0) answer(ctx, map, query, length);
                else if (length < 0) {
                    close(fd);
                    FD_CLR(fd, &all);
                }
            }
        }
    }
}
