"""The other languages."""

from typing import Final

from tests.clients.client import Client

_GUZZLE: Final = """
require 'GuzzleHttp/autoload.php';
echo (new GuzzleHttp\\Client())->get($argv[1])->getBody();
"""
_MOJO: Final = """
my $ua = Mojo::UserAgent->new;
$ua->proxy->detect;
print $ua->get(shift)->result->body
"""
_LUA: Final = """
local headers, stream = require('http.request').new_from_uri(arg[1]):go(10)
print(headers and stream:get_body_as_string() or stream)
"""
_RACKET: Final = """
(parameterize ([current-https-protocol (ssl-secure-client-context)])
  (display (port->string (get-pure-port (string->url (vector-ref (current-command-line-arguments) 0))))))
"""
_ERLANG: Final = """
{ok, _} = application:ensure_all_started(ssl),
{ok, _} = application:ensure_all_started(inets),
[Url] = init:get_plain_arguments(),
Match = public_key:pkix_verify_hostname_match_fun(https),
Roots = public_key:cacerts_get(),
Options = [{verify, verify_peer}, {cacerts, Roots}, {customize_hostname_check, [{match_fun, Match}]}],
io:format("~p~n", [httpc:request(get, {Url, []}, [{ssl, Options}], [])]),
halt().
"""


def _ruby(name: str, gem: str, code: str) -> Client:
    return Client(
        name=name,
        tls="OpenSSL",
        command=(
            "ruby",
            f"-r{gem.replace('-', '/') if gem == 'net-http' else gem.replace('-', '_')}",
            "-e",
            code,
            "{url}",
        ),
        version=("ruby", "-e", f"puts Gem::Specification.find_by_name('{gem}').version"),
    )


