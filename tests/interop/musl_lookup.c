/* getaddrinfo(3) as a program: addresses, one a line, or the text of the error and its number as exit code.
 * Usage: lookup any|4|6 NAME */
#include <netdb.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct addrinfo hints = {0}, *found, *each;
    char host[64];
    int error;

    if (argc != 3)
        return 100;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_family = !strcmp(argv[1], "4") ? AF_INET : !strcmp(argv[1], "6") ? AF_INET6 : AF_UNSPEC;
    error = getaddrinfo(argv[2], NULL, &hints, &found);
    if (error) {
        fprintf(stderr, "%s\n", gai_strerror(error));
        return -error;
    }
    for (each = found; each; each = each->ai_next)
        if (!getnameinfo(each->ai_addr, each->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST))
            puts(host);
    return 0;
}
