"""The little programs by which languages and their libraries make one request: argument 1 is the URL, 2 the proxy's."""

from typing import Final

# What is asked of an interpreter first: where it lies, which of the libraries it has, what it would read.
PYTHON_ABOUT: Final = """
import importlib.util, json, ssl, sys
have = [m for m in sys.argv[1:] if importlib.util.find_spec(m)]
paths = ssl.get_default_verify_paths()
certifi = __import__("certifi").where() if importlib.util.find_spec("certifi") else None
print(json.dumps({"executable": sys.executable, "prefix": sys.prefix, "version": "%d.%d" % sys.version_info[:2],
    "have": have, "openssl": paths.cafile or paths.openssl_cafile, "certifi": certifi}))
"""

# urllib, requests, httpx, aiohttp and botocore find the proxy in the environment; urllib3 has to be told.
PYTHON: Final = {
    "urllib": """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1]).read().decode())
""",
    "requests": """
import requests, sys
print(requests.get(sys.argv[1]).text)
""",
    "httpx": """
import httpx, sys
print(httpx.get(sys.argv[1]).text)
""",
    "aiohttp": """
import aiohttp, asyncio, sys
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(sys.argv[1]) as answer:
        print(await answer.text())
asyncio.run(main())
""",
    "urllib3": """
import sys, urllib3
pool = urllib3.ProxyManager(sys.argv[2]) if sys.argv[2:] else urllib3.PoolManager()
print(pool.request("GET", sys.argv[1], retries=False).data.decode())
""",
    # Any answer will do: it isn't S3's, and says so.
    "botocore": """
import sys, botocore, botocore.config, botocore.exceptions, botocore.session
config = botocore.config.Config(signature_version=botocore.UNSIGNED, retries={"total_max_attempts": 1})
client = botocore.session.Session().create_client(
    "s3", region_name="us-east-1", endpoint_url=sys.argv[1], config=config)
try:
    client.list_buckets()
except (botocore.exceptions.ClientError, botocore.parsers.ResponseParserError):
    pass
print("answered_by")
""",
}

# Node before 24 reads no proxy variables: the CONNECT is ours, TLS and trust are Node's.
_NODE_TUNNEL: Final = """
const [url, proxy] = [new URL(process.argv[1]), process.argv[2] && new URL(process.argv[2])];
const fail = e => { console.error(e.cause || e); process.exit(1); };
const done = text => { console.log(text); process.exit(0); };
const tunnel = () => new Promise((ready, failed) => {
  const path = `${url.hostname}:443`, headers = {host: path};
  if (proxy.username)
    headers['proxy-authorization'] = 'Basic ' + Buffer.from(
      decodeURIComponent(`${proxy.username}:${proxy.password}`)).toString('base64');
  require('http').request({host: proxy.hostname, port: proxy.port || 80, method: 'CONNECT', path, headers})
    .on('connect', (_, socket) => {
      const secured = require('tls').connect({socket, servername: url.hostname, ALPNProtocols: ['http/1.1']});
      secured.once('secureConnect', () => ready(secured)).once('error', failed);
    }).on('error', failed).end();
});
"""
NODE_HTTPS: Final = (
    _NODE_TUNNEL
    + """
const get = options => require('https').get(url, {...options, headers: {host: url.hostname}}, answer => {
  let text = ''; answer.on('data', part => text += part).on('end', () => done(text)).on('error', fail);
}).on('error', fail);
if (proxy) tunnel().then(socket => get({createConnection: () => socket}), fail); else get({});
"""
)
NODE_FETCH: Final = (
    _NODE_TUNNEL
    + """
const options = async () => {
  if (!proxy) return {};
  await fetch('data:,');  // the global dispatcher is there after the first fetch
  const Agent = globalThis[Symbol.for('undici.globalDispatcher.1')].constructor;
  return {dispatcher: new Agent({connect: (_, ready) => tunnel().then(socket => ready(null, socket), ready)})};
};
options().then(o => fetch(url, o)).then(answer => answer.text()).then(done, fail);
"""
)

FETCH: Final = "console.log(await (await fetch('{url}')).text())"  # Bun and Deno read the proxy's variables

RUBY: Final = """
require 'net/http'
url, proxy = URI(ARGV[0]), (ARGV[1] && URI(ARGV[1]))
who = proxy ? [proxy.host, proxy.port, proxy.user, proxy.password] : [nil]
puts Net::HTTP.start(url.host, url.port, *who, use_ssl: true) { |http| http.get(url.path).body }
"""

PHP_STREAMS: Final = """
$proxy = parse_url($argv[2] ?? '');
$options = empty($proxy['host']) ? [] : ['proxy' => 'tcp://' . $proxy['host'] . ':' . ($proxy['port'] ?? 80)];
$answer = file_get_contents($argv[1], false, stream_context_create(['http' => $options]));
if ($answer === false) exit(1);
echo $answer;
"""
PHP_CURL: Final = """
$curl = curl_init($argv[1]);
curl_setopt($curl, CURLOPT_RETURNTRANSFER, true);
$answer = curl_exec($curl);
if ($answer === false) { fwrite(STDERR, curl_error($curl)); exit(1); }
echo $answer;
"""

PERL_LWP: Final = """
use LWP::UserAgent;
my $answer = LWP::UserAgent->new(env_proxy => 1)->get($ARGV[0]);
die $answer->status_line . ' ' . $answer->content unless $answer->is_success;
print $answer->content;
"""
PERL_TINY: Final = """
use HTTP::Tiny;
my $answer = HTTP::Tiny->new(verify_SSL => 1)->get($ARGV[0]);
die $answer->{status} . ' ' . $answer->{content} unless $answer->{success};
print $answer->{content};
"""

# Nothing but the one host: a browser has much to ask of its maker when it starts.
PAC: Final = (
    "data:application/x-ns-proxy-autoconfig,function FindProxyForURL(u,h)"
    '{return h=="{host}"?"{way}":"PROXY 127.0.0.1:9"}'
)
