// Fetches its argument by java.net.http.
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

class HttpClientGet {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newBuilder().proxy(ProxySelector.getDefault()).build();
        var request = HttpRequest.newBuilder(URI.create(arguments[0])).build();
        System.out.print(client.send(request, BodyHandlers.ofString()).body());
    }
}
