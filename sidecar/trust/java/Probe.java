import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.Proxy;
import java.net.URL;

/** Fetches a URL: arguments are it and, where there is a proxy, the proxy's host and port. */
public class Probe {
    public static void main(String[] arguments) throws Exception {
        Proxy proxy = Proxy.NO_PROXY;
        if (arguments.length > 1) {
            int port = Integer.parseInt(arguments[2]);
            proxy = new Proxy(Proxy.Type.HTTP, new InetSocketAddress(arguments[1], port));
        }
        HttpURLConnection connection = (HttpURLConnection) new URL(arguments[0]).openConnection(proxy);
        try (InputStream answer = connection.getInputStream()) {
            for (int next = answer.read(); next >= 0; next = answer.read()) {
                System.out.write(next);
            }
        }
        System.out.flush();
    }
}
