/* Fetches its argument by libsoup 3, as GNOME's programs do. */
#include <libsoup/soup.h>

int main(int argc, char **argv)
{
    GError *error = NULL;
    SoupSession *session = soup_session_new();
    SoupMessage *message;
    GBytes *body;

    if (argc < 2) {
        g_print("%u.%u.%u\n", soup_get_major_version(), soup_get_minor_version(), soup_get_micro_version());
        return 0;
    }
    message = soup_message_new("GET", argv[1]);
    body = soup_session_send_and_read(session, message, NULL, &error);
    if (!body) {
        g_printerr("%s\n", error->message);
        return 1;
    }
    g_print("%.*s", (int)g_bytes_get_size(body), (const char *)g_bytes_get_data(body, NULL));
    return 0;
}
