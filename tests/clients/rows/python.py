"""Python's libraries."""

import textwrap
from typing import Final

from tests.clients.client import Client

_ASYNC: Final = "import asyncio, sys\nasync def main():\n{}\nasyncio.run(main())"


def _library(
    name: str, tls: str, code: str, *, module: str = "", quick: bool = False, note: str = "", exception: str = ""
) -> Client:
    interpreter = "{python}" if quick else "{venv}/python"
    text = textwrap.dedent(code).strip()
    if "await" in text or "async " in text:
        text = _ASYNC.format(textwrap.indent(text, "    "))
    distribution = f"import importlib.metadata as m; print(m.version({(module or name)!r}))"
    return Client(
        name=name,
        tls=tls,
        command=(interpreter, "-c", "import sys\n" + text, "{url}"),
        version=(interpreter, "-c", distribution),
        quick=quick,
        note=note,
        exception=exception,
    )


CLIENTS: Final = (
    Client(
        name="urllib",
        tls="OpenSSL",
        command=(
            "{python}",
            "-c",
            "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())",
            "{url}",
        ),
        version=("{python}", "--version"),
        quick=True,
    ),
    _library(
        "urllib3",
        "OpenSSL",
        "import urllib3; print(urllib3.request('GET', sys.argv[1], retries=False).data)",
    ),
    _library("requests", "OpenSSL", "import requests; print(requests.get(sys.argv[1]).text)", quick=True),
    _library("HTTPX", "OpenSSL", "import httpx; print(httpx.get(sys.argv[1]).text)", module="httpx", quick=True),
    _library(
        "aiohttp",
        "OpenSSL",
        """
        import aiohttp
        async with aiohttp.ClientSession(trust_env=True) as session, session.get(sys.argv[1]) as response:
            print(await response.text())
        """,
        quick=True,
        note="reads proxy variables with `trust_env=True`",
    ),
    _library(
        "Tornado",
        "OpenSSL",
        """
        from tornado.httpclient import AsyncHTTPClient
        print((await AsyncHTTPClient().fetch(sys.argv[1])).body)
        """,
        module="tornado",
    ),
    _library("Niquests", "OpenSSL", "import niquests; print(niquests.get(sys.argv[1]).text)", module="niquests"),
    _library("httplib2", "OpenSSL", "import httplib2; print(httplib2.Http().request(sys.argv[1])[1])"),
    _library(
        "boto3",
        "OpenSSL (botocore)",
        """
        import boto3, botocore
        config = botocore.config.Config(signature_version=botocore.UNSIGNED, retries={"max_attempts": 0})
        s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1", config=config)
        print(s3.get_object(Bucket="marker", Key="index.html")["Body"].read())
        """,
    ),
    _library(
        "websocket-client",
        "OpenSSL",
        "import websocket; print(websocket.create_connection(sys.argv[1].replace('https', 'wss')).recv())",
    ),
    _library(
        "websockets",
        "OpenSSL",
        """
        import websockets
        async with websockets.connect(sys.argv[1].replace("https", "wss")) as socket:
            print(await socket.recv())
        """,
    ),
    _library(
        "Twisted (treq)",
        "OpenSSL (pyOpenSSL)",
        """
        import treq
        from twisted.internet import task
        async def get(reactor):
            print(await treq.text_content(await treq.get(sys.argv[1])))
        task.react(lambda reactor: __import__("twisted.internet.defer").internet.defer.ensureDeferred(get(reactor)))
        """,
        module="treq",
    ),
    _library(
        "PycURL",
        "OpenSSL (libcurl)",
        """
        import pycurl
        curl = pycurl.Curl()
        curl.setopt(pycurl.URL, sys.argv[1])
        curl.perform()
        """,
        module="pycurl",
    ),
    _library(
        "curl_cffi",
        "BoringSSL (libcurl)",
        "from curl_cffi import requests; print(requests.get(sys.argv[1]).text)",
    ),
    _library(
        "pyreqwest",
        "rustls",
        """
        from pyreqwest.client import ClientBuilder
        async with ClientBuilder().build() as client:
            print(await (await client.get(sys.argv[1]).build().send()).text())
        """,
    ),
    _library("primp", "rustls", "import primp; print(primp.get(sys.argv[1]).text)"),
    _library(
        "wreq",
        "BoringSSL",
        "import wreq; print(await (await wreq.get(sys.argv[1])).text())",
        exception="brings its own roots and reads nothing; tell it by `tls_verify=Path(…)`",
    ),
    _library("impit", "rustls", "import impit; print(impit.get(sys.argv[1]).text)"),
    _library(
        "OpenAI's library",
        "OpenSSL",
        """
        from openai import OpenAI
        client = OpenAI(api_key="none", base_url=sys.argv[1], max_retries=0)
        print(client.get("/index.html", cast_to=str))
        """,
        module="openai",
    ),
    _library(
        "Anthropic's library",
        "OpenSSL",
        """
        from anthropic import Anthropic
        client = Anthropic(api_key="none", base_url=sys.argv[1], max_retries=0)
        print(client.get("/index.html", cast_to=str))
        """,
        module="anthropic",
    ),
    _library(
        "Hugging Face Hub",
        "OpenSSL",
        """
        from huggingface_hub import get_session
        print(get_session().get(sys.argv[1]).text)
        """,
        module="huggingface-hub",
    ),
    _library(
        "truststore",
        "OpenSSL",
        """
        import truststore, urllib.request
        truststore.inject_into_ssl()
        print(urllib.request.urlopen(sys.argv[1]).read())
        """,
    ),
)
