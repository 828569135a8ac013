// Fetches its argument by HttpsURLConnection.
import java.net.URI;

class UrlConnectionGet {
    public static void main(String[] arguments) throws Exception {
        try (var body = URI.create(arguments[0]).toURL().openStream()) {
            System.out.print(new String(body.readAllBytes()));
        }
    }
}