CLIENTS: Final = (
    Client(name="Go's net/http", tls="Go", command=("{built}/get", "{url}"), version=("go", "version")),
    Client(
        name="Java's HttpClient",
        tls="Java",
        command=("java", "-cp", "{built}", "HttpClientGet", "{url}"),
        version=("java", "-version"),
        quick=True,
    ),
    Client(
        name="Java's HttpsURLConnection",
        tls="Java",
        command=("java", "-cp", "{built}", "UrlConnectionGet", "{url}"),
        version=("java", "-version"),
        quick=True,
    ),
    Client(
        name="libcurl-gnutls (C)",
        tls="GnuTLS",
        command=("{built}/gnutls", "{url}"),
        version=("{built}/gnutls",),
    ),
    Client(name="libsoup 3 (C)", tls="GnuTLS (GLib)", command=("{built}/soup", "{url}"), version=("{built}/soup",)),
    Client(name="Qt 5 (C++)", tls="OpenSSL", command=("{built}/qt", "{url}"), version=("{built}/qt",)),
    Client(
        name="std.net.curl (D)", tls="OpenSSL (libcurl)", command=("{built}/curl", "{url}"), version=("{built}/curl",)
    ),
    Client(
        name="http-conduit (Haskell)",
        tls="Haskell's tls",
        command=("{built}/conduit", "{url}"),
        version=("ghc-pkg", "latest", "http-conduit"),
    ),
    Client(
        name="httpclient (Nim)", tls="OpenSSL", command=("{built}/httpclient", "{url}"), version=("nim", "--version")
    ),
    Client(
        name="HttpClient (Mono)",
        tls="BoringSSL",
        exception="reads a store of its own, which `cert-sync --user bundle.pem` fills",
        command=("mono", "{built}/get.exe", "{url}"),
        version=("mono", "--version"),
    ),
    _ruby("Net::HTTP (Ruby)", "net-http", "puts Net::HTTP.get(URI(ARGV[0]))"),
    _ruby("Faraday (Ruby)", "faraday", "puts Faraday.get(ARGV[0]).body"),
    _ruby("HTTParty (Ruby)", "httparty", "puts HTTParty.get(ARGV[0]).body"),
    _ruby("Excon (Ruby)", "excon", "puts Excon.get(ARGV[0]).body"),
    _ruby("rest-client (Ruby)", "rest-client", "puts RestClient.get(ARGV[0]).body"),
    _ruby("httpclient (Ruby)", "httpclient", "puts HTTPClient.get_content(ARGV[0])"),
    _ruby("http.rb (Ruby)", "http", "puts HTTP.get(ARGV[0]).to_s"),
    Client(
        name="Typhoeus (Ruby)",
        tls="OpenSSL (libcurl)",
        command=("ruby", "-rtyphoeus", "-e", "puts Typhoeus.get(ARGV[0]).body", "{url}"),
        version=("ruby", "-e", "puts Gem::Specification.find_by_name('typhoeus').version"),
    ),
    Client(
        name="PHP's streams",
        tls="OpenSSL",
        command=("php", "-r", "echo file_get_contents($argv[1]);", "{url}"),
        version=("php", "--version"),
    ),
    Client(
        name="PHP's curl",
        tls="OpenSSL (libcurl)",
        command=("php", "-r", "curl_exec(curl_init($argv[1]));", "{url}"),
        version=("php", "--version"),
    ),
    Client(
        name="Guzzle (PHP)",
        tls="OpenSSL (libcurl)",
        command=("php", "-r", _GUZZLE, "{url}"),
        version=("dpkg-query", "-W", "php-guzzlehttp-guzzle"),
    ),
    Client(
        name="LWP (Perl)",
        tls="OpenSSL",
        command=(
            "perl",
            "-MLWP::UserAgent",
            "-e",
            "print LWP::UserAgent->new(env_proxy => 1)->get(shift)->content",
            "{url}",
        ),
        version=("perl", "-MLWP", "-e", "print LWP->VERSION"),
        note="reads proxy variables with `env_proxy => 1`",
    ),
    Client(
        name="HTTP::Tiny (Perl)",
        tls="OpenSSL",
        command=(
            "perl",
            "-MHTTP::Tiny",
            "-e",
            "print HTTP::Tiny->new(verify_SSL => 1)->get(shift)->{content}",
            "{url}",
        ),
        version=("perl", "-MHTTP::Tiny", "-e", "print HTTP::Tiny->VERSION"),
        note="verifies with `verify_SSL => 1`",
    ),
    Client(
        name="Mojo::UserAgent (Perl)",
        tls="OpenSSL",
        command=("perl", "-MMojo::UserAgent", "-e", _MOJO, "{url}"),
        version=("perl", "-MMojolicious", "-e", "print Mojolicious->VERSION"),
        note="reads proxy variables with `proxy->detect`",
    ),
    Client(
        name="WWW::Curl (Perl)",
        tls="GnuTLS (libcurl)",
        command=(
            "perl",
            "-MWWW::Curl::Easy",
            "-e",
            "my $c = WWW::Curl::Easy->new; $c->setopt(CURLOPT_URL, shift); $c->perform",
            "{url}",
        ),
        version=("perl", "-MWWW::Curl", "-e", "print WWW::Curl->VERSION"),
    ),
    Client(
        name="url() (R)",
        tls="OpenSSL (libcurl)",
        command=("Rscript", "-e", "cat(readLines(url(commandArgs(TRUE)[1])))", "{url}"),
        version=("Rscript", "--version"),
    ),
    Client(
        name="curl (R)",
        tls="OpenSSL (libcurl)",
        command=("Rscript", "-e", "cat(readLines(curl::curl(commandArgs(TRUE)[1])))", "{url}"),
        version=("Rscript", "-e", "packageVersion('curl')"),
    ),
    Client(
        name="httpc (Erlang)",
        tls="Erlang",
        command=("erl", "-noshell", "-eval", _ERLANG, "-extra", "{url}"),
        version=("erl", "-noshell", "-eval", 'io:format("~s.0~n", [erlang:system_info(otp_release)]), halt().'),
        note="verifies with `verify_peer` and `public_key:cacerts_get()`",
    ),
    Client(
        name="Racket",
        tls="OpenSSL",
        command=(
            "racket",
            *["-l", "racket/base", "-l", "racket/port", "-l", "net/url", "-l", "net/url-connect", "-l", "openssl"],
            "-e",
            _RACKET,
            "{url}",
        ),
        version=("racket", "--version"),
    ),
    Client(
        name="lua-http (Lua)",
        tls="OpenSSL",
        command=("lua5.1", "get.lua", "{url}"),
        files={"get.lua": _LUA},
        version=("dpkg-query", "-W", "lua-http"),
    ),
)
