/* Fetches its argument by libcurl-gnutls. Declared here: Debian lets only one flavour's headers be installed. */
#include <stdio.h>

#define CURLOPT_URL 10002

extern void *curl_easy_init(void);
extern int curl_easy_setopt(void *handle, int option, ...);
extern int curl_easy_perform(void *handle);
extern const char *curl_easy_strerror(int code);
extern char *curl_version(void);

int main(int argc, char **argv)
{
    void *handle = curl_easy_init();
    int code;

    if (argc < 2)
        return puts(curl_version()) < 0;
    curl_easy_setopt(handle, CURLOPT_URL, argv[1]);
    code = curl_easy_perform(handle);
    if (code)
        fprintf(stderr, "%s\n", curl_easy_strerror(code));
    return code;
}
