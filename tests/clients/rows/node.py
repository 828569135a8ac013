"""Node's libraries, and the other runtimes of JavaScript."""

from typing import Final

from tests.clients.client import Client

_FETCH: Final = "console.log(await (await fetch(process.argv.at(-1))).text())"


def _library(name: str, code: str, *, note: str = "") -> Client:
    package = name.lower()
    return Client(
        name=name,
        tls="OpenSSL (Node)",
        command=("node", "--input-type=module", "-e", f"const url = process.argv.at(-1); {code}", "{url}"),
        version=("node", "-p", f"JSON.parse(fs.readFileSync('node_modules/{package}/package.json')).version"),
        note=note,
    )


CLIENTS: Final = (
    Client(
        name="Node's https",
        tls="OpenSSL (Node)",
        command=(
            "node",
            "-e",
            "require('https').get(process.argv.at(-1), response => response.pipe(process.stdout))",
            "{url}",
        ),
        version=("node", "--version"),
        quick=True,
    ),
    Client(
        name="Node's fetch",
        tls="OpenSSL (Node)",
        command=("node", "--input-type=module", "-e", _FETCH, "{url}"),
        version=("node", "--version"),
        quick=True,
    ),
    _library(
        "undici",
        "import { request, EnvHttpProxyAgent } from 'undici';"
        "console.log(await (await request(url, {dispatcher: new EnvHttpProxyAgent()})).body.text())",
        note="reads proxy variables with `EnvHttpProxyAgent`",
    ),
    _library("axios", "import axios from 'axios'; console.log((await axios.get(url)).data)"),
    _library("got", "import got from 'got'; console.log((await got(url, {retry: {limit: 0}})).body)"),
    _library("ky", "import ky from 'ky'; console.log(await ky(url, {retry: 0}).text())"),
    _library("node-fetch", "import fetch from 'node-fetch'; console.log(await (await fetch(url)).text())"),
    _library("superagent", "import agent from 'superagent'; console.log((await agent.get(url)).text)"),
    _library(
        "needle",
        "import needle from 'needle'; console.log((await needle('get', url)).body.toString())",
        note="asks the proxy itself for the `https://` page, without a tunnel",
    ),
    _library(
        "ws",
        "import WebSocket from 'ws';"
        "new WebSocket(url.replace('https', 'wss')).on('message', data => console.log(data.toString()))",
    ),
    Client(
        name="OpenAI's library (Node)",
        tls="OpenSSL (Node)",
        command=(
            "node",
            "--input-type=module",
            "-e",
            "import OpenAI from 'openai';"
            "const client = new OpenAI({apiKey: 'none', baseURL: process.argv.at(-1), maxRetries: 0});"
            "console.log(await client.get('/index.html'))",
            "{url}",
        ),
        version=("node", "-p", "JSON.parse(fs.readFileSync('node_modules/openai/package.json')).version"),
    ),
    Client(
        name="Bun's fetch",
        tls="BoringSSL",
        command=("{modules}/@oven/bun-linux-x64/bin/bun", "-e", _FETCH, "{url}"),
        version=("{modules}/@oven/bun-linux-x64/bin/bun", "--version"),
    ),
    Client(
        name="Deno's fetch",
        tls="rustls",
        command=("{modules}/@deno/linux-x64-glibc/deno", "run", "--allow-net", "get.mjs", "{url}"),
        version=("{modules}/@deno/linux-x64-glibc/deno", "--version"),
        files={"get.mjs": "console.log(await (await fetch(Deno.args[0])).text())"},
    ),
)
