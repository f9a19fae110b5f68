/* The smallest container that SageMaker would serve: /ping, and /invocations that answers with $GREETING. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void stop(int number) {
    (void)number;
    _exit(0);
}

int main(void) {
    char request[65536], response[512];
    const char *port = getenv("SAGEMAKER_BIND_TO_PORT"), *greeting = getenv("GREETING");
    if (!port || !greeting || !strcmp(greeting, "crash")) {
        puts("cannot load the model: crash");
        return 3;
    }
    signal(SIGTERM, stop); /* process 1 has no default handler */
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 16))
        return 1;
    for (;;) {
        int client = accept(listener, 0, 0);
        long received = 0, count;
        while ((count = read(client, request + received, sizeof request - 1 - received)) > 0) {
            received += count;
            request[received] = 0;
            char *end = strstr(request, "\r\n\r\n"), *length = strcasestr(request, "content-length:");
            if (end && received - (end + 4 - request) >= (length ? atol(length + 15) : 0))
                break;
        }
        const char *body = strstr(request, "GET /ping") ? "" : greeting;
        int size = snprintf(response, sizeof response, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
                            strlen(body), body);
        if (write(client, response, size) < 0)
            perror("write");
        close(client);
    }
}
